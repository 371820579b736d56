"""Groups of parameters with their own optimizers."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.from_config.parts import _optimizer
from diffusion_jax.training.optimizer import make_optimizer

PARAMS = {"generator": {"w": jnp.ones(3)}, "critic": {"w": jnp.ones(2)}, "scale": jnp.ones(())}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def moved(optimizer: optax.GradientTransformation, gradient: object = ONES) -> dict[str, list]:
    """Updates of each group."""
    updates, _ = optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)
    return {name: np.concatenate(list(map(np.ravel, jax.tree.leaves(updates[name]))))
            for name in PARAMS}  # fmt: skip


def settings(**changes: object) -> object:
    config = importlib.import_module("configs.digits").get_config().unlock()
    config.optimizer.update({"name": "sgd", "decay": "constant", "warmup_steps": 0, **changes})
    return config


def sgd(rate: float) -> optax.GradientTransformation:
    return make_optimizer("sgd", optax.constant_schedule(rate))


def test_each_group_moves_by_its_own_rate_and_the_others_by_the_common_one() -> None:
    groups = {"critic": sgd(0.25), "generator": sgd(0.5)}
    found = moved(make_optimizer("sgd", optax.constant_schedule(0.125), groups=groups))
    for name, rate in (("generator", 0.5), ("critic", 0.25), ("scale", 0.125)):
        np.testing.assert_array_equal(found[name], -rate)


def test_each_group_is_clipped_by_itself() -> None:
    """The norm of one player's gradient does not shrink the other's step."""
    rate = optax.constant_schedule(1.0)
    found = moved(make_optimizer("sgd", rate, 1.0, {"critic": sgd(2.0)}))
    np.testing.assert_allclose(found["generator"], -(4**-0.5), rtol=1e-6)
    np.testing.assert_array_equal(found["critic"], -2.0)
    groups = {"critic": {"clip_norm": 0.5}}
    found = moved(_optimizer(settings(learning_rate=1.0, clip_norm=1.0, groups=groups)))
    np.testing.assert_allclose(found["generator"], -(4**-0.5), rtol=1e-6)
    np.testing.assert_allclose(found["critic"], -0.5 * 2**-0.5, rtol=1e-6)


def test_rivals_are_groups_without_settings_of_their_own() -> None:
    found = moved(_optimizer(settings(learning_rate=1.0, clip_norm=1.0), ("critic",)))
    np.testing.assert_allclose(found["generator"], -(4**-0.5), rtol=1e-6)
    np.testing.assert_allclose(found["critic"], -(2**-0.5), rtol=1e-6)


def test_a_group_has_the_common_settings_but_for_its_own() -> None:
    """Of Adam the first update is `-rate`, but for `b1` and `b2`, which cancel there."""
    groups = {"critic": {"learning_rate": 0.25}, "scale": {"name": "adam", "decay": "linear"}}
    found = moved(_optimizer(settings(learning_rate=0.5, clip_norm=0.0, groups=groups)))
    for name, rate in (("generator", 0.5), ("critic", 0.25), ("scale", 0.5)):
        np.testing.assert_allclose(found[name], -rate, rtol=1e-5)
    groups = {"critic": {"name": "sgd", "sgd": {"momentum": 0.5}}}
    found = _optimizer(settings(groups=groups)).init(PARAMS)
    assert sum(np.shape(leaf) == (2,) for leaf in jax.tree.leaves(found)) == 1  # its momentum


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({"critc": {}}, r"optimizer.groups='critc' is not known: did you mean 'critic'\?"),
        ({"critic": {"rate": 1.0}}, r"optimizer.groups.critic='rate' is not known"),
        ({"critic": {"clip_norm": -1.0}}, r"optimizer.groups.critic.clip_norm=-1.0 must"),
        ({"critic": {"learning_rate": -1.0}}, r"optimizer.groups.critic.learning_rate=-1.0 must"),
        (
            {"critic": {"name": "sdg"}},
            r"optimizer.groups.critic.name='sdg' is not .*similar: sgd",
        ),
    ],
)
def test_what_is_no_group_or_no_setting_of_one_is_refused(groups: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        _optimizer(settings(groups=groups)).init(PARAMS)


def test_a_group_that_the_network_has_not_is_refused_before_any_training() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.groups='patchs' .* 'patches'"):
        build(settings(groups={"patchs": {"learning_rate": 0.0}}))
