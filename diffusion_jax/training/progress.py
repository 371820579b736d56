"""Progress of training: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusion_jax.system.devices import is_main
from diffusion_jax.system.memory import memory_words
from diffusion_jax.system.progress import Bar, Stage


class Progress:
    """Shows rate and time left of a run of `total` steps, of which `done` were done before.

    `noun` is that of the items, in the plural.
    """

    def __init__(self, total: int, done: int, items_per_step: int, noun: str) -> None:
        self._total, self._items, self._noun = total, items_per_step, noun
        self._seen = sys.stderr.isatty() and is_main()
        self._stage = Stage("train", total, done, Bar(sys.stderr, True) if self._seen else None)
        self._compiling = contextlib.ExitStack()
        self._compiling.enter_context(self._stage.apart("compiling"))

    def step(self) -> None:
        self._compiling.close()  # with the first step
        self._stage.advance()

    def report(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Shows `loss` and `items_per_second`, the memory and, in plain lines, the time left."""
        loss, memory = float(np.mean(scalars["loss"])), memory_words(scalars)
        items = scalars["items_per_second"]  # since the last report
        if self._seen:
            note = [f"loss {loss:.4f}", memory, f"{items:,.0f} {self._noun}/s"]
            self._stage.note = ", ".join(filter(None, note))
            return
        rate, left = items / self._items, self._stage.left
        words = tqdm.format_interval((self._total - step) / rate if left is None else left)
        print(
            f"step {step}/{self._total}  loss {loss:.4f}  {rate:.1f} steps/s  "
            f"{items:,.0f} {self._noun}/s  {words} left" + f"  {memory}" * bool(memory),
            flush=True,
        )

    def say(self, line: str) -> None:
        """Prints a line without breaking the bar."""
        tqdm.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        self._stage.close()
