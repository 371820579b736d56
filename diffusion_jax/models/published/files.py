"""Folders of diffusers and single files of CompVis, with the parts of Stable Diffusion v1."""

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.models.published import autoencoder, unet
from diffusion_jax.models.weights import (
    Format,
    Stored,
    WeightsError,
    like_torch,
    names_of,
    read_tensors,
    sha256,
    tensors_of,
    variables_from,
    write_tensors,
)

Formats = Callable[[Any], Format]
"""Makes a format from a network's variables, or their shapes: names can depend on its size."""


class Part(NamedTuple):
    """A network of Stable Diffusion, and where its tensors are."""

    words: str  # its name in messages
    folder: str  # in diffusers' folder
    files: tuple[str, ...]  # names in that folder; the first that is there is read
    prefix: str  # of its tensors in a single file
    # The first format is written in a folder, the last in a single file; all are read from either.
    formats: tuple[Formats, ...]
    unused: tuple[str, ...]  # beginnings of tensors that are not parameters


OF_DIFFUSERS = tuple(
    f"diffusion_pytorch_model.{end}" for end in ("safetensors", "fp16.safetensors", "bin")
)


def _clip(template: Any) -> Format:
    return like_torch


def _clip_of_transformers_5(template: Any) -> Format:
    """The names in folders that transformers has written since version 5."""

    def layout(path: tuple[str, ...], leaf: Any) -> Stored:
        stored = like_torch(path, leaf)
        return stored._replace(name=stored.name.removeprefix("text_model."))

    return layout


PARTS = {
    "unet": Part(
        "the U-Net",
        "unet",
        OF_DIFFUSERS,
        "model.diffusion_model.",
        (unet.diffusers, unet.compvis),
        (),
    ),
    "text_encoder": Part(
        "the text encoder",
        "text_encoder",
        ("model.safetensors", "model.fp16.safetensors", "pytorch_model.bin"),
        "cond_stage_model.transformer.",
        (_clip, _clip_of_transformers_5, _clip),
        ("text_model.embeddings.position_ids",),
    ),
    "vae": Part(
        "the autoencoder",
        "vae",
        OF_DIFFUSERS,
        "first_stage_model.",
        (autoencoder.diffusers, autoencoder.diffusers_old, autoencoder.compvis),
        ("loss.", "model_ema."),  # of training, in CompVis' files of it alone
    ),
}
BUFFERS = (
    *("betas", "alphas_cumprod", "sqrt_", "log_one_minus_alphas_cumprod", "posterior_"),
    *("model_ema.", "logvar"),
)
"""Beginnings of other tensors in single files: the schedule's tables, and averages of training."""
OTHER_NAMES = {
    **{"conditioner.": "XL", "add_embedding.": "XL", "label_emb.": "XL"},
    **{"model.diffusion_model.label_emb.": "XL", "cond_stage_model.model.": "2"},
}
"""Beginnings of tensors' names that other versions of Stable Diffusion have."""
OTHER_WIDTHS = {1024: "2", 1280: "XL", 2048: "XL"}
"""Widths of the text that they have."""
ANOTHER = "which is another network than version 1"
PAINTER, CONV_IN = 9, ("conv_in.weight", "model.diffusion_model.input_blocks.0.0.weight")
"""Inputs of the network for inpainting, and names of their kernel [D, inputs, 3, 3]."""
TEXT_WIDTH = ("attn2.to_k.weight", "embeddings.position_embedding.weight")
"""Ends of the names of tensors [D, width of the text]."""
LEVEL = re.compile(r"encoder\.down(?:_blocks)?\.(\d+)\.")
"""In the names of an autoencoder's tensors, the number of a level."""


def part_file(source: Path, part: str) -> Path:
    """The file with a part's weights: `source` itself, or in diffusers' folder.

    A folder of one part alone, as autoencoders are published, will do.

    Raises:
        WeightsError: there is no such file, or only one that cannot be read safely.
    """
    found = PARTS[part]
    if source.suffix == ".ckpt":
        raise WeightsError(
            f"{source}: a .ckpt is a pickle of a whole training, which can run code and is not "
            "read: take the .safetensors file of the same model"
        )
    if not source.is_dir():
        return source
    for folder in (source / found.folder, source):
        for name in found.files:
            if (folder / name).is_file():
                return folder / name
    raise WeightsError(
        f"{source}: the folder has no {found.folder}/{found.files[0]}, with the weights of "
        f"{found.words}"
    )


def digests(source: Path, parts: Iterable[str] = tuple(PARTS)) -> dict[str, str]:
    """The SHA-256 of the file of each part. A single file is read once."""
    files = {part: part_file(source, part) for part in parts}
    found = {file: sha256(file) for file in set(files.values())}
    return {part: found[file] for part, file in files.items()}


def read_part(source: Path, part: str, template: Any) -> Any:
    """The variables of a part, from diffusers' folder or a single file, as float32.

    `part` is a name of `PARTS`, `template` the tree of shapes of its network. Of all formats, with
    or without the prefix, the one is taken that names most of the file's tensors. What is checked
    is in `variables_from`; other parts in a single file are passed over.

    Raises:
        WeightsError: one sentence that names the file and the first tensor that is wrong.
    """
    found, path = PARTS[part], part_file(source, part)
    tensors = read_tensors(path)
    choices = [
        (prefix, prefixed(prefix, form(template)))
        for prefix in (found.prefix, "")
        for form in found.formats
    ]
    prefix, layout = max(choices, key=lambda c: len(names_of(template, c[1]) & tensors.keys()))
    unused = [prefix + name for name in found.unused]
    if prefix:
        unused += [*BUFFERS, *(other.prefix for other in PARTS.values() if other != found)]
    try:
        return variables_from(
            tensors, path, template, found.words, lambda name: name.startswith((*unused,)), layout
        )
    except WeightsError as error:
        if other := _other(tensors, template, layout):
            raise WeightsError(
                f"{path}: {other}: {str(error).removeprefix(f'{path}: ')}"
            ) from error
        raise


def _other(tensors: Mapping[str, np.ndarray], template: Any, layout: Format) -> str:
    """The other network whose weights these can only be, in words; '' if none is known."""
    if version := _version(tensors):
        return f"these are weights of Stable Diffusion {version}, {ANOTHER}"
    own = template["params"].get("conv_in", {"kernel": np.zeros((PAINTER, 1))})["kernel"]
    inputs = (tensors[name].shape[1] for name in CONV_IN if name in tensors)
    if next(inputs, 0) == PAINTER != own.shape[-2]:
        words = "for inpainting (image_condition.name='inpainting')"
        return f"these are weights of Stable Diffusion {words}, {ANOTHER}"
    theirs, ours = _factor(tensors), _factor(names_of(template, layout))
    if theirs != ours:
        return (
            f"this autoencoder divides all sides by {theirs}, and one that divides them by {ours} "
            "was expected, by the number of levels in channel_mults"
        )
    return ""


def _factor(names: Iterable[str]) -> int:
    """Pixels per latent along each axis, by the names of an autoencoder's tensors; else 1."""
    found = map(LEVEL.search, names)
    return int(2 ** max((int(level[1]) for level in found if level), default=0))


def _version(tensors: Mapping[str, np.ndarray]) -> str:
    """The version of Stable Diffusion whose weights these can only be, '' if none is known."""
    for start, version in OTHER_NAMES.items():
        if any(name.startswith(start) for name in tensors):
            return version
    widths = (tensors[name].shape[1] for name in tensors if name.endswith(TEXT_WIDTH))
    return OTHER_WIDTHS.get(next(widths, 0), "")


def write_part(folder: Path, part: str, variables: Any, dtype: Any = np.float32) -> Path:
    """Writes a part's file of diffusers' folder, and returns its path.

    Stored as `dtype`: float32, or float16 or bfloat16, which round.
    """
    found = PARTS[part]
    path = folder / found.folder / found.files[0]
    write_tensors(path, tensors_of(variables, found.formats[0](variables), dtype))
    return path


def write_single_file(path: Path, parts: Mapping[str, Any], dtype: Any = np.float32) -> None:
    """Writes CompVis' single file of the variables of parts by name, all of `PARTS` or some."""
    tensors: dict[str, np.ndarray] = {}
    for part, variables in parts.items():
        found = PARTS[part]
        layout = prefixed(found.prefix, found.formats[-1](variables))
        tensors |= tensors_of(variables, layout, dtype)
    write_tensors(path, tensors)


def prefixed(prefix: str, layout: Format) -> Format:
    """The format in which each name begins with `prefix`."""

    def longer(path: tuple[str, ...], leaf: Any) -> Stored:
        stored = layout(path, leaf)
        return stored._replace(name=prefix + stored.name)

    return longer
