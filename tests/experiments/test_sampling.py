"""Experiments on samplers, guidance and intervals run small."""

import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from configs import digits
from diffusion_jax import from_config, run
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.from_config import SAMPLERS
from diffusion_jax.from_config.sampling import GRIDS
from diffusion_jax.samplers.ode import heun
from tests.experiments.common import experiment, finite
from tests.runs import ROOT


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_generalisation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    halves = experiment("generalisation/halves")
    monkeypatch.setattr(halves, "SAMPLES", 2)
    found, pictures = halves.compare(2, seed=0, steps=1, folder=tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"n2_half0_seed0", "n2_half1_seed0"}
    assert (pictures.shape, pictures.dtype) == ((8, 8, 8, 1), np.uint8)
    cosines = [found[name] for name in ("same noise", "to its own training images")]
    assert finite(cosines)
    assert all(-1 <= mean <= 1 for mean, _, _ in cosines)
    # The nearest training images of the two are among those that each was trained on.
    split = from_config.build(halves.config_of(2, halves.HALF, 0, 1)).dataset.splits["train"]
    other = split.gather(np.arange(2))[0]
    assert all(any(np.array_equal(one, each) for each in other) for one in pictures[6:])
    halves.draw_curve([found], tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_cost_of_guidance(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = experiment("guidance/cost")
    asked = ["cost.py", "--images", "2", "--steps", "2", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", asked)
    cost.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits, 2 images, 2 steps, 1 rounds"
    names = ["none", "guided", "within two fifths", "two calls"]
    assert [line[:18].strip() for line in lines[1:]] == names
    assert all(" times" in line for line in lines[1:])


def test_two_calls_are_guidance() -> None:
    """By hand: `none + scale (own - none)`, of a denoiser that says the label."""
    cost = experiment("guidance/cost")

    def denoise(x_t: Any, t: Any, cond: Any) -> Any:
        return cost.Denoised(x_t + cond["label"][:, None])

    request = cost.Request(jnp.arange(2), {"label": jnp.array([3, 5])}, 3.0)
    guided = cost.two_calls(denoise, request, jnp.zeros(2))
    found = guided(jnp.zeros((2, 1)), jnp.zeros(2), request.cond).x_0
    np.testing.assert_allclose(found[:, 0], -1 + 3.0 * (np.array([3, 5]) + 1))


@pytest.mark.slow
def test_laws_of_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    laws = experiment("guidance/laws")
    monkeypatch.setattr(laws, "SCALES", (2.0,))
    rows = laws.against_tilted_laws(2, 1, 2)
    assert [row["guidance"] for row in rows] == list(laws.guidances())
    rows += laws.compositions(2, 1, 2) + laws.plus_plus(2, 1) + laws.flocks(2, 2, 1)
    assert len(rows) == len(laws.guidances()) + 2 + 4 + 5
    assert finite([value for row in rows for value in row.values() if not isinstance(value, str)])


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_tradeoff_of_guidance(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tradeoff = experiment("guidance/tradeoff")
    monkeypatch.setattr(tradeoff, "SCALES", (1.0, 2.0))
    monkeypatch.setattr(tradeoff, "INTERVALS", {"always": (0.0, 1.0)})
    rows = tradeoff.measure(0, tmp_path)
    assert [row["scale"] for row in rows] == [1.0, 2.0]
    assert finite([[row[name] for name in tradeoff.METRICS] for row in rows])
    tradeoff.draw(rows, tmp_path / "tradeoff.png")
    assert (tmp_path / "tradeoff.png").stat().st_size


def test_intervals() -> None:
    simulate = experiment("intervals/simulate")
    setting = simulate.Setting(simulate.Law(2), 40, 40, num_heldout=40)
    found = simulate.coverages(setting, repeats=2, draws=2, many=200)
    assert {"frechet", "frechet_infinite", "recall", "memorised"} <= set(found)
    assert all(share in (0, 0.5, 1) for _, share in found.values())
    assert finite([truth for truth, _ in found.values()])


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
@pytest.mark.parametrize("name", ["mixture", "digits"])
def test_samplers(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All samplers of ours on both problems, and the figure of them."""
    compare, problems = experiment("samplers/compare"), experiment("samplers/problems")
    if name == "mixture":
        problem = problems.mixture_problem()
    else:
        monkeypatch.setattr(problems, "cache_dir", lambda: tmp_path / "cache")
        assert run.run(digits.get_config(), tmp_path / "run", "train") == 0
        problem = problems.digits_problem(tmp_path / "run", 2)
    methods = ("ddim", "heun", "ancestral", "pndm", "ddim, Restart")
    monkeypatch.setattr(compare, "METHODS", {n: compare.METHODS[n] for n in methods})
    monkeypatch.setattr(compare, "GRIDS", {n: compare.GRIDS[n] for n in ("uniform", "trailing")})
    monkeypatch.setattr(compare, "REFERENCE_STEPS", 2)
    monkeypatch.setattr(compare, "EVALUATIONS", (4,))
    monkeypatch.setattr(compare, "OPTIMISED", 1)
    monkeypatch.setattr(compare, "ITERATIONS", 1)
    monkeypatch.setattr(compare, "TOLERANCES", (1.0,))
    monkeypatch.setattr("diffusion_jax.generation.grid_search.REFERENCE_STEPS", 2)
    monkeypatch.setattr(compare, "BOOTSTRAP", 2)
    bench, rows = compare.Bench(problem, 2), []

    def say(**row: Any) -> None:
        rows.append({"problem": name, **json.loads(json.dumps(row))})

    say(package="reference", method="heun", grid="uniform", evaluations=4,
        frechet=problem.frechet(bench.exact, 2))  # fmt: skip
    compare.ours(bench, say)
    compare.ours_adaptive(bench, say)
    assert [row["method"] for row in rows[1:6]] == list(methods)
    assert [row["grid"] for row in rows[6:]] == ["optimised", "tolerance 1.0"]
    assert finite([row[figure] for row in rows for figure in ("rms", "frechet") if figure in row])
    # Two steps of Heun's method on the uniform grid are what stands for the exact solution here.
    sampled = bench.program(heun(problem.schedule))(jnp.array([1.0, 0.5, 0.0]), *bench.inputs())
    assert bench.rms(np.asarray(sampled)) < 1e-6
    clean = bench.numpy_denoiser(bench.few)(np.asarray(bench.noise), 1e-3)
    assert finite(clean)
    assert clean.shape == bench.noise.shape
    plot = experiment("samplers/plot")
    plot.draw(rows, tmp_path / "pareto.png")
    assert (tmp_path / "pareto.png").stat().st_size


def test_tables_of_samplers() -> None:
    """Of the published figures."""
    plot = experiment("samplers/plot")
    rows = json.loads((ROOT / "experiments/samplers/results.json").read_text())
    mine = [row for row in rows if row["problem"] == "digits"]
    for figure in ("rms", "frechet"):
        assert len(plot.table_of_best(mine, figure)) == 2 + 7
        assert any(
            line.startswith("| dpmpp_multistep |") for line in plot.table_of_all(mine, figure)
        )
    assert any("tolerance 0.1 " in line for line in plot.table_of_adaptive(mine))


@pytest.mark.slow
def test_edges_of_samplers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Levels of noise that float32 does not hold, and steps over most of them at once."""
    edges = experiment("samplers/edges")
    monkeypatch.setattr(edges, "GRIDS", ("quadratic", "leading", "karras"))
    steps = (1, 2, 3, 1000)
    near = {"edm": ("ddim", "lms", "pndm", "ancestral"), "laplace": ("ddim", "dpmpp_sde_multistep")}
    result: dict[str, Any] = {"steps": list(steps), "refused": {}}
    for name, samplers in near.items():
        schedule = edges.schedules()[name]
        times, result["refused"][name] = edges.grids_of(schedule, steps)
        found = {one: edges.look(one, schedule, times, steps) for one in samplers}
        for by_grid in found.values():
            for grid, distances in by_grid.items():
                for far, ddim, num in zip(distances, found["ddim"][grid], steps, strict=True):
                    assert far is None or edges.is_near(far, ddim, num)
    assert list(result["refused"]["edm"]) == ["leading, 1"]
    assert len(times["leading"][1000]) == 1001
    said = result["refused"]["edm"]["leading, 1"]
    assert said.startswith("sample.grid='leading' with sample.steps=1 and sample.t_max=1.0 starts")
    assert list(result["refused"]["laplace"]) == ["karras, 1000"]


def test_table_of_edges() -> None:
    """The published one is of all there is, and says which of it is neither near nor refused."""
    edges = experiment("samplers/edges")
    result = json.loads((ROOT / "experiments/samplers/edges.json").read_text())
    assert result["distances"].keys() == SAMPLERS.keys()
    beyond = []
    for sampler, by_schedule in result["distances"].items():
        assert by_schedule.keys() == edges.schedules().keys() == result["refused"].keys()
        for name, by_grid in by_schedule.items():
            assert by_grid.keys() == GRIDS.keys() - {"linspace"}  # which is newer than the table
            for grid, distances in by_grid.items():
                others = result["distances"]["ddim"][name][grid]
                for num, far, ddim in zip(result["steps"], distances, others, strict=True):
                    assert (far is None) == (f"{grid}, {num}" in result["refused"][name])
                    assert far is None or np.isfinite(far)
                    if far is not None and not edges.is_near(far, ddim, num):
                        beyond.append((sampler, name, grid, num))
    assert beyond == [("churn", "edm, shift 3", "quadratic", 10)]
    assert "14,421 in all, of which not near: 1" in edges.tables(result)


def test_samplers_of_others() -> None:
    theirs = experiment("samplers/theirs")
    schedule = Cosine()
    logsnr = schedule.logsnr(jnp.arange(1, theirs.TABLE + 1) / theirs.TABLE)
    ratios = np.exp(-0.5 * np.asarray(logsnr, float))
    noise = np.random.default_rng(0).normal(size=(2, 2)).astype(np.float32)
    found = list(theirs.all_runs(lambda x_t, ratio: 0 * x_t, ratios, noise, 4))
    assert {package for package, *_ in found} == {"diffusers", "k-diffusion"}
    assert all(samples.shape == (2, 2) for *_, samples, _ in found)
