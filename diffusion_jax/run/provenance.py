"""Whose workdir it is."""

import json
from pathlib import Path

from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.from_config.identity import read_config, training_config
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.runtime import environment


def check_workdir(config: Config, workdir: Path) -> None:
    """Refuses a workdir whose run was trained with another config.

    Raises:
        ConfigError: says which keys differ, or that the file there is no config.
    """
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
