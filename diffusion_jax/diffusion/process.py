"""Processes: how `x_0` becomes noise, and how a network's output becomes a denoiser."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import diffuse, sample_noise
from diffusion_jax.diffusion.prediction import Network, Prediction, per_sample, split_variance
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


class Process(Protocol):
    """A corruption process and its reversal."""

    @property
    def schedule(self) -> Any:
        """Noise level over time; models with equal schedules can be combined in guidance."""

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """Initial noise `[B, *shape]` at time `t` `[]`, each sample from its own key."""

    def placed(self, noise: Array, t: Array, cond: Cond) -> Array:
        """`x_t` at `t` `[]` when the conditioning alone is known: with the `noise` of `prior`."""

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        """`x_t` from `x_0` `[B, ...]` at times `t` `[B]`, each sample with its own key."""

    def denoiser(self, network: Network) -> Denoiser:
        """The denoiser given by a network."""


TimeInput = Callable[[Schedule, Array], Array]
"""`(schedule, t [B]) -> [B]`: the time input of a network."""


def thousands(schedule: Schedule, t: Array) -> Array:
    """`1000 t`: published networks count 1000 time steps."""
    return 1000.0 * t


def table_index(schedule: Schedule, t: Array) -> Array:
    """`1000 t - 1`: the index in a published table of 1000 entries, from 0."""
    return 1000.0 * t - 1.0


def log_noise(schedule: Schedule, t: Array) -> Array:
    """`log(sigma_t / alpha_t) / 4` (Table 1, Karras et al. 2022), within +-5."""
    return -jnp.clip(schedule.logsnr(t), -40.0, 40.0) / 8


TIME_INPUTS = {tell.__name__: tell for tell in (thousands, table_index, log_noise)}


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """`x_t = alpha_t x_0 + sigma_t eps`: a `Process`.

    With an origin, `residual`, the network is that of `u_t = x_t - alpha_t c`, which is `x_0 - c`
    diffused by the same noise, about the signal `c` that it is given: `cond["image"]`. Bridges from
    data to `c` are this with the schedules `OUVE` and `Bridge`. As a denoiser it is of `x_t` like
    any other, so that samplers, guidance and restoration do not know. SGMSE's networks see the sum
    `c + u_t` and `c`, of which `u_t` and `c` are a linear map.
    """

    schedule: Schedule  # `alpha` and `sigma`
    prediction: Prediction  # type of the network's output
    learned_variance: bool = False  # whether the network also outputs a variance per channel
    time_input: TimeInput = thousands  # time input of the network
    # whether `c` is the origin, and the network predicts `x_0 - c` (as Whang et al. 2022)
    residual: bool = False

    def prior(self, keys: Array, shape: tuple[int, ...], t: Array) -> Array:
        """`sigma_t eps`."""
        return self.schedule.sigma(t) * sample_noise(keys, shape)

    def placed(self, noise: Array, t: Array, cond: Cond) -> Array:
        """`alpha_t c + noise` about an origin, else the noise."""
        if not self.residual or "image" not in cond:
            return noise
        return self.schedule.alpha(t) * cond["image"][..., : noise.shape[-1]] + noise

    def corrupt(self, x_0: Array, t: Array, keys: Array) -> Array:
        """`alpha_t x_0 + sigma_t eps`."""
        return diffuse(self.schedule, x_0, sample_noise(keys, x_0.shape[1:]), t)

    def predict(
        self, network: Network, x_t: Array, t: Array, cond: Cond
    ) -> tuple[Array, Array | None]:
        """The prediction at `x_t` `[B, ...]` and `t` `[B]`, and a variance fraction or None.

        With `residual`, `x_t - alpha_t c` is `x_0 - c` diffused by the same noise, and a prediction
        `p_t (x_0 - c) + q_t eps` of it is off that of `x_0` by `p_t c`. Without a picture `c` is 0.
        """
        if self.residual:
            c = cond["image"][..., : x_t.shape[-1]]
            p, _ = self.prediction.coefficients(self.schedule, t)
            shifted = x_t - per_sample(self.schedule.alpha(t), x_t) * c
            y, variance = dataclasses.replace(self, residual=False).predict(
                network, shifted, t, cond
            )
            return y + per_sample(p, y) * c, variance
        x = self.prediction.network_input(self.schedule, x_t, t)
        y = network(x, self.time_input(self.schedule, t), cond)
        return split_variance(y) if self.learned_variance else (y, None)

    def denoiser(self, network: Network) -> Denoiser:
        """The denoiser given by a network of any prediction type."""

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            y, variance = self.predict(network, x_t, t, cond)
            return Denoised(self.prediction.to_x_0(self.schedule, x_t, y, t), variance)

        return denoise


def gaussian(process: Process) -> Gaussian:
    """The process itself, if it is `Gaussian`; for methods that need one.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(process, Gaussian):
        raise ValueError(f"this method needs the Gaussian process, not {process}")
    return process
