"""A trained model in Python: the same samples as on the command line, and clear errors."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import diffusion_jax
from diffusion_jax import from_config, run
from diffusion_jax.diffusion import time_grids
from diffusion_jax.from_config import ConfigError
from diffusion_jax.generation import Guidance, Request
from diffusion_jax.samplers.ode import heun
from diffusion_jax.training.checkpoint import CheckpointError
from diffusion_jax.types import Denoised
from tests.runs import TEXT, captioned_dataset, tiny

pytestmark = pytest.mark.slow

SMALL = {
    "train__steps": 40,
    "train__checkpoint_every": 20,
    "optimizer__learning_rate": 1e-2,
    "optimizer__warmup_steps": 0,
    "sample__num_images": 5,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints of the steps 20 and 40, whose labels make a difference."""
    workdir = tmp_path_factory.mktemp("opened") / "run"
    assert run.run(tiny(**SMALL), workdir, "train") == 0
    return workdir


def written(workdir: Path, **changes: Any) -> np.ndarray:
    """What `--mode sample` writes, uint8 `[5, 8, 8, 1]`."""
    assert run.run(tiny(**SMALL, **changes), workdir, "sample") == 0
    files = sorted((workdir / "samples/images").iterdir())
    return np.stack([np.asarray(Image.open(path)) for path in files])[..., None]


@pytest.mark.parametrize("seed", [0, 7])
def test_it_draws_what_the_command_line_writes(trained: Path, seed: int) -> None:
    expected = written(trained, sample__labels="3", sample__seed=seed)
    for open_run in (diffusion_jax.open_run, run.open_run):
        model = open_run(trained)
        found = model.draw(5, labels=3, seed=seed)
        assert (found.dtype, found.shape) == (np.uint8, (5, 8, 8, 1))
        np.testing.assert_array_equal(found, expected)
    assert model.step == 40
    assert not np.array_equal(model.draw(5, labels=5, seed=seed), expected)
    assert not np.array_equal(model.draw(5, labels=3, seed=seed + 1), expected)


def test_labels_are_taken_in_turn_and_numbers_go_on(trained: Path) -> None:
    """Without labels they are as configured, all classes in turn."""
    model = run.open_run(str(trained))
    found = model.draw(5, labels=[3, 5])
    for label in (3, 5):
        rows = slice(label == 5, None, 2)
        np.testing.assert_array_equal(found[rows], model.draw(5, labels=label)[rows])
    np.testing.assert_array_equal(
        model.draw(5, first=2), model.draw(5, labels=range(2, 7), first=2)
    )
    later = model.draw(5, labels=3, first=2)[:3].astype(int)
    assert np.abs(later - model.draw(5, labels=3)[2:]).max() <= 1  # compiled to other vectors


def test_steps_and_averages_can_be_chosen(trained: Path) -> None:
    drawn = {}
    for step, average in ((-1, ""), (20, ""), (-1, "params")):
        model = run.open_run(trained, step=step, average=average)
        assert model.step == (20 if step == 20 else 40)
        drawn[step, average] = model.draw(5)
        np.testing.assert_array_equal(
            drawn[step, average],
            written(trained, sample__checkpoint=step, sample__ema=average),
        )
    assert len({pictures.tobytes() for pictures in drawn.values()}) == 3
    with pytest.raises(CheckpointError, match="no checkpoint of step 7"):
        run.open_run(trained, step=7)


def test_settings_of_sampling_can_be_others(trained: Path) -> None:
    others = {"sampler": "unipc", "steps": 3, "guidance": {"interval": (0.2, 0.7)}}
    flat = {"sampler": "unipc", "steps": 3, "guidance__interval": (0.2, 0.7)}
    np.testing.assert_array_equal(
        run.open_run(trained, guidance_scale=3, **others).draw(5),
        written(trained, sample__guidance_scale=3, **{f"sample__{k}": v for k, v in flat.items()}),
    )
    for asked, says in (
        ({"stepz": 3}, "sample.stepz is not known.*steps"),
        ({"guidance": {"interva": 1}}, "sample.guidance.interva is not known.*interval"),
        ({"steps": "ten"}, "sample.steps='ten' must be of type int"),
        ({"sampler": "unipcc"}, "sample.sampler='unipcc' is not known.*unipc"),
        ({"steps": 0}, "sample.steps=0 must"),
    ):
        with pytest.raises(ConfigError, match=says):
            run.open_run(trained, **asked)


def test_parts_of_the_generator_can_be_others(trained: Path) -> None:
    model = run.open_run(trained, sampler="ddim", steps=4)
    schedule = model.draws.process.schedule
    other = model.replace(sampler=heun(schedule), times=time_grids.uniform(2))
    expected = run.open_run(trained, sampler="heun", steps=2).draw(5)
    np.testing.assert_array_equal(other.draw(5), expected)
    assert not np.array_equal(model.draw(5), expected)

    def black(denoiser: Any, request: Request, times: Any) -> Any:
        return lambda x_t, t, cond: Denoised(-jnp.ones_like(x_t))

    assert not model.replace(guidance=Guidance(black)).draw(5).any()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prompts": "a cat"}, "prompts='a cat' needs a network that reads texts"),
        ({"labels": 10}, "labels=10: there are 10 classes; -1 is none"),
        ({"labels": [0, -2]}, r"labels=\[0, -2\]: there are 10 classes"),
        ({"seed": -1}, r"seed=-1 must lie in \[0, 4294967295\]"),
        ({"seed": 2**32}, "seed=4294967296 must lie in"),
        ({"first": -1}, "first=-1 must lie in"),
        ({"num": 0}, r"num=0 must lie in \[1, inf\)"),
    ],
)
def test_what_a_network_does_not_read_is_refused(
    trained: Path, asked: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        run.open_run(trained).draw(**{"num": 2, **asked})


def test_a_network_that_draws_nothing_says_so(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: captioned_dataset())
    clip = {
        "objective__name": "contrastive",
        "model__name": "dual_encoder",
        "model__dual_encoder": {"width": 8, "channels": 4, "features": 8, "dropout": 0.0},
        "evaluate__metrics": "names",
        "train__steps": 1,
        "train__heldout_every": 0,
    }
    assert run.run(tiny(**{**TEXT, **clip}), tmp_path, "train") == 0
    model = run.open_run(tmp_path)
    for asked in ({}, {"prompts": "black"}):
        with pytest.raises(ConfigError, match="compares images with texts and draws none: use"):
            model.draw(1, **asked)
    assert model.as_judge().texts(["black", "white"]).shape[0] == 2


def test_a_folder_without_a_run_is_said(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(ConfigError) as error:
            run.open_run(folder)
        assert str(error.value) == f"open_run({str(folder)!r}): there is no run in {folder}"
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"config\.json is no config of a run"):
        run.open_run(tmp_path)


@pytest.mark.parametrize(
    "key",
    [
        *("seed", "model.time_input", "objective.name", "train.keep_best", "data.name"),
        *("sample.ema", "sample.clip", "sample.checkpoint", "sample.guidance.likeness"),
        *("ema.lengths", "evaluate.metrics"),
    ],
)
def test_a_config_of_another_version_is_said(trained: Path, tmp_path: Path, key: str) -> None:
    whole = json.loads((trained / "config.json").read_text())
    *groups, name = key.split(".")
    group = whole["config"]
    for part in groups:
        group = group[part]
    del group[name]
    (tmp_path / "config.json").write_text(json.dumps(whole))
    with pytest.raises(
        ConfigError, match=rf"open_run\(.*config\.json is of another.*{name}"
    ) as error:
        run.open_run(tmp_path, average="params")
    assert "\n" not in str(error.value)


def test_a_run_that_is_older_than_restoration_is_opened(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    shutil.copytree(trained, folder)
    whole = json.loads((folder / "config.json").read_text())
    del whole["config"]["restore"]
    (folder / "config.json").write_text(json.dumps(whole))
    assert run.open_run(folder).step == 40
