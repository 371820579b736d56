"""Weights of the squared error of `x_0` by noise level, valid for every prediction type."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array

Weighting = Callable[[Schedule, Array], Array]
"""`(schedule, t) -> weight` of `||x_0_hat - x_0||^2`, shaped like `t`."""


def snr(schedule: Schedule, t: Array) -> Array:
    """`SNR_t`: the unweighted squared error of the noise (Ho et al. 2020)."""
    return jnp.exp(schedule.logsnr(t))


def truncated_snr(schedule: Schedule, t: Array) -> Array:
    """`max(SNR_t, 1)` (Sec. 4, Salimans & Ho 2022)."""
    return jnp.maximum(snr(schedule, t), 1.0)


def min_snr(schedule: Schedule, t: Array, gamma: float = 5.0) -> Array:
    """`min(SNR_t, gamma)` (Hang et al. 2023), of the error in `x_0`, also for `eps` and `v`."""
    return jnp.minimum(snr(schedule, t), gamma)


def vlb(schedule: Schedule, t: Array) -> Array:
    """`-(1/2) dSNR/dt`: the variational bound in continuous time (Eq. 17, Kingma et al. 2021)."""
    rate = jax.jvp(schedule.logsnr, (t,), (jnp.ones_like(t),))[1]
    return -0.5 * rate * snr(schedule, t)


def p2(schedule: Schedule, t: Array, k: float = 1.0, gamma: float = 1.0) -> Array:
    """`SNR_t / (k + SNR_t)^gamma` (P2, Choi et al. 2022, who weight the error of the noise)."""
    ratio = snr(schedule, t)
    return ratio / (k + ratio) ** gamma


def edm(schedule: Schedule, t: Array, sigma_data: float = 0.5) -> Array:
    """`SNR_t + 1 / sigma_data^2`: EDM's `1 / c_out^2` (App. B.6, Karras et al. 2022)."""
    return snr(schedule, t) + 1 / sigma_data**2


def sigmoid(schedule: Schedule, t: Array, bias: float = -1.0) -> Array:
    """`sigmoid(bias - logsnr_t)` times the variational bound's weight.

    SiD2 (Hoogeboom et al. 2025; Kingma & Gao 2023): a weight of the noise error per unit of
    logsnr, and hence the same objective for every schedule.
    """
    return jax.nn.sigmoid(bias - schedule.logsnr(t)) * vlb(schedule, t)
