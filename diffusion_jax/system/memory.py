"""Memory use of the devices."""

from collections.abc import Mapping
from typing import Any

import jax

GIB = 2**30
NAMES = {
    "device_memory_gib": "bytes_in_use",
    "device_memory_peak_gib": "peak_bytes_in_use",
    "device_memory_limit_gib": "bytes_limit",
}
"""Names in the log, and those of JAX."""


def device_memory() -> dict[str, float]:
    """Memory of this process's fullest device, in GiB.

    In use, the peak since the process began, and the limit of JAX. Values that the devices do not
    report are left out: on CPUs all.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    fullest = max(stats, key=lambda one: one.get("peak_bytes_in_use", 0))
    return {name: fullest[key] / GIB for name, key in NAMES.items() if key in fullest}


def memory_words(scalars: Mapping[str, Any]) -> str:
    """`peak of limit` in words, such as "12.3 of 80 GiB"; '' if unknown."""
    peak, limit = (scalars.get(f"device_memory_{name}_gib") for name in ("peak", "limit"))
    if peak is None:
        return ""
    return f"{peak:.1f} GiB" if limit is None else f"{peak:.1f} of {limit:.0f} GiB"
