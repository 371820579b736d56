"""Weights in published formats, drawn by their names in the file as `reference/make_*.py` do."""

import zlib

import jax
import numpy as np

from diffusion_jax.models.weights import tensors_of, variables_from


def drawn(name, shape):
    """The tensor `name`: 0.05 times a normal, 1 more for the scales of norms; float32."""
    values = 0.05 * np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return np.float32(values + (len(shape) == 1 and name.endswith("weight")))


def shapes_of(template, layout):
    """The shapes of a file's tensors by name."""
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), template)
    return {name: tensor.shape for name, tensor in tensors_of(zeros, layout).items()}


def drawn_variables(template, layout):
    """A network's variables from tensors drawn by their names in this format."""
    tensors = {name: drawn(name, shape) for name, shape in shapes_of(template, layout).items()}
    return variables_from(tensors, "drawn", template, "network", layout=layout)
