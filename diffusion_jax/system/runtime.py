"""Process-level settings, made before the first JAX computation, and the user's cache."""

import atexit
import ctypes
import functools
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax

from diffusion_jax.system.files import in_store, temporary_folder

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8
CACHED_SECONDS = 0.1  # shortest compilation time for which a program is cached


def tune_cpu_allocator() -> bool:
    """Lets glibc keep the memory that XLA frees on a CPU, to avoid page faults in every step.

    By default malloc maps every large buffer anew and unmaps it after use, so that a training step
    of a U-Net takes some 400,000 page faults; with this setting almost none. In return, memory is
    not released to the system before the process ends. Call it before JAX starts its threads. Only
    the main arena can keep large buffers, and threads with their own arenas would map theirs again;
    but with a single arena threads wait for each other, and the step of a small network takes half
    as long again. Two arenas serve both: the second has the small buffers of the workers.

    Returns:
        Whether the settings were made: False outside of Linux, with another C library, or with an
        accelerator.
    """
    accelerated = entry_points(group="jax_plugins") or find_spec("libtpu")
    if accelerated or sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return False
    settings = {_M_ARENA_MAX: 2, _M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1}
    libc = ctypes.CDLL(None)
    return all([libc.mallopt(name, value) for name, value in settings.items()])


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/diffusion_jax`, by default `~/.cache/diffusion_jax`."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "diffusion_jax"


def settle_caches(workdir: Path) -> None:
    """Moves caches to the workdir, with one warning, if the user's folder cannot be written to.

    For this process and those that it starts. If the workdir is in an object store, or cannot be
    written to either, caches go to a temporary folder of the process.
    """
    wrong = unwritable(cache_dir())
    if wrong:
        before, beside = cache_dir(), workdir / "cache"
        if in_store(workdir) or unwritable(beside):
            beside = Path(_folder_of_process())
        os.environ["XDG_CACHE_HOME"] = str(beside)
        print(f"warning: {before}: {wrong}; caches are kept in {cache_dir()}", file=sys.stderr)
    settings = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    if unwritable(Path(settings) / "matplotlib"):
        os.environ.setdefault("MPLCONFIGDIR", str(cache_dir() / "matplotlib"))


def unwritable(folder: Path) -> str:
    """Why a folder, which is created if missing, cannot be written to; '' if it can."""
    if folder.parts[0] == "~":
        return "there is no home"
    try:
        str(folder).encode()  # JAX and TensorStore need UTF-8
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except UnicodeEncodeError:
        return "its name is not UTF-8 in this locale"
    except OSError as error:
        return error.strerror or str(error)
    return ""


@functools.cache
def _folder_of_process() -> str:
    folder = temporary_folder()
    atexit.register(folder.cleanup)
    return folder.name


def enable_compilation_cache() -> None:
    """Caches compiled programs, so that the same run starts faster the next time."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHED_SECONDS)


def visible_gpus() -> list[str]:
    """Names of the NVIDIA GPUs that JAX would use, found without starting JAX."""
    if not entry_points(group="jax_plugins"):
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name for name in named.split(",") if name]
    return [path.name.removeprefix("nvidia") for path in sorted(Path("/dev").glob("nvidia[0-9]*"))]


def _commit() -> str:
    """Commit of the running code; "unknown" without git or a clone."""
    try:
        git = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude", "*"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return "unknown"
    return git.stdout.strip() or "unknown"


def environment() -> dict[str, Any]:
    """Versions, device and commit of a run."""
    names = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets")
    device = jax.devices()[0]
    return {
        "commit": _commit(),
        "versions": {
            "python": sys.version.split()[0],
            **{name: version(name) for name in names},
        },
        "device": f"{jax.device_count()} x {device.device_kind}",
    }
