"""Comparison of the training objectives of two configs.

For a given network `x_0_hat(x_t, logsnr)` every objective here is an integral over noise levels of
`||x_0_hat - x_0||^2` times a weight times the density of the training times in `logsnr`. Schedule
and prediction type change its form and the scale of `x_t`, but not what is learned.
"""

import dataclasses
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.diffusion.schedules import inverse
from diffusion_jax.from_config import Config
from diffusion_jax.from_config.process import make_error, make_process, make_times
from diffusion_jax.objectives.gaussian import GaussianLoss
from diffusion_jax.objectives.parts import Times
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Context, Key, Params

SHAPE = (2, 2)
LEVELS = 32  # noise levels per config, uniform in its own training times


class Comparison(NamedTuple):
    """Comparison of the gradients of two objectives.

    For equal objectives `deviation` is 0 up to float64 rounding (below 1e-6, as times are found by
    bisection).
    """

    factor: float  # overall ratio of the second to the first; irrelevant for Adam
    deviation: float  # largest difference of the second from `factor` times the first, over its max


def compare_objectives(first: Config, second: Config) -> Comparison:
    """Compares the gradients of two configs' objectives, noise level by noise level, in float64.

    Both use the same small network for `x_0`, the same data and the same noise. Networks,
    optimizers and conditioning are not compared.

    Raises:
        ConfigError: a config is invalid.
        ValueError: training times have no density, or only one config learns its uncertainty.
    """
    with jax.enable_x64(True):
        losses = [_loss(config) for config in (first, second)]
        if first.objective.learned_uncertainty != second.objective.learned_uncertainty:
            raise ValueError("objective.learned_uncertainty must be the same in both configs")
        u = (jnp.arange(LEVELS) + 0.5) / LEVELS
        levels = jax.jit(lambda u: jnp.concatenate([_level(loss, u) for loss in losses]))(u)
        a, b = (np.asarray(jax.jit(partial(_gradients, loss))(levels)) for loss in losses)
    if not np.all(np.isfinite([a, b])):
        raise ValueError(
            "training times on a table have no density: use another time_sampling.name"
        )
    factor = float(np.sum(a * b) / np.sum(a * a))
    return Comparison(factor, float(np.max(np.abs(b - factor * a)) / np.max(np.abs(b))))


def _loss(config: Config) -> GaussianLoss:
    """The objective of a config, without a network."""
    process, settings = make_process(config), config.objective
    times, error = make_times(config, process.schedule), make_error(config, process)
    return GaussianLoss(
        *(lambda *_: jnp.zeros(()), process, Identity(SHAPE, levels=256), times, error),
        vlb_steps=config.time_sampling.discrete.num_steps,
        vlb_weight=settings.vlb_weight,
    )


def _level(loss: GaussianLoss, u: Array) -> Array:
    """`logsnr` of the training time at quantile `u` in (0, 1), monotone in `u`."""
    return loss.process.schedule.logsnr(loss.times.quantile(u))


def _density(loss: GaussianLoss, logsnr: Array) -> Array:
    """Density of the training times in `logsnr`: 0 outside their range, infinite if fixed."""
    sign = jnp.where(_level(loss, jnp.array(0.75)) > _level(loss, jnp.array(0.25)), -1, 1)
    u = inverse(lambda u: sign * _level(loss, u), sign * logsnr)
    rate = jax.jvp(lambda u: _level(loss, u), (u,), (jnp.ones_like(u),))[1]
    inside = (u > 1e-15) & (u < 1 - 1e-15)
    return jnp.where(inside, 1 / jnp.abs(rate), 0.0)


def _gradients(loss: GaussianLoss, logsnr: Array) -> Array:
    """Gradient of the objective's integrand at each `logsnr` `[N]`, `[N, parameters]`."""
    process, schedule = loss.process, loss.process.schedule
    prediction, t = process.prediction, schedule.time_at(logsnr)

    def apply(params: Params, given: Array, _: Array, cond: Cond, key: Key) -> Array:
        x_t = given / per_sample(prediction.input_scale(schedule, t), given)
        norm = jnp.hypot(schedule.alpha(t), schedule.sigma(t))
        level = jnp.tanh(schedule.logsnr(t) / 5)
        x_0 = jnp.tanh(params[0] * x_t / per_sample(norm, x_t) + params[1] * per_sample(level, x_t))
        y = prediction.from_x_0(schedule, x_t, params[2] * x_0, t)
        return jnp.concatenate([y, 0 * y], axis=-1) if process.learned_variance else y

    at_levels = dataclasses.replace(loss, apply=apply, times=Times(lambda u: t, len(t)))
    x_0 = jnp.sin(jnp.arange(len(t) * 4.0)).reshape(len(t), *SHAPE)
    batch = {"x": x_0, "index": jnp.arange(len(t)), "cond": {}}
    params = jnp.array([0.7, -0.4, 0.9])
    context = Context(make_key(0), jnp.array(0), {}, {})
    jacobian = jax.jacobian(lambda p: at_levels(p, batch, context)[0])(params)
    return per_sample(_density(loss, logsnr), jacobian) * jacobian
