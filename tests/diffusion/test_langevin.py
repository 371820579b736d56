"""CLD: moments, score and flow compared with the equations in (x, v), and the sampler with these.

The references are computed from the SDE's own matrices, in a time with beta and M, by `solve_ivp`
and 2 x 2 algebra in NumPy.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from diffusion_jax.diffusion.corruption import (
    diffuse,
    posterior_mean,
    reverse_variances,
    sample_noise,
)
from diffusion_jax.diffusion.langevin import TAUS, Langevin
from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.samplers.cld import cld
from diffusion_jax.types import Array, Denoised
from tests.oracles import SCHEDULES, assert_own_and_right, karras_times, keys_of, three_components
from tests.trajectories import Table, whole, x_0_hat

BETA, MASS = 4.0, 0.25
GAMMA = 2 * MASS**0.5
DRIFT = BETA * np.array([[0.0, 1 / MASS], [-1.0, -GAMMA / MASS]])
NOISE = 2 * GAMMA * BETA * np.diag([0.0, 1.0])
"""Eq. 5, Dockhorn et al. 2022: `dz = DRIFT z dt + sqrt(NOISE) dw`, critically damped."""
RATE = BETA / MASS**0.5
UNITS = np.array([1.0, MASS**0.5])
"""`tau = RATE t`, and (x, v) of the paper is `UNITS` times ours."""
TIMES = np.array([1e-3, 0.05, 0.4, 1.0, 6.0])
gammas = pytest.mark.parametrize("gamma", [0.0, 0.04, 1.0])


@functools.cache
def moments(gamma, tau):
    """Mean `[2]` for `x_0 = 1` and covariance `[2, 2]` at `tau`, in our units."""

    def rates(_, y):
        cov = y[2:].reshape(2, 2)
        return np.concatenate([DRIFT @ y[:2], (DRIFT @ cov + cov @ DRIFT.T + NOISE).ravel()])

    start = np.array([1.0, 0.0, 0.0, 0.0, 0.0, gamma * MASS])
    y = solve_ivp(rates, (0, tau / RATE), start, "DOP853", rtol=1e-12, atol=1e-18).y[:, -1]
    return y[:2] / UNITS, y[2:].reshape(2, 2) / np.outer(UNITS, UNITS)


class Basis(NamedTuple):
    """What a state is made of, each `[2, ...]` for times `[...]`, in float64.

    Attributes:
        mu: of `x_0`.
        e: of the noise in the picture.
        f: of the noise that is not in the picture.
    """

    mu: np.ndarray
    e: np.ndarray
    f: np.ndarray


class States(Langevin):
    """States (x, v) of the process, pixels and velocities `[*tau, ...]`.

        (x, v) = mu x_0 + e eps + f w,    mu = e^-tau (1 + tau, -tau)
        e = mu / sqrt(SNR),    f = (tau k, 2 tau + (1 - tau) k) / sqrt(p)

    in which `e e^T + f f^T` is the covariance of App. B, Dockhorn et al. 2022.
    """

    def basis(self, tau: np.ndarray) -> Basis:
        """`mu`, `e` and `f`."""
        k, p, d = self._terms(tau)
        direction = np.stack([1 + tau, -tau])
        f = np.stack([tau * k, 2 * tau + (1 - tau) * k]) / np.sqrt(p)
        return Basis(np.exp(-tau) * direction, np.sqrt(d / p) * direction, f)

    def diffuse(self, x_0: Array, eps: Array, w: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """`(x, v) = mu x_0 + e eps + f w` from `x_0` and standard normal `eps`, `w`."""
        x, v = (_combined(row, (x_0, eps, w)) for row in np.stack(self.basis(tau), axis=1))
        return x, v

    def split(self, x: Array, v: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """The picture in units of its noise, `x_t / sigma_t = sqrt(SNR) x_0 + eps`, and `w`."""
        return self._solve(x, v, tau, transposed=False)

    def score(self, x: Array, v: Array, x_0: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """Gradient by x and v of their log density, `x_0` being its mean given (x, v) (Tweedie).

        `-(e e^T + f f^T)^-1 ((x, v) - mu x_0)`.
        """
        picture, w = self.split(x, v, tau)
        eps = _combined((np.ones_like(tau), -np.exp(0.5 * self.logsnr(tau))), (picture, x_0))
        s_x, s_v = self._solve(eps, w, tau, transposed=True)
        return -s_x, -s_v

    def _solve(self, x: Array, v: Array, tau: np.ndarray, transposed: bool) -> tuple[Array, Array]:
        """The inverse of the matrix with columns `e` and `f`, or of its transpose, times (x, v)."""
        _, (e_x, e_v), (f_x, f_v) = self.basis(tau)
        rows = ((f_v, -e_v), (-f_x, e_x)) if transposed else ((f_v, -f_x), (-e_v, e_x))
        first, second = (_combined(row, (x, v)) for row in np.array(rows) / (e_x * f_v - e_v * f_x))
        return first, second


def _combined(coefficients: Iterable[np.ndarray], parts: Iterable[Array]) -> Array:
    """`sum_i c_i y_i` of coefficients `[]` or `[B]` and `y_i` `[B, ...]`."""
    terms = [per_sample(jnp.asarray(c), y) * y for c, y in zip(coefficients, parts, strict=True)]
    return jnp.sum(jnp.stack(terms), axis=0)


@gammas
def test_moments_solve_their_equation(gamma):
    process = States(gamma)
    mu, e, f = process.basis(TIMES)
    covs = np.einsum("it,jt->tij", e, e) + np.einsum("it,jt->tij", f, f)
    for i, tau in enumerate(TIMES):
        mean, cov = moments(gamma, tau)
        np.testing.assert_allclose(mu[:, i], mean, rtol=1e-9)
        np.testing.assert_allclose(covs[i], cov, rtol=1e-8)
        snr = mean @ np.linalg.solve(cov, mean)
        np.testing.assert_allclose(process.logsnr(tau), np.log(snr), atol=1e-6)


@gammas
def test_at_both_ends(gamma):
    """`1 / SNR` rises as `4 tau^3 / 3`, of which v_0 = 0 leaves a quarter; it ends in no signal."""
    process, quarter = States(gamma), 1 if gamma else 4
    assert np.all(np.diff(process.logsnr(TAUS)) < 0)
    np.testing.assert_allclose(process.logsnr(1e-15), np.log(quarter * 3 / 4 * 1e45), rtol=1e-10)
    np.testing.assert_allclose(process.logsnr(40.0), np.log(2 * 40 * 41 + 1) - 80, rtol=1e-10)
    angles = process.angle(jnp.array([-jnp.inf, -1e3, 1e3, jnp.inf]))
    assert np.all(np.isfinite(angles))
    assert angles[0] == angles[1]
    assert angles[2] == angles[3]


def test_samples_are_of_the_law_and_split_again(x64):
    """`x_0 ~ N(0, 1/4)`; two times in one batch."""
    process, tau = States(), np.repeat([0.05, 0.8], 20_000)
    x_0, eps, w = jax.random.normal(jax.random.key(0), (3, len(tau)))
    x, v = process.diffuse(x_0 / 2, eps, w, tau)
    for i, part in enumerate(np.split(np.stack([x, v]), 2, axis=1)):
        mean, cov = moments(0.04, (0.05, 0.8)[i])
        whitened = np.linalg.solve(np.linalg.cholesky(cov + np.outer(mean, mean) / 4), part)
        assert np.max(np.abs(np.cov(whitened) - np.eye(2))) < 0.04  # 4 to 5 standard errors
    picture, again = process.split(x, v, tau)
    snr = np.exp(process.logsnr(tau))
    np.testing.assert_allclose(picture, np.sqrt(snr) * x_0 / 2 + eps, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(again, w, rtol=1e-9, atol=1e-10)


def log_density(z, gamma, tau):
    """Of (x, v) `[2, 2]`, pixels last, under the mixture: a mixture in four dimensions."""
    (mu, cov), mixture = moments(gamma, tau), three_components()
    covs = np.kron(np.outer(mu, mu), mixture.covs) + np.kron(cov, np.eye(2))
    logits = [
        jnp.log(weight)
        + jax.scipy.stats.multivariate_normal.logpdf(z.ravel(), np.outer(mu, mean).ravel(), c)
        for weight, mean, c in zip(mixture.weights, mixture.means, covs, strict=True)
    ]
    return jax.nn.logsumexp(jnp.stack(logits))


@pytest.mark.parametrize("gamma", [0.0, 0.04])
@pytest.mark.parametrize("tau", TIMES[1:])
def test_ordinary_denoiser_gives_the_score_of_the_joint_law(x64, gamma, tau):
    z = jnp.array([[[0.3, -0.8], [1.1, 0.4]], [[0.5, 0.2], [-0.7, 0.1]]])  # x and v of two
    score = jax.vmap(jax.grad(lambda z: log_density(z, gamma, tau)), 1, 1)(z)
    process = States(gamma)
    x_0 = x_0_hat(process.split(*z, tau)[0], np.exp(0.5 * process.logsnr(tau)), 1.0)
    np.testing.assert_allclose(process.score(*z, x_0, tau), score, rtol=1e-6, atol=1e-8)


def flow(process, x_0_hat, z, start, end):
    """Where the probability flow takes `z` `[2, B, D]` from `start` to `end`, as `split` says it.

    `DRIFT z - NOISE score / 2` (Eq. 13, Song et al. 2021, SDE) with the score of Tweedie's formula;
    `x_0_hat` is given the picture and the root of its signal-to-noise ratio.
    """
    units = UNITS / UNITS[:, None]
    drift, noise = DRIFT * units / RATE, NOISE / np.outer(UNITS, UNITS) / RATE

    def velocity(tau, y):
        z, (mu, e, f) = y.reshape(np.shape(z_start)), process.basis(tau)
        inverse = np.linalg.inv(np.outer(e, e) + np.outer(f, f))
        root = np.sqrt(mu @ inverse @ mu)
        centred = z - np.multiply.outer(mu, x_0_hat(np.tensordot(mu @ inverse / root, z, 1), root))
        return (np.tensordot(drift, z, 1) + np.tensordot(noise / 2 @ inverse, centred, 1)).ravel()

    z_start = np.stack(z)
    y = solve_ivp(velocity, (start, end), z_start.ravel(), "DOP853", rtol=1e-9, atol=1e-10).y
    return process.split(*y[:, -1].reshape(z_start.shape), end)


def time_at(schedule, process, tau):
    """The schedule's time of the same signal-to-noise ratio."""
    return schedule.time_at(jnp.asarray(process.logsnr(tau)))


def started(sampler, x, w):
    """The state after `w` was drawn."""
    return sampler.init(x)._replace(w=jnp.asarray(w), drawn=jnp.array(True))


PAIRS = [(3.0, 0.5), (0.9, 0.02), (0.1, 1.5)]


@gammas
@pytest.mark.parametrize(("start", "end"), PAIRS)
def test_one_step_is_exact_where_x_0_is_known(x64, gamma, start, end):
    """Against the flow in (x, v), on two schedules, also towards the noise."""
    process, (x_0, eps, w) = States(gamma), np.random.default_rng(0).normal(size=(3, 2, 3))
    z = process.diffuse(x_0, eps, w, start)
    picture, expected_w = flow(process, lambda *_: x_0, z, start, end)
    for name in ("linear_beta", "edm"):
        schedule = SCHEDULES[name]
        t, s = (time_at(schedule, process, tau) for tau in (start, end))
        sampler, x_t = cld(schedule, gamma=gamma), diffuse(schedule, x_0, eps, t)
        denoise = lambda *_: Denoised(jnp.asarray(x_0))  # noqa: E731
        x_s, state = sampler.step(denoise, started(sampler, x_t, w), x_t, t, s, keys_of(2))
        np.testing.assert_allclose(x_s / schedule.sigma(s), picture, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(state.w, expected_w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["cosine", "ve"])
@pytest.mark.parametrize(("start", "end"), PAIRS[:2])
def test_posterior_of_a_state_is_ancestral_in_the_picture(x64, name, start, end):
    """`q(z_s | z_t, x_0)` by 2 x 2 algebra: the picture in it does not depend on w."""
    process, schedule = States(), SCHEDULES[name]
    x_0, eps, w = np.random.default_rng(1).normal(size=(3, 4))
    (mu_t, cov_t), (mu_s, cov_s) = (moments(0.04, tau) for tau in (start, end))
    transition = expm((start - end) / RATE * (DRIFT * UNITS / UNITS[:, None]))
    gain = cov_s @ transition.T @ np.linalg.inv(cov_t)
    z_t = np.stack(process.diffuse(x_0, eps, w, start))
    mean = np.outer(mu_s, x_0) + gain @ (z_t - np.outer(mu_t, x_0))
    row = np.stack(process.split(*np.eye(2), end))[0]
    t, s = (time_at(schedule, process, tau) for tau in (start, end))
    expected = posterior_mean(schedule, diffuse(schedule, x_0, eps, t), x_0, t, s)
    np.testing.assert_allclose(row @ mean, expected / schedule.sigma(s), rtol=1e-6, atol=1e-8)
    variance = row @ (cov_s - gain @ transition @ cov_s) @ row
    lower, _ = reverse_variances(schedule, t, s)
    np.testing.assert_allclose(variance, lower / schedule.sigma(s) ** 2, rtol=1e-6)


# The sampler, compiled once for all schedules.

MOST = 200
"""Most steps of a run."""


@functools.cache
def program(order, dtype):
    """`(schedule, times, x, w or None) -> (x, w)`; the denoiser says NaN at `sigma = 0`."""

    @jax.jit
    def run(table, times, steps, x, w, drawn, keys):
        schedule = Table(*table)
        sampler = cld(schedule, order)
        denoiser = three_components().denoiser(schedule)

        def denoise(x_t, t):
            return Denoised(jnp.where(schedule.sigma(t) > 0, denoiser(x_t, t, {}).x_0, jnp.nan))

        def body(i, carry):
            x, state = carry
            step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, i)
            return sampler.step(denoise, state, x, times[i], times[i + 1], step_keys)

        state = sampler.init(x)._replace(w=w, drawn=drawn)
        x, state = jax.lax.fori_loop(0, steps, body, (x, state))
        return x, state.w

    def padded(schedule, times, x, w=None):
        times, rest = np.asarray(times), MOST + 1 - len(times)
        values = [np.asarray(f(jnp.asarray(times[::-1]))) for f in (schedule.alpha, schedule.sigma)]
        table = [np.concatenate([times[::-1], 2.0 + np.arange(rest)])]
        table += [np.pad(v, (0, rest), "edge") for v in values]
        arrays = table, np.pad(times, (0, rest)), x, np.zeros_like(x) if w is None else w
        table, padded_times, x, start_w = jax.tree.map(lambda a: jnp.asarray(a, dtype), arrays)
        steps, drawn = len(times) - 1, jnp.array(w is not None)
        return run(table, padded_times, steps, x, start_w, drawn, keys_of(len(x)))

    return padded


@functools.cache
def exact_flow(start, end):
    """Pictures and w at `start`, and where the mixture's flow takes them."""
    process, (picture, w) = States(), np.random.default_rng(2).normal(size=(2, 4, 2))
    z = process.diffuse(np.zeros_like(w), picture, w, start)
    return picture, w, flow(process, lambda y, root: x_0_hat(y, root, 1.0), z, start, end)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", ["linear_beta", "flow", "edm"])
def test_order_of_convergence_to_the_flow_of_states(x64, order, name):
    schedule, process, (start, end) = SCHEDULES[name], States(), (3.0, 0.3)
    picture, w, (goal, goal_w) = exact_flow(start, end)
    t, s = (time_at(schedule, process, tau) for tau in (start, end))
    errors = []
    for steps in (MOST // 2, MOST):
        times = np.linspace(t, s, steps + 1)
        x, last_w = program(order, np.float64)(schedule, times, schedule.sigma(t) * picture, w)
        errors.append([np.max(abs(x / schedule.sigma(s) - goal)), np.max(abs(last_w - goal_w))])
    assert np.max(errors[1]) < (0.2, 0.01)[order - 1], errors
    orders = np.log2(np.divide(*errors))
    assert np.max(np.abs(orders - order)) < 0.15, orders


@pytest.mark.parametrize("name", SCHEDULES)
def test_whole_runs_in_float32_are_finite(name):
    """From exactly `t = 1` to 0, with w drawn in the first step."""
    x_T = np.random.default_rng(3).normal(size=(4, 2)) * SCHEDULES[name].sigma(1.0)
    x, w = program(2, np.float32)(SCHEDULES[name], whole(name, 40), x_T)
    assert np.isfinite(x).all()
    assert np.isfinite(w).all()
    assert np.max(np.abs(x)) < 4


@pytest.mark.parametrize("name", ["linear_beta", "flow", "edm"])
def test_step_to_no_noise_ends_in_x_0_hat(x64, name):
    schedule, (x_t, x_0) = SCHEDULES[name], np.random.default_rng(0).normal(size=(2, 3, 4))
    sampler, denoise = cld(schedule), lambda *_: Denoised(jnp.asarray(x_0))
    for t in (0.3, 1.0):
        x_s, _ = sampler.step(
            denoise, sampler.init(x_t), jnp.asarray(x_t), jnp.array(t), jnp.zeros(()), keys_of(3)
        )
        np.testing.assert_allclose(x_s, x_0, rtol=1e-12)


def test_w_is_drawn_once(x64):
    """Of the first keys: two steps with others for the second are one with the first."""
    sampler = cld(SCHEDULES["cosine"])
    x_t, x_0 = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)))
    step = functools.partial(sampler.step, lambda *_: Denoised(x_0))
    t, u, s = jnp.array([0.8, 0.5, 0.2])
    whole_step = step(sampler.init(x_t), x_t, t, s, keys_of(3))
    x_u, state = step(sampler.init(x_t), x_t, t, u, keys_of(3))
    x_s, state = step(state, x_u, u, s, keys_of(3, 2))
    np.testing.assert_allclose(x_s, whole_step[0], rtol=1e-9)
    np.testing.assert_allclose(state.w, whole_step[1].w, rtol=1e-9)
    given = step(started(sampler, x_t, sample_noise(keys_of(3), (4,))), x_t, t, s, keys_of(3, 2))
    np.testing.assert_allclose(given[0], whole_step[0], rtol=1e-9)
    assert sampler.stochastic


def test_samples_are_their_own_and_of_the_right_law():
    assert_own_and_right(cld, karras_times())
