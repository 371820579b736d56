"""The loss of masks: its value, its minimum, and one key per sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.objectives.segmentation import SegmentationLoss
from diffusion_jax.types import Array
from tests.runs import context_of

P = 0.3


def draw(x: Array, keys: Array) -> tuple[Array, Array]:
    """Masks that pixels are in with probability P; the picture does not tell."""
    noise = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    return x, (noise < P).astype(x.dtype)


def test_the_loss_is_least_at_the_probability() -> None:
    """There it is the entropy, and `wrong` the probability itself."""
    loss = SegmentationLoss(lambda odds, x, key: odds + 0 * x, draw)
    batch = {"x": jnp.zeros((8, 40, 40, 1)), "index": jnp.arange(8)}
    context = context_of(jax.random.key(0))

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def mean(odds: Array) -> tuple[Array, Array]:
        each, metrics = loss(odds, batch, context)
        return each.mean(), metrics["wrong"].mean()

    (least, wrong), slope = mean(jnp.log(P / (1 - P)))
    entropy = -P * np.log(P) - (1 - P) * np.log(1 - P)
    np.testing.assert_allclose([least, wrong, slope], [entropy, P, 0], atol=0.015)
    np.testing.assert_allclose(mean(jnp.zeros(()))[1], 0.5 - P, atol=0.015)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    loss = SegmentationLoss(lambda odds, x, key: odds * x, draw)
    x, context = jnp.arange(48.0).reshape(3, 4, 4, 1), context_of(jax.random.key(0))
    whole, _ = loss(0.1, {"x": x, "index": jnp.arange(3)}, context)
    last, _ = loss(0.1, {"x": x[2:], "index": jnp.array([2])}, context)
    np.testing.assert_allclose(last, whole[2:], rtol=1e-6)
    assert len(set(np.asarray(whole))) == 3
