"""Adapters: small changes that are trained in place of a network with published weights."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.from_config.published import Published, network_params
from diffusion_jax.from_config.task import Adapter, Frozen, Task
from diffusion_jax.from_config.text import inversion_of
from diffusion_jax.models.clip import TOKENS
from diffusion_jax.models.published.embeddings import write_embeddings
from diffusion_jax.models.published.lora import (
    NAMINGS,
    Lora,
    Names,
    attention_projections,
    lora_init,
    merged,
    write_lora,
)
from diffusion_jax.types import Key, Params

LAYERS: dict[str, Callable[[Names], bool]] = {
    "attention": attention_projections,
    "all": lambda path: True,
}
"""Which kernels LoRA changes, by `adapter.lora.layers`."""
LORA_FILES = {"peft": "pytorch_lora_weights.safetensors", "kohya": "kohya_lora.safetensors"}
INVERSION_FILE = "learned_embeds.safetensors"
TABLE = "tower", TOKENS, "embedding"
"""The vectors of tokens among the parameters of a network with its text encoder."""


def check_adapter(config: Config) -> None:
    """Raises a ConfigError if the adapter is unknown, or not for this network."""
    settings = config.get("adapter", Config({"name": "none"}))  # older runs have no choice
    check_known(settings.name, ("none", *ADAPTERS), "adapter.name")
    if settings.name == "none":
        return
    what = f"adapter.name={settings.name!r}"
    if config.objective.name != "gaussian":
        raise ConfigError(f"{what} needs objective.name='gaussian', not {config.objective.name!r}")
    if config.train.init_from:
        raise ConfigError(
            f"{what} starts from weights.source: train.init_from={config.train.init_from!r} must "
            "be ''"
        )
    Published.of(config, "model.name")
    check_known(settings.lora.layers, LAYERS, "adapter.lora.layers")
    if inversion_of(config) and config.weights.embeddings:
        raise ConfigError(f"{what} learns one word: weights.embeddings must be ()")
    if inversion_of(config) and (config.text.name != "clip" or config.text.weights):
        raise ConfigError(
            f"{what} needs the text encoder of weights.source: text.name='clip' without "
            f"text.weights; they are {config.text.name!r} and {config.text.weights!r}"
        )


def adapted(config: Config, task: Task) -> Task:
    """The task of training the configured adapter; the task itself if there is none.

    Raises:
        ConfigError: a setting of the adapter cannot work.
    """
    name = config.get("adapter", Config({"name": "none"})).name
    return task.adapted(ADAPTERS[name](config, task)) if name in ADAPTERS else task


def _lora(config: Config, task: Task) -> Adapter:
    """LoRA of the U-Net (Hu et al. 2021)."""
    settings, shapes = config.adapter.lora, task.shapes
    scale = settings.alpha / settings.rank

    def init(key: Key) -> Params:
        return lora_init(shapes, settings.rank, key, LAYERS[settings.layers])

    def write(folder: Path, base: Params, factors: Params) -> list[Path]:
        layers = {path[:-1] for path in flatten_dict(factors)}
        lora = Lora({"unet": factors}, {"unet": unflatten_dict(dict.fromkeys(layers, scale))})
        for naming in NAMINGS:
            write_lora(folder / LORA_FILES[naming], lora, {"unet": {"params": shapes}}, naming)
        return [folder / name for name in LORA_FILES.values()]

    return Adapter(
        init,
        lambda base, factors: merged(base, factors, scale),
        Frozen(shapes, lambda: network_params(config, shapes, task.sizes)),
        write,
    )


def _inversion(config: Config, task: Task) -> Adapter:
    """Textual inversion (Gal et al. 2022): vectors of new tokens, behind those of the others.

    The parameters are differences from the tokens that they start from.
    """
    settings, shapes = config.adapter.textual_inversion, flatten_dict(task.shapes)
    assert task.reader
    assert task.reader.tokeniser
    ids = task.reader.tokeniser.rules.encode(settings.initial).ids[1:-1]
    if not ids:
        raise ConfigError(
            f"adapter.textual_inversion.initial={settings.initial!r} must be a word that is near "
            "to what the new one stands for: its vector is what is started from"
        )
    num, first = settings.vectors, np.resize(ids, settings.vectors)
    rows, width = shapes[TABLE].shape
    shapes[TABLE] = jax.ShapeDtypeStruct((rows - num, width), jnp.float32)
    template = unflatten_dict(shapes)

    def whole(base: Params, trained: Params) -> Params:
        flat = flatten_dict(base)
        known = flat[TABLE]
        learned = jnp.asarray(known)[first] + trained["vectors"]
        return unflatten_dict({**flat, TABLE: jnp.concatenate([known, learned])})

    def load() -> Params:
        published = Published.of(config, "text.name")
        encoder = published.read("text_encoder", {"params": template["tower"]})["params"]
        network = network_params(config, template["network"], task.sizes)
        return {"network": network, "tower": encoder}

    def write(folder: Path, base: Params, trained: Params) -> list[Path]:
        learned = flatten_dict(whole(base, trained))[TABLE][-num:]
        write_embeddings(folder / INVERSION_FILE, {settings.token: learned})
        return [folder / INVERSION_FILE]

    return Adapter(
        lambda key: {"vectors": jnp.zeros((num, width))}, whole, Frozen(template, load), write
    )


ADAPTERS: dict[str, Callable[[Config, Task], Adapter]] = {
    "lora": _lora,
    "textual_inversion": _inversion,
}
"""By `adapter.name`."""
