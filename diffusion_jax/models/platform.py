"""The platform for which a network is traced, and whether forward-mode derivatives are needed."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TypeVar

import jax

Value = TypeVar("Value")
_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)
_CAPABILITY: ContextVar[float] = ContextVar("capability", default=0.0)
_FORWARDS: ContextVar[bool] = ContextVar("forwards", default=False)


@contextlib.contextmanager
def set_while(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Sets a variable for everything traced inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def platform() -> str:
    """The target platform, "cpu", "gpu" or "tpu"; read when a function is traced."""
    return _PLATFORM.get() or jax.default_backend()


def capability() -> float:
    """Compute capability of the target GPUs, 0 if they are not NVIDIA's; read as `platform`."""
    if _PLATFORM.get() is not None:
        return _CAPABILITY.get()
    if jax.default_backend() != "gpu":
        return 0
    device = jax.local_devices()[0]
    found = str(getattr(device, "compute_capability", ""))  # AMD's are such as "gfx90a"
    cuda = "cuda" in device.client.platform_version.lower()
    return float(found or 0) if cuda else 0


@contextlib.contextmanager
def computing_on(name: str, capability: float = 0) -> Iterator[None]:
    """Context: functions traced inside are for the platform `name`, whatever this process uses.

    For compiling programs ahead of time for other devices, with the compute `capability` of GPUs if
    it is known: without it no kernels of libraries are used. `jax.jit` does not retrace a function
    for another platform: create it anew inside.
    """
    with set_while(_PLATFORM, name), set_while(_CAPABILITY, capability):
        yield


def needs_jvp() -> bool:
    """Whether kernels must support JVPs; read when a function is traced."""
    return _FORWARDS.get()


def differentiated_forwards() -> AbstractContextManager[None]:
    """Context: functions traced inside may be differentiated by `jax.jvp`, on every platform.

    Kernels that only have a gradient, such as cuDNN's attention, are not used. As with
    `computing_on`, jitted functions must be created anew inside.
    """
    return set_while(_FORWARDS, True)
