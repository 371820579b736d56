"""Every optimizer of optax receives the arguments that it needs, or is refused by name."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.system.devices import AXIS
from diffusion_jax.training.ema import PARAMETERS
from diffusion_jax.training.optimizer import check_optimizer, evaluation_params, make_optimizer
from diffusion_jax.training.snapshots import Snapshots
from diffusion_jax.training.state import create_state
from diffusion_jax.training.step import make_train_step

RATES = {"learning_rate", "max_learning_rate"}
NAMES = sorted(
    name
    for module in (optax, optax.contrib)
    for name, made in vars(module).items()
    if name[0] != "_"
    and inspect.isfunction(made)
    and RATES & set(inspect.signature(made).parameters)
)
WANT_MORE = ("lbfgs", "momo", "momo_adam", "polyak_sgd", "sophia")
WANT_NUMBERS = ("optimistic_adam", "rprop", "sm3")
FREE = ("schedule_free_adamw", "schedule_free_sgd")
REFUSED = ("dpsgd", "schedule_free")
QUICK = {"adamw", "lbfgs", "sophia", "rprop", "schedule_free_sgd", *REFUSED}

PARAMS = {"w": jnp.array([0.3, 0.1, -0.2]), "k": jnp.ones((3, 2))}
AVERAGES = {}


def loss(params, batch, context):
    error = batch["x"] @ (params["w"] + params["k"].sum(1)) - batch["y"]
    return error**2 + 0.1 * (params["k"] ** 2).sum(), {}


def data(n: int = 16) -> dict:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], np.float32), "index": np.arange(n)}


def steps(optimizer, num: int, accumulate: int = 1) -> tuple:
    """The state after, and the losses on the way, of ever the same batch."""
    step = jax.jit(make_train_step(loss, optimizer, AVERAGES, accumulate))
    state, losses = create_state(PARAMS, optimizer, AVERAGES), []
    for _ in range(num):
        state, metrics = step(state, data(), jax.random.key(0), {})
        losses.append(float(metrics["loss"]))
    assert state.skipped == 0
    return state, losses


def test_the_list_is_long() -> None:
    assert len(NAMES) > 40
    assert {*WANT_MORE, *WANT_NUMBERS, *FREE, *REFUSED} <= set(NAMES)


@pytest.mark.parametrize(
    "which", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES]
)
def test_it_trains_or_is_refused(which: str) -> None:
    make = lambda: make_optimizer(which, optax.constant_schedule(0.01), 1.0)  # noqa: E731
    if which in REFUSED or which.startswith("scale_by_"):
        with pytest.raises((TypeError, ValueError), match=which):
            make()
        return
    check_optimizer(make(), jax.eval_shape(lambda: PARAMS))
    state, losses = steps(make(), 3)
    assert all(np.isfinite(losses))
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), state.params, PARAMS)
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("which", ["lbfgs", "sophia"])
def test_what_looks_at_the_loss_again_sees_the_whole_batch(which: str) -> None:
    """In microbatches, and over devices, it steps as with all samples at once."""
    optimizer = make_optimizer(which, optax.constant_schedule(0.1))
    (whole, losses), (parts, _) = steps(optimizer, 3), steps(optimizer, 3, accumulate=4)
    assert losses[-1] < losses[0]
    for a, b in zip(jax.tree.leaves(parts.params), jax.tree.leaves(whole.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    step = make_train_step(loss, optimizer, AVERAGES, axis_name=AXIS)
    devices = jax.jit(jax.vmap(step, (0, 0, None, None), axis_name=AXIS))
    state = create_state(PARAMS, optimizer, AVERAGES)
    state = jax.tree.map(lambda a: jnp.broadcast_to(a, (4, *a.shape)), state)
    batch = jax.tree.map(lambda a: a.reshape(4, -1, *a.shape[1:]), data())
    for _ in range(3):
        state, _ = devices(state, batch, jax.random.key(0), {})
    for array, leaf in zip(
        jax.tree.leaves(state.params), jax.tree.leaves(whole.params), strict=True
    ):
        np.testing.assert_array_equal(array, np.broadcast_to(array[0], array.shape))
        np.testing.assert_allclose(array[0], leaf, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("which", FREE)
def test_schedule_free_ones_are_drawn_from_their_evaluation_parameters(
    which: str, group: bool, tmp_path
) -> None:
    free, rate = make_optimizer(which, optax.constant_schedule(0.5)), optax.constant_schedule(0.1)
    optimizer = make_optimizer("sgd", rate, 1.0, {"k": free}) if group else free
    state, _ = steps(optimizer, 4)
    wanted = evaluation_params(state.opt_state, state.params)
    is_free = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)  # noqa: E731
    (inner,) = filter(is_free, jax.tree.leaves(state.opt_state, is_leaf=is_free))
    if group:
        inner = inner._replace(z={**state.params, "k": inner.z["k"]})
        np.testing.assert_array_equal(wanted["w"], state.params["w"])
    theirs = optax.contrib.schedule_free_eval_params(inner, state.params)
    np.testing.assert_allclose(wanted["k"], theirs["k"], rtol=1e-6)
    assert abs(wanted["k"] - state.params["k"]).max() > 1e-3
    drawn = Snapshots(tmp_path, AVERAGES).average(state, PARAMETERS)
    np.testing.assert_array_equal(drawn["k"], wanted["k"])


def test_a_line_search_of_a_group_is_refused() -> None:
    rate = optax.constant_schedule(0.1)
    optimizer = make_optimizer("sgd", rate, groups={"w": make_optimizer("lbfgs", rate)})
    with pytest.raises(ValueError, match="cannot be used for this network"):
        check_optimizer(optimizer, jax.eval_shape(lambda: PARAMS))
    private = {"l2_norm_clip": 1.0, "noise_multiplier": 0.1, "seed": 0}
    with pytest.raises(ValueError, match="not shaped like the gradient of a batch"):
        check_optimizer(make_optimizer("dpsgd", rate, **private), jax.eval_shape(lambda: PARAMS))
