"""Parameters found blind are those of the greatest likelihood, where that is in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from diffusion_jax.restoration.blind import (
    Windows,
    expectation_maximisation,
    m_step,
    parameters,
)
from diffusion_jax.restoration.linear import Composed, Downscale, Fading, GaussianBlur
from diffusion_jax.restoration.nonlinear import Clipping, Gamma
from diffusion_jax.restoration.operators import Identity

SIZE, NUM, SIGMA = 6, 4000, 0.3
MEAN = np.linspace(-0.3, 0.5, SIZE)
COV = 0.25 * 0.6 ** np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))


@jax.jit
def affine(operator):
    """`A` and `b` of an affine operator on signals `[1, SIZE, 1]`."""
    b = operator(jnp.zeros((1, SIZE, 1)))[0, :, 0]
    each = jax.vmap(lambda e: operator(e[None, :, None])[0, :, 0])(jnp.eye(SIZE))
    return each.T - b[:, None], b


def matrix(operator):
    return map(np.asarray, affine(operator))


def fading(gain, offset):
    return Fading(*(jnp.full((1, 1, 1), value) for value in (gain, offset)))


def fading_and_blur(gain, offset, width):
    return Composed(GaussianBlur(jnp.array([width])), fading(gain, offset))


def signals(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.multivariate_normal(MEAN, COV, NUM))[..., None]


def exact(observation, number):
    """Samples of the posterior of the normal prior."""
    a, b = matrix(observation.operator)
    noise = float(observation.sigma[0]) ** 2
    gain = COV @ a.T @ np.linalg.inv(a @ COV @ a.T + noise * np.eye(len(b)))
    mean = MEAN + (np.asarray(observation.y[..., 0]) - a @ MEAN - b) @ gain.T
    root = np.linalg.cholesky(COV - gain @ a @ COV + 1e-12 * np.eye(SIZE))
    return jnp.asarray(mean + np.random.default_rng(number).normal(size=mean.shape) @ root.T)[
        ..., None
    ]


def most_likely(y, make, start):
    """The maximum of the known likelihood, of the parameters and log sigma."""
    mean, second = np.mean(y[..., 0], 0), np.cov(y[..., 0].T, bias=True)

    def loss(phi):
        a, b = matrix(make(*phi[:-1]))
        cov = a @ COV @ a.T + np.exp(2 * phi[-1]) * np.eye(len(b))
        off = mean - a @ MEAN - b
        square = second + np.outer(off, off)
        return np.linalg.slogdet(cov)[1] + np.trace(np.linalg.solve(cov, square))

    phi = minimize(loss, [*start, np.log(SIGMA)], method="Nelder-Mead", options={"xatol": 1e-5})
    return [*phi.x[:-1], np.exp(phi.x[-1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "truth", "start", "level", "rounds"),
    [
        (fading, (0.6, 0.2), (0.9, 0.0), 0.4, 30),
        (fading_and_blur, (0.7, -0.1, 0.8), (0.8, 0.0, 0.9), 0.0, 30),
    ],
)
def test_the_fixed_point_is_the_most_likely(x64, make, truth, start, level, rounds):
    """That of the noisier picture where noise is added; sigma is without it."""
    noise = jax.random.normal(jax.random.key(1), (NUM, SIZE, 1))
    y = make(*truth)(signals()) + SIGMA * noise
    added = level * jax.random.normal(jax.random.fold_in(jax.random.key(2), 0), y.shape)
    *phi, total = most_likely(y + added, make, start)
    found = expectation_maximisation(
        exact,
        lambda number: Windows(y, jnp.ones(y.shape)),
        make(*start),
        0.5,
        [level] * rounds,
        jax.random.key(2),
        average=rounds // 2,
    )
    values = [float(value.squeeze()) for value in parameters(found.operator).values()]
    np.testing.assert_allclose(values, phi, atol=0.03)
    np.testing.assert_allclose(found.sigma, np.sqrt(total**2 - level**2), atol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("true", "begun"),
    [
        (fading(0.5, 0.3), fading(1.0, 0.0)),
        (GaussianBlur(jnp.array([0.9])), GaussianBlur(jnp.array([0.5]))),
        (Gamma(jnp.array([2.0])), Gamma(jnp.array([1.0]))),
        (
            Clipping(jnp.array([-0.6]), jnp.array([0.5])),
            Clipping(jnp.array([-0.8]), jnp.array([0.8])),
        ),
        (
            Composed(Downscale(2), fading_and_blur(0.7, -0.1, 0.8)),
            Composed(Downscale(2), fading_and_blur(0.9, 0.1, 0.5)),
        ),
    ],
)
def test_parameters_of_what_is_known_twice(true, begun):
    """From a picture and what is seen of it: all parameters, with pixels that are not known."""
    x = jax.random.uniform(jax.random.key(0), (3, 16, 1), minval=-1)
    y = true(x)
    known = jax.random.bernoulli(jax.random.key(1), 0.7, y.shape).astype(y.dtype)
    y = jnp.where(known > 0, y, 5.0)
    found, square = m_step(begun, begun, x, y, known, jnp.array(1e-3))
    for name, value in parameters(true).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3)
    assert square < 1e-6


def test_what_is_not_seen_stays_as_it_was_set():
    """The prior holds the width of a blur where there is nothing to see of it."""
    begun = fading_and_blur(1.0, 0.0, 0.7)
    flat = jnp.full((3, 16, 1), 0.5)
    found, _ = m_step(begun, begun, flat, 0.5 * flat, jnp.ones((1, 16, 1)), jnp.array(0.01))
    np.testing.assert_allclose(found["width"], 0.7, atol=1e-4)
    np.testing.assert_allclose(found["gain"] * 0.5 + found["offset"], 0.25, atol=1e-3)


def test_nothing_to_estimate():
    with pytest.raises(ValueError, match="there is no parameter to estimate"):
        expectation_maximisation(exact, None, Identity(), 0.1, [0.0], jax.random.key(0), 1)
