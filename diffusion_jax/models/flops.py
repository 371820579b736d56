"""Counting the floating-point operations of a function from its jaxpr."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of `fn(*args)` in matrix products and convolutions.

    Two for each multiply-add, as in most publications (DiT and EDM2 publish multiply-adds). The
    body of a scan counts as often as it runs, where XLA's own cost analysis counts it once; of the
    branches of a `cond` the dearest counts. A `while_loop` without a known length counts once.

    Args:
        fn: any function that JAX can trace.
        *args: its arguments; shapes (`jax.ShapeDtypeStruct`) are enough, nothing is computed.
    """
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    return sum(_count_equation(eqn) for eqn in jaxpr.eqns)


def _count_equation(eqn: core.JaxprEqn) -> int:
    name = eqn.primitive.name
    if name == "dot_general":
        (contract, _), _ = eqn.params["dimension_numbers"]
        lhs, out = _shape(eqn.invars[0]), _shape(eqn.outvars[0])
        return 2 * math.prod(out) * math.prod(lhs[d] for d in contract)
    if name == "conv_general_dilated":
        # Each output takes one multiply-add per kernel weight that leads to its channel.
        kernel, out = _shape(eqn.invars[1]), _shape(eqn.outvars[0])
        out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(out) * math.prod(kernel) // out_features
    inner = [_count(jaxpr) for jaxpr in _sub_jaxprs(eqn)]
    if name == "cond":
        return max(inner)
    return sum(inner) * (eqn.params["length"] if name == "scan" else 1)


def _shape(variable: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = variable.aval.shape
    return shape


def _sub_jaxprs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation, whatever their names."""
    for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
        if isinstance(leaf, core.ClosedJaxpr):
            yield leaf.jaxpr
        elif isinstance(leaf, core.Jaxpr):
            yield leaf


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, (core.Jaxpr, core.ClosedJaxpr))
