"""Noise schedules: `alpha(t)` and `sigma(t)`, and what follows from them.

`x_t = alpha_t x_0 + sigma_t eps` with `t` in [0, 1], 0 clean and 1 noise. All methods are
elementwise in `t`, any shape.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array


class Schedule(abc.ABC):
    """What every schedule gives: a subclass states `alpha` and `sigma`."""

    @abc.abstractmethod
    def alpha(self, t: Array) -> Array:
        """Signal scale `alpha_t`."""

    @abc.abstractmethod
    def sigma(self, t: Array) -> Array:
        """Noise scale `sigma_t`."""

    def logsnr(self, t: Array) -> Array:
        """Log signal-to-noise ratio `log(alpha_t^2 / sigma_t^2)`; +-inf where one of them is 0."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def rates(self, t: Array) -> tuple[Array, Array]:
        """Time derivatives `(alpha'_t, sigma'_t)`."""
        both = lambda t: (self.alpha(t), self.sigma(t))  # noqa: E731
        return jax.jvp(both, (t,), (jnp.ones_like(t),))[1]


class _VariancePreserving(Schedule):
    """`alpha_t^2 + sigma_t^2 = 1`, given by `log alpha_t`, exact also where sigma is tiny."""

    @abc.abstractmethod
    def log_alpha(self, t: Array) -> Array:
        """Logarithm of `alpha_t`."""

    def alpha(self, t: Array) -> Array:
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Array) -> Array:
        return jnp.sqrt(-jnp.expm1(2 * self.log_alpha(t)))


@dataclasses.dataclass(frozen=True)
class LinearBeta(_VariancePreserving):
    """DDPM's linear beta in continuous time: the VP SDE, Eqs. 32-33 of Song et al. 2021.

    `log alpha_t = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t: Array) -> Array:
        return -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t


@dataclasses.dataclass(frozen=True)
class DDPM(_VariancePreserving):
    """The published discrete table of DDPM (Ho et al. 2020, Sec. 4), at every `t = i / num_steps`.

    `alpha_t^2 = prod_{j <= i} (1 - beta_j)` with `beta_1 .. beta_N` evenly spaced from `beta_start`
    to `beta_end`. Between two entries `log alpha` is linear, so that beta is constant there.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_steps: int = 1000

    def log_alpha(self, t: Array) -> Array:
        betas = np.linspace(self.beta_start, self.beta_end, self.num_steps)
        table = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-betas))])
        return jnp.interp(t, np.arange(self.num_steps + 1) / self.num_steps, table)


@dataclasses.dataclass(frozen=True)
class Cosine(Schedule):
    """Cosine schedule (Nichol & Dhariwal 2021), cut at a least log signal-to-noise ratio.

    `alpha_t = cos(t theta)`, `sigma_t = sin(t theta)` with `theta` just short of pi/2 such that
    `logsnr_1 = logsnr_min` (Ho & Salimans 2022, Sec. 2): x_0 follows from every prediction type.
    """

    logsnr_min: float = -20.0

    def _angles(self, t: Array) -> tuple[Array, Array]:
        rest = float(np.arctan(np.exp(0.5 * self.logsnr_min)))
        theta = float(np.pi / 2) - rest
        # cos(t theta) as a sine: exact in float32 also where alpha is tiny.
        return theta * (1 - t) + rest, theta * t

    def alpha(self, t: Array) -> Array:
        return jnp.sin(self._angles(t)[0])

    def sigma(self, t: Array) -> Array:
        return jnp.sin(self._angles(t)[1])


@dataclasses.dataclass(frozen=True)
class Flow(Schedule):
    """Linear interpolation of flow matching (Lipman et al. 2023): `alpha = 1 - t`, `sigma = t`."""

    def alpha(self, t: Array) -> Array:
        return 1 - t

    def sigma(self, t: Array) -> Array:
        return t * jnp.ones_like(t)
