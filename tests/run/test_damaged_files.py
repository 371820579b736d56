"""Damaged files, from a crash or a user, are named and rewritten."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diffusion_jax import run
from tests.runs import tiny

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("noise")]

CONFIG = {"evaluate__metrics": "denoising", "evaluate__denoising_images": 4}


def halved(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def without_passport(path: Path) -> None:
    Image.open(path).save(path)


def middle_line_cut(path: Path) -> None:
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[1][:20], b"\xff\0", b"[]", *lines[2:], b""]))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "result.json": halved,
    "identity.json": lambda path: path.write_text("[]"),
    "config.json": halved,
    "metrics.jsonl": middle_line_cut,
    "samples/grid.png": without_passport,
    "samples/images/000003.png": halved,
    "samples/trajectory.png": lambda path: path.unlink(),
    "samples/denoise.gif": lambda path: path.unlink(),
    "samples/images": shutil.rmtree,
    "samples": shutil.rmtree,
    "report.md": lambda path: path.unlink(),
    "report.html": lambda path: path.unlink(),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done to the end."""
    with pytest.MonkeyPatch.context() as patch:
        from diffusion_jax import from_config
        from tests.runs import random_dataset

        patch.setattr(from_config.data, "load_dataset", lambda *a, **k: random_dataset())
        workdir = tmp_path_factory.mktemp("whole") / "run"
        assert run.run(tiny(**CONFIG), workdir, "all") == 0
    return workdir


@pytest.mark.parametrize("name", DAMAGES)
def test_it_is_named_and_made_again(
    name: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    workdir = tmp_path / "run"
    shutil.copytree(whole, workdir)
    DAMAGES[name](workdir / name)
    again = {"sample__steps": 3} if name == "metrics.jsonl" else {}  # it is read by the report
    assert run.run(tiny(**CONFIG, **again), workdir, "all") == 0
    captured = capsys.readouterr()
    named = [line for line in captured.err.splitlines() if str(workdir / name) in line]
    assert len(named) == (
        name not in ("samples", "report.md", "report.html")
    )  # which are not damaged
    assert "training is done" in captured.out
    after = {path.relative_to(workdir) for path in workdir.rglob("*")}
    assert {path.relative_to(whole) for path in whole.rglob("*")} <= after
    for file in ("result.json", "config.json"):
        assert (
            json.loads((workdir / file).read_text()).keys()
            == json.loads((whole / file).read_text()).keys()
        )
    assert "made_by" in Image.open(workdir / "samples/grid.png").info
