"""Stochastic samplers: ancestral, reverse SDE, EDM's churn, predictor-corrector.

The forward process takes `x_s` to `x_t`, `t > s`, by `x_t = r x_s + sqrt(V) z` with

    r = alpha_t / alpha_s,    V = sigma_t^2 - r^2 sigma_s^2 = sigma_t^2 (1 - SNR_t / SNR_s)

`V` is the upper of the two `reverse_variances`. It is finite for every schedule, also from
`alpha_t = 0`, where the SDE's own rates `f = alpha' / alpha` and `g^2` are infinite.
"""

import math
from typing import Any

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import (
    add_noise,
    fold_in,
    learned_log_variance,
    posterior_mean,
    reverse_variances,
    sample_noise,
)
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.ddim import ddim, ddim_step, far
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


def transition_std(
    schedule: Schedule, t: Array, s: Array, variance: str, fraction: Array | None = None
) -> Array:
    """Standard deviation of an ancestral step, as described there: `[]`, or `[B, ...]` if learned.

    Raises:
        ValueError: `variance` is "learned" and the `fraction` `[B, ...]` is not there.
    """
    small, large = reverse_variances(schedule, t, s)
    if variance == "learned":
        if fraction is None:
            raise ValueError("variance='learned' needs a network with a learned variance")
        std = jnp.exp(0.5 * learned_log_variance(schedule, fraction, t, s))
    else:
        taken = jnp.where(far(schedule, t, s), small, large) if variance == "large" else small
        std = jnp.sqrt(taken)
    return jnp.where(schedule.sigma(s) > 0, std, 0.0)


@checked(variance=("small", "large", "learned"))
def ancestral(schedule: Schedule, variance: str = "large") -> Sampler:
    """`x_s ~ N(mu(x_t, x_0_hat), Sigma)`: Eq. 11 (Ho et al. 2020) in terms of `x_0_hat`.

    `mu` is the mean of `q(x_s | x_t, x_0_hat)`; `Sigma` is its variance ("small"), DDPM's beta
    ("large", the upper bound; not in steps that are `far`), or in between as the network predicts
    ("learned", Eq. 15, Nichol & Dhariwal 2021). No noise is added in a step to `sigma_s = 0`.

    Raises:
        ValueError: `variance` is "learned" and the denoiser returns none.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0, fraction = denoise(x_t, t)
        std = transition_std(schedule, t, s, variance, fraction)
        noise = sample_noise(keys, x_t.shape[1:])
        return posterior_mean(schedule, x_t, x_0, t, s) + std * noise, state

    return Sampler(init=lambda x_T: (), step=step, stochastic=True)


def euler_ancestral(schedule: Schedule, eta: float = 1.0) -> Sampler:
    """Euler ancestral of k-diffusion: identical to DDIM with `eta`, on every schedule.

    In units of `sigma / alpha` it takes the ODE's Euler step to `down`, then adds noise `up`:

        up^2 = eta^2 sigma_s^2 (sigma_t^2 - sigma_s^2) / sigma_t^2,    down^2 = sigma_s^2 - up^2
        y_s = y_t + (down - sigma_t) eps_hat + up z = x_0_hat + down eps_hat + up z

    and `alpha_s up` is DDIM's `std`, with `y_t = x_0_hat + sigma_t eps_hat`.
    """
    return ddim(schedule, eta)


@checked(noise="[0, inf)")
def euler_maruyama(schedule: Schedule, noise: float = 1.0) -> Sampler:
    """The reverse SDE discretised as the forward one (App. E, Song et al. 2021, SDE).

    With score `-eps_hat / sigma_t`, and `noise` from 0 (ODE) to 1 (reverse SDE, Eq. 6),

        x_s = (2 - r) x_t - (1 + noise^2) / 2 V eps_hat / sigma_t + noise sqrt(V) z

    This is Euler-Maruyama up to terms of second order in the step: there `r - 1` and `V` would be
    `f dt` and `g^2 dt`, which are infinite at `alpha_t = 0`. A step to `sigma_s = 0` ends in
    `x_0_hat`, without noise (Tweedie, App. G there), and a step that is `far` is DDIM's with
    `eta = noise`.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        alpha_s, alpha_t, sigma_t = schedule.alpha(s), schedule.alpha(t), schedule.sigma(t)
        variance = reverse_variances(schedule, t, s)[1]
        eps = (x_t - alpha_t * x_0) / sigma_t
        x_s = (2 - alpha_t / alpha_s) * x_t - (1 + noise**2) / 2 * variance / sigma_t * eps
        mean, std = ddim_step(schedule, x_t, x_0, t, s, min(noise, 1.0))
        if noise:
            z = sample_noise(keys, x_t.shape[1:])
            x_s += noise * jnp.sqrt(variance) * z
            mean += std * z
        x_s = jnp.where(far(schedule, t, s), mean, x_s)
        return jnp.where(schedule.sigma(s) > 0, x_s, alpha_s * x_0), state

    return Sampler(init=lambda x_T: (), step=step, stochastic=noise > 0)


@checked(steps="[1, inf)", s_churn="[0, inf)", s_min="[0, s_max]", s_noise="[0, inf)")
def churn(
    schedule: Schedule,
    steps: int,
    s_churn: float = 40.0,
    s_min: float = 0.05,
    s_max: float = 50.0,
    s_noise: float = 1.003,
) -> Sampler:
    """EDM's stochastic sampler: noise is added before each of `steps` Heun steps.

    With `k = sigma / alpha` and `y = x / alpha`,

        g = min(s_churn / steps, sqrt(2) - 1) if s_min <= k_t <= s_max else 0
        k_h = (1 + g) k_t,    y_h = y_t + s_noise sqrt(k_h^2 - k_t^2) z
        y_s = y_h + (k_s - k_h) (eps_hat(y_h, k_h) + eps_hat(y_s', k_s)) / 2

    where `y_s'` is the Euler step, with `eps_hat(y_h, k_h)` for both slopes. `k_h` is limited to
    the schedule's highest level. A step to `sigma_s = 0` or from `alpha_t = 0` is Euler's.
    """
    most = min(s_churn / steps, 2**0.5 - 1)

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        k_t = schedule.sigma(t) / schedule.alpha(t)
        churned = (k_t >= s_min) & (k_t <= s_max) & jnp.isfinite(k_t) & (most > 0)
        higher = schedule.time_at(schedule.logsnr(t) - 2 * math.log1p(most))
        h = jnp.where(churned, jnp.maximum(higher, t), t)
        noise = s_noise * sample_noise(keys, x_t.shape[1:])
        x_h = jnp.where(churned, add_noise(schedule, x_t, t, h, noise), x_t)
        return heun(schedule, "ve").step(denoise, state, x_h, h, s, keys)

    return Sampler(init=lambda x_T: (), step=step, evaluations=2, stochastic=most > 0)


@checked(order=(1, 2))
def dpmpp_sde_multistep(schedule: Schedule, order: int = 2) -> Sampler:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, DPM-Solver++, App.): extrapolates `x_0_hat`.

    With `lambda = logsnr / 2`, `h = lambda_s - lambda_t` and `h_-` the previous step,

        D = x_0_hat(t) + h / (2 h_-) (x_0_hat(t) - x_0_hat(t_-))
        x_s = (sigma_s / sigma_t) e^-h x_t + alpha_s (1 - e^-2h) D + sigma_s sqrt(1 - e^-2h) z

    which is a draw from `q(x_s | x_t, x_0 = D)`. Order 1, `D = x_0_hat(t)`, is ancestral sampling
    with the small variance; so are the first step, steps from or to an infinite `lambda`, and
    steps that are too long to extrapolate (`multistep.too_far`).
    """

    def init(x_T: Array) -> tuple[Array, Array]:
        return jnp.zeros_like(x_T), jnp.full((), -jnp.inf, x_T.dtype)

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0, (before, logsnr_before), logsnr = denoise(x_t, t).x_0, state, schedule.logsnr(t)
        h, h_before = schedule.logsnr(s) - logsnr, logsnr - logsnr_before
        second = (order > 1) & jnp.isfinite(h) & jnp.isfinite(h_before) & (h_before > 0)
        second &= ~multistep.too_far(h, h_before)
        slope = jnp.where(second, h, 0.0) / (2 * jnp.where(second, h_before, 1.0))
        mean = posterior_mean(schedule, x_t, x_0 + slope * (x_0 - before), t, s)
        std = jnp.sqrt(reverse_variances(schedule, t, s)[0])
        return mean + std * sample_noise(keys, x_t.shape[1:]), (x_0, logsnr)

    return Sampler(init=init, step=step, stochastic=True)


@checked(eta="[0, 1]")
def dpmpp_sde(schedule: Schedule, eta: float = 1.0) -> Sampler:
    """DPM-Solver++ SDE of k-diffusion (singlestep, `r = 1/2`): the midpoint rule around DDIM.

    A DDIM step with `eta` to the time `u` halfway in `logsnr`, then one over the whole step from
    `x_t` with `x_0_hat(x_u, u)` for `x_0_hat`. The noise of both is from one Brownian path in
    `logsnr`, with correlation `sqrt(1/2)`: independent noise would reduce the order to 1. Steps
    from `alpha_t = 0` and to `sigma_s = 0` are DDIM's.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        middle = (schedule.logsnr(t) + schedule.logsnr(s)) / 2
        finite = jnp.isfinite(middle)
        u = jnp.where(finite, schedule.time_at(jnp.where(finite, middle, 0.0)), t)
        first, second = (sample_noise(fold_in(keys, i), x_t.shape[1:]) for i in range(2))
        x_0 = denoise(x_t, t).x_0
        x_u, std = ddim_step(schedule, x_t, x_0, t, u, eta)
        x_u = jnp.where(finite, x_u + std * first, x_t)
        x_0 = jnp.where(finite, denoise(x_u, u).x_0, x_0)
        x_s, std = ddim_step(schedule, x_t, x_0, t, s, eta)
        return x_s + std * (first + second) / 2**0.5, state

    return Sampler(init=lambda x_T: (), step=step, evaluations=2, stochastic=eta > 0)


@checked(corrector_steps="[0, inf)", snr="(0, inf)")
def predictor_corrector(
    schedule: Schedule, predictor: Sampler, corrector_steps: int = 1, snr: float = 0.16
) -> Sampler:
    """Adds Langevin steps at `s` after each step of `predictor` (Alg. 2-3, Song et al. 2021, SDE).

    With `z` normal and score `g = -eps_hat / sigma_s`,

        x <- x + e g + sqrt(2 e) z,    e = 2 (snr |z| / |g|)^2 = 2 (snr sigma_s)^2

    The published `e` is the first form (App. G), with norms averaged over the batch, times
    `1 - beta` for VP. The second form takes `|z|` and `|eps_hat|` as the norm of noise, so that
    samples do not depend on their batch, and `e` not on `x`, which would change the stationary
    distribution. There is no corrector where `sigma_s = 0`.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_s, state = predictor.step(denoise, state, x_t, t, s, fold_in(keys, 0))
        noisy = schedule.sigma(s) > 0
        u = jnp.where(noisy, s, t)
        x, alpha, sigma = x_s, schedule.alpha(u), schedule.sigma(u)
        for i in range(1, corrector_steps + 1):
            eps = (x - alpha * denoise(x, u).x_0) / sigma
            z = sample_noise(fold_in(keys, i), x.shape[1:])
            x = x - 2 * snr**2 * sigma * eps + 2 * snr * sigma * z
        return jnp.where(noisy, x, x_s), state

    evaluations = predictor.evaluations + corrector_steps
    return Sampler(predictor.init, step, evaluations, stochastic=True)
