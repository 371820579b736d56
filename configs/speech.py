"""Speech of a text: telephone prompts in five languages, up to four seconds at 16 kHz.

    for language in en es fr it ru; do
        apt-get download asterisk-core-sounds-$language-g722 asterisk-core-sounds-$language
    done
    for package in *.deb; do dpkg -x $package sounds; done
    python launch.py --config configs/speech.py --workdir runs/speech \
        --config.data.manual_dir=sounds --config.sample.prompts="('your call is important',)"

The network attends to the bytes of the transcript, and is told the language, which is the voice. Of
prompts that are longer than a window, each window has the text of all: see `docs/sound.md`.

The network has 6.4 M parameters; 1,500 steps of 16 windows took 5,771 s of one core that did other
work too: experiments/sound/generated.md.
"""

from ml_collections import ConfigDict

from configs import music


def get_config() -> ConfigDict:
    """The network of music, which also attends to the text."""
    c = music.get_config()
    c.data.name = "prompts"
    c.data.length = 65_536
    c.codec.mel.mean, c.codec.mel.scale = -10.35, 0.68  # of 24 windows
    c.text.name = "bytes"
    c.text.length = 96
    c.text.pooled = False
    c.text.bytes.width = 128
    c.text.bytes.depth = 2
    c.sample.guidance_scale = 2.0
    c.evaluate.words.classes = ("en",)
    return c
