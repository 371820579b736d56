"""Functions of arrays that are larger than what is evaluated at once, in overlapping tiles."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.types import Array


def in_tiles(
    function: Callable[[Any], Any],
    arrays: Any,
    size: int | Sequence[int],
    overlap: int,
    *,
    at_once: int = 1,
    factor: int = 1,
) -> Any:
    """`function(arrays)` of tiles of `size` along each axis, blended (Bar-Tal et al. 2023).

    Tiles are spread evenly, so that neighbours share at least `overlap` entries. Towards a
    neighbour the outer quarter of the overlap has no weight, and in its middle half the weight
    rises as the square of a sine; the weights of all tiles sum to one. If no entry depends on one
    that is further away than `overlap // 4`, the result is that without tiles.

    Tiles are evaluated one after the other, and once more in gradients, so that they take the
    memory of `at_once` tiles whatever the size of the arrays.

    Args:
        function: from arrays `[B, n, ..., C]` to arrays `[B, factor n, ..., D]`.
        arrays: tree of arrays `[B, N, ..., C]`, with the same axes between the first and the last.
        size: entries of a tile along each of these axes, or one number for all; of a shorter axis
            it is all.
        overlap: least number of entries that two neighbours share, less than `size` of each axis
            that is cut.
        at_once: number of tiles that are evaluated together.
        factor: entries of the result for one of the arrays.
    """
    sides = jax.tree.leaves(arrays)[0].shape[1:-1]
    sizes = (size,) * len(sides) if isinstance(size, int) else size
    axes = [
        _axis(side, min(size, side), overlap, factor)
        for side, size in zip(sides, sizes, strict=True)
    ]
    tiles = jax.tree.map(lambda a: _cut(a, axes), arrays)
    each = jax.checkpoint(function)
    found = jax.lax.map(each, tiles, batch_size=at_once if at_once > 1 else None)
    return jax.tree.map(lambda a: _joined(a, axes), found)


class _Axis(NamedTuple):
    """How one axis of N entries is cut into n tiles of `size` entries, and joined to M entries."""

    taken: np.ndarray  # `[n, size]`, the entries that are in each tile
    found: np.ndarray  # `[k, M]`, where entries are in the tiles' results, up to k times
    weights: np.ndarray  # `[k, M]`, which sum to one


def _axis(side: int, size: int, overlap: int, factor: int) -> _Axis:
    num = 1 if side == size else 1 + -(-(side - size) // (size - overlap))
    starts = np.round(np.linspace(0, side - size, num)).astype(int)
    taken = starts[:, None] + np.arange(size)
    starts, side, size, overlap = factor * starts, factor * side, factor * size, factor * overlap
    # From an end towards a neighbour; the ends of the array have none.
    inwards = np.arange(size) - overlap // 4 + 0.5
    rise = np.sin(np.pi / 2 * np.clip(inwards / max(overlap - 2 * (overlap // 4), 1), 0, 1)) ** 2
    weights = np.ones((num, size))
    weights[1:] *= rise
    weights[:-1] *= rise[::-1]
    each = np.zeros((num, side))  # of tiles, at all entries
    np.put_along_axis(each, starts[:, None] + np.arange(size), weights, axis=1)
    order = np.argsort(-each, axis=0, kind="stable")[: np.max(np.sum(each > 0, axis=0))]
    best = np.take_along_axis(each, order, axis=0)
    inside = np.clip(np.arange(side) - starts[order], 0, size - 1)  # with weight 0 outside
    return _Axis(taken, order * size + inside, best / best.sum(axis=0))


def _cut(a: Array, axes: Sequence[_Axis]) -> Array:
    """`[B, N, ..., C] -> [tiles, B, size, ..., C]`."""
    for place, axis in enumerate(axes):
        # The tiles' axes go to the front, in order.
        a = jnp.moveaxis(jnp.take(a, axis.taken, axis=2 * place + 1), 2 * place + 1, place)
    return a.reshape(-1, *a.shape[len(axes) :])


def _joined(a: Array, axes: Sequence[_Axis]) -> Array:
    """`[tiles, B, size, ..., C] -> [B, N, ..., C]`, the weighted mean."""
    a = a.reshape(*(len(axis.taken) for axis in axes), *a.shape[1:])
    for place, axis in reversed(list(enumerate(axes))):
        where = 2 * place + 1  # of the entries, once those of the tiles are before them
        a = jnp.moveaxis(a, place, where)
        a = a.reshape(*a.shape[:where], -1, *a.shape[where + 2 :])
        shape = (-1,) + (1,) * (a.ndim - where - 1)
        parts = (
            jnp.asarray(weights, a.dtype).reshape(shape) * jnp.take(a, found, axis=where)
            for found, weights in zip(axis.found, axis.weights, strict=True)
        )
        a = functools.reduce(jnp.add, parts)
    return a
