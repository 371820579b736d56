"""Noise schedules: `alpha(t)` and `sigma(t)`, and quantities derived from them.

`x_t = alpha_t x_0 + sigma_t eps` with `t` in [0, 1], 0 clean and 1 noise. All methods are
elementwise in `t`, of any shape. Schedules with the same log signal-to-noise ratio differ only in
scale; the scale is fixed by `norm`.
"""

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.interpolation import linear
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array

BISECTIONS = 64


def inverse(falling: Callable[[Array], Array], value: Array) -> Array:
    """Inverts a decreasing function on [0, 1] by bisection, for any shape; clipped to [0, 1]."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        before = falling(middle) > value
        return jnp.where(before, middle, low), jnp.where(before, high, middle)

    ends = jnp.zeros_like(value), jnp.ones_like(value)
    return jax.lax.fori_loop(0, BISECTIONS, halve, ends)[0]


class Schedule(abc.ABC):
    """Interface of noise schedules; subclasses implement `scales`."""

    @abc.abstractmethod
    def scales(self, t: Array) -> tuple[Array, Array]:
        """`(alpha_t, sigma_t)`."""

    def alpha(self, t: Array) -> Array:
        """Signal scale `alpha_t`."""
        return self.scales(t)[0]

    def sigma(self, t: Array) -> Array:
        """Noise scale `sigma_t`."""
        return self.scales(t)[1]

    def norm(self, alpha: Array, sigma: Array) -> Array:
        """Homogeneous function of degree 1 that is 1 at `(alpha_t, sigma_t)` for every `t`."""
        return jnp.hypot(alpha, sigma)

    def logsnr(self, t: Array) -> Array:
        """Log signal-to-noise ratio `log(alpha_t^2 / sigma_t^2)`; infinite where either is 0."""
        return 2 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

    def time_at(self, logsnr: Array) -> Array:
        """The time with a given `logsnr`, by bisection; 0 or 1 beyond the schedule's range.

        Its derivative is that of the inverse function, and 0 at the ends.
        """
        t = jax.lax.stop_gradient(inverse(self.logsnr, logsnr))
        rate = jax.jvp(self.logsnr, (t,), (jnp.ones_like(t),))[1]
        inside = jnp.isfinite(logsnr) & jnp.isfinite(rate) & (rate < 0)
        change = jnp.where(inside, logsnr - jax.lax.stop_gradient(logsnr), 0.0)  # 0, for autodiff
        return t + change / jax.lax.stop_gradient(jnp.where(inside, rate, 1.0))

    def rates(self, t: Array) -> tuple[Array, Array]:
        """Time derivatives `(alpha'_t, sigma'_t)`."""
        return jax.jvp(self.scales, (t,), (jnp.ones_like(t),))[1]


class _LogAlpha(Schedule):
    """Variance-preserving, defined by `log alpha_t`, and accurate where sigma is tiny."""

    @abc.abstractmethod
    def log_alpha(self, t: Array) -> Array:
        """Logarithm of `alpha_t`."""

    def scales(self, t: Array) -> tuple[Array, Array]:
        log_alpha = self.log_alpha(t)
        return jnp.exp(log_alpha), jnp.sqrt(-jnp.expm1(2 * log_alpha))


@dataclasses.dataclass(frozen=True)
@checked(beta_min="[0, beta_max]", beta_max="(0, inf)")
class LinearBeta(_LogAlpha):
    """DDPM's linear beta in continuous time: the VP SDE, Eqs. 32-33 of Song et al. 2021.

    `log alpha_t = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def log_alpha(self, t: Array) -> Array:
        return -0.25 * (self.beta_max - self.beta_min) * t**2 - 0.5 * self.beta_min * t


@dataclasses.dataclass(frozen=True)
class SubVP(LinearBeta):
    """Sub-VP SDE (Eqs. 28-29, Song et al. 2021): alpha of `LinearBeta`, `sigma = 1 - alpha^2`."""

    def scales(self, t: Array) -> tuple[Array, Array]:
        log_alpha = self.log_alpha(t)
        return jnp.exp(log_alpha), -jnp.expm1(2 * log_alpha)

    def norm(self, alpha: Array, sigma: Array) -> Array:
        # The root of sigma / n = 1 - (alpha / n)^2.
        return 0.5 * (sigma + jnp.sqrt(sigma**2 + 4 * alpha**2))


@dataclasses.dataclass(frozen=True)
@checked(beta_start="(0, beta_end]", beta_end="(0, 1)", num_steps="[1, inf)")
class DDPM(_LogAlpha):
    """The discrete table of DDPM (Ho et al. 2020, Sec. 4), exact at every `t = i / num_steps`.

    `alpha_t^2 = prod_{j <= i} (1 - beta_j)` with `beta_1 .. beta_N` evenly spaced from `beta_start`
    to `beta_end`. `log alpha` is interpolated linearly, so that beta is piecewise constant.
    """

    beta_start: float = 1e-4
    beta_end: float = 0.02
    num_steps: int = 1000

    def betas(self) -> np.ndarray:
        """`beta_1 .. beta_N`."""
        return np.linspace(self.beta_start, self.beta_end, self.num_steps)

    def log_alpha(self, t: Array) -> Array:
        table = np.concatenate([[0.0], 0.5 * np.cumsum(np.log1p(-self.betas()))])
        return linear(t, np.arange(self.num_steps + 1) / self.num_steps, table)


@dataclasses.dataclass(frozen=True)
class ScaledLinear(DDPM):
    """The table of latent diffusion and Stable Diffusion, with evenly spaced `sqrt(beta)`.

    Rombach et al. 2022 (`beta_schedule="linear"` of their code, "scaled_linear" elsewhere).
    """

    beta_start: float = 0.00085
    beta_end: float = 0.012

    def betas(self) -> np.ndarray:
        return np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_steps) ** 2


@dataclasses.dataclass(frozen=True)
@checked(logsnr_min="[-inf, 0)")
class Cosine(Schedule):
    """Cosine schedule (Nichol & Dhariwal 2021), truncated at a minimum `logsnr`.

    `alpha_t = cos(t theta)`, `sigma_t = sin(t theta)`, with `theta` slightly below pi/2 such that
    `logsnr_1 = logsnr_min` (Ho & Salimans 2022, Sec. 2): every prediction type determines x_0.
    `Shifted` adapts it to a resolution.
    """

    logsnr_min: float = -20.0

    def scales(self, t: Array) -> tuple[Array, Array]:
        rest = float(np.arctan(np.exp(0.5 * self.logsnr_min)))
        theta = float(np.pi / 2) - rest
        # cos(t theta) as a sine: accurate in float32 also where alpha is tiny.
        return jnp.sin(theta * (1 - t) + rest), jnp.sin(theta * t)


@dataclasses.dataclass(frozen=True)
@checked(start="(-inf, end)", end="(-inf, inf)", tau="(0, inf)", logsnr_min="[-inf, 0)")
class Sigmoid(Schedule):
    """Sigmoid schedule (Jabri et al. 2023; Chen 2023), truncated at a minimum `logsnr`.

    `alpha_t^2 = (S(end) - S(x)) / (S(end) - S(start))` with `x = start + t (end - start)` and
    `S(x) = sigmoid(x / tau)`, mapped from [0, 1] to `[sigmoid(logsnr_min), 1]`.
    """

    start: float = -3.0
    end: float = 3.0
    tau: float = 1.0
    logsnr_min: float = -20.0

    def _square(self, t: Array, rest: Array, end: float) -> Array:
        """Share of `S(end) - S(start)` between x(t) and the end at distance `rest`."""
        # S(a) - S(b) = sinh((a - b) / 2) / (2 cosh(a / 2) cosh(b / 2)) avoids cancellation.
        span = (self.end - self.start) / self.tau
        x = self.start / self.tau + span * t
        other = self.start + self.end - end  # the opposite end
        part = jnp.sinh(span * rest / 2) / jnp.cosh(x / 2)
        return part * (np.cosh(other / self.tau / 2) / np.sinh(span / 2))

    def scales(self, t: Array) -> tuple[Array, Array]:
        least, most = (1 / (1 + np.exp(sign * self.logsnr_min)) for sign in (-1, 1))
        square = least + (1 - least) * self._square(t, 1 - t, self.end)
        return jnp.sqrt(square), jnp.sqrt(most * self._square(t, t, self.start))


@dataclasses.dataclass(frozen=True)
class Flow(Schedule):
    """Linear interpolation of flow matching (Lipman et al. 2023): `alpha = 1 - t`, `sigma = t`."""

    def scales(self, t: Array) -> tuple[Array, Array]:
        return 1 - t, t * jnp.ones_like(t)

    def norm(self, alpha: Array, sigma: Array) -> Array:
        return alpha + sigma


class _Exploding(Schedule):
    """`alpha = 1`: the signal is not scaled, and the variance grows."""

    def norm(self, alpha: Array, sigma: Array) -> Array:
        return alpha


@dataclasses.dataclass(frozen=True)
@checked(sigma_max="(0, inf)", rho="(0, inf)")
class EDM(_Exploding):
    """`sigma_t = sigma_max t^rho`: EDM (Karras et al. 2022).

    Uniform steps in this time are those of Eq. 5 there: evenly spaced from 1 to
    `(sigma_min / sigma_max)^(1 / rho)`, and then 0 (`time_grids.karras`).
    """

    sigma_max: float = 80.0
    rho: float = 7.0

    def scales(self, t: Array) -> tuple[Array, Array]:
        return jnp.ones_like(t), self.sigma_max * t**self.rho


@dataclasses.dataclass(frozen=True)
@checked(sigma_min="(0, sigma_max)", sigma_max="(0, inf)")
class VE(_Exploding):
    """VE SDE (Eqs. 30-31, Song et al. 2021): `sigma_t^2 = sigma_min^2 (r^(2t) - 1)`.

    `r = sigma_max / sigma_min`; the variance is that given `x_0`, which is 0 at `t = 0`.
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def scales(self, t: Array) -> tuple[Array, Array]:
        log_ratio = float(np.log(self.sigma_max / self.sigma_min))
        return jnp.ones_like(t), self.sigma_min * jnp.sqrt(jnp.expm1(2 * log_ratio * t))


@dataclasses.dataclass(frozen=True)
@checked(theta="(0, inf)", sigma_min="(0, sigma_max)", sigma_max="(0, inf)")
class OUVE(Schedule):
    """Ornstein-Uhlenbeck SDE with exploding variance (Eqs. 4 and 10-12, Richter et al. 2023).

    `alpha_t = e^(-theta t)`, `sigma_t^2 = sigma_min^2 e^(-2 theta t) (e^(2 (theta + l) t) - 1) A`
    with `l = log(sigma_max / sigma_min)` and `A = l / (theta + l)`: about an origin (see `process`)
    `x_t` drifts from `x_0` to it, and is about 0.22 of the way short of it at `t = 1`.

    SGMSE's noise is complex, with half of the variance in each part: its `sigma_min` and
    `sigma_max` are those here times `sqrt(2)`.
    """

    theta: float = 1.5
    sigma_min: float = 0.05
    sigma_max: float = 0.5

    @property
    def _growth(self) -> tuple[float, float]:
        """`theta + l`, and `sigma_min sqrt(A)`."""
        log_ratio = float(np.log(self.sigma_max / self.sigma_min))
        rate = self.theta + log_ratio
        return rate, self.sigma_min * float(np.sqrt(log_ratio / rate))

    def scales(self, t: Array) -> tuple[Array, Array]:
        rate, scale = self._growth
        alpha = jnp.exp(-self.theta * t)
        return alpha, scale * alpha * jnp.sqrt(jnp.expm1(2 * rate * t))

    def norm(self, alpha: Array, sigma: Array) -> Array:
        # alpha e^(theta t), with e^(2 (theta + l) t) = 1 + (sigma / (alpha scale))^2
        rate, scale = self._growth
        share = self.theta / rate
        return alpha ** (1 - share) * jnp.hypot(alpha, sigma / scale) ** share


@dataclasses.dataclass(frozen=True)
@checked(k="(1, inf)", c="(0, inf)")
class Bridge(Schedule):
    """Schroedinger bridge with exploding variance (Table 1, Jukic et al. 2024).

    With `s_t^2 = c (k^(2 t) - 1) / (2 log k)` and `sbar_t^2 = s_1^2 - s_t^2` the bridge is

        X_t = origin + (sbar_t / s_1)^2 (x_0 - origin) + (s_t sbar_t / s_1) eps

    from `x_0` to the origin itself, without noise at either end. Both scales are 0 at the origin,
    where the noise of `X_t` cannot be told. Divided by `sbar_t / s_1` they are

        alpha_t = sbar_t / s_1,    sigma_t = s_t

    the same process, `X_t = origin + alpha_t u_t`, whose first step draws the noise that `X_1` does
    not have: published steps are those of every sampler here (SDE: `ancestral` with the small
    variance; ODE: `ddim`, there from `eps = 0`, which is one sample only for an exact ODE).

    Complex noise with half of the variance in each part has half of this `c`.
    """

    k: float = 2.6
    c: float = 0.4

    def scales(self, t: Array) -> tuple[Array, Array]:
        log_k = float(np.log(self.k))
        whole, scale = float(np.expm1(2 * log_k)), float(np.sqrt(self.c / (2 * log_k)))
        # k^2 - k^(2 t), without cancellation
        left = self.k**2 * -jnp.expm1(2 * log_k * (t - 1))
        return jnp.sqrt(left / whole), scale * jnp.sqrt(jnp.expm1(2 * log_k * t))

    def norm(self, alpha: Array, sigma: Array) -> Array:
        return jnp.hypot(alpha, sigma / self.sigma(jnp.ones_like(sigma)))


class _LogSNR(Schedule):
    """Variance-preserving, defined by `logsnr`; a little noise is left at `t = 0`."""

    @abc.abstractmethod
    def logsnr(self, t: Array) -> Array:
        """Log signal-to-noise ratio, decreasing in `t`."""

    def scales(self, t: Array) -> tuple[Array, Array]:
        alpha, sigma = (
            jnp.exp(0.5 * jax.nn.log_sigmoid(sign * self.logsnr(t))) for sign in (1, -1)
        )
        return alpha, sigma


@dataclasses.dataclass(frozen=True)
@checked(logsnr_max="(-inf, inf)", logsnr_min="(-inf, logsnr_max)")
class LinearLogSNR(_LogSNR):
    """`logsnr` linear in `t`: the initial schedule of VDM (Kingma et al. 2021, Sec. 3.2)."""

    logsnr_max: float = 13.3
    logsnr_min: float = -13.3

    def logsnr(self, t: Array) -> Array:
        return self.logsnr_max + (self.logsnr_min - self.logsnr_max) * t


@dataclasses.dataclass(frozen=True)
@checked(scale="(0, inf)", logsnr_max="(-inf, inf)", logsnr_min="(-inf, logsnr_max)")
class _Importance(_LogSNR):
    """`logsnr` of uniform times has a given distribution, cut at both ends (Hang et al. 2024).

    A subclass defines the distribution by its tail and quantile functions, both of the *distance*
    from the mean: the distribution is symmetric, so one tail is enough.
    """

    mean: float = 0.0
    scale: float = 1.0
    logsnr_max: float = 13.3
    logsnr_min: float = -13.3

    @abc.abstractmethod
    def tail(self, distance: float) -> float:
        """Probability of lying more than `distance >= 0` scales above the mean."""

    @abc.abstractmethod
    def distance(self, tail: Array) -> Array:
        """Inverse of `tail`, for probabilities up to 1/2."""

    def logsnr(self, t: Array) -> Array:
        above, below = (
            self.tail(abs(end - self.mean) / self.scale)
            for end in (self.logsnr_max, self.logsnr_min)
        )
        # Each tail from its own end of [0, 1]: 1 - t is exact in floats, 1 - tail is not.
        kept = 1 - above - below
        upper, lower = above + kept * t, below + kept * (1 - t)
        distance = self.distance(jnp.minimum(jnp.minimum(upper, lower), 0.5))
        return self.mean + self.scale * jnp.where(upper < lower, distance, -distance)


@dataclasses.dataclass(frozen=True)
class Laplace(_Importance):
    """Laplace distribution of `logsnr` (Table 1, Hang et al. 2024)."""

    scale: float = 0.5

    def tail(self, distance: float) -> float:
        return 0.5 * float(np.exp(-distance))

    def distance(self, tail: Array) -> Array:
        return -jnp.log(2 * tail)


@dataclasses.dataclass(frozen=True)
class Cauchy(_Importance):
    """Cauchy distribution of `logsnr` (Table 1, Hang et al. 2024)."""

    def tail(self, distance: float) -> float:
        return float(np.arctan2(1.0, distance) / np.pi)

    def distance(self, tail: Array) -> Array:
        return 1 / jnp.tan(np.pi * tail)


@dataclasses.dataclass(frozen=True)
@checked(factor="(0, inf)")
class Shifted(Schedule):
    """A schedule with `sigma / alpha` multiplied by `factor`, on its own scale.

    For a resolution `factor` times that for which `base` was made, as neighbouring pixels average
    out the noise: the shifted cosine of Hoogeboom et al. 2023 (simple diffusion) and the flow of
    Esser et al. 2024 (Eq. 23; their `sqrt(m / n)`).
    """

    base: Schedule
    factor: float

    def scales(self, t: Array) -> tuple[Array, Array]:
        alpha, sigma = self.base.scales(t)
        norm = self.norm(alpha, self.factor * sigma)
        return alpha / norm, self.factor * sigma / norm

    def norm(self, alpha: Array, sigma: Array) -> Array:
        return self.base.norm(alpha, sigma)


@dataclasses.dataclass(frozen=True)
class ZeroTerminalSNR(Schedule):
    """A schedule made variance-preserving and rescaled to `alpha_1 = 0` (Lin et al. 2024).

    Alg. 1 there: `alpha' = (alpha - alpha_1) alpha_0 / (alpha_0 - alpha_1)`, `alpha'_0 = alpha_0`.
    """

    base: Schedule

    def _preserving(self, t: Array) -> tuple[Array, Array]:
        """Alpha of the variance-preserving base, and `1 - alpha`."""
        alpha, sigma = self.base.scales(t)
        norm = jnp.hypot(alpha, sigma)
        return alpha / norm, (sigma / norm) ** 2 / (1 + alpha / norm)

    def scales(self, t: Array) -> tuple[Array, Array]:
        first, first_rest = self._preserving(jnp.zeros_like(t))
        last, _ = self._preserving(jnp.ones_like(t))
        alpha, rest = self._preserving(t)
        span = first - last
        alpha, rest = first * (alpha - last) / span, (first * rest - last * first_rest) / span
        return alpha, jnp.sqrt(rest * (1 + alpha))
