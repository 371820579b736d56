"""The platform that a network is traced for, and whether it is differentiated forwards."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)
_FORWARDS: ContextVar[bool] = ContextVar("forwards", default=False)


def platform() -> str:
    """The platform, "cpu", "gpu" or "tpu"; asked once, when a function is traced."""
    return _PLATFORM.get() or jax.default_backend()


@contextlib.contextmanager
def computing_on(name: str) -> Iterator[None]:
    """What is traced inside is meant for the platform `name`, whatever this process computes on.

    For programs that are compiled ahead of time for devices that are elsewhere. A function that
    `jax.jit` has traced before is not traced again for another platform: make it anew inside.
    """
    token = _PLATFORM.set(name)
    try:
        yield
    finally:
        _PLATFORM.reset(token)


def needs_jvp() -> bool:
    """Whether only kernels that have a JVP may be used; asked when a function is traced."""
    return _FORWARDS.get()


@contextlib.contextmanager
def differentiated_forwards() -> Iterator[None]:
    """What is traced inside may be differentiated forwards, by `jax.jvp`, on every platform.

    Kernels that only have a gradient, such as cuDNN's attention, are not used there. As with
    `computing_on`, a function that `jax.jit` has traced before is to be made anew inside.
    """
    token = _FORWARDS.set(True)
    try:
        yield
    finally:
        _FORWARDS.reset(token)
