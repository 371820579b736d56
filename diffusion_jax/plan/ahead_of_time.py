"""Compiles programs ahead of time for absent devices, and reads what the compiler made."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import SingleDeviceSharding

from diffusion_jax.from_config import make_step
from diffusion_jax.models.layout import alone
from diffusion_jax.plan.absent import absent_devices, compiling_for, one_line
from diffusion_jax.plan.collectives import exchanged_bytes
from diffusion_jax.plan.hardware import Topology
from diffusion_jax.plan.program import Program
from diffusion_jax.plan.traffic import Traffic, read_traffic
from diffusion_jax.training.parallel import Sharded


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's statistics for each device, in bytes."""

    arguments: int = 0  # state and batch, with padding
    temporary: int = 0  # gradients, activations and workspace
    code: int = 0  # the program itself
    exchanged: Mapping[int, int] = dataclasses.field(default_factory=dict)
    """Sent per step, by the number of axes of the torus along which it is sent."""
    traffic: Traffic | None = None  # read and written per step
    refused: str = ""  # the compiler's error message; '' if it succeeded


def compile_step(program: Program, topology: Topology) -> Compiled:
    """Compiles the train step for `topology` without running it.

    Raises:
        TopologyError: the compiler does not support the topology.
    """
    _, fsdp, model = program.cuts
    parallel = Sharded(fsdp, model, absent_devices(topology), program.gather)
    with compiling_for(topology):
        step = parallel.compile(make_step(program.config, program.parts))
        lowered = step.lower(*program.arguments(parallel))
        return _compile(lowered, list(parallel.mesh.devices.flat))


def compile_call(fn: Callable[..., Any], args: Any, topology: Topology) -> Compiled:
    """Compiles `fn(*args)`, whose arguments are shapes, for one device of `topology`.

    Raises:
        TopologyError: the compiler does not support the topology.
    """
    device = absent_devices(topology)[0]
    place = SingleDeviceSharding(device)
    with compiling_for(topology), alone():
        placed = jax.tree.map(lambda a: a.update(sharding=place), args)
        return _compile(jax.jit(fn).lower(*placed), [device])


def _compile(lowered: jax.stages.Lowered, devices: Sequence[Any]) -> Compiled:
    try:
        return read(lowered.compile(), devices)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(refused=one_line(error))


def read(compiled: jax.stages.Compiled, devices: Sequence[Any]) -> Compiled:
    """What the compiler says of a program for `devices`, in the program's order."""
    found: Any = compiled.memory_analysis()
    text = compiled.as_text() or ""
    places = [tuple(getattr(device, "coords", (device.id,))) for device in devices]
    return Compiled(
        found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes,
        found.temp_size_in_bytes,
        found.generated_code_size_in_bytes,
        exchanged_bytes(text, places),
        read_traffic(text),
    )
