"""Losses of two players: the relativistic pairing loss with gradient penalties (R3GAN)."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax.types import Array, Metrics, Params


@dataclasses.dataclass(frozen=True)
class Relativistic:
    """The losses of R3GAN (section 2, Huang et al. 2024), of pairs of a real and a made item.

    Both are losses for gradient descent of one player; what is the other's has no gradient, so
    that their sum gives each player the exact gradient of its own.
    """

    critic: Callable[[Params, Array], Array]  # `(params, x [B, ...]) -> logits [B]`
    penalty: float = 1.0  # gamma, of both gradient penalties

    def of_maker(self, params: Params, real: Array, made: Array) -> Array:
        """`f(D(real) - D(made))` `[B]` with `f(t) = log(1 + e^t)`: has a gradient in `made`."""
        params, real = jax.lax.stop_gradient((params, real))
        return jax.nn.softplus(self.critic(params, real) - self.critic(params, made))

    def of_critic(self, params: Params, real: Array, made: Array) -> tuple[Array, Metrics]:
        """`f(D(made) - D(real)) + gamma / 2 (R1 + R2)` `[B]`: has a gradient in `params`.

        `R1` and `R2` are the squared norms of the gradient of `D` at the real and at the made item.
        Metrics are the share of pairs whose real item has the larger logit, and `R1 + R2`.
        """
        real, made = jax.lax.stop_gradient((real, made))

        def logits(x: Array) -> tuple[Array, Array]:
            found = self.critic(params, x)
            return found.sum(), found

        slope = jax.grad(logits, has_aux=True)
        (at_real, of_real), (at_made, of_made) = slope(real), slope(made)
        axes = tuple(range(1, real.ndim))
        squares = jnp.sum(at_real**2, axes) + jnp.sum(at_made**2, axes)
        loss = jax.nn.softplus(of_made - of_real) + self.penalty / 2 * squares
        right = (of_real > of_made).astype(jnp.float32)
        return loss, {"critic_accuracy": right, "critic_slope": squares}
