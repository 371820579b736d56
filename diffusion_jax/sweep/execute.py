"""Concurrent processes of a sweep, each with its own cores or device."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.from_config import ConfigError
from diffusion_jax.sweep.expression import value_of
from diffusion_jax.sweep.work import CORES, LEASH
from diffusion_jax.system.command_line import program
from diffusion_jax.system.runtime import visible_gpus
from diffusion_jax.system.signals import heard, leave_terminal

ROOM = 3 * 2**30  # bytes of free memory required for each run on a CPU
POLL_SECONDS = 0.5

Place = Mapping[str, str]  # resources of a process, as additions to its environment


def places(workers: int, units: int) -> list[Place]:
    """Places for `workers` concurrent processes; a single one has all devices.

    With 0 workers, one per GPU, or one per CPU core if the memory suffices: a small network
    computes on one core nearly as fast as on many.
    """
    gpus = visible_gpus()
    if gpus and workers != 1:
        several = [gpus[i % len(gpus)] for i in range(min(units, workers or len(gpus)))]
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in several]
    if gpus or not hasattr(os, "sched_getaffinity"):
        return [{}] * min(units, max(workers, 1))
    cores = sorted(os.sched_getaffinity(0))
    room = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // ROOM
    count = min(units, workers or max(1, min(len(cores), room)))
    if count > len(cores):
        return [{}] * count
    shares = [cores[i * len(cores) // count : (i + 1) * len(cores) // count] for i in range(count)]
    return [{CORES: ",".join(map(str, share))} for share in shares]


class Submitted:
    """A unit run by a cluster's scheduler, through submitit."""

    def __init__(self, job: Any) -> None:
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        try:
            status: int = self._job.result()
        except Exception as error:  # any failure of the scheduler or the node
            print(f"job {self._job.job_id}: {error}", file=sys.stderr)
            return 1
        return status

    def terminate(self) -> None:
        self._job.cancel(check=False)


Process = subprocess.Popen[bytes] | Submitted
Start = Callable[[int, Place, Path], Process]  # starts a unit at a place, with a log file


def start_here(unit: int, place: Place, log: Path) -> Process:
    """Runs this command again for one unit; the process ends with this one.

    Only this process receives a terminal's signals, and passes them on: receiving them twice would
    end a run that is saving.
    """
    environment = {**os.environ, **place, LEASH: "1"}
    with log.open("a") as file:
        return subprocess.Popen(
            _command(unit),
            env=environment,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def _command(unit: int) -> list[str]:
    return [sys.executable, *program(), *sys.argv[1:], f"--unit={unit}"]


def submitter(settings: str, folder: Path) -> Start:
    """Starts units as jobs of a cluster; `folder` is for the scheduler's files.

    `settings` are `name=value,...` for submitit's `AutoExecutor.update_parameters`, such as
    `slurm_partition=gpu,gpus_per_node=1,timeout_min=240`; `cluster=local` uses this machine.

    Raises:
        ConfigError: submitit is not installed, or a setting is unknown.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError("--submit needs submitit: pip install submitit") from error
    pairs = [pair.partition("=") for pair in settings.split(",")]
    parameters: dict[str, Any] = {key: value_of(value) for key, _, value in pairs}
    try:
        executor = submitit.AutoExecutor(folder, cluster=parameters.pop("cluster", None))
        executor.update_parameters(**parameters)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"--submit={settings}: {str(error).partition(chr(10))[0]}") from error

    def start(unit: int, place: Place, log: Path) -> Process:
        return Submitted(executor.submit(_run, _command(unit), log))

    return start


def _run(command: Sequence[str], log: Path) -> int:
    """Runs one unit inside a job of the cluster."""
    with log.open("a") as file:
        return subprocess.run(command, stdout=file, stderr=file).returncode


def execute(
    waiting: Sequence[int],
    start: Start,
    where: Sequence[Place],
    log: Callable[[int], Path],
    tell: Callable[[Mapping[int, int | None]], None],
) -> Mapping[int, int | None]:
    """Runs all units, continuing after failures, and returns their exit statuses.

    As many run concurrently as there are places; `tell` is called regularly with the statuses of
    those that have begun, None while they run. Ctrl-C, SIGTERM and SIGHUP are passed on, and all
    running units are waited for.
    """
    queue, free = list(waiting), list(where)
    running: dict[int, tuple[Process, Place]] = {}
    statuses: dict[int, int | None] = {}

    def end(number: int, frame: Any) -> None:
        if number == signal.SIGHUP:
            leave_terminal()
        sys.exit(128 + number)

    before = {each: signal.signal(each, end) for each in heard() if each != signal.SIGINT}
    try:
        while queue or running:
            while queue and free:
                unit, place = queue.pop(0), free.pop()
                running[unit] = start(unit, place, log(unit)), place
            for unit, (process, place) in list(running.items()):
                statuses[unit] = process.poll()
                if statuses[unit] is not None:
                    free.append(place)
                    del running[unit]
            tell(statuses)
            if running:
                time.sleep(POLL_SECONDS)
    except (KeyboardInterrupt, SystemExit):
        print(f"stopping: {len(running)} processes save and end", file=sys.stderr)
        for process, _ in running.values():
            process.terminate()
        while any(process.poll() is None for process, _ in running.values()):
            time.sleep(POLL_SECONDS)
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    return statuses
