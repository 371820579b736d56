"""The mode `plan`: checks of a config before it is trained."""

import sys

import jax
import numpy as np

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config, Parts, build, planned_dataset
from diffusion_jax.plan import make_plan, parse_topology, plan_here, plan_sampling, plan_topology

NOTHING = "none"
"""The data set without items: nothing is trained."""
MOMENT_ITEMS = 1000
"""Training items for the mean square of the data."""


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


def print_plan(config: Config, parts: Parts, only_warnings: bool = False) -> None:
    """Prints the plan of the noise levels, if there are any; warnings go to stderr."""
    if parts.task.quantile is None:
        return
    moment = parts.generator.codec.second_moment
    if moment is None:
        items, _ = parts.dataset.arrays("train", MOMENT_ITEMS)
        moment = float(np.mean(parts.dataset.kind.decode(items) ** 2))
    plan = make_plan(config, parts, moment)
    if not only_warnings:
        print("\n".join(plan.lines))
    for warning in plan.warnings:
        print(f"warning: {warning}", file=sys.stderr)
