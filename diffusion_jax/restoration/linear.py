"""Linear operators on any number of axes, and their singular value decompositions.

`Identity` and `Mask` are in `operators`. Each acts on the axes between the first (batch) and the
last (channels): one for sound, two for images.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.models.layers import downsample, patchify, unpatchify
from diffusion_jax.restoration.operators import Identity, Mask, Operator, Spectrum
from diffusion_jax.types import Array

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in brightness (ITU-R BT.601), as in JPEG and Pillow's "L"."""


def gaussian_kernel(width: Array, size: int, axes: int) -> Array:
    """Normalised Gaussian kernels `[B, size, ...]` of standard deviations `width` `[B]` > 0."""
    offsets = jnp.arange(size) - size // 2
    line = jnp.exp(-0.5 * (offsets / width[:, None]) ** 2)
    line = line / line.sum(1, keepdims=True)
    kernel = jnp.ones((len(width),) + (1,) * axes, line.dtype)
    for axis in range(1, axes + 1):
        kernel = kernel * _along(line, axis, axes)
    return kernel


@struct.dataclass
class Blur:
    """Convolution with any kernel, `y[p] = sum_q kernel[q] x[p - q]`, periodic at the edges.

    A convolution is `F^-1 K F` for the Fourier transform `F` and `K = F kernel`. With the phases of
    `K` in `U`, its singular values `|K|` are even in the frequency, as the kernel is real, so that
    `V` may be the Hartley transform, and all coordinates are real.
    """

    kernel: Array  # `[B, k, ...]`, with an axis for each one of `x` between batch and channels;
    # entry k // 2 of each is the middle

    def __call__(self, x: Array) -> Array:
        return _inverse_fourier(self._transfer(x) * _fourier(x))

    def spectrum(self, x: Array) -> Spectrum:
        transfer = self._transfer(x)
        size = jnp.abs(transfer)
        back = jnp.conj(transfer) / jnp.where(size > 0, size, 1)
        return Spectrum(
            size, _hartley, _hartley, lambda y: _hartley(_inverse_fourier(back * _fourier(y)))
        )

    def _transfer(self, x: Array) -> Array:
        """`K` `[B, ..., 1]`, complex.

        Raises:
            ValueError: the kernel has other axes than `x` or is longer than it.
        """
        sides, sizes = self.kernel.shape[1:], x.shape[1:-1]
        if len(sides) != len(sizes) or any(k > n for k, n in zip(sides, sizes, strict=True)):
            raise ValueError(f"kernel of shape {sides} does not fit into data of shape {sizes}")
        padding = [(0, n - k) for k, n in zip(sides, sizes, strict=True)]
        kernel = jnp.pad(self.kernel, [(0, 0), *padding])[..., None]
        return _fourier(jnp.roll(kernel, [-(k // 2) for k in sides], _axes(x)), norm="backward")


@struct.dataclass
class ReflectedBlur:
    """Convolution with any kernel, of data continued by their mirror image at the edges."""

    kernel: Array  # as that of `Blur`, but up to twice as long as the data

    def __call__(self, x: Array) -> Array:
        doubled = x
        for axis in _axes(x):
            doubled = jnp.concatenate([doubled, jnp.flip(doubled, axis)], axis)
        return jax.lax.slice(Blur(self.kernel)(doubled), (0,) * x.ndim, x.shape)


@struct.dataclass
class GaussianBlur:
    """Gaussian blur, of data continued by their mirror image at the edges.

    The solution of the heat equation from which no heat leaves, at time `width^2 / 2`: frequencies
    of the cosine transform decay by `exp(-(width pi k / N)^2 / 2)` (Eq. 6, Rissanen et al. 2022).
    """

    width: Array  # `[B]`, standard deviation in pixels (samples), >= 0

    def __call__(self, x: Array) -> Array:
        values, analyse, synthesise, _ = self.spectrum(x)
        return synthesise(values * analyse(x))

    def spectrum(self, x: Array) -> Spectrum:
        squared: Array = jnp.zeros((1,) * x.ndim, x.dtype)
        for axis in _axes(x):
            n = x.shape[axis]
            line = (jnp.pi * jnp.arange(n, dtype=x.dtype) / n) ** 2
            squared = squared + _along(line[None], axis, x.ndim - 1)
        values = jnp.exp(-0.5 * per_sample(self.width, x) ** 2 * squared)
        return Spectrum(values, cosine, inverse_cosine, cosine)


@struct.dataclass
class Downscale:
    """Mean over blocks of `factor` pixels (samples) along each axis."""

    factor: int = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """`[B, N, ..., C] -> [B, N / factor, ..., C]`.

        Raises:
            ValueError: the factor does not divide the sides.
        """
        sizes = x.shape[1:-1]
        if any(size % self.factor for size in sizes):
            sides = " x ".join(map(str, sizes))
            raise ValueError(f"factor={self.factor} must divide the sides of the data, {sides}")
        return downsample(x, self.factor)

    def spectrum(self, x: Array) -> Spectrum:
        """Blocks of n entries have their mean, times `sqrt(n)`, as first coordinate."""
        n = self.factor ** (x.ndim - 2)
        turn = _householder(jnp.full((n, 1), n**-0.5, x.dtype), axis=-2)
        first = (jnp.arange(n) == 0).astype(x.dtype)[:, None]

        def turned(a: Array) -> Array:
            pieces = patchify(a, self.factor)
            blocks = pieces.reshape(*pieces.shape[:-1], n, a.shape[-1])
            return unpatchify(turn(blocks).reshape(pieces.shape), self.factor)

        def spread(y: Array) -> Array:
            blocks = first * y[..., None, :]
            return unpatchify(blocks.reshape(*y.shape[:-1], n * y.shape[-1]), self.factor)

        low = (1, *(size // self.factor for size in x.shape[1:-1]), 1)
        values = spread(jnp.full(low, n**-0.5, x.dtype))
        return Spectrum(values, turned, turned, lambda y: -spread(y))


@struct.dataclass
class Grey:
    """Weighted sum of channels, as when a photograph was taken in black and white."""

    weights: Array  # `[B, C]`, >= 0 and not all 0; of brightness: `LUMA`

    def __call__(self, x: Array) -> Array:
        """`[B, ..., C] -> [B, ..., 1]`."""
        return jnp.sum(self._weights(x) * x, axis=-1, keepdims=True)

    def spectrum(self, x: Array) -> Spectrum:
        weights = self._weights(x)
        size = jnp.linalg.norm(weights, axis=-1, keepdims=True)
        turn = _householder(weights / size, axis=-1)
        first = (jnp.arange(x.shape[-1]) == 0).astype(x.dtype)
        return Spectrum(size * first, turn, turn, lambda y: -y * first)

    def _weights(self, x: Array) -> Array:
        return self.weights.reshape(len(self.weights), *(1,) * (x.ndim - 2), -1)


@struct.dataclass
class Fading:
    """`y = gain x + offset`: affine, so that `observed` of its spectrum takes the offset off."""

    gain: Array  # `[B, 1, ..., C]`
    offset: Array  # `[B, 1, ..., C]`

    def __call__(self, x: Array) -> Array:
        return self.gain * x + self.offset

    def spectrum(self, x: Array) -> Spectrum:
        return Spectrum(
            jnp.abs(self.gain),
            lambda a: a,
            lambda z: z,
            lambda y: jnp.sign(self.gain) * (y - self.offset),
        )


@struct.dataclass
class Crop:
    """A part of the data: `size` entries from `start` along each axis."""

    start: tuple[int, ...] = struct.field(pytree_node=False)
    size: tuple[int, ...] = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        """`[B, N, ..., C] -> [B, *size, C]`.

        Raises:
            ValueError: the part is not in the data.
        """
        for axis, (before, after) in enumerate(self._rest(x), 1):
            x = jax.lax.slice_in_dim(x, before, x.shape[axis] - after, axis=axis)
        return x

    def spectrum(self, x: Array) -> Spectrum:
        padding = [(0, 0), *self._rest(x), (0, 0)]

        def padded(y: Array) -> Array:
            return jnp.pad(y, padding)

        values = padded(jnp.ones((1, *self.size, 1), x.dtype))
        return Spectrum(values, lambda a: a, lambda z: z, padded)

    def _rest(self, x: Array) -> list[tuple[int, int]]:
        """How much of each axis lies before and after the part."""
        whole, start, size = x.shape[1:-1], self.start, self.size
        if len(whole) == len(start) == len(size):
            rest = [(i, n - i - k) for n, i, k in zip(whole, start, size, strict=True)]
            if min(map(min, rest)) >= 0:
                return rest
        raise ValueError(f"size={size} from start={start} does not lie in data of shape {whole}")


@struct.dataclass
class Composed:
    """`y = outer(inner(x))`, linear or not."""

    outer: Operator
    inner: Operator

    def __call__(self, x: Array) -> Array:
        return self.outer(self.inner(x))


@struct.dataclass
class Decoded:
    """Items of `x_0`, by a codec without parameters: `Composed(A, Decoded(codec))` sees them."""

    codec: Codec = struct.field(pytree_node=False)

    def __call__(self, x: Array) -> Array:
        return self.codec.decode({}, x)


def masked(operator: Operator, known: Array) -> Operator:
    """An operator of which only what is `known` is seen, `[1 or B, ...]`; itself if that is all."""
    if np.all(known == 1):
        return operator
    return Mask(known) if isinstance(operator, Identity) else Composed(Mask(known), operator)


def unmasked(operator: Operator) -> tuple[Operator, Array]:
    """An operator without the mask with which it ends, and what that knows, broadcastable to y."""
    if isinstance(operator, Mask):
        return Identity(), operator.known
    if isinstance(operator, Composed) and isinstance(operator.outer, Mask):
        return operator.inner, operator.outer.known
    return operator, jnp.ones(())


def _axes(x: Array) -> tuple[int, ...]:
    """The axes of space or time."""
    return tuple(range(1, x.ndim - 1))


def _along(line: Array, axis: int, last: int) -> Array:
    """`[B, N]` as an array of axes 0 to `last` whose `axis` has the N entries."""
    return line.reshape(len(line), *(line.shape[1] if a == axis else 1 for a in range(1, last + 1)))


def _fourier(x: Array, norm: str = "ortho") -> Array:
    return jnp.fft.fftn(x, axes=_axes(x), norm=norm)


def _inverse_fourier(z: Array) -> Array:
    return jnp.fft.ifftn(z, axes=_axes(z), norm="ortho").real


def _hartley(x: Array) -> Array:
    """The orthonormal Hartley transform, of real data and its own inverse (Bracewell 1983)."""
    z = _fourier(x)
    return z.real - z.imag


def cosine(x: Array) -> Array:
    """The orthonormal cosine transform (DCT-II)."""
    for axis in _axes(x):
        x = jax.scipy.fft.dct(x, axis=axis, norm="ortho")
    return x


def inverse_cosine(z: Array) -> Array:
    """Its inverse."""
    for axis in _axes(z):
        z = jax.scipy.fft.idct(z, axis=axis, norm="ortho")
    return z


def _householder(v: Array, axis: int) -> Callable[[Array], Array]:
    """Householder's reflection along an axis, which exchanges the first unit vector and `-v`.

    It is its own inverse and transpose. `v` has norm 1 and a first entry >= 0.
    """
    first = jnp.arange(v.shape[axis]).reshape((-1,) + (1,) * (-1 - axis)) == 0
    w = v + first
    half = jnp.sum(w * w, axis, keepdims=True) / 2
    return lambda a: a - w * jnp.sum(w * a, axis, keepdims=True) / half
