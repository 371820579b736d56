"""The small CLIP of `reference/make_text.py`, as files with the published names."""

import json
import pathlib
import zlib

import numpy as np
from safetensors.numpy import save_file

from diffusion_jax.models.clip import TextTower

REFERENCE = np.load(pathlib.Path(__file__).with_name("reference") / "text.npz")
TEXTS = json.loads(str(REFERENCE["texts"]))
CAPTIONS = TEXTS[: int(REFERENCE["captions"])]
VOCABULARY, LENGTH = 538, 20
TOWER = TextTower(VOCABULARY, LENGTH, width=32, depth=2, heads=2)
TOKENISERS = ("tokenizer.json", "vocab.json")


def drawn(name, shape):
    """Same as in `reference/make_extractors.py`."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("weight"):
        return x * np.float32(np.sqrt(2 / np.prod(shape[1:]))) if len(shape) > 1 else 1 + 0.1 * x
    return (0.1 if name.endswith("bias") else 0.5) * x


def weights_of(case):
    """Contents of the file of a `case`, such as "gelu_plain"."""
    shapes = json.loads(str(REFERENCE[f"{case}_shapes"]))
    return {name: drawn(name, tuple(shape)) for name, shape in shapes}


def write_tokeniser(folder, *names):
    """Writes the files of the made-up tokeniser; returns the first."""
    for name in names or (*TOKENISERS, "merges.txt"):
        (folder / name).write_text(str(REFERENCE[name]))
    return folder / (names or TOKENISERS)[0]


def write_clip(folder, case="quick_gelu_plain", **changes):
    """Writes `model.safetensors` with tensors added, replaced, or removed (None)."""
    tensors = {k: v for k, v in {**weights_of(case), **changes}.items() if v is not None}
    save_file(tensors, folder / "model.safetensors")
    return folder / "model.safetensors"


def reference_tokens(name):
    """The tokens of each of `TEXTS`, by the tokeniser of "clip" or "minilm"."""
    ends = np.cumsum(REFERENCE[f"{name}_lengths"])
    return np.split(REFERENCE[f"{name}_ids"], ends[:-1])
