"""Small networks of Stable Diffusion's layout, with weights and inputs that need not be stored.

For the scripts here, which have diffusers, and for tests, which have not.
"""

import zlib
from typing import Any

import numpy as np

UNET: dict[str, Any] = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [32, 64, 64, 64],
    "layers_per_block": 2,
    "cross_attention_dim": 48,
    "attention_head_dim": 8,  # the number of heads, as in the published config
    "norm_num_groups": 32,
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
}
AUTOENCODER: dict[str, Any] = {
    "block_out_channels": [32, 64, 64, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "norm_num_groups": 32,
}
LEAST_AUTOENCODER = AUTOENCODER | {
    "block_out_channels": [32, 64],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
}
LEAST_UNET = UNET | {
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
}
INPAINTING_UNET = LEAST_UNET | {"in_channels": 9}
WIDE_UNET = UNET | {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
"""For large pictures, with little attention."""
SIZES = {(32, 32): UNET, (64, 96): WIDE_UNET, (72, 96): WIDE_UNET}
"""Sides of latents with the networks that are tried on them; at the lowest level, 72 is odd."""
EVERY = 8  # of their pixels are stored, along each axis
WIDE, FEW = (144, 192), 3  # pixels of a picture that is drawn in so many steps
TEXT: dict[str, Any] = {
    "vocab_size": 100,
    "hidden_size": 48,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "bos_token_id": 98,
    "eos_token_id": 99,
    "pad_token_id": 99,
}
INDICES = (0, 1, 20, 500, 981, 999)


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weight that diffusers calls `name`: kernels keep variances, scales are near 1."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if name.endswith("bias"):
        return 0.1 * values
    if len(shape) == 1:
        return 1 + 0.1 * values
    return values if "embeddings" in name else values / np.sqrt(np.prod(shape[1:]))


def factor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The factor of LoRA that PEFT calls `name`, float32 as in its files."""
    return drawn(name, shape).astype(np.float32)


def noise(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Normal numbers `[B, H, W, C]` of a pipeline: 0 for its start, 1 for its encoder."""
    return np.random.default_rng(seed).standard_normal(shape)


def hidden() -> np.ndarray:
    """What is to be painted: 1 there, 0 where pixels [16, 24] are known."""
    mask = np.zeros((16, 24))
    mask[5:12, 3:15] = 1  # in part between pixels of latents
    return mask


def inputs() -> dict[str, np.ndarray]:
    """Inputs of the networks; pictures, one of them of one colour, are [B, H, W, C]."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 98, (2, 12))
    tokens[:, 0] = 98
    tokens[0, 5:], tokens[1, -1] = 99, 99  # padded with the end token, and full
    pictures = np.broadcast_to([0.8, -0.3, 0.5], (2, 16, 24, 3)).copy()
    pictures[0] = rng.uniform(-1, 1, (16, 24, 3))
    return {
        "x_t": rng.standard_normal((2, 24, 16, 4)),
        "index": np.array([999, 20]),
        "text": rng.standard_normal((2, 77, 48)),
        "picture": pictures,
        "tokens": tokens,
    }
