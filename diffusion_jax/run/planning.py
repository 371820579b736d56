"""The mode `plan`: checks of a config before it is trained."""

import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.from_config import Config, Parts, build, planned_dataset
from diffusion_jax.plan import make_plan, parse_topology, plan_here, plan_sampling, plan_topology
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array

NOTHING = "none"
"""The data set without items: nothing is trained."""
MOMENT_ITEMS = 1000
"""Training items for the mean square of the data."""
GROUP = 100  # of these are encoded at a time


def plan(config: Config, topology: str) -> None:
    """Prints the plan of the noise levels, if the data are present, and that of the devices.

    Where nothing is trained, it is the plan of sampling.
    """
    target = parse_topology(topology) if topology else None
    if target:
        jax.config.update("jax_platforms", "cpu")  # the devices are elsewhere
    dataset = planned_dataset(config)
    print_notes(dataset)
    if config.data.name == NOTHING:
        print("\n".join(plan_sampling(config, dataset, target)))
        return
    if len(dataset.splits["train"]):
        print_plan(config, build(config, dataset, target.count if target else None))
    else:
        print("the part on noise levels is left out: it needs the data, and they are not here")
    print(
        "\n".join(plan_topology(config, dataset, target) if target else plan_here(config, dataset))
    )


def print_notes(dataset: Dataset) -> None:
    """Prints how the data were read, where there was a choice."""
    for note in dataset.notes:
        print(f"{dataset.name}: {note}")


def print_space(parts: Parts) -> None:
    """Prints the space of diffusion, and the error of its round trip, if that is measured."""
    codec = parts.generator.codec if parts.generator else None
    if codec is None or not codec.words:
        return
    decode = jax.jit(lambda x_0: codec.decode({}, x_0))
    worst = max(np.max(np.abs(decode(x_0) - x)) for x, x_0, _ in _encoded(parts, GROUP))
    print(f"diffused as {codec.words}: decoded again, they are off by {worst:.1e} at most")


def _encoded(parts: Parts, num: int) -> Iterator[tuple[np.ndarray, Array, Array]]:
    """The first training items `x` `[N, ...]`, their `x_0` and its origin, some at a time.

    The codec is one without parameters.
    """
    kind, codec, process = parts.dataset.kind, parts.generator.codec, parts.generator.process
    condition = parts.task.condition if gaussian(process).residual else None
    items, _ = parts.dataset.arrays("train", num)

    @jax.jit
    def program(x: Array, keys: Array) -> tuple[Array, Array]:
        x_0 = codec.encode({}, x, keys)
        cond = condition(x, keys) if condition else {}
        return x_0, process.placed(jnp.zeros_like(x_0), jnp.zeros(()), cond)

    for group in np.array_split(items, -(-len(items) // GROUP)):
        x, keys = kind.decode(group), sample_keys(make_key(0), jnp.arange(len(group)))
        yield x, *program(x, keys)


def print_plan(config: Config, parts: Parts, only_warnings: bool = False) -> None:
    """Prints the plan of the noise levels, if there are any; warnings go to stderr."""
    if parts.task.quantile is None:
        return
    moment = parts.generator.codec.second_moment
    if moment is None:
        squares = [np.mean((x_0 - origin) ** 2) for _, x_0, origin in _encoded(parts, MOMENT_ITEMS)]
        moment = float(np.mean(squares))
    plan = make_plan(config, parts, moment)
    if not only_warnings:
        print("\n".join(plan.lines))
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
