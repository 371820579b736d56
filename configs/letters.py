"""The letters A to Z, spoken in 15 languages, a second at 16 kHz, by letter.

    apt-get download klettres-data && dpkg -x klettres-data_*.deb sounds
    python launch.py --config configs/letters.py --workdir runs/letters \
        --config.data.manual_dir=sounds

The network has 5.1 M parameters. After 1,500 steps of 32, 1,824 s of one core that did other work
too, it speaks, and few of its letters are told apart: experiments/sound/generated.md.
"""

from ml_collections import ConfigDict

from configs import drums


def get_config() -> ConfigDict:
    """The network of drums, over 65 frames."""
    c = drums.get_config()
    c.data.name = "letters"
    c.data.length = 16_384
    c.codec.mel.size, c.codec.mel.hop = 1024, 256  # long, so that harmonics are told apart
    c.codec.mel.mean, c.codec.mel.scale = -10.2, 0.64  # of 24 recordings
    c.sample.num_images = 104
    return c
