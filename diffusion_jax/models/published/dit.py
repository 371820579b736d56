"""Names of the published diffusion transformers, such as `DiT-XL-2-256x256.pt`: `weights.Format`s.

They are those of facebookresearch/DiT. Its position embedding is fixed, and no parameter here: a
file must have the same table.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.models.dit import position_embedding
from diffusion_jax.models.weights import (
    Format,
    Stored,
    WeightsError,
    in_layer,
    read_tensors,
    tensors_of,
    variables_from,
    write_tensors,
)

POSITIONS = "pos_embed"
ROUNDING = 4e-3
"""Largest difference of the positions' table in a file from ours: it may be in bfloat16."""
CHANNELS = 4
"""Of the latents that the published networks are for."""
_LAYERS = {
    "embedding.time_0": "t_embedder.mlp.0",
    "embedding.time_1": "t_embedder.mlp.2",
    "embedding.label": "y_embedder.embedding_table",
    "patches": "x_embedder.proj",
    "modulation_out": "final_layer.adaLN_modulation.1",
    "out": "final_layer.linear",
}
_OF_BLOCK = {
    "modulation": "adaLN_modulation.1",
    "qkv": "attn.qkv",
    "out": "attn.proj",
    "mlp_0": "mlp.fc1",
    "mlp_1": "mlp.fc2",
}
_STACKED, _BLOCK = "blocks", "blocks."
"""Our module of all blocks, whose parameters are [depth, ...]; the beginning of each of theirs."""


def read_dit(path: Path, template: Any, sizes: Sequence[int]) -> Any:
    """The variables of a transformer from its published file, as float32.

    `template` is the tree of their shapes, `sizes` the height and width of the latents. What is
    checked is in `variables_from`, and that the file's positions are ours for this size.

    Raises:
        WeightsError: one sentence that names the file and the first tensor that is wrong.
    """
    if path.is_dir():
        raise WeightsError(f"{path}: a transformer is one file, such as DiT-XL-2-256x256.pt")
    theirs, tensors = apart(template), read_tensors(path)
    found = variables_from(
        tensors, path, theirs, "the transformer", lambda name: name == POSITIONS, published(theirs)
    )
    _check_positions(path, tensors, found, sizes)
    return together(found)


def _check_positions(
    path: Path, tensors: Mapping[str, np.ndarray], theirs: Any, sizes: Sequence[int]
) -> None:
    """Raises a WeightsError if the file has positions, and not those of latents of these sizes."""
    patches = theirs["params"]["patches"]["kernel"]
    side, words = _patch_size(patches), "x".join(map(str, sizes))
    ours = np.asarray(position_embedding([size // side for size in sizes], patches.shape[1]))[None]
    if (found := tensors.get(POSITIONS, ours)).shape != ours.shape:
        raise WeightsError(
            f"{path}: the transformer is for other sizes than {words} latents: its {POSITIONS} is "
            f"{list(found.shape)}, and that of the {words} here {list(ours.shape)}"
        )
    if not np.allclose(found.astype(np.float32), ours, rtol=0, atol=ROUNDING):
        raise WeightsError(
            f"{path}: its {POSITIONS} is not the table of sines and cosines of {words} latents, "
            "which is the only one that the transformer here has"
        )


def _patch_size(kernel: Any) -> int:
    """The side of the patches of our layer [p p C, D]."""
    return math.isqrt(kernel.shape[0] // CHANNELS)


def write_dit(path: Path, variables: Any, grid: tuple[int, int], dtype: Any = np.float32) -> None:
    """Writes a transformer's `.safetensors` file, as `dtype`, which may be half precision.

    `grid` is the number of patches along each side of its pictures, for the position embedding that
    the published file has.
    """
    theirs = apart(variables)
    tensors = tensors_of(theirs, published(theirs), dtype)
    width = theirs["params"]["patches"]["bias"].shape[0]
    positions = np.asarray(position_embedding(grid, width))[None]
    write_tensors(path, {**tensors, POSITIONS: positions.astype(dtype)})


def published(template: Any) -> Format:
    """The format, of variables that are `apart`."""

    def layout(path: tuple[str, ...], leaf: Any) -> Stored:
        *layer, name = path
        if layer[0].startswith(_BLOCK):
            return in_layer(f"{layer[0]}.{_OF_BLOCK.get(layer[1], layer[1])}", name, leaf)
        joined = ".".join(layer)
        stored = in_layer(_LAYERS.get(joined, joined), name, leaf)
        return _of_patches(stored, leaf) if path == ("patches", "kernel") else stored

    return layout


def _of_patches(stored: Stored, leaf: Any) -> Stored:
    """The convolution [D, C, p, p] that is our layer [p p C, D] of patches."""
    p = _patch_size(leaf)
    return Stored(stored.name, (2, 3, 1, 0), (leaf.shape[1], CHANNELS, p, p))


def apart(variables: Any) -> Any:
    """Variables, or their shapes, with each block by itself: `blocks.0`, `blocks.1` and so on."""
    params = dict(variables["params"])
    stacked = params.pop(_STACKED)
    depth = jax.tree.leaves(stacked)[0].shape[0]

    def of_block(i: int) -> Any:
        def one(a: Any) -> Any:
            if isinstance(a, jax.ShapeDtypeStruct):  # on no device before all are together
                return a.update(shape=a.shape[1:], sharding=None)
            return a[i]

        return jax.tree.map(one, stacked)

    return {"params": {**params, **{f"{_BLOCK}{i}": of_block(i) for i in range(depth)}}}


def together(variables: Any) -> Any:
    """The inverse of `apart`."""
    params = dict(variables["params"])
    depth = sum(name.startswith(_BLOCK) for name in params)
    blocks = [params.pop(f"{_BLOCK}{i}") for i in range(depth)]
    return {"params": {**params, _STACKED: jax.tree.map(lambda *each: np.stack(each), *blocks)}}
