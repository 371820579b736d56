"""The next change to try: one that makes a config fit, or faster, by estimates."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from diffusion_jax.from_config import ConfigError
from diffusion_jax.plan.ahead_of_time import compile_step
from diffusion_jax.plan.hardware import Topology
from diffusion_jax.plan.memory import compiled_memory, size_in_words
from diffusion_jax.plan.program import Program
from diffusion_jax.plan.roofline import roofline

GAIN = 1.02  # at least, of a change that is proposed


def next_change(
    program: Program, topology: Topology, whole: float, refused: str, bound: str, limit: float
) -> str:
    """The first change that, by estimates, makes it fit, or makes it faster and still fits.

    `whole` is the memory that the config needs now, by the compiler if there is one, `bound` the
    resource that takes longest, and `refused` its message if it does not fit.
    """
    fits = whole <= limit and not refused
    beyond = whole - sum(program.memory.values())  # what the compiler needs beyond the estimate
    rate = _rate(program, topology)
    for changes in _faster(program, topology, bound) if fits else _lighter(program, limit):
        other = program.changed(changes)
        try:
            needed = sum(other.memory.values()) + beyond
        except ConfigError:  # e.g. a batch that does not divide
            continue
        gain = _rate(other, topology) / rate
        if needed > 0.95 * limit or (fits and gain < GAIN):
            continue
        told = "estimated"
        if refused:  # the estimate was wrong once, so compile
            tried = compile_step(other, topology)
            if tried.refused:
                continue
            needed, told = sum(compiled_memory(other, tried).values()), "compiled"
        flags = " ".join(f"--config.{key}={value}" for key, value in changes.items())
        return (
            f"{flags} would need {size_in_words(needed)} and {'still ' if fits else ''}fit, at "
            f"{gain:.2f} times the {program.dataset.kind.noun}/s with perfect overlap ({told})"
        )
    if fits:
        return "nothing that would be faster and fit; it is bound by " + bound
    return "no change of remat, train.accumulate or parallel.fsdp makes it fit on these devices"


def _rate(program: Program, topology: Topology) -> float:
    """Items per second, estimated."""
    return float(program.config.train.batch_size / roofline(program, topology).overlapped)


def _cuts(program: Program) -> list[dict[str, Any]]:
    """Settings that cut the state over more devices."""
    powers = (2**i for i in range(1, 1 + int(math.log2(program.devices))))
    return [
        {"parallel.strategy": "sharded", "parallel.fsdp": fsdp}
        for fsdp in powers
        if fsdp > program.cuts[1]
    ]


def _lighter(program: Program, limit: float) -> Iterator[dict[str, Any]]:
    """Changes that need less memory, with the least cost in time first."""
    config = program.config
    key = f"model.{config.model.name}.remat"
    heavier = program.policies[program.policies.index(program.remat) + 1 :]
    yield from ({key: policy} for policy in heavier)
    full = {key: "full"} if heavier else {}
    for less in ({}, full) if full else ({},):
        splits = _enough_splits(program.changed(less), limit)
        if splits > config.train.accumulate:
            yield {**less, "train.accumulate": splits}
    cuts = _cuts(program)
    yield from cuts
    if cuts:
        yield {**cuts[-1], **full}
        yield {**cuts[-1], **full, "train.accumulate": config.train.accumulate * program.rows}


def _enough_splits(program: Program, limit: float) -> int:
    """Smallest `train.accumulate` that fits, if activations are inversely proportional to it."""
    held, accumulate = program.memory, program.config.train.accumulate
    rest = sum(held.values()) - held["activations"] + held["gradients"] * (accumulate == 1)
    splits = [2**i for i in range(1, 1 + int(math.log2(max(program.rows, 1))))]
    fitting = (n for n in splits if rest + held["activations"] / n < 0.9 * limit)
    return accumulate * next(fitting, 1)


def _faster(program: Program, topology: Topology, bound: str) -> Iterator[dict[str, Any]]:
    """Changes that may be faster."""
    config = program.config
    key = f"model.{config.model.name}.remat"
    lighter = program.policies[: program.policies.index(program.remat)]
    if config.model.dtype == "float32" and program.platform != "cpu":
        yield {"model.dtype": "bfloat16"}
    if bound == "memory" and program.state_traffic > program.traffic / 2:
        yield from _sharding(program, topology)
    if bound == "interconnect" and program.cuts[1] > 1:
        yield {"parallel.gather": "step"}
    yield from ({key: policy} for policy in lighter)
    if config.train.accumulate > 1:
        yield {"train.accumulate": config.train.accumulate // 2}
    if bound != "computation":
        yield {"train.batch_size": 2 * config.train.batch_size}


def _sharding(program: Program, topology: Topology) -> Iterator[dict[str, Any]]:
    """Cuts of the state that are as fast as the best, within 5%, with the fewest devices first."""
    rates: list[tuple[float, dict[str, Any]]] = []
    for cuts in _cuts(program):
        other = program.changed(cuts)
        with contextlib.suppress(ConfigError):  # e.g. a batch that does not divide
            rates.append((_rate(other, topology), cuts))
    best = max((rate for rate, _ in rates), default=0.0)
    yield from (cuts for rate, cuts in rates if rate > 0.95 * best)
