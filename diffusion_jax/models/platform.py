"""The kind of device that a network is traced for."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax

_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)


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
