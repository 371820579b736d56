"""Experiments on known posteriors and large pictures run small."""

import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import (
    ArraySource,
    Dataset,
    Images,
    Split,
)
from tests.experiments.common import experiment, finite
from tests.runs import ROOT, TEXT, colours, tiny


def test_known_posteriors() -> None:
    """Exact samples are measured as such, others not, and operators are the package's."""
    problems, ours = experiment("restoration/problems"), experiment("restoration/ours")
    seen = problems.case(8, "blur", 0.3, 3, seed=0)
    rng = np.random.default_rng(0)
    exact = problems.measured(seen, lambda i: problems.draw(seen.posteriors[i], 400, rng))
    distance, weights, half, most = exact.mean(0)
    assert distance < 0.03
    assert weights < 0.05
    assert (half, most) == pytest.approx((0.5, 0.9), abs=0.03)
    blind = problems.measured(seen, lambda _: problems.draw(seen.prior, 400, rng)).mean(0)
    assert blind[0] > 30 * distance
    assert blind[1] > 5 * weights
    operator, x = problems.Matrix.of(seen.matrix), jnp.asarray(rng.normal(size=(2, 8, 1)))
    values, analyse, synthesise, observed = operator.spectrum(x)
    np.testing.assert_allclose(operator(x)[..., 0], x[..., 0] @ seen.matrix.T, atol=1e-5)
    np.testing.assert_allclose(observed(operator(x)), values * analyse(x), atol=1e-5)
    np.testing.assert_allclose(synthesise(analyse(x)), x, atol=1e-5)
    found = ours.run(seen, "DDRM", 2, 2, {"eta": 0.85}, num=3)
    assert found.shape == (6, 8)
    assert finite(found)


@pytest.mark.slow
def test_known_posteriors_by_every_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On both sides, with the same denoiser."""
    exact, theirs = experiment("restoration/exact"), experiment("restoration/theirs")
    claims, problems = experiment("restoration/claims"), experiment("restoration/problems")
    law = problems.prior(8)
    x = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    for alpha, sigma in ((1.0, 0.01), (0.8, 0.6), (0.01, 1.0)):
        right = law.posterior_mean(jnp.asarray(x), jnp.float32(alpha), jnp.float32(sigma))
        tensors = map(theirs.torch.tensor, (x, alpha, sigma))
        found = theirs.mixture_denoiser(law.weights, law.means, law.covs)(*tensors)
        np.testing.assert_allclose(found, right, atol=1e-5)
    monkeypatch.setattr(exact, "SIGMAS", (0.3,))
    monkeypatch.setattr(exact, "HERE", tmp_path)
    path = tmp_path / "results.json"
    small = ["--dims", "2", "--num", "2", "--size", "3", "--few", "40", "--many", "44"]
    monkeypatch.setattr(sys, "argv", ["exact.py", *small, "--out", str(path)])
    exact.main()
    for name, value in (("RESULTS", path), ("SIZES", (2, 4)), ("PARTICLES", 8), ("REPEATS", 2)):
        monkeypatch.setattr(claims, name, value)
    claims.main()
    result = json.loads(path.read_text())
    methods = {row["method"] for row in result["rows"]} - {"exact samples", "prior"}
    assert methods == {*experiment("restoration/ours").METHODS, *theirs.METHODS}
    report = experiment("restoration/report")
    assert len(report.tables(result)) > 60
    report.picture(result, tmp_path / "plane.png", size=5)


def test_published_figures_of_known_posteriors() -> None:
    """The README has the tables of the results."""
    report, folder = experiment("restoration/report"), ROOT / "experiments/restoration"
    lines = report.tables(json.loads((folder / "results.json").read_text()))
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())


def test_calibration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Exact samples of a known posterior are calibrated, and those of DPS are not."""
    calibration = experiment("restoration/calibration")
    monkeypatch.setattr(calibration, "TOGETHER", 60)
    names = [calibration.EXACT, "DPS"]
    found = calibration.rounded(calibration.compare(calibration.of_mixture(), names, 60, 20))
    cells = found["mask"]
    assert list(cells) == names
    least, tests = calibration.threshold(found)
    assert (least, tests) == (0.05 / 6, 6)
    rows = calibration.tables(found).splitlines()[-2:]
    assert ["| calibrated |" in row for row in rows] == [True, False]
    np.testing.assert_allclose(np.sum(cells["DPS"]["all"]["histogram"]), 1, rtol=1e-3)
    calibration.draw(found, tmp_path / "ranks.png")
    assert (tmp_path / "ranks.png").stat().st_size


def test_coordinates_that_are_not_seen() -> None:
    """They are 0 in the part of `x` that an operator shows, and that part is all it shows."""
    calibration = experiment("restoration/calibration")
    model = calibration.of_mixture()._replace(shape=(8, 8, 1))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    for name in ("mask", "downscale"):
        operator = calibration.operators(model)[name]
        values, analyse, synthesise, _ = operator.spectrum(x)
        shown = np.asarray(synthesise(np.where(values > calibration.SEEN, analyse(x), 0)))
        of_all, of_seen, of_unseen = calibration.features(operator, x).values()
        assert of_all(x).shape == of_seen(x).shape == (5, calibration.FEATURES)
        np.testing.assert_allclose(of_seen(x), of_seen(shown), atol=1e-5)
        np.testing.assert_allclose(of_unseen(shown), 0, atol=1e-5)
        assert np.abs(of_unseen(x)).min(0).max() > 0.1
        np.testing.assert_allclose(operator(x), operator(shown), atol=1e-5)


def test_seams_are_found() -> None:
    """In smooth noise there are none; a step where the weights of tiles change is one."""
    large = experiment("restoration/large")
    assert [list(lines) for lines in large.seams(24, 10, 3)] == [[6, 7, 8, 9], [13, 14, 15, 16]]
    assert [list(lines) for lines in large.seams(20, 10, 0)] == [[9]]
    x = np.random.default_rng(0).normal(size=(2, 80, 80, 3))
    plain = large.ratio(large.gradients(x, 10, 0))
    assert plain[1] < 1 < plain[2]
    step = np.arange(80) // 10 % 2 * 1.0
    seamed = large.ratio(large.gradients(x + step[:, None] + step[:, None, None], 10, 0))
    # Of normal differences of standard deviation sqrt(2): E|d + 1| / E|d| = 1.24.
    assert seamed[0] == pytest.approx(1.24, abs=0.03)
    assert seamed[1] > 1.15


def test_a_large_photograph(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A row of the table, with a restoration that turns the picture by 180 degrees."""
    large = experiment("restoration/large")
    photograph = tmp_path / large.PHOTOGRAPH
    photograph.parent.mkdir(parents=True)
    Image.effect_noise((3000, 1500), 50).save(photograph)
    out = tmp_path / "run/samples/restored/112.png"
    out.mkdir(parents=True)

    def restored(command: list[str]) -> dict[str, float]:
        assert command[command.index("--restore") + 1] == str(tmp_path / "112.png")
        for i in range(large.SAMPLES):
            turned = Image.open(tmp_path / "112.png").transpose(Image.Transpose.ROTATE_180)
            turned.save(out / f"{i:06d}.png")
        return {"seconds": 1.0}

    monkeypatch.setattr(large, "measured", restored)
    asked = ["large.py", "--workdir", str(tmp_path / "run"), "--packages", str(tmp_path)]
    asked += ["--folder", str(tmp_path), "--side", "112", "--out", str(tmp_path / "large.json")]
    monkeypatch.setattr(sys, "argv", asked)
    large.main()
    (found,) = json.loads((tmp_path / "large.json").read_text())
    assert (found["side"], found["seams"], found["seconds"]) == (112, 2, 1)
    # Both of its seams are in the middle.
    assert found["restored"] == pytest.approx(found["truth"], abs=1e-3)
    assert found["rms"] == pytest.approx(50 * 2**0.5, abs=1)


@pytest.mark.slow
def test_upscaling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def split(num: int, first: int) -> Split:
        source, captions = colours(num, first)
        return Split(ArraySource(source.items.repeat(3, axis=-1), source.labels), captions)

    data = Dataset("colours", Images((8, 8, 3)), {"train": split(8, 0), "heldout": split(6, 1)})
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: data)
    config = tiny(**{**TEXT, "image_condition__name": "low_resolution"})
    config.update_from_flattened_dict(
        {"train.steps": 1, "train.heldout_every": 0, "sample.steps": 1}
    )
    assert run.run(config, tmp_path, "train") == 0
    measure = experiment("upscale/measure")
    monkeypatch.setattr(sys, "argv", ["x", f"--workdir={tmp_path}", f"--out={tmp_path}", "--num=2"])
    measure.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert (found["n"], found["step"]) == (2, 1)
    # Pictures of one colour lose nothing.
    assert found["ways"]["nearest"]["psnr"]["value"] == 100
    assert found["ways"]["lanczos"]["psnr over lanczos"]["value"] == 0
    assert finite(found["ways"])
    assert (tmp_path / "upscaled.png").stat().st_size
