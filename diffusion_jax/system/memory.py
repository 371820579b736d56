"""How much memory the devices use."""

from collections.abc import Mapping
from typing import Any

import jax

GIB = 2**30
NAMES = {
    "device_memory_gib": "bytes_in_use",
    "device_memory_peak_gib": "peak_bytes_in_use",
    "device_memory_limit_gib": "bytes_limit",
}
"""What is logged, and what JAX calls it."""


def device_memory() -> dict[str, float]:
    """Memory of this process's fullest device, in GiB.

    In use, the most that was since the process began, and how much JAX may use; what the devices do
    not tell is left out, on a CPU everything.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    fullest = max(stats, key=lambda one: one.get("peak_bytes_in_use", 0))
    return {name: fullest[key] / GIB for name, key in NAMES.items() if key in fullest}


def memory_words(scalars: Mapping[str, Any]) -> str:
    """`peak of limit` in words, such as "12.3 of 80 GiB"; '' if it is not known."""
    peak, limit = (scalars.get(f"device_memory_{name}_gib") for name in ("peak", "limit"))
    if peak is None:
        return ""
    return f"{peak:.1f} GiB" if limit is None else f"{peak:.1f} of {limit:.0f} GiB"
