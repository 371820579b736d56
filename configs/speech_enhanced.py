"""Speech without its noise: a bridge from noisy telephone prompts to clean ones, 16 kHz.

    for language in en es fr it ru; do
        apt-get download asterisk-core-sounds-$language-g722 asterisk-core-sounds-$language
    done
    for package in *.deb; do dpkg -x $package sounds; done
    python launch.py --config configs/speech_enhanced.py --workdir runs/speech_enhanced \
        --config.data.manual_dir=sounds

A recording of one's own, at 16 kHz in mono and of any length, with 4 samples of what it was:

    python launch.py --config configs/speech_enhanced.py --workdir runs/speech_enhanced \
        --config.data.manual_dir=sounds --mode restore --restore noisy.wav \
        --config.restore.num_samples=4

The noise is coloured, from white to brown, or babble of training recordings; noise of
one's own comes from a folder (docs/sound.md), and is worth having. The network is told the
noisy recording and what the state differs in from it, and finds gains for both that predict the
clean one less the noisy one.

Half the batch, 8 windows, takes 0.52 s a step on one core, and the network has 5.5 M parameters.
After 2,000 such steps, also with other noise: experiments/sound.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A transformer over frames of an MDCT of 256 bins; the schedule is a Schroedinger bridge."""
    c = default.get_config()
    c.data.name = "prompts"
    c.data.length = 32_768
    c.data.loudness = -26.0
    c.codec.name = "mdct"
    # from 512 windows; without it the highest bins have 1% of the amplitude of the strongest
    c.codec.mdct.rms = (0.049, 0.23, 0.15, 0.064, 0.023, 0.013, 0.0077)
    c.image_condition.name = "noisy"
    c.image_condition.residual = True
    c.schedule.name = "bridge"
    c.objective.prediction = "x0"
    c.objective.cond_dropout = 0.0
    c.objective.part_dropout.label = 0.5  # --mode restore knows no language
    c.model.name = "dit"
    c.model.dit.patch_size = 1
    c.model.dit.hidden_size = 256
    c.model.dit.depth = 4
    c.model.dit.num_heads = 8
    c.model.dit.rotary = True
    c.model.dit.unroll = 4
    c.model.gains = True
    c.optimizer.warmup_steps = 200
    c.train.steps = 3000
    c.train.batch_size = 16
    c.train.log_every = 100
    c.train.heldout_every = 500
    c.train.sample_every = 2000
    c.train.checkpoint_every = 500
    c.sample.sampler = "ddim"
    c.sample.steps = 20
    c.sample.num_images = 16
    c.sample.batch_size = 32
    c.restore.method = "as_trained"
    c.restore.operator = "identity"
    c.evaluate.metrics = "denoising,restored"
    c.evaluate.restored.samples = 2
    return c
