"""Measurements on this process's devices: their matrix peak, and a few train steps."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from diffusion_jax.from_config.parts import make_parallel, make_step
from diffusion_jax.plan.program import Program
from diffusion_jax.system.keys import make_key
from diffusion_jax.training.state import initial_state
from diffusion_jax.types import Batch

SECONDS = 5.0  # approximate time spent on timing steps
SIDES = {"cpu": 2048}  # side of the matrices to multiply; 8192 on other platforms


def matrix_peak(dtype: Any, rounds: int = 8) -> float:
    """FLOP/s of one device for the product of two square matrices: the best of some rounds."""
    side = SIDES.get(jax.default_backend(), 8192)
    a, b = (jax.random.normal(make_key(i), (side, side), dtype) for i in (0, 1))
    product = jax.jit(lambda a, b: a @ b)
    repeat = 1 if jax.default_backend() == "cpu" else 10

    def run() -> None:
        for _ in range(repeat):
            c = product(a, b)
        jax.block_until_ready(c)

    run()
    return 2 * side**3 * repeat / min(seconds(run) for _ in range(rounds))


def seconds(job: Callable[[], Any]) -> float:
    """Wall time of one run."""
    began = time.perf_counter()
    job()
    return time.perf_counter() - began


def memory_of(device: Any) -> float:
    """Bytes that a device has."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


class Steps:
    """Train steps of a config on all devices of this process's JAX, timed one by one."""

    def __init__(self, program: Program) -> None:
        config, parts = program.config, program.parts
        self._parallel = parallel = make_parallel(config)
        self._step = parallel.compile(make_step(config, parts, parallel.axis_name))
        key = make_key(config.seed)
        state = initial_state(
            parts.task.init, parts.optimizer, key, parts.averages, parallel.shardings
        )
        self._state, self._key = parallel.place((state, key))
        # The time does not depend on their values, and their files may be elsewhere.
        frozen = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), program.frozen)
        self._frozen = parallel.place(frozen, donated=False)
        size = config.train.batch_size // parallel.share[1]
        noise = np.random.default_rng(0).uniform(-1, 1, (size, *parts.kind.shape))
        cond = {name: one.repeat(size, axis=0) for name, one in parts.task.cond.items()}
        self._batch: Batch = {"x": parts.kind.encode(noise), "cond": cond}

    def compile(self) -> jax.stages.Compiled:
        """Compiles the step, or loads it from the cache, so that `take` measures steps only.

        Otherwise the first step includes compilation. Afterwards only batches of noise are allowed.
        """
        batch = self._parallel.split(self._batch)
        compiled = self._step.lower(self._state, batch, self._key, self._frozen).compile()
        self._step = compiled
        return compiled

    def take(self, batches: Iterator[Batch] | None = None) -> float:
        """Seconds of one step, on the next of `batches`, or on a batch of noise."""

        def step() -> None:
            batch = self._parallel.split(self._batch if batches is None else next(batches))
            self._state, _ = self._step(self._state, batch, self._key, self._frozen)
            jax.block_until_ready(self._state)

        return seconds(step)

    def take_some(self) -> list[float]:
        """Seconds of each of 3 to 50 steps, within a time limit of `SECONDS`."""
        began, times = time.perf_counter(), [self.take() for _ in range(3)]
        while len(times) < 50 and time.perf_counter() - began < SECONDS:
            times.append(self.take())
        return times
