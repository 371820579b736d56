"""Trains, samples and evaluates, or says what it would do: flags -> config -> run."""

import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file in configs/; override its keys as --config.group.key=value."
)
MODE = flags.DEFINE_enum(
    "mode",
    "all",
    ["all", "train", "sample", "evaluate", "plan"],
    "What to do; plan says what the others would: noise levels, memory, time.",
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    "",
    "With --mode plan: the devices to plan for, such as v5e:16x16, v5p:4x4x4 or h100:8, which need "
    "not be there; by default those that are.",
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/<config name>.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Of several processes: HOST:PORT at which process 0 listens."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "One of a TPU slice's hosts (SLURM, GKE and Open MPI need no flag)."
)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags and loads the config; a mistake in them is one line."""
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is None:
            raise flags.Error("which config? e.g. --config configs/digits.py")
        len(CONFIG.value)  # a file that could not be loaded fails at its first use
    except (flags.Error, AttributeError, KeyError, OSError, TypeError) as error:
        from diffusion_jax.command_line import check_command_line

        sys.exit(f"error: {check_command_line(argv) or error}")
    return rest


def main(argv: list[str]) -> None:
    """Runs one config."""
    from diffusion_jax import processes, run  # not at the top: --help is instant

    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = Path(WORKDIR.value or Path("runs") / name)
    together = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, MULTIHOST.value)
    try:
        with processes.joined(*together):
            sys.exit(run.run(CONFIG.value, workdir, MODE.value, TOPOLOGY.value))
    except processes.ProcessesError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
