"""The loss of autoencoders of latent diffusion (Rombach et al. 2022, appendix G)."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.objectives.adversarial import Relativistic
from diffusion_jax.types import Array, Batch, Context, Metrics, Params

CRITIC = "critic"
"""Name of the critic's parameters beside those of the autoencoder."""


class Coder(NamedTuple):
    """An autoencoder as functions of its parameters."""

    # `(params, x [B, ...]) -> mean, log-variance` of latents, twice `[B, ..., Z]`
    encode: Callable[[Params, Array], tuple[Array, Array]]
    decode: Callable[[Params, Array], Array]  # `(params, z [B, ..., Z]) -> x [B, ...]`


def divergence(mean: Array, logvar: Array) -> Array:
    """KL divergence of normal laws of latents `[B, ...]` from the standard one, in nats, `[B]`."""
    each = (mean**2 + jnp.exp(logvar) - 1 - logvar) / 2
    return jnp.sum(each, tuple(range(1, each.ndim)))


@dataclasses.dataclass(frozen=True)
class Squared:
    """Minus the log density of entries that are off by `error`, under a normal law."""

    variance: float = 1.0

    def __call__(self, error: Array) -> Array:
        return (error**2 / self.variance + math.log(2 * math.pi * self.variance)) / 2


class Perceptual(NamedTuple):
    """A distance of items in the features of a network that is not trained."""

    # `(frozen parameters, x, x_hat) -> [B]`, of items `[B, ...]`
    distance: Callable[[Mapping[str, Params], Array, Array], Array]
    weight: float


class Adversarial(NamedTuple):
    """The loss by a critic."""

    players: Relativistic
    weight: float


@dataclasses.dataclass(frozen=True)
class AutoencoderLoss:
    """Error of what is decoded, divergence of latents, and two optional terms: a `LossFn`.

        mean_i e(x_i - x_hat_i) + kl KL(q(z | x) || N(0, 1)) / D + w_p perceptual + w_a adversarial

    with the mean over the D entries of an item, and `z` drawn from `q`. With `Squared` and `kl` of
    1 the first two are minus the evidence lower bound per entry (Eq. 3, Kingma & Welling 2014).
    The loss of the critic, whose parameters are `params["critic"]`, is added with weight 1.
    """

    coder: Coder
    error: Callable[[Array], Array] = jnp.abs  # of each entry
    kl: float = 1e-6
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and as metrics `[B]` its terms, without their weights; `kl` is in bits."""
        x = batch["x"]
        mean, logvar = self.coder.encode(params, x)
        noise = sample_noise(sample_keys(context.key, batch["index"]), mean.shape[1:])
        x_hat = self.coder.decode(params, mean + jnp.exp(logvar / 2) * noise)
        reconstruction = jnp.mean(self.error(x - x_hat), tuple(range(1, x.ndim)))
        kl = divergence(mean, logvar)
        loss = reconstruction + self.kl * kl / math.prod(x.shape[1:])
        metrics = {"reconstruction": reconstruction, "kl": kl / math.log(2)}
        if self.perceptual:
            found = self.perceptual.distance(context.frozen, x, x_hat)
            loss, metrics["perceptual"] = loss + self.perceptual.weight * found, found
        if self.adversarial:
            players = self.adversarial.players
            made = players.of_maker(params[CRITIC], x, x_hat)
            critic, seen = players.of_critic(params[CRITIC], x, x_hat)
            loss += self.adversarial.weight * made + critic
            metrics |= {"adversarial": made, "critic": critic, **seen}
        return loss, metrics
