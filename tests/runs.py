"""Small runs for tests: configs, data, and outputs."""

import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import default
from diffusion_jax import from_config, run
from diffusion_jax.data import ArraySource, Captions, Dataset, Images, Split, load_dataset
from diffusion_jax.data.sets.points import POINTS
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.types import Context, Key

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(p.stem for p in (ROOT / "configs").glob("*.py"))
SHAPES = {
    "cifar10_ddpm": (32, 32, 3),
    "emoji_clip": (32, 32, 3),
    "emoji_text": (32, 32, 3),
    "emoji_upscale": (64, 64, 3),
    "emoji_vae": (64, 64, 3),
    "fashion_mnist": (28, 28, 1),
    "imagenet64_adm": (64, 64, 3),
    "imagenet256_dit": (64, 64, 3),
    "photographs": (64, 64, 3),
    "photographs_damage": (64, 64, 3),
    "photographs_vae": (128, 128, 3),
    "sd15": (64, 64, 3),
    "sd15_finetune": (64, 64, 3),
}
SOUNDS = {"drums": 10, "letters": 26, "music": 0, "speech": 5, "speech_enhanced": 5}
"""Configs of sounds, and the number of their classes."""
TINY = {
    "model.name": "dit",
    "model.dit.hidden_size": 16,
    "model.dit.depth": 2,
    "model.dit.num_heads": 2,
    "train.steps": 6,
    "train.batch_size": 16,
    "train.log_every": 2,
    "train.heldout_every": 0,
    "train.sample_every": 0,
    "train.checkpoint_every": 3,
    "sample.steps": 4,
    "sample.num_images": 12,
    "evaluate.num_samples": 60,
    "evaluate.bootstrap": 10,
    "evaluate.metrics": "distances,denoising",
}


def as_made(says: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that draw a sample again, alone, from what its passport says."""
    return {
        "sample__num_images": 1,
        "sample__first_index": says["index"],
        "sample__labels": str(says["label"]),
        **{
            f"sample__{name}": says[name]
            for name in ("seed", "steps", "checkpoint", "guidance_scale")
        },
    }


def random_dataset(shape: tuple[int, ...] = (8, 8, 1), num_classes: int = 10) -> Dataset:
    """Noise with labels, for data sets that need a network connection."""
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        images = rng.integers(0, 256, (n, *shape), np.uint8)
        return Split(ArraySource(images, rng.integers(0, num_classes, n).astype(np.int32)))

    names = tuple(map(str, range(num_classes)))
    splits = {"train": split(40), "heldout": split(20)}
    return Dataset("noise", Images(shape), splits, names, fingerprint="noise")


def random_texts(length: int = 256, vocabulary: int = 97, num_classes: int = 3) -> Dataset:
    """Noise with labels, for texts that are downloaded."""
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        tokens = rng.integers(0, vocabulary, (n, length), np.int32)
        return Split(ArraySource(tokens, rng.integers(0, num_classes, n).astype(np.int32)))

    kind = Tokens((length,), tuple(map(chr, range(32, 32 + vocabulary))))
    names = tuple(map(str, range(num_classes)))
    return Dataset("noise", kind, {"train": split(40), "heldout": split(20)}, names)


def random_sounds(length: int, num_classes: int) -> Dataset:
    """Noise with labels, for recordings that are downloaded."""
    rng = np.random.default_rng(0)

    def split(n: int) -> Split:
        sounds = rng.integers(-3000, 3000, (n, length, 1), np.int16)
        labels = np.arange(n) % max(num_classes, 1)
        return Split(ArraySource(sounds, labels.astype(np.int32)))

    names = tuple(map(str, range(num_classes)))
    splits = {"train": split(40), "heldout": split(20)}
    return Dataset("noise", Sound((length, 1), 16_000), splits, names, fingerprint="noise")


def config_with_noise(name: str, monkeypatch: pytest.MonkeyPatch) -> ConfigDict:
    """The config of a file, with noise in the shape of its images as data, if it has images."""
    config: ConfigDict = importlib.import_module(f"configs.{name}").get_config()
    if config.data.name in (*POINTS, "hmm", "digits_tokens"):
        monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
        return config
    shape = SHAPES.get(name, (8, 8, 1))
    in_latents = config.codec.name != "identity"  # which are of any size
    assert in_latents or config.data.image_size in (0, shape[0])
    dataset = random_texts() if config.data.name == "sotu" else random_dataset(shape)
    if name in SOUNDS:
        dataset = random_sounds(config.data.length, SOUNDS[name])
    if config.text.name != "none":  # its package may not be installed
        config.text.name, config.text.unconditional = "bytes", "zeros"
        splits = {
            key: Split(split.source, Captions.of([[f"text {i}"] for i in range(len(split))]))
            for key, split in dataset.splits.items()
        }
        names = dataset.class_names if name in SOUNDS else ()
        dataset = dataclasses.replace(dataset, name="texts", splits=splits, class_names=names)
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: dataset)
    return config


def context_of(key: Key, axis_name: str | None = None) -> Context:
    """Context of the first step, without averages and frozen parameters."""
    return Context(key, jnp.zeros((), jnp.int32), {}, {}, axis_name)


def tiny(**changes: object) -> ConfigDict:
    config = default.get_config()
    config.update_from_flattened_dict(TINY | {k.replace("__", "."): v for k, v in changes.items()})
    return config


def with_eight_devices(function: str, out: Path) -> dict[str, np.ndarray]:
    """Arrays saved by `function(out)`, "module.name", in a process with eight devices."""
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env["JAX_COMPILATION_CACHE_DIR"] = str(cache_dir() / "compiled")
    env["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    module, name = function.rsplit(".", 1)
    script = f"from {module} import {name}; {name}({str(out)!r})"
    subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, check=True)
    return dict(np.load(out))


def final_state(config: ConfigDict, workdir: Path) -> list[np.ndarray]:
    trained = run.Run(config, workdir, from_config.build(config))
    state, data = trained.checkpoints.restore(trained.abstract_state())
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state, data))]


def assert_same(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


COLOURS = {"black": 0, "grey": 128, "white": 255}
TEXT = {
    "text__name": "bytes",
    "text__length": 16,
    "text__bytes__width": 16,
    "text__bytes__depth": 1,
    "text__bytes__heads": 2,
    "sample__num_images": 8,
    "evaluate__num_samples": 16,
    "evaluate__denoising_images": 8,
    "train__steps": 150,
    "train__heldout_every": 150,
    "train__checkpoint_every": 150,
    "train__log_every": 50,
    "optimizer__learning_rate": 1e-2,
    "optimizer__warmup_steps": 0,
}


def colours(num: int, first: int = 0) -> tuple[ArraySource, Captions]:
    """Images of one colour with two captions each, and the captions."""
    names = [list(COLOURS)[(first + i) % 3] for i in range(num)]
    pixels = np.array([COLOURS[name] for name in names], np.uint8)
    images = np.broadcast_to(pixels[:, None, None, None], (num, 8, 8, 1)).copy()
    captions = Captions.of([[name, f"{name} square"] for name in names], names, ["plain"] * num)
    return ArraySource(images, np.zeros(num, np.int32)), captions


def captioned_dataset(captions: bool = True) -> Dataset:
    def split(num: int, first: int) -> Split:
        source, texts = colours(num, first)
        return Split(source, texts if captions else None)

    splits = {"train": split(40, 0), "heldout": split(20, 1)}
    return Dataset("colours", Images((8, 8, 1)), splits, fingerprint="colours")


def run_texts(monkeypatch: Any, workdir: Path, mode: str, data: Dataset, **changes: Any) -> int:
    monkeypatch.setattr(run.command, "build", lambda config, *_: from_config.build(config, data))
    return run.run(tiny(**{**TEXT, **changes}), workdir, mode)
