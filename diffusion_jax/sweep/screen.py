"""Progress of all runs of a sweep: a table on a terminal, otherwise a line for every change."""

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from tqdm import tqdm

from diffusion_jax.sweep.design import Run
from diffusion_jax.sweep.results import headline
from diffusion_jax.sweep.work import finished, seconds, step_of

LINES = 30  # largest number of rows; done and waiting runs are hidden first
REFRESH_SECONDS = 1.0


class Screen:
    """Shows the progress of each unit's runs, and the metric of finished ones."""

    def __init__(
        self, units: Mapping[int, Sequence[Run]], folder: Path, at_once: int, metric: str
    ) -> None:
        self._units, self._folder, self._at_once, self._metric = units, folder, at_once, metric
        self._said: dict[str, str] = {}
        self._began, self._next = time.monotonic(), 0.0
        self._live = Live(console=Console(stderr=True)) if sys.stderr.isatty() else None

    def shown(self) -> contextlib.AbstractContextManager[object]:
        """Keeps the table on the terminal, if there is one."""
        return self._live or contextlib.nullcontext()

    def tell(self, statuses: Mapping[int, int | None]) -> None:
        """Updates from the statuses of the units that have begun, None while they run."""
        ended = any(status is not None for status in statuses.values())
        if time.monotonic() < self._next and not ended:
            return
        self._next = time.monotonic() + REFRESH_SECONDS
        rows = []
        for n, runs in self._units.items():
            rows += [(run, self._state(run, n in statuses, statuses.get(n))) for run in runs]
        if self._live:
            self._live.update(self._table(rows))
            return
        for run, state in rows:
            kind = state.split()[0]
            if self._said.get(run.name, "waiting") != kind:
                self._said[run.name] = kind
                print(f"{run.name}: {state}{self._left(rows)}", flush=True)

    def _state(self, run: Run, begun: bool, status: int | None) -> str:
        if finished(self._folder, run):
            took = tqdm.format_interval(seconds(self._folder, run))
            return f"done in {took}, {headline(self._folder / run.name, self._metric)}"
        if not begun:
            return "waiting"
        if status is None:
            step, steps = step_of(self._folder, run), run.config.train.steps
            doing = f"step {step:,} of {steps:,}" if step < steps else "sampling and evaluating"
            return f"running, {doing}"
        return f"failed with status {status}"

    def _left(self, rows: Sequence[tuple[Run, str]]) -> str:
        """Number of runs that are done, and an estimate of the time left."""
        done = [run for run, state in rows if state.startswith("done")]
        if not done:
            return ""
        mean = sum(seconds(self._folder, run) for run in done) / len(done)
        left = sum(state.split()[0] in ("waiting", "running,") for _, state in rows)
        about = tqdm.format_interval(mean * left / self._at_once)
        return f" ({len(done)} of {len(rows)} done{f', about {about} left' if left else ''})"

    def _table(self, rows: Sequence[tuple[Run, str]]) -> Table:
        elapsed = tqdm.format_interval(time.monotonic() - self._began)
        table = Table("run", "state", title=f"{self._folder}, {elapsed}{self._left(rows)}")
        hidden = len(rows) - LINES
        for run, state in rows:
            if hidden > 0 and state.startswith(("done", "waiting")):
                hidden -= 1
                continue
            table.add_row(run.name, state)
        return table
