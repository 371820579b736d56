"""Which parameters a function reads in one other precision alone, so that they can be cast once.

A network in half precision keeps float32 parameters and casts them where they are used: in a loop
over sampling steps or over blocks again and again, as compilers do not move it out of loops.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core

from diffusion_jax.types import Params

CALLS = {
    **dict.fromkeys(("jit", "pjit", "closed_call", "remat2", "checkpoint"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
    "scan": "jaxpr",
}
"""Primitives that pass their operands, in order, to a jaxpr: by name, its parameter's name."""


def read_as(fn: Callable[..., Any], params: Params, *args: Any) -> Any:
    """The dtypes in which `fn(params, *args)` reads each leaf of `params`, a tree of the same kind.

    A leaf's own dtype, unless all that `fn` does with it is to cast it to one other dtype.
    Arguments may be shapes: `fn` is traced, and nothing is computed.
    """
    leaves, structure = jax.tree.flatten(params)
    jaxpr = jax.make_jaxpr(fn)(params, *args).jaxpr
    reads = _reads(jaxpr, len(leaves))
    found = [
        next(iter(own)) if len(own) == 1 else leaf.dtype
        for own, leaf in zip(reads, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def cast(params: Params, dtypes: Any) -> Params:
    """`params` in these dtypes, a tree of the same kind; kept apart from what reads them."""
    found: Params = jax.tree.map(lambda a, dtype: a.astype(dtype), params, dtypes)
    return jax.lax.optimization_barrier(found)


def _reads(jaxpr: core.Jaxpr, num: int) -> list[set[np.dtype]]:
    """The dtypes in which each of the first `num` inputs is read."""
    found: dict[Any, set[np.dtype]] = {v: set() for v in jaxpr.invars[:num]}
    for variable, dtype in _uses(jaxpr):
        if variable in found:
            found[variable].add(dtype)
    return [found[v] for v in jaxpr.invars[:num]]


def _uses(jaxpr: core.Jaxpr) -> Iterator[tuple[Any, np.dtype]]:
    """Every variable that is read, with the dtype in which it is."""
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name == "convert_element_type":
            inner = [{np.dtype(eqn.params["new_dtype"])}]
        elif name in CALLS and CALLS[name] in eqn.params:
            called = eqn.params[CALLS[name]]
            body = getattr(called, "jaxpr", called)
            inner = _reads(body, len(body.invars))
        else:
            inner = [{_dtype(v)} for v in eqn.invars]
        for variable, dtypes in zip(eqn.invars, inner, strict=True):
            if isinstance(variable, core.Var):
                for dtype in dtypes:
                    yield variable, dtype
    for variable in jaxpr.outvars:
        if isinstance(variable, core.Var):
            yield variable, _dtype(variable)


def _dtype(variable: Any) -> np.dtype:
    return np.dtype(variable.aval.dtype)
