"""Memory and time of a config on given devices, and the next change to try, in words."""

import math
import os
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.plan.ahead_of_time import Compiled, compile_step, has_libtpu
from diffusion_jax.plan.hardware import GIB, Hardware, Topology, find_hardware
from diffusion_jax.plan.measured import Steps, matrix_peak
from diffusion_jax.plan.program import FROZEN, PARTS, Program

# Usable share of a device's memory; for TPUs, the limit of the compiler.
USABLE = {"tpu": 15.75 / 16, "gpu": 0.92, "cpu": 0.8}
PREALLOCATED = 0.75  # share of a GPU's memory that JAX takes by default
PATIENCE = 60.0  # longest step in seconds that is measured


def plan_topology(config: Config, dataset: Dataset, topology: Topology) -> list[str]:
    """Lines about a config on devices that need not be present.

    Raises:
        ConfigError: the config cannot run on that number of devices.
        TopologyError: libtpu does not support the topology.
    """
    platform = topology.hardware.platform
    program = Program(config, dataset, topology.count, platform)
    lines = [_about_network(program), *about_encoding(program)]
    refused, sent = "", None
    memory, told, collectives = program.memory, "estimated from lifetimes", "rings"
    if platform == "tpu" and has_libtpu():
        compiled = compile_step(program, topology)
        if not (refused := compiled.refused):
            memory, told = _compiled_memory(program, compiled), "as compiled"
            # The program is for one mesh, whose gradients are summed in the compute dtype; the
            # replicated step sums them in float32.
            if config.parallel.strategy == "sharded":
                sent, collectives = compiled.exchanged, "collectives as compiled"
    elif platform == "tpu":
        lines.append("`pip install libtpu` compiles the step too; what follows is estimated")
    limit = topology.hardware.memory * USABLE[platform]
    lines += about_memory(memory, told, refused, topology.hardware, limit)
    times = roofline(program, topology, sent)
    lines += _about_time(program, topology, times, collectives)
    return [*lines, f"next: {_next_change(program, topology, memory, refused, times, limit)}"]


def plan_here(config: Config, dataset: Dataset) -> list[str]:
    """Lines about a config on this process's devices, with a few steps that are timed."""
    device, count = jax.local_devices()[0], jax.device_count()
    program = Program(config, dataset, count, jax.default_backend())
    # CPU devices share memory and cores.
    shared = count if device.platform == "cpu" else 1
    limit = memory_of(device) * USABLE[device.platform] / shared
    hardware, told = find_hardware(device.device_kind), "estimated from lifetimes"
    dtype = jnp.dtype(config.model.dtype)
    peak = matrix_peak(dtype) * count / shared
    lines = [
        _about_network(program),
        *about_encoding(program),
        *about_memory(program.memory, told, "", hardware, limit),
        f"matrix peak of {count} x {device.device_kind}: {peak / 1e12:.3g} TFLOP/s in {dtype}, "
        "measured",
    ]
    if sum(program.memory.values()) > limit:
        return [*lines, "no step is timed: it does not fit"]
    expected = 2 * program.step_flops / peak
    if expected > PATIENCE:
        return [*lines, f"no step is timed: one would take about {duration(expected)}"]
    steps = Steps(program)
    first, times = steps.take(), steps.take_some()
    step = statistics.median(times)
    return [
        *lines,
        f"a step: {duration(step)} (median of {len(times)}; the first, compilation included, "
        f"{duration(first)}), {program.model_flops / step / peak:.0%} of the measured peak",
        _whole_run(program, step, "at this rate"),
    ]


def memory_of(device: Any) -> float:
    """Bytes that a device has."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _about_network(program: Program) -> str:
    size, words = program.config.train.batch_size, program.dataset.kind.words
    again = program.step_flops / program.model_flops - 1
    computed = f", {again:.0%} of them to compute again (remat)" if again > 0.005 else ""
    return (
        f"{program.parameters:,} parameters; {program.forward_flops / 1e9:.4g} GFLOP forward for "
        f"one of {words}; {program.step_flops / 1e12:.4g} TFLOP for a training step of "
        f"{size}{computed}"
    )


def about_encoding(program: Program) -> list[str]:
    """A line about latents that are computed once, if training is on such."""
    if not (cached := program.parts.task.cached):
        return []
    entries, dataset = 1 + program.config.data.flip, program.dataset
    noun, num = dataset.kind.noun, len(dataset.splits["train"])
    flops, size = entries * program.encoding_flops, 4 * entries * math.prod(cached.moments_shape)
    whole = f"; {num * flops / 1e15:.4g} PFLOP and {_size(num * size)} for all {num:,}" * (num > 0)
    mirrored = ", mirrored included" * (entries > 1)
    return [
        f"latents are computed once before training: {flops / 1e9:.4g} GFLOP and {_size(size)} in "
        f"the user's cache folder for one of the {noun}{mirrored}{whole}"
    ]


# Memory


def _compiled_memory(program: Program, compiled: Compiled) -> dict[str, int]:
    """Bytes on each device by part, with the compiler's total."""
    estimate = program.memory
    state = {name: size for name, size in estimate.items() if name in (*PARTS.values(), FROZEN)}
    gradients = min(estimate["gradients"], compiled.temporary)
    return {
        **state,
        "batch and padding": compiled.arguments - sum(state.values()),
        "gradients": gradients,
        "activations and working space": compiled.temporary - gradients,
        "program": compiled.code,
    }


def about_memory(
    memory: Mapping[str, int], told: str, refused: str, hardware: Hardware | None, limit: float
) -> list[str]:
    """Lines about bytes by part, how they are `told`, and whether they are within the limit."""
    whole = sum(memory.values())
    lines = [f"memory on each device, {told}:"]
    lines += [f"  {_size(size):>10} {name}" for name, size in memory.items() if size >= 2**10]
    lines.append(f"  {_size(whole):>10} of the {_size(limit)} that a program can have")
    if refused or whole > limit:
        return [*lines, f"it does not fit{f': {refused}' if refused else ''}"]
    close = ", but barely" if whole > 0.9 * limit else ""
    if hardware and hardware.platform == "gpu" and whole > PREALLOCATED * hardware.memory:
        close += "; set XLA_PYTHON_CLIENT_MEM_FRACTION=0.92, JAX takes 0.75 of the memory"
    return [*lines, f"it fits{close}"]


def _size(value: float) -> str:
    for unit, one in (("GiB", GIB), ("MiB", 2**20)):
        if value >= one:
            return f"{value / one:.4g} {unit}"
    return f"{value / 2**10:.4g} KiB"


# Time


def _peak(program: Program, hardware: Hardware) -> float:
    """Peak FLOP/s: float32 products run at half the rate on a GPU (TF32), on a TPU in bfloat16."""
    half = program.platform == "gpu" and program.config.model.dtype == "float32"
    return hardware.flops / 2 if half else hardware.flops


def roofline(program: Program, topology: Topology, sent: int | None = None) -> dict[str, float]:
    """Seconds of a step if it were bound by one resource alone (Williams et al. 2009).

    `sent` is the number of bytes sent by each device; None: that of rings.
    """
    sent = program.exchanged if sent is None else sent
    return {
        "computation": program.step_flops / topology.count / _peak(program, topology.hardware),
        "memory": program.traffic / topology.hardware.bandwidth,
        "interconnect": sent / topology.link if topology.count > 1 else 0.0,
    }


def _about_time(
    program: Program, topology: Topology, times: Mapping[str, float], collectives: str
) -> list[str]:
    bound = max(times, key=times.__getitem__)
    hardware, best = topology.hardware, times[bound]
    words = ", ".join(f"{name} {duration(value)}" for name, value in times.items())
    return [
        f"a step takes no less than {duration(best)}, bound by {bound} ({words})",
        f"  assumed: {_peak(program, hardware) / 1e12:.4g} TFLOP/s and "
        f"{hardware.bandwidth / 1e12:.4g} TB/s per device as published, "
        f"{topology.link / 1e9:.4g} GB/s between devices, all three at the same time; each product "
        f"reads and writes memory once; {collectives}",
        _whole_run(program, best, "at best"),
        _whole_run(program, 2 * best, "at half of it"),
    ]


def _whole_run(program: Program, step: float, when: str) -> str:
    train, noun = program.config.train, program.dataset.kind.noun
    whole = step * train.steps
    hours = whole * program.devices / 3600
    many = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
    return (
        f"{when}: {train.batch_size / step:,.0f} {noun}/s; {train.steps:,} steps in "
        f"{duration(whole)}, {many} device-hours"
    )


def duration(value: float) -> str:
    """Seconds in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60), ("s", 1)):
        if value >= (1 if unit == "s" else 2) * size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e3:.3g} ms"


# What to change


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
    cuts = {}
    for fsdp in (2**i for i in range(1, 1 + int(math.log2(program.devices)))):
        if fsdp > config.parallel.fsdp or config.parallel.strategy != "sharded":
            cuts = {"parallel.strategy": "sharded", "parallel.fsdp": fsdp}
            yield cuts
    if cuts:
        yield {**cuts, **full}
        yield {**cuts, **full, "train.accumulate": config.train.accumulate * program.rows}


def _enough_splits(program: Program, limit: float) -> int:
    """Smallest `train.accumulate` that fits, if activations are inversely proportional to it."""
    held, accumulate = program.memory, program.config.train.accumulate
    rest = sum(held.values()) - held["activations"] + held["gradients"] * (accumulate == 1)
    splits = [2**i for i in range(1, 1 + int(math.log2(max(program.rows, 1))))]
    fitting = (n for n in splits if rest + held["activations"] / n < 0.9 * limit)
    return accumulate * next(fitting, 1)


def _faster(program: Program, bound: str) -> Iterator[dict[str, Any]]:
    """Changes that may be faster but need more memory."""
    config = program.config
    key = f"model.{config.model.name}.remat"
    lighter = program.policies[: program.policies.index(program.remat)]
    if config.model.dtype == "float32" and program.platform != "cpu":
        yield {"model.dtype": "bfloat16"}
    yield from ({key: policy} for policy in lighter)
    if config.train.accumulate > 1:
        yield {"train.accumulate": config.train.accumulate // 2}
    if bound != "computation":
        yield {"train.batch_size": 2 * config.train.batch_size}


def _next_change(
    program: Program,
    topology: Topology,
    memory: Mapping[str, int],
    refused: str,
    times: Mapping[str, float],
    limit: float,
) -> str:
    """The first change that, by estimates, makes it fit, or makes it faster and still fits."""
    whole = sum(memory.values())
    bound = max(times, key=times.__getitem__)
    fits = whole <= limit and not refused
    beyond = whole - sum(program.memory.values())  # what the compiler needs beyond the estimate
    rate = program.config.train.batch_size / times[bound]
    for changes in _faster(program, bound) if fits else _lighter(program, limit):
        other = program.changed(changes)
        try:
            needed = sum(other.memory.values()) + beyond
        except ConfigError:  # e.g. a batch that does not divide
            continue
        gain = other.config.train.batch_size / max(roofline(other, topology).values()) / rate
        if needed > 0.95 * limit or (fits and gain < 1.02):
            continue
        told = "estimated"
        if refused:  # the estimate was wrong once, so compile
            tried = compile_step(other, topology)
            if tried.refused:
                continue
            needed, told = sum(_compiled_memory(other, tried).values()), "compiled"
        flags = " ".join(f"--config.{key}={value}" for key, value in changes.items())
        return (
            f"{flags} would need {_size(needed)} and {'still ' if fits else ''}fit, at {gain:.2f} "
            f"times the {program.dataset.kind.noun}/s at best ({told})"
        )
    if fits:
        return "nothing that would be faster and fit; it is bound by " + bound
    return "no change of remat, train.accumulate or parallel.fsdp makes it fit on these devices"
