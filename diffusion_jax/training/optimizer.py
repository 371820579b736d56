"""Optimizers by their optax names, with warm-up, decay, clipping, and settings by group."""

from collections.abc import Mapping
from typing import Any

import optax

from diffusion_jax.system.arguments import checked
from diffusion_jax.system.command_line import suggest

DECAYS = ("constant", "linear", "cosine")


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

    Args:
        name: of a function of optax or optax.contrib.
        schedule: learning rate by step.
        clip_norm: largest norm of the whole gradient, over all groups.
        groups: for groups of the parameters' top level, such as the players of a loss with two,
            the optimizers that they have in place of this one.
        options: of that function.

    Raises:
        AttributeError: neither optax nor optax.contrib has that name.
        ValueError: when its state is made, the parameters have no such group.
    """
    factory = getattr(optax, name, None) or getattr(optax.contrib, name)
    optimizer = factory(schedule, **options)

    def own_or_common(params: Mapping[str, Any]) -> dict[str, str]:
        for group in groups:
            if group not in params:
                raise ValueError(f"optimizer.groups={group!r} is not known{suggest(group, params)}")
        return {group: group if group in groups else "" for group in params}

    if groups:
        optimizer = optax.multi_transform({"": optimizer, **groups}, own_or_common)
    return optax.chain(optax.clip_by_global_norm(clip_norm), optimizer) if clip_norm else optimizer
