"""The one train step: loss, gradient mean over devices, update, moving averages."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.training.ema import Average, update_averages
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Batch, Key, LossFn, Metrics, Params

TrainStep = Callable[[TrainState, Batch, Key], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    averages: Mapping[str, Average],
    accumulate: int = 1,
    axis_name: str | None = None,
) -> TrainStep:
    """A pure `(state, batch, key) -> (state, metrics)`; the loss is injected.

    Args:
        loss_fn: any objective.
        optimizer: any optax transformation.
        averages: those of the state, by name.
        accumulate: microbatches whose gradients are averaged into one update.
        axis_name: mapped axis over which gradients and metrics are averaged.
    """

    def mean_loss(params: Params, batch: Batch, key: Key) -> tuple[jax.Array, Metrics]:
        loss, metrics = loss_fn(params, batch, key)
        return loss.mean(), jax.tree.map(jnp.mean, {"loss": loss, **metrics})

    def gradient(params: Params, batch: Batch, key: Key) -> tuple[Params, Metrics]:
        gradient_of = jax.grad(mean_loss, has_aux=True)
        if accumulate == 1:
            return gradient_of(params, batch, key)

        def add(total: Any, micro: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient_of(params, micro, key)), None

        micros = jax.tree.map(lambda a: a.reshape(accumulate, -1, *a.shape[1:]), batch)
        first = jax.tree.map(lambda a: a[0], micros)
        zeros = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(gradient_of, params, first, key)
        )
        total, _ = jax.lax.scan(add, zeros, micros)
        return jax.tree.map(lambda a: a / accumulate, total)

    def train_step(state: TrainState, batch: Batch, key: Key) -> tuple[TrainState, Metrics]:
        grads, metrics = gradient(state.params, batch, jax.random.fold_in(key, state.step))
        if axis_name:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        ema = update_averages(averages, state.ema, params, step)
        metrics["grad_norm"] = optax.tree.norm(grads)
        return TrainState(step, params, ema, opt_state), metrics

    return train_step
