"""Arrays larger than a network's, in overlapping tiles that are blended at every step."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


@checked(size="[1, inf)", overlap="[0, size)", at_once="[1, inf)")
def tiled(denoise: Denoiser, size: int, overlap: int, at_once: int = 1) -> Denoiser:
    """Denoises tiles of `size` along each axis and blends their `x_0` (Bar-Tal et al. 2023).

    Tiles are spread evenly, so that neighbours share at least `overlap` entries. Towards a
    neighbour the outer quarter of the overlap has no weight, and in its middle half the weight
    rises as the square of a sine; the weights of all tiles sum to one. If an entry of `x_0` depends
    on none that is further away than `overlap // 4`, the result is that without tiles.

    Tiles are evaluated one after the other, and once more in gradients, so that a network takes the
    memory of `at_once` tiles whatever the size of the array. Conditioning with the sizes of `x_t`
    along these axes is cut like it; each tile is given all of the rest.

    Args:
        denoise: denoiser of arrays `[B, size, ..., C]`.
        size: entries of a tile along each of the axes between the first and the last.
        overlap: least number of entries that two neighbours share.
        at_once: number of tiles that are evaluated together.

    Raises:
        ValueError: an array is smaller than a tile.
    """

    def blended(x_t: Array, t: Array, cond: Cond) -> Denoised:
        sides = x_t.shape[1:-1]
        if min(sides) < size:
            shape = " x ".join(map(str, sides))
            raise ValueError(f"size={size} of tiles is larger than the data, {shape}")
        axes = [_axis(side, size, overlap) for side in sides]
        cut = {name: a for name, a in cond.items() if a.shape[1:-1] == sides}

        @jax.checkpoint
        def tile(given: tuple[Array, Cond]) -> Denoised:
            x, parts = given
            return denoise(x, t, {**cond, **parts})

        tiles = jax.tree.map(lambda a: _cut(a, axes), (x_t, cut))
        found = jax.lax.map(tile, tiles, batch_size=at_once if at_once > 1 else None)
        return jax.tree.map(lambda a: _joined(a, axes), found)

    return blended


class _Axis(NamedTuple):
    """How one axis of N entries is cut into n tiles of `size` entries, and joined."""

    taken: np.ndarray  # `[n, size]`, the entries that are in each tile
    found: np.ndarray  # `[k, N]`, where entries are in the tiles, `[n size]`, up to k times
    weights: np.ndarray  # `[k, N]`, which sum to one


def _axis(side: int, size: int, overlap: int) -> _Axis:
    num = 1 + -(-(side - size) // (size - overlap))
    starts = np.round(np.linspace(0, side - size, num)).astype(int)
    taken = starts[:, None] + np.arange(size)
    # From an end towards a neighbour; the ends of the array have none.
    inwards = np.arange(size) - overlap // 4 + 0.5
    rise = np.sin(np.pi / 2 * np.clip(inwards / max(overlap - 2 * (overlap // 4), 1), 0, 1)) ** 2
    weights = np.ones((num, size))
    weights[1:] *= rise
    weights[:-1] *= rise[::-1]
    each = np.zeros((num, side))  # of tiles, at all entries
    np.put_along_axis(each, taken, weights, axis=1)
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
