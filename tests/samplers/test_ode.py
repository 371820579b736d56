"""Solvers of the probability-flow ODE: order, published steps, both ends of every schedule."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.samplers.adaptive import adaptive
from diffusion_jax.samplers.ode import euler, heun, ipndm, lms, midpoint, pndm, rk4
from tests.oracles import SCHEDULES
from tests.trajectories import (
    START,
    assert_whole,
    constant_states,
    even_ratios,
    evenly,
    exact_states,
    few,
    measured_order,
    order_of_return,
    run,
    times_asked,
    x_0_hat,
)

SOLVERS = {
    "euler": (euler, 1),
    "heun": (heun, 2),
    "heun_ve": (functools.partial(heun, scaling="ve"), 2),
    "midpoint": (midpoint, 2),
    "midpoint_ve": (functools.partial(midpoint, scaling="ve"), 2),
    "rk4": (rk4, 4),
    "rk4_ve": (functools.partial(rk4, scaling="ve"), 4),
    "ipndm": (ipndm, 4),
    "pndm": (pndm, 4),
    "lms": (lms, 4),
    "lms_flow": (functools.partial(lms, scaling="flow"), 4),
}
MULTISTEP = ("ipndm", "pndm", "lms", "lms_flow")
EQUAL_STEPS = ("ipndm", "pndm")
NAMES = ("linear_beta", "sub_vp", "flow", "edm", "ve")
solvers = pytest.mark.parametrize("solver", SOLVERS)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@solvers
def test_order_of_convergence(x64, solver, name):
    """The multistep methods from an exact start: with a method's own see the next test."""
    factory, order = SOLVERS[solver]
    steps = (200, 400) if order == 4 and solver not in MULTISTEP else (400, 800)
    grid = even_ratios if solver in EQUAL_STEPS else evenly
    forced = 3 if solver in MULTISTEP else 0
    measured = measured_order(factory, name, steps, grid, forced)
    assert abs(measured - order) < 0.15


def from_the_middle(name, steps):
    """Evenly in `sigma / alpha` from 1 to 1/2, where the first step matters as much as any."""
    ratio = np.linspace(1.0, 0.5, steps + 1)
    return np.asarray(SCHEDULES[name].time_at(jnp.asarray(-2 * np.log(ratio))))


@pytest.mark.parametrize(
    ("solver", "own", "exact"), [("ipndm", 2, 4), ("pndm", 3, 4), ("lms", 2, 4), ("lms_flow", 2, 4)]
)
def test_a_start_of_order_p_bounds_the_order_by_p_plus_1(x64, solver, own, exact):
    """One step of order p is O(h^(p + 1)) off: Euler's (p = 1) all others, Heun's (p = 2) PNDM."""
    factory = SOLVERS[solver][0]
    measured = [
        measured_order(factory, "flow", (200, 400), from_the_middle, forced) for forced in (0, 3)
    ]
    np.testing.assert_allclose(measured, [own, exact], atol=0.15)


@solvers
def test_run_to_noise_and_back_returns(x64, solver):
    factory, order = SOLVERS[solver]
    least = 2 if solver in MULTISTEP else order
    assert order_of_return(factory, "flow") > least - 0.2


@pytest.mark.parametrize("name", SCHEDULES)
@solvers
def test_from_noise_to_data_in_float32(solver, name):
    assert_whole(SOLVERS[solver][0], name, 0.1)


@pytest.mark.parametrize("times", [[0.8, 0.5, 0.3, 0.0], [1.0, 0.4, 0.2, 0.0], [0.2, 0.5, 1.0]])
@solvers
def test_constant_x_0_hat_is_exact(x64, solver, times):
    states, exact = constant_states(SOLVERS[solver][0], "flow", times)
    np.testing.assert_allclose(states, exact, rtol=1e-10, atol=1e-12)


@solvers
def test_denoiser_is_asked_as_often_as_said_and_never_without_noise(x64, solver):
    asked, sampler = times_asked(SOLVERS[solver][0], "flow", [0.6, 0.3, 0.0])
    assert [len(times) for times in asked] == [sampler.total(1), sampler.evaluations]
    assert sampler.total(2) == sum(map(len, asked))
    assert min(map(min, asked)) > 0


@pytest.mark.parametrize("solver", ["heun_ve", "midpoint_ve", "rk4_ve", "ipndm", "pndm", "lms"])
def test_step_from_an_infinite_coordinate_is_ddim(x64, solver):
    times = np.array([1.0, 0.6])
    expected = run(euler, "flow", times, START)
    np.testing.assert_allclose(run(SOLVERS[solver][0], "flow", times, START), expected, rtol=1e-12)


# Published steps, in NumPy.


def slopes(alpha, sigma):
    """`eps_hat` at `y = x / alpha`, by step."""
    return lambda y, i: (y - x_0_hat(alpha[i] * y, alpha[i], sigma[i])) / (sigma[i] / alpha[i])


def test_heun_is_algorithm_1_of_karras(x64):
    times, alpha, sigma, _, x = few("ddpm")
    states = run(SOLVERS["heun_ve"][0], "ddpm", times, x)
    u, d, y = sigma / alpha, slopes(alpha, sigma), x / alpha[0]
    for i in range(len(times) - 1):
        first = d(y, i)
        second = d(y + (u[i + 1] - u[i]) * first, i + 1)
        y = y + (u[i + 1] - u[i]) * (first + second) / 2
        np.testing.assert_allclose(states[i + 1], alpha[i + 1] * y, rtol=1e-9)


@pytest.mark.parametrize("solver", ["midpoint", "rk4"])
def test_runge_kutta_in_the_time_of_flow_matching(x64, solver):
    """On this schedule `x' = eps - x_0` with `u = t`, and these are the textbook's steps."""
    times, *_, x = few("flow")
    states = run(SOLVERS[solver][0], "flow", times, x)
    v = lambda x, t: (x - x_0_hat(x, 1 - t, t)) / t  # noqa: E731
    for t, h, state in zip(times, np.diff(times), states[1:], strict=False):
        k1 = v(x, t)
        k2 = v(x + h / 2 * k1, t + h / 2)
        k3 = v(x + h / 2 * k2, t + h / 2)
        if solver == "rk4":
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + v(x + h * k3, t + h))
        else:
            x = x + h * k2
        np.testing.assert_allclose(state, x, rtol=1e-9)


@pytest.mark.parametrize("solver", ["ipndm", "pndm"])
def test_pseudo_numerical_methods(x64, solver):
    """Eq. 9 (`phi`) and Eq. 12 of Liu et al. 2022, whose alpha_bar is `alpha^2` here."""
    times, alpha, sigma, _, x = few("ddpm", 8)
    states = run(SOLVERS[solver][0], "ddpm", times, x)
    bar = alpha**2

    def phi(x, eps, i):
        now, then = bar[i], bar[i + 1]
        both = np.sqrt((1 - then) * now) + np.sqrt((1 - now) * then)
        return np.sqrt(then / now) * x - (then - now) / (np.sqrt(now) * both) * eps

    eps_at = lambda x, i: (x - alpha[i] * x_0_hat(x, alpha[i], sigma[i])) / sigma[i]  # noqa: E731
    past = []
    for i in range(len(times) - 1):
        past = [eps_at(x, i), *past][:4]
        if i == 0 and solver == "pndm":
            mean = (past[0] + eps_at(phi(x, past[0], 0), 1)) / 2
        elif i == 0:
            mean = past[0]
        elif i == 1:
            mean = (3 * past[0] - past[1]) / 2
        elif i == 2:
            mean = (23 * past[0] - 16 * past[1] + 5 * past[2]) / 12
        else:
            mean = (55 * past[0] - 59 * past[1] + 37 * past[2] - 9 * past[3]) / 24
        x = phi(x, mean, i)
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


def test_lms_integrates_the_polynomial_through_past_slopes(x64):
    times, alpha, sigma, _, x = few("ddpm", 8)
    states = run(lms, "ddpm", times, x)
    u, d, y, past = sigma / alpha, slopes(alpha, sigma), x / alpha[0], []
    for i in range(len(times) - 1):
        past = [d(y, i), *past][:4]
        for j in range(len(past)):
            others = [u[i - k] for k in range(len(past)) if k != j]
            lagrange = np.poly1d(others, r=True) / np.prod([u[i - j] - o for o in others])
            primitive = lagrange.integ()
            y = y + (primitive(u[i + 1]) - primitive(u[i])) * past[j]
        np.testing.assert_allclose(states[i + 1], alpha[i + 1] * y, rtol=1e-9)


# Steps of its own size.


@pytest.mark.parametrize("name", SCHEDULES)
def test_adaptive_from_noise_to_data_in_float32(name):
    assert_whole(adaptive, name, 1e-3)


@pytest.mark.slow
def test_adaptive_keeps_its_tolerance(x64):
    times = np.array([1.0, 0.0])
    exact = exact_states("flow", times)
    errors = []
    for tolerance in (1e-3, 1e-6):
        factory = functools.partial(adaptive, rtol=tolerance, atol=tolerance)
        errors.append(np.max(np.abs(run(factory, "flow", times, exact[0])[-1] - exact[-1])))
    assert errors[0] < 1e-2
    # From u = 1e-3 to 0 it is DDIM, which leaves about 1e-6.
    assert errors[1] < 1e-5
