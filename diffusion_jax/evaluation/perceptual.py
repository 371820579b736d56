"""ST-LPIPS of pairs of images, with the published weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.models.stlpips import SMALLEST, STLPIPS
from diffusion_jax.models.weights import load_variables, packaged_file
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array

PACKAGE, FILE = "stlpips_pytorch==0.0.2", "alex_shift_tolerant.pth"


def packaged() -> Path | None:
    """The file in its PyPI package, if that is installed; the package is not imported."""
    return packaged_file(PACKAGE, FILE)


def stlpips_shapes() -> Any:
    """The network's variables, as shapes."""
    x = jax.ShapeDtypeStruct((1, SMALLEST, SMALLEST, 3), jnp.float32)
    return jax.eval_shape(STLPIPS().init, make_key(0), x, x)


def stlpips_variables(path: Path) -> Any:
    """The network's variables from the file of its weights.

    Raises:
        WeightsError: one sentence on the first tensor of the file that does not fit.
    """
    return load_variables(path, stlpips_shapes(), "ST-LPIPS", _constant)


def stlpips(variables: Any, a: Array, b: Array) -> Array:
    """The distance of images in [-1, 1], twice [B, H, W, 1 or 3], as an array [B].

    Lower is more alike. It is differentiable, and of float32 on all platforms, which on GPUs and
    TPUs by default multiply with fewer digits.
    """
    with jax.default_matmul_precision("float32"):
        found: Any = STLPIPS().apply(variables, a, b)
    return found


def load_stlpips(path: Path) -> Callable[[Any, Any], Array]:
    """`stlpips` with the weights of a file, compiled; raises as `stlpips_variables`."""
    variables, distance = jax.device_put(stlpips_variables(path)), jax.jit(stlpips)
    return lambda a, b: distance(variables, jnp.asarray(a), jnp.asarray(b))


def _constant(name: str) -> bool:
    """Whether a tensor of the file is a constant of the network: mean, deviation and blur."""
    return name.startswith("scaling_layer.") or name.endswith(".filt")
