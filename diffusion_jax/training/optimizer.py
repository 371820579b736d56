"""Optimizers by their optax names, with warm-up, decay, clipping, and settings by group."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import ScheduleFreeState

from diffusion_jax.system.arguments import checked
from diffusion_jax.system.command_line import suggest
from diffusion_jax.types import Params

DECAYS = ("constant", "linear", "cosine")
RATES = ("learning_rate", "scaling")
"""Arguments that are the learning rate; the second is that of Polyak's step size."""


@checked(learning_rate="[0, inf)", warmup_steps="[0, inf)", decay=DECAYS)
def learning_rate_schedule(
    learning_rate: float, steps: int, warmup_steps: int = 0, decay: str = "constant"
) -> optax.Schedule:
    """Linear warm-up from 0, then "constant", or "linear" or "cosine" down to 0 at `steps`."""
    rest = max(steps - warmup_steps, 1)
    after = {
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, rest),
        "cosine": optax.cosine_decay_schedule(learning_rate, rest),
    }[decay]
    if not warmup_steps:
        return after
    warmup = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([warmup, after], [warmup_steps])


@checked(clip_norm="[0, inf)")
def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    clip_norm: float = 0.0,
    groups: Mapping[str, optax.GradientTransformation] = {},
    **options: Any,
) -> optax.GradientTransformation:
    """`optax.<name>(schedule, **options)` behind clipping by the global norm (0: none).

    For `make_train_step`, which gives it what it asks for.

    Args:
        name: of a function of optax or optax.contrib.
        schedule: learning rate by step.
        clip_norm: largest norm of the whole gradient, over all groups.
        groups: for groups of the parameters' top level, such as the players of a loss with two,
            the optimizers that they have in place of this one.
        options: of that function.

    Raises:
        AttributeError: neither optax nor optax.contrib has that name.
        TypeError: it does not take these options.
        ValueError: it is no optimizer; when its state is made, the parameters have no such
            group.
    """
    factory = getattr(optax, name, None) or getattr(optax.contrib, name)
    taken = inspect.signature(factory).parameters
    rate = next((each for each in RATES if each in taken), None)
    if rate is None or name.startswith("scale_by_"):
        raise ValueError(f"name={name!r} is no optimizer, but a part of some or something else")
    if "Callable" not in str(taken[rate].annotation):  # a number, not a schedule of them
        factory = optax.inject_hyperparams(factory)
    optimizer = factory(**{rate: schedule}, **options)

    def own_or_common(params: Mapping[str, Any]) -> dict[str, str]:
        for group in groups:
            if group not in params:
                raise ValueError(f"optimizer.groups={group!r} is not known{suggest(group, params)}")
        return {group: group if group in groups else "" for group in params}

    if groups:
        optimizer = optax.multi_transform({"": optimizer, **groups}, own_or_common)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer


def check_optimizer(optimizer: optax.GradientTransformation, params: Params) -> None:
    """Raises a ValueError if it cannot update parameters of these shapes with what it is given."""
    value_fn = lambda params, obj_fn=None: optax.tree.norm(params)  # noqa: E731

    def updates(params: Params) -> Params:
        given = {"value": jnp.zeros(()), "grad": params, "value_fn": value_fn, "obj_fn": value_fn}
        full = optax.with_extra_args_support(optimizer)
        return full.update(params, full.init(params), params, **given)[0]

    try:
        found = jax.tree.leaves(jax.eval_shape(updates, params))
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in jax.tree.leaves(params)]:
            raise ValueError("its updates are not shaped like the gradient of a batch")
    except Exception as error:  # whatever someone else's code raises where it is traced
        line = str(error).partition("\n")[0]
        raise ValueError(f"it cannot be used for this network: {line}") from error


def evaluation_params(opt_state: optax.OptState, params: Params) -> Params:
    """The parameters to draw and to measure with: those that are trained, for most optimizers.

    Schedule-free ones train at `y = (1 - b1) z + b1 x` and are good at x (Eq. 2, Defazio et al.
    2024).
    """
    free = lambda node: isinstance(node, ScheduleFreeState)  # noqa: E731
    other = lambda node: isinstance(node, optax.MaskedNode)  # noqa: E731
    for state in filter(free, jax.tree.leaves(opt_state, is_leaf=free)):
        b1 = state.b1
        params = jax.tree.map(
            lambda z, y, b1=b1: y if other(z) else (y - (1 - b1) * z) / b1,
            *(state.z, params),
            is_leaf=other,
        )
    return params
