"""The platform that a network is traced for, and whether it is differentiated forwards."""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TypeVar

import jax

Value = TypeVar("Value")
_PLATFORM: ContextVar[str | None] = ContextVar("platform", default=None)
_FORWARDS: ContextVar[bool] = ContextVar("forwards", default=False)


@contextlib.contextmanager
def set_while(variable: ContextVar[Value], value: Value) -> Iterator[None]:
    """Gives a variable a value for what is traced inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def platform() -> str:
    """The platform, "cpu", "gpu" or "tpu"; asked once, when a function is traced."""
    return _PLATFORM.get() or jax.default_backend()


def computing_on(name: str) -> AbstractContextManager[None]:
    """What is traced inside is meant for the platform `name`, whatever this process computes on.

    For programs that are compiled ahead of time for devices that are elsewhere. A function that
    `jax.jit` has traced before is not traced again for another platform: make it anew inside.
    """
    return set_while(_PLATFORM, name)


def needs_jvp() -> bool:
    """Whether only kernels that have a JVP may be used; asked when a function is traced."""
    return _FORWARDS.get()


def differentiated_forwards() -> AbstractContextManager[None]:
    """What is traced inside may be differentiated forwards, by `jax.jvp`, on every platform.

    Kernels that only have a gradient, such as cuDNN's attention, are not used there. As with
    `computing_on`, a function that `jax.jit` has traced before is to be made anew inside.
    """
    return set_while(_FORWARDS, True)
