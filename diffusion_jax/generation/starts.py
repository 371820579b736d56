"""Choices of `x_T`: noise of the process, noise of another distribution, or an image."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.process import Process, gaussian
from diffusion_jax.types import Array


class Start(NamedTuple):
    """The distribution of `x_T`, from which sampling starts."""

    # `(process, keys [B], shape, t []) -> x_T [B, *shape]` at time `t`, each from its own key
    draw: Callable[[Process, Array, tuple[int, ...], Array], Array]
    words: str = ""  # for the passports of samples; '' for the process's own noise


def _prior(process: Process, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
    return process.prior(keys, shape, t)


NORMAL = Start(_prior)
"""The noise of the process itself."""


def _standard(process: Process, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
    return sample_noise(keys, shape)


STANDARD = Start(_standard, "standard")
"""Standard normal whatever `sigma_T` is, as in published pipelines (Lin et al. 2024, Sec. 3.1)."""


def _uniform(process: Process, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
    width = 3**0.5 * gaussian(process).schedule.sigma(t)
    return width * jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0))(keys)


UNIFORM = Start(_uniform, "uniform")
"""Uniform on `+-sqrt(3) sigma_T`, whose mean and variance are those of the normal noise."""


def known(x_T: Array, words: str) -> Start:
    """`x_T` `[*shape]` itself, for all samples: of masked processes, tokens and masks."""
    return Start(lambda process, keys, shape, t: jnp.broadcast_to(x_T, (len(keys), *shape)), words)


def picture(x_0: Array, words: str) -> Start:
    """The image `x_0` `[*shape]` itself in place of noise: `sigma_T (x_0 - mean) / std`.

    Mean and standard deviation are those of all its entries, so that it has the mean and variance
    of the noise; it is not random. SDEdit instead adds noise to an image and starts where the
    schedule has that much noise (`variations.renoised`).

    Raises:
        ValueError: all entries are the same.
    """
    if jnp.ptp(x_0) == 0:
        raise ValueError("all its pixels are the same, and noise has a variance")
    standardised = (x_0 - jnp.mean(x_0)) / jnp.std(x_0)

    def draw(process: Process, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        x_T = gaussian(process).schedule.sigma(t) * standardised
        return jnp.broadcast_to(x_T, (len(keys), *shape))

    return Start(draw, words)
