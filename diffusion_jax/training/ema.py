"""Averages of the parameters over the steps of training, and any length of them afterwards.

After step `t` an average goes a part `rate(t)` of its way to the parameters:
`ema = beta ema + (1 - beta) params`, with `beta = 1 - rate(t)`. Two profiles:

- `Exponential`, the usual one.
- `Power`, of EDM2 (Karras et al. 2024, Section 3.1): the weight of step `t` among `n` goes as
  `t^gamma`, so that the average reaches back over the same share of training at any time. Its
  `length` (their sigma_rel) is the standard deviation of that profile, as a share of training.

Any power-function average follows, nearly, from stored ones (`post_hoc_weights`; their Section 3.2
and Appendix C). Approximate there, but for rounding, is the profile alone, and its error is given:
the recursion in steps is exact, since its weights `(t/n)^(gamma+1) - ((t-1)/n)^(gamma+1)` are the
integrals over each step of the continuous profile, of which the inner products are taken. None of
it is of the initial parameters, as `beta(1) = 0`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key, Params

EXPONENTIAL = "exponential"  # its name among others; those of a length have that as their name
PARAMETERS = "params"  # name that stands for no average: the parameters as they are
LONGEST = 12**-0.5  # length of the plain mean over all steps (gamma 0); every `Power` is shorter
YOUNG = 0.01  # most of an average that may be left of the initial parameters
DEPENDENT = 1e-10  # share of the largest singular value; smaller are left out: snapshots too close


@dataclasses.dataclass(frozen=True)
@checked(decay="[0, 1)")
class Exponential:
    """`beta = decay`, with `warmup` at most `(1 + t) / (10 + t)`.

    That keeps the initial parameters from lingering: after `n` steps the average reaches back over
    the last `n / 10` or so, until `decay` limits it.
    """

    decay: float
    warmup: bool = True

    def rate(self, step: Array) -> Array:
        """`1 - beta` at a step, counted from 1."""
        return jnp.maximum(1 - self.decay, self.warmup * 9 / (10 + step))

    def __str__(self) -> str:
        return f"decay {self.decay}"


@dataclasses.dataclass(frozen=True)
@checked(length=f"(0, {LONGEST})")
class Power:
    """`beta = (1 - 1/t)^(gamma + 1)` (Eq. 127)."""

    length: float  # sigma_rel, above 0 and below `LONGEST`

    def rate(self, step: Array) -> Array:
        """`1 - beta` at a step, counted from 1."""
        # Not 1 - (...)**(...), which loses all digits in float32 late in training.
        return -jnp.expm1((exponent(self.length) + 1) * jnp.log1p(-1 / step))

    def __str__(self) -> str:
        return f"length {self.length}"


Average = Exponential | Power


def update_averages(
    averages: Mapping[str, Average], ema: Mapping[str, Params], params: Params, step: Array
) -> dict[str, Params]:
    """The averages `ema`, by name, after `step` (the first is 1) led to `params`."""

    def moved(old: Params, rate: Array) -> Params:
        return jax.tree.map(lambda a, b: a + rate * (b - a), old, params)

    return {name: moved(ema[name], average.rate(step)) for name, average in averages.items()}


def too_young(averages: Mapping[str, Average], steps: int) -> list[str]:
    """A sentence for each average that is not yet fit to sample from after so many steps."""
    return [
        f"the EMA ({average}) is too young after {steps:,} steps: {left:.0%} of it is still the "
        "initial parameters. Train longer, or with a lower ema.decay or with ema.warmup=True"
        for average in averages.values()
        if steps and (left := start_weight(average, steps)) > YOUNG
    ]


def start_weight(average: Average, steps: int) -> float:
    """Weight that the initial parameters have after so many steps: the product of all `beta`."""
    rates = np.asarray(average.rate(jnp.arange(1, steps + 1)), np.float64)
    return float(np.prod(1 - rates))


def never_moved(ema: Params, init: Callable[[Key], Params], key: Key) -> bool:
    """Whether an average is still `init(key)`, up to rounding.

    One array is compared first, and no other is computed: nearly always, it did move.
    """

    def compare(key: Key, arrays: list[Array]) -> list[Array]:
        size = lambda a: jnp.max(jnp.abs(a), initial=0)  # noqa: E731
        pairs = zip(arrays, jax.tree.leaves(init(key)), strict=False)
        return [size(a - b) <= 1e-6 * size(b) for a, b in pairs]

    arrays = jax.tree.leaves(ema)
    light = {"xla_backend_optimization_level": 1}  # most of the work is to compile it
    compare = jax.jit(compare, compiler_options=light)
    return all(all(compare(key, some)) for some in (arrays[:1], arrays))


def exponent(length: float) -> float:
    """Gamma, from `length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))` (Eq. 123, Algorithm 2)."""
    t = length**-2
    return float(np.max(np.roots([1, 7, 16 - t, 12 - t]).real))  # the positive root of a cubic


def inner_products(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Integrals over time of the products of power-function profiles (Eq. 151), in closed form.

    Per step, `[N, M]`, of gammas and numbers of steps, `[N]` each in `a` and `[M]` in `b`.
    """
    (gamma_a, steps_a), (gamma_b, steps_b) = ((g[:, None], n[:, None]) for g, n in (a, b))
    gamma_b, steps_b = gamma_b.T, steps_b.T
    short, long = np.minimum(steps_a, steps_b), np.maximum(steps_a, steps_b)
    longer = np.where(steps_a < steps_b, gamma_b, gamma_a)
    factors = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return factors * (short / long) ** longer / long


class PostHoc(NamedTuple):
    """How an average follows from stored ones."""

    weights: np.ndarray  # of each, `[snapshots, lengths]`; their sum is 1
    error: float  # norm of what is wrong with the profile over that of the profile (L2 over time)


def post_hoc_weights(
    length: float, step: int, lengths: Sequence[float], steps: Sequence[int]
) -> PostHoc:
    """The combination of stored averages nearest to one of `length` at `step` (Algorithm 3).

    By least squares between profiles, in float64, scaled to a sum of 1 as in EDM2's code. Each
    snapshot has averages of all `lengths`, at one of `steps`, up to `step`.
    """
    gammas = np.array([exponent(one) for one in lengths])
    there = (np.tile(gammas, len(steps)), np.repeat(np.asarray(steps, np.float64), len(lengths)))
    wanted = (np.array([exponent(length)]), np.array([step], np.float64))
    products, target = inner_products(there, there), inner_products(there, wanted)[:, 0]
    scale = 1 / np.sqrt(np.diag(products))
    products = scale[:, None] * products * scale
    found, *_ = np.linalg.lstsq(products, scale * target, rcond=DEPENDENT)
    found /= scale @ found
    whole = inner_products(wanted, wanted)[0, 0]
    wrong = whole - 2 * found @ (scale * target) + found @ products @ found
    weights = (scale * found).reshape(len(steps), len(lengths))
    return PostHoc(weights, float(np.sqrt(max(wrong, 0.0) / whole)))
