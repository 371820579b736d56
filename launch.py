"""Trains, samples and evaluates, or says what it would do: flags -> config -> run."""

import io
import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

VARIANTS = 4  # pictures of a prompt, where not told otherwise
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
PROMPT = flags.DEFINE_multi_string(
    "prompt", None, "A text to draw four pictures of; may be given several times."
)
PROMPTS = flags.DEFINE_string("prompts", None, "A file with such a text on each line.")
flags.DEFINE_string("negative", None, "A text that guidance leads away from.")
flags.DEFINE_string("vary", None, "A picture to draw variants of.")
flags.DEFINE_float("strength", None, "How far variants are from it, in [0, 1].")
UPSCALE = flags.DEFINE_string(
    "upscale", None, "A picture to draw four enlarged ones of, by a model of low resolutions."
)
INTERPOLATE = flags.DEFINE_string(
    "interpolate", None, "--interpolate A B: draws the pictures from one text to another."
)
flags.DEFINE_integer("strip", None, "Pictures from noise to result, per sample.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; by default runs/<config name>.")
SWEEP = flags.DEFINE_string(
    "sweep",
    None,
    "An ablation: a file with get_sweep(), or runs such as 'objective.prediction=eps,v; seed=0,1' "
    "(';' makes a grid, '&' zips, '|' lists).",
)
WORKERS = flags.DEFINE_integer(
    "workers", 0, "Of a sweep, runs at a time; 0: one per GPU, or one per core of a CPU."
)
TOGETHER = flags.DEFINE_enum(
    "together",
    "auto",
    ["auto", "always", "never"],
    "Of a sweep: train runs that differ in their seeds alone by one program; auto: on GPUs.",
)
PART = flags.DEFINE_string("part", "0/1", "Of a sweep: this host does the I-th of N parts, I/N.")
SUBMIT = flags.DEFINE_string(
    "submit",
    "",
    "Of a sweep: run it as jobs of a cluster, with these settings of submitit, e.g. "
    "slurm_partition=gpu,gpus_per_node=1,timeout_min=240.",
)
MAX_RUNS = flags.DEFINE_integer("max_runs", 200, "A sweep of more runs is refused.")
UNIT = flags.DEFINE_integer("unit", None, "Set by a sweep for its processes.")
COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Of several processes: HOST:PORT at which process 0 listens."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "One of a TPU slice's hosts (SLURM, GKE and Open MPI need no flag)."
)
SETTINGS = {
    "negative": "negative",
    "strip": "strip",
    "strength": "vary.strength",
    "upscale": "upscale.image",
    "vary": "vary.image",
}
"""Flags that stand for settings of `config.sample`."""
NOT_OF_A_SWEEP = (
    *("mode", "topology", "coordinator", "num_processes", "process_id", "multihost"),
    *("prompt", "prompts", "interpolate", *SETTINGS),
)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags and loads the config; a mistake in them is one line."""
    _open_streams()
    # No shell expands the `~` of --config=~/FILE.
    argv = [
        f"--config={os.path.expanduser(a[9:])}" if a.startswith("--config=~") else a for a in argv
    ]
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is None:
            raise flags.Error("which config? e.g. --config configs/digits.py")
        len(CONFIG.value)  # a file that could not be loaded fails at its first use
    except Exception as error:  # a config file is someone's own code
        from diffusion_jax.system.command_line import check_command_line

        sys.exit(f"error: {check_command_line(argv) or ' '.join(str(error).split())}")
    return rest


def _open_streams() -> None:
    """Makes stdout and stderr take any text, whatever the locale, and where they are closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main(argv: list[str]) -> None:
    """Runs one config."""
    name = Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    try:
        import jax  # noqa: F401
    except ValueError as error:  # JAX reads the environment when it is imported
        sys.exit(f"error: {error}")
    if SWEEP.value is not None:
        sys.exit(_sweep(SWEEP.value, name))
    from diffusion_jax import run  # not at the top: --help is instant
    from diffusion_jax.system import processes

    _shortcuts(argv[1:])
    workdir = _workdir(Path("runs") / name)
    together = (COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value, MULTIHOST.value)
    try:
        with processes.joined(*together):
            sys.exit(run.run(CONFIG.value, workdir, MODE.value, TOPOLOGY.value))
    except processes.ProcessesError as error:
        sys.exit(f"error: {error}")


def _workdir(default: Path) -> Path:
    """The folder of --workdir."""
    from diffusion_jax.system.files import path_of

    try:
        return path_of(WORKDIR.value or default)
    except OSError as error:
        sys.exit(f"error: --workdir={WORKDIR.value}: {error.strerror}")


def _shortcuts(rest: list[str]) -> None:
    """Flags that stand for settings of the config."""
    sample = CONFIG.value.sample
    prompts = list(PROMPT.value or ())
    if PROMPTS.value is not None:
        prompts += _prompts_in(PROMPTS.value)
    if prompts:
        sample.prompts = tuple(prompts)
    asked = len(prompts) or (UPSCALE.value is not None)
    if asked and not any("config.sample.num_images" in arg for arg in sys.argv):
        sample.num_images = VARIANTS * asked
    given = {key: flags.FLAGS[flag].value for flag, key in SETTINGS.items()}
    sample.update_from_flattened_dict({k: v for k, v in given.items() if v is not None})
    if INTERPOLATE.value is not None:
        if len(rest) != 1:
            sys.exit("error: --interpolate needs two texts, --interpolate A B")
        sample.interpolate = (INTERPOLATE.value, *rest)
        prompts += sample.interpolate
    elif rest:
        sys.exit(f"error: {rest[0]!r} is no flag; settings are given as --config.group.key=value")
    _check_texts([*prompts, sample.negative, WORKDIR.value or ""])


def _check_texts(texts: list[str]) -> None:
    """Ends in one line if a text, or the name of a run, came in another encoding than UTF-8."""
    from diffusion_jax.system.texts import shown

    if wrong := [shown(text) for text in texts if shown(text) != text]:
        sys.exit(f"error: '{wrong[0]}' is not UTF-8")


def _prompts_in(file: str) -> list[str]:
    """The lines of a file that are not empty; a file without any ends in one line."""
    from diffusion_jax.system.files import path_of
    from diffusion_jax.system.texts import read_text

    try:
        text = read_text(path_of(file))
    except OSError as error:
        sys.exit(f"error: --prompts={file}: {error.strerror}")
    except ValueError as error:
        sys.exit(f"error: --prompts={file}: {error}")
    prompts = [line for line in map(str.strip, text.split("\n")) if line]
    return prompts or sys.exit(f"error: --prompts={file}: there is no text in it")


def _sweep(words: str, name: str) -> int:
    """Runs a sweep; returns the exit status."""
    from diffusion_jax.sweep.command import Options, default_folder, run_sweep
    from diffusion_jax.system.files import in_store

    for flag in NOT_OF_A_SWEEP:
        if flags.FLAGS[flag].present:
            sys.exit(f"error: --{flag} does not go with --sweep")
    folder = _workdir(default_folder(words, name))
    if in_store(folder):
        sys.exit(f"error: --workdir={folder}: a sweep needs a folder on a disk")
    how = (WORKERS.value, TOGETHER.value, PART.value, SUBMIT.value, MAX_RUNS.value, UNIT.value)
    try:
        options = Options(*how)
    except ValueError as error:
        sys.exit(f"error: --{error}")
    return run_sweep(words, CONFIG.value, folder, options)


if __name__ == "__main__":
    try:
        app.run(main, flags_parser=parse)
    except KeyboardInterrupt:  # where no part that can say more of it has begun
        print("interrupted", file=sys.stderr)
        sys.exit(130)
