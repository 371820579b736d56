"""Strokes of 10 kinds of drums and percussion, half a second at 16 kHz, by class.

    apt-get download hydrogen-drumkits sonic-pi-samples
    for package in *.deb; do dpkg -x $package sounds; done
    python launch.py --config configs/drums.py --workdir runs/drums \
        --config.data.manual_dir=sounds

A step of 32 strokes takes 0.6 s of CPU time; the network has 1.9 M parameters and outputs gains.
After 3,500 steps, 34 minutes of one core, a classifier finds the class asked for in 78% of
the strokes, and in 70% of held-out ones: experiments/sound/generated.md.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A transformer over frames of an MDCT, two frames of 64 bins a token."""
    c = default.get_config()
    c.data.name = "drums"
    c.data.length = 8192
    c.data.loudness = -26.0
    c.codec.name = "mdct"
    c.codec.mdct.bins = 64
    # from 614 recordings; without it the highest bins have 3% of the amplitude of the strongest
    c.codec.mdct.rms = (0.21, 0.18, 0.15, 0.099, 0.04, 0.046, 0.047)
    c.model.name = "dit"
    c.model.dit.patch_size = 2
    c.model.dit.hidden_size = 128
    c.model.dit.depth = 6
    c.model.dit.num_heads = 4
    c.model.dit.rotary = True
    c.model.dit.unroll = 6
    c.model.gains = True
    c.optimizer.warmup_steps = 200
    c.train.steps = 3500
    c.train.batch_size = 32
    c.train.log_every = 100
    c.train.heldout_every = 500
    c.train.sample_every = 2500
    c.train.checkpoint_every = 500
    c.sample.sampler = "dpmpp_multistep"
    c.sample.steps = 30
    c.sample.guidance_scale = 2.0
    c.sample.batch_size = 64
    c.evaluate.metrics = "denoising"
    c.evaluate.num_samples = 512
    return c
