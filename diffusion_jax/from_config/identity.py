"""A config in its file, and which of its keys a training depends on: whose workdir it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

from flax.traverse_util import flatten_dict

from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.runtime import environment

FREE = (
    *("sample", "evaluate", "parallel", "plan", "data.dir", "data.manual_dir", "data.in_memory"),
    *("data.num_workers", "data.prefetch", "data.stall_seconds", "train.log_every"),
    *("train.heldout_every", "train.sample_every", "train.checkpoint_every"),
    *("train.keep_checkpoints", "train.keep_every", "train.keep_best", "train.max_skipped"),
)
"""Keys that may change between two commands on one workdir: they do not change the training."""


def training_config(config: dict[str, Any]) -> dict[str, Any]:
    """Flat `{"group.key": value}` of all keys that the training depends on."""
    free = tuple(f"{key}." for key in FREE)
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten_dict(config, sep=".").items()
        if not f"{key}.".startswith(free)
    }


def config_hash(config: Config) -> str:
    """Short hash of `training_config`."""
    text = json.dumps(training_config(config.to_dict()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_config(workdir: Path, what: str) -> Config:
    """The config of the run in `workdir`.

    Args:
        workdir: folder of the run.
        what: what asks for it, for the message.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigError(f"{what}: there is no run in {workdir}")

    def frozen(value: Any) -> Any:
        """Sequences as tuples, as configs have them."""
        if isinstance(value, dict):
            return {key: frozen(inner) for key, inner in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    try:
        config = Config(frozen(json.loads(path.read_text(encoding="utf-8"))["config"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {path} is no config of a run: {error}") from error
    return config.lock()


def check_workdir(config: Config, workdir: Path) -> None:
    """Refuses a workdir whose run was trained with another config."""
    if not (workdir / "config.json").exists():
        return
    mine, theirs = (
        training_config(one.to_dict()) for one in (config, read_config(workdir, "--workdir"))
    )
    keys = sorted(key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key))
    if keys:
        differences = ", ".join(f"{k}={mine.get(k)!r} (there: {theirs.get(k)!r})" for k in keys)
        raise ConfigError(
            f"{workdir} belongs to a run with another config: {differences}. Choose another "
            "--workdir, or delete that one"
        )


def write_config(config: Config, workdir: Path) -> None:
    """Writes the resolved config, with what it runs on, to `config.json`."""
    text = json.dumps({"config": config.to_dict(), **environment()}, indent=2)
    write_whole(workdir / "config.json", (text + "\n").encode())
