"""What a person sees of training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from diffusion_jax.system.devices import is_main
from diffusion_jax.system.memory import memory_words


class Progress:
    """Rate and time left of a run of `total` steps, `done` of them before."""

    def __init__(self, total: int, done: int, images_per_step: int) -> None:
        self._total, self._images = total, images_per_step
        self._start, self._done = time.monotonic(), done
        seen = sys.stderr.isatty() and is_main()
        self._bar = tqdm(
            total=total, initial=done, unit="step", desc="train", smoothing=0.1, disable=not seen
        )

    def step(self) -> None:
        self._bar.update()

    def report(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Shows the newest `loss`, the memory and, in plain lines, rate and time left."""
        loss, memory = float(np.mean(scalars["loss"])), memory_words(scalars)
        if not self._bar.disable:
            images = self._images * (self._bar.format_dict["rate"] or 0)
            self._bar.set_postfix_str(
                ", ".join(filter(None, [f"loss {loss:.4f}", f"{images:,.0f} images/s", memory]))
            )
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
        self._bar.write(line)
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()
