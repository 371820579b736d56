"""`--profile`: a trace of some steps, which changes nothing of the training."""

import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax import run
from diffusion_jax.training.trace import Trace
from tests.runs import tiny


def steps_in(folder: Path) -> list[list[int]]:
    """Numbers of the training steps in each trace, which TensorBoard's plugin has beside it."""
    found = []
    for path in sorted(folder.glob("plugins/profile/*/perfetto_trace.json.gz")):
        assert [p.stat().st_size > 0 for p in path.parent.glob("*.xplane.pb")] == [True]
        with gzip.open(path) as file:
            events = json.load(file)["traceEvents"]
        found.append([int(e["args"]["step_num"]) for e in events if e.get("name") == "train"])
    return found


@pytest.mark.slow
def test_a_trace_of_a_run_and_of_one_that_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    plain, traced = tmp_path / "plain", tmp_path / "traced"
    settings = {"train__steps": 7, "optimizer__decay": "constant"}
    assert run.run(tiny(**settings), traced, "train", profile=2) == 0
    assert f"traced steps 4 to 5: tensorboard --logdir {traced}/profile" in capsys.readouterr().out
    assert steps_in(traced / "profile") == [[4, 5]]
    settings["train__steps"] = 12
    assert run.run(tiny(**settings), traced, "train", profile=3) == 2
    error = capsys.readouterr().err
    assert "there are 2 steps to trace: train.steps=12, of which 7 are done" in error
    assert run.run(tiny(**settings), traced, "train", profile=2) == 0  # to the very last step
    assert sorted(steps_in(traced / "profile")) == [[4, 5], [11, 12]]

    assert run.run(tiny(**settings), plain, "train") == 0
    assert not (plain / "profile").exists()
    states = [run.open_run(folder).params for folder in (plain, traced)]
    jax.tree.map(np.testing.assert_array_equal, *states)


@pytest.mark.parametrize("mode", ["sample", "evaluate", "plan"])
def test_refused_where_nothing_is_trained(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run.run(tiny(), tmp_path, mode, profile=2) == 2
    assert "--profile=2 goes with --mode all or train" in capsys.readouterr().err


def test_more_steps_than_are_left(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run.run(tiny(), tmp_path, "train", profile=4) == 2
    assert "there are 3 steps to trace: train.steps=6" in capsys.readouterr().err


def test_a_training_that_ends_in_between_leaves_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    said: list[str] = []
    trace = Trace(tmp_path, 5, 10, said.append)
    assert [trace.at(step, ()) for step in range(10, 16)] == [False] * 3 + [True] + [False] * 2
    trace.close(15)
    trace.close(15)
    assert [line.partition(":")[0] for line in said] == ["traced steps 14 to 15"]


def test_a_failure_of_the_profiler_ends_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jax.profiler, "start_trace", full)
    trace = Trace(tmp_path, 2, 0, print)
    for step in range(7):
        trace.at(step, ())
    trace.close(7)
    assert "no trace is written: [Errno 28] No space left" in capsys.readouterr().err
