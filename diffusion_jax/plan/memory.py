"""Memory of a config on a device by part, and the traffic of a step, in words."""

from collections.abc import Mapping

from diffusion_jax.plan.ahead_of_time import Compiled
from diffusion_jax.plan.hardware import GIB, Hardware
from diffusion_jax.plan.program import FROZEN, PARTS, Program
from diffusion_jax.plan.traffic import Traffic

# Usable share of a device's memory; for TPUs, the limit of the compiler.
USABLE = {"tpu": 15.75 / 16, "gpu": 0.92, "cpu": 0.8}
PREALLOCATED = 0.75  # share of a GPU's memory that JAX takes by default

UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def compiled_memory(program: Program, compiled: Compiled) -> dict[str, int]:
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
    lines += [f"  {size_in_words(n):>10} {name}" for name, n in memory.items() if n >= 2**10]
    lines.append(
        f"  {size_in_words(whole):>10} of the {size_in_words(limit)} that a program can have"
    )
    if refused or whole > limit:
        return [*lines, f"it does not fit{f': {refused}' if refused else ''}"]
    close = ", but barely" if whole > 0.9 * limit else ""
    if hardware and hardware.platform == "gpu" and whole > PREALLOCATED * hardware.memory:
        close += "; set XLA_PYTHON_CLIENT_MEM_FRACTION=0.92, JAX takes 0.75 of the memory"
    return [*lines, f"it fits{close}"]


def about_traffic(traffic: Traffic, platform: str, by: str = "a step") -> list[str]:
    """Lines about the bytes that a compiled program moves, by kind."""
    name, one = next(unit for unit in UNITS if traffic.whole >= unit[1] or unit is UNITS[-1])
    kernels = f", by {traffic.kernels:,} kernels" if platform == "gpu" else ""
    if traffic.fused_attention:
        kernels += f" of which {traffic.fused_attention:,} are fused attention"
    lines = [f"memory read and written by {by} on each device, as compiled{kernels}:"]
    for kind, size in sorted(traffic.bytes.items(), key=lambda item: -item[1]):
        if size >= 0.0005 * traffic.whole:
            lines.append(f"  {size / one:>7.2f} {name} {size / traffic.whole:>4.0%} {kind}")
    return [*lines, f"  {traffic.whole / one:>7.2f} {name} together"]


def size_in_words(value: float) -> str:
    """Bytes in words."""
    for unit, one in (("GiB", GIB), ("MiB", 2**20)):
        if value >= one:
            return f"{value / one:.4g} {unit}"
    return f"{value / 2**10:.4g} KiB"
