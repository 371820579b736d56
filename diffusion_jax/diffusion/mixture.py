"""The exact denoiser of a Gaussian mixture, in closed form."""

import jax
import jax.numpy as jnp

from diffusion_jax.data.sets.points import Law
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


def exact_denoiser(law: Law, schedule: Schedule) -> Denoiser:
    """`E[x_0 | x_t]` of a Gaussian mixture, restricted to `cond['label']` where it is not -1.

    With `v = alpha^2 std^2 + sigma^2`, component k has the posterior probability
    `r_k ~ N(x_t; alpha m_k, v I)`, and the mean is `(alpha std^2 x_t + sigma^2 sum_k r_k m_k) / v`.
    """

    def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
        alpha, sigma = (per_sample(c, x_t) for c in schedule.scales(t))
        means = jnp.asarray(law.means, x_t.dtype)
        variance = alpha**2 * law.std**2 + sigma**2
        # Not as |x|^2 - 2 x m + |m|^2, which cancels at low noise.
        square = sum((x_t[:, d, None] - alpha * means[:, d]) ** 2 for d in range(means.shape[1]))
        logits = -square / (2 * variance)
        if "label" in cond:
            label = cond["label"][:, None]
            logits = jnp.where((label < 0) | (label == law.labels), logits, -jnp.inf)
        shares = jnp.exp(logits - jax.nn.logsumexp(logits, axis=1, keepdims=True))
        centre = jnp.matmul(shares, means, precision="highest")
        return Denoised((alpha * law.std**2 * x_t + sigma**2 * centre) / variance)

    return denoise
