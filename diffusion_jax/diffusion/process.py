"""How `x_0` becomes noise, and how a network undoes it."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import diffuse, sample_noise
from diffusion_jax.diffusion.prediction import Network, Prediction, split_variance
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


class Process(Protocol):
    """A way from data to noise and back."""

    @property
    def schedule(self) -> Any:
        """How far it is at each time: models with the same one can be mixed."""

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """Noise `[B, *shape]` to start from at time `t` `[]`, each from its own key."""

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        """`x_t` of `x_0` `[B, ...]` at times `t` `[B]`, each by its own key."""

    def denoiser(self, network: Network) -> Denoiser:
        """What the network says of `x_0`."""


TimeInput = Callable[[Schedule, Array], Array]
"""`(schedule, t [B]) -> [B]`: the number by which a network is told the time."""


def thousands(schedule: Schedule, t: Array) -> Array:
    """`1000 t`: the published networks count 1000 time steps."""
    return 1000.0 * t


def table_index(schedule: Schedule, t: Array) -> Array:
    """`1000 t - 1`: the place in a published table of 1000 entries, from 0."""
    return 1000.0 * t - 1.0


def log_noise(schedule: Schedule, t: Array) -> Array:
    """`log(sigma_t / alpha_t) / 4` (Table 1, Karras et al. 2022), within +-5."""
    return -jnp.clip(schedule.logsnr(t), -40.0, 40.0) / 8


TIME_INPUTS = {tell.__name__: tell for tell in (thousands, table_index, log_noise)}


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """`x_t = alpha_t x_0 + sigma_t eps`: a `Process`."""

    schedule: Schedule  # `alpha` and `sigma`
    prediction: Prediction  # what the network's output stands for
    learned_variance: bool = False  # whether it has a variance for each channel besides
    time_input: TimeInput = thousands  # how the network is told the time

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """`sigma_t eps`."""
        return self.schedule.sigma(t) * sample_noise(keys, shape)

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        """`alpha_t x_0 + sigma_t eps`."""
        return diffuse(self.schedule, x_0, sample_noise(keys, x_0.shape[1:]), t)

    def inputs(self, x_t: Array, t: Array) -> tuple[Array, Array]:
        """What the network is given of `x_t` `[B, ...]` and `t` `[B]`."""
        x = self.prediction.network_input(self.schedule, x_t, t)
        return x, self.time_input(self.schedule, t)

    def split(self, y: Array) -> tuple[Array, Array | None]:
        """The network's output as prediction and, where it is learned, variance fraction."""
        return split_variance(y) if self.learned_variance else (y, None)

    def denoiser(self, network: Network) -> Denoiser:
        """A `Denoiser` of a network of any prediction type."""

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            y, variance = self.split(network(*self.inputs(x_t, t), cond))
            return Denoised(self.prediction.to_x_0(self.schedule, x_t, y, t), variance)

        return denoise


def gaussian(process: Process) -> Gaussian:
    """The same, for methods that exist for it alone.

    Raises:
        ValueError: it is another process.
    """
    if not isinstance(process, Gaussian):
        raise ValueError(f"this is a method of the Gaussian process, not of {process}")
    return process
