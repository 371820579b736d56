"""Losses that use the whole `Context`, compared with the same recursion in NumPy."""

import itertools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.training.abreast import Abreast, part, stack
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import EXPONENTIAL, Exponential
from diffusion_jax.training.loop import Cadence, train
from diffusion_jax.training.parallel import Replicated
from diffusion_jax.training.state import create_state
from diffusion_jax.training.step import make_train_step
from diffusion_jax.training.writers import NoWriter
from tests.runs import with_eight_devices
from tests.training.test_parallel import LAYOUTS

pytestmark = pytest.mark.slow

STEPS, BATCH, RATE = 5, 16, 0.05
AVERAGES = {EXPONENTIAL: Exponential(0.5, warmup=False)}
OPTIMIZER = optax.sgd(RATE)


def arrays(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def network(kernel: np.ndarray) -> dict:
    """A linear network, named such that a mesh cuts it."""
    return {"out": {"kernel": kernel}}


BATCHES = [{"x": arrays(i, BATCH, 8), "y": arrays(100 + i, BATCH, 4)} for i in range(STEPS)]
STUDENT, TEACHER = network(arrays(7, 8, 4)), network(arrays(8, 8, 4))
FROZEN = {"teacher": TEACHER, "scale": np.array(0.5, np.float32)}
"""If it were donated, the metrics would be written where the scale is."""


def error(params: Any, batch: Any, target: Any) -> jax.Array:
    return jnp.sum((batch["x"] @ params["out"]["kernel"] - target) ** 2, axis=-1)


def self_distillation(params, batch, context):
    """The teacher is an average of the student."""
    target = batch["x"] @ context.ema[EXPONENTIAL]["out"]["kernel"]
    return error(params, batch, batch["y"]) + error(params, batch, target), {}


def distillation(params, batch, context):
    """The teacher is not trained."""
    said = batch["x"] @ context.frozen["teacher"]["out"]["kernel"]
    return error(params, batch, context.frozen["scale"] * said), {}


def curriculum(params, batch, context):
    """The loss grows from zero over four steps."""
    return jnp.minimum(context.step / 4, 1) * error(params, batch, batch["y"]), {}


LOSSES = {loss.__name__: loss for loss in (self_distillation, distillation, curriculum)}
each_loss = pytest.mark.parametrize("name", LOSSES)
both_ways = pytest.mark.parametrize("accumulate", [1, 2])


def terms(name: str, step: int, batch: dict, w: np.ndarray, ema: np.ndarray) -> list[tuple]:
    """`(weight, target)` of the squared errors of which a loss is the sum."""
    if name == "self_distillation":
        return [(1, batch["y"]), (1, batch["x"] @ ema)]
    if name == "distillation":
        return [(1, 0.5 * batch["x"] @ TEACHER["out"]["kernel"])]
    return [(min(step / 4, 1), batch["y"])]


def by_hand(name: str, steps: int = STEPS, w: np.ndarray = STUDENT["out"]["kernel"]) -> tuple:
    """Losses of gradient descent, and parameters and average after it, in float64."""
    w = ema = w.astype(np.float64)
    losses = []
    for step, batch in enumerate(BATCHES[:steps]):
        found = terms(name, step, batch, w, ema)
        errors = [(weight, batch["x"] @ w - target) for weight, target in found]
        losses.append(sum(weight * np.mean(np.sum(e**2, axis=-1)) for weight, e in errors))
        w = w - RATE * sum(weight * 2 * batch["x"].T @ e / BATCH for weight, e in errors)
        ema = (ema + w) / 2
    return np.array(losses), w, ema


def descend(name: str, accumulate: int, layout: Any) -> tuple[list[float], Any, Any]:
    """Losses of the train step, the state after it, and the frozen parameters as they lie."""
    step = make_train_step(LOSSES[name], OPTIMIZER, AVERAGES, accumulate, layout.axis_name)
    state, key = layout.place((create_state(STUDENT, OPTIMIZER, AVERAGES), jax.random.key(0)))
    frozen = layout.place(FROZEN, donated=False)
    step_fn, losses = layout.compile(step), []
    for batch in BATCHES:
        state, metrics = step_fn(state, layout.split(batch), key, frozen)
        losses.append(float(np.mean(jax.device_get(metrics["loss"]))))
    return losses, layout.fetch(state), frozen


def assert_by_hand(name: str, losses: Any, params: Any, ema: Any) -> None:
    for found, expected in zip((losses, params, ema), by_hand(name), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@each_loss
@both_ways
def test_losses_of_averages_frozen_parameters_and_the_step(name: str, accumulate: int) -> None:
    losses, state, frozen = descend(name, accumulate, Replicated())
    ema = state.ema[EXPONENTIAL]["out"]["kernel"]
    assert_by_hand(name, losses, state.params["out"]["kernel"], ema)
    jax.tree.map(np.testing.assert_array_equal, frozen, FROZEN)


def eight(out: str) -> None:
    """What the process with eight devices does."""
    found: dict[str, Any] = {}
    for (layout, make), name, accumulate in itertools.product(LAYOUTS.items(), LOSSES, (1, 2)):
        if layout == "one":
            continue
        losses, state, frozen = descend(name, accumulate, make())
        run = f"{layout}/{name}/{accumulate}"
        found[f"{run}/losses"] = losses
        found[f"{run}/params"] = state.params["out"]["kernel"]
        found[f"{run}/ema"] = state.ema[EXPONENTIAL]["out"]["kernel"]
        kernel = frozen["teacher"]["out"]["kernel"]
        found[f"{layout}/bytes"] = kernel.addressable_data(0).nbytes
    np.savez(out, **found)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("eight") / "found.npz"
    return with_eight_devices("tests.training.test_context.eight", out)


@each_loss
@both_ways
@pytest.mark.parametrize("layout", ["pmap", "data", "fsdp4_model2"])
def test_every_layout_gives_the_same(name: str, accumulate: int, layout: str, found: dict) -> None:
    run = f"{layout}/{name}/{accumulate}"
    assert_by_hand(name, *(found[f"{run}/{part}"] for part in ("losses", "params", "ema")))
    whole = TEACHER["out"]["kernel"].nbytes
    assert found[f"{layout}/bytes"] == (whole // 8 if layout == "fsdp4_model2" else whole)


@each_loss
def test_runs_abreast_share_one_copy(name: str) -> None:
    layout, step = Abreast(), make_train_step(LOSSES[name], OPTIMIZER, AVERAGES)
    starts = [arrays(seed, 8, 4) for seed in (7, 9)]
    states = stack([create_state(network(w), OPTIMIZER, AVERAGES) for w in starts])
    states, keys = layout.place((states, jax.random.split(jax.random.key(0))))
    frozen = layout.place(FROZEN, donated=False)
    assert frozen["teacher"]["out"]["kernel"].shape == (8, 4)
    step_fn = layout.compile(step)
    for batch in BATCHES:
        batches = jax.tree.map(lambda a: np.stack([a, a]), batch)
        states, _ = step_fn(states, layout.split(batches), keys, frozen)
    for i, w in enumerate(starts):
        params = part(states, i).params["out"]["kernel"]
        np.testing.assert_allclose(params, by_hand(name, w=w)[1], rtol=1e-5, atol=1e-5)


def test_frozen_parameters_are_an_argument_and_no_constant() -> None:
    traces = []

    def loss(params, batch, context):
        traces.append(1)
        return distillation(params, batch, context)

    layout = Replicated()
    step = make_train_step(loss, OPTIMIZER, AVERAGES, axis_name=layout.axis_name)
    state, key = layout.place((create_state(STUDENT, OPTIMIZER, AVERAGES), jax.random.key(0)))
    batch, step_fn, losses = layout.split(BATCHES[0]), layout.compile(step), []
    for scale in (0.5, 2):
        frozen = layout.place({**FROZEN, "scale": np.array(scale, np.float32)}, donated=False)
        state, metrics = step_fn(state, batch, key, frozen)
        losses.append(float(np.mean(metrics["loss"])))
    assert len(traces) == 1
    target = BATCHES[0]["x"] @ TEACHER["out"]["kernel"] * 2
    after_one = by_hand("distillation", 1)[1]
    expected = np.mean(np.sum((BATCHES[0]["x"] @ after_one - target) ** 2, axis=-1))
    assert losses[1] == pytest.approx(expected, rel=1e-5)
    jaxpr = step_fn.trace(state, batch, key, frozen).jaxpr
    assert sum(np.size(const) for const in jaxpr.consts) < 16
    assert len(jaxpr.in_avals) == len(jax.tree.leaves((state, batch, key, frozen)))


class Batches:
    """The batches in turn."""

    def __init__(self) -> None:
        self._rest = iter(BATCHES)

    def __next__(self) -> dict:
        return next(self._rest)

    def get_state(self) -> dict:
        return {}


def test_the_loop_takes_them_once_and_saves_none_of_them(tmp_path: Path) -> None:
    parallel, checkpoints = Replicated(), Checkpoints(tmp_path)
    unused = jax.random.normal(jax.random.key(0), (10**6,))  # incompressible, of 4 MB
    frozen = jax.device_put({**FROZEN, "unused": unused})
    state = create_state(STUDENT, OPTIMIZER, AVERAGES)
    train(
        make_train_step(distillation, OPTIMIZER, AVERAGES, axis_name=parallel.axis_name),
        state,
        Batches(),
        jax.random.key(0),
        parallel=parallel,
        batch_size=BATCH,
        cadence=Cadence(steps=STEPS, log_every=1, checkpoint_every=1, max_skipped=10),
        checkpoints=checkpoints,
        writer=NoWriter(),
        frozen=frozen,
    )
    saved, _ = checkpoints.restore(state)
    np.testing.assert_allclose(
        saved.params["out"]["kernel"], by_hand("distillation")[1], rtol=1e-5, atol=1e-5
    )
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 10**6
    np.testing.assert_array_equal(frozen["unused"], unused)
