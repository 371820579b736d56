"""Windows of two seconds of orchestral music at 16 kHz, without any condition.

    apt-get download wesnoth-1.16-music && dpkg -x wesnoth-1.16-music_*.deb sounds
    python launch.py --config configs/music.py --workdir runs/music \
        --config.data.manual_dir=sounds

The network has 5.1 M parameters; 1,500 steps of 16 windows took 2,086 s of one core that
did other work too: experiments/sound/generated.md.
"""

from ml_collections import ConfigDict

from configs import letters


def get_config() -> ConfigDict:
    """The network of letters, over 129 frames."""
    c = letters.get_config()
    c.data.name = "music"
    c.data.length = 32_768
    c.codec.mel.mean, c.codec.mel.scale = -9.35, 0.6  # of 24 windows
    c.train.batch_size = 16
    c.sample.num_images = 16
    c.sample.guidance_scale = 1.0
    c.evaluate.num_samples = 128
    return c
