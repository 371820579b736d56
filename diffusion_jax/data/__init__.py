"""Data sets, and the stream of training batches."""

from diffusion_jax.data.batches import train_batches
from diffusion_jax.data.captions import Captions
from diffusion_jax.data.dataset import Dataset, Split, empty_dataset
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.images import Images, open_image, to_float, to_uint8
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.load import describe_dataset, load_dataset
from diffusion_jax.data.mix import mixed
from diffusion_jax.data.record import Record, kept_dataset
from diffusion_jax.data.sources import ArraySource
from diffusion_jax.data.tokens import Tokens
