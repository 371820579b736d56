"""Exponential integrators: DPM-Solver, DPM-Solver++, DEIS and UniPC.

With `lambda = log(alpha / sigma)` the probability-flow ODE has the exact solutions

    data form:   x_s = (sigma_s / sigma_t) x_t + sigma_s int e^lambda x_0_hat dlambda
    noise form:  x_s = (alpha_s / alpha_t) x_t - alpha_s int e^-lambda eps_hat dlambda

from `lambda_t` to `lambda_s` (Eq. 8, Lu et al. 2022b; Eq. 3.4, Lu et al. 2022a). They are
the same equation with `(x_0, alpha, lambda)` and `(eps, sigma, -lambda)` exchanged. With `f` for
`x_0_hat` or `eps_hat`, `a` for `alpha` or `sigma` and `l` for `lambda` or `-lambda`, both forms
give `x_s` as a DDIM step plus

    a_s int_0^h e^(tau - h) (f(l_t + tau) - f(l_t)) dtau,  h = l_s - l_t

In the integral `f` is a polynomial through past values (multistep) or through values within the
step (singlestep). It is omitted where `l_t` or `l_s` is infinite, as at `sigma_s = 0`, and in the
noise form where the step is too long for it (`ddim.far`).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.ddim import far, noise_estimate
from diffusion_jax.samplers.multistep import History
from diffusion_jax.samplers.ode import straight_step
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step

SERIES = 18  # terms of the power series, sufficient for float64 up to argument 1


class Form(NamedTuple):
    """A data or noise form: the letters `a`, `l` and `f` of this module."""

    scale: Callable[[Schedule, Array], Array]  # `(schedule, t) -> a_t`
    sign: int  # `l = sign lambda`
    value: Callable[[Schedule, Array, Array, Array], Array]  # `(schedule, x_t, x_0, t) -> f`

    def node(self, schedule: Schedule, t: Array) -> Array:
        """`l_t`."""
        return self.sign * schedule.logsnr(t) / 2


DATA = Form(lambda schedule, t: schedule.alpha(t), 1, lambda schedule, x_t, x_0, t: x_0)
NOISE = Form(lambda schedule, t: schedule.sigma(t), -1, noise_estimate)


def phi(z: Array, num: int) -> list[Array]:
    """`phi_1(z) .. phi_num(z)`, `phi_k(z) = sum_n z^n / (n + k)!` (Hochbruck & Ostermann 2010).

    `phi_1 = expm1(z) / z` and `phi_k = z phi_(k+1) + 1 / k!`: the recursion runs downwards from
    the power series for small `z` and upwards otherwise, which avoids cancellation in both cases.
    """
    small = jnp.abs(z) < 1
    series, large = jnp.where(small, z, 0.0), jnp.where(small, 1.0, z)
    upwards = [jnp.expm1(large) / large]
    for k in range(1, num):
        upwards.append((upwards[-1] - 1 / math.factorial(k)) / large)
    top = jnp.zeros_like(z)
    for n in reversed(range(SERIES)):
        top = top * series + 1 / math.factorial(n + num)
    downwards = [top]
    for k in reversed(range(1, num)):
        downwards.insert(0, series * downwards[0] + 1 / math.factorial(k))
    return [jnp.where(small, d, u) for d, u in zip(downwards, upwards, strict=True)]


def moments(h: Array, num: int) -> list[Array]:
    """`int_0^h e^(tau - h) tau^j dtau = j! h^(j+1) phi_(j+1)(-h)` for `j < num`."""
    return [math.factorial(j) * h ** (j + 1) * p for j, p in enumerate(phi(-h, num))]


def step_size(form: Form, schedule: Schedule, t: Array, s: Array) -> tuple[Array, Array]:
    """`h = l_s - l_t`, or 0 where it is not usable; and whether it is (finite and not `far`)."""
    h = form.node(schedule, s) - form.node(schedule, t)
    useful = jnp.isfinite(h) & (True if form is DATA else ~far(schedule, t, s))
    return jnp.where(useful, h, 0.0), useful


@checked(order=(1, 2, 3))
def dpmpp_multistep(schedule: Schedule, order: int = 2, exact: bool = False) -> Sampler:
    """DPM-Solver++ of order 1 (DDIM), 2 ("2M") or 3 ("3M"), Lu et al. 2022b.

    The polynomial goes through the last `order` values of `x_0_hat` (fewer in the first steps). As
    published its integral is approximate: 2M (Algorithm 2) replaces `int e^(tau - h) tau dtau` by
    `h (1 - e^-h) / 2`, as does the second step of 3M, and 3M (the authors' code, k-diffusion,
    diffusers) halves the quadratic term, which makes it second-order. `exact` integrates exactly.
    """

    def integrals(h: Array, known: Array) -> list[Array]:
        m = moments(h, order)
        if not exact and order > 1:
            m[1] = jnp.where(known == 2, h * m[0] / 2, m[1])
        if not exact and order > 2:
            m[2] = m[2] / 2
        return m

    return _multistep(schedule, DATA, order, integrals)


@checked(order=(1, 2, 3), polynomial=("log_rho", "t"))
def deis(schedule: Schedule, order: int = 3, polynomial: str = "log_rho") -> Sampler:
    """DEIS: the polynomial through the last `order` values `eps_hat` (Zhang & Chen 2023, Eq. 14).

    The first steps use fewer values. The polynomial is in "log_rho", `log(sigma / alpha)`,
    integrated exactly as in diffusers, or in "t" (tAB-DEIS), by quadrature. In `sigma / alpha`
    (rho-AB) the method is `ode.lms`.
    """
    if polynomial == "t":
        return _deis_in_time(schedule, order)
    return _multistep(schedule, NOISE, order, lambda h, known: moments(h, order))


def _multistep(
    schedule: Schedule, form: Form, order: int, integrals: Callable[[Array, Array], list[Array]]
) -> Sampler:
    """Exponential Adams-Bashforth method; `integrals` are the moments of a step."""

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        value = form.value(schedule, x_t, x_0, t)
        state = multistep.push(state, form.node(schedule, t), value)
        h, _ = step_size(form, schedule, t, s)
        change = multistep.correction(state, h, integrals(h, state.known))
        x_s = straight_step(schedule, x_t, x_0, t, s) + form.scale(schedule, s) * change
        return x_s, state

    return Sampler(init=lambda x_T: multistep.empty(x_T, order), step=step)


def _deis_in_time(schedule: Schedule, order: int) -> Sampler:
    """tAB-DEIS: `alpha_s int (p(tau) - f_0) drho` with `rho = sigma / alpha` and `p` in time.

    Integration by parts removes the derivative of rho: `int tau^j drho = j int tau^(j-1)
    (rho_s - rho) dtau`, by Gauss-Legendre quadrature.
    """
    points, weights = np.polynomial.legendre.leggauss(16)

    def integrals(t: Array, s: Array) -> list[Array]:
        tau = (s - t) * (points + 1) / 2
        alpha, alpha_s = schedule.alpha(t + tau), schedule.alpha(s)
        rise = schedule.sigma(s) - schedule.sigma(t + tau) * alpha_s / alpha
        measure = (s - t) * weights / 2 * rise
        first = jnp.zeros_like(t)
        return [first, *(j * jnp.sum(measure * tau ** (j - 1)) for j in range(1, order))]

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        state = multistep.push(state, t, noise_estimate(schedule, x_t, x_0, t))
        change = multistep.correction(state, s - t, integrals(t, s))
        return straight_step(schedule, x_t, x_0, t, s) + change, state

    return Sampler(init=lambda x_T: multistep.empty(x_T, order), step=step)


def dpmpp_singlestep(schedule: Schedule, order: int = 2) -> Sampler:
    """DPM-Solver++ of order 2 ("2S", Algorithm 1, Lu et al. 2022b, r = 1/2) or 3 ("3S").

    3S follows the authors' code, with values at one and two thirds of the step: Algorithm 2 of Lu
    et al. 2022a in the data form.
    """
    return _singlestep(schedule, DATA, order)


def dpm_solver(schedule: Schedule, order: int = 2) -> Sampler:
    """DPM-Solver-2 or -3 (Algorithms 1 and 2, Lu et al. 2022a): the noise form, singlestep."""
    return _singlestep(schedule, NOISE, order)


@checked(order=(2, 3))
def _singlestep(schedule: Schedule, form: Form, order: int) -> Sampler:
    """Exponential Runge-Kutta method: each intermediate value gives the slope for the next.

    Where `h` is not usable, the extra evaluations are at `t` again and have no effect.
    """

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        h, finite = step_size(form, schedule, t, s)
        l_t = jnp.where(finite, form.node(schedule, t), 0.0)
        x_0 = denoise(x_t, t).x_0
        f = form.value(schedule, x_t, x_0, t)
        gradient = jnp.zeros_like(x_t)  # of f in l

        def advanced(to: Array) -> Array:
            part, _ = step_size(form, schedule, t, to)
            m = moments(part, 2)
            rule = part * m[0] / 2 if order == 2 else m[1]
            straight = straight_step(schedule, x_t, x_0, t, to)
            return straight + form.scale(schedule, to) * rule * gradient

        for i in range(1, order):
            r = schedule.time_at(2 * form.sign * (l_t + h * i / order))
            r = jnp.where(finite, r, t)
            x_r = advanced(r)
            change = form.value(schedule, x_r, denoise(x_r, r).x_0, r) - f
            distance, _ = step_size(form, schedule, t, r)
            apart = distance != 0
            gradient = jnp.where(apart, change / jnp.where(apart, distance, 1.0), 0.0)
        return advanced(s), state

    return Sampler(init=lambda x_T: (), step=step, evaluations=order)


class UniPCState(NamedTuple):
    """Values that a step keeps for the corrector of the next."""

    x: Array  # `[B, ...]`, the corrected `x_t`
    t: Array  # `[]`, its time
    history: History  # `x_0_hat` at `t` and before


@checked(order=(1, 2, 3), variant=("bh1", "bh2"))
def unipc(schedule: Schedule, order: int = 2, variant: str = "bh2") -> Sampler:
    """UniPC of `order` 1, 2 or 3 in its form for data prediction (Sec. 3, Zhao et al. 2023).

    UniC corrects `x_t` before each step: it repeats the previous step with the polynomial in
    `lambda` through the last `order` values `x_0_hat` and the new one at `x_t`, which the next step
    needs anyway. UniP then predicts `x_s` from the last `order` values. Both are exponential Adams
    methods as above, and `B(h)` matters only for polynomials of degree one, whose coefficient is
    set to 1/2: there `int e^(tau - h) tau dtau` becomes `h B(h) / 2` with `B(h) = h` ("bh1") or
    `1 - e^-h` ("bh2"). The order of convergence is `order + 1`. The first steps use fewer values,
    and a step to `sigma_s = 0` is DDIM's.
    """

    def change(history: History, t: Array, s: Array) -> Array:
        h, _ = step_size(DATA, schedule, t, s)
        m = moments(h, len(history.nodes))
        if len(m) > 1:
            b = h if variant == "bh1" else m[0]
            m[1] = jnp.where(history.known == 2, h * b / 2, m[1])
        return schedule.alpha(s) * multistep.correction(history, h, m)

    def corrected(state: UniPCState, x_t: Array, x_0: Array, t: Array) -> Array:
        history, node = state.history, DATA.node(schedule, t)
        nodes = jnp.insert(history.nodes, 1, jnp.where(jnp.isfinite(node), node, 0.0))
        values = jnp.insert(history.values, 1, x_0, axis=0)
        extended = History(nodes, values, history.known + 1)
        x = straight_step(schedule, state.x, history.values[0], state.t, t)
        x += change(extended, state.t, t)
        return jnp.where(history.known > 0, x, x_t)

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        x_t = corrected(state, x_t, x_0, t)
        history = multistep.push(state.history, DATA.node(schedule, t), x_0)
        x_s = straight_step(schedule, x_t, x_0, t, s) + change(history, t, s)
        return x_s, UniPCState(x_t, t.astype(x_t.dtype), history)

    def init(x_T: Array) -> UniPCState:  # time 1 is a placeholder with sigma > 0
        return UniPCState(x_T, jnp.ones((), x_T.dtype), multistep.empty(x_T, order))

    return Sampler(init, step)
