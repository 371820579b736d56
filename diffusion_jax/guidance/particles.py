"""Joint denoising of groups of samples that repel or attract each other."""

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.guidance.scales import Scale, at, is_off
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


@checked(size="[2, inf)")
def flock(
    denoise: Denoiser,
    schedule: Schedule,
    size: int,
    *,
    separation: Scale = 0.0,
    cohesion: Scale = 0.0,
    alignment: Scale = 0.0,
) -> Denoiser:
    """Lets the samples of each group of `size` repel or attract each other.

    With `k_ij = exp(-|x_i - x_j|^2 / h)`, `h` the squared median of the distances in the group over
    `log size`, and the weights `w_ij = k_ij / sum_{j != i} k_ij` of a sample's neighbours,

        separation:  score of i += s grad_i log Phi,   log Phi = -alpha_t sum_{i<j} k_ij,
        cohesion:    x_0 of i += c sum_j w_ij (x_0 of j - x_0 of i),
        alignment:   eps of i += a alpha_t sum_j w_ij (eps of j - eps of i).

    Separation is particle guidance (Corso et al. 2024, Eq. 3 and section 5, with their kernel): the
    distribution of a group is that of independent samples times `Phi`, so that a single sample no
    longer follows the data distribution. The factor `alpha_t` is ours: it prevents sampler steps
    from amplifying the term where almost no signal is left. Cohesion and alignment are the other
    two rules of Reynolds (1987): they attract the images, and the directions
    `d(x_t / alpha_t) / d(sigma_t / alpha_t) = eps` in which they move. Each is off at 0. If all are
    the number 0, `denoise` itself is returned, and samples are bit-identical; if they are traced
    and turn out to be 0, nothing is computed, and samples are equal up to rounding.

    Args:
        denoise: the denoiser.
        schedule: the noise schedule.
        size: samples per group; the batch size is a multiple of it. A sample depends on its group,
            not on the rest of the batch.
        separation: strength of repulsion.
        cohesion: strength of attraction between images.
        alignment: strength of attraction between directions.

    Raises:
        ValueError: `size` is below two, or does not divide the batch size.
    """
    if is_off((separation, 0), (cohesion, 0), (alignment, 0)):
        return denoise

    def together(x_t: Array, t: Array, cond: Cond) -> Denoised:
        denoised = denoise(x_t, t, cond)
        if len(x_t) % size:
            raise ValueError(f"a batch of {len(x_t)} samples must be a multiple of size={size}")
        strengths = [at(scale, t) for scale in (separation, cohesion, alignment)]

        def moved() -> Array:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            x, x_0 = (a.reshape(-1, size, a[0].size) for a in (x_t, denoised.x_0))
            kernel, width = _kernel(x)
            apart = 2 / width * _pull(kernel, x)  # the gradient of -log Phi
            weights = kernel / jnp.maximum(kernel.sum(-1, keepdims=True), 1e-12)
            near, pull_x = _pull(weights, x_0), _pull(weights, x)
            factors = (-strengths[0] * sigma**2, strengths[1] + strengths[2] * alpha, -strengths[2])
            # x_0 = (x_t + sigma^2 score) / alpha = (x_t - sigma eps) / alpha.
            change = sum(
                per_sample(factor, x_t) * a.reshape(x_t.shape)
                for factor, a in zip(factors, (apart, near, pull_x), strict=True)
            )
            return denoised.x_0 + change

        on = jnp.any(jnp.stack(strengths) != 0)
        return denoised._replace(x_0=jax.lax.cond(on, moved, lambda: denoised.x_0))

    return together


def _kernel(x: Array) -> tuple[Array, Array]:
    """`k_ij` of groups `[G, n, D]`, 0 for i = j: `[G, n, n]`; and h `[G, 1, 1]`."""
    n = x.shape[1]
    square = jnp.sum((x[:, :, None] - x[:, None]) ** 2, axis=-1)
    pairs = square[:, *jnp.triu_indices(n, 1)]
    width = jnp.median(pairs, axis=-1)[:, None, None] / jnp.log(n)
    width = jnp.maximum(width, 1e-12)
    return jnp.exp(-square / width) * (1 - jnp.eye(n)), width


def _pull(weights: Array, x: Array) -> Array:
    """`sum_j weights_ij (x_j - x_i)`: `[G, n, n]` and `[G, n, D]` to `[G, n, D]`."""
    return weights @ x - weights.sum(-1, keepdims=True) * x
