"""A linear-Gaussian autoencoder ends at probabilistic PCA, whose likelihood is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax.objectives.autoencoder import AutoencoderLoss, Coder, Perceptual, Squared
from diffusion_jax.types import Array, Params
from tests.runs import context_of

NOISE = 0.2  # variance of the decoder
SCALES = np.sqrt([4.0, 1.0, 0.15, 0.1])
NUM, STEPS = 128, 1500


def linear() -> Coder:
    """Means and samples are linear, log-variances the same for all items (Lucas et al. 2019)."""
    return Coder(
        lambda p, x: (x @ p["V"], jnp.broadcast_to(p["logvar"], (len(x), 2))),
        lambda p, z: z @ p["W"],
    )


def test_it_reaches_the_optimum_of_probabilistic_pca(x64: None) -> None:
    """At `W W^T = U (L - s I) U^T` the bound is the log-likelihood (Tipping & Bishop 1999)."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    x = rng.normal(size=(NUM, 4)) * SCALES @ turn
    x -= x.mean(0)
    loss = AutoencoderLoss(linear(), Squared(NOISE), kl=1.0)
    batch = {"x": jnp.asarray(x), "index": jnp.arange(NUM)}

    def mean(params: Params, key: Array) -> Array:
        return loss(params, batch, context_of(key))[0].mean()

    optimizer = optax.adam(optax.cosine_decay_schedule(0.03, STEPS))
    draw = functools.partial(rng.normal, scale=0.1)
    params = {"V": draw(size=(4, 2)), "W": draw(size=(2, 4)), "logvar": np.zeros(2)}

    @jax.jit
    def train(params: Params) -> tuple[Params, Array]:
        def step(carry: tuple[Params, optax.OptState], key: Array) -> tuple[tuple, None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(mean)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(0), STEPS)
        params, _ = jax.lax.scan(step, (params, optimizer.init(params)), keys)[0]
        again = jax.random.split(jax.random.key(1), 1000)
        return params, jax.lax.map(functools.partial(mean, params), again).mean()

    params, found = train(jax.tree.map(jnp.asarray, params))
    covariance = x.T @ x / NUM
    values, vectors = np.linalg.eigh(covariance)
    best, directions = values[2:], vectors[:, 2:]
    law = directions * (best - NOISE) @ directions.T + NOISE * np.eye(4)
    W = np.asarray(params["W"])
    np.testing.assert_allclose(W.T @ W + NOISE * np.eye(4), law, atol=0.03)
    variances = np.sort(np.exp(params["logvar"]))[::-1]
    np.testing.assert_allclose(variances, NOISE / best, rtol=0.03)
    logdet = np.linalg.slogdet(2 * np.pi * law)[1]
    exact = (logdet + np.trace(np.linalg.solve(law, covariance))) / 2 / 4  # per entry
    np.testing.assert_allclose(found, exact, atol=0.002)
    assert found > exact - 0.001


def test_a_distance_of_other_features_is_weighted_and_given_what_is_frozen() -> None:
    coder = Coder(lambda p, x: (p * x, jnp.full_like(x, -30.0)), lambda p, z: z)
    between = Perceptual(lambda frozen, a, b: frozen["w"] * jnp.abs(a - b).sum(1), 0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    context = context_of(jax.random.key(0))._replace(frozen={"w": jnp.array(3.0)})
    batch = {"x": x, "index": jnp.arange(4)}
    loss = AutoencoderLoss(coder, kl=0.0, perceptual=between)
    found, metrics = loss(jnp.array(0.5), batch, context)
    away = np.abs(x).sum(1) / 2
    np.testing.assert_allclose(metrics["perceptual"], 3 * away, rtol=1e-4)
    np.testing.assert_allclose(found, away / 3 + 0.5 * 3 * away, rtol=1e-4)
