"""Windows of two seconds of orchestral music at 16 kHz, without any condition.

    apt-get download wesnoth-1.16-music && dpkg -x wesnoth-1.16-music_*.deb sounds
    python launch.py --config configs/music.py --workdir runs/music \
        --config.data.manual_dir=sounds

The network has 5.3 M parameters; 2,000 steps of 16 windows took 3,441 s of one core that
did other work too, after which it murmurs: experiments/sound/generated.md.
"""

from ml_collections import ConfigDict

from configs import letters


def get_config() -> ConfigDict:
    """The network of letters, over 128 frames."""
    c = letters.get_config()
    c.data.name = "music"
    c.data.length = 32_768
    # from 512 windows; without it the highest bins have 1% of the amplitude of the strongest
    c.codec.mdct.rms = (0.25, 0.16, 0.13, 0.08, 0.041, 0.018, 0.0051)
    c.train.batch_size = 16
    c.sample.num_images = 16
    c.sample.guidance_scale = 1.0
    c.evaluate.num_samples = 128
    return c
