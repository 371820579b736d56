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


def load_stlpips(path: Path) -> Callable[[Any, Any], Array]:
    """The distance of images in [-1, 1], twice [B, H, W, 1 or 3], as an array [B].

    Lower is more alike. It is differentiable, and of float32 on all platforms.

    Raises:
        WeightsError: one sentence on the first tensor of the file that does not fit.
    """
    net, x = STLPIPS(), jax.ShapeDtypeStruct((1, SMALLEST, SMALLEST, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, make_key(0), x, x)
    variables = jax.device_put(load_variables(path, shapes, "ST-LPIPS", _constant))

    @jax.jit
    def distance(variables: Any, a: Array, b: Array) -> Array:
        # GPUs and TPUs by default multiply with fewer digits.
        with jax.default_matmul_precision("float32"):
            found: Any = net.apply(variables, a, b)
        return found

    return lambda a, b: distance(variables, jnp.asarray(a), jnp.asarray(b))


def _constant(name: str) -> bool:
    """Whether a tensor of the file is a constant of the network: mean, deviation and blur."""
    return name.startswith("scaling_layer.") or name.endswith(".filt")
