"""Rematerialisation: which activations are recomputed in the backward pass, by name."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

_POLICIES = jax.checkpoint_policies
REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "full": _POLICIES.nothing_saveable,
    "dots_saveable": _POLICIES.dots_saveable,
    "dots_with_no_batch_dims_saveable": _POLICIES.dots_with_no_batch_dims_saveable,
}
"""From storing everything to storing only the inputs of each block: "none", then "dots_saveable"
(stores results of matrix products and convolutions), "dots_with_no_batch_dims_saveable" (stores
products with parameters; recomputes attention and convolutions), "full". The names in between are
JAX's own."""


def remat(
    block: type[nn.Module], policy: str, static_argnums: tuple[int, ...] = (), scanned: bool = False
) -> Any:
    """The module class with activations recomputed in the backward pass; gradients are unchanged.

    `policy` is one of `REMAT`; `static_argnums` are arguments of `__call__` that are Python values,
    counting `self` as 0. In the body of a scan (`scanned`) nothing is shared with the forward pass,
    so that common subexpressions need no barriers.
    """
    if policy == "none":
        return block
    return nn.remat(
        block, policy=REMAT[policy], static_argnums=static_argnums, prevent_cse=not scanned
    )
