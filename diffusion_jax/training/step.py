"""The one train step: loss, gradient mean over devices, update if it is sound, moving averages."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.training.ema import Average, update_averages
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Batch, Context, Key, LossFn, Metrics, Params

TrainStep = Callable[[TrainState, Batch, Key, Mapping[str, Params]], tuple[TrainState, Metrics]]


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    averages: Mapping[str, Average],
    accumulate: int = 1,
    axis_name: str | None = None,
    max_grad_norm: float = 0.0,
) -> TrainStep:
    """A pure `(state, batch, key, frozen) -> (state, metrics)`; the loss is injected.

    A step whose loss or gradient is not finite, or whose gradient is too large, leaves parameters
    and optimizer as they were; the metric `skipped` counts how many in a row did so, with this one.

    Args:
        loss_fn: any objective.
        optimizer: any optax transformation.
        averages: those of the state, by name.
        accumulate: microbatches whose gradients are averaged into one update.
        axis_name: mapped axis over which gradients and metrics are averaged.
        max_grad_norm: norm of the largest gradient that is taken; 0 is no limit.
    """

    def gradient(params: Params, batch: Batch, context: Context) -> tuple[Params, Metrics]:
        def mean_loss(params: Params, batch: Batch) -> tuple[jax.Array, Metrics]:
            loss, metrics = loss_fn(params, batch, context)
            return loss.mean(), jax.tree.map(jnp.mean, {"loss": loss, **metrics})

        gradient_of = jax.grad(mean_loss, has_aux=True)
        if accumulate == 1:
            return gradient_of(params, batch)

        def add(total: Any, micro: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, gradient_of(params, micro)), None

        # Every n-th sample, so that each device has as much of a microbatch as of the batch.
        micros = jax.tree.map(
            lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), batch
        )
        first = jax.tree.map(lambda a: a[0], micros)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient_of, params, first))
        total, _ = jax.lax.scan(add, zeros, micros)
        return jax.tree.map(lambda a: a / accumulate, total)

    def train_step(
        state: TrainState, batch: Batch, key: Key, frozen: Mapping[str, Params]
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        context = Context(key, state.step, state.ema, frozen, axis_name)
        grads, metrics = gradient(state.params, batch, context)
        if axis_name:
            grads, metrics = jax.lax.pmean((grads, metrics), axis_name)
        norm = optax.tree.norm(grads)
        sound = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        if max_grad_norm:
            sound &= norm <= max_grad_norm
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        skipped = jnp.where(sound, 0, state.skipped + 1)
        new = TrainState(step, params, state.ema, opt_state, skipped)
        old = state._replace(step=step, skipped=skipped)
        kept = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
        # Also of parameters that stayed: weights of the averages go by the number of steps.
        ema = update_averages(averages, state.ema, kept.params, step)
        return kept._replace(ema=ema), metrics | {"grad_norm": norm, "skipped": skipped}

    return train_step
