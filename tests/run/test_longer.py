"""Training that is extended, or initialised from another run's parameters."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.run.initial import initial_params
from diffusion_jax.training.checkpoint import Checkpoints
from tests.runs import assert_same, final_state, tiny

pytestmark = pytest.mark.usefixtures("noise")

CONSTANT = {"optimizer__decay": "constant", "optimizer__warmup_steps": 4}


@pytest.mark.slow
@pytest.mark.parametrize("first", [6, 200])
def test_with_a_constant_learning_rate_it_ends_in_the_bits_of_a_long_one(
    first: int, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Also with averages of a length and their snapshots, and after cadences have changed."""
    length = {"ema__lengths": (0.1,), "ema__snapshot_every": first}
    settings = {**CONSTANT, **length, "train__checkpoint_every": first}

    def train(workdir: str, steps: int, **changes: Any) -> int:
        return run.run(
            tiny(**{**settings, **changes}, train__steps=steps), tmp_path / workdir, "train"
        )

    assert train("whole", 2 * first) == 0
    assert train("longer", first) == 0
    capsys.readouterr()
    cadence = {"train__log_every": 5, "train__keep_checkpoints": 2, "model__dit__remat": "full"}
    assert train("longer", 2 * first, **cadence) == 0
    assert f"going on from step {first}" in capsys.readouterr().out
    config = tiny(**settings, train__steps=2 * first)
    assert_same(final_state(config, tmp_path / "whole"), final_state(config, tmp_path / "longer"))
    assert from_config.config_hash(config) == from_config.config_hash(tiny(**settings))
    snapshots = [Checkpoints(tmp_path / w / "snapshots").steps() for w in ("whole", "longer")]
    assert snapshots == [[first], [first]]
    # Shorter than it is: nothing is trained, and that is said.
    assert train("longer", first) == 0
    said = capsys.readouterr().out
    assert f"step {2 * first} is in {tmp_path / 'longer'}, further than train.steps={first}" in said
    kept = json.loads((tmp_path / "longer/config.json").read_text())["config"]
    assert kept["train"]["steps"] == 2 * first


@pytest.mark.slow
def test_it_starts_from_the_parameters_of_another_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """By the average that the other draws with, at a step that is kept."""
    source, workdir = tmp_path / "source", tmp_path / "run"
    assert run.run(tiny(sample__ema="params", train__checkpoint_every=2), source, "train") == 0
    config = tiny(train__init_from=str(source), optimizer__learning_rate=0.0, seed=1)
    assert run.run(config, workdir, "train") == 0
    found = run.open_run(workdir)
    assert found.run.config.train.init_from == f"{source}@6"
    for average in ("params", ""):
        assert_same(
            jax.tree.leaves(run.open_run(workdir, average=average).params),
            jax.tree.leaves(run.open_run(source).params),
        )
    # The same command goes on, also where the other run has gone on or is gone.
    capsys.readouterr()
    (source / "config.json").unlink()
    for mode in ("train", "sample"):
        assert run.run(config, workdir, mode) == 0
    assert "training is done" in capsys.readouterr().out
    config.train.init_from = f"{source}@4"
    assert run.run(config, workdir, "train") == 2
    assert f"init_from='{source}@4' (there: '{source}@6')" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"model__dit__hidden_size": 32}, r"\S+ is of shape \(2, 128\), here of shape \(2, 64\)"),
        ({"model__dit__depth": 3}, r"blocks/\S+ is of shape \(3, .*\), here of shape \(2, "),
        ({"objective__learned_uncertainty": True}, r"uncertainty/\S+ is of .*, here not there"),
        ({"model__name": "unet"}, r"\S+ is not there, here of shape"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(
    source: dict, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = (from_config.build(tiny(**changes)).task.shapes for changes in ({}, source))
    opened = SimpleNamespace(params=other)
    monkeypatch.setattr(run.initial, "open_run", lambda folder, **_: opened)
    with pytest.raises(from_config.ConfigError) as error:
        initial_params("runs/a@3", own, channels=1)
    prefix = "^train.init_from='runs/a@3': its network is another one: "
    assert re.search(prefix + says, str(error.value))
    assert initial_params("runs/a@3", other, channels=1) == opened.params


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "dit"])
def test_a_network_given_an_image_starts_as_the_one_without(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the image is, once the patches of its input have weights for their own channels."""
    patches = {"model__name": network, "model__unet__patch_size": 2}
    given = {**patches, "image_condition__name": "decayed"}
    prior, wider = (from_config.build(tiny(**changes)).task for changes in (patches, given))
    key = jax.random.key(0)
    params = jax.tree.map(
        lambda a: jax.random.normal(jax.random.key(a.size), a.shape), prior.init(key)
    )
    monkeypatch.setattr(run.initial, "open_run", lambda *_, **__: SimpleNamespace(params=params))
    found = initial_params("runs/a", wider.shapes, channels=1)
    x_t, image = jax.random.normal(key, (2, 3, *prior.inputs[0].shape[1:]))
    times = jnp.array([0.2, 0.5, 0.9])
    outputs = [
        task.apply(p, x_t, times, {"image": image}) for task, p in ((prior, params), (wider, found))
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("nowhere", "train.init_from='nowhere': there is no run in nowhere"),
        ("nowhere@7", "train.init_from='nowhere@7': there is no run in nowhere"),
        ("a@b", "train.init_from='a@b': 'b' is not the step of a checkpoint"),
    ],
)
def test_a_run_that_is_not_there_is_said(
    words: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run.run(tiny(train__init_from=words), tmp_path, "train") == 2
    assert says in capsys.readouterr().err
