"""DiT, the diffusion transformer with adaLN-Zero (Peebles & Xie 2023, section 3.2).

Published sizes, as (hidden_size, depth, num_heads): S (384, 12, 6), B (768, 12, 12),
L (1024, 24, 16), XL (1152, 28, 16). The defaults are S/2.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import (
    PRODUCT,
    Dtype,
    Network,
    at_least_float32,
    dense,
    patchify,
    unpatchify,
    zeros,
)
from diffusion_jax.models.layout import keep_rows
from diffusion_jax.models.platform import platform
from diffusion_jax.models.remat import remat
from diffusion_jax.models.transformer import attend, text_of
from diffusion_jax.types import Array, Cond

Mask = Callable[[int], Array]
"""`L -> bool [L, L]`: whether a position (row) attends to another (column)."""


class DiTBlock(nn.Module):
    """Self-attention and MLP, each scaled, shifted and gated by the conditioning (Fig. 3).

    If there is a text, cross-attention to it in between, initialised to zero (PixArt-alpha, Chen et
    al. 2024, section 2.3).
    """

    num_heads: int
    mlp_ratio: float  # width of the MLP's hidden layer over that of the tokens
    dtype: Dtype
    mask: Mask | None = None  # which tokens attend to which
    dropout: float = 0.0  # rate of both branches' outputs (section 5.4, Vaswani et al. 2017)
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        emb: Array,
        text: tuple[Array, Array] | None = None,
        place: Array | None = None,
        rotation: Array | None = None,
    ) -> tuple[Array, None]:
        """Tokens x [B, L, D] and conditioning emb [B, D] -> (tokens [B, L, D], None for the scan).

        `text` is [B, M, E] with its numbers of tokens, int32 [B]. With a `place`, see `DiT`; with a
        `rotation`, see `rotated`.

        The modulation starts at zero, gates included, so that every block starts as the identity.
        """
        features = x.shape[-1]
        layer = partial(dense, dtype=self.dtype)
        drop = nn.Dropout(self.dropout, deterministic=not self.train)
        modulation = layer(6 * features, kernel_init=zeros, name="modulation")(emb)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation[:, None], 6, -1)

        h = modulate(x, shift_a, scale_a)
        q, k, v = jnp.split(layer(3 * features, name="qkv")(h), 3, axis=-1)
        if rotation is not None:
            q, k = (rotated(a, rotation, self.num_heads) for a in (q, k))
        if place is None:
            seen = {"mask": self.mask(x.shape[1]) if self.mask else None}
        else:
            seen = {"lengths": jnp.full(len(x), place + x.shape[1])}
            k, v = self._cached("keys", k, place), self._cached("values", v, place)
        h = layer(features, name="out")(attention(q, k, v, self.num_heads, **seen))
        x = keep_rows(x + gate_a * drop(h))

        if text is not None:
            to_text = partial(attend, num_heads=self.num_heads, dtype=self.dtype, out_init=zeros)
            h = modulate(x, jnp.zeros_like(shift_a), jnp.zeros_like(scale_a))
            x = keep_rows(x + to_text(h, text[0], "text", text[1]))

        h = modulate(x, shift_m, scale_m)
        h = gelu_layer(int(self.mlp_ratio * features), self.dtype, name="mlp_0")(h)
        return keep_rows(x + gate_m * drop(layer(features, name="mlp_1")(h))), None

    def _cached(self, name: str, x: Array, place: Array) -> Array:
        """Writes x [B, L, D] at a place of the cache [B, M, D], and returns all of that."""
        whole = lax.dynamic_update_slice_in_dim(self.get_variable("cache", name), x, place, axis=1)
        self.put_variable("cache", name, whole)
        return whole


class DiT(Network):
    """A transformer over the patches of an image, a latent, or a sample with any number of axes.

    With `remat="full"` the memory of a layer is one block input, for a third more computation.
    """

    patch_size: int = 2  # side of a patch in pixels; divides all sides of the sample
    hidden_size: int = 384  # token width
    depth: int = 12  # number of blocks
    num_heads: int = 6  # attention heads
    mlp_ratio: float = 4.0  # width of the MLPs' hidden layer over `hidden_size`
    # blocks per iteration of the loop over them; 0: all on GPUs, else one. Unrolling all removes
    # the loop, which takes longer to compile and trains faster: on a CPU by a sixth for the size S,
    # on a GPU as the loop's copies of all activations are a third of the memory traffic.
    unroll: int = 0
    mask: Mask | None = None  # which patches attend to which; None: to all
    # Whether attention depends on the distance of patches, too: queries and keys are rotated by
    # their positions (RoPE, Su et al. 2021).
    rotary: bool = False
    dropout: float = 0.0  # rate of the outputs of attention and of MLPs

    @nn.compact
    def __call__(
        self,
        x_t: Array,
        t: Array,
        cond: Cond,
        train: bool = False,
        positions: Array | None = None,
        place: Array | None = None,
    ) -> Array:
        """See `Network`: [B, ..., C] and [B] -> [B, ..., out_channels].

        `positions`, rows of those of a grid, take the place of those of the own grid. With a
        `place` `x_t` are the patches from there on of a longer sequence. They attend to each other
        and to all before them, whose keys and values are in the variables "cache"; theirs are
        written there.
        """
        sizes = x_t.shape[1:-1]
        if not sizes:
            raise ValueError("model.name='dit' needs images or the like: use 'mlp' for vectors")
        if any(size % self.patch_size for size in sizes):
            raise ValueError(
                f"size {'x'.join(map(str, sizes))} cannot be cut into patches of "
                f"model.dit.patch_size={self.patch_size}: all sides must be multiples of it"
            )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"model.dit.hidden_size={self.hidden_size} must be a multiple of "
                f"model.dit.num_heads={self.num_heads}"
            )
        layer = partial(dense, dtype=self.dtype)
        emb = self.embedding(t, cond, self.hidden_size, 256)
        patches = patchify(self.beside(x_t, cond), self.patch_size)
        b, *grid, values = patches.shape
        x = layer(self.hidden_size, name="patches")(patches.reshape(b, -1, values))
        positions = (self.positions(grid) if positions is None else positions).astype(self.dtype)
        x = x + positions[..., : self.hidden_size]
        rotation = positions[:, self.hidden_size :] if self.rotary else None
        text = text_of(cond, b, self.context_dim) if self.context_dim else None
        x, _ = self._blocks(train)(keep_rows(x), keep_rows(emb), text, place, rotation)

        modulation = layer(2 * self.hidden_size, kernel_init=zeros, name="modulation_out")(emb)
        shift, scale = jnp.split(modulation[:, None], 2, axis=-1)
        pixels = self.patch_size ** len(grid) * self.out_channels
        x = layer(pixels, kernel_init=zeros, name="out")(modulate(x, shift, scale))
        x = x.reshape(b, *grid, pixels)
        return at_least_float32(unpatchify(x, self.patch_size))

    def positions(self, sizes: Sequence[int]) -> Array:
        """Rows of the patches of a grid: their embedding and, if `rotary`, their rotation."""
        added = position_embedding(sizes, self.hidden_size)
        if not self.rotary:
            return added
        return jnp.append(added, rotation_of(sizes, self.hidden_size // self.num_heads), axis=-1)

    def _blocks(self, train: bool) -> Any:
        """All blocks as one scanned module: parameters are [depth, ...], one block is compiled."""
        scanned = nn.scan(
            remat(DiTBlock, self.remat, scanned=True),
            variable_axes={"params": 0, "cache": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.depth,
            unroll=self.unroll or (self.depth if platform() == "gpu" else 1),
        )
        if not self.is_initializing():
            # Ahead of the loop, so that it stacks gradients in this dtype; they are rounded to it
            # in any case. Initialised in float32.
            cast = partial(jax.tree.map, lambda a: a.astype(self.dtype))
            scanned = nn.map_variables(scanned, "params", cast)
        sizes = self.num_heads, self.mlp_ratio, self.dtype, self.mask
        return scanned(*sizes, self.dropout, train, name="blocks")


# Recomputed in the backward pass: cheap to compute, and storing it costs more time and memory.
@partial(jax.checkpoint, prevent_cse=False)
def modulate(x: Array, shift: Array, scale: Array) -> Array:
    """Layer norm of x [B, L, D], scaled by `1 + scale` and shifted by `shift`, both [B, 1, D]."""
    h = at_least_float32(x)
    h -= h.mean(-1, keepdims=True)
    h *= lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-6)
    return h.astype(x.dtype) * (1 + scale) + shift


class _GeluLayer(nn.Dense):
    """A linear layer and GELU in its tanh approximation (Hendrycks & Gimpel 2016, section 2)."""

    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., features]."""
        return nn.gelu(super().__call__(x), approximate=True)


def gelu_layer(features: int, dtype: Dtype, name: str) -> Any:
    """`dense` and a GELU, of which the product alone is stored for the backward pass.

    The rest is recomputed. On a GPU, where memory is slower than computation, a barrier keeps the
    compiler from storing the tanh instead, where it sees both passes at once.
    """
    product = jax.checkpoint_policies.save_only_these_names(PRODUCT)
    made_by = nn.remat(_GeluLayer, policy=product, prevent_cse=platform() == "gpu")
    return dense(features, dtype=dtype, name=name, made_by=made_by)


def position_embedding(sizes: Sequence[int], features: int) -> Array:
    """Fixed sine-cosine embedding of a grid with n axes: float32 [product of sizes, features].

    Each axis has `features / n` of the features: sines, then cosines of `features / 2n`
    frequencies. The last axis comes first, as in the published weights for images.
    """
    angles = _angles(sizes, features, "hidden_size")
    table = np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=-1)
    return jnp.asarray(table, jnp.float32)


def rotation_of(sizes: Sequence[int], features: int) -> Array:
    """The same angles for `rotated`, all sines first: float32 [product of sizes, features]."""
    angles = np.concatenate(_angles(sizes, features, "hidden_size / model.dit.num_heads"), axis=-1)
    return jnp.asarray(np.concatenate([np.sin(angles), np.cos(angles)], axis=-1), jnp.float32)


def _angles(sizes: Sequence[int], features: int, name: str) -> list[np.ndarray]:
    """Of each axis, the last one first: [product of sizes, features / 2n]."""
    count, rest = divmod(features, 2 * len(sizes))
    if rest or not count:
        raise ValueError(f"model.dit.{name}={features} must be a multiple of {2 * len(sizes)}")
    frequencies = 1e4 ** -(np.arange(count) / count)
    places = np.indices(sizes).reshape(len(sizes), -1)[::-1]
    return [np.outer(place, frequencies) for place in places]


def rotated(x: Array, rotation: Array, num_heads: int) -> Array:
    """Rotates each pair of features of each head of x [B, L, C] by its angle (Eq. 34, Su et al.).

    A pair is a feature of the first half of a head and that of the second half. The product of a
    rotated query and a rotated key depends on the difference of their positions only.
    """
    sin, cos = jnp.split(rotation[:, None], 2, axis=-1)
    a, b = jnp.split(x.reshape(*x.shape[:2], num_heads, -1), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)
