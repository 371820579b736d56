"""Parameter averages: closed forms, EDM2's figures, and lengths computed after training."""

import functools
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import flags
from ml_collections import config_flags
from scipy import integrate

from diffusion_jax import from_config, run
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.from_config import ConfigError, build, evaluated, sample_average
from diffusion_jax.from_config.averages import make_averages
from diffusion_jax.plan import make_plan
from diffusion_jax.report import result_tables
from diffusion_jax.run.evaluation import evaluate
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import (
    EXPONENTIAL,
    LONGEST,
    Exponential,
    Power,
    exponent,
    inner_products,
    never_moved,
    post_hoc_weights,
    start_weight,
    too_young,
    update_averages,
)
from diffusion_jax.training.snapshots import Snapshots
from diffusion_jax.training.state import TrainState, create_state
from diffusion_jax.training.step import make_train_step
from tests.runs import tiny

pytestmark = pytest.mark.usefixtures("noise")


def weights(average: Exponential | Power, steps: int) -> np.ndarray:
    """Weight of the parameters after each step, 0 to `steps`, by running the recursion."""
    seen = np.eye(steps + 1, dtype=np.float32)

    def body(state, row):
        return update_averages({"a": average}, state, row[1:], row[0]), None

    rows = jnp.concatenate([jnp.arange(1, steps + 1)[:, None], seen[1:]], axis=1)
    return np.asarray(jax.lax.scan(body, {"a": jnp.asarray(seen[0])}, rows)[0]["a"], np.float64)


@pytest.mark.parametrize(
    ("length", "gamma"), [(0.05, 16.97), (0.1, 6.94), (0.075, 10.289), (LONGEST, 0.0)]
)
def test_exponents_are_those_of_the_paper(length: float, gamma: float) -> None:
    """EDM2, Section 3.1, has the first two; the last is the uniform law's 1/sqrt(12)."""
    assert exponent(length) == pytest.approx(gamma, abs=6e-3)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.25])
def test_profile_of_the_recursion(length: float) -> None:
    """Its weights sum to one, none of it is of the start, and its width is the length."""
    steps = 1000
    found = weights(Power(length), steps)
    assert found[0] == 0
    assert found.sum() == pytest.approx(1, abs=1e-5)
    # Each step's parameters hold for a unit of time, which the closed form integrates over.
    edges = (np.arange(steps + 1) / steps) ** (exponent(length) + 1)
    np.testing.assert_allclose(found[1:], np.diff(edges), rtol=2e-4, atol=1e-9)
    middle = np.arange(steps) + 0.5
    mean = found[1:] @ middle
    spread = np.sqrt(found[1:] @ (middle - mean) ** 2 + 1 / 12)
    assert spread / steps == pytest.approx(length, rel=1e-4)


def test_a_step_without_a_sound_gradient_counts_for_the_averages() -> None:
    """Their weights go by the number of steps: the parameters before it are taken again."""
    averages, optimizer = {"a": Power(0.1)}, optax.sgd(0.1)
    step = make_train_step(lambda p, batch, context: (p * batch["x"], {}), optimizer, averages)
    state, seen = create_state(jnp.ones(()), optimizer, averages), [1.0]
    for x in (1.0, np.nan, 2.0):
        state, _ = step(state, {"x": jnp.full(2, x)}, jax.random.key(0), {})
        seen.append(float(state.params))
    assert seen == pytest.approx([1, 0.9, 0.9, 0.7])
    assert float(state.ema["a"]) == pytest.approx(weights(Power(0.1), 3) @ seen, rel=1e-6)


@pytest.mark.parametrize("average", [Power(0.1), Exponential(0.9), Exponential(0.9, False)])
def test_an_update_each_third_step_is_that_of_three_with_its_parameters(average: Any) -> None:
    rng, every = np.random.default_rng(0), 3
    start, rows = rng.normal(size=4).astype(np.float32), rng.normal(size=(9, 4)).astype(np.float32)
    found = wanted = {"a": start}
    update = jax.jit(functools.partial(update_averages, {"a": average}, every=every))
    for step in range(1, 10):
        found = update(found, rows[step - 1], jnp.array(step))
        held = rows[(step - 1) // every * every + every - 1]
        wanted = update_averages({"a": average}, wanted, held, jnp.array(step))
        if step % every == 0:
            np.testing.assert_allclose(found["a"], wanted["a"], rtol=1e-5, atol=1e-6)
            kept = found["a"]
        elif step > every:
            np.testing.assert_array_equal(found["a"], kept)


def test_late_in_training_float32_keeps_the_rate() -> None:
    step = 3_000_000
    exact = -np.expm1((exponent(0.1) + 1) * np.log1p(-1 / step))
    assert float(Power(0.1).rate(jnp.array(step))) == pytest.approx(exact, rel=1e-5)
    assert float(Exponential(0.999999).rate(jnp.array(10**8))) == pytest.approx(1e-6, rel=1e-6)


def test_exponential_warms_up_and_then_decays() -> None:
    # What is left of the start: the product of (1 + i) / (10 + i).
    left = np.prod([(1 + i) / (10 + i) for i in range(1, 11)])
    assert weights(Exponential(0.99), 10)[0] == pytest.approx(left, rel=1e-4)
    assert weights(Exponential(0.99, warmup=False), 10)[0] == pytest.approx(0.99**10, rel=1e-5)
    assert float(Exponential(0.99).rate(jnp.array(5000))) == pytest.approx(0.01)
    found = weights(Exponential(0.99), 2000)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    assert found[-2] == pytest.approx(0.01 * 0.99, rel=1e-4)


def test_inner_products_are_integrals() -> None:
    gammas, steps = np.array([16.97, 6.94, 0.3]), np.array([500.0, 900.0, 1000.0])
    found = inner_products((gammas, steps), (gammas, steps))
    for i in range(3):
        for j in range(3):
            product = lambda t, i=i, j=j: (  # noqa: E731
                (gammas[i] + 1) * (t / steps[i]) ** gammas[i] / steps[i]
                * (gammas[j] + 1) * (t / steps[j]) ** gammas[j] / steps[j]
            )  # fmt: skip
            exact, _ = integrate.quad(product, 0, min(steps[i], steps[j]))
            assert found[i, j] == pytest.approx(exact, rel=1e-9)


PUBLISHED = {
    0.08: "2.676618221e-06 -3.658411397e-05 0.003593012188 -0.01947205163 0.2578911309 0.758021816",
    0.2: "-0.018957073 0.052585371 -0.133345095 0.336606754 -0.387493122 1.150603165",
}


@pytest.mark.parametrize("length", PUBLISHED)
def test_combinations_are_those_of_the_published_code(length: float) -> None:
    """`solve_posthoc_coefficients` of EDM2's training/phema.py (NVlabs/edm2), run on these."""
    found = post_hoc_weights(length, 300, [0.05, 0.1], [100, 200, 300])
    theirs = [float(word) for word in PUBLISHED[length].split()]
    np.testing.assert_allclose(found.weights.ravel(), theirs, rtol=1e-7)
    exact = post_hoc_weights(0.1, 300, [0.05, 0.1], [100, 200, 300])
    np.testing.assert_allclose(exact.weights, [[0, 0], [0, 0], [0, 1]], atol=1e-9)
    assert exact.error < 1e-7


def test_the_error_of_a_profile_is_its_distance() -> None:
    """By quadrature; and two snapshots all but at the same step are no trouble."""
    lengths, steps, wanted = [0.05, 0.1], [400, 800, 999, 1000], 0.2
    found = post_hoc_weights(wanted, 1000, lengths, steps)
    t = (np.arange(200_000) + 0.5) / 200

    def profile(length: float, end: int) -> np.ndarray:
        gamma = exponent(length)
        return np.where(t < end, (gamma + 1) / end * (t / end) ** gamma, 0)

    made = sum(
        w * profile(length, end)
        for end, row in zip(steps, found.weights, strict=True)
        for length, w in zip(lengths, row, strict=True)
    )
    aim = profile(wanted, 1000)
    error = np.linalg.norm(made - aim) / np.linalg.norm(aim)
    assert found.error == pytest.approx(error, rel=1e-3)
    assert np.abs(found.weights).sum() < 100
    assert found.weights.sum() == pytest.approx(1)


STEPS, EVERY = 2000, 20
TRACKED, OTHERS = (0.05, 0.1), (0.02, 0.03, 0.07, 0.15, 0.2, 0.25)


def noisy_regression(params, batch, context):
    """A two-layer network on a batch of its own at every step, with noise in what it is to say."""
    x_key, noise_key = jax.random.split(context.key)
    x = jax.random.normal(x_key, (len(batch["x"]), 4))
    y = jnp.sin(x @ jnp.array([1.0, -2.0, 0.5, 1.0])) + 0.3 * jax.random.normal(
        noise_key, (len(x),)
    )
    return (jnp.tanh(x @ params["in"]) @ params["out"] - y) ** 2, {}


@pytest.fixture(scope="module")
def trajectory():
    """The averages of a training after every `EVERY` steps, by its own step, in float32."""
    averages = {str(length): Power(length) for length in (*TRACKED, *OTHERS)}
    optimizer = optax.sgd(0.1)
    keys = jax.random.split(jax.random.key(0))
    params = {
        "in": jax.random.normal(keys[0], (4, 16)),
        "out": jax.random.normal(keys[1], (16,)) / 4,
    }
    step = make_train_step(noisy_regression, optimizer, averages)

    def body(state, _):
        return jax.lax.fori_loop(
            0, EVERY, lambda _, s: step(s, {"x": jnp.zeros(8)}, jax.random.key(1), {})[0], state
        ), None

    def run(state, _):
        state, _ = body(state, None)
        return state, state

    state = create_state(params, optimizer, averages)
    return jax.jit(lambda s: jax.lax.scan(run, s, length=STEPS // EVERY)[1])(state)


@pytest.mark.parametrize(
    ("length", "end"), [(one, STEPS) for one in OTHERS] + [(0.02, 1500), (0.07, 1500), (0.2, 1500)]
)
def test_post_hoc_equals_tracked(trajectory: TrainState, length: float, end: int) -> None:
    """To 1e-3 of the parameters, where single steps are 1 to 20% away."""
    steps = list(range(EVERY, end + 1, EVERY))
    found = post_hoc_weights(length, end, TRACKED, steps)
    row = end // EVERY - 1
    for leaf in ("in", "out"):
        stored = np.stack([trajectory.ema[str(one)][leaf][: row + 1] for one in TRACKED], axis=1)
        made = np.tensordot(found.weights, stored.astype(np.float64), 2)
        tracked = np.asarray(trajectory.ema[str(length)][leaf][row], np.float64)
        distance = np.linalg.norm(made - tracked) / np.linalg.norm(tracked)
        moved = np.linalg.norm(trajectory.params[leaf][row] - tracked) / np.linalg.norm(tracked)
        assert distance < 1e-3
        assert moved > 10 * distance


def test_lengths_are_made_of_what_is_on_disk(trajectory: TrainState, tmp_path: Path) -> None:
    """With the averages of a step between two snapshots, and none of later ones."""
    averages = {EXPONENTIAL: Exponential(0.9)} | {str(length): Power(length) for length in TRACKED}

    def state(step: int) -> TrainState:
        row = jax.tree.map(lambda a: a[step // EVERY - 1], trajectory)
        ema = {name: row.ema[name] for name in map(str, TRACKED)}
        return row._replace(ema={EXPONENTIAL: row.params, **ema})

    snapshots = Snapshots(tmp_path, averages)
    for step in range(200, STEPS + 1, 200):
        snapshots.save(step, state(step))
    now = state(1700)
    steps, combination = snapshots.plan("0.07", 1700)
    assert steps == [200, 400, 600, 800, 1000, 1200, 1400, 1600, 1700]
    found = snapshots.average(now, "0.07")
    tracked = jax.tree.map(lambda a: a[1700 // EVERY - 1], trajectory.ema["0.07"])
    for name in ("in", "out"):
        distance = jnp.linalg.norm(found[name] - tracked[name]) / jnp.linalg.norm(tracked[name])
        assert distance < 1e-3
        assert found[name].dtype == jnp.float32
    assert snapshots.average(now, "0.1") is now.ema["0.1"]
    assert snapshots.average(now, "params") is now.params
    assert snapshots.describe("0.07") == "length 0.07, post-hoc"
    assert combination.error < 0.01
    assert not snapshots.unfit("0.07", 1700)
    assert "poorly approximated from averages of 9 steps" in snapshots.unfit("0.01", 1700)[0]


def test_averages_that_are_not_fit_to_sample_from() -> None:
    slow = Exponential(0.9999, warmup=False)
    assert start_weight(slow, 2000) == pytest.approx(0.9999**2000, rel=1e-3)
    (told,) = too_young({"a": slow, "b": Exponential(0.9999), "c": Power(0.25)}, 2000)
    assert "(decay 0.9999) is too young after 2,000 steps: 82% of it" in told
    assert too_young({"a": slow}, 50_000) == []
    assert too_young({"a": slow}, 0) == []
    assert start_weight(Power(0.1), 1) == 0
    init = lambda key: {"a": jnp.zeros(2), "b": jax.random.normal(key, (3,))}  # noqa: E731
    still = init(jax.random.key(0))
    assert never_moved(still, init, jax.random.key(0))
    for name in still:
        moved = {**still, name: still[name] + 1e-4}
        assert not never_moved(moved, init, jax.random.key(0))
    config = tiny(ema__decay=0.9999, ema__warmup=False)
    warnings = make_plan(config, build(config), 0.5).warnings
    assert any("too young after 6 steps" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ema__lengths": (0.0,)}, "ema.lengths=0.0 must lie in (0, 0.288"),
        ({"ema__lengths": ("0.1", "x")}, "ema.lengths='x' is not known"),
        ({"ema__lengths": (0.1, 0.10)}, "has a length twice"),
        ({"ema__lengths": (0.1,), "ema__snapshot_every": -1}, "ema.snapshot_every=-1 must be 0"),
        (
            {"ema__lengths": (0.1,), "ema__snapshot_every": 5, "ema__every": 2},
            "ema.snapshot_every=5 must be a multiple of ema.every=2",
        ),
        ({"sample__ema": "parms"}, "allowed is '', 'params' or a length"),
        ({"evaluate__ema_lengths": (0.1,)}, "evaluate.ema_lengths needs EMA length 0.1"),
    ],
)
def test_bad_lengths(settings: dict, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        make_averages(tiny(**settings))


def test_lengths_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["ema.lengths=0.05,0.1", "evaluate.ema_lengths=0.10", "sample.ema=0.050"]
    monkeypatch.setattr("sys.argv", ["launch.py", *(f"--config.{word}" for word in words)])
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_dict("config", tiny(), flag_values=values)
    values(sys.argv)
    assert list(make_averages(holder.value)) == [EXPONENTIAL, "0.05", "0.1"]
    assert evaluated(holder.value) == ["0.1"]
    assert sample_average(holder.value) == "0.05"


@pytest.mark.slow
def test_a_run_with_lengths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Killed between a checkpoint and its snapshot; then measured by length."""
    flat = lambda images: images.reshape(len(images), -1)  # noqa: E731
    seen = Extractor("noise_cnn", "", "", lambda x: (flat(x)[:, :10], flat(x)[:, 10:20]))
    monkeypatch.setattr(from_config.evaluators, "make_extractor", lambda *a: seen)
    quiet = {"train__checkpoint_every": 2}
    config = tiny(ema__lengths=(0.05, 0.1), ema__snapshot_every=2, **quiet)
    assert run.run(config, tmp_path, "train") == 0
    made = run.Run(config, tmp_path, build(config))
    whole, before = made.restored_state(), stored(made)
    shutil.rmtree(tmp_path / "checkpoints/6")
    shutil.rmtree(tmp_path / "snapshots/4")
    assert run.run(config, tmp_path, "train") == 0
    made = run.Run(config, tmp_path, build(config))
    assert [step for step, _ in before] == [2, 4]
    for found, expected in ((made.restored_state(), whole), (stored(made), before)):
        jax.tree.map(np.testing.assert_array_equal, found, expected)

    capsys.readouterr()
    made.trained(whole, "0.05")
    assert capsys.readouterr().err == ""
    with monkeypatch.context() as patch:
        patch.setattr(run.trained, "never_moved", lambda *a: True)
        made.trained(whole, "0.05")
        said = capsys.readouterr().err
        assert "warning: " in said
        assert "(EMA: length 0.05) has never moved: after 6 steps" in said
        made.trained(whole._replace(step=0 * whole.step), "0.05")
        assert "has never moved" not in capsys.readouterr().err
    swept = tiny(**{"ema": config.ema, "evaluate__ema_lengths": (0.2, 0.05), **quiet})
    assert run.run(swept, tmp_path, "evaluate") == 0
    assert (
        "EMA length 0.2 is poorly approximated from averages of 3 steps" in capsys.readouterr().err
    )
    result = json.loads((tmp_path / "result.json").read_text())
    for name in ("frechet_noise_cnn", "nearest_training_distance"):
        for length, words in ((0.05, "length 0.05"), (0.2, "length 0.2, post-hoc")):
            entry = result[f"{name}_length{length}"]
            assert entry["low"] <= entry["value"] <= entry["high"]
            assert entry["passport"]["ema"] == words
            assert entry["passport"]["length"] == length
        assert "length" not in result[f"{name}_heldout"]["passport"]
    page = (tmp_path / "report.md").read_text()
    assert "| 0.05 | **" in page
    assert "| 0.2 (post-hoc, profile " in page
    assert "`accuracy_noise_cnn`" in page
    evaluate(run.Run(swept, tmp_path, build(swept)), again=False)
    assert "evaluated already" in capsys.readouterr().out


def stored(made: run.Run) -> list:
    """Steps and contents of a run's snapshots."""
    checkpoints = Checkpoints(made.workdir / "snapshots", None)
    template = {name: made.abstract_state().ema[name] for name in ("0.05", "0.1")}
    return [(step, checkpoints.restore(template, step)[0]) for step in checkpoints.steps()]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ((3.0, 1.0, 2.0), "is best at EMA length 0.1: its interval lies apart from all others"),
        ((3.0, 1.0, 1.3), "do not resolve which of the EMA lengths 0.1, 0.2 is best"),
    ],
)
def test_the_best_length_is_named_if_intervals_resolve_it(values: tuple, says: str) -> None:
    result = {}
    names = ("frechet_x", "accuracy_x", "bits_ode_heldout", "bits_ode_train")
    for length, value in zip((0.05, 0.1, 0.2), values, strict=True):
        passport = {"length": length, "profile_error": 0.0}
        for name in names:
            v, half = (1 - value / 10, 0.02) if name == "accuracy_x" else (value, 0.2)
            entry = {"value": v, "low": v - half, "high": v + half, "n": 9, "passport": passport}
            result[f"{name}_length{length}"] = entry
            if not name.startswith("bits"):
                result[f"{name}_heldout"] = {**entry, "passport": {}}
    table = result_tables(result)
    assert len([line for line in table.splitlines() if says in line]) == 3
    assert len([line for line in table.splitlines() if line.startswith("| 0.")]) == 6
