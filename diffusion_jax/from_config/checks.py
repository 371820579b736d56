"""Checks of a config's numbers, made before any time is spent."""

import contextlib
import math
from typing import Any

from flax.traverse_util import flatten_dict

from diffusion_jax.codecs import mdct, mel, stft
from diffusion_jax.from_config import candidates
from diffusion_jax.from_config.choices import (
    Config,
    ConfigError,
    check_known,
    group_of,
    keyed,
    metrics_of,
)
from diffusion_jax.from_config.extractors import statistics_of, weights_file
from diffusion_jax.from_config.identity import read_config
from diffusion_jax.from_config.network import DTYPES
from diffusion_jax.from_config.published import weights_source
from diffusion_jax.system.arguments import check
from diffusion_jax.system.files import path_of

COUNT, SOME, POSITIVE = "[0, inf)", "[1, inf)", "(0, inf)"
SHARE, RATE, REAL = "[0, 1]", "[0, 1)", "[0, inf)"
AUTOENCODER = {
    **dict.fromkeys(("channels", "num_blocks", "latent_channels"), SOME),
    "norm_groups": COUNT,
}
ADAM = {"b1": RATE, "b2": RATE, "eps": POSITIVE, "mu_dtype": tuple(DTYPES)}
RANGES: dict[str, dict[str, Any]] = {
    "data": {
        **dict.fromkeys(("image_size", "num_workers", "prefetch", "length", "rate"), COUNT),
        **{"heldout_fraction": RATE, "stall_seconds": POSITIVE, "vocabulary": "[257, inf)"},
        "loudness": "(-inf, 0]",
    },
    "data.mix": {"share": "(0, 1)"},
    "objective": {
        **{"sigma_data": POSITIVE, "huber": REAL, "cond_dropout": SHARE, "vlb_weight": REAL},
    },
    "objective.part_dropout": dict.fromkeys(("label", "text", "vector", "image"), SHARE),
    "objective.contrastive": {"max_shift": COUNT},
    "objective.damage": {"severity": "(0, 1]", "zoom": "[1, inf)"},
    "objective.autoencoder": {
        **dict.fromkeys(("kl", "perceptual", "adversarial", "penalty"), REAL),
        "variance": POSITIVE,
    },
    "objective.masked": {"steps": SOME},
    "objective.block": {"size": SOME, "steps": SOME},
    "objective.min_snr": {"gamma": POSITIVE},
    "objective.p2": {"k": POSITIVE, "gamma": REAL},
    "model.unet": {
        **dict.fromkeys(("num_blocks", "num_heads", "patch_size"), SOME),
        **{"channels": "[2, inf)", "head_dim": COUNT, "dropout": RATE, "norm_groups": COUNT},
    },
    "adapter.lora": {"rank": SOME, "alpha": POSITIVE},
    "adapter.textual_inversion": {"vectors": SOME},
    "codec.mdct": mdct.ALLOWED,
    "codec.stft": stft.ALLOWED,
    "codec.mel": mel.ALLOWED,
    "codec.autoencoder": {**AUTOENCODER, "scale": POSITIVE, "tile": COUNT},
    "model.autoencoder": AUTOENCODER,
    "model.critic": dict.fromkeys(("channels", "num_blocks"), SOME),
    "model.dit": {
        **dict.fromkeys(("patch_size", "hidden_size", "depth", "num_heads"), SOME),
        **{"mlp_ratio": POSITIVE, "unroll": COUNT, "dropout": RATE},
    },
    "model.mlp": {"features": SOME, "depth": SOME},
    "model.dual_encoder": {
        **dict.fromkeys(("width", "channels", "features"), SOME),
        "dropout": RATE,
    },
    "text.clip": {**dict.fromkeys(("width", "depth", "heads"), SOME), "skip": COUNT},
    "text.bytes": dict.fromkeys(("width", "depth", "heads"), SOME),
    "optimizer.adamw": {**ADAM, "weight_decay": REAL},
    "optimizer.adam": ADAM,
    "ema": {"every": SOME},
    "train": {
        **dict.fromkeys(("steps", "batch_size", "accumulate", "log_every"), SOME),
        **dict.fromkeys(("keep_checkpoints", "max_skipped"), SOME),
        **dict.fromkeys(("keep_every", "keep_best", "checkpoint_every"), COUNT),
        **{"heldout_every": COUNT, "sample_every": COUNT, "max_grad_norm": REAL},
    },
    "parallel": {
        **{"strategy": ("replicated", "sharded"), "gather": ("use", "step")},
        **{"fsdp": SOME, "model": SOME},
    },
    "image_condition.noisy": {"voices": SOME, "bank": SOME},
    "sample": {
        **{"num_images": SOME, "batch_size": SOME, "strip": "[2, inf)", "frames": "[2, inf)"},
        **{"first_index": COUNT, "checkpoint": "[-1, inf)", "steps": "[1, 1000000]"},
    },
    "sample.restart": {"repeats": COUNT},
    "sample.candidates": {"num": COUNT},
    "sample.held": {"at": SHARE, "begin": SHARE, "end": SHARE},
    "sample.remasking": {"strength": SHARE, "low": SHARE, "high": "(0, 1]"},
    "sample.replacement": {"renewal": SHARE},
    "token_schedule.polynomial": {"power": POSITIVE},
    "sample.optimised": {"images": SOME, "iterations": SOME},
    "sample.euler_ancestral": {"eta": SHARE},
    "sample.guidance.flock": {"size": COUNT},
    "sample.guidance.classifier": {"label": COUNT, "scale": REAL},
    "sample.particles": {"size": COUNT, "resample_below": SHARE},
    "sample.upscale": {"noise": SHARE},
    "sample.inpaint": {"strength": SHARE},
    "sample.vary": {"strength": SHARE, "by": ("noise", "inversion")},
    "restore": {"num_samples": "[2, inf)", "sigma": REAL, "overlap": "(0, 0.5]"},
    "restore.blind": {"rounds": COUNT, "windows": SOME, "noise": POSITIVE},
    "restore.mask": {"threshold": SHARE, "dilate": COUNT},
    "restore.decay": {"severity": SHARE},
    "restore.blur": {"width": POSITIVE},
    "restore.downscale": {"factor": SOME},
    "restore.gamma": {"exponent": POSITIVE},
    "restore.clipping": {"low": "(-inf, high)", "high": "(-inf, inf)"},
    "restore.halftone": {"period": POSITIVE, "softness": POSITIVE},
    "restore.jpeg": {"quality": "[1, 100]"},
    "restore.band": {"low": "[0, high)", "high": "(0, 0.5]"},
    "restore.decimate": {"factor": SOME},
    "restore.gap": {"start": RATE, "length": "(0, 1]"},
    "restore.beginning": {"share": "(0, 1)"},
    "restore.reverberation": {"decay": SOME, "direct": "(-inf, inf)"},
    "restore.dps": {"zeta": REAL, "steps": SOME},
    "restore.pigdm": {"data_std": POSITIVE, "iterations": SOME, "tolerance": RATE},
    "restore.mmps": {"iterations": SOME, "tolerance": RATE},
    "restore.diffpir": {"weight": POSITIVE, "zeta": SHARE},
    "restore.ddrm": {"eta": SHARE, "eta_b": SHARE},
    "restore.daps": {"steps": SOME, "data_std": POSITIVE},
    "restore.split_gibbs": {"steps": SOME},
    "restore.twisted": {"resample_below": SHARE, "data_std": POSITIVE, "sigma_min": POSITIVE},
    "evaluate": {"num_samples": SOME, "bootstrap": "[2, inf)", "denoising_images": "[2, inf)"},
    "evaluate.likelihood": {"num_images": "[2, inf)", "probes": SOME, "noise_levels": SOME},
    "evaluate.names": {"num": "[2, inf)"},
    "evaluate.bits": {"num_texts": "[2, inf)", "levels": SOME},
    "evaluate.damage": {"num_images": "[2, inf)"},
    "evaluate.reconstruction": {"num_images": "[2, inf)"},
    "evaluate.classes": {"num_texts": "[2, inf)"},
    "evaluate.words": {"num_sounds": "[2, inf)"},
    "evaluate.restored": {"num_sounds": "[2, inf)", "samples": SOME},
}
"""Ranges of settings that nothing else checks before training."""
TUPLES: dict[str, tuple[type, int, str]] = {
    "model.unet.attention_levels": (int, 0, "whole numbers of 0 or more"),
    **{
        f"{group}.channel_mults": (int, 1, "whole numbers of 1 or more, one at least")
        for group in ("model.unet", "model.autoencoder", "model.critic", "codec.autoencoder")
    },
    "weights.lora": (str, 0, "names of files"),
    "weights.embeddings": (str, 0, "names of files"),
    "data.shape": (int, 1, "whole numbers of 1 or more"),
    "plan.shape": (int, 1, "whole numbers of 1 or more"),
    "sample.prompts": (str, 0, "texts"),
    "sample.guidance.magnet.words": (str, 0, "texts"),
    "sample.interpolate": (str, 0, "texts"),
    "evaluate.names.splits": (str, 0, "names of splits"),
    "evaluate.words.classes": (str, 0, "names of classes"),
    "evaluate.restored.bands": (float, 0, "numbers"),
    "image_condition.decayed.kinds": (str, 1, "names of kinds of decay, one at least"),
    "restore.decay.kinds": (str, 0, "names of kinds of decay"),
    "image_condition.noisy.noises": (str, 1, "names of noises, one at least"),
}
"""Settings that are tuples: type and minimum of their entries, and both in words."""
NOT_EMPTY = (
    *("model.unet.channel_mults", "codec.autoencoder.channel_mults"),
    *("model.autoencoder.channel_mults", "model.critic.channel_mults"),
    *("image_condition.decayed.kinds", "image_condition.noisy.noises"),
)
SEEDS = (
    *("seed", "sample.seed", "evaluate.seed", "restore.decay.seed", "restore.reverberation.seed"),
)
ENDLESS = "logsnr_min"  # setting of schedules that may be -inf: no signal at all


def check_ranges(config: Config) -> None:
    """Raises a ConfigError if a value is invalid regardless of other settings.

    Checks `RANGES` and `TUPLES`, and that all other numbers fit in 32 bits.
    """
    for key, value in flatten_dict(config.to_dict(), sep=".").items():
        for number in _numbers(value):
            group, _, name = key.rpartition(".")
            bits = "[-3e38, 3e38]" if isinstance(number, float) else "(-2147483648, 2147483648)"
            allowed = "[0, 4294967295]" if key in SEEDS else bits
            if name != ENDLESS or number != -math.inf:
                with keyed(group or "config"):
                    check({name: allowed}, **{name: number})
    for group, ranges in RANGES.items():
        with keyed(group):
            check(ranges, **(_found(config, group) or {}))
    for key, (kind, least, words) in TUPLES.items():
        if (value := _found(config, key)) is None:
            continue
        wrong = any(type(x) is not kind or (isinstance(x, int) and x < least) for x in value)
        if wrong or (not value and key in NOT_EMPTY):
            raise ConfigError(f"{key}={tuple(value)} must be {words}")


def _found(config: Config, key: str) -> Any:
    """A setting, or those of a group; None in a run of an earlier version, which may lack it."""
    with contextlib.suppress(AttributeError):
        return group_of(config, key)
    return None


def _numbers(value: Any) -> list[float]:
    """The numbers in a value, including those in tuples."""
    if isinstance(value, tuple | list):
        return [number for entry in value for number in _numbers(entry)]
    return [value] if isinstance(value, int | float) else []


def check_numbers(config: Config, devices: int) -> None:
    """Raises a ConfigError if settings contradict each other, or a file is missing or unusable."""
    last = config.sample.first_index + config.sample.num_images
    if last >= 2**31:
        raise ConfigError(
            f"sample.first_index={config.sample.first_index} must be less than "
            f"{2**31 - config.sample.num_images}, so that samples have numbers below {2**31}"
        )
    if config.train.keep_best and not config.train.heldout_every:
        raise ConfigError("train.keep_best needs the held-out loss: set train.heldout_every")
    if config.train.init_from and weights_source(config):
        raise ConfigError(
            f"train.init_from={config.train.init_from!r} and weights.source="
            f"{config.weights.source!r} do not go together: each is what the network starts from"
        )
    metrics, image_condition = metrics_of(config), config.image_condition.name
    if "names" in metrics and image_condition != "none":
        raise ConfigError(
            "evaluate.metrics: 'names' needs images sampled from names alone, not "
            f"image_condition.name={image_condition!r}"
        )
    if config.image_condition.residual and image_condition == "none":
        raise ConfigError(
            "image_condition.residual=True needs an image condition: image_condition.name='none'"
        )
    if (trained_on := config.data.train_split) in config.evaluate.names.splits:
        raise ConfigError(
            f"evaluate.names.splits: {trained_on!r} is trained on, and evaluated anyway"
        )
    if "likelihood" in metrics and config.sample.steps < 2:
        raise ConfigError(
            "evaluate.metrics: 'likelihood' needs sample.steps of at least 2 for its bound of the "
            "ancestral sampler"
        )
    # Files are checked now, not after training.
    for group in ("sample.guidance.likeness", "evaluate.names"):
        if folder := group_of(config, group).judge:
            read_config(path_of(folder), f"{group}.judge={folder!r}")
    candidates.check(config)
    statistics_of(config)
    weights_file(config)
    _check_parallel(config, devices)


def _check_parallel(config: Config, devices: int) -> None:
    settings = config.parallel
    if settings.get("gradients"):  # missing in runs of older versions
        check_known(settings.gradients, DTYPES, "parallel.gradients")
        if settings.strategy == "sharded":
            raise ConfigError(
                f"parallel.gradients={settings.gradients!r} is for parallel.strategy='replicated': "
                "a sharded step sends the gradients of kernels in model.dtype"
            )
    if math.prod(mesh_shape(config, devices)) != devices:
        raise ConfigError(
            f"parallel.fsdp={settings.fsdp} x parallel.model={settings.model} must divide the "
            f"number of devices, {devices}"
        )
    data, fsdp, _ = mesh_shape(config, devices)
    if gather_of(config) == "step" and fsdp == 1:
        raise ConfigError(
            "parallel.gather='step' is for parallel.strategy='sharded' with parallel.fsdp above 1: "
            "else parameters are whole as it is"
        )
    rows = data * fsdp
    parts = rows * config.train.accumulate
    if config.train.batch_size % parts:
        raise ConfigError(
            f"train.batch_size={config.train.batch_size} cannot be split over {rows} devices x "
            f"train.accumulate={config.train.accumulate}: it must be a multiple of {parts}"
        )


def gather_of(config: Config) -> str:
    """How often parameters are gathered; runs of older versions lack the setting."""
    return str(config.parallel.get("gather", "use"))


def mesh_shape(config: Config, devices: int) -> tuple[int, int, int]:
    """Number of devices along `data`, `fsdp` and `model`, of the given total."""
    settings = config.parallel
    sharded = settings.strategy == "sharded"
    fsdp, model = (settings.fsdp, settings.model) if sharded else (1, 1)
    return devices // (fsdp * model), fsdp, model
