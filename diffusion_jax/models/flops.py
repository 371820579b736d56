"""Costs of a function from its jaxpr: floating-point operations, memory traffic, peak memory."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core

PRODUCTS = ("dot_general", "conv_general_dilated")


def count_flops(fn: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of `fn(*args)` in matrix products and convolutions.

    A multiply-add counts as two, as in most publications (DiT and EDM2 publish multiply-adds). The
    body of a scan counts as often as it runs, while XLA's own cost analysis counts it once; of the
    branches of a `cond` the most expensive counts. A `while_loop` of unknown length counts once.
    `args` may be shapes (`jax.ShapeDtypeStruct`): `fn` is traced, and nothing is computed.
    """
    return _sum(jax.make_jaxpr(fn)(*args).jaxpr, _flops)


def count_traffic(fn: Callable[..., Any], *args: Any) -> int:
    """Bytes that the matrix products and convolutions of `fn(*args)` read and write.

    Each reads its operands and writes its result once, and everything else is fused with one of
    them: the minimum if caches keep nothing from one product to the next. Loops and branches count
    as in `count_flops`.
    """
    return _sum(jax.make_jaxpr(fn)(*args).jaxpr, _traffic)


def count_peak_memory(fn: Callable[..., Any], *args: Any) -> int:
    """Peak memory of `fn(*args)` in bytes, including its results but not its arguments.

    From the lifetimes of all values in the order of the jaxpr, including nested calls and loops. A
    compiler avoids some values (it fuses) and duplicates others (it copies). For DiT-XL on a TPU
    the estimate is 6.0 GB where the compiled program needs 5.9, and with full rematerialisation
    2.9 for 4.1: the difference is a copy of the parameters in half precision.
    """
    return _peak(jax.make_jaxpr(fn)(*args).jaxpr)


def _peak(jaxpr: core.Jaxpr) -> int:
    end = len(jaxpr.eqns)
    uses = [(v, i) for i, eqn in enumerate(jaxpr.eqns) for v in eqn.invars]
    uses += [(v, end) for v in jaxpr.outvars]
    last = {v: i for v, i in uses if isinstance(v, core.Var)}
    dying: dict[int, int] = {}
    live = peak = 0
    for i, eqn in enumerate(jaxpr.eqns):
        inner = max((_peak(sub) for sub in _sub_jaxprs(eqn)), default=0)
        made = 0
        for v in eqn.outvars:
            if v in last:
                made += _bytes(v)
                dying[last[v]] = dying.get(last[v], 0) + _bytes(v)
        loop = eqn.primitive.name in ("scan", "while")  # results are separate from the body's
        peak = max(peak, live + (made + inner if loop else max(made, inner)))
        live += made - dying.get(i, 0)
    return peak


def _sum(jaxpr: core.Jaxpr, cost: Callable[[core.JaxprEqn], int]) -> int:
    """Sum of `cost` over all products and convolutions, weighted by how often they run."""
    total = 0
    for eqn in jaxpr.eqns:
        name, inner = eqn.primitive.name, [_sum(sub, cost) for sub in _sub_jaxprs(eqn)]
        if name in PRODUCTS:
            total += cost(eqn)
        elif name == "cond":
            total += max(inner)
        else:
            total += sum(inner) * (eqn.params["length"] if name == "scan" else 1)
    return total


def _flops(eqn: core.JaxprEqn) -> int:
    out = math.prod(_shape(eqn.outvars[0]))
    if eqn.primitive.name == "dot_general":
        (contract, _), _ = eqn.params["dimension_numbers"]
        return 2 * out * math.prod(_shape(eqn.invars[0])[d] for d in contract)
    # Each output takes one multiply-add per kernel weight of its channel.
    kernel = _shape(eqn.invars[1])
    out_features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
    return 2 * out * math.prod(kernel) // out_features


def _traffic(eqn: core.JaxprEqn) -> int:
    return sum(_bytes(variable) for variable in (*eqn.invars[:2], eqn.outvars[0]))


def _bytes(variable: Any) -> int:
    return math.prod(_shape(variable)) * int(variable.aval.dtype.itemsize)


def _shape(variable: Any) -> tuple[int, ...]:
    return tuple(variable.aval.shape)


def _sub_jaxprs(eqn: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The jaxprs among the parameters of an equation, whatever their names."""
    for leaf in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr):
        if _is_jaxpr(leaf):
            yield leaf.jaxpr if isinstance(leaf, core.ClosedJaxpr) else leaf


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, (core.Jaxpr, core.ClosedJaxpr))
