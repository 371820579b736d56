"""Data that changed under a run or are missing: what continues, what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import DataError
from tests.data.test_record import folder_of
from tests.runs import TEXT, captioned_dataset, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, and a `run` of it that has stopped at step 3 of 6."""
    folder = tmp_path_factory.mktemp("source")
    folder_of(folder / "data", cat=20, dog=20)
    config = settings(folder, train__steps=3)
    assert run.run(config, folder / "run", "train") == 0
    return folder


@pytest.fixture
def place(source: Path, tmp_path: Path) -> Path:
    """A copy of both."""
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy"


def settings(place: Path, **changes: Any) -> Any:
    own = {
        "data__name": "folder",
        "data__dir": str(place / "data"),
        "optimizer__decay": "constant",
        "evaluate__metrics": "denoising",
        "evaluate__denoising_images": 4,
        "sample__num_images": 4,
    }
    return tiny(**{**own, **changes})


def drawn(place: Path, **changes: Any) -> np.ndarray:
    assert run.run(settings(place, **changes), place / "run", "sample") == 0
    files = sorted((place / "run/samples/images").iterdir())
    return np.stack([np.asarray(Image.open(path)) for path in files])


def renamed(data: Path) -> None:
    (data / "cat").rename(data / "zebra")


def added(data: Path) -> None:
    folder_of(data, ant=9)


def enlarged(data: Path) -> None:
    for path in data.rglob("*.png"):
        Image.new("RGB", (16, 16), "red").save(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (renamed, "new: class 'zebra'; gone: class 'cat'"),
        (added, "new: class 'ant'; "),
        (enlarged, "images of 16x16x3 (images of 8x8x3 before)"),
        (shutil.rmtree, "is not a folder"),
    ],
)
def test_it_draws_as_before_and_trains_no_further(
    change: Callable, says: str, place: Path, capsys: pytest.CaptureFixture
) -> None:
    """Label 0 is the class that it was, whatever the folder has now."""
    before = drawn(place)
    change(place / "data")
    np.testing.assert_array_equal(drawn(place), before)
    np.testing.assert_array_equal(run.open_run(place / "run").draw(4), before)
    capsys.readouterr()
    for mode in ("all", "evaluate"):
        assert run.run(settings(place), place / "run", mode) == 2
        error = capsys.readouterr().err
        assert says in error
        assert error.count("\n") == 1
    assert json.loads((place / "run/identity.json").read_text())["changes"] == []


def test_pictures_that_were_added_are_said_and_may_be_allowed(
    place: Path, capsys: pytest.CaptureFixture
) -> None:
    for i in range(5):
        Image.new("RGB", (8, 8), (9, 9, i)).save(place / f"data/dog/more{i}.png")
    assert run.run(settings(place), place / "run", "train") == 2
    error = capsys.readouterr().err
    assert "train images (" in error
    assert "To continue anyway, set --config.data.allow_changes=True" in error
    allowed = settings(place, data__allow_changes=True)
    assert run.run(allowed, place / "run", "all") == 0
    captured = capsys.readouterr()
    assert "warning: the data of " in captured.err
    assert "going on from step 3" in captured.out
    (said,) = json.loads((place / "run/identity.json").read_text())["changes"]
    assert said.startswith("from step 3 on ")
    assert said in (place / "run/report.md").read_text()
    # The data that it has now are its own.
    assert run.run(settings(place, sample__steps=3), place / "run", "all") == 0
    assert "the data of" not in capsys.readouterr().err


def test_a_run_of_before_this_was_kept_goes_on(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "run/identity.json").unlink()
    assert len(drawn(place)) == 4
    assert run.run(settings(place), place / "run", "train") == 0
    assert "going on from step 3" in capsys.readouterr().out
    assert json.loads((place / "run/identity.json").read_text())["data"]["class_names"] == [
        *("cat", "dog"),
    ]
    shutil.rmtree(place / "data")
    assert len(drawn(place)) == 4


def test_texts_are_drawn_without_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """But for the texts of the data, which are asked for where none is given."""
    text = tiny(**{**TEXT, "train__steps": 1, "sample__prompts": ("black", "a hat")})
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: captioned_dataset())
    assert run.run(text, tmp_path, "train") == 0

    def gone(*args: Any, **kwargs: Any) -> None:
        raise DataError("the data are gone")

    monkeypatch.setattr(from_config.data, "load_dataset", gone)
    capsys.readouterr()
    assert run.run(text, tmp_path, "sample") == 0
    assert "training item has are not marked: the data are gone" in capsys.readouterr().err
    text.sample.prompts = ()
    assert run.run(text, tmp_path, "sample") == 2
    assert capsys.readouterr().err == "error: the data are gone\n"
