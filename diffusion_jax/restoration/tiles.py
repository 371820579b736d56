"""Arrays larger than a network's, in overlapping tiles that are blended at every step."""

from collections.abc import Sequence

from diffusion_jax.models.tiles import in_tiles
from diffusion_jax.system.arguments import check
from diffusion_jax.types import Array, Cond, Denoised, Denoiser

ALLOWED = {"size": "[1, inf)", "overlap": "[0, size)", "at_once": "[1, inf)"}


def tiled(denoise: Denoiser, size: int | Sequence[int], overlap: int, at_once: int = 1) -> Denoiser:
    """Denoises tiles of `size` along each axis and blends their `x_0` (Bar-Tal et al. 2023).

    See `in_tiles`. Conditioning with the sizes of `x_t` along these axes is cut like it; each tile
    is given all of the rest.

    Args:
        denoise: denoiser of arrays `[B, size, ..., C]`.
        size: entries of a tile along each of the axes between the first and the last, or one number
            for all.
        overlap: least number of entries that two neighbours share.
        at_once: number of tiles that are evaluated together.

    Raises:
        ValueError: an argument is out of range, or an array is smaller than a tile.
    """
    least = size if isinstance(size, int) else min(size)
    check(ALLOWED, size=least, overlap=overlap, at_once=at_once)

    def blended(x_t: Array, t: Array, cond: Cond) -> Denoised:
        sides = x_t.shape[1:-1]
        sizes = (size,) * len(sides) if isinstance(size, int) else size
        if any(side < own for side, own in zip(sides, sizes, strict=True)):
            shape = " x ".join(map(str, sides))
            raise ValueError(f"size={size} of tiles is larger than the data, {shape}")
        cut = {name: a for name, a in cond.items() if a.shape[1:-1] == sides}

        def tile(given: tuple[Array, Cond]) -> Denoised:
            x, parts = given
            return denoise(x, t, {**cond, **parts})

        found: Denoised = in_tiles(tile, (x_t, cut), size, overlap, at_once=at_once)
        return found

    return blended
