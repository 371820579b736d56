"""Text encoders, selected by the group `text`."""

import functools
from pathlib import Path

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, weights_path
from diffusion_jax.from_config.published import Published, weights_source
from diffusion_jax.models.bert import Bert
from diffusion_jax.models.clip import ACTIVATIONS, TextTower
from diffusion_jax.models.published.files import part_file
from diffusion_jax.models.weights import packaged_file
from diffusion_jax.system.files import path_of
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
FROZEN = {"minilm": MINILM_PACKAGE, "clip": ""}
"""Encoders with published weights, and the packages that contain them."""
EMPTY = "empty"
"""No text is the empty one, encoded."""
TOKENISERS = ("tokenizer.json", "vocab.json")


def make_text_encoder(config: Config) -> TextEncoder | None:
    """The frozen encoder selected by `text.name`; None for "none" and "bytes".

    Raises:
        ConfigError: an unknown encoder, a missing file or an invalid setting.
        WeightsError: a file holds other weights, or no tokeniser.
    """
    check_text(config)
    text = config.text
    if text.name not in FROZEN:
        return None
    read, tokeniser = None, load_tokeniser(tokeniser_file(config))
    if _published(config):
        published = Published.of(config, "text.name")
        weights = part_file(published.source, "text_encoder")
        read = functools.partial(published.read, "text_encoder")
    else:
        weights = _own_weights(config)
    net = Bert() if text.name == "minilm" else TextTower(**text.clip)
    if read:  # textual inversion adds tokens
        net = net.clone(vocabulary=tokeniser.vocabulary)
    return load_encoder(net, weights, tokeniser, text.length, read)


def _published(config: Config) -> bool:
    """Whether the encoder is the one among the parts of `weights.source`."""
    text = config.text
    return text.name == "clip" and not text.weights and bool(weights_source(config))


def _own_weights(config: Config) -> Path:
    package = FROZEN[config.text.name]
    installed = packaged_file(package, MINILM_FILE)
    return weights_path(config, "text.name", installed, MINILM_FILE, package)


def tokeniser_file(config: Config) -> Path:
    """The file of a frozen encoder's tokeniser: `text.tokenizer`, or beside the weights.

    Raises:
        ConfigError: there is none.
    """
    text = config.text
    if text.tokenizer:
        asked = path_of(text.tokenizer)
    elif _published(config):
        asked = Published.of(config, "text.name").source / "tokenizer"
    else:
        asked = _own_weights(config).parent
    places = [asked / file for file in TOKENISERS] if asked.is_dir() else [asked]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(
            f"text.name={text.name!r} needs its tokeniser: text.tokenizer={text.tokenizer!r} "
            f"must be a {' or a '.join(TOKENISERS)}, or a folder with one; there is none at {asked}"
        )
    return found


def make_text_tower(config: Config) -> TextTower | None:
    """The trained encoder over `byte_tokens`; None unless `text.name` is "bytes"."""
    check_text(config)
    text = config.text
    if text.name != "bytes":
        return None
    own = {"vocabulary": BYTE_VOCABULARY, "end": BYTE_END, "positions": text.length}
    return TextTower(**own, **text.bytes)


def make_reader(config: Config, dataset: Dataset) -> Reader | None:
    """The reader of a data set's captions; None if it has none, or `text.name` is "none".

    Raises:
        ConfigError: there are no captions, or as `make_text_encoder`.
        WeightsError: as `make_text_encoder`.
    """
    check_text(config)
    name = config.text.name
    if name == "none":
        judged = bool(config.sample.guidance.likeness.judge)  # which encodes prompts itself
        for key in ("prompts", "negative", "compose"):
            if config.sample[key] and not (judged and key == "prompts"):
                given = str(config.sample[key])[:60]
                raise ConfigError(
                    f"sample.{key}={given} needs a network with a text input: text.name is 'none'"
                )
        return None
    if not dataset.captioned:
        raise ConfigError(
            f"text.name={name!r} needs captions, and data.name={dataset.name!r} has none"
        )
    return Reader(make_text_encoder(config), config.text.length, _unconditional(config) == EMPTY)


def _unconditional(config: Config) -> str:
    """The setting, which configs of older runs do not have."""
    found: str = config.text.get("unconditional", "zeros")
    return found


def check_text(config: Config) -> None:
    """Raises a ConfigError if a setting of the group `text` is invalid."""
    text = config.text
    check_known(text.name, NAMES, "text.name")
    check_known(_unconditional(config), ("zeros", EMPTY), "text.unconditional")
    if _unconditional(config) == EMPTY and text.name not in FROZEN:
        raise ConfigError(
            f"text.unconditional='empty' needs a frozen encoder, {' or '.join(FROZEN)}: text.name "
            f"is {text.name!r}"
        )
    for key in ("weights", "tokenizer"):
        if text[key] and text.name not in FROZEN:
            raise ConfigError(
                f"text.{key}={text[key]} has no effect with text.name={text.name!r}; it is for "
                f"{' and '.join(FROZEN)}"
            )
    longest = {"minilm": Bert.positions, "clip": TextTower.positions}.get(text.name)
    if text.length < 3 or (longest and text.length > longest):
        raise ConfigError(
            f"text.length={text.length} must be at least 3 tokens (start, one token, end)"
            f"{f' and at most {longest}' if longest else ''} for text.name={text.name!r}"
        )
    if text.name in ("clip", "bytes"):
        sizes = text[text.name]
        if sizes.width < 1 or sizes.heads < 1 or sizes.width % sizes.heads:
            raise ConfigError(
                f"text.{text.name}.width={sizes.width} must be a multiple of "
                f"text.{text.name}.heads={sizes.heads}"
            )
        check_known(sizes.activation, ACTIVATIONS, f"text.{text.name}.activation")
