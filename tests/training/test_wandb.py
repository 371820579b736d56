"""Weights & Biases as one more writer, by a module that stands in for its package."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_jax import run
from diffusion_jax.from_config.identity import training_config
from diffusion_jax.training.wandb_writer import wandb_writer
from diffusion_jax.training.writers import make_writer
from tests.runs import tiny


class Service:
    """A `wandb` that keeps what it is given; `down` is raised by whatever is asked of it."""

    def __init__(self) -> None:
        self.begun: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []
        self.finished = 0
        self.down: Exception | None = None

    def _up(self) -> None:
        if self.down:
            raise self.down

    def init(self, **settings: Any) -> Any:
        self._up()
        self.begun.append(settings)
        folder = f"{settings['dir']}/wandb/offline-run/files"
        return types.SimpleNamespace(
            id=settings["id"], url=None, dir=folder, log=self.log, finish=self.finish,
            define_metric=lambda *args, **kwargs: None,
        )  # fmt: skip

    def log(self, row: dict[str, Any]) -> None:
        self._up()
        self.rows.append(row)

    def finish(self) -> None:
        self._up()
        self.finished += 1


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    found = Service()
    module = types.SimpleNamespace(init=found.init, Image=np.shape)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return found


def test_rows_and_pictures(service: Service, tmp_path: Path) -> None:
    said: list[str] = []
    made = lambda: wandb_writer("mine", tmp_path / "run", {"seed": 3}, said.append)  # noqa: E731
    writer = make_writer(tmp_path / "run", said.append, [made])
    writer.write_scalars(2, {"loss": np.float32(0.5)})
    writer.write_images(2, {"samples": np.zeros((1, 8, 6, 1), np.uint8)})
    writer.close()
    begun = service.begun[0]
    assert (begun["project"], begun["name"], begun["config"]) == ("mine", "run", {"seed": 3})
    assert service.rows == [{"step": 2, "loss": 0.5}, {"step": 2, "samples": (8, 6, 1)}]
    assert service.finished == 1
    assert said == [f"W&B: `wandb sync {tmp_path}/run/wandb/offline-run` uploads it"]
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert (row["step"], row["loss"]) == (2, 0.5)


def test_a_training_that_goes_on_is_the_same_run(service: Service, tmp_path: Path) -> None:
    for _ in range(2):
        wandb_writer("mine", tmp_path, {}, print).close()
    wandb_writer("mine", tmp_path / "other", {}, print).close()
    first, second, other = (begun["id"] for begun in service.begun)
    assert first == second == json.loads((tmp_path / "wandb.json").read_text())["id"]
    assert other != first
    assert all(begun["resume"] == "allow" for begun in service.begun)


def test_a_service_that_fails_later_ends_nothing(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    writer = wandb_writer("mine", tmp_path, {}, print)
    writer.write_scalars(1, {"loss": 1})
    service.down = ConnectionError("no route\nto host")
    for step in (2, 3):
        writer.write_scalars(step, {"loss": 1})
    writer.close()
    warning = "warning: Weights & Biases: no route to host; the training goes on without it\n"
    assert capsys.readouterr().err == warning
    assert service.rows == [{"step": 1, "loss": 1.0}]
    wandb_writer("mine", tmp_path, {}, print).write_scalars(4, {"loss": 1})  # and none begins
    assert capsys.readouterr().err == warning


@pytest.mark.parametrize("package", [True, False])
def test_a_run_that_cannot_be_begun_is_refused_in_one_line(
    service: Service,
    package: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    service.down = RuntimeError("no key")
    if not package:
        monkeypatch.setitem(sys.modules, "wandb", None)
    assert run.run(tiny(train__wandb="mine"), tmp_path, "train") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: train.wandb='mine'")
    assert error.count("\n") == 1
    assert ("no key. Log in" if package else "pip install wandb") in error
    assert not (tmp_path / "wandb.json").exists()


def test_it_changes_nothing_of_the_training() -> None:
    plain, logged = (training_config(tiny(train__wandb=p).to_dict()) for p in ("", "mine"))
    assert plain == logged
