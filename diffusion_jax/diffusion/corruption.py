"""The Gaussian process: from `x_0` to `x_t`, and one step back when `x_0` is known."""

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array, Key


def sample_keys(key: Key, indices: Array) -> Array:
    """One key per sample, `[B]`, from the samples' indices `[B]`, independent of the batching."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def fold_in(keys: Array, number: Array | int) -> Array:
    """Folds a number into each of the keys `[B]`, which gives independent keys `[B]`."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, number)


def sample_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Standard normal noise `[B, *shape]`, each sample from its own key of `keys` `[B]`."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def diffuse(schedule: Schedule, x_0: Array, eps: Array, t: Array) -> Array:
    """`x_t = alpha_t x_0 + sigma_t eps` for `x_0`, `eps` `[B, ...]` and `t` `[B]`."""
    return per_sample(schedule.alpha(t), x_0) * x_0 + per_sample(schedule.sigma(t), x_0) * eps


def posterior_mean(schedule: Schedule, x_t: Array, x_0: Array, t: Array, s: Array) -> Array:
    """Mean of `q(x_s | x_t, x_0)` (Eq. 7, Ho et al. 2020; App. A, Kingma et al. 2021).

    `(alpha_t sigma_s^2 / (alpha_s sigma_t^2)) x_t + alpha_s (1 - r) x_0` with
    `r = SNR_t / SNR_s`; `x_t`, `x_0` `[B, ...]`, times `[B]` or `[]`.
    """
    alpha_t, sigma_t, alpha_s, sigma_s = (
        per_sample(c, x_t) for c in (*schedule.scales(t), *schedule.scales(s))
    )
    rest = per_sample(_one_minus_snr_ratio(schedule, t, s), x_t)
    return alpha_t / alpha_s * (sigma_s / sigma_t) ** 2 * x_t + alpha_s * rest * x_0


def reverse_variances(schedule: Schedule, t: Array, s: Array) -> tuple[Array, Array]:
    """Lower and upper bound of the variance of a reverse step (Sec. 3.2, Ho et al. 2020).

    The lower bound, `sigma_s^2 (1 - r)`, is the variance of `q(x_s | x_t, x_0)`, correct for data
    at a single point; the upper, `sigma_t^2 (1 - r)`, is that of `q(x_t | x_s)` (DDPM's beta),
    correct for normal data.
    """
    rest = _one_minus_snr_ratio(schedule, t, s)
    return schedule.sigma(s) ** 2 * rest, schedule.sigma(t) ** 2 * rest


def add_noise(schedule: Schedule, x_t: Array, t: Array, s: Array, noise: Array) -> Array:
    """`x_s` at `s > t` from `q(x_s | x_t)`, with standard normal `noise` shaped like `x_t`.

    `x_s = (alpha_s / alpha_t) x_t + sqrt(sigma_s^2 - (alpha_s / alpha_t)^2 sigma_t^2) noise`.
    """
    std = jnp.sqrt(reverse_variances(schedule, s, t)[1])
    return schedule.alpha(s) / schedule.alpha(t) * x_t + std * noise


def learned_log_variance(schedule: Schedule, fraction: Array, t: Array, s: Array) -> Array:
    """Log variance at a `fraction` `[B, ...]` between the bounds (Eq. 15, Nichol & Dhariwal 2021).

    Where the lower bound is 0 (`s` = 0), that of the previous step replaces it, as there.
    """
    lower, upper = reverse_variances(schedule, t, s)
    before, _ = reverse_variances(schedule, jnp.minimum(2 * t - s, 1.0), t)
    lower = jnp.where(schedule.sigma(s) > 0, lower, before)
    lower, upper = per_sample(lower, fraction), per_sample(upper, fraction)
    return fraction * jnp.log(upper) + (1 - fraction) * jnp.log(lower)


def variational_term(
    schedule: Schedule,
    x_0: Array,
    x_t: Array,
    x_0_hat: Array,
    fraction: Array,
    t: Array,
    s: Array,
    levels: int,
) -> Array:
    """Term of the variational bound for the step from `t` to `s`, in nats per entry, `[B, ...]`.

    `KL(q(x_s | x_t, x_0) || p(x_s | x_t))` (Eq. 5, Ho et al. 2020), where `p` has the mean of
    `q(x_s | x_t, x_0_hat)` and the variance at `fraction` `[B, ...]` between the bounds. For
    `s` = 0 it is `-log p(x_0 | x_t)`: of data discretised to `levels` values on [-1, 1] (Sec. 3.3
    there), or the density of continuous data if `levels` is 0.
    """
    mean = posterior_mean(schedule, x_t, x_0_hat, t, s)
    log_variance = learned_log_variance(schedule, fraction, t, s)
    last = per_sample(s == 0, x_0)
    lower, upper = (per_sample(v, x_0) for v in reverse_variances(schedule, t, s))
    # No KL is needed at s = 0: any nonzero variance keeps it finite.
    excess = log_variance - jnp.log(jnp.where(last, upper, lower))
    square = (posterior_mean(schedule, x_t, x_0, t, s) - mean) ** 2
    kl = 0.5 * (excess + jnp.expm1(-excess) + square * jnp.exp(-log_variance))
    std = jnp.exp(0.5 * log_variance)
    if levels:
        likelihood = log_bin_probability(x_0, mean, std, levels)
    else:
        likelihood = jax.scipy.stats.norm.logpdf(x_0, mean, std)
    return jnp.where(last, -likelihood, kl)


def log_bin_probability(x_0: Array, mean: Array, std: Array, levels: int) -> Array:
    """Log probability of the bin of `x_0` under a normal distribution; end bins are unbounded.

    Bins are `2 / (levels - 1)` wide.
    """
    half = 1 / (levels - 1)
    cdf = lambda x: jax.scipy.stats.norm.cdf((x - mean) / std)  # noqa: E731
    upper = jnp.where(x_0 > 1 - half / 4, 1.0, cdf(x_0 + half))
    lower = jnp.where(x_0 < half / 4 - 1, 0.0, cdf(x_0 - half))
    return jnp.log(jnp.maximum(upper - lower, 1e-12))


def _one_minus_snr_ratio(schedule: Schedule, t: Array, s: Array) -> Array:
    """`1 - SNR_t / SNR_s`, from logarithms to avoid cancellation."""
    return -jnp.expm1(schedule.logsnr(t) - schedule.logsnr(s))
