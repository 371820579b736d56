"""The experiment on latents runs small."""

import json
import sys
from pathlib import Path

import pytest

from diffusion_jax import from_config
from diffusion_jax.data import (
    ArraySource,
    Dataset,
    Images,
    Split,
)
from tests.experiments.common import experiment, finite
from tests.runs import ROOT, colours


def squares(num: int, first: int) -> Split:
    """Coloured pictures of 16 pixels with names."""
    source, captions = colours(num, first)
    return Split(
        ArraySource(source.items.repeat(2, 1).repeat(2, 2).repeat(3, 3), source.labels), captions
    )


BYTES = {"text.name": "bytes", "text.unconditional": "zeros", "text.bytes.width": 16}
BYTES |= {"text.bytes.depth": 1, "text.bytes.heads": 2, "text.length": 16}


def test_arms_of_equal_seconds() -> None:
    """Autoencoder, encoding and latents together take the seconds of pixels."""
    equal = experiment("latents/equal")
    study = equal.Study(1000.0, Path("none"))
    names = [*equal.AUTOENCODERS, *equal.PIXELS, "latents"]
    costs = dict.fromkeys(names, 0.02) | {"latents": 0.001, equal.ENCODING: 0.01}
    size = {name: study.config(name).train.batch_size for name in names}
    spent = {n: study.steps_of(n, costs, 500) * size[n] * costs[n] for n in names}
    assert spent["pixels"] == pytest.approx(1000, abs=size["pixels"] * 0.02)
    of_latents = spent["autoencoder"] + 500 * costs[equal.ENCODING] + spent["latents"]
    assert of_latents == pytest.approx(1000, abs=0.1)
    # So much is left for latents where pixels have seen 25,000 pictures: as many.
    few = {"pixels": 0.02, "latents": 0.01, equal.ENCODING: 0.01}
    assert equal.break_even(245.0, 500, few, "pixels") == pytest.approx(25_000)


@pytest.mark.slow
def test_pixels_and_latents(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    equal = experiment("latents/equal")
    data = Dataset(
        "squares", Images((16, 16, 3)), {"train": squares(24, 0), "heldout": squares(20, 1)}
    )
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: data)
    monkeypatch.setattr(equal, "planned_dataset", lambda config: data)
    costs = dict.fromkeys([*equal.AUTOENCODERS, *equal.PIXELS, "latents", equal.ENCODING], 1.0)
    monkeypatch.setattr(equal, "step_costs", lambda *_: costs)
    small = {**BYTES, "model.dit.hidden_size": 16, "model.dit.depth": 1, "sample.steps": 2}
    small |= {"objective.autoencoder.perceptual": 0.0, "objective.autoencoder.adversarial": 0.0}
    small |= {"model.autoencoder.channels": 8, "model.autoencoder.channel_mults": (1, 2)}
    small |= {"train.batch_size": 4, "train.steps": 2}
    small |= {"evaluate.num_samples": 16, "evaluate.names.num": 3, "model.dual_encoder.channels": 4}
    asked = ["equal.py", "--seconds", "40", "--workdir", str(tmp_path), "--out", str(tmp_path)]
    names = ["judge", "autoencoder", "pixels", "latents"]
    asked += ["--set", *(f"{key}={json.dumps(value)}" for key, value in small.items())]
    for _ in range(2):  # the second time nothing is left to do
        monkeypatch.setattr(sys, "argv", [*asked, "--only", *names])
        equal.main()
    runs = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert {name: each["steps"] for name, each in runs.items()} == {
        **{"judge": 2, "autoencoder_0": 5, "pixels_0": 10, "latents_0": 1}
    }
    assert finite([list(each.values()) for each in runs.values()])
    assert (tmp_path / "samples.png").stat().st_size
    assert (tmp_path / "reconstructions.png").stat().st_size


def test_published_figures_of_latents() -> None:
    """The page has the tables of the results, as far as there are some."""
    equal, folder = experiment("latents/equal"), ROOT / "experiments/latents"
    lines = equal.tables(json.loads((folder / "results.json").read_text()))
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())
