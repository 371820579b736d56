"""Entry points of the command line: the stages of one run, and its exit status."""

import contextlib
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
from absl import logging

from diffusion_jax.data import DataError
from diffusion_jax.from_config import Config, ConfigError, build
from diffusion_jax.from_config.evaluators import check_weights
from diffusion_jax.from_config.identity import check_workdir, resolved
from diffusion_jax.from_config.restoration_checks import check_restoration
from diffusion_jax.generation.generator import SamplingError
from diffusion_jax.models.weights import WeightsError
from diffusion_jax.plan import TopologyError
from diffusion_jax.run.evaluation import evaluate
from diffusion_jax.run.export import export
from diffusion_jax.run.planning import plan
from diffusion_jax.run.restoration import restore
from diffusion_jax.run.trained import Run, command, data_to_draw
from diffusion_jax.run.training import check_trained, train, train_abreast
from diffusion_jax.run.variations import chosen
from diffusion_jax.system import progress
from diffusion_jax.system.devices import DevicesError, check_devices
from diffusion_jax.system.keys import settle_generator
from diffusion_jax.system.lock import LockedError, locked
from diffusion_jax.system.runtime import enable_compilation_cache, settle_caches, tune_cpu_allocator
from diffusion_jax.system.texts import shown
from diffusion_jax.training.checkpoint import CheckpointError
from diffusion_jax.training.loop import TrainingError

USER_ERRORS = (
    *(ConfigError, DataError, WeightsError),
    *(CheckpointError, DevicesError, LockedError, SamplingError, TrainingError, TopologyError),
)
TRAINING, SAMPLING, EVALUATING = "training", "sampling", "evaluating"
"""Locks of a workdir, one process each: one may train while another samples its checkpoints."""
TRAINS = ("all", "train")
"""Modes that train."""
DRAWS = ("sample", "restore", "export")
"""Modes that only draw, or write what draws, and do without the data."""


def run(config: Config, workdir: Path, mode: str, topology: str = "", profile: int = 0) -> int:
    """Runs the stages of `mode`; returns the exit status.

    0: done; 2: a user's mistake, or a disk that is full or inaccessible, in one line on stderr;
    128 + the number of the signal that ended it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP.

    With mode "plan" `topology` names the devices to plan for; '': the present ones. `profile`
    training steps are traced, to the folder `profile` of the workdir.
    """
    return _status(lambda: _run(config, workdir, mode, topology, profile), workdir)


def run_abreast(configs: Sequence[Config], workdirs: Sequence[Path]) -> int:
    """Trains runs that differ only in their seeds in one program; returns the exit status.

    Each workdir is the same as if its run had been trained alone.
    """
    return _status(lambda: _run_abreast(configs, workdirs), workdirs[0])


def _status(job: Callable[[], int], workdir: Path) -> int:
    """The exit status of a job; a failure is printed in one line."""
    try:
        with progress.shown():
            return job()
    except USER_ERRORS as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or workdir}: {error.strerror or error}"
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        line = str(error).partition("\n")[0]
        message = (
            f"the devices' memory is full ({line}): lower train.batch_size or sample.batch_size, "
            "or raise train.accumulate; --mode plan says what is needed"
        )
    except KeyboardInterrupt:  # outside of training, which handles it
        print("interrupted; what is missing is made by the same command", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"error: {message}", file=sys.stderr)
    return 2


def _prepare(workdir: Path) -> None:
    logging.set_verbosity(logging.FATAL)  # Orbax logs all it writes, and what it raises
    tune_cpu_allocator()
    try:
        str(workdir).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"--workdir={shown(workdir)}: its name is not UTF-8 in this locale, as JAX needs it"
        ) from error
    settle_caches(workdir)
    enable_compilation_cache()
    settle_generator()


def _run_abreast(configs: Sequence[Config], workdirs: Sequence[Path]) -> int:
    _prepare(workdirs[0])
    check_devices()
    configs = list(map(resolved, configs, workdirs))
    for config, workdir in zip(configs, workdirs, strict=True):
        check_workdir(config, workdir)
    dataset = build(configs[0]).dataset
    runs = [
        Run(config, workdir, build(config, dataset))
        for config, workdir in zip(configs, workdirs, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        for workdir in workdirs:
            stack.enter_context(locked(workdir, TRAINING))
        signum = train_abreast(runs)
    return 128 + signum if signum else 0


def _run(config: Config, workdir: Path, mode: str, topology: str, profile: int) -> int:
    if profile and mode not in TRAINS:
        raise ConfigError(f"--profile={profile} goes with --mode all or train, not {mode}")
    _prepare(workdir)
    if not topology:  # which names devices that are elsewhere
        check_devices()
    if mode == "plan":
        plan(config, topology)
        return 0
    if topology:
        raise ConfigError(f"--topology={topology} goes with --mode plan, not {mode}")
    config = resolved(config, workdir)
    check_workdir(config, workdir)
    dataset = data_to_draw(config, workdir) if mode in DRAWS else None
    if mode in TRAINS:
        check_trained(config)  # before weights are read
    made = Run(config, workdir, build(config, dataset))
    # Raises if there is no generator, or the data have changed and that is not allowed.
    _ = made.parts.generator if mode in DRAWS else made.changes
    if mode in ("all", "evaluate"):
        check_weights(config, made.parts.task)
    draw = chosen(config, made.parts.dataset.kind)
    if mode == "restore":
        check_restoration(config, made.parts.dataset.kind)
    if mode in TRAINS:
        with locked(workdir, TRAINING):
            signum = train(made, profile)
        if signum:
            print(f"stopped and saved; go on with the same command: {command()}")
            return 128 + signum
    if mode == "sample" or (mode == "all" and made.generator):
        with locked(workdir, SAMPLING):
            draw(made, mode == "sample")
    if mode == "restore":
        with locked(workdir, SAMPLING):
            restore(made)
    if mode == "export":
        with locked(workdir, SAMPLING):
            export(made)
    if mode in ("all", "evaluate"):
        with locked(workdir, EVALUATING):
            evaluate(made, again=mode == "evaluate")
    return 0
