"""Damage of sound as configured: `image_condition` of recordings, and operators of `restore`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, load_dataset
from diffusion_jax.evaluation.sound_measures import Sounds
from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.restoration.operators import Mask, Operator
from diffusion_jax.restoration.sound import Band, Decimate, gap, room, room_response
from diffusion_jax.restoration.sound_conditions import (
    Clipped,
    Coloured,
    FromBank,
    LowBand,
    Noise,
    Noisy,
    Reverberant,
)
from diffusion_jax.system.arguments import check
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Condition

BANK_SEED = 0
"""Of the windows of which babble and other noise is made."""


def _bank(settings: Config, dataset: Dataset, voices: int) -> Noise:
    """Of training windows."""
    source = dataset.splits["train"].source
    rows = np.random.default_rng(BANK_SEED).permutation(len(source))[: settings.bank]
    x = dataset.kind.decode(source.gather(np.sort(rows))[0])
    return FromBank(x.mean(-1), voices)


def _recordings(settings: Config, dataset: Dataset) -> Noise:
    """Those of a folder, of which short ones go on with silence."""
    if not settings.get("dir"):
        raise ConfigError(
            "image_condition.noisy.noises has 'recordings', and image_condition.noisy.dir, the "
            "folder that they are in, is ''"
        )
    kind: Any = dataset.kind
    how = {"rate": kind.rate, "length": kind.shape[0], "channels": 1, "cut": "padded"}
    how |= {"data_dir": settings.dir, "heldout_fraction": 0.0}
    return _bank(settings, load_dataset("recordings", **how), 1)


NOISES: dict[str, Callable[[Config, Dataset], Noise]] = {
    "coloured": lambda settings, dataset: Coloured(),
    "babble": lambda settings, dataset: _bank(settings, dataset, settings.voices),
    "recordings": _recordings,
}
"""By name in `image_condition.noisy.noises`."""


def _noisy(settings: Config, dataset: Dataset) -> Noisy:
    for name in settings.noises:
        check_known(name, NOISES, "image_condition.noisy.noises")
    noises = tuple(NOISES[name](settings, dataset) for name in settings.noises)
    return Noisy(settings.least, settings.most, noises)


CONDITIONS = {
    "noisy": Noisy,
    "clipped": Clipped,
    "low_band": LowBand,
    "reverberant": Reverberant,
}
"""By `image_condition.name`; all but noise are made from their settings alone."""


def condition_of_sounds(name: str, settings: Config, dataset: Dataset) -> Condition:
    """The condition of a data set of sounds.

    Raises:
        ConfigError: the data are no sounds, or a noise is unknown.
        ValueError: a setting is impossible.
    """
    made = CONDITIONS[name]
    check(made, **settings)
    if not isinstance(dataset.kind, Sounds):
        raise ConfigError(
            f"image_condition.name={name!r} is for sounds, and these data are {dataset.kind.words}"
        )
    return _noisy(settings, dataset) if made is Noisy else made(**settings)


def _gap(own: Config, size: int) -> Operator:
    return Mask(gap(jnp.array([own.start]), jnp.array([own.length]), size))


def _beginning(own: Config, size: int) -> Operator:
    known = np.arange(size) < round(size * own.share)
    return Mask(jnp.asarray(known, jnp.float32)[None, :, None])


def _reverberation(own: Config, size: int) -> Operator:
    length = min(int(own.decay) + 1, size // 2)
    key = make_key(own.seed)[None]
    return room(room_response(key, jnp.array([own.decay]), jnp.array([own.direct]), length))


MAKE: dict[str, Callable[[Config, int], Operator]] = {
    "band": lambda own, size: Band(jnp.array([own.low]), jnp.array([own.high])),
    "decimate": lambda own, size: Decimate(own.factor),
    "gap": _gap,
    "beginning": _beginning,
    "reverberation": _reverberation,
}


def _of_sounds(name: str) -> Callable[[Config, tuple[int, ...]], Operator]:
    def make(own: Config, shape: tuple[int, ...]) -> Operator:
        if len(shape) != 2:
            raise ConfigError(f"restore.operator={name!r} is for sounds, and these are pictures")
        operator = MAKE[name](own, shape[0])
        jax.eval_shape(operator, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        return operator

    return make


OPERATORS = {name: _of_sounds(name) for name in MAKE}
"""Those of `restore.operator` that are for sounds alone, as in `restoration.OPERATORS`."""
