"""Training objectives of the Gaussian process: which error, weighted how.

The squared error of one prediction type is that of another times a function of `t` alone
(`prediction.py`), so a network of any type can be trained on the loss of any other. Weightings
other than "uniform" are stated once, as the weight of `||x_0_hat - x_0||^2`, and are thereby
right for every prediction type.
"""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.conditioning import PARTS, drop
from diffusion_jax.diffusion.corruption import (
    diffuse,
    sample_keys,
    sample_noise,
    variational_term,
)
from diffusion_jax.diffusion.prediction import PREDICTIONS, Prediction, split_variance
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Quantile, learned, stratified
from diffusion_jax.types import Array, Batch, Condition, Context, Metrics, Params

Apply = Callable[..., Array]
"""`(params, x_t, t, cond, dropout_key) -> y`."""

Weighting = Callable[[Schedule, Array], Array]
"""`(schedule, t) -> weight` of `||x_0_hat - x_0||^2`, shaped like `t`."""


def snr(schedule: Schedule, t: Array) -> Array:
    """`SNR_t`: the plain squared error of the noise (Ho et al. 2020)."""
    return jnp.exp(schedule.logsnr(t))


def truncated_snr(schedule: Schedule, t: Array) -> Array:
    """`max(SNR_t, 1)` (Sec. 4, Salimans & Ho 2022)."""
    return jnp.maximum(snr(schedule, t), 1.0)


def min_snr(schedule: Schedule, t: Array, gamma: float = 5.0) -> Array:
    """`min(SNR_t, gamma)` (Hang et al. 2023), in `x_0` and hence right for `eps` and `v` too."""
    return jnp.minimum(snr(schedule, t), gamma)


def vlb(schedule: Schedule, t: Array) -> Array:
    """`-(1/2) dSNR/dt`: the variational bound in continuous time (Eq. 17, Kingma et al. 2021)."""
    rate = jax.jvp(schedule.logsnr, (t,), (jnp.ones_like(t),))[1]
    return -0.5 * rate * snr(schedule, t)


def p2(schedule: Schedule, t: Array, k: float = 1.0, gamma: float = 1.0) -> Array:
    """`SNR_t / (k + SNR_t)^gamma` (P2, Choi et al. 2022, who weigh the error of the noise)."""
    ratio = snr(schedule, t)
    return ratio / (k + ratio) ** gamma


def edm(schedule: Schedule, t: Array, sigma_data: float = 0.5) -> Array:
    """`SNR_t + 1 / sigma_data^2`: EDM's `1 / c_out^2` (App. B.6, Karras et al. 2022)."""
    return snr(schedule, t) + 1 / sigma_data**2


def sigmoid(schedule: Schedule, t: Array, bias: float = -1.0) -> Array:
    """`sigmoid(bias - logsnr_t)` times the variational bound's weight.

    SiD2 (Hoogeboom et al. 2025; Kingma & Gao 2023): a weight of the noise's error per unit of
    logsnr, and hence the same objective for every schedule.
    """
    return jax.nn.sigmoid(bias - schedule.logsnr(t)) * vlb(schedule, t)


@dataclasses.dataclass(frozen=True)
class GaussianLoss:
    """Squared error of the network at random times: a `LossFn`.

    Attributes:
        apply: the network, `(params, x_t, t, cond, dropout_key) -> y`.
        schedule: noise schedule.
        prediction: what the network's output stands for.
        quantile: law of the training times.
        batch_size: size of the global batch, over which times are stratified.
        loss_space: prediction type whose plain squared error is taken if `weighting` is None.
        weighting: weight of `||x_0_hat - x_0||^2`.
        huber: 0 for the squared error, or `c` of the pseudo-Huber error `sqrt(mse + c^2) - c`
            (Sec. 3.3, Song & Dhariwal 2024, per dimension: their `c / sqrt(D)`).
        uncertainty: None, or `(params, t) -> u` `[B]`, the log variance of the error at `t`,
            learned in `loss / exp(u) + u` (EDM2, Karras et al. 2024).
        time_law: None, or `params -> logits` `[K]` of `time_sampling.learned`: how often each time
            is drawn is learned too, such that the loss has least variance. Its mean stays what it
            is, as each sample is divided by the density with which it was drawn.
        condition: None, or what makes further conditioning from `x_0`.
        cond_dropout: probability with which all of a sample's conditioning is switched off.
        part_dropout: further probabilities by part of the conditioning (`conditioning.PARTS`).
        vlb_steps: 0, or the number of discrete steps for which the network learns the variance,
            from the variational bound times `vlb_weight` added to the loss (L_hybrid, Eq. 16,
            Nichol & Dhariwal 2021); the mean gets no gradient from it.
        vlb_weight: weight of that bound, summed over the steps.
    """

    apply: Apply
    schedule: Schedule
    prediction: Prediction
    quantile: Quantile
    batch_size: int
    loss_space: Prediction
    weighting: Weighting | None = None
    huber: float = 0.0
    uncertainty: Callable[[Params, Array], Array] | None = None
    time_law: Callable[[Params], Array] | None = None
    condition: Condition | None = None
    cond_dropout: float = 0.0
    part_dropout: Mapping[str, float] | None = None
    vlb_steps: int = 0
    vlb_weight: float = 1e-3

    @property
    def without_dropout(self) -> "GaussianLoss":
        """The same with all of the conditioning."""
        return dataclasses.replace(self, cond_dropout=0.0, part_dropout=None)

    def __call__(self, params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        """Loss `[B]`, and `t`, `mse` (unweighted, in the loss space) `[B]` as metrics."""
        x_0, index = batch["x"], batch["index"]
        time_key, noise_key, cond_key, dropout_key = jax.random.split(context.key, 4)
        u, log_density = stratified(time_key, index, self.batch_size), None
        if self.time_law is not None:
            u, log_density = learned(self.time_law(params), u)
        t = self.quantile(u)
        eps = sample_noise(sample_keys(noise_key, index), x_0.shape[1:])
        cond_keys = sample_keys(cond_key, index)
        cond = batch["cond"]
        if self.condition is not None:
            own = jax.vmap(jax.random.fold_in, (0, None))(cond_keys, len(PARTS))  # not `drop`'s
            cond = {**cond, **self.condition(x_0, own)}
        cond = drop(cond, cond_keys, self.cond_dropout, self.part_dropout)

        x_t = diffuse(self.schedule, x_0, eps, t)
        network_input = self.prediction.network_input(self.schedule, x_t, t)
        y = self.apply(params, network_input, t, cond, jax.random.fold_in(dropout_key, index[0]))
        variance = None
        if self.vlb_steps:
            y, variance = split_variance(y)
        error = y - self.prediction.target(self.schedule, x_0, eps, t)
        square = jnp.mean(error**2, axis=range(1, x_0.ndim))
        mse = square * self._rescale(self.loss_space, t)
        if self.weighting is None:
            loss = self._penalty(mse)
        else:
            weight = self.weighting(self.schedule, t)
            loss = weight * self._penalty(square * self._rescale(PREDICTIONS["x0"], t))
        if self.uncertainty is not None:
            u = self.uncertainty(params, t)
            loss = loss * jnp.exp(-u) + u
        metrics = {"t": t, "mse": mse}
        if variance is not None:
            x_0_hat = self.prediction.to_x_0(self.schedule, x_t, jax.lax.stop_gradient(y), t)
            metrics["vlb"] = self._variational_term(x_0, x_t, x_0_hat, variance, t)
            loss += self.vlb_weight * self.vlb_steps * metrics["vlb"]
        if log_density is not None:
            loss = _importance(loss, log_density)
        return loss, metrics

    def _penalty(self, square: Array) -> Array:
        return jnp.sqrt(square + self.huber**2) - self.huber if self.huber else square

    def _rescale(self, space: Prediction, t: Array) -> Array:
        """Squared error in `space` over that in the network's own prediction type."""
        if space is self.prediction:
            return jnp.ones_like(t)
        own = self.prediction.determinant(self.schedule, t)
        return (space.determinant(self.schedule, t) / own) ** 2

    def _variational_term(
        self, x_0: Array, x_t: Array, x_0_hat: Array, variance: Array, t: Array
    ) -> Array:
        """Term of the bound at the step from `t` down, in bits per dimension, `[B]`."""
        s = jnp.maximum(t - 1 / self.vlb_steps, 0.0)
        s = jnp.where(s < 0.5 / self.vlb_steps, 0.0, s)  # not left at 1e-8 by rounding
        term = variational_term(self.schedule, x_0, x_t, x_0_hat, variance, t, s)
        return jnp.mean(term, axis=range(1, x_0.ndim)) / jnp.log(2.0)


def _importance(loss: Array, log_density: Array) -> Array:
    """`loss / q`, with the gradient of its variance for the law `q` of which `log_density` is.

    The second moment of `loss / q` is the integral of `loss^2 / q`, with the gradient
    `-E[(loss / q)^2 grad log q]`. Divided by the mean size of the loss it has the loss' own units,
    so that clipping the whole gradient does not take one for the other.
    """
    ratio = loss * jnp.exp(-jax.lax.stop_gradient(log_density))
    square = jax.lax.stop_gradient(ratio**2 / jnp.mean(jnp.abs(ratio)))
    return ratio - square * (log_density - jax.lax.stop_gradient(log_density))
