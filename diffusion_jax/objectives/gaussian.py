"""Squared error of a denoiser at random times: the objective of the Gaussian process.

The squared errors of two prediction types differ by a factor that depends on `t` alone
(`prediction.py`), so a network of any type can be trained on the loss of any other. Weightings
other than "uniform" are defined as the weight of `||x_0_hat - x_0||^2`, and so apply to every
prediction type.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.diffusion.corruption import diffuse, sample_keys, sample_noise, variational_term
from diffusion_jax.diffusion.prediction import PREDICTIONS, Prediction
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.objectives.parts import (
    PLAIN,
    Conditioning,
    Times,
    importance,
    pseudo_huber,
    uncertain,
)
from diffusion_jax.objectives.weightings import Weighting
from diffusion_jax.types import Array, Batch, Context, Metrics, Params

Apply = Callable[..., Array]  # `(params, x_t, time, cond, dropout_key) -> y`


@dataclasses.dataclass(frozen=True)
class Error:
    """Error function: how the squared error at a time enters the loss."""

    space: Prediction  # prediction type whose unweighted error is used if `weighting` is None
    weighting: Weighting | None = None  # weight of `||x_0_hat - x_0||^2`
    huber: float = 0.0  # `c` of `pseudo_huber`; 0 for the squared error

    def __call__(self, process: Gaussian, square: Array, t: Array) -> tuple[Array, Array]:
        """Loss `[B]` and squared error in `space` `[B]`, from that of the output, `[B]`."""
        mse = square * self._rescale(process, self.space, t)
        if self.weighting is None:
            return pseudo_huber(mse, self.huber), mse
        of_x_0 = square * self._rescale(process, PREDICTIONS["x0"], t)
        weight = self.weighting(process.schedule, t)
        return weight * pseudo_huber(of_x_0, self.huber), mse

    def _rescale(self, process: Gaussian, space: Prediction, t: Array) -> Array:
        """Ratio of the squared error in `space` to that in the network's prediction type."""
        if space is process.prediction:
            return jnp.ones_like(t)
        own = process.prediction.determinant(process.schedule, t)
        return (space.determinant(process.schedule, t) / own) ** 2


@dataclasses.dataclass(frozen=True)
class GaussianLoss:
    """Squared error of the network at random times: a `LossFn`."""

    apply: Apply  # the network, `(params, x_t, time, cond, dropout_key) -> y`
    process: Gaussian  # the diffusion process
    codec: Codec  # from data items to the diffused `x_0`
    times: Times  # distribution of training times
    error: Error  # error function
    conditioning: Conditioning = PLAIN  # conditioning in training
    # None, or `(params, t) -> u` `[B]`: the learned log variance of the error, for `uncertain`
    uncertainty: Callable[[Params, Array], Array] | None = None
    # number of discrete steps if the variance is learned, from the variational bound times
    # `vlb_weight` added to the loss (L_hybrid, Eq. 16, Nichol & Dhariwal 2021); the mean gets no
    # gradient from it.
    vlb_steps: int = 0
    vlb_weight: float = 1e-3  # weight of that bound, summed over the steps

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and the metrics `t` and `error` (unweighted, in the loss space) `[B]`."""
        x, index, process = batch["x"], batch["index"], self.process
        time_key, noise_key, cond_key, dropout_key = jax.random.split(context.key, 4)
        codec_keys = sample_keys(jax.random.fold_in(context.key, 4), index)
        x_0 = self.codec.encode(context.frozen, x, codec_keys)
        t, log_density = self.times.draw(params, time_key, index)
        eps = sample_noise(sample_keys(noise_key, index), x_0.shape[1:])
        cond = self.conditioning(x, batch["cond"], sample_keys(cond_key, index))

        x_t = diffuse(process.schedule, x_0, eps, t)
        dropout_key = jax.random.fold_in(dropout_key, index[0])

        def network(*inputs: Any) -> Array:
            return self.apply(params, *inputs, dropout_key)

        y, variance = process.predict(network, x_t, t, cond)
        error = y - process.prediction.target(process.schedule, x_0, eps, t)
        square = jnp.mean(error**2, axis=range(1, x_0.ndim))
        loss, mse = self.error(process, square, t)
        if self.uncertainty is not None:
            loss = uncertain(loss, self.uncertainty(params, t))
        metrics = {"t": t, "error": mse}
        if variance is not None:
            y = jax.lax.stop_gradient(y)
            x_0_hat = process.prediction.to_x_0(process.schedule, x_t, y, t)
            metrics["vlb"] = self._variational_term(x_0, x_t, x_0_hat, variance, t)
            loss += self.vlb_weight * self.vlb_steps * metrics["vlb"]
        if log_density is not None:
            loss = importance(loss, log_density)
        return loss, metrics

    def _variational_term(
        self, x_0: Array, x_t: Array, x_0_hat: Array, variance: Array, t: Array
    ) -> Array:
        """Term of the bound for the step down from `t`, in bits per dimension, `[B]`."""
        s = jnp.maximum(t - 1 / self.vlb_steps, 0.0)
        s = jnp.where(s < 0.5 / self.vlb_steps, 0.0, s)  # exactly 0 despite rounding
        term = variational_term(
            self.process.schedule, x_0, x_t, x_0_hat, variance, t, s, self.codec.levels
        )
        return jnp.mean(term, axis=range(1, x_0.ndim)) / jnp.log(2.0)
