"""Exponential integrators: order, published steps, and both ends of every schedule."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.exponential import (
    deis,
    dpm_solver,
    dpmpp_multistep,
    dpmpp_singlestep,
    phi,
    unipc,
)
from tests.oracles import SCHEDULES
from tests.trajectories import (
    START,
    assert_whole,
    constant_states,
    few,
    measured_order,
    order_of_return,
    run,
    times_asked,
    x_0_hat,
)

SOLVERS = {
    "2m": (dpmpp_multistep, 2),
    "2m_exact": (functools.partial(dpmpp_multistep, exact=True), 2),
    "3m": (functools.partial(dpmpp_multistep, order=3), 2),
    "3m_exact": (functools.partial(dpmpp_multistep, order=3, exact=True), 3),
    "deis2": (functools.partial(deis, order=2), 2),
    "deis3": (deis, 3),
    "2s": (dpmpp_singlestep, 2),
    "3s": (functools.partial(dpmpp_singlestep, order=3), 3),
    "dpm2": (dpm_solver, 2),
    "dpm3": (functools.partial(dpm_solver, order=3), 3),
    "unipc1": (functools.partial(unipc, order=1), 2),
    "unipc2": (unipc, 3),
    "unipc2_bh1": (functools.partial(unipc, variant="bh1"), 3),
    "unipc3": (functools.partial(unipc, order=3), 4),
}
TIME_DEIS = functools.partial(deis, polynomial="t")
ALL = {**SOLVERS, "deis3_t": (TIME_DEIS, 3)}
NAMES = ("linear_beta", "sub_vp", "flow", "edm", "ve")
solvers = pytest.mark.parametrize("solver", ALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("solver", SOLVERS)
def test_order_of_convergence(x64, solver, name):
    """From an exact start; 3M as published is of order two, UniPC-p of order p + 1."""
    factory, order = SOLVERS[solver]
    measured = measured_order(factory, name, forced=0 if "s" in solver[1:2] else 3)
    assert abs(measured - order) < 0.15


@pytest.mark.parametrize("name", NAMES)
def test_order_of_deis_in_time(x64, name):
    """On the schedule itself: a table of it, straight between times, would bound the order by 2."""
    measured = measured_order(TIME_DEIS, name, (200, 400), forced=3, itself=True)
    assert abs(measured - 3) < 0.15


@pytest.mark.parametrize(("solver", "own"), [("3m_exact", 2), ("deis3", 2), ("unipc3", 3)])
def test_a_start_of_order_p_bounds_the_order_by_p_plus_1(x64, solver, own):
    """The first step of UniPC is corrected, p = 2; that of the others is DDIM, p = 1."""

    def from_the_middle(name, steps):
        # Small steps where the first is made: it is as large as any.
        return np.linspace(0.5, 0.45, steps + 1)

    factory, order = SOLVERS[solver]
    measured = [
        measured_order(factory, "flow", (40, 80), from_the_middle, forced) for forced in (0, 3)
    ]
    np.testing.assert_allclose(measured, [own, order], atol=0.15)


@solvers
def test_run_to_noise_and_back_returns(x64, solver):
    assert order_of_return(ALL[solver][0], "flow") > 1.8


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEDULES)
@solvers
def test_from_noise_to_data_in_float32(solver, name):
    # In time Laplace's levels are so steep at both ends that no polynomial follows them.
    steep = solver == "deis3_t" and name == "laplace"
    assert_whole(ALL[solver][0], name, np.inf if steep else 0.1)


@pytest.mark.parametrize("times", [[0.8, 0.5, 0.3, 0.0], [1.0, 0.4, 0.2, 0.0], [0.2, 0.5, 1.0]])
@solvers
def test_constant_x_0_hat_is_exact(x64, solver, times):
    states, exact = constant_states(ALL[solver][0], "flow", times)
    np.testing.assert_allclose(states, exact, rtol=1e-10, atol=1e-12)


def test_polynomial_through_past_values(x64):
    """Of degree three if there are four of them; those before an infinite node do not count."""
    f, h = np.polynomial.Polynomial([0.3, -1.0, 2.0, 0.7]), 0.4
    push, correction = jax.jit(multistep.push), jax.jit(multistep.correction)
    history = multistep.empty(jnp.zeros((1, 1)), 4)
    moments = [h ** (j + 1) / (j + 1) for j in range(4)]
    for node in (0.1, 0.5, 0.6, 1.1):
        history = push(history, jnp.array(node), jnp.full((1, 1), f(node)))
    exact = f.integ()(node + h) - f.integ()(node) - h * f(node)
    np.testing.assert_allclose(correction(history, h, moments), exact, rtol=1e-12)
    for node in (np.inf, np.inf, 0.7, 1.1):
        history = push(history, jnp.array(node), jnp.full((1, 1), f(min(node, 2.0))))
    linear = h**2 / 2 * (f(1.1) - f(0.7)) / 0.4
    np.testing.assert_allclose(correction(history, h, moments), linear, rtol=1e-12)
    assert correction(history, 5.01 * 0.4, moments) == 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_phi_functions(x64, dtype, tolerance):
    """`phi_k(z) = int_0^1 e^((1 - x) z) x^(k - 1) / (k - 1)! dx`, where it must not cancel too."""
    z = np.concatenate([[0.0], *(sign * np.geomspace(1e-6, 30, 40) for sign in (1, -1))])
    x, w = np.polynomial.legendre.leggauss(60)
    x, w = (x + 1) / 2, w / 2
    for k, value in enumerate(phi(jnp.asarray(z, dtype), 4), 1):
        exact = np.exp((1 - x) * z[:, None]) @ (w * x ** (k - 1)) / math.factorial(k - 1)
        assert value.dtype == dtype
        np.testing.assert_allclose(value, exact, rtol=10 * tolerance)


@pytest.mark.slow
@solvers
def test_denoiser_is_asked_as_often_as_said_and_never_without_noise(x64, solver):
    asked, sampler = times_asked(ALL[solver][0], "flow", [0.6, 0.3, 0.0])
    assert [len(times) for times in asked] == [sampler.evaluations] * 2
    assert min(map(min, asked)) > 0


# Published steps, in NumPy.


def eps_hat(x, alpha, sigma):
    return (x - alpha * x_0_hat(x, alpha, sigma)) / sigma


def test_2m_is_algorithm_2_of_lu(x64):
    times, alpha, sigma, lam, x = few("ddpm")
    states, past = run(dpmpp_multistep, "ddpm", times, x), []
    for i in range(len(times) - 1):
        past = [x_0_hat(x, alpha[i], sigma[i]), *past]
        h, d = lam[i + 1] - lam[i], past[0]
        if i > 0:
            r = (lam[i] - lam[i - 1]) / h
            d = (1 + 1 / (2 * r)) * past[0] - 1 / (2 * r) * past[1]
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * (np.exp(-h) - 1) * d
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


def test_3m_as_published(x64):
    """The authors' `multistep_dpm_solver_third_update`, from its third step on."""
    times, alpha, sigma, lam, x = few("ddpm")
    states = run(SOLVERS["3m"][0], "ddpm", times, x)
    model = [x_0_hat(*v) for v in zip(states, alpha, sigma, strict=True)]
    for i in range(2, len(times) - 1):
        h, h_0, h_1 = lam[i + 1] - lam[i], lam[i] - lam[i - 1], lam[i - 1] - lam[i - 2]
        r_0, r_1 = h_0 / h, h_1 / h
        d1_0, d1_1 = (model[i] - model[i - 1]) / r_0, (model[i - 1] - model[i - 2]) / r_1
        d1 = d1_0 + r_0 / (r_0 + r_1) * (d1_0 - d1_1)
        d2 = (d1_0 - d1_1) / (r_0 + r_1)
        phi_1 = np.expm1(-h)
        phi_2 = phi_1 / h + 1
        phi_3 = phi_2 / h - 0.5
        x = sigma[i + 1] / sigma[i] * states[i] - alpha[i + 1] * (
            phi_1 * model[i] - phi_2 * d1 + phi_3 * d2
        )
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


def lagrange_integrals(weight, start, end, nodes):
    """`int_start^end weight(c) L_j(c) dc` for the Lagrange polynomials of `nodes`."""
    points, weights = np.polynomial.legendre.leggauss(40)
    c, w = start + (end - start) * (points + 1) / 2, (end - start) / 2 * weights
    for j, node in enumerate(nodes):
        others = np.delete(nodes, j)
        lagrange = np.prod([(c - o) / (node - o) for o in others], axis=0)
        yield np.sum(w * weight(c) * lagrange)


@pytest.mark.parametrize(
    ("solver", "order"), [("2m_exact", 2), ("3m_exact", 3), ("deis2", 2), ("deis3", 3)]
)
def test_multistep_integrates_the_polynomial_exactly(x64, solver, order):
    """Eq. 8 of Lu et al. 2022b, and Eq. 3.4 of Lu et al. 2022a for DEIS, by quadrature."""
    times, alpha, sigma, lam, x = few("ddpm")
    states, past = run(SOLVERS[solver][0], "ddpm", times, x), []
    noise = "deis" in solver
    for i in range(len(times) - 1):
        value = (eps_hat if noise else x_0_hat)(x, alpha[i], sigma[i])
        past = [value, *past][:order]
        nodes = lam[i::-1][: len(past)]
        sign = -1 if noise else 1
        integrals = lagrange_integrals(lambda c: np.exp(sign * c), lam[i], lam[i + 1], nodes)  # noqa: B023
        ratio, scale = (alpha, -alpha) if noise else (sigma, sigma)
        x = ratio[i + 1] / ratio[i] * x + scale[i + 1] * sum(
            c * v for c, v in zip(integrals, past, strict=True)
        )
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


def test_deis_in_time_integrates_the_polynomial_in_time(x64):
    """On the flow `rho = t / (1 - t)`, `drho = dt / (1 - t)^2` (Eqs. 14-15, Zhang & Chen 2023)."""
    times, alpha, sigma, _, x = few("flow")
    states, past = run(TIME_DEIS, "flow", times, x), []
    for i in range(len(times) - 1):
        past = [eps_hat(x, alpha[i], sigma[i]), *past][:3]
        nodes = times[i::-1][: len(past)]
        integrals = lagrange_integrals(lambda c: (1 - c) ** -2, times[i], times[i + 1], nodes)
        mean = sum(c * v for c, v in zip(integrals, past, strict=True))
        x = alpha[i + 1] * (x / alpha[i] + mean)
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-8)


def preserving(lam):
    """`alpha` and `sigma` of a variance-preserving schedule: any would do on the way."""
    return np.sqrt(1 / (1 + np.exp(-2 * lam))), np.sqrt(1 / (1 + np.exp(2 * lam)))


@pytest.mark.parametrize("solver", ["2s", "3s", "dpm2", "dpm3"])
def test_singlestep_as_published(x64, solver):
    """2S: Algorithm 1, Lu et al. 2022b. Others: Algorithms 1, 2 of Lu et al. 2022a.

    3S is Algorithm 2 there with data for noise.
    """
    times, alpha, sigma, lam, x = few("ddpm")
    states = run(SOLVERS[solver][0], "ddpm", times, x)
    noise, third = "dpm" in solver, "3" in solver
    model = eps_hat if noise else x_0_hat
    for i in range(len(times) - 1):
        h, start, state = lam[i + 1] - lam[i], model(x, alpha[i], sigma[i]), x

        def to(a, s, h, change, factor):
            if noise:
                straight = a / alpha[i] * state - s * np.expm1(h) * start  # noqa: B023
                return straight - s * factor * change
            straight = s / sigma[i] * state - a * np.expm1(-h) * start  # noqa: B023
            return straight + a * factor * change

        psi = (lambda h: np.expm1(h) / h - 1) if noise else (lambda h: np.expm1(-h) / h + 1)
        if third:
            one, two = preserving(lam[i] + h / 3), preserving(lam[i] + 2 * h / 3)
            change = model(to(*one, h / 3, 0, 0), *one) - start
            change = model(to(*two, 2 * h / 3, change, 2 * psi(2 * h / 3)), *two) - start
            x = to(alpha[i + 1], sigma[i + 1], h, change, 1.5 * psi(h))
        else:
            half = preserving(lam[i] + h / 2)
            change = model(to(*half, h / 2, 0, 0), *half) - start
            x = to(alpha[i + 1], sigma[i + 1], h, change, abs(np.expm1(h if noise else -h)))
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


@pytest.mark.parametrize("solver", ["unipc1", "unipc2", "unipc2_bh1", "unipc3"])
def test_unipc_as_published(x64, solver):
    """Zhao et al. 2023, Sec. 3: `rho` from `R rho = b`, or 1/2 if it is a number."""
    times, alpha, sigma, lam, x = few("ddpm")
    order, bh1 = int(solver[5]), solver.endswith("bh1")
    states, past, before = run(SOLVERS[solver][0], "ddpm", times, x), [], None

    def update(x, i, values, nodes):
        """From time `i` to the next by `values[0]` and those at other `nodes`, in units of h."""
        h = lam[i] - lam[i + 1]
        b_h = h if bh1 else np.expm1(h)
        changes = [(v - values[0]) / r for v, r in zip(values[1:], nodes, strict=True)]
        right, term = [], np.expm1(h) / h - 1
        for k in range(1, len(nodes) + 1):
            right.append(term * math.factorial(k) / b_h)
            term = term / h - 1 / math.factorial(k + 1)
        matrix = np.array([np.power(nodes, k) for k in range(len(nodes))])
        rho = [0.5] if len(nodes) == 1 else np.linalg.solve(matrix, right) if len(nodes) else []
        x = sigma[i + 1] / sigma[i] * x - alpha[i + 1] * np.expm1(h) * values[0]
        return x - alpha[i + 1] * b_h * sum(r * c for r, c in zip(rho, changes, strict=True))

    def nodes_before(i, num):
        return [(lam[i - k] - lam[i]) / (lam[i + 1] - lam[i]) for k in range(1, num)]

    for i in range(len(times) - 1):
        value = x_0_hat(x, alpha[i], sigma[i])
        if i > 0:
            x = update(before, i - 1, [*past, value], [*nodes_before(i - 1, len(past)), 1.0])
        past, before = [value, *past][:order], x
        x = update(x, i, past, nodes_before(i, len(past)))
        np.testing.assert_allclose(states[i + 1], x, rtol=1e-9)


def test_a_step_that_leads_nowhere_changes_nothing(x64):
    """Times may repeat, as they do where float32 cannot tell them apart."""
    times = np.array([0.9, 0.7, 0.5, 0.5, 0.4])
    for factory, _ in ALL.values():
        states = run(factory, "flow", times, START)
        assert np.isfinite(states).all()
        if "unipc" not in str(factory):
            np.testing.assert_allclose(states[3], states[2], rtol=1e-12)
