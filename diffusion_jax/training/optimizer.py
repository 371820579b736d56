"""Optimizers by their optax names, with warm-up, decay, clipping, and settings per group."""

import inspect
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from optax.contrib import ScheduleFreeState

from diffusion_jax.system.arguments import checked
from diffusion_jax.system.command_line import suggest
from diffusion_jax.types import Params

DECAYS = ("constant", "linear", "cosine")
RATES = ("learning_rate", "scaling")
"""Names of learning-rate arguments; the second is the step size of Polyak's method."""


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
    """`optax.<name>(schedule, **options)`, preceded by clipping of the global norm (0: none).

    For `make_train_step`, which supplies extra arguments that an optimizer needs.

    Args:
        name: name of a function of optax or optax.contrib.
        schedule: learning rate by step.
        clip_norm: largest norm of the gradient of all parameters that are in no group.
        groups: optimizers used instead of this one for groups of the parameters' top level, such
            as the two players of an adversarial loss; each clips its own gradient, if it does.
        options: options of that function.

    Raises:
        AttributeError: neither optax nor optax.contrib has that name.
        TypeError: it does not take these options.
        ValueError: it is not an optimizer; or, when its state is created, the parameters have no
            such group.
    """
    factory = getattr(optax, name, None) or getattr(optax.contrib, name)
    taken = inspect.signature(factory).parameters
    rate = next((each for each in RATES if each in taken), None)
    if rate is None or name.startswith("scale_by_"):
        raise ValueError(f"name={name!r} is not an optimizer, but a part of one or something else")
    if "Callable" not in str(taken[rate].annotation):  # accepts a number, not a schedule
        factory = optax.inject_hyperparams(factory)
    optimizer = factory(**{rate: schedule}, **options)
    if clip_norm:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)

    def own_or_common(params: Mapping[str, Any]) -> dict[str, str]:
        for group in groups:
            if group not in params:
                raise ValueError(f"optimizer.groups={group!r} is not known{suggest(group, params)}")
        return {group: group if group in groups else "" for group in params}

    return optax.multi_transform({"": optimizer, **groups}, own_or_common) if groups else optimizer


def check_optimizer(optimizer: optax.GradientTransformation, params: Params) -> None:
    """Raises a ValueError if the optimizer cannot update parameters of these shapes.

    One parameter of each shape in each group stands for all: to trace hundreds takes seconds.
    """
    flat = flatten_dict(params)
    one_of_each = {(path[0], leaf.shape, leaf.dtype): path for path, leaf in flat.items()}
    params = unflatten_dict({path: flat[path] for path in one_of_each.values()})
    value_fn = lambda params, obj_fn=None: optax.tree.norm(params)  # noqa: E731

    def updates(params: Params) -> Params:
        given = {"value": jnp.zeros(()), "grad": params, "value_fn": value_fn, "obj_fn": value_fn}
        full = optax.with_extra_args_support(optimizer)
        return full.update(params, full.init(params), params, **given)[0]

    try:
        found = jax.tree.leaves(jax.eval_shape(updates, params))
        if [leaf.shape for leaf in found] != [leaf.shape for leaf in jax.tree.leaves(params)]:
            raise ValueError("its updates are not shaped like the gradient of a batch")
    except Exception as error:  # third-party code may raise anything while traced
        line = str(error).partition("\n")[0]
        raise ValueError(f"it cannot be used for this network: {line}") from error


def evaluation_params(opt_state: optax.OptState, params: Params) -> Params:
    """The parameters for sampling and evaluation: for most optimizers the trained ones.

    Schedule-free optimizers train at `y = (1 - b1) z + b1 x` and are evaluated at x (Eq. 2, Defazio
    et al. 2024).
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
