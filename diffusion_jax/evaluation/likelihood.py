"""Likelihood of data under a diffusion model: `-log p(x_0)` in nats, per example `[B]`.

| function            | what it estimates                                | data                  |
|---------------------|--------------------------------------------------|-----------------------|
| `ode_nll`           | the density of the probability-flow ODE          | continuous            |
| `variational_bound` | an upper bound in continuous time                | either                |
| `ancestral_bound`   | an upper bound of ancestral sampling in steps    | in levels             |

The three are of different models that share a denoiser: none bounds another, unless the denoiser
is exact. All take a `Denoiser` and the schedule it was made for, data `x_0` `[B, ...]`, its
conditioning, and `keys` `[B]`, one per sample, for all random numbers; the prior is
`N(0, sigma_1^2)`, that of `sample`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import diffuse, fold_in, sample_noise, variational_term
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import stratified
from diffusion_jax.samplers.adaptive import integrate, velocity
from diffusion_jax.samplers.ode import coordinate
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


class OdeLikelihood(NamedTuple):
    """Result of `ode_nll`."""

    nll: Array  # `[B]`, mean over the probes
    by_probe: Array  # `[B, probes]`, each an unbiased estimate, independent given the example
    steps: Array  # of the solver, `[]`; 6 calls of the denoiser and of its derivative each


class Bound(NamedTuple):
    """Upper bound of the negative log-likelihood in three parts (Eq. 11, Kingma et al. 2021)."""

    prior: Array  # `KL(q(x_T | x_0) || p(x_T))`, `[B]`
    diffusion: Array  # of the steps between, `[B]`
    reconstruction: Array  # `-log p(x_0 | x_t)` at the lowest noise level, `[B]`

    @property
    def total(self) -> Array:
        """The bound, `[B]`."""
        return self.prior + self.diffusion + self.reconstruction


def bits_per_dimension(nats: Array, dimensions: int, levels: int = 0) -> Array:
    """Bits per dimension from `-log p` of a whole example; with `levels` `p` is a density.

    A level's probability is about the density times the width of its bin, `2 / (levels - 1)`. By
    Jensen's inequality the mean over `dequantise` is an upper bound.
    """
    bits = nats / (dimensions * jnp.log(2.0))
    return bits + jnp.log2((levels - 1) / 2) if levels else bits


def dequantise(x: Array, keys: Array, levels: int) -> Array:
    """Data in `levels` with uniform noise over each bin (Theis et al. 2016); 0: unchanged.

    The bins of -1 and 1 are as wide as the others: with 256 levels results are in
    [-1 - 1/255, 1 + 1/255).
    """
    if not levels:
        return x
    spread = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:], x.dtype, -1.0, 1.0))
    return x + spread(keys) / (levels - 1)


def ode_nll(
    denoiser: Denoiser,
    schedule: Schedule,
    x_0: Array,
    cond: Cond,
    keys: Array,
    probes: int = 4,
    least: float = 1e-3,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> OdeLikelihood:
    """Likelihood by the probability-flow ODE (Sec. 4.3 and App. D.2, Song et al. 2021).

    In `y = x_t / n_t`, `u = sigma_t / n_t` with `n = alpha + sigma`, where `dy/du = eps_hat -
    x_0_hat` for every schedule, densities change by `d log p / du = -div dy/du` along a path. The
    divergence is `E v . J v` over probes `v` of random signs (Hutchinson 1989; Grathwohl et al.
    2019), the same along the whole path.

    The density is that of `x_t / alpha_t = y / (1 - u)` at the lowest noise level, of data with
    that little noise, evaluated at `x_0` itself.

    Args (the common ones are above):
        schedule: only its ends matter, and the times at which the denoiser is evaluated.
        x_0: continuous data `[B, ...]`, or data in 256 levels after `dequantise`.
        probes: their number for each example.
        least: `sigma / alpha` at which the path starts; the schedule's lowest, if that is higher.
        rtol: relative tolerance of `integrate`, for the log density per dimension.
        atol: absolute tolerance, likewise.
    """
    size = x_0[0].size
    start = jnp.maximum(least / (1 + least), coordinate(schedule, "flow", jnp.array(0.0)))
    end = coordinate(schedule, "flow", jnp.array(1.0))
    draw = lambda key: jax.random.rademacher(key, (probes, *x_0.shape[1:]), x_0.dtype)  # noqa: E731
    signs = jax.vmap(draw)(keys)

    def denoise(x_t: Array, t: Array) -> Denoised:
        return denoiser(x_t, jnp.full(len(x_t), t), cond)

    def rate(u: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        slope, pull = jax.vjp(functools.partial(velocity, schedule, denoise, u), state[0])
        (pulled,) = jax.vmap(pull, 1, 1)(signs)
        return slope, jnp.mean(signs * pulled, axis=range(2, signs.ndim))

    begin = x_0 * (1 - start), jnp.zeros(signs.shape[:2], x_0.dtype)
    (y, divergence), steps = integrate(rate, begin, start, end, rtol, atol)
    prior = jnp.mean(jax.scipy.stats.norm.logpdf(y, 0.0, end), axis=range(1, y.ndim))
    by_probe = -size * (prior[:, None] + divergence + jnp.log1p(-start))
    return OdeLikelihood(jnp.mean(by_probe, axis=1), by_probe, steps)


def variational_bound(
    denoiser: Denoiser,
    schedule: Schedule,
    x_0: Array,
    cond: Cond,
    keys: Array,
    levels: int,
    samples: int = 32,
    logsnr_min: float = -13.3,
    logsnr_max: float = 13.3,
) -> Bound:
    """The bound in continuous time (Eqs. 11 and 15-18, Kingma et al. 2021).

    The diffusion part is `1/2 int SNR ||x_0 - x_0_hat||^2 dlogsnr` between two noise levels, at
    evenly spaced levels with one random offset for each example. With the exact denoiser the mean
    of the bound of continuous data is the entropy of the data with the lowest level of noise, plus
    `KL(q(x_T) || p(x_T))`.

    Args (the common ones are above):
        levels: number of levels of the data: then the decoder is `p(x_0 | x_t)` proportional to
            `q(x_t | x_0)` over all levels, of each dimension (Eq. 14 there), and the bound is of a
            probability. With 0 it is `N(x_t / alpha_t, sigma_t^2 / alpha_t^2)`, whose part is
            known, and the bound is of a density.
        samples: calls of the denoiser.
        logsnr_min: of the prior; the schedule's smallest, if that is larger.
        logsnr_max: of the reconstruction; the schedule's largest, if that is smaller.
    """
    last, first = schedule.logsnr(jnp.array([1.0, 0.0]))
    low, high = jnp.maximum(last, logsnr_min), jnp.minimum(first, logsnr_max)
    index = jnp.arange(samples)
    levels_drawn = jax.vmap(stratified, (0, None, None))(fold_in(keys, samples), index, samples)

    def body(_: None, draw: tuple[Array, Array]) -> tuple[None, Array]:
        i, logsnr = draw
        t = schedule.time_at(logsnr)
        x_t = diffuse(schedule, x_0, sample_noise(fold_in(keys, i), x_0.shape[1:]), t)
        return None, 0.5 * jnp.exp(logsnr) * _square(denoiser(x_t, t, cond).x_0 - x_0)

    _, terms = jax.lax.scan(body, None, (index, low + (high - low) * levels_drawn.T))
    std = jnp.exp(-0.5 * high)
    if levels:
        noise = sample_noise(fold_in(keys, samples + 1), x_0.shape[1:])
        reconstruction = -_sum(log_level_probability(x_0, noise, std, levels))
    else:
        nats = 0.5 * x_0[0].size * (1 + jnp.log(2 * jnp.pi * std**2))
        reconstruction = jnp.full(len(x_0), nats)
    prior = 0.5 * jnp.exp(low) * _square(x_0)
    return Bound(prior, (high - low) * jnp.mean(terms, 0), reconstruction)


def ancestral_bound(
    denoiser: Denoiser,
    schedule: Schedule,
    times: Array,
    x_0: Array,
    cond: Cond,
    keys: Array,
    variance: str,
    levels: int,
) -> Bound:
    """The bound in discrete time of `samplers.sde.ancestral` along `times` (Eq. 5, Ho et al. 2020).

    All steps are summed, with one draw of noise each. The last term is the probability of a level's
    bin under a normal distribution (Eq. 13 there), so data must be in levels; continuous data have
    no such bound, as the sampler adds no noise in its last step.

    Args (the common ones are above):
        times: `[steps + 1]`, descending to 0, two steps or more.
        x_0: data `[B, ...]` in `levels` on [-1, 1].
        variance: as for `samplers.sde.ancestral`.
        levels: 2 or more.

    Raises:
        ValueError: `variance` is "learned" and the denoiser predicts none.
    """

    def body(_: None, step: tuple[Array, Array, Array]) -> tuple[None, Array]:
        i, t, s = step
        noise = sample_noise(fold_in(keys, i), x_0.shape[1:])
        x_t = diffuse(schedule, x_0, noise, t)
        x_0_hat, fraction = denoiser(x_t, jnp.full(len(x_0), t), cond)
        if variance != "learned":
            fraction = jnp.full_like(x_0, {"small": 0.0, "large": 1.0}[variance])
        elif fraction is None:
            raise ValueError("variance 'learned' needs a network that learned one")
        return None, _sum(variational_term(schedule, x_0, x_t, x_0_hat, fraction, t, s, levels))

    _, terms = jax.lax.scan(body, None, (jnp.arange(len(times) - 1), times[:-1], times[1:]))
    prior = 0.5 * jnp.exp(schedule.logsnr(times[0])) * _square(x_0)
    return Bound(prior, jnp.sum(terms[:-1], axis=0), terms[-1])


def log_level_probability(x: Array, noise: Array, std: Array, levels: int) -> Array:
    """`log p` of the level `x` given `x + std noise`, with a uniform prior of levels, `[B, ...]`.

    Eq. 14, Kingma et al. 2021. Another level, `g` standard deviations above `x`, is
    `exp(g noise - g^2 / 2)` times as likely. Levels are summed one by one: all at once would take
    `levels` times the memory of `x`.
    """
    index = jnp.round((x + 1) * (levels - 1) / 2)

    def add(i: Array, total: Array) -> Array:
        g = 2 * (i - index) / ((levels - 1) * std)
        return jnp.logaddexp(total, g * (noise - g / 2))

    return -jax.lax.fori_loop(0, levels, add, jnp.full_like(x, -jnp.inf))


def _sum(x: Array) -> Array:
    """Sum over each example, `[B, ...]` -> `[B]`."""
    return jnp.sum(x, axis=range(1, x.ndim))


def _square(x: Array) -> Array:
    """`||x||^2` of each example, `[B, ...]` -> `[B]`."""
    return _sum(x**2)
