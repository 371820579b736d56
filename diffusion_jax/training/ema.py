"""Moving averages of the parameters in training, and averages of other lengths afterwards.

At step `t` an average moves towards the parameters by a fraction `rate(t)`:
`ema = beta ema + (1 - beta) params`, with `beta = 1 - rate(t)`. Two profiles:

- `Exponential`, the usual one.
- `Power`, of EDM2 (Karras et al. 2024, Section 3.1): the weight of step `t` among `n` is
  proportional to `t^gamma`, so that the average always covers the same share of training. Its
  `length` (their sigma_rel) is the standard deviation of that profile, as a share of training.

Any power-function average can be approximated from stored ones (`post_hoc_weights`; their Section
3.2 and Appendix C). Apart from rounding only the profile is approximate, and its error is given:
the recursion in steps is exact, since its weights `(t/n)^(gamma+1) - ((t-1)/n)^(gamma+1)` are the
integrals over each step of the continuous profile, from which the inner products are computed. The
initial parameters have no weight, as `beta(1) = 0`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Key, Params

EXPONENTIAL = "exponential"  # name of the exponential average; others are named by their length
PARAMETERS = "params"  # name for no averaging: the parameters themselves
LONGEST = 12**-0.5  # length of the plain mean over all steps (gamma 0); every `Power` is shorter
YOUNG = 0.01  # warn if the initial parameters have more than this weight in an average
DEPENDENT = 1e-10  # relative cutoff of singular values, for snapshots that are too similar


@dataclasses.dataclass(frozen=True)
@checked(decay="[0, 1)")
class Exponential:
    """`beta = decay`, and with `warmup` at most `(1 + t) / (10 + t)`.

    Warm-up removes the initial parameters quickly: after `n` steps the average covers about the
    last `n / 10`, until `decay` limits it.
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
    averages: Mapping[str, Average],
    ema: Mapping[str, Params],
    params: Params,
    step: Array,
    every: int = 1,
) -> dict[str, Params]:
    """Updates the averages `ema`, by name, with `params` after `step`, counted from 1.

    Each n-th step alone with `every`, as if the parameters had been these in all n steps.
    """

    def moved(ema: Mapping[str, Params], params: Params) -> dict[str, Params]:
        rates = {name: _rate_over(average, step, every) for name, average in averages.items()}
        return {
            name: jax.tree.map(lambda a, b, rate=rate: a + rate * (b - a), ema[name], params)
            for name, rate in rates.items()
        }

    if every == 1:
        return moved(ema, params)
    found: dict[str, Params] = jax.lax.cond(
        step % every == 0, moved, lambda ema, params: dict(ema), ema, params
    )
    return found


def _rate_over(average: Average, step: Array, steps: int) -> Array:
    """`1 - beta` of this many steps up to `step`, the product of theirs."""
    if steps == 1:
        return average.rate(step)
    return -jnp.expm1(jnp.sum(jnp.log1p(-average.rate(step - jnp.arange(steps)))))


def too_young(averages: Mapping[str, Average], steps: int) -> list[str]:
    """A warning for each average that should not be sampled from yet after this many steps."""
    return [
        f"the EMA ({average}) is too young after {steps:,} steps: {left:.0%} of it is still the "
        "initial parameters. Train longer, or with a lower ema.decay or with ema.warmup=True"
        for average in averages.values()
        if steps and (left := start_weight(average, steps)) > YOUNG
    ]


def start_weight(average: Average, steps: int) -> float:
    """Weight of the initial parameters after this many steps: the product of all `beta`."""
    rates = np.asarray(average.rate(jnp.arange(1, steps + 1)), np.float64)
    return float(np.prod(1 - rates))


def never_moved(ema: Params, init: Callable[[Key], Params], key: Key) -> bool:
    """Whether an average still equals `init(key)`, up to rounding.

    Compares one array first, which nearly always suffices, as the average has moved.
    """

    def compare(key: Key, arrays: list[Array]) -> list[Array]:
        size = lambda a: jnp.max(jnp.abs(a), initial=0)  # noqa: E731
        pairs = zip(arrays, jax.tree.leaves(init(key)), strict=False)
        return [size(a - b) <= 1e-6 * size(b) for a, b in pairs]

    arrays = jax.tree.leaves(ema)
    light = {"xla_backend_optimization_level": 1}  # most of the time is compilation
    compare = jax.jit(compare, compiler_options=light)
    return all(all(compare(key, some)) for some in (arrays[:1], arrays))


def exponent(length: float) -> float:
    """Gamma, from `length^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))` (Eq. 123, Algorithm 2)."""
    t = length**-2
    return float(np.max(np.roots([1, 7, 16 - t, 12 - t]).real))  # the positive root of a cubic


def inner_products(
    a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Inner products over time of power-function profiles (Eq. 151), in closed form.

    Per step, `[N, M]`, of gammas and numbers of steps, `[N]` each in `a` and `[M]` in `b`.
    """
    (gamma_a, steps_a), (gamma_b, steps_b) = ((g[:, None], n[:, None]) for g, n in (a, b))
    gamma_b, steps_b = gamma_b.T, steps_b.T
    short, long = np.minimum(steps_a, steps_b), np.maximum(steps_a, steps_b)
    longer = np.where(steps_a < steps_b, gamma_b, gamma_a)
    factors = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return factors * (short / long) ** longer / long


class PostHoc(NamedTuple):
    """An average as a combination of stored ones."""

    weights: np.ndarray  # `[snapshots, lengths]`, with sum 1
    error: float  # relative error of the profile (L2 norm over time)


def post_hoc_weights(
    length: float, step: int, lengths: Sequence[float], steps: Sequence[int]
) -> PostHoc:
    """The combination of stored averages closest to one of `length` at `step` (Algorithm 3).

    Least squares between profiles, in float64, normalised to a sum of 1 as in EDM2's code. Each
    snapshot, at one of `steps` up to `step`, has averages of all `lengths`.
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
