"""Identity of a workdir: its config, its data, and the settings on which training depends."""

import contextlib
import copy
import dataclasses
import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from flax.traverse_util import flatten_dict

from diffusion_jax.data import Dataset, Record
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import path_of, read_json, write_whole
from diffusion_jax.system.runtime import environment
from diffusion_jax.training.checkpoint import Checkpoints

CONFIG, IDENTITY = "config.json", "identity.json"
FREE = (
    *("sample", "restore", "evaluate", "parallel", "plan", "data.dir", "data.manual_dir"),
    *("codec.autoencoder.tile", "data.mix.dir"),
    *("data.in_memory", "data.num_workers", "data.prefetch", "data.stall_seconds"),
    *("data.allow_changes", "codec.cache"),
    *("train.log_every", "train.heldout_every", "train.sample_every", "train.checkpoint_every"),
    *("train.keep_checkpoints", "train.keep_every", "train.keep_best", "train.max_skipped"),
    "train.wandb",
    *("ema.snapshot_every", "model.unet.remat", "model.dit.remat", "model.dit.unroll"),
)
"""Settings that may differ between commands on one workdir, as they do not affect training."""


def training_config(config: dict[str, Any]) -> dict[str, Any]:
    """Flat `{"group.key": value}` of all settings on which training depends.

    These include `train.steps` only if a learning rate decays to 0 there.
    """
    flat = _flat(config)
    unused = ["train.steps"] * (not _decays(flat))
    unused += ["train.init_from"] * (not flat.get("train.init_from"))
    free = tuple(f"{key}." for key in (*FREE, *unused))
    return {key: value for key, value in flat.items() if not f"{key}.".startswith(free)}


def _decays(flat: Mapping[str, Any]) -> dict[str, str]:
    """Decay settings that are not constant, with their values."""
    keys = [key for key in flat if re.fullmatch(r"optimizer\.(groups\..+\.)?decay", key)]
    return {key: flat[key] for key in keys if flat[key] != "constant"}


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """Flat `{"group.key": value}`, with tuples as lists."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in flatten_dict(config, sep=".").items()
    }


def config_hash(config: Config) -> str:
    """Short hash of `training_config`."""
    text = json.dumps(training_config(config.to_dict()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_config(workdir: Path, what: str) -> Config:
    """The config of the run in `workdir`.

    Args:
        workdir: folder of the run.
        what: the setting or flag that refers to it, for the message.
    """
    path = workdir / CONFIG
    if not path.exists():
        raise ConfigError(f"{what}: there is no run in {workdir}")

    def frozen(value: Any) -> Any:
        """Sequences as tuples, as in configs."""
        if isinstance(value, dict):
            return {key: frozen(inner) for key, inner in value.items()}
        return tuple(map(frozen, value)) if isinstance(value, list) else value

    try:
        config = Config(frozen(json.loads(path.read_text(encoding="utf-8"))["config"]))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {path} is no config of a run: {error}") from error
    return config.lock()


class Identity(NamedTuple):
    """What distinguishes a run from others, besides its config."""

    config: str  # `config_hash`
    data: Record  # data that it is trained on
    changes: list[str]  # changes of these data that were allowed
    frozen: Mapping[str, str] = {}  # digests of the parameters that are not trained, by name

    @classmethod
    def read(cls, workdir: Path) -> "Identity | None":
        """The identity of the run in `workdir`; None if it is missing (old runs) or damaged."""

        def parse(saved: Any) -> Identity:
            data, frozen = Record.read(saved["data"]), saved.get("frozen", {})
            return cls(saved["config"], data, saved["changes"], frozen)

        return read_json(workdir / IDENTITY, parse, "it is written again by the next training")


def check_workdir(config: Config, workdir: Path) -> None:
    """Refuses a workdir whose run was trained with another config.

    A damaged config file is rewritten if the identity shows that it was this config.
    """
    path = workdir / CONFIG
    if not path.exists():
        return
    try:
        other = read_config(workdir, "--workdir").to_dict()
    except ConfigError as error:
        identity = Identity.read(workdir)
        if identity is None or identity.config != config_hash(config):
            raise ConfigError(
                f"{path} is damaged ({error.__cause__}), and it is not known whether it was of "
                "this config. If it was, delete that file, and training writes it again"
            ) from error
        if is_main():
            print(f"warning: {path} is damaged: written again", file=sys.stderr)
            write_config(config, workdir)
        return
    asked = training_config(config.to_dict()).keys() | training_config(other).keys()
    mine, theirs = _flat(config.to_dict()), _flat(other)
    made_since = {key for key in mine.keys() - theirs.keys() if not mine[key]}  # new, and off
    keys = [key for key in sorted(asked - made_since) if mine.get(key) != theirs.get(key)]
    if keys == ["train.steps"]:
        decays = ", ".join(f"{key}={value!r}" for key, value in _decays(mine).items())
        raise ConfigError(
            f"{workdir} belongs to a run of train.steps={theirs['train.steps']}, at which its "
            f"learning rate reaches 0 ({decays}): train.steps={config.train.steps} is another "
            "training. Only with optimizer.decay=constant can a run be made longer; a new one, in "
            f"another --workdir, can start from its parameters: --config.train.init_from={workdir}"
        )
    if keys:
        differences = ", ".join(f"{k}={mine.get(k)!r} (there: {theirs.get(k)!r})" for k in keys)
        raise ConfigError(
            f"{workdir} belongs to a run with another config: {differences}. Choose another "
            "--workdir, or delete that one"
        )


def check_data(config: Config, dataset: Dataset, workdir: Path, allowed: bool = False) -> list[str]:
    """Compares the data with those of the run in `workdir`, prints and returns the changes.

    Raises:
        ConfigError: the changes are not `allowed`, nor by `data.allow_changes`, or the network does
            not fit these data.
    """
    identity = Identity.read(workdir)
    now = Record.of(dataset)
    changes = identity.data.changes(now) if identity else []
    if not changes:
        return []
    assert identity is not None
    said = f"the data of {workdir} are not those that it was trained on: {'; '.join(changes)}"
    if not identity.data.fits(now):
        raise ConfigError(
            f"{said}. Its network was made for the others: --mode sample still works, and these "
            "data need another --workdir"
        )
    if not (allowed or config.data.allow_changes):
        raise ConfigError(f"{said}. To continue anyway, set --config.data.allow_changes=True")
    if is_main():
        print(f"warning: {said}", file=sys.stderr)
    return changes


def check_frozen(digests: Mapping[str, str], workdir: Path) -> None:
    """Raises a ConfigError if the run in `workdir` was trained with other frozen parameters."""
    identity = Identity.read(workdir)
    for name, digest in identity.frozen.items() if identity else ():
        if digests.get(name, digest) != digest:
            raise ConfigError(
                f"{workdir} was trained with another {name}: its parameters have the digest "
                f"{digests[name]}, and had {digest}. Name the weights that it was trained with"
            )


def write_config(config: Config, workdir: Path) -> None:
    """Writes the resolved config and the software environment to `config.json`."""
    text = json.dumps({"config": config.to_dict(), **environment()}, indent=2)
    write_whole(workdir / CONFIG, (text + "\n").encode())


def write_identity(identity: Identity, workdir: Path) -> None:
    """Writes `identity.json`."""
    saved = {**identity._asdict(), "data": dataclasses.asdict(identity.data)}
    write_whole(workdir / IDENTITY, (json.dumps(saved, indent=2) + "\n").encode())


def folder_and_step(words: str, key: str) -> tuple[str, int]:
    """Splits FOLDER@STEP, the value of `key`; without @ the step is -1, the newest."""
    folder, _, step = words.partition("@")
    if step and not step.isdecimal():
        raise ConfigError(f"{key}={words!r}: {step!r} is not the step of a checkpoint")
    return folder, int(step or -1)


def resolved(config: Config, workdir: Path) -> Config:
    """The config with the step of `train.init_from`: as in `workdir`, or else the newest.

    Raises:
        ConfigError: there is no such run.
        CheckpointError: it has no undamaged checkpoint.
    """
    words = config.train.init_from
    folder, step = folder_and_step(words, "train.init_from")
    if not words or step >= 0:
        return config
    kept = ""
    if (workdir / CONFIG).exists():
        with contextlib.suppress(ConfigError):
            kept = read_config(workdir, "--workdir").train.get("init_from", "")
    if folder_and_step(kept, "train.init_from")[0] != folder:
        read_config(path_of(folder), f"train.init_from={words!r}")
        latest = Checkpoints(path_of(folder) / "checkpoints").latest()
        if latest is None:
            raise ConfigError(f"train.init_from={words!r}: there is no checkpoint in {folder}")
        kept = f"{folder}@{latest}"
    found = copy.deepcopy(config)
    found.train.init_from = kept
    return found
