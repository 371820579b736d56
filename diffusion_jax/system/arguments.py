"""Argument checks for functions and dataclasses."""

import functools
import inspect
import numbers
from collections.abc import Callable
from typing import Any, TypeVar

Made = TypeVar("Made", bound=Callable[..., Any])


def checked(**allowed: str | tuple[object, ...]) -> Callable[[Made], Made]:
    """Makes a function or a dataclass raise a ValueError such as `order=7 must be 1, 2 or 3`.

    The allowed values of an argument are choices, or an interval such as "(0, 1]", whose ends may
    be other arguments; arguments annotated as int must be whole numbers. Arrays, which may be
    traced, are not checked.
    """

    def decorated(made: Any) -> Any:
        made.allowed = allowed
        made.whole = {name for name, kind in made.__annotations__.items() if kind is int}
        if isinstance(made, type):  # decorated before `dataclass` does it
            made.__post_init__ = lambda self: check(self, **vars(self))  # type: ignore[attr-defined]
            return made
        signature = inspect.signature(made)

        @functools.wraps(made)
        def checking(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs)
            given.apply_defaults()
            check(made, **given.arguments)
            return made(*args, **kwargs)

        return checking

    return decorated


def check(made: Any, /, **values: Any) -> None:
    """Checks arguments of `made`, and raises the ValueError that it would raise.

    `made` may also be the allowed values themselves, as given to `checked`.
    """
    allowed = getattr(made, "allowed", made)
    for name in [name for name in allowed if name in values]:
        value, known = values[name], allowed[name]
        if isinstance(known, tuple):
            *most, last = map(repr, known)
            if repr(value) not in (*most, last):
                raise ValueError(f"{name}={value!r} must be {', '.join(most)} or {last}")
            continue
        if isinstance(value, str | bytes | list | tuple | dict) or value is None:
            raise ValueError(f"{name}={value!r} must be a number")
        fraction = isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral)
        if fraction and name in getattr(made, "whole", ()):
            raise ValueError(f"{name}={value} must be a whole number")
        ends = known[1:-1].split(", ")
        low, high = (values[end] if end in values else float(end) for end in ends)
        if all(isinstance(number, numbers.Real) for number in (low, value, high)):
            above = value > low or (value == low and known[0] == "[")
            below = value < high or (value == high and known[-1] == "]")
            if not (above and below):  # NaN is neither
                where = "".join(f" with {end}={values[end]}" for end in ends if end in values)
                raise ValueError(f"{name}={value} must lie in {known}{where}")
