"""Solvers of the probability-flow ODE, in coordinates where its solution is straight for known x_0.

With a norm `n(alpha, sigma)` of degree one let `y = x / n` and `u = sigma / n`. Then

    scaling "ve",   n = alpha:          dy/du = eps_hat            (Eq. 14, Song et al. 2021, DDIM)
    scaling "flow", n = alpha + sigma:  dy/du = eps_hat - x_0_hat  (Eq. 1, Liu et al. 2023)

for every schedule, which only sets the times of evaluation. "flow" is finite for all schedules,
also where `alpha_t = 0`; "ve" is that of Karras et al. 2022 and of k-diffusion, in which a second
slope does not help a step from `sigma / alpha` of many thousands. An Euler step in either is
`alpha_s x_0_hat + sigma_s eps_hat`, DDIM, so that every method here is a DDIM step plus

    n_s (u_s - u_t) (mean slope - slope at t),   n_s (u_s - u_t) = sigma_s - n_s sigma_t / n_t

In "ve" this term is omitted where `alpha_t = 0`, and where the step is too long for it
(`ddim.far`); no method evaluates the denoiser at `sigma = 0`.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.ddim import ddim, ddim_step, far, noise_estimate
from diffusion_jax.samplers.multistep import History
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step

SCALINGS = ("ve", "flow")
ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the slopes, newest first, by order, for equal steps."""


def straight_step(schedule: Schedule, x_t: Array, x_0: Array, t: Array, s: Array) -> Array:
    """`alpha_s x_0 + sigma_s eps_hat`: the exact flow from `t` to `s` for constant `x_0`."""
    return ddim_step(schedule, x_t, x_0, t, s)[0]


def norm(schedule: Schedule, scaling: str, t: Array) -> Array:
    """`n_t`."""
    return schedule.alpha(t) + (schedule.sigma(t) if scaling == "flow" else 0.0)


def slope(schedule: Schedule, scaling: str, x_t: Array, x_0: Array, t: Array) -> Array:
    """`dy/du` at `x_t`."""
    eps = noise_estimate(schedule, x_t, x_0, t)
    return eps - x_0 if scaling == "flow" else eps


def stretch(schedule: Schedule, scaling: str, t: Array, s: Array) -> Array:
    """`n_s (u_s - u_t)`, or 0 where that is infinite or, in "ve", `far`."""
    n_t, n_s = norm(schedule, scaling, t), norm(schedule, scaling, s)
    ratio = n_s / jnp.where(n_t > 0, n_t, 1.0)
    near = (n_t > 0) & (True if scaling == "flow" else ~far(schedule, t, s))
    return jnp.where(near, schedule.sigma(s) - ratio * schedule.sigma(t), 0.0)


def coordinate(schedule: Schedule, scaling: str, t: Array) -> Array:
    """`u_t`, infinite in "ve" where `alpha_t = 0`."""
    return schedule.sigma(t) / norm(schedule, scaling, t)


def rise(schedule: Schedule, scaling: str, t: Array, s: Array) -> Array:
    """`u_s - u_t`, or 0 where it is infinite."""
    h = coordinate(schedule, scaling, s) - coordinate(schedule, scaling, t)
    return jnp.where(jnp.isfinite(h), h, 0.0)


def time_of(schedule: Schedule, scaling: str, u: Array) -> Array:
    """The time at which `u_t` is `u`."""
    signal = jnp.log1p(-u) if scaling == "flow" else 0.0
    return schedule.time_at(2 * (signal - jnp.log(u)))


def time_between(schedule: Schedule, scaling: str, t: Array, s: Array) -> Array:
    """The time at which `u` is the mean of `u_t` and `u_s`."""
    u = (coordinate(schedule, scaling, t) + coordinate(schedule, scaling, s)) / 2
    return time_of(schedule, scaling, u)


def euler(schedule: Schedule) -> Sampler:
    """`y_s = y_t + (u_s - u_t) dy/du`: DDIM without noise, for both scalings and directions."""
    return ddim(schedule)


@checked(scaling=SCALINGS)
def heun(schedule: Schedule, scaling: str = "flow") -> Sampler:
    """Heun's method: the mean of the slopes at both ends (Algorithm 1, Karras et al. 2022).

    The step to `sigma_s = 0` is Euler's.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        x_s = straight_step(schedule, x_t, x_0, t, s)
        first = slope(schedule, scaling, x_t, x_0, t)
        change = _end_slope(schedule, scaling, denoise, x_t, t, x_s, s) - first
        change = jnp.where(schedule.sigma(s) > 0, change, 0.0)
        return x_s + stretch(schedule, scaling, t, s) * change / 2, state

    return Sampler(init=lambda x_T: (), step=step, evaluations=2)


@checked(scaling=SCALINGS)
def midpoint(schedule: Schedule, scaling: str = "flow") -> Sampler:
    """Explicit midpoint method: the slope at the midpoint in `u`, also for `sigma_s = 0`.

    With the midpoint in `log u`, in scaling "ve", it is `exponential.dpm_solver` of order 2.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        middle = time_between(schedule, scaling, t, s)
        x_0 = denoise(x_t, t).x_0
        x_m = straight_step(schedule, x_t, x_0, t, middle)
        first = slope(schedule, scaling, x_t, x_0, t)
        change = slope(schedule, scaling, x_m, denoise(x_m, middle).x_0, middle) - first
        x_s = straight_step(schedule, x_t, x_0, t, s)
        return x_s + stretch(schedule, scaling, t, s) * change, state

    return Sampler(init=lambda x_T: (), step=step, evaluations=2)


@checked(scaling=SCALINGS)
def rk4(schedule: Schedule, scaling: str = "flow") -> Sampler:
    """The classical fourth-order Runge-Kutta method.

    The step to `sigma_s = 0` is the midpoint method's, as the fourth slope would be at `sigma = 0`.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        middle = time_between(schedule, scaling, t, s)
        x_0 = denoise(x_t, t).x_0
        first = slope(schedule, scaling, x_t, x_0, t)

        def advanced(to: Array, change: Array) -> Array:
            straight = straight_step(schedule, x_t, x_0, t, to)
            return straight + stretch(schedule, scaling, t, to) * change

        def change_at(x: Array, r: Array) -> Array:
            return slope(schedule, scaling, x, denoise(x, r).x_0, r) - first

        second = change_at(advanced(middle, jnp.zeros_like(x_t)), middle)
        third = change_at(advanced(middle, second), middle)
        fourth = _end_slope(schedule, scaling, denoise, x_t, t, advanced(s, third), s) - first
        change = jnp.where(schedule.sigma(s) > 0, (2 * second + 2 * third + fourth) / 6, second)
        return advanced(s, change), state

    return Sampler(init=lambda x_T: (), step=step, evaluations=4)


def _end_slope(
    schedule: Schedule, scaling: str, denoise: Denoise, x_t: Array, t: Array, x_s: Array, s: Array
) -> Array:
    """`dy/du` at `x_s`; at `x_t` where `sigma_s = 0`."""
    noisy = schedule.sigma(s) > 0
    x, r = jnp.where(noisy, x_s, x_t), jnp.where(noisy, s, t)
    return slope(schedule, scaling, x, denoise(x, r).x_0, r)


@checked(order=(1, 2, 3, 4))
def ipndm(schedule: Schedule, order: int = 4) -> Sampler:
    """Improved pseudo numerical method (iPNDM, Zhang & Chen 2023).

    DDIM with `eps_hat` replaced by the Adams-Bashforth mean of its last `order <= 4` values; the
    first steps are of lower order. The weights are those for equal steps in `sigma / alpha`: on
    other grids the order of convergence is two.
    """

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        eps = noise_estimate(schedule, x_t, x_0, t)
        state = multistep.push(state, t, eps)
        x_s = straight_step(schedule, x_t, x_0, t, s)
        change = _adams_bashforth(state, order, eps)
        return x_s + stretch(schedule, "ve", t, s) * change, state

    return Sampler(lambda x_T: multistep.empty(x_T, order), step)


class _Begun(NamedTuple):
    """The state of `pndm`."""

    history: History
    x_t: Array  # state before the last step, `[B, ...]`
    t: Array  # its time
    x_0: Array  # its `x_0_hat`
    fresh: Array  # bool `[]`, whether that step was the first


def pndm(schedule: Schedule) -> Sampler:
    """Pseudo linear multistep method (PLMS, Eqs. 9-12, Liu et al. 2022) after a step of Heun's.

    Same as `ipndm` of order 4, but the first step evaluates the denoiser twice: Stable Diffusion's
    sampler, 49 evaluations in 48 steps. The second evaluation is a step of the loop, from the end
    of the first step to itself; without it, as after a jump of `restart`, the first step is
    Euler's.
    """

    def init(x_T: Array) -> _Begun:
        return _Begun(multistep.empty(x_T, 4), x_T, jnp.ones((), x_T.dtype), x_T, jnp.array(False))

    def step(denoise: Denoise, state: _Begun, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        again = (t == s) & state.fresh
        x, r, x_0_hat = _where(again, state[1:4], (x_t, t, x_t))  # where the step begins
        at = _where(again & (schedule.sigma(t) == 0), (x, r), (x_t, t))
        found = denoise(*at).x_0
        x_0_hat = jnp.where(again, x_0_hat, found)
        eps = noise_estimate(schedule, x, x_0_hat, r)
        pushed = multistep.push(state.history, t, eps)
        history = jax.tree.map(partial(jnp.where, again), state.history, pushed)
        heun = (slope(schedule, "ve", at[0], found, at[1]) - eps) / 2
        heun = jnp.where(schedule.sigma(s) > 0, heun, 0.0)
        change = jnp.where(again, heun, _adams_bashforth(history, 4, eps))
        x_s = straight_step(schedule, x, x_0_hat, r, s) + stretch(schedule, "ve", r, s) * change
        return x_s, _Begun(history, x, r, x_0_hat, state.history.known == 0)

    return Sampler(init, step, extra=1)


def _where(condition: Array, yes: tuple[Array, ...], no: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(jnp.where(condition, *pair) for pair in zip(yes, no, strict=True))


def _adams_bashforth(history: History, order: int, eps: Array) -> Array:
    """The Adams-Bashforth mean of past values of `eps_hat`, less the newest, `eps`."""
    weights = jnp.array(ADAMS_BASHFORTH, eps.dtype)[history.known - 1, :order]
    return jnp.tensordot(weights, history.values - eps, 1, precision="highest")


@checked(order=(1, 2, 3, 4), scaling=SCALINGS)
def lms(schedule: Schedule, order: int = 4, scaling: str = "ve") -> Sampler:
    """Linear multistep method: integrates the polynomial in `u` through the last `order` slopes.

    Adams-Bashforth for unequal steps: k-diffusion's `lms`, and DEIS's rho-AB (Zhang & Chen 2023).
    The first steps are of lower order.
    """

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        u_t, h = coordinate(schedule, scaling, t), rise(schedule, scaling, t, s)
        state = multistep.push(state, u_t, slope(schedule, scaling, x_t, x_0, t))
        change = multistep.correction(state, h, [h ** (j + 1) / (j + 1) for j in range(order)])
        return straight_step(schedule, x_t, x_0, t, s) + norm(schedule, scaling, s) * change, state

    return Sampler(init=lambda x_T: multistep.empty(x_T, order), step=step)


@checked(order=(1, 2, 3, 4), beta="(0, 1]", scaling=SCALINGS)
def ghvb(schedule: Schedule, order: int = 2, beta: float = 0.8, scaling: str = "ve") -> Sampler:
    """Generalised heavy-ball momentum of `order` 1 to 4 (GHVB, Sec. 4.2, Wizadwongsa et al. 2023).

    Adams-Bashforth on smoothed slopes `f`; the momentum damps divergence in large steps:

        v_n = (1 - beta) v_{n-1} + beta f_n,    v_0 = f_0

    `beta` in (0, 1] is the damping; 1 is no momentum. Steps along `v` alone are of first order
    (heavy ball). With differences `D v_n = v_n - v_{n-1}`, however,

        f_n = v_n + (1 / beta - 1) D v_n

    so that the step of order r, the integral I_r of the polynomial through the last r slopes, is
    `I_r(f) = I_r(v) + (1 / beta - 1) I_r(D v)`. Its last term needs one order less; GHVB is

        y_{n+1} = y_n + I_r(v) + (1 / beta - 1) I_{r-1}(D v),    I_0 = 0

    For equal steps, where `I_r = h (1 + D/2 + 5/12 D^2 + 3/8 D^3)` up to `D^{r-1}`, this has the
    published weights, such as `h ((2 + beta) v_n - (2 - beta) v_{n-1}) / (2 beta)` for r = 2. For
    unequal steps the published weights are of order two at most, these of order r. As in all
    multistep methods the first steps are of lower order, and so is their error.
    """

    def integral(history: History, h: Array) -> Array:
        moments = [h ** (j + 1) / (j + 1) for j in range(len(history.nodes))]
        whole = h * history.values[0] + multistep.correction(history, h, moments)
        return jnp.where(history.known > 0, whole, 0.0)

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        u_t, h = coordinate(schedule, scaling, t), rise(schedule, scaling, t, s)
        f = slope(schedule, scaling, x_t, x_0, t)
        smooth = jnp.where(state.known > 0, (1 - beta) * state.values[0] + beta * f, f)
        state = multistep.push(state, u_t, smooth)
        change = integral(state, h) - h * f
        if beta < 1 and order > 1:
            values = state.values[:-1] - state.values[1:]
            differences = History(state.nodes[:-1], values, state.known - 1)
            change += (1 / beta - 1) * integral(differences, h)
        return straight_step(schedule, x_t, x_0, t, s) + norm(schedule, scaling, s) * change, state

    return Sampler(init=lambda x_T: multistep.empty(x_T, order), step=step)
