"""The relativistic loss: values in closed form, and for each player the gradient of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.critic import Critic
from diffusion_jax.objectives.adversarial import Relativistic
from diffusion_jax.objectives.autoencoder import CRITIC, Adversarial, AutoencoderLoss, Coder
from diffusion_jax.types import Array, Params
from tests.runs import context_of

GAMMA = 0.7
RNG = np.random.default_rng(0)
REAL, MADE = (jnp.asarray(RNG.normal(size=(5, 3))) for _ in range(2))
MATRIX = jnp.asarray(RNG.normal(size=(3, 3)))


def quadratic(matrix: Array, x: Array) -> Array:
    """`x^T A x`, whose gradient is `(A + A^T) x`."""
    return jnp.einsum("bi,ij,bj->b", x, matrix, x)


PLAYERS = Relativistic(quadratic, GAMMA)


def test_losses_have_their_closed_form() -> None:
    real, made = (np.einsum("bi,ij,bj->b", x, MATRIX, x) for x in (REAL, MADE))
    of_maker = PLAYERS.of_maker(MATRIX, REAL, MADE)
    np.testing.assert_allclose(of_maker, np.log1p(np.exp(real - made)), rtol=1e-5)
    slopes = [np.sum((x @ (MATRIX + MATRIX.T)) ** 2, 1) for x in (REAL, MADE)]
    loss, metrics = PLAYERS.of_critic(MATRIX, REAL, MADE)
    want = np.log1p(np.exp(made - real)) + GAMMA / 2 * sum(slopes)
    np.testing.assert_allclose(loss, want, rtol=1e-5)
    np.testing.assert_allclose(metrics["critic_slope"], sum(slopes), rtol=1e-5)
    np.testing.assert_array_equal(metrics["critic_accuracy"], real > made)


def test_each_player_has_the_gradient_of_its_own_loss_alone() -> None:
    """Of `z = a x` decoded as `b z`, with the whole loss in one sum."""
    coder = Coder(
        lambda p, x: (p["encoder"] * x, jnp.full_like(x, -30.0)), lambda p, z: p["decoder"] * z
    )
    params = {"encoder": jnp.array(0.8), "decoder": jnp.array(0.9), CRITIC: MATRIX}
    loss = AutoencoderLoss(coder, kl=0.01, adversarial=Adversarial(PLAYERS, 0.3))
    alone = AutoencoderLoss(coder, kl=0.01)
    batch, context = {"x": REAL, "index": jnp.arange(5)}, context_of(jax.random.key(0))

    def mean(params: Params, loss: AutoencoderLoss) -> Array:
        return loss(params, batch, context)[0].mean()

    def of_maker(params: Params) -> Array:
        made = params["decoder"] * params["encoder"] * REAL
        logits = quadratic(MATRIX, REAL) - quadratic(MATRIX, made)
        return mean(params, alone) + 0.3 * jnp.log1p(jnp.exp(logits)).mean()

    def of_critic(matrix: Array) -> Array:
        return PLAYERS.of_critic(matrix, REAL, 0.72 * REAL)[0].mean()

    found, want = jax.grad(mean)(params, loss), jax.grad(of_maker)(params)
    for name in ("encoder", "decoder"):
        np.testing.assert_allclose(found[name], want[name], rtol=1e-4)
    np.testing.assert_allclose(found[CRITIC], jax.grad(of_critic)(MATRIX), rtol=1e-3, atol=1e-5)
    assert float(jnp.abs(found[CRITIC]).max()) > 0.1


@pytest.mark.parametrize("axes", [1, 2])
def test_the_critic_has_a_logit_per_sample_and_second_derivatives(axes: int) -> None:
    critic = Critic(channels=4, channel_mults=(1, 2))
    x = jnp.asarray(RNG.normal(size=(2, *[8] * axes, 3)), jnp.float32)
    shapes = jax.eval_shape(critic.init, jax.random.key(0), x)
    params = jax.tree.map(lambda a: jnp.asarray(0.3 * RNG.normal(size=a.shape)), shapes)

    players = Relativistic(critic.apply, GAMMA)
    slope = jax.jit(jax.grad(lambda p: players.of_critic(p, x, -x)[0].sum()))(params)
    each = jax.jit(critic.apply)
    np.testing.assert_allclose(each(params, x)[1:], each(params, x[1:]), rtol=1e-4)
    assert each(params, x).shape == (2,)
    for leaf in jax.tree.leaves(slope["params"]["down_1_0"]):
        assert np.abs(leaf).max() > 0
    with pytest.raises(ValueError, match="must be multiples of 2"):
        critic.apply(params, x[:, :7])
