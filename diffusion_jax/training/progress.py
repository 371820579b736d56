"""Progress of training: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusion_jax.system.devices import is_main
from diffusion_jax.system.memory import memory_words
from diffusion_jax.system.progress import Bar, Stage


class Progress:
    """Shows rate and time left of a run of `total` steps, of which `done` were done before."""

    def __init__(self, total: int, done: int, images_per_step: int) -> None:
        self._total, self._images = total, images_per_step
        self._start, self._done = time.monotonic(), done
        self._seen = sys.stderr.isatty() and is_main()
        self._stage = Stage("train", total, done, Bar(sys.stderr, True) if self._seen else None)
        self._compiling = contextlib.ExitStack()
        self._compiling.enter_context(self._stage.apart("compiling"))

    def step(self) -> None:
        self._compiling.close()  # with the first step
        self._stage.advance()

    def report(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Shows the newest `loss`, the memory and, in plain lines, rate and time left."""
        loss, memory = float(np.mean(scalars["loss"])), memory_words(scalars)
        if self._seen:
            images = f"{self._images * self._stage.rate:,.0f} images/s"
            self._stage.note = ", ".join(filter(None, [f"loss {loss:.4f}", memory, images]))
            return
        seconds = time.monotonic() - self._start
        rate = (step - self._done) / seconds
        left = tqdm.format_interval((self._total - step) / rate)
        print(
            f"step {step}/{self._total}  loss {loss:.4f}  {rate:.1f} steps/s  "
            f"{rate * self._images:,.0f} images/s  {left} left" + f"  {memory}" * bool(memory),
            flush=True,
        )

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        self._stage.close()
