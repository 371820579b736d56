"""Several objects that are called as one."""

from collections.abc import Callable, Sequence
from typing import Any


class Each:
    """Forwards method calls to each of several objects and returns the results as a list."""

    def __init__(self, each: Sequence[Any]) -> None:
        self._each = each

    def __getattr__(self, name: str) -> Callable[..., list[Any]]:
        return lambda *args: [getattr(one, name)(*args) for one in self._each]
