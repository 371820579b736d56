"""The experiment on generated sounds runs small."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import drums
from diffusion_jax import run
from diffusion_jax.evaluation import extractor
from tests.data.test_sound_files import tone, write
from tests.experiments.common import experiment
from tests.runs import ROOT

LENGTH, RATE = 2048, 16_000


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ConfigDict:
    """Of a small network of high and low tones; both scripts take them for the drums."""
    for number in range(24):
        name = "low" if number % 2 else "high"
        sound = tone(LENGTH / RATE, RATE, (200 if number % 2 else 900) + number)
        write(tmp_path / "tones" / name / f"{number}.wav", sound, RATE)
    c = drums.get_config()
    c.unlock()
    c.data.name, c.data.dir, c.data.length = "recordings", str(tmp_path / "tones"), LENGTH
    c.data.heldout_fraction = 0.25
    c.model.dit.hidden_size, c.model.dit.num_heads = 32, 2
    c.model.dit.depth = c.model.dit.unroll = 1
    c.train.steps, c.train.batch_size, c.sample.steps = 1, 2, 1
    monkeypatch.setattr(extractor, "STEPS", 3)
    made = SimpleNamespace(get_config=c.copy_and_resolve_references)
    monkeypatch.setitem(experiment("sound/generated").SETS, "drums", made)
    return c


def started(module: Any, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *map(str, words)])
    module.main()


@pytest.mark.slow
def test_sounds_are_drawn_and_measured(
    config: ConfigDict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A network's, and training sounds: these are recognised as copies."""
    generated, out = experiment("sound/generated"), tmp_path / "out"
    assert run.run(config, tmp_path / "run", "train") == 0
    results = tmp_path / "found.json"
    where = "--out", out, "--results", results, "--root", tmp_path
    started(generated, monkeypatch, *where, "--draw", f"ours={tmp_path / 'run'}", "--num", "6")
    started(generated, monkeypatch, *where, "--coded", f"coded={tmp_path / 'run'}")
    dataset = generated.dataset_of("drums", tmp_path)
    items, labels = dataset.arrays("train")
    generated.save(out, "drums", "copies", items, labels)
    started(generated, monkeypatch, *where, "--measure", "--table")
    found = json.loads(results.read_text())["drums"]
    assert set(found) == {"ours", "coded", "copies", generated.FLOOR}
    voiced = [found[name]["pitch_voiced"][0] for name in ("coded", generated.FLOOR)]
    assert voiced[0] > 0.5 * voiced[1] > 0  # which are tones
    assert found[generated.FLOOR]["nearest_training_distance"][3] == 24 - len(items)
    assert found["copies"]["nearest_training_distance"][0] == 0
    assert found["copies"]["nearest_training_distance"][3] == len(items)
    assert found["ours"]["nearest_training_distance"][0] > 0
    with np.load(out / "drums/ours.npz") as drawn:
        assert (drawn["items"].dtype, drawn["items"].shape) == (np.int16, (6, LENGTH, 1))
        assert sorted(drawn["labels"]) == [0, 0, 0, 1, 1, 1]
    assert (out / "drums/ours/closest.html").exists()


def test_figures_of_a_run_that_was_evaluated_are_added(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generated = experiment("sound/generated")
    of = {"low": 0.5, "high": 2.0, "n": 9, "passport": {}}
    names = "fd_mel_statistics", "precision_mel_statistics", "word_error", "denoising_gap_t0.10"
    found = {name: {"value": 1.0, **of} for name in names}
    floor = {f"{name}_heldout": {"value": 0.75, **of} for name in names[:2]}
    left_out = {"recall_mel_statistics": {**of, "value": None}}
    (tmp_path / "result.json").write_text(json.dumps({**found, **floor, **left_out}))
    results = tmp_path / "found.json"
    where = "--evaluated", f"music={tmp_path}", "--results", results, "--table"
    started(generated, monkeypatch, *where)
    kept = json.loads(results.read_text())["music"]
    assert list(kept["ours"]) == [*names[:3]]
    assert kept[generated.FLOOR]["fd_mel_statistics"] == [0.75, 0.5, 2.0, 9]
    said = capsys.readouterr().out
    assert "|  | Frechet distance in mel statistics | precision |" in said
    assert "| ours | 1.0 (0.5 to 2.0) | 100% (50% to 200%) |" in said


@pytest.mark.slow
def test_a_u_net_of_waveforms_is_trained(
    config: ConfigDict, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    theirs = experiment("sound/theirs_generated")
    few = {"channels": (8, 8), "factors": (4, 4), "items": (1, 1), "attentions": (0, 1)}
    sizes = {**theirs.NETWORK, **few, "cross_attentions": (0, 1), "attention_heads": 1}
    monkeypatch.setattr(theirs, "NETWORK", sizes)
    where = "--root", tmp_path, "--out", tmp_path / "out", "--seconds", "2", "--num", "5"
    started(theirs, monkeypatch, *where, "--steps", "2")
    with np.load(tmp_path / "out/drums" / f"{theirs.ARM}.npz") as drawn:
        assert (drawn["items"].dtype, drawn["items"].shape) == (np.int16, (5, LENGTH, 1))
        assert np.ptp(drawn["items"]) > 0


def test_published_figures_of_generated_sounds() -> None:
    generated, folder = experiment("sound/generated"), ROOT / "experiments/sound"
    page = (folder / "generated.md").read_text(encoding="utf-8")
    for row in generated.tables(json.loads((folder / "generated.json").read_text())):
        assert row in page
