"""What a picture gives away of itself: conditioning that is made from `x_0`, in training as later.

Both are pure functions `(x_0 [B, H, W, C], keys [B]) -> cond`, a `types.Condition`: a sample's
conditioning depends on its own picture and its own key alone.
"""

import dataclasses

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.diffusion.corruption import diffuse, sample_noise
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.models.layers import downsample, sinusoidal_embedding
from diffusion_jax.system.arguments import checked
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Cond, Condition

LEVEL_WIDTH = 64  # of the embedded noise level: cosines and sines, so never zeros, which is "off"


@dataclasses.dataclass(frozen=True)
@checked(factor="[1, inf)", least="[0, most]", most="[0, 1]")
class LowResolution:
    """The picture at a lower resolution, with noise of a known level in it.

    Conditioning augmentation of cascaded diffusion (Sec. 4, Ho et al. 2022): a network that has
    seen its input with noise forgives the errors of the model that drew it. The low-resolution
    `z_0` is corrupted as all data are, `z_s = alpha_s z_0 + sigma_s eps`, where the level is a time
    `s` of the process, drawn evenly and told to the network.
    """

    schedule: Schedule  # of the noise
    factor: int  # so many pixels a side become one, by their mean
    least: float  # lowest level
    most: float  # highest level

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, H, W, C] and `level` [B, LEVEL_WIDTH] from pictures [B, H, W, C]."""
        return self.of_low(average_down(x_0, self.factor), keys)

    def of_low(self, z_0: Array, keys: Array) -> Cond:
        """The same from pictures that have the low resolution, [B, H / factor, W / factor, C].

        Resized up by Keys' cubic, as in SR3 (Saharia et al. 2021): it is smooth where
        nearest neighbours and bilinear interpolation would draw the grid of the pixels.
        """
        level_keys, noise_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        unit = jax.vmap(jax.random.uniform)(level_keys)
        s = self.least + (self.most - self.least) * unit
        z_s = diffuse(self.schedule, z_0, sample_noise(noise_keys, z_0.shape[1:]), s)
        b, h, w, c = z_0.shape
        shape = b, h * self.factor, w * self.factor, c
        image = jax.image.resize(z_s, shape, "cubic")
        return {"image": image, "level": sinusoidal_embedding(1000.0 * s, LEVEL_WIDTH)}


def average_down(x: Array, factor: int) -> Array:
    """Mean over `factor` x `factor` pixels: [B, H, W, C] -> [B, H / factor, W / factor, C].

    Raises:
        ValueError: the factor does not divide the sides.
    """
    h, w = x.shape[1:3]
    if h % factor or w % factor:
        raise ValueError(f"factor={factor} must divide the sides of the images, {h} x {w}")
    return downsample(x, factor)


@dataclasses.dataclass(frozen=True)
@checked(boxes="[1, inf)", least="(0, most]", most="[0, 1]")
class Masked:
    """The picture with random rectangles hidden (box masks, Suvorov et al. 2022, "LaMa")."""

    boxes: int  # how many; they may overlap
    least: float  # shortest side, as a share of the picture's
    most: float  # longest side, likewise

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, H, W, C + 1]: pictures, zero where hidden, and a last channel, 1 where known.

        All zeros are thus a picture of which nothing is known, as where conditioning is off.
        """
        known = jax.vmap(lambda key: self._known(key, *x_0.shape[1:3]))(keys)[..., None]
        return {"image": jnp.concatenate([jnp.where(known, x_0, 0.0), known.astype(x_0.dtype)], -1)}

    def _known(self, key: Array, height: int, width: int) -> Array:
        """What no rectangle hides, bool [H, W]; all places within the picture are as likely."""
        draws = jax.random.uniform(key, (self.boxes, 4, 1))
        sides = self.least + (self.most - self.least) * draws[:, :2]
        starts = draws[:, 2:] * (1 - sides)

        def within(axis: int, size: int) -> Array:
            place = (jnp.arange(size) + 0.5) / size
            return (place >= starts[:, axis]) & (place < starts[:, axis] + sides[:, axis])

        hidden = within(0, height)[:, :, None] & within(1, width)[:, None, :]
        return ~jnp.any(hidden, axis=0)


def nothing_given(condition: Condition, shape: tuple[int, ...]) -> Cond:
    """What `condition` makes of one picture of a `shape`, switched off: arrays [1, ...]."""
    shapes = jax.eval_shape(condition, jnp.zeros((1, *shape)), make_key(0)[None])
    return unconditional({name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()})
