"""Denoisers given an observation: against closed forms, where the posterior is known exactly.

The formulas hold for any Jacobians, and are compared for a mixture and operators of every kind;
that they are the posterior's mean holds for normal data.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from diffusion_jax.restoration.likelihood import inverse
from diffusion_jax.restoration.linear import Composed
from diffusion_jax.restoration.operators import Identity, Mask, Observation, Spectrum
from diffusion_jax.restoration.posterior_mean import dps, mmps, pigdm, tmpd
from diffusion_jax.restoration.projections import ddnm, diffpir, keep_known, with_known
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.sde import ancestral
from diffusion_jax.types import Array, Denoised
from tests.oracles import SCHEDULES, GaussianMixture, gaussian, karras_times, keys_of

FLOW = SCHEDULES["flow"]
MATRIX = np.array([[1.0, -0.5, 0.3], [0.2, 0.8, 1.1]])
CONVERGED = {name: Solver(name, iterations=6, tolerance=1e-12) for name in ("cg", "gmres")}


@struct.dataclass
class Dense:
    """`y = matrix x + offset`."""

    matrix: Array
    offset: float = 0.0

    def __call__(self, x):
        return x @ self.matrix.T + self.offset


@struct.dataclass
class Factored(Dense):
    """The same with its singular value decomposition."""

    def spectrum(self, x):
        u, values, v = np.linalg.svd(self.matrix)
        padded = np.append(values, np.zeros(len(v) - len(values)))
        rows = np.eye(len(v))[: len(values)]
        return Spectrum(
            jnp.asarray(padded)[None],
            lambda x: x @ v.T,
            lambda z: z @ v,
            lambda y: (y - self.offset) @ u @ rows,
        )


@struct.dataclass
class Bent(Dense):
    """An operator that is not linear."""

    def __call__(self, x):
        return jnp.sinh(x @ self.matrix.T)


OPERATORS = {
    "dense": Dense(MATRIX),
    "factored": Factored(MATRIX),
    "affine factored": Factored(MATRIX, 0.7),
    "bent": Bent(MATRIX / 2),
    "mask": Mask(np.array([[1.0, 0.0, 1.0]])),
}


@functools.cache
def normal():
    """A normal law in three dimensions with correlations."""
    root = np.array([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.4, 0.8]])
    return GaussianMixture(np.ones(1), np.array([[0.3, -0.5, 0.2]]), (root @ root.T)[None])


@functools.cache
def two():
    """Two components in three dimensions."""
    other = normal().means[0] + np.array([1.0, 1.5, -1.0])
    covs = np.stack([normal().covs[0], 0.3 * np.eye(3)])
    return GaussianMixture(np.array([0.6, 0.4]), np.stack([normal().means[0], other]), covs)


def observed(operator, sigma, num=1):
    """An observation of 0.4, with an error."""
    x = jnp.full((num, 3), 0.4)
    return Observation(operator(x) + 0.1 * operator(1 + 0 * x), operator, jnp.full(num, sigma))


def states(num=1):
    return jnp.asarray(np.random.default_rng(0).normal(size=(num, 3)))


def terms(law, operator, x_t, t):
    """D, C, A D and A at D of one sample, by the Jacobians."""
    denoise = law.denoiser(FLOW)
    mean = lambda x: denoise(x[None], t, {}).x_0[0]  # noqa: E731
    seen = lambda x: operator(x[None])[0]  # noqa: E731

    @jax.jit
    def found(x):
        x_0, cov = mean(x), FLOW.sigma(t) ** 2 / FLOW.alpha(t) * jax.jacobian(mean)(x)
        return x_0, cov, seen(x_0), jax.jacobian(seen)(x_0)

    return map(np.asarray, found(x_t[0]))


def formulas(cov, A, ratio, sigma):
    """What multiplies the residual, by method."""
    noise, square = sigma**2 * np.eye(len(A)), ratio**2
    variance = 0.7**2 * square / (0.7**2 + square)
    inverses = {
        "pigdm": np.linalg.inv(variance * A @ A.T + noise),
        "tmpd": np.diag(1 / ((A @ cov @ A.T).sum(1).clip(0) + sigma**2)),
        "mmps": np.linalg.inv(A @ cov @ A.T + noise),
    }
    gains = {name: cov @ A.T @ inverse for name, inverse in inverses.items()}
    gains["diffpir"] = np.linalg.inv(A.T @ A + 2.0 * sigma**2 / square * np.eye(3)) @ A.T
    return gains


@pytest.mark.parametrize(
    ("name", "solver"),
    [
        ("dense", "cg"),
        ("affine factored", "gmres"),
        ("bent", "gmres"),
        ("mask", "cg"),
    ],
)
def test_methods_are_their_formulas(x64, name, solver):
    operator, sigma, t, x_t = OPERATORS[name], 0.3, jnp.array([0.4]), states()
    observation = observed(operator, sigma)
    denoise = two().denoiser(FLOW)
    x_0, cov, seen, A = terms(two(), operator, x_t, t)
    residual = np.asarray(observation.y[0] - seen)
    gains = formulas(cov, A, float(FLOW.sigma(t)[0] / FLOW.alpha(t)[0]), sigma)
    given, solver = (denoise, observation, FLOW), CONVERGED[solver]
    methods = {
        "pigdm": pigdm(*given, data_std=0.7, solver=solver),
        "tmpd": tmpd(*given),
        "mmps": mmps(*given, solver=solver),
        "diffpir": diffpir(*given, weight=2.0, solver=solver),
    }
    found = jax.jit(lambda x_t: {name: f(x_t, t, {}).x_0[0] for name, f in methods.items()})(x_t)
    for method, gain in gains.items():
        np.testing.assert_allclose(found[method], x_0 + gain @ residual, 1e-9, err_msg=method)


def test_mmps_is_exact_for_normal_data_and_only_if_solved(x64):
    operator, sigma, t = OPERATORS["dense"], 0.2, jnp.array([0.05, 0.5, 0.95])
    observation, x_t = observed(operator, sigma, 3), states(3)
    posterior = normal().posterior(MATRIX, np.asarray(observation.y[0]), sigma)
    exact = posterior.denoiser(FLOW)(x_t, t, {}).x_0

    def found(iterations):
        solver = Solver("cg", iterations, tolerance=0)
        guided = mmps(normal().denoiser(FLOW), observation, FLOW, solver=solver)
        return jax.jit(lambda *at: (guided(*at).x_0, guided.residual(*at)))(x_t, t, {})

    x_0, residual = found(2)
    np.testing.assert_allclose(x_0, exact, atol=1e-9)
    assert np.all(residual < 1e-10)
    x_0, residual = found(1)
    assert np.max(np.abs(x_0 - exact)) > 0.05
    assert np.max(residual) > 0.05


def test_pigdm_and_tmpd_are_exact_where_they_should_be(x64):
    t, x_t, sigma = jnp.array([0.1, 0.5, 0.9]), states(3), 0.2
    observation = observed(OPERATORS["dense"], sigma, 3)
    law = gaussian(0.6, 3)
    guided = pigdm(law.denoiser(FLOW), observation, FLOW, data_std=0.6, solver=CONVERGED["cg"])
    exact = law.posterior(MATRIX, np.asarray(observation.y[0]), sigma).denoiser(FLOW)
    np.testing.assert_allclose(guided(x_t, t, {}).x_0, exact(x_t, t, {}).x_0, atol=1e-9)

    law = GaussianMixture(np.ones(1), np.zeros((1, 3)), np.diag([0.2, 0.5, 1.0])[None])
    observation = observed(OPERATORS["mask"], sigma, 3)
    guided = tmpd(law.denoiser(FLOW), observation, FLOW)
    known = np.eye(3)[[0, 2]]
    exact = law.posterior(known, known @ np.asarray(observation.y[0]), sigma).denoiser(FLOW)
    np.testing.assert_allclose(guided(x_t, t, {}).x_0, exact(x_t, t, {}).x_0, atol=1e-9)


@pytest.mark.slow
def test_samples_with_mmps_have_the_posterior_law(x64):
    """Mean and covariance of 4,000 samples, within 5 standard errors."""
    num, sigma = 4000, 0.3
    observation = observed(OPERATORS["factored"], sigma, num)
    x_T = jnp.asarray(np.random.default_rng(1).normal(size=(num, 3)))
    guided = mmps(normal().denoiser(FLOW), observation, FLOW, solver=CONVERGED["cg"])
    run = jax.jit(lambda x: sample(guided, heun(FLOW), karras_times(30), x, {}, keys_of(num))[0])
    x = np.asarray(run(x_T))
    mean, cov = normal().posterior(MATRIX, np.asarray(observation.y[0]), sigma).moments()
    scores = (x.mean(0) - mean) / np.sqrt(np.diag(cov) / num)
    assert np.max(np.abs(scores)) < 5
    spread = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / num)
    assert np.max(np.abs((np.cov(x.T) - cov) / spread)) < 5


def test_dps_is_the_published_step(x64):
    """`x_s - zeta grad |y - A D|` after a step of ancestral sampling by 1/1000."""
    schedule, t, s, zeta = FLOW, jnp.array(0.3), jnp.array(0.299), 0.4
    observation, x_t = observed(OPERATORS["bent"], 0.1), states()
    denoise, sampler = two().denoiser(schedule), ancestral(schedule)
    guided = dps(denoise, observation, schedule, zeta=zeta)

    @jax.jit
    def norm(x):
        return jnp.linalg.norm(observation.residual(denoise(x, t[None], {}).x_0))

    @jax.jit
    def moved():
        own, other = (
            sampler.step(lambda x, t: f(x, t[None], {}), (), x_t, t, s, keys_of(1))[0]  # noqa: B023
            for f in (guided, denoise)
        )
        return own - other

    small = 1e-5 * np.eye(3)[:, None]
    gradient = [(norm(x_t + d) - norm(x_t - d)) / 2e-5 for d in small]
    np.testing.assert_allclose(moved()[0], -zeta * np.array(gradient), rtol=1e-6)


def methods_of(denoise, observation, schedule):
    given = denoise, observation, schedule
    every = {"dps": dps(*given), "tmpd": tmpd(*given), "diffpir": diffpir(*given)}
    every |= {"pigdm": pigdm(*given), "mmps": mmps(*given)}
    spectral = hasattr(observation.operator, "spectrum")
    return every | ({"ddnm": ddnm(*given)} if spectral else {})


@pytest.mark.parametrize(("name", "sigma"), [("dense", 0.0), ("mask", 0.0)])
def test_all_is_finite_at_both_ends(name, sigma):
    """`alpha = 0` at `t = 1` of flow, and `sigma = 0` at `t = 0`; float32; one sample unseen."""
    t = jnp.array([0.0, 1e-6, 1e-3, 0.999, 1.0])
    observation = observed(OPERATORS[name], sigma, len(t))
    if name == "mask":
        known = jnp.ones((len(t), 3)).at[2].set(0)
        observation = observation.replace(operator=Mask(known), y=known * observation.y)

    def linear(x_t, t, cond):  # like a network, it has a derivative at `alpha = 0` too
        return Denoised(0.9 * x_t + 0.1 * jnp.roll(x_t, 1, axis=-1), x_t)

    every = methods_of(linear, observation, FLOW)
    found = jax.jit(lambda x: {name: f(x, t, {}) for name, f in every.items()})(states(len(t)))
    for method, denoised in found.items():
        assert np.all(np.isfinite(denoised.x_0)), (method, denoised.x_0)
        np.testing.assert_array_equal(denoised.variance, states(len(t)), err_msg=method)


def test_ddnm_is_the_projection(x64):
    """Without noise `A x_0 = y`, and the rest stays; with much noise the share of DDNM+."""
    observation, x_t, t = (
        observed(OPERATORS["affine factored"], 0.0, 2),
        states(2),
        jnp.full(2, 0.3),
    )
    denoise = two().denoiser(FLOW)
    plain = denoise(x_t, t, {}).x_0
    x_0 = ddnm(denoise, observation, FLOW)(x_t, t, {}).x_0
    np.testing.assert_allclose(observation.residual(x_0), 0, atol=1e-12)
    pseudo = np.linalg.pinv(MATRIX)
    np.testing.assert_allclose((x_0 - plain) @ (np.eye(3) - pseudo @ MATRIX), 0, atol=1e-12)
    np.testing.assert_allclose(x_0 - plain, observation.residual(plain) @ pseudo.T, rtol=1e-9)
    noisy = observation.replace(sigma=jnp.full(2, 9.0))
    u, _, v = np.linalg.svd(MATRIX, full_matrices=False)
    expected = 3 / 7 / 9 * observation.residual(plain) @ u @ v  # L S^+ = sigma_t / alpha_t / sigma
    found = ddnm(denoise, noisy, FLOW)(x_t, t, {}).x_0 - plain
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_ddnm_needs_a_spectrum():
    with pytest.raises(
        ValueError, match="ddnm needs an operator with a spectrum, and Dense has no"
    ):
        ddnm(gaussian(1.0, 3).denoiser(FLOW), observed(OPERATORS["dense"], 0.0), FLOW)


def test_small_singular_values_are_not_inverted_without_noise():
    """Else rounding errors, 1e-7 of the data, would be multiplied by 1e6."""
    values = jnp.array([[1.0, 0.1, 1e-6, 0.0]] * 3)
    found = inverse(values, jnp.array([1.0, 1.0, 0.0]), jnp.array([0.0, 1e-4, 0.0]))
    expected = [[1, 1e2, 1e8, 1e8], [1 / 1.0001, 1 / 0.0101, 1e4, 1e4], [0, 0, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_what_no_x_explains_of_y_has_no_effect():
    """Here entries of y where a mask hides x; without noise the system has no solution in y."""
    x_t, t = jax.random.normal(jax.random.key(0), (2, 5, 1)), jnp.full(2, 0.5)
    known, y = jnp.array([1.0, 0, 1, 1, 0])[None, :, None], jnp.full((2, 5, 1), 0.8)

    def denoise(x_t, t, cond):
        return Denoised(0.5 * x_t)

    by_spectrum, by_solver = (
        pigdm(denoise, Observation(y, operator, jnp.zeros(2)), FLOW)(x_t, t, {}).x_0
        for operator in (Mask(known), Composed(Mask(known), Identity()))
    )
    np.testing.assert_allclose(by_solver, by_spectrum, rtol=1e-4)


def test_known_entries_are_those_of_y_to_the_bit():
    """Of the sample without noise; that with noise is free, and so is what is not known."""
    known = jnp.array([[1.0, 0.5, 0.0]])
    x = jnp.asarray(np.random.default_rng(2).normal(size=(2, 3)), jnp.float32)
    observation = Observation(known * x, Mask(known), jnp.array([0.0, 0.1]))
    denoise = keep_known(gaussian(1.0, 3).denoiser(FLOW), observation)
    x_0 = denoise(jnp.ones((2, 3)), jnp.full(2, 0.5), {}).x_0
    taken = x_0 == observation.y
    np.testing.assert_array_equal(taken, [[True, False, False], [False, False, False]])
    other = x + 1
    assert with_known(other, observation.replace(operator=OPERATORS["dense"])) is other


@pytest.mark.parametrize(
    ("method", "wrong"),
    [(dps, {"zeta": -1.0}), (pigdm, {"data_std": 0.0}), (diffpir, {"weight": 0})],
)
def test_wrong_settings_are_named(method, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        method(None, None, FLOW, **wrong)
