"""Refusals by `checked`, and their messages."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.system.arguments import check, checked
from diffusion_jax.system.processes import ProcessesError, joined


@checked(order=(1, 2, 3), kind=("a", "b"), share="(0, 1]", low="[0, high)")
def made(order=1, kind="a", share=0.5, low=0.0, high=1.0, **rest):
    """Gives back its arguments."""
    return order, kind, share, low, high, rest


@checked(steps="[1, inf)")
def counted(steps: int, share: float = 0.5):
    """Gives back a number."""
    return steps


@dataclasses.dataclass(frozen=True)
@checked(size="[0, inf)")
class Sized:
    size: int = 0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (2.5, "=2.5 must be a whole number"),
        (float("nan"), "=nan must be a whole number"),
        ("3", "='3' must be a number"),
        (None, "=None must be a number"),
        ((3,), "=(3,) must be a number"),
        (-1, "=-1 must lie in"),
    ],
)
def test_numbers_are_numbers_and_counts_are_whole(given, says):
    with pytest.raises(ValueError, match=f"^steps{re.escape(says)}"):
        counted(given)
    with pytest.raises(ValueError, match=f"^size{re.escape(says)}"):
        Sized(given)
    assert counted(np.int64(3)) == 3
    assert Sized(True).size


@dataclasses.dataclass(frozen=True)
@checked(low="(0, high)")
class Base:
    low: float = 1.0
    high: float = 2.0


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    high: float = 3.0


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"order": 7}, "order=7 must be 1, 2 or 3"),
        ({"order": 2.5}, "order=2.5 must be 1, 2 or 3"),
        ({"kind": "c"}, "kind='c' must be 'a' or 'b'"),
        ({"share": 0.0}, "share=0.0 must lie in (0, 1]"),
        ({"share": np.float32(1.5)}, "share=1.5 must lie in (0, 1]"),
        ({"share": float("nan")}, "share=nan must lie in (0, 1]"),
        ({"low": -1}, "low=-1 must lie in [0, high) with high=1.0"),
        ({"low": 3.0, "high": 2.0}, "low=3.0 must lie in [0, high) with high=2.0"),
        ({"low": 2.0, "high": 2.0}, "low=2.0 must lie in [0, high) with high=2.0"),
    ],
)
def test_wrong_arguments_are_named(given, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        made(**given)
    with pytest.raises(ValueError, match=f"^{re.escape(says)}$"):
        check(made, **{"high": 1.0, **given})


def test_right_arguments_reach_the_function():
    assert made(3, "b", 1, 0.0, high=0.1, more=5) == (3, "b", 1, 0.0, 0.1, {"more": 5})
    assert made.__name__ == "made"
    assert made.__doc__ == "Gives back its arguments."


def test_arrays_and_traced_values_pass():
    assert made(share=jnp.array(2.0))[2] == 2
    gradient = jax.grad(lambda share, low: made(share=share, low=low)[2] ** 2, (0, 1))(3.0, 5.0)
    assert gradient == (6.0, 0.0)


def test_dataclasses_and_what_derives_from_them():
    assert (Base().high, Derived(2.5).low) == (2.0, 2.5)
    for make in (
        lambda: Base(2.5),
        lambda: Derived(3.5),
        lambda: dataclasses.replace(Base(), low=0),
    ):
        with pytest.raises(ValueError, match=r"low=[\d.]+ must lie in \(0, high\) with high="):
            make()


@pytest.mark.parametrize(("count", "number"), [(0, 0), (2, 2), (2, -1), (-1, 0)])
def test_processes_are_numbered_from_0(count, number):
    with (
        pytest.raises(
            ProcessesError,
            match=f"^--process_id={number} must be in .* with --num_processes={count}$",
        ),
        joined("localhost:1", count, number),
    ):
        raise AssertionError("it was joined")
