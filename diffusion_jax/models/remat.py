"""What a network keeps for its backward pass, by name, and what it computes again."""

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
"""From keeping all to keeping nothing but the inputs of each block: "none", then
"dots_saveable" (results of matrix products and convolutions are kept),
"dots_with_no_batch_dims_saveable" (of products with parameters: attention and convolutions are
computed again), "full". All but the first and the last have JAX's own names."""


def remat(
    block: type[nn.Module], policy: str, static_argnums: tuple[int, ...] = (), scanned: bool = False
) -> Any:
    """The module class with activations computed again in the backward pass; same gradients.

    `policy` is one of `REMAT`; `static_argnums` are arguments of `__call__` that are Python values,
    `self` being 0. In the body of a scan (`scanned`) there is nothing to share with the forward
    pass, so that common subexpressions need no fences.
    """
    if policy == "none":
        return block
    return nn.remat(
        block, policy=REMAT[policy], static_argnums=static_argnums, prevent_cse=not scanned
    )
