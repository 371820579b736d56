"""The benchmark of Stable Diffusion runs small."""

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.experiments.common import experiment
from tests.stable_diffusion import settings, write_small

DRAWING = """
import json, sys
import numpy as np
for line in sys.stdin:
    np.save(line.strip(), np.full((1, 2, 2, 3), %s))
    print(json.dumps({"seconds": %s, "memory": 3.0}), flush=True)
"""


def test_a_benchmark_of_two_that_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = experiment("stable_diffusion/bench")
    for name, pixel, seconds in (("ours", 0.5, 1.0), ("theirs", 0.25, 2.0)):
        (tmp_path / f"{name}.py").write_text(DRAWING % (pixel, seconds))
    monkeypatch.setattr(bench, "HERE", tmp_path)
    asked = Namespace(folder="", theirs_python=sys.executable, size=16, steps=2, rounds=3)
    rows = bench.compare(asked, tmp_path)
    assert "| **picture, theirs / ours** | 2.000 | 2.000 to 2.000 | 3 |" in rows
    assert "| 2.5e-01 | | |" in rows[-1]


@pytest.mark.slow
def test_our_pictures_of_the_benchmark(tmp_path: Path) -> None:
    ours = experiment("stable_diffusion/ours")
    noise = np.random.default_rng(0).standard_normal((8, 12, 4), np.float32)
    model = ours.opened(settings(write_small(tmp_path)), noise)
    x = ours.picture(model, "a house")
    assert x.shape == (1, 16, 24, 3)
    np.testing.assert_array_equal(x, ours.picture(model, "a house"))


DOUBLING = """
import sys, numpy as np
np.savez(sys.argv[3], **{name: 2 * x for name, x in np.load(%r).items()})
"""


@pytest.mark.slow
def test_parts_are_compared_by_their_largest_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts, config = experiment("stable_diffusion/parts"), settings(write_small(tmp_path / "small"))
    sizes = [(16, 24), (8, 8)]
    ours: Any = parts.outputs(config, parts.inputs(config, sizes))
    assert ours["text"].shape == (1, 77, 16)
    assert ours["noise 16x24"].shape == ours["mean 16x24"].shape == (1, 8, 12, 4)
    assert ours["decoded 8x8"].shape == (1, 8, 8, 3)
    np.savez(tmp_path / "ours.npz", **ours)
    (tmp_path / "theirs_parts.py").write_text(DOUBLING % str(tmp_path / "ours.npz"))
    monkeypatch.setattr(parts, "HERE", tmp_path)
    rows = parts.compare(config, sys.executable, sizes)
    assert len(rows) == len(ours) == 9
    assert all(row.endswith("| 5.0e-01 |") for row in rows)


def test_their_pictures_of_the_benchmark(tmp_path: Path) -> None:
    theirs = experiment("stable_diffusion/theirs")
    theirs.write_tokeniser(tmp_path)
    assert len(json.loads((tmp_path / "vocab.json").read_text())) == theirs.TOKENS
