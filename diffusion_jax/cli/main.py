"""From the command line to a run: flags -> config -> run."""

import io
import os
import sys
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from diffusion_jax.cli.flags import (
    CONFIG,
    COORDINATOR,
    INPAINT,
    INTERPOLATE,
    MAX_RUNS,
    MODE,
    MULTIHOST,
    NOT_OF_A_SWEEP,
    NUM_PROCESSES,
    PART,
    PROCESS_ID,
    PROFILE,
    PROMPT,
    PROMPTS,
    SETTINGS,
    SUBMIT,
    SWEEP,
    TOGETHER,
    TOPOLOGY,
    UNIT,
    UPSCALE,
    WORKDIR,
    WORKERS,
)
from diffusion_jax.cli.help import help_text
from diffusion_jax.system.command_line import check_command_line

VARIANTS = 4  # default number of images per prompt
HELP = {"--help", "-help", "-h", "--helpshort"}


def start() -> None:
    """Runs the command line, and ends the process."""
    # A config in any folder imports configs/default.py of the clone, an editable install.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    try:
        app.run(main, flags_parser=parse)
    except KeyboardInterrupt:  # before a stage that reports more has begun
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def parse(argv: list[str]) -> list[str]:
    """Parses the flags and loads the config; a mistake ends the process in one line."""
    _open_streams()
    if HELP & set(argv[1:]):
        print(help_text())
        sys.exit()
    # Shells do not expand the `~` of --config=~/FILE.
    argv = [
        f"--config={os.path.expanduser(a[9:])}" if a.startswith("--config=~") else a for a in argv
    ]
    try:
        rest = flags.FLAGS(argv)
        if CONFIG.value is None:
            raise flags.Error("which config? e.g. --config configs/digits.py")
        len(CONFIG.value)  # a file that could not be loaded fails at its first use
    except Exception as error:  # a config file may contain any code
        sys.exit(f"error: {check_command_line(argv) or ' '.join(str(error).split())}")
    return rest


def _open_streams() -> None:
    """Makes stdout and stderr accept any text, in every locale and when they are closed."""
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
    except ValueError as error:  # JAX reads the environment on import
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
            sys.exit(run.run(CONFIG.value, workdir, MODE.value, TOPOLOGY.value, PROFILE.value or 0))
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
    """Applies the flags that stand for settings of the config."""
    sample = CONFIG.value.sample
    prompts = list(PROMPT.value or ())
    if PROMPTS.value is not None:
        prompts += _prompts_in(PROMPTS.value)
    if prompts:
        sample.prompts = tuple(prompts)
    asked = len(prompts) or any(flag.value is not None for flag in (UPSCALE, INPAINT))
    if asked and not any("config.sample.num_images" in arg for arg in sys.argv):
        sample.num_images = VARIANTS * asked
    given = {key: flags.FLAGS[flag].value for flag, keys in SETTINGS.items() for key in keys}
    CONFIG.value.update_from_flattened_dict({k: v for k, v in given.items() if v is not None})
    if INTERPOLATE.value is not None:
        if len(rest) != 1:
            sys.exit("error: --interpolate needs two texts, --interpolate A B")
        sample.interpolate = (INTERPOLATE.value, *rest)
        prompts += sample.interpolate
    elif rest:
        sys.exit(f"error: {rest[0]!r} is no flag; settings are given as --config.group.key=value")
    _check_texts([*prompts, sample.negative, WORKDIR.value or ""])


def _check_texts(texts: list[str]) -> None:
    """Ends the process in one line if a text, or the name of a run, is not UTF-8."""
    from diffusion_jax.system.texts import shown

    if wrong := [shown(text) for text in texts if shown(text) != text]:
        sys.exit(f"error: '{wrong[0]}' is not UTF-8")


def _prompts_in(file: str) -> list[str]:
    """The non-empty lines of a file; without any, the process ends in one line."""
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
