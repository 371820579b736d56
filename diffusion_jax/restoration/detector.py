"""Destroyed pixels of a picture of any size, as a network finds them."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import maximum_filter

from diffusion_jax.restoration.linear import masked, unmasked
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.restoration.tiles import tiled
from diffusion_jax.types import Array, Cond, Denoised, Params

OVERLAP = 4  # of tiles, one over the share of their side
AT_ONCE = 16  # tiles that are evaluated together


@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """A network that was trained to find them."""

    odds: Callable[[Params, Array], Array]  # log odds `[B, H, W, 1]` of pictures `[B, H, W, C]`
    params: Params
    size: int  # height and width of the pictures that it was trained on

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """The probability, `[H, W]`, that pixels of a picture `[H, W, C]` are destroyed.

        In overlapping tiles of its own size; a smaller picture is continued by its mirror image.
        """
        height, width = x.shape[:2]
        more = [(0, max(self.size - side, 0)) for side in (height, width)]
        whole = jnp.asarray(np.pad(x, [*more, (0, 0)], mode="symmetric"))
        return np.asarray(self._found(self.params, whole)[:height, :width])

    @functools.cached_property
    def _found(self) -> Callable[[Params, Array], Array]:
        def found(params: Params, x: Array) -> Array:
            def of_tile(x: Array, t: Array, cond: Cond) -> Denoised:
                return Denoised(jax.nn.sigmoid(self.odds(params, x)))

            find = tiled(of_tile, self.size, self.size // OVERLAP, AT_ONCE)
            return find(x[None], jnp.zeros(1), {}).x_0[0, ..., 0]

        return jax.jit(found)


def lost(probability: np.ndarray, threshold: float, dilate: int) -> np.ndarray:
    """The mask, bool `[H, W]`, of pixels at least as probable, and of all up to `dilate` away."""
    found: np.ndarray = maximum_filter(probability, 2 * dilate + 1) >= threshold
    return found


def without(observation: Observation, lost: np.ndarray) -> Observation:
    """The observation `[1, H, W, C]` of a picture without its `lost` pixels, bool `[H, W]`."""
    known = jnp.asarray(~lost, jnp.float32)[None, ..., None]
    operator = masked(unmasked(observation.operator)[0], known)
    return dataclasses.replace(observation, y=known * observation.y, operator=operator)
