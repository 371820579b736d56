"""Conditioning computed from the image itself: low resolution, masks, decay.

All are pure functions `(x_0 [B, H, W, C], keys [B]) -> cond`, a `types.Condition`: a sample's
conditioning depends only on its own image and its own key.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from diffusion_jax.codecs.codec import Codec
from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.diffusion.corruption import diffuse, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.models.layers import sinusoidal_embedding
from diffusion_jax.restoration.decay import KINDS, Decay
from diffusion_jax.restoration.linear import Downscale
from diffusion_jax.restoration.operators import Mask, Observation, linearised
from diffusion_jax.system.arguments import checked
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Condition, Params

LEVEL_WIDTH = 64  # of the noise level's embedding; cosines and sines, so never all zeros ("off")


@dataclasses.dataclass(frozen=True)
@checked(factor="[1, inf)", least="[0, most]", most="[0, 1]")
class LowResolution:
    """The image at a lower resolution, with noise of a known level.

    Conditioning augmentation of cascaded diffusion (Sec. 4, Ho et al. 2022): training on noisy
    inputs makes the network robust to errors of the model that generated them. The low-resolution
    `z_0` is diffused like the data, `z_s = alpha_s z_0 + sigma_s eps`; the level is a time `s` of
    the process, drawn uniformly and given to the network.
    """

    schedule: Schedule  # noise schedule
    factor: int  # this many pixels per side are averaged to one
    least: float  # lowest noise level, a time
    most: float  # highest noise level, a time

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, H, W, C] and `level` [B, LEVEL_WIDTH] from images [B, H, W, C]."""
        return self.of_low(Downscale(self.factor)(x_0), keys)

    def of_low(self, z_0: Array, keys: Array) -> Cond:
        """The same from low-resolution images [B, H / factor, W / factor, C].

        Upsampling is by Keys' cubic, as in SR3 (Saharia et al. 2021): it is smooth, where nearest
        neighbours and bilinear interpolation would show the grid of pixels.
        """
        level_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        unit = jax.vmap(jax.random.uniform)(level_keys)
        s = self.least + (self.most - self.least) * unit
        z_s = diffuse(self.schedule, z_0, sample_noise(noise_keys, z_0.shape[1:]), s)
        b, h, w, c = z_0.shape
        shape = b, h * self.factor, w * self.factor, c
        image = jax.image.resize(z_s, shape, "cubic")
        return {"image": image, "level": sinusoidal_embedding(1000.0 * s, LEVEL_WIDTH)}


@dataclasses.dataclass(frozen=True)
@checked(boxes="[1, inf)", least="(0, most]", most="[0, 1]")
class Masked:
    """The image with random rectangles hidden (box masks, Suvorov et al. 2022, "LaMa").

    Of a sound they are gaps.
    """

    boxes: int  # number of rectangles, which may overlap
    least: float  # shortest side, as a share of the image's side
    most: float  # longest side, as a share of the image's side

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, ..., C + 1]: zero where hidden; the last channel is 1 where known.

        All zeros thus mean that nothing is known, as when conditioning is switched off.
        """
        known = jax.vmap(lambda key: self._known(key, x_0.shape[1:-1]))(keys)[..., None]
        known = known.astype(x_0.dtype)
        return {"image": jnp.concatenate([Mask(known)(x_0), known], -1)}

    def _known(self, key: Array, sizes: tuple[int, ...]) -> Array:
        """Whether a pixel is in no rectangle, bool `sizes`; positions are uniform in the image."""
        axes = len(sizes)
        draws = jax.random.uniform(key, (self.boxes, 2 * axes, 1))
        sides = self.least + (self.most - self.least) * draws[:, :axes]
        starts = draws[:, axes:] * (1 - sides)

        def within(axis: int, size: int) -> Array:
            place = (jnp.arange(size) + 0.5) / size
            return (place >= starts[:, axis]) & (place < starts[:, axis] + sides[:, axis])

        hidden = jnp.ones((self.boxes,) + (1,) * axes, bool)
        for axis, size in enumerate(sizes):
            line = within(axis, size)
            hidden &= line.reshape(-1, *(size if a == axis else 1 for a in range(axes)))
        return ~jnp.any(hidden, axis=0)


@dataclasses.dataclass(frozen=True)
@checked(severity="(0, 1]")
class Decayed:
    """The image decayed: a network that is trained with it draws clean images of decayed ones."""

    severity: float  # the most, of each kind of decay
    kinds: tuple[str, ...] = tuple(KINDS)

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, H, W, C] from images [B, H, W, C]."""
        return {"image": Decay(self.severity, self.kinds)(x_0, keys).image}


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A condition's `image`, a signal like the items, in the space of the codec."""

    condition: Condition  # from items
    codec: Codec  # one without parameters

    def __call__(self, x: Array, keys: Array) -> Cond:
        """The condition of items `x` `[B, ..., C]`, with `image` `[B, *codec.shape]`.

        Further channels of it, as that of `Masked`, are encoded behind the first C, as many at a
        time, and the last of them is repeated to fill up C.
        """
        cond = self.condition(x, keys)
        image, channels = cond["image"], x.shape[-1]
        last = jnp.repeat(image[..., -1:], -image.shape[-1] % channels, axis=-1)
        image = jnp.concatenate([image, last], axis=-1)
        parts = jnp.split(image, image.shape[-1] // channels, axis=-1)
        encoded = [self.codec.encode({}, part, keys) for part in parts]
        return {**cond, "image": jnp.concatenate(encoded, axis=-1)}


def inpainting(
    codec: Codec, frozen: Mapping[str, Params], x: Array, hidden: Array, keys: Array
) -> Cond:
    """What Stable Diffusion's network for it is given of pictures: `inpainting` [B, h, w, 1 + C].

    The mask comes first, then the latents of the picture that is grey where it is hidden.

    Args:
        codec: of the latents [B, h, w, C].
        frozen: its parameters.
        x: pictures [B, H, W, ...] in [-1, 1].
        hidden: [B, H, W, 1], 1 where they are to be painted and 0 elsewhere.
        keys: of the encoder's noise, one for each picture.
    """
    x_0 = codec.encode(frozen, jnp.where(hidden > 0, 0.0, x), keys)
    mask = of_latents(hidden, x_0.shape).astype(x_0.dtype)
    return {"inpainting": jnp.concatenate([mask, x_0], -1)}


def of_latents(mask: Array, shape: tuple[int, ...]) -> Array:
    """A mask of pictures [B, H, W, 1] as that of their latents, of a `shape` [B, h, w, C].

    A latent has the value of the first of its pixels, as by the nearest neighbours of PyTorch.
    """
    _, *sides, _ = mask.shape
    for axis, (side, own) in enumerate(zip(sides, shape[1:], strict=False), 1):
        mask = jnp.take(mask, jnp.arange(own) * side // own, axis)
    return mask


def observed_image(observation: Observation, shape: tuple[int, ...], mask: bool) -> Array:
    """The `image` that a network is given of an observation of items of a `shape`, `[B, ..., C]`.

    It is `A^T y`, for a network trained with `Masked` (`mask`) with `A^T 1` as the last channel.
    """
    y = observation.y
    back = linearised(observation.operator, jnp.zeros((len(y), *shape), y.dtype)).adjoint
    return jnp.concatenate([back(y), back(jnp.ones_like(y))[..., :1]][: 1 + mask], -1)


def nothing_given(condition: Condition, shape: tuple[int, ...]) -> Cond:
    """The conditioning of one image of a `shape`, switched off: arrays [1, ...]."""
    shapes = jax.eval_shape(condition, jnp.zeros((1, *shape)), make_key(0)[None])
    return unconditional({name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()})
