"""Convolution and matrix product with gradients that are fast on a CPU.

On a CPU XLA's gradients with respect to kernels take several times as long as the forward pass.
The algorithms for the CPU compute the same functions; other platforms use the plain ones.
"""

import functools
import math
import string
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion_jax.models.platform import platform
from diffusion_jax.types import Array

FEW, SHARE = 2**12, 2**6
"""Pixels of a batch up to which, and weights `C D` per pixel from which on, `conv_by_patches` is
the faster."""

LARGE = 2**20  # pixels times weights `C D` beyond which `conv_by_matmul` is the faster

Padding = str | Sequence[tuple[int, int]]
Product = Callable[[Array, Array], Array]


def matmul(x: Array, kernel: Array) -> Array:
    """The product over the last axis of `x`: [..., C] and [C, D] -> [..., D]."""
    return matmul_for_cpu(x, kernel) if platform() == "cpu" else x @ kernel


def conv(x: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME") -> Array:
    """Convolution over any axes: [B, H, W, C], [K, K, C, D] -> [B, H / stride, W / stride, D]."""
    product = conv_for_cpu if platform() == "cpu" else plain_conv
    return product(x, kernel, stride, padding)


def plain_conv(
    x: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME", layout: str = "IO"
) -> Array:
    """`conv` by `lax.conv_general_dilated`.

    `layout` is the order of the kernel's channels: with "OI" it is [K, K, D, C].
    """
    axes = string.ascii_lowercase[: x.ndim - 2]
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=[stride] * len(axes),
        padding=padding,
        dimension_numbers=(f"N{axes}C", axes + layout, f"N{axes}C"),
    )


def with_derivatives(product: Product, along_x: Product, along_kernel: Product) -> Product:
    """`product` of x and a kernel, with its two partial derivatives computed by other functions.

    All three are the same bilinear function; gradients use the transposes of the other two. Forward
    mode, `vmap` and higher derivatives work as usual.
    """

    @jax.custom_jvp
    def same(x: Array, kernel: Array) -> Array:
        return product(x, kernel)

    @same.defjvp
    def _jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        x, kernel = primals
        dx, dkernel = tangents
        return same(x, kernel), along_x(dx, kernel) + along_kernel(x, dkernel)

    return same


def _matmul_by_chunks(x: Array, kernel: Array, positions: int = 2048) -> Array:
    """`x @ kernel` as a batch of products of about `positions` rows with the same kernel.

    Its transpose with respect to `kernel` is `[D, P] @ [P, C]` per chunk, in cache, and a sum. The
    barrier keeps XLA from folding the transpose to `[C, D]` into the product.
    """
    rows = x.size // x.shape[-1]
    size = math.gcd(rows, positions)
    chunks = x.reshape(-1, size if size >= 256 else rows, x.shape[-1])
    columns = lax.optimization_barrier(kernel.T)
    columns = jnp.broadcast_to(columns, (chunks.shape[0], *columns.shape))
    y = lax.dot_general(chunks, columns, (((2,), (2,)), ((0,), (0,))))
    return y.reshape(*x.shape[:-1], -1)


def conv_by_matmul(x: Array, kernel: Array, positions: int = 1024) -> Array:
    """`plain_conv` as a product `[P, K C] @ [K C, K D]` of P pixels, whose results are summed.

    Neighbours along the first half of the axes are columns of the left side, and for those along
    the others the results are shifted. The transpose with respect to `kernel` is one product
    `[K C, P] @ [P, K D]` for each chunk of about `positions` pixels, whose operands fit in cache
    and are contiguous along rows. For that `x` is transposed, chunk by chunk.
    """
    b, *sizes, c = x.shape
    *window, _, features = kernel.shape
    half, pixels = len(window) // 2, math.prod(sizes)
    chunk = max(n for n in range(1, b + 1) if b % n == 0 and (n == 1 or n * pixels <= positions))
    weights = jnp.moveaxis(kernel, -2, half).reshape(math.prod(window[:half]) * c, -1)
    # The gradient is the sum over chunks, which half precision would round at every term.
    weights = weights.astype(jnp.promote_types(x.dtype, jnp.float32))

    @jax.checkpoint  # the columns are built in the loop of the backward pass, and not stored
    def convolve(x: Array, weights: Array) -> Array:
        rows = jnp.moveaxis(x, -1, 0)
        near = [_shifted(rows, place, axis=2) for place in _places(window[:half])]
        columns = jnp.concatenate(near).reshape(-1, chunk * pixels)
        z = lax.dot_general(columns, weights.astype(x.dtype), (((0,), (0,)), ((), ())))
        # Split, not slices: its transpose is a single concatenation.
        places = _places(window[half:])
        parts = lax.split(z.reshape(chunk, *sizes, -1), [features] * len(places), axis=x.ndim - 1)
        near = [_shifted(*part, axis=1 + half) for part in zip(parts, places, strict=True)]
        return functools.reduce(jnp.add, near)

    chunks = x.reshape(-1, chunk, *sizes, c)
    _, y = lax.scan(lambda carry, x: (carry, convolve(x, weights)), None, chunks)
    return y.reshape(b, *sizes, features)


def _places(window: Sequence[int]) -> list[list[int]]:
    """How far a kernel's weights are before the pixel that they are added to, along each axis."""
    return [
        [(k - 1) // 2 - i for k, i in zip(window, at, strict=True)] for at in np.ndindex(*window)
    ]


def _shifted(x: Array, places: Sequence[int], axis: int) -> Array:
    """`x` moved by `places` along the axes from `axis` on; zeros come in."""
    config = [(0, 0, 0)] * x.ndim
    config[axis : axis + len(places)] = [(n, -n, 0) for n in places]
    return lax.pad(x, jnp.zeros((), x.dtype), config)


@jax.checkpoint  # stores `x` alone for the backward pass, not the neighbourhoods
def conv_by_patches(x: Array, kernel: Array) -> Array:
    """`plain_conv` as one matrix product of the pixels' neighbourhoods `[P, K K C]` and the kernel.

    Fast where there are few pixels and large kernels, for which XLA's convolution is several times
    slower: a U-Net's inner levels.
    """
    *window, c, features = kernel.shape
    sizes = x.shape[1:-1]
    around = jnp.pad(x, [(0, 0), *(((k - 1) // 2, k // 2) for k in window), (0, 0)])
    places = [
        tuple(slice(i, i + n) for i, n in zip(place, sizes, strict=True))
        for place in np.ndindex(*window)
    ]
    columns = jnp.concatenate([around[:, *place] for place in places], axis=-1)
    return columns @ kernel.reshape(math.prod(window) * c, features)


def conv_for_cpu(x: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME") -> Array:
    """`plain_conv` with gradients that are fast on a CPU.

    Inside loops XLA is fast only for kernels in HWIO layout, which the transpose with respect to
    `x` needs as HWOI.
    """
    pixels, weights = math.prod(x.shape[:-1]), math.prod(kernel.shape[-2:])
    product = functools.partial(plain_conv, stride=stride, padding=padding)
    keeps_size = stride == 1 and padding == "SAME"
    if keeps_size and pixels <= min(FEW, weights // SHARE):
        return conv_by_patches(x, kernel)
    return with_derivatives(
        product,
        lambda x, kernel: plain_conv(x, kernel.swapaxes(-2, -1), stride, padding, "OI"),
        conv_by_matmul if keeps_size and pixels * weights > LARGE else product,
    )(x, kernel)


matmul_for_cpu = with_derivatives(jnp.matmul, jnp.matmul, _matmul_by_chunks)
