"""Training images moved at random, which the network is told, so that samples are not.

Non-leaking augmentation (App. F.2, Karras et al. 2022, after Jun et al. 2020): sampling tells the
network that nothing was changed.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates

from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Batch, Context, Key, LossFn, Metrics, Params

AUGMENT, TOLD = "augment", 8
"""Name in the conditioning of what was done to an image, and its entries; all 0 for nothing."""
STREAM = 0x617567  # apart from the keys that losses fold from that of the step


@dataclasses.dataclass(frozen=True)
@checked(
    probability="[0, 1]",
    rotation="[0, 180]",
    **dict.fromkeys(("scale", "stretch", "translation"), "[0, inf)"),
)
class Augmentation:
    """Random affine maps of images (Table 6, Karras et al. 2022)."""

    probability: float  # of each of the changes below
    flip: bool  # mirror left and right, with probability 1/2
    scale: float  # standard deviation of log2 of the scale
    rotation: float  # largest angle, in degrees
    stretch: float  # standard deviation of log2 of the scale along a random direction
    translation: float  # standard deviation, as a share of each side

    def __call__(self, x: Array, keys: Array) -> tuple[Array, Array]:
        """Images `[B, H, W, C]`, changed, and what was done to them, `[B, TOLD]`."""
        return jax.vmap(self._one)(x, keys)

    def _one(self, x: Array, key: Key) -> tuple[Array, Array]:
        coin_key, unit_key, normal_key = jax.random.split(key, 3)
        on = jax.random.bernoulli(coin_key, self.probability, (5,)).astype(x.dtype)
        units = jax.random.uniform(unit_key, (3,), x.dtype)
        normals = jax.random.normal(normal_key, (4,), x.dtype)
        flip = on[0] * (self.flip * (units[0] < 0.5))
        scale, stretch = on[1] * self.scale * normals[0], on[3] * self.stretch * normals[1]
        angle = on[2] * jnp.radians(self.rotation) * (2 * units[1] - 1)
        along = 2 * jnp.pi * units[2]
        shift = on[4] * self.translation * normals[2:]
        # From a place in the result to the place in `x` that it shows, about the centre.
        ways = (
            _rotation(along) @ jnp.diag(2.0 ** jnp.stack([-stretch, stretch])) @ _rotation(-along)
        )
        matrix = jnp.diag(jnp.stack([jnp.ones_like(flip), 1 - 2 * flip]))
        matrix = matrix @ ways @ _rotation(-angle) * 2.0**-scale
        sides = jnp.array(x.shape[:2], x.dtype)
        grid = jnp.stack(jnp.meshgrid(*map(jnp.arange, x.shape[:2]), indexing="ij"), -1)
        places = (grid - (sides - 1) / 2 - shift * sides) @ matrix.T + (sides - 1) / 2
        moved = jax.vmap(
            lambda image: map_coordinates(image, [places[..., 0], places[..., 1]], 1, "mirror"),
            in_axes=-1,
            out_axes=-1,
        )(x)
        turned = jnp.stack([jnp.cos(angle) - 1, jnp.sin(angle)])
        ways = stretch * jnp.stack([jnp.cos(2 * along), jnp.sin(2 * along)])
        told = jnp.concatenate([jnp.stack([flip, scale]), turned, ways, shift])
        return jnp.where(jnp.any(told != 0), moved, x), told


def augmented(augment: Augmentation, loss: LossFn) -> LossFn:
    """The loss of augmented images, with what was done to them in `cond['augment']`."""

    def of_augmented(params: Params, batch: Batch, context: Context) -> tuple[Array, Metrics]:
        keys = sample_keys(jax.random.fold_in(context.key, STREAM), batch["index"])
        x, told = augment(batch["x"], keys)
        return loss(params, {**batch, "x": x, "cond": {**batch["cond"], AUGMENT: told}}, context)

    return of_augmented


def _rotation(angle: Array) -> Array:
    return jnp.stack(
        [jnp.stack([jnp.cos(angle), -jnp.sin(angle)]), jnp.stack([jnp.sin(angle), jnp.cos(angle)])]
    )
