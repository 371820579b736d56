"""Least time of a train step on published hardware, read in two ways, and in words."""

import dataclasses
from collections.abc import Sequence

from diffusion_jax.plan.ahead_of_time import Compiled
from diffusion_jax.plan.hardware import Hardware, Topology
from diffusion_jax.plan.program import Program


@dataclasses.dataclass(frozen=True)
class Times:
    """Seconds of a step if it were bound by one resource alone (Williams et al. 2009)."""

    computation: float
    memory: float
    interconnect: float

    @property
    def bound(self) -> str:
        """The resource that takes longest."""
        return max(dataclasses.asdict(self).items(), key=lambda item: item[1])[0]

    @property
    def overlapped(self) -> float:
        """Perfect overlap: all three at the same time. No step is faster."""
        return max(dataclasses.astuple(self))

    @property
    def serial(self) -> float:
        """Serial: one after the other, each at its published rate."""
        return sum(dataclasses.astuple(self))


def roofline(program: Program, topology: Topology, compiled: Compiled | None = None) -> Times:
    """Times of a step: by the bytes of the compiled program, or estimated."""
    traffic = compiled.traffic.whole if compiled and compiled.traffic else program.traffic
    peak = peak_of(topology.hardware, program.config.model.dtype)
    return Times(
        program.step_flops / topology.count / peak,
        traffic / topology.hardware.bandwidth,
        _sending(program, topology, compiled) if topology.count > 1 else 0.0,
    )


def _sending(program: Program, topology: Topology, compiled: Compiled | None) -> float:
    """Seconds of sending to other devices.

    The compiled program is for one mesh, whose gradients are summed in the compute dtype; the
    replicated step sums them in its own (`Program.sent`).
    """
    if compiled and compiled.traffic and program.is_sharded:
        return sum(sent / topology.along(axes) for axes, sent in compiled.exchanged.items())
    return program.exchanged / topology.link


def peak_of(hardware: Hardware, dtype: str) -> float:
    """Peak FLOP/s: float32 products run at half the rate on a GPU (TF32), on a TPU in bfloat16."""
    half = hardware.platform == "gpu" and dtype == "float32"
    return hardware.flops / 2 if half else hardware.flops


def in_two_readings(what: str, times: Times, parts: Sequence[str]) -> str:
    """A line about how long something takes, and its `parts`."""
    words = ", ".join(f"{name} {duration(getattr(times, name))}" for name in parts)
    return (
        f"{what} takes {duration(times.overlapped)} with perfect overlap, bound by {times.bound}; "
        f"{duration(times.serial)} serially ({words})"
    )


def about_time(program: Program, topology: Topology, compiled: Compiled | None) -> list[str]:
    """Lines about the time of a step and of the whole training."""
    times, hardware = roofline(program, topology, compiled), topology.hardware
    peak = peak_of(hardware, program.config.model.dtype)
    moved = "each product reads and writes memory once; collectives as rings"
    if compiled and compiled.traffic:
        moved = "bytes as compiled"
        if topology.count > 1:
            sharded = "each collective over the links of its axes" if program.is_sharded else ""
            moved += f", {sharded or f'gradients sent in {program.sent} as rings'}"
    return [
        in_two_readings("a step", times, ("computation", "memory", "interconnect")),
        f"  assumed: {peak / 1e12:.4g} TFLOP/s and "
        f"{hardware.bandwidth / 1e12:.4g} TB/s per device as published, "
        f"{topology.link / 1e9:.4g} GB/s between devices; {moved}",
        *(
            f"{how}: {program.model_flops / one / topology.count / hardware.flops:.0%} of the "
            f"published peak; {whole_run(program, one)}"
            for how, one in (("perfect overlap", times.overlapped), ("serial", times.serial))
        ),
    ]


def whole_run(program: Program, step: float) -> str:
    """Rate and duration of the training if a step takes `step` seconds."""
    train, noun = program.config.train, program.dataset.kind.noun
    whole = step * train.steps
    hours = whole * program.devices / 3600
    many = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"
    return (
        f"{train.batch_size / step:,.0f} {noun}/s; {train.steps:,} steps in "
        f"{duration(whole)}, {many} device-hours"
    )


def duration(value: float) -> str:
    """Seconds in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60), ("s", 1)):
        if value >= (1 if unit == "s" else 2) * size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e3:.3g} ms"
