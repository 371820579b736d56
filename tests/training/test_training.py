"""The train step and its parts, on problems with a known answer."""

import functools
import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.system.devices import AXIS
from diffusion_jax.system.signals import SIGNALS, stop_signal
from diffusion_jax.training.checkpoint import METRIC, Checkpoints
from diffusion_jax.training.ema import EXPONENTIAL, Exponential
from diffusion_jax.training.loop import IN_FLIGHT, Cadence, TrainingError, train
from diffusion_jax.training.optimizer import learning_rate_schedule, make_optimizer
from diffusion_jax.training.parallel import Replicated
from diffusion_jax.training.stalls import StallWatch
from diffusion_jax.training.state import create_state
from diffusion_jax.training.step import make_train_step
from diffusion_jax.training.writers import JsonlWriter
from tests.runs import context_of


def regression(params, batch, context):
    """Squared error of a line; noise by the sample's index, as in every objective."""
    noise = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(context.key, i)))(
        batch["index"]
    )
    loss = (batch["x"] @ params["w"] - batch["y"] + 0.1 * noise) ** 2
    return loss, {"twice": 2 * loss}


def data(n: int = 16) -> dict:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return {"x": x, "y": x @ np.array([1.0, -2.0, 0.5], np.float32), "index": np.arange(n)}


PARAMS = {"w": jnp.array([0.3, 0.1, -0.2])}
AVERAGES = {EXPONENTIAL: Exponential(0.5)}


def test_one_step_by_hand() -> None:
    optimizer = optax.sgd(0.1)
    step = make_train_step(regression, optimizer, AVERAGES)
    key, batch = jax.random.key(0), data()
    state, metrics = step(create_state(PARAMS, optimizer, AVERAGES), batch, key, {})
    context = context_of(jax.random.fold_in(key, 0))
    mean = lambda p: regression(p, batch, context)[0].mean()  # noqa: E731
    gradient = jax.grad(mean)(PARAMS)["w"]
    np.testing.assert_allclose(state.params["w"], PARAMS["w"] - 0.1 * gradient, rtol=1e-6)
    assert state.step == 1
    assert metrics["loss"] == pytest.approx(float(mean(PARAMS)))
    assert metrics["twice"] == pytest.approx(2 * float(mean(PARAMS)))
    assert metrics["grad_norm"] == pytest.approx(float(jnp.linalg.norm(gradient)))
    # Decay of the first step: min(0.5, (1 + 1) / (10 + 1)).
    expected = PARAMS["w"] + (1 - 2 / 11) * (state.params["w"] - PARAMS["w"])
    np.testing.assert_allclose(state.ema[EXPONENTIAL]["w"], expected, rtol=1e-6)


def test_steps_that_are_not_sound_change_nothing_but_are_counted() -> None:
    optimizer = make_optimizer("adam", optax.constant_schedule(0.1))
    make = functools.partial(make_train_step, regression, optimizer, AVERAGES)
    step = jax.jit(make(max_grad_norm=50.0))
    good, key = data(), jax.random.key(0)
    bad = {**good, "x": np.where(np.arange(16)[:, None] == 3, np.nan, good["x"])}
    far = {**good, "y": good["y"] + 1e3}  # its gradient is finite, but too large
    state, metrics = step(create_state(PARAMS, optimizer, AVERAGES), good, key, {})
    assert metrics["skipped"] == 0
    after = state
    for number, batch in enumerate((bad, far), start=1):
        after, metrics = step(after, batch, key, {})
        assert metrics["skipped"] == after.skipped == number
        assert after.step == 1 + number
        # Averages take the parameters that stayed once more.
        same = after._replace(step=state.step, skipped=state.skipped, ema=state.ema)
        jax.tree.map(np.testing.assert_array_equal, same, state)
    after, metrics = step(after, good, key, {})
    assert metrics["skipped"] == after.skipped == 0
    assert not np.array_equal(after.params["w"], state.params["w"])
    unlimited = jax.jit(make())
    assert unlimited(state, bad, key, {})[1]["skipped"] == 1
    assert unlimited(state, far, key, {})[1]["skipped"] == 0


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_gradients_are_averaged_over_devices_in_the_dtype_that_is_asked_for(dtype: Any) -> None:
    step = make_train_step(regression, optax.sgd(1.0), {}, axis_name=AXIS, exchanged=dtype)
    parts = jax.tree.map(lambda a: np.reshape(a, (2, -1, *a.shape[1:])), data())
    state, key = create_state(PARAMS, optax.sgd(1.0), {}), jax.random.key(0)
    devices = jax.vmap(step, (None, 0, None, None), axis_name=AXIS)
    found = devices(state, parts, key, {})[0].params["w"]
    context = context_of(jax.random.fold_in(key, 0))
    loss = lambda params, part: regression(params, part, context)[0].mean()  # noqa: E731
    each = jax.vmap(jax.grad(loss), (None, 0))(PARAMS, parts)["w"].astype(dtype or jnp.float32)
    mean = ((each[0] + each[1]) / 2).astype(jnp.float32)
    np.testing.assert_allclose(found[0], PARAMS["w"] - mean, rtol=1e-6)
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulation_changes_nothing_but_memory(accumulate: int) -> None:
    optimizer = make_optimizer("adam", optax.constant_schedule(0.1), clip_norm=1.0)
    states = []
    for parts in (1, accumulate):
        step = jax.jit(make_train_step(regression, optimizer, AVERAGES, parts))
        state = create_state(PARAMS, optimizer, AVERAGES)
        for _ in range(3):
            state, metrics = step(state, data(), jax.random.key(0), {})
        states.append((state, metrics))
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("mapped", [False, True])
def test_the_parallel_step_is_the_plain_one(mapped: bool) -> None:
    """Also through pmap, which one device alone does without."""
    parallel = Replicated()
    parallel.axis_name = AXIS if mapped else parallel.axis_name
    optimizer = optax.adam(0.1)
    step = make_train_step(regression, optimizer, AVERAGES, axis_name=parallel.axis_name)
    batch = data()
    split = parallel.split({"x": batch["x"], "y": batch["y"]})
    np.testing.assert_array_equal(np.ravel(split["index"]), batch["index"])
    state = create_state(jax.tree.map(jnp.copy, PARAMS), optimizer, AVERAGES)  # it is donated
    plain = make_train_step(regression, optimizer, AVERAGES)
    expected, wanted = plain(state, batch, jax.random.key(0), {})
    placed, key = parallel.place((state, jax.random.key(0)))
    found, metrics = parallel.compile(step)(placed, split, key, {})
    for x, y in zip(jax.tree.leaves(parallel.fetch(found)), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.mean(metrics["loss"]), wanted["loss"], rtol=1e-5)


@pytest.mark.parametrize(("decay", "middle"), [("constant", 2.0), ("linear", 1.0), ("cosine", 1.0)])
def test_learning_rate(decay: str, middle: float) -> None:
    rate = learning_rate_schedule(2.0, steps=110, warmup_steps=10, decay=decay)
    assert rate(0) == 0
    assert rate(5) == pytest.approx(1.0)
    assert rate(10) == pytest.approx(2.0)
    assert rate(60) == pytest.approx(middle)
    assert rate(110) == pytest.approx(2.0 if decay == "constant" else 0.0, abs=1e-6)


def test_optimizers_by_name_and_clipping() -> None:
    gradient = {"w": jnp.array([3.0, 4.0])}
    for name in ("sgd", "adam", "lion", "lamb", "dadapt_adamw"):
        make_optimizer(name, optax.constant_schedule(0.1)).init(gradient)
    clipped = make_optimizer("sgd", optax.constant_schedule(1.0), clip_norm=1.0)
    updates, _ = clipped.update(gradient, clipped.init(gradient))
    np.testing.assert_allclose(updates["w"], [-0.6, -0.8], rtol=1e-6)
    with pytest.raises(AttributeError):
        make_optimizer("adammm", optax.constant_schedule(0.1))


class Batches:
    """Ever the same batch, of NaN from one on; its state is the number of batches taken."""

    taken = 0

    def __init__(self, spoilt: float = np.inf) -> None:
        self._spoilt = spoilt

    def __next__(self) -> dict:
        self.taken += 1
        batch = data()
        if self.taken > self._spoilt:
            batch["x"] = batch["x"] * np.float32("nan")
        return {name: value for name, value in batch.items() if name != "index"}

    def get_state(self) -> dict:
        return {"taken": self.taken}

    def describe(self, index: int) -> str:
        return f"batch {index}"


def trained(
    checkpoints: Checkpoints, cadence: Cadence, batches: Batches, **more: Any
) -> tuple[int, list]:
    """What `train` returns, and what it wrote."""
    rows: list = []
    parallel, optimizer = Replicated(), optax.sgd(0.1)

    def log(step, scalars):
        rows.append((step, scalars))

    writer = SimpleNamespace(write_scalars=log, flush=lambda: None)
    signum = train(
        make_train_step(regression, optimizer, AVERAGES, axis_name=parallel.axis_name),
        create_state(PARAMS, optimizer, AVERAGES),
        batches,
        jax.random.key(0),
        parallel=parallel,
        batch_size=16,
        cadence=cadence,
        checkpoints=checkpoints,
        writer=writer,
        **more,
    )
    return signum, rows


def test_the_loop_keeps_the_checkpoint_that_was_measured_best(tmp_path: Path) -> None:
    """A checkpoint has the loss measured since the one before, if any: 3 and 5 have none."""
    losses = {1: 5.0, 2: 1.0, 4: 2.0, 6: 3.0}
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=2)
    signum, rows = trained(
        checkpoints,
        Cadence(steps=7, log_every=7, checkpoint_every=1, max_skipped=10),
        Batches(),
        actions=[(1, lambda step, state: {METRIC: losses[step]} if step in losses else {})],
    )
    assert signum == 0
    assert checkpoints.steps() == [2, 4, 7]
    assert [(step, row[METRIC]) for step, row in rows if METRIC in row] == list(losses.items())
    template = create_state(PARAMS, optax.sgd(0.1), AVERAGES)
    assert checkpoints.restore(template)[1] == {"taken": 7}


@pytest.mark.parametrize("log_every", [1, 4, 100])
@pytest.mark.parametrize(
    ("steps", "max_skipped", "sound", "ends"),
    [(30, 10, 0, 10), (30, 10, 5, 10), (6, 10, 0, 6), (13, 10, 3, 10), (30, 1, 7, 1)],
)
def test_a_training_that_stands_still_ends_whatever_the_cadence(
    steps: int, max_skipped: int, sound: int, ends: int, log_every: int, tmp_path: Path
) -> None:
    checkpoints, batches = Checkpoints(tmp_path), Batches(sound)
    cadence = Cadence(steps, log_every, checkpoint_every=0, max_skipped=max_skipped)
    said = f"^{ends} steps in a row skipped .*first of them step {sound + 1} with batch {sound};"
    with pytest.raises(TrainingError, match=said):
        trained(checkpoints, cadence, batches)
    assert batches.taken <= sound + ends + IN_FLIGHT
    assert checkpoints.steps() == []  # none of a model that stands still


def test_the_last_steps_are_logged_whatever_the_cadence(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    cadence = Cadence(steps=7, log_every=5, checkpoint_every=0, max_skipped=10)
    _, rows = trained(Checkpoints(tmp_path), cadence, Batches(5))
    assert [(step, row["skipped"]) for step, row in rows if "loss" in row] == [(5, 0), (7, 2)]
    assert "warning: 2 of the last 2 steps skipped" in capsys.readouterr().out


def test_the_logged_rate_is_without_the_first_batch_and_compilation(tmp_path: Path) -> None:
    class Slow(Batches):
        def __next__(self) -> dict:
            time.sleep(1.0 if self.taken == 0 else 0.0)
            return super().__next__()

    _, rows = trained(Checkpoints(tmp_path), Cadence(100, 100, 0, max_skipped=10), Slow())
    row = next(row for _, row in rows if "loss" in row)
    assert row["items_per_second"] > 100 * 16
    assert row["train_seconds"] > 1


def test_a_line_of_metrics_that_was_cut_off_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        writer = JsonlWriter(path)
        writer.write_scalars(step, {"loss": 0.5})
        writer.close()
        with path.open("a") as file:
            file.write('{"step": 9, "los')
    JsonlWriter(path).close()
    assert [json.loads(line)["step"] for line in path.open()] == [1, 2]


@pytest.mark.parametrize("signum", SIGNALS)
def test_the_first_signal_is_noted_and_a_second_one_ends_the_process(
    signum: int, capfd: pytest.CaptureFixture
) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    with stop_signal() as stopped:
        assert stopped(0) == 0
        os.kill(os.getpid(), signum)
        assert stopped(0) == signum
        left = {each: signal.getsignal(each) for each in SIGNALS}
        closed = {signal.SIGHUP: signal.SIG_IGN} if signum == signal.SIGHUP else {}
        assert left == dict.fromkeys(SIGNALS, signal.SIG_DFL) | closed
    assert [signal.getsignal(each) for each in SIGNALS] == before
    said = capfd.readouterr().err.strip()
    assert said.startswith(signal.Signals(signum).name)
    assert said.count("\n") == 0


def test_a_stalled_pipeline_is_reported_and_goes_on(capsys: pytest.CaptureFixture) -> None:
    def batches():
        for pause in (0, 0.6, 0, 0.16, 0):
            time.sleep(pause)
            yield pause

    with StallWatch(batches(), 0.1) as watched:
        for pause, lines in ((0, 0), (0.6, 3), (0, 0), (0.16, 1), (0, 0)):  # 0.1, 0.2 and 0.4 s
            assert next(watched) == pause
            time.sleep(0.2)  # a slow step is no stall
            said = capsys.readouterr().err.splitlines()
            assert len(said) == lines
            assert all(line.startswith("warning: no batch of data for") for line in said)
        with pytest.raises(StopIteration):
            next(watched)
