"""Text encoders, selected by the group `text`."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffusion_jax.data import Dataset
from diffusion_jax.from_config.choices import (
    Config,
    ConfigError,
    check_known,
    weights_path,
)
from diffusion_jax.from_config.published import Published, files_beside, weights_source
from diffusion_jax.models.bert import Bert
from diffusion_jax.models.clip import ACTIVATIONS, TOKENS, TextTower
from diffusion_jax.models.published.embeddings import read_embeddings
from diffusion_jax.models.published.files import part_file
from diffusion_jax.models.weights import file_digest, packaged_file
from diffusion_jax.system.files import path_of
from diffusion_jax.text import (
    BYTE_END,
    BYTE_VOCABULARY,
    Reader,
    TextEncoder,
    Tokeniser,
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
    tokeniser = load_tokeniser(tokeniser_file(config))
    if _published(config):
        return _published_encoder(config, tokeniser)
    net = Bert() if text.name == "minilm" else TextTower(**text.clip)
    return load_encoder(net, _own_weights(config), tokeniser, text.length)


def _published_encoder(config: Config, tokeniser: Tokeniser) -> TextEncoder:
    """The encoder of `weights.source`, with the words of `weights.embeddings`."""
    text, published = config.text, Published.of(config, "text.name")
    changes = [*published.lora, *files_beside(config, "embeddings")]
    known = tokeniser.vocabulary
    learned: dict[str, np.ndarray] = {}
    for path in files_beside(config, "embeddings"):
        found = read_embeddings(path, text.clip.width)
        learned |= found
        try:
            tokeniser = tokeniser.with_learned({word: len(v) for word, v in found.items()})
        except ValueError as error:
            raise ConfigError(f"weights.embeddings: {path}: {error}") from error

    def read(template: Any) -> Any:
        table = "params", TOKENS, "embedding"
        shapes = flatten_dict(template)
        shapes[table] = jax.ShapeDtypeStruct((known, text.clip.width), np.float32)
        found = flatten_dict(published.read("text_encoder", unflatten_dict(shapes)))
        found[table] = np.concatenate([found[table], *learned.values()])
        return unflatten_dict(found)

    net = TextTower(**text.clip, vocabulary=tokeniser.vocabulary)
    weights = part_file(published.source, "text_encoder")
    encoder = load_encoder(net, weights, tokeniser, text.length, read)
    return dataclasses.replace(
        encoder, digest=" ".join([encoder.digest, *map(file_digest, changes)])
    )


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
        source = Published.of(config, "text.name").source
        asked = source / "tokenizer" if source.is_dir() else source.parent
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


def inversion_of(config: Config) -> Config | None:
    """The settings of textual inversion, if that is trained."""
    adapter = config.get("adapter", {})  # which older runs do not have
    found: Config | None = adapter.get("textual_inversion")
    return found if adapter.get("name") == "textual_inversion" else None


def _learning_tokeniser(config: Config, inversion: Config) -> Tokeniser:
    """The published tokeniser with the new tokens whose vectors are trained."""
    known = load_tokeniser(tokeniser_file(config))
    try:
        return known.with_learned({inversion.token: inversion.vectors})
    except ValueError as error:
        raise ConfigError(f"adapter.textual_inversion.token={error}") from error


def make_text_tower(config: Config) -> TextTower | None:
    """The encoder inside the network; None for one whose features are computed before.

    It is the one over `byte_tokens` of `text.name` "bytes", and that of textual inversion.
    """
    check_text(config)
    text = config.text
    if inversion := inversion_of(config):
        known = _learning_tokeniser(config, inversion)
        return TextTower(**text.clip, vocabulary=known.vocabulary, end=known.end)
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
    length, empty = config.text.length, _unconditional(config) == EMPTY
    if inversion := inversion_of(config):
        return Reader(None, length, empty, _learning_tokeniser(config, inversion))
    return Reader(make_text_encoder(config), length, empty)


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
