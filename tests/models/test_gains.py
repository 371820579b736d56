"""A network whose outputs are gains of its inputs: against the formula, and as it begins."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.dit import DiT
from diffusion_jax.models.gains import QUIET, Gains, with_level
from diffusion_jax.system.keys import make_key


class Told(nn.Module):
    """Keeps what it is given, and answers `outputs`."""

    outputs: jax.Array
    dtype = jnp.float32

    def __call__(self, x_t, t, cond, train=False):
        self.sow("seen", "x_t", x_t)
        self.sow("seen", "image", cond.get("image", jnp.zeros(())))
        return self.outputs


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((2, 3, 5, 4))
    return jnp.asarray(x), jnp.asarray(c), jnp.asarray(rng.standard_normal((3, 5, 12)))


def test_outputs_are_gains_and_what_is_added(arrays):
    x, c, outputs = arrays
    image = jnp.concatenate([c, jnp.ones((3, 5, 1))], axis=-1)  # such as a mask beside it
    y, seen = Gains(Told(outputs), True).apply({}, x, jnp.ones(3), {"image": image}, mutable="seen")
    r, g, h = np.split(outputs, 3, axis=-1)
    np.testing.assert_allclose(y, r + g * x + h * c, rtol=1e-6)
    seen = seen["seen"]["network"]
    np.testing.assert_array_equal(seen["x_t"][0], with_level(x))
    np.testing.assert_array_equal(seen["image"][0], with_level(image))


def test_without_a_signal_there_is_one_gain(arrays):
    x, _, outputs = arrays
    r, g, _ = np.split(outputs, 3, axis=-1)
    alone = Gains(Told(outputs[..., :8]), False)
    np.testing.assert_allclose(alone.apply({}, x, jnp.ones(3), {}), r + g * x, rtol=1e-6)
    dropped = Gains(Told(outputs), True).apply({}, x, jnp.ones(3), {})
    np.testing.assert_allclose(dropped, r + g * x, rtol=1e-6)


def test_the_level_is_a_logarithm_and_0_for_0():
    x = QUIET * jnp.array([[0.0], [1e3], [-1e4]])
    level = with_level(x)[:, 1]
    assert level[0] == 0
    np.testing.assert_allclose(level[1:], np.log([1e3, 1e4]) / 2, rtol=1e-5)
    assert np.isfinite(jax.grad(lambda x: with_level(x).sum())(x)).all()


def test_it_filters_from_the_first_step_on(arrays):
    """All outputs are 0 in the beginning, and each of the three learns."""
    x, c, _ = arrays
    net = Gains(DiT(1, 8, 1, 2, image_channels=8, out_channels=12), True)
    cond = {"image": c}
    params = net.init(make_key(0), x, jnp.ones(3), cond)
    assert not net.apply(params, x, jnp.ones(3), cond).any()
    loss = lambda params: jnp.mean((net.apply(params, x, jnp.ones(3), cond) - c) ** 2)  # noqa: E731
    gradient = jax.grad(loss)(params)["params"]["network"]["out"]["kernel"]
    assert all(np.abs(part).max() > 0 for part in np.split(gradient, 3, axis=-1))
