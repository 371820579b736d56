"""Data sets, and the batches that training and evaluation draw from them."""

from diffusion_jax.data.batches import train_batches
from diffusion_jax.data.captions import Captions
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import open_image, to_float, to_uint8
from diffusion_jax.data.pipeline import (
    Dataset,
    describe_dataset,
    load_dataset,
    without_images,
)
from diffusion_jax.data.sources import ArraySource, Source, arrays, as_batch

__all__ = [
    "ArraySource",
    "Captions",
    "DataError",
    "Dataset",
    "Source",
    "arrays",
    "as_batch",
    "describe_dataset",
    "load_dataset",
    "open_image",
    "to_float",
    "to_uint8",
    "train_batches",
    "without_images",
]
