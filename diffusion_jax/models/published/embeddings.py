"""Textual inversion (Gal et al. 2022): files with learned embeddings of new tokens."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.published.files import OTHER_WIDTHS
from diffusion_jax.models.weights import WeightsError, read_tensors, unpickled, write_tensors

UNNAMED = "emb_params"
"""The tensor of files of stable-diffusion-webui, whose token is the file's name."""


def read_embeddings(path: Path, width: int) -> dict[str, np.ndarray]:
    """Embeddings by token, each float32 [N, width]; most tokens have N = 1 vectors.

    `learned_embeds.safetensors` and `.bin` of diffusers, and files of stable-diffusion-webui, of
    which the older ones are pickles with a `string_to_param`. `width` is that of the text encoder.

    Raises:
        WeightsError: one sentence that names the file and the token that is wrong.
    """
    if path.suffix == ".safetensors":
        found: Mapping[str, Any] = read_tensors(path)
    else:
        found = _of_pickle(path)
    if UNNAMED in found:
        found = {path.stem: found[UNNAMED]}
    return {token: _checked(path, token, value, width) for token, value in found.items()}


def write_embeddings(path: Path, embeddings: Mapping[str, Any], dtype: Any = np.float32) -> None:
    """Writes embeddings [width] or [N, width] by token, as diffusers' `learned_embeds`.

    A single vector is stored as [width]. Diffusers itself reads files of one token only.
    """
    tensors = {}
    for token, value in embeddings.items():
        vectors = np.asarray(value).astype(dtype)
        tensors[token] = vectors[0] if vectors.ndim == 2 and len(vectors) == 1 else vectors
    write_tensors(path, tensors)


def _of_pickle(path: Path) -> Mapping[str, Any]:
    """The tensors by token of a file that torch wrote."""
    try:
        found = unpickled(path)
    except WeightsError as error:
        raise WeightsError(
            f"{error}; where you trust the file, open it with torch and write its vectors by token "
            "to a .safetensors file"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path}: it holds a {type(found).__name__}, not embeddings by token")
    if "string_to_param" not in found:
        return found
    vectors = list(found["string_to_param"].values())
    if len(vectors) != 1:
        raise WeightsError(f"{path}: string_to_param has {len(vectors)} entries, not one")
    return {str(found.get("name") or path.stem): vectors[0]}


def _checked(path: Path, token: str, value: Any, width: int) -> np.ndarray:
    """The vectors of a token, [N, width]."""
    if not isinstance(value, np.ndarray) or not jnp.issubdtype(value.dtype, jnp.floating):
        raise WeightsError(f"{path}: {token!r} is no tensor of floats, such as an embedding")
    if value.ndim not in (1, 2) or not value.size:
        raise WeightsError(f"{path}: {token!r} has shape {list(value.shape)}, not [N, {width}]")
    if value.shape[-1] != width:
        version = OTHER_WIDTHS.get(value.shape[-1])
        raise WeightsError(
            f"{path}: {token!r} has vectors of width {value.shape[-1]}"
            f"{f', as Stable Diffusion {version}' if version else ''}, and the text encoder has "
            f"{width}"
        )
    return np.asarray(np.atleast_2d(value), np.float32)
