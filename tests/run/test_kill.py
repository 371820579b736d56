"""`kill -9` at any moment costs only time: the run ends bit-identical."""

import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.data import load_dataset
from experiments.survival.kill import assert_same_bits, carried, kill_often
from tests.data.test_sound_files import tone, write
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


OF_SOUNDS = {
    "train__steps": 120,
    "train__keep_checkpoints": 2,
    "train__log_every": 1,
    "train__batch_size": 8,
    "data__name": "recordings",
    "data__length": 256,
    "codec__name": "mdct",
    "codec__mdct__bins": 32,
    "model__dit__patch_size": 1,
    "image_condition__name": "noisy",
    "image_condition__residual": True,
    "schedule__name": "bridge",
}


def of_sounds(workdir: Path, **more: object) -> Any:
    return tiny(**OF_SOUNDS, data__dir=str(workdir.parent / "recordings"), **more)


def child_of_sounds(workdir: Path, checkpoint_every: int, cache: Path) -> None:
    """The same of a bridge from noisy recordings, with windows and noise that are drawn."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    run.command.enable_compilation_cache = lambda: None
    config = of_sounds(workdir, train__checkpoint_every=checkpoint_every)
    sys.exit(run.run(config, workdir, "train"))


def test_a_training_on_sounds_killed_and_resumed_ends_in_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also its random windows, and the babble and SNR of each of its noisy recordings."""
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "sounds"))
    for i in range(16):
        path = tmp_path / "recordings" / f"{i}.wav"
        write(path, tone(0.3, 4_000, 250 + 20 * i, 0.1 + 0.02 * i), 4_000)
    cache, killed, whole = tmp_path / "cache", tmp_path / "killed", tmp_path / "whole"

    def start(workdir: Path, checkpoint_every: int) -> Forked:
        log = workdir.with_suffix(".log")
        return Forked(log, child_of_sounds, workdir, checkpoint_every, cache)

    assert start(whole, 120).wait() == 0
    kills = list(kill_often(lambda: start(killed, 1), killed / "checkpoints", 4))
    assert max(kill["newest"] for kill in kills) > 0
    assert start(killed, 1).wait() == 0
    assert "going on from step" in killed.with_suffix(".log").read_text()
    left, right = (carried(of_sounds(workdir), workdir) for workdir in (whole, killed))
    assert_same_bits(left, right)


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
