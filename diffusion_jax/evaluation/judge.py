"""A trained dual encoder as judge: measures how near images are to texts."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Kind
from diffusion_jax.evaluation.extractor import FEATURES, Extractor
from diffusion_jax.models.dual_encoder import Likeness
from diffusion_jax.system.devices import in_batches
from diffusion_jax.text.encoder import ENCODING
from diffusion_jax.types import Array, Cond, Params


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A frozen dual encoder."""

    name: str  # part of the names of its metrics
    words: str  # that identify it, for passports
    apply: Callable[[Params, Array, Cond], Likeness]  # the network, of `(params, x, cond)`
    params: Params  # of the network
    read: Callable[[Sequence[str]], dict[str, np.ndarray]]  # N texts to conditioning `[N, ...]`
    none: Mapping[str, np.ndarray]  # conditioning of one sample, `[1, ...]`, off
    kind: Kind  # of the images
    batch_size: int = 256  # images or texts at a time

    def look(self, params: Params, x: Array) -> Likeness:
        """Output of the network for images `[B, H, W, C]` in [-1, 1], without texts."""
        cond = {name: jnp.repeat(value, len(x), axis=0) for name, value in self.none.items()}
        return self.apply(params, x, cond)

    @functools.cached_property
    def _look(self) -> Any:
        return jax.jit(lambda params, x: self.look(params, x).images)

    @functools.cached_property
    def _read(self) -> Any:
        def texts(params: Params, cond: Cond) -> Array:
            x = jnp.zeros((len(jax.tree.leaves(cond)[0]), *self.kind.shape))
            return self.apply(params, x, cond).texts

        return jax.jit(texts)

    def images(self, images: np.ndarray) -> np.ndarray:
        """Unit embeddings float32 `[N, E]` of uint8 images `[N, H, W, C]`."""
        x = self.kind.decode(images)
        return in_batches(self._look, self.params, x, self.batch_size, FEATURES)

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Unit embeddings float32 `[N, E]` of texts; 0 for a text without words."""
        cond = self.read(texts)
        return in_batches(self._read, self.params, cond, self.batch_size, ENCODING)

    @property
    def extractor(self) -> Extractor:
        """Its embeddings of images as features, to compare samples."""

        def forward(images: Array) -> tuple[None, Array]:
            return None, self._look(self.params, images / 127.5 - 1.0)

        return Extractor(self.name, self.words, "pixels as stored, float32", forward, False)
