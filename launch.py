"""Trains, samples and evaluates: flags -> config -> run."""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/; override its keys as --config.group.key=value."
)
MODE = flags.DEFINE_enum("mode", "all", ["all", "train", "sample", "evaluate"], "What to do.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run lives; runs/<config name> if not set."
)


def main(argv: list[str]) -> None:
    """Runs one config."""
    from diffusion_jax import run  # after the flags: --help is instant

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    sys.exit(run.run(CONFIG.value, Path(WORKDIR.value or Path("runs") / name), MODE.value))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)
