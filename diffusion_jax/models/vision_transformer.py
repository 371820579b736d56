"""DINOv2's vision transformers (Oquab et al. 2024), whose class token is an image feature.

Modules are named as in the published weights, `dinov2_vits14_pretrain.pth` and similar; registers
are those of Darcet et al. 2024.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.attention import attention
from diffusion_jax.models.layers import Conv, LayerNorm, dense, zeros
from diffusion_jax.types import Array

GRID = 37  # patches per side of the 518-pixel images for which the positions were trained


class TransformerBlock(nn.Module):
    """Attention, then an MLP, each residual and scaled per channel (LayerScale, CaiT)."""

    num_heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[B, L, C] -> [B, L, C]."""
        c = x.shape[-1]
        h = LayerNorm(epsilon=1e-6, name="norm1")(x)
        q, k, v = jnp.split(dense(3 * c, name="attn.qkv")(h), 3, axis=-1)
        h = dense(c, name="attn.proj")(attention(q, k, v, self.num_heads))
        x += h * self.param("ls1.gamma", nn.initializers.ones, (c,))
        h = LayerNorm(epsilon=1e-6, name="norm2")(x)
        h = nn.gelu(dense(4 * c, name="mlp.fc1")(h), approximate=False)
        return x + dense(c, name="mlp.fc2")(h) * self.param("ls2.gamma", nn.initializers.ones, (c,))


class VisionTransformer(nn.Module):
    """The frozen encoder."""

    hidden_size: int = 384  # token width
    depth: int = 12  # number of blocks
    num_heads: int = 6  # attention heads
    registers: int = 0  # register tokens, in addition to the class token
    patch_size: int = 14  # side of a patch, in pixels

    @nn.compact
    def __call__(self, x: Array) -> tuple[None, Array]:
        """Normalised images [B, H, W, 3] to None (no logits) and the class token [B, hidden_size].

        Height and width are multiples of the patch size.
        """
        b, c = len(x), self.hidden_size
        x = Conv(c, self.patch_size, self.patch_size, "VALID", name="patch_embed.proj")(x)
        height, width = x.shape[1:3]
        first = self.param("cls_token", zeros, (1, 1, c))
        place = self.param("pos_embed", zeros, (1, 1 + GRID**2, c))
        grid = place[0, 1:].reshape(GRID, GRID, c)
        grid = resize_positions(grid, height, width, antialias=self.registers > 0)
        others = [jnp.broadcast_to(first + place[:, :1], (b, 1, c))]
        if self.registers:
            tokens = self.param("register_tokens", zeros, (1, self.registers, c))
            others.append(jnp.broadcast_to(tokens, (b, self.registers, c)))
        x = jnp.concatenate([*others, (x + grid).reshape(b, height * width, c)], axis=1)
        for number in range(self.depth):
            x = TransformerBlock(self.num_heads, name=f"blocks.{number}")(x)
        return None, LayerNorm(epsilon=1e-6, name="norm")(x[:, 0])


def resize_positions(grid: Array, height: int, width: int, antialias: bool) -> Array:
    """Resizes position embeddings [M, N, C] to another grid: [height, width, C].

    Bicubic as in DINOv2's code: with antialiasing for networks with registers; for the others
    without, and with a scale computed for a tenth of a patch more.
    """
    if grid.shape[:2] == (height, width):
        return grid
    if antialias:
        return jax.image.resize(grid, (height, width, grid.shape[-1]), "cubic")
    rows, columns = cubic_weights(grid.shape[0], height), cubic_weights(grid.shape[1], width)
    return jnp.einsum("hm,wn,mnc->hwc", rows, columns, grid)


def cubic_weights(source: int, target: int) -> np.ndarray:
    """Interpolation weights from `source` to `target` points: float32 [target, source].

    Torch's bicubic interpolation with a scale of (target + 0.1) / source: cubic convolution (Keys
    1981) with a = -0.75, repeating the outermost points.
    """
    a = -0.75
    places = (np.arange(target) + 0.5) * source / (target + 0.1) - 0.5
    weights = np.zeros((target, source))
    for offset in range(-1, 3):
        near = np.floor(places).astype(int) + offset
        d = np.abs(places - near)
        inner = (a + 2) * d**3 - (a + 3) * d**2 + 1
        outer = a * (d**3 - 5 * d**2 + 8 * d - 4)
        weight = np.where(d <= 1, inner, outer)
        np.add.at(weights, (np.arange(target), near.clip(0, source - 1)), weight)
    return weights.astype(np.float32)
