"""What the devices that are there really do: their matrix peak, and a few train steps."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.build import make_parallel
from diffusion_jax.plan.program import Program
from diffusion_jax.training.state import initial_state
from diffusion_jax.training.step import make_train_step

SECONDS = 5.0
"""Steps are taken for about so long."""
SIDES = {"cpu": 2048}
"""Of the matrices whose product is timed; 8192 elsewhere."""


class Measured(NamedTuple):
    """What was measured.

    Attributes:
        first: seconds of the first step, compilation included.
        step: median seconds of those after it, or of the first if there are none.
        steps: how many of those.
    """

    first: float
    step: float
    steps: int


def matrix_peak(dtype: Any, rounds: int = 8) -> float:
    """FLOP/s of one device in the product of two square matrices: the best of some rounds."""
    side = SIDES.get(jax.default_backend(), 8192)
    a, b = (jax.random.normal(jax.random.key(i), (side, side), dtype) for i in (0, 1))
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


def measure_steps(
    program: Program, batches: Iterator[Any] | None = None, steps: int = 50
) -> Measured:
    """Takes train steps of the config on all devices that are there.

    Args:
        program: the config.
        batches: what to train on; one batch of noise again and again if None.
        steps: how many to take at most after the first; of 3 or more at least 3.
    """
    config, parts, parallel = program.config, program.parts, make_parallel(program.config)
    key = jax.random.key(config.seed)
    step = parallel.compile(
        make_train_step(
            parts.loss,
            parts.optimizer,
            config.ema.decay,
            config.train.accumulate,
            parallel.axis_name,
            config.train.max_grad_norm,
        )
    )
    state = initial_state(parts.init, parts.optimizer, key, parallel.shardings)
    placed, keys = parallel.place((state, key))
    size = config.train.batch_size // parallel.share[1]
    noise = np.random.default_rng(0).uniform(-1, 1, (size, *program.dataset.image_shape))
    labels = np.zeros(size, np.int32)
    cond = {"label": labels} if program.dataset.num_classes else {}
    batch = {"x": noise.astype(np.float32), "cond": cond}

    def one() -> None:
        nonlocal placed
        placed, _ = step(placed, parallel.split(next(batches) if batches else batch), keys)
        jax.block_until_ready(placed)

    first, began = seconds(one), time.perf_counter()
    times: list[float] = []
    while len(times) < min(steps, 3) or (
        len(times) < steps and time.perf_counter() - began < SECONDS
    ):
        times.append(seconds(one))
    return Measured(first, float(np.median(times)) if times else first, len(times))
