"""What tests of experiments share: each is imported and run as small as possible."""

import importlib.util
from typing import Any

import jax
import numpy as np
import pytest

from tests.runs import TINY

NEEDS = {
    "samplers/theirs": ("torch", "diffusers", "k_diffusion"),
    "speed/theirs": ("torch", "diffusers"),
    "stable_diffusion/theirs": ("torch", "diffusers"),
    "stable_diffusion/theirs_parts": ("torch", "diffusers"),
    **{
        f"restoration/{name}": ("torch", "azula", "deepinv")
        for name in ("theirs", "exact", "claims")
    },
    "sound/theirs_generated": ("torch", "audio_diffusion_pytorch", "torch_ema"),
    "sound/theirs_trained": ("torch", "sgmse", "pytorch_lightning", "torch_ema"),
    "restoration/photographs_theirs": (
        *("torch", "azula", "deepinv", "cv2", "skimage", "bm3d", "augraphy"),
    ),
}
"""Packages of experiments that compare with others, which the project does without."""
SMALL = {**TINY, "sample.steps": 1, "train.steps": 1, "train.batch_size": 2}


def experiment(name: str) -> Any:
    """The module, or a skip if a package is not there that it compares with."""
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"experiments/{name}.py needs {package}")
    return importlib.import_module(f"experiments.{name.replace('/', '.')}")


def finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
