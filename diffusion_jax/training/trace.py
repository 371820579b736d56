"""A trace of some training steps: when each operation runs, for Perfetto and TensorBoard."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from diffusion_jax.system.devices import is_main

WARM_UP = 3  # steps before the traced ones: they compile, allocate and fill the queue


class Trace:
    """Traces steps with `jax.profiler`, on process 0 only, as all processes do the same.

    It does not change the computation, and a failure of the profiler does not end the training.

    Args:
        folder: of the trace; TensorBoard finds it there, or in a folder above.
        steps: number of steps; 0: none.
        start: step from which the training starts.
        say: prints a line.
    """

    def __init__(self, folder: Path, steps: int, start: int, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._first = start + WARM_UP if steps and is_main() else -1
        self._last = self._first + steps
        self._began: int | None = None

    def at(self, step: int, pending: Any) -> bool:
        """Begins or ends the trace if it is due; returns whether it did.

        Args:
            step: steps done.
            pending: arrays still being computed, waited for before.
        """
        if step == self._first:
            jax.block_until_ready(pending)
            self._try(self._begin, step)
        elif self._began is not None and step == self._last:
            jax.block_until_ready(pending)
            self.close(step)
        else:
            return False
        return True

    def close(self, step: int) -> None:
        """Writes the trace of the steps up to `step`, if one was begun and not ended."""
        if self._began is not None:
            self._try(self._end, step)

    def _try(self, action: Callable[[int], None], step: int) -> None:
        try:
            action(step)
        except (OSError, RuntimeError, ValueError) as error:
            self._began = None
            line = str(error).partition("\n")[0]
            print(f"warning: --profile: no trace is written: {line}", file=sys.stderr)

    def _begin(self, step: int) -> None:
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # calls of Python would crowd out the steps
        jax.profiler.start_trace(self._folder, create_perfetto_trace=True, profiler_options=options)
        self._began = step

    def _end(self, step: int) -> None:
        began, self._began = self._began, None
        assert began is not None
        jax.profiler.stop_trace()
        newest = max(self._folder.glob("plugins/profile/*"), key=lambda path: path.stat().st_mtime)
        self._say(
            f"traced steps {began + 1} to {step}: tensorboard --logdir {self._folder}, or open "
            f"{newest / 'perfetto_trace.json.gz'} at https://ui.perfetto.dev"
        )
