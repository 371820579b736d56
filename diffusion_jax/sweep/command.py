"""`--sweep`: all runs of a sweep, and the report on them."""

import re
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

from diffusion_jax.data import DataError
from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.from_config.identity import check_workdir, resolved
from diffusion_jax.sweep.design import MOST_RUNS, Run, Sweep, check, load, make_runs
from diffusion_jax.sweep.execute import Start, execute, places, start_here, submitter
from diffusion_jax.sweep.metric import foretold
from diffusion_jax.sweep.report import write_reports
from diffusion_jax.sweep.screen import Screen
from diffusion_jax.sweep.work import finished, units, work
from diffusion_jax.system.arguments import checked
from diffusion_jax.system.runtime import visible_gpus


@dataclass(frozen=True)
@checked(together=("auto", "always", "never"), workers="[0, inf)", max_runs="[1, inf)")
class Options:
    """How a sweep is run."""

    workers: int = 0  # number of concurrent processes; 0: one per GPU, or one per CPU core
    together: str = "auto"  # train runs that differ in their seed in one program; auto: on GPUs
    part: str = "0/1"  # I/N: the I-th of N parts of the units, from 0, for N hosts
    submit: str = ""  # settings of submitit, to run the units as jobs of a cluster
    max_runs: int = MOST_RUNS  # larger sweeps are refused
    unit: int | None = None  # number of the unit for this process; None: run all units


def default_folder(words: str, config: str) -> Path:
    """Folder of a sweep, by default."""
    path = Path(words)
    if path.suffix == ".py":
        config = path.parent.name if path.stem == "sweep" else path.stem
    return Path("runs") / f"sweep_{config}"


def run_sweep(words: str, config: Config, folder: Path, options: Options) -> int:
    """Runs all runs of a sweep that are not done, and writes the report; returns the exit status.

    0: all are done; 1: some failed, which the report lists; 2: a user error, found before any run
    began; 130: Ctrl-C, after which the same command continues. SIGTERM exits with 143.
    """
    try:
        return _run_sweep(words, config, folder, options)
    except (ConfigError, DataError) as error:
        message = str(error)
    except OSError as error:
        message = f"{error.filename or folder}: {error.strerror or error}"
    except KeyboardInterrupt:
        print("stopped and saved; continue with the same command", file=sys.stderr)
        return 128 + signal.SIGINT
    print(f"error: {message}", file=sys.stderr)
    return 2


def _run_sweep(words: str, config: Config, folder: Path, options: Options) -> int:
    sweep = load(words)
    runs = make_runs(sweep, config, options.max_runs)
    together = options.together == "always" or (options.together == "auto" and bool(visible_gpus()))
    numbered = dict(enumerate(units(runs, together)))
    if options.unit is not None:
        if options.unit not in numbered:
            raise ConfigError(f"--unit={options.unit} must be one of 0 to {len(numbered) - 1}")
        return work(numbered[options.unit], folder)
    jax.config.update("jax_platforms", "cpu")  # leave the devices to the runs' processes
    mine = _part(numbered, options.part)
    _run_units(mine, folder, sweep, options)
    done = [run for run in runs if finished(folder, run)]
    if not done:
        print("no run is done: there is nothing to report", file=sys.stderr)
        return 1
    write_reports(sweep, runs, done, folder)
    print(f"{len(done)} of {len(runs)} runs are done; report: {folder / 'report.md'} and .html")
    failed = [run.name for unit in mine.values() for run in unit if run not in done]
    if failed:
        print(f"not done: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _part(numbered: Mapping[int, Sequence[Run]], part: str) -> dict[int, Sequence[Run]]:
    """The units of this host."""
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if not match or int(match[1]) >= int(match[2]):
        raise ConfigError(f"--part={part} must be I/N, the I-th of N parts, from 0/N to N-1/N")
    return {n: unit for n, unit in numbered.items() if n % int(match[2]) == int(match[1])}


def _run_units(
    mine: Mapping[int, Sequence[Run]], folder: Path, sweep: Sweep, options: Options
) -> None:
    """Runs the units that are not done, after checking all of them."""
    todo = [run for unit in mine.values() for run in unit if not finished(folder, run)]
    left = [n for n, unit in mine.items() if any(run in todo for run in unit)]
    if not left:
        return
    where = places(options.workers, len(left))
    figures = check(todo, 1 if len(where) > 1 or visible_gpus() else None)
    told = foretold(sweep.metric, figures)
    for run in todo:
        check_workdir(resolved(run.config, folder / run.name), folder / run.name)
    logs = {n: folder / "logs" / f"{mine[n][0].name}.txt" for n in left}
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    start: Start = start_here
    if options.submit:
        start = submitter(options.submit, folder / "submitted")
        where = where[:1] * (options.workers or len(left))
    many = sum(map(len, mine.values()))
    print(f"{many} runs, {many - len(todo)} of them done, in {folder}; {len(where)} at a time")
    if told:
        print(told)
    screen = Screen(mine, folder, len(where), sweep.metric)
    with screen.shown():
        statuses = execute(left, start, where, logs.__getitem__, screen.tell)
    for unit, status in statuses.items():
        if status:
            log = logs[unit]
            print(f"{mine[unit][0].name} failed: {last_line(log)} ({log})")


def last_line(log: Path) -> str:
    """The reason of a failure, from the process's output."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    wrong = [line for line in lines if re.match(r"error:|\w*(Error|Exception)\b", line)]
    return (wrong or lines or ["no output"])[-1]
