"""The train step: loss, gradient mean over devices, guarded update, moving averages."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.models.layout import gathered, scattered
from diffusion_jax.training.ema import Average, update_averages
from diffusion_jax.training.movement import UPDATE_NORM
from diffusion_jax.training.optimizer import evaluation_params
from diffusion_jax.training.state import TrainState
from diffusion_jax.types import Array, Batch, Context, Key, LossFn, Metrics, Params

TrainStep = Callable[[TrainState, Batch, Key, Mapping[str, Params]], tuple[TrainState, Metrics]]


def of_stored(decode: Callable[[Array], Array], loss_fn: LossFn) -> LossFn:
    """`loss_fn` of batches whose `x` are items as stored: an image has a quarter of the bytes.

    It has the bits of batches that were decoded before: the barrier keeps arithmetic apart.
    """

    def of(params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        x = jax.lax.optimization_barrier(decode(batch["x"]))
        return loss_fn(params, {**batch, "x": x}, context)

    return of


def make_train_step(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    averages: Mapping[str, Average],
    accumulate: int = 1,
    axis_name: str | None = None,
    max_grad_norm: float = 0.0,
    groups: Sequence[str] = (),
    exchanged: Any = None,
    average_every: int = 1,
) -> TrainStep:
    """A pure `(state, batch, key, frozen) -> (state, metrics)` for any loss.

    A step whose loss or gradient is not finite, or whose gradient is too large, is skipped: it does
    not change parameters and optimizer. The metric `skipped` counts skipped steps in a row.

    Args:
        loss_fn: any objective.
        optimizer: any optax transformation; those that need it receive the loss (`value`), the
            gradient (`grad`) and the loss as a function of the parameters (`value_fn`, `obj_fn`).
        averages: averages of the state, by name, of `evaluation_params`.
        accumulate: number of microbatches whose gradients are averaged for one update.
        axis_name: mapped axis over which gradients and metrics are averaged.
        max_grad_norm: largest gradient norm that is not skipped; 0 is no limit.
        groups: groups of the parameters' top level whose updates have their norms as metrics.
        exchanged: dtype in which gradients are averaged over that axis; None: their own.
        average_every: steps between updates of the averages.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def mean_loss(params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        loss, metrics = loss_fn(params, batch, context)
        return loss.mean(), jax.tree.map(jnp.mean, {"loss": loss, **metrics})

    def gradient_of(params: Params, batch: Batch, context: Context) -> tuple[Params, Metrics]:
        grads, metrics = jax.grad(mean_loss, has_aux=True)(params, batch, context)
        return scattered(grads), metrics

    def microbatches(batch: Batch) -> Batch:
        # Every n-th sample, so that each device has the same share of a microbatch as of the batch.
        return jax.tree.map(lambda a: a.reshape(-1, accumulate, *a.shape[1:]).swapaxes(0, 1), batch)

    def gradient(params: Params, batch: Batch, context: Context) -> tuple[Params, Metrics]:
        params = gathered(params)
        if accumulate == 1:
            return gradient_of(params, batch, context)

        of_micro = lambda micro: gradient_of(params, micro, context)  # noqa: E731

        def add(total: Any, micro: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_micro(micro)), None

        micros = microbatches(batch)
        first = jax.tree.map(lambda a: a[0], micros)
        zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(of_micro, first))
        total, _ = jax.lax.scan(add, zeros, micros)
        return jax.tree.map(lambda a: a / accumulate, total)

    def value(params: Params, batch: Batch, context: Context) -> Array:
        """The loss at other parameters, for line searches and Hessians."""
        if axis_name:  # the mean of equal values, whose transpose averages the gradients
            params = jax.lax.pmean(params, axis_name)
        micros = microbatches(batch)
        loss = jax.lax.map(lambda micro: mean_loss(params, micro, context)[0], micros).mean()
        return jax.lax.pmean(loss, axis_name) if axis_name else loss

    def train_step(
        state: TrainState, batch: Batch, key: Key, frozen: Mapping[str, Params]
    ) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(key, state.step)
        context = Context(key, state.step, state.ema, frozen, axis_name)
        grads, metrics = gradient(state.params, batch, context)
        if axis_name:
            metrics = jax.lax.pmean(metrics, axis_name)
            sent = jax.tree.map(lambda a: a.astype(exchanged or a.dtype), grads)
            mean = jax.lax.pmean(sent, axis_name)
            grads = jax.tree.map(lambda a, b: a.astype(b.dtype), mean, grads)
        norm = optax.tree.norm(grads)
        sound = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
        if max_grad_norm:
            sound &= norm <= max_grad_norm
        # A line search passes its other extra arguments on to it.
        value_fn = lambda params, obj_fn=None: value(params, batch, context)  # noqa: E731
        given = {"value": metrics["loss"], "grad": grads, "value_fn": value_fn, "obj_fn": value_fn}
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params, **given)
        params = optax.apply_updates(state.params, updates)
        step = state.step + 1
        skipped = jnp.where(sound, 0, state.skipped + 1)
        new = TrainState(step, params, state.ema, opt_state, skipped)
        old = state._replace(step=step, skipped=skipped)
        kept = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
        # Also for skipped steps: the weights of the averages depend on the number of steps.
        params = evaluation_params(kept.opt_state, kept.params)
        ema = update_averages(averages, state.ema, params, step, average_every)
        metrics |= {UPDATE_NORM + name: optax.tree.norm(updates[name]) for name in groups}
        return kept._replace(ema=ema), metrics | {"grad_norm": norm, "skipped": skipped}

    return train_step
