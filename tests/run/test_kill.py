"""`kill -9` at any moment costs only time: the run ends bit-identical."""

import sys
from pathlib import Path

import jax
import pytest

from diffusion_jax import from_config, run
from experiments.survival.kill import assert_same_bits, carried, kill_often
from tests.forked import Forked
from tests.runs import random_dataset, tiny

pytestmark = pytest.mark.slow

STEPS = 48
KILLS = 20
SETTINGS = {
    "train__steps": STEPS,
    "train__log_every": 1,
    "train__keep_checkpoints": 2,
}


def child(workdir: Path, checkpoint_every: int, cache: Path) -> None:
    """Trains, as `launch.py` would, but with everything imported and all programs cached."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    run.command.enable_compilation_cache = lambda: None
    from_config.data.load_dataset = lambda *a, **k: random_dataset()
    sys.exit(run.run(tiny(**SETTINGS, train__checkpoint_every=checkpoint_every), workdir, "train"))


def test_runs_killed_at_random_moments_end_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 kills, every second one while a checkpoint is written; then all that is carried."""
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: random_dataset())
    cache, killed, whole = tmp_path / "cache", tmp_path / "killed", tmp_path / "whole"
    folder = killed / "checkpoints"

    def start(workdir: Path, checkpoint_every: int) -> Forked:
        log = workdir.with_suffix(".log")
        return Forked(log, child, workdir, checkpoint_every, cache)

    assert start(whole, STEPS).wait() == 0
    kills = list(kill_often(lambda: start(killed, 1), folder, KILLS))
    assert len(kills) == KILLS
    assert sum(bool(kill["writing"] and kill["unfinished"]) for kill in kills) >= KILLS // 4
    assert start(killed, 1).wait() == 0
    said = killed.with_suffix(".log").read_text()
    assert "Traceback" not in said
    assert "damaged" not in said
    assert said.count("going on from step") >= KILLS // 3
    # Nothing that was not finished is left.
    assert sorted(path.name for path in folder.iterdir()) == [str(STEPS - 1), str(STEPS)]
    assert_same_bits(carried(tiny(**SETTINGS), whole), carried(tiny(**SETTINGS), killed))
