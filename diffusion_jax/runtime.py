"""Process-level settings, to be made before the first JAX computation."""

import ctypes
import platform
import sys

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def tune_cpu_allocator() -> bool:
    """Let glibc keep the memory that XLA frees on the CPU, instead of faulting it in at each step.

    By default malloc maps every large buffer anew and unmaps it after use, so that a training step
    of a U-Net takes some 400,000 page faults; with this it takes none. The price is that memory is
    not handed back to the system before the process ends. Call it before JAX starts its threads:
    memory of a thread with an arena of its own is not covered, hence the single arena.

    Returns:
        Whether the settings were made: False off Linux, or under another C library.
    """
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    settings = {_M_ARENA_MAX: 1, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(name, value) for name, value in settings.items()])
