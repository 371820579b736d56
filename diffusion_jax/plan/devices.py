"""Memory and time of a config on given devices, and the next change to try, in words."""

import math
import statistics
import time

import jax
import jax.numpy as jnp

from diffusion_jax.data import Dataset
from diffusion_jax.from_config import Config
from diffusion_jax.plan.absent import PACKAGES, has_compiler
from diffusion_jax.plan.ahead_of_time import Compiled, compile_step, read
from diffusion_jax.plan.hardware import Hardware, Topology, find_hardware
from diffusion_jax.plan.measured import Steps, matrix_peak, memory_of
from diffusion_jax.plan.memory import (
    USABLE,
    about_memory,
    about_traffic,
    compiled_memory,
    size_in_words,
)
from diffusion_jax.plan.program import Program
from diffusion_jax.plan.proposals import next_change
from diffusion_jax.plan.roofline import about_time, duration, roofline, whole_run
from diffusion_jax.plan.stages import about_stages

PATIENCE = 60.0  # longest step in seconds that is measured


def plan_topology(config: Config, dataset: Dataset, topology: Topology) -> list[str]:
    """Lines about a config on devices that need not be present.

    Compiled for them where their compiler can be imported, else estimated; the lines tell which.

    Raises:
        ConfigError: the config cannot run on that number of devices.
        TopologyError: the compiler does not support the topology.
    """
    hardware = topology.hardware
    program = Program(config, dataset, topology.count, hardware.platform)
    lines = [_about_network(program), *about_encoding(program), *_about_undivided(program)]
    memory, told, compiled = program.memory, "estimated from lifetimes", Compiled()
    if has_compiler(topology):
        compiled = compile_step(program, topology)
        if not compiled.refused:
            memory, told = compiled_memory(program, compiled), "as compiled"
    else:
        package = PACKAGES[hardware.platform][0]
        lines.append(f"`pip install {package}` compiles the step too; what follows is estimated")
    limit = hardware.memory * USABLE[hardware.platform]
    lines += about_memory(memory, told, compiled.refused, hardware, limit)
    lines += about_stages(program, sum(memory.values()), limit)
    if compiled.traffic:
        lines += about_traffic(compiled.traffic, hardware.platform)
    lines += about_time(program, topology, compiled)
    bound, whole = roofline(program, topology, compiled).bound, sum(memory.values())
    change = next_change(program, topology, whole, compiled.refused, bound, limit)
    return [*lines, f"next: {change}"]


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
        *_about_undivided(program),
        *about_memory(program.memory, told, "", hardware, limit),
        *about_stages(program, sum(program.memory.values()), limit),
        f"matrix peak of {count} x {device.device_kind}: {peak / 1e12:.3g} TFLOP/s in {dtype}, "
        "measured",
    ]
    if sum(program.memory.values()) > limit:
        return [*lines, "no step is timed: it does not fit"]
    expected = 2 * program.step_flops / peak
    if expected > PATIENCE:
        return [*lines, f"no step is timed: one would take about {duration(expected)}"]
    steps, began = Steps(program), time.perf_counter()
    compiled = steps.compile()
    took, times = time.perf_counter() - began, steps.take_some()
    step = statistics.median(times)
    lines += [
        f"a step: {duration(step)} (median of {len(times)}; compiled in {duration(took)}), "
        f"{program.model_flops / step / peak:.0%} of the measured peak",
        f"at this rate: {whole_run(program, step)}",
    ]
    return [*lines, *_predicted(program, compiled, hardware)] if hardware else lines


def _predicted(program: Program, compiled: jax.stages.Compiled, hardware: Hardware) -> list[str]:
    """Lines about the time of a step by the published rates, beside the measured one."""
    found = read(compiled, jax.devices())
    topology = Topology(hardware.kind, hardware, jax.device_count())
    told = about_traffic(found.traffic, hardware.platform) if found.traffic else []
    return [*told, "predicted:", *about_time(program, topology, found)]


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
    whole = f"{num * flops / 1e15:.4g} PFLOP and {size_in_words(num * size)} for all {num:,}"
    mirrored = ", mirrored included" * (entries > 1)
    return [
        f"latents are computed once before training: {flops / 1e9:.4g} GFLOP and "
        f"{size_in_words(size)} in the user's cache folder for one of the {noun}{mirrored}"
        f"{f'; {whole}' if num else ''}"
    ]


def _about_undivided(program: Program) -> list[str]:
    """Lines about axes of parameters that stay whole on every device."""
    return [
        f"{size_in_words(held)} of the parameters, with all that belongs to them, are not cut by "
        f"parallel.{axis}={program.mesh[axis]}: it does not divide {size}"
        for (axis, size), held in program.undivided.items()
    ]
