"""The whole command with a small network: its outputs, stopping, resuming, repeating."""

import dataclasses
import importlib
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import Images, to_float
from diffusion_jax.generation.generator import Request
from diffusion_jax.generation.labels import cycle_labels, proportional_labels
from diffusion_jax.plan.hardware import HARDWARE
from diffusion_jax.system.command_line import check_command_line
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.parallel import Replicated
from diffusion_jax.training.state import create_state
from diffusion_jax.training.step import make_train_step
from tests.runs import (
    CONFIGS,
    ROOT,
    TINY,
    as_made,
    assert_same,
    config_with_noise,
    final_state,
    random_dataset,
    tiny,
)

pytestmark = pytest.mark.usefixtures("noise")


def modified(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written, but for locks."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.slow
def test_the_whole_job_and_what_it_leaves(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    whole = {"train__heldout_every": 3, "train__sample_every": 3}
    assert run.run(tiny(**whole), tmp_path / "run", "all") == 0
    names = {p.name for p in (tmp_path / "run").iterdir()}
    assert {"config.json", "checkpoints", "metrics.jsonl", "samples", "result.json"} <= names
    assert {"report.md", "report.html", "curves.png"} <= names
    samples = {p.name for p in (tmp_path / "run/samples").iterdir()}
    pictures = {"grid.png", "trajectory.png", "denoise.gif", "closest.png"}
    assert pictures | {"step_00000003.png"} <= samples

    result = json.loads((tmp_path / "run/result.json").read_text())
    for name in ("frechet_noise_cnn", "recall_noise_cnn", "memorised_share"):
        for entry in (result[name], result[f"{name}_heldout"]):
            assert entry["low"] <= entry["value"] <= entry["high"]
            assert entry["passport"]["config"] == from_config.config_hash(tiny())
            assert entry["passport"]["measured_by"] == "classifier"
    assert result["frechet_noise_cnn"]["n"] == 60
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert [row["step"] for row in rows if "loss" in row] == [2, 4, 6]
    assert all(row["train_seconds"] > 0 for row in rows if "loss" in row)  # also if killed later
    assert any("heldout/error_t0.05" in row for row in rows)
    out = capsys.readouterr().out
    assert "parameters" in out
    assert "step 6/6" in out

    # The same command again trains nothing, draws nothing, measures nothing.
    before = modified(tmp_path / "run")
    assert run.run(tiny(), tmp_path / "run", "all") == 0
    assert before == modified(tmp_path / "run")
    assert "training is done" in capsys.readouterr().out

    # With other settings of the sampler it draws and measures again, and trains nothing; also where
    # the checkpoints alone were copied.
    (tmp_path / "run/metrics.jsonl").unlink()
    assert run.run(tiny(sample__steps=3), tmp_path / "run", "all") == 0
    after = json.loads((tmp_path / "run/result.json").read_text())
    assert {entry["passport"]["steps"] for entry in after.values()} == {3}
    assert json.loads(Image.open(tmp_path / "run/samples/grid.png").text["made_by"])["steps"] == 3
    assert "step 6/6" not in capsys.readouterr().out


@pytest.mark.slow
def test_optimised_times_and_likelihood(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Times are searched for once; three estimates stand side by side in the report."""
    assert run.run(tiny(), tmp_path, "train") == 0
    settings = {
        "sample__sampler": "dpmpp_multistep",
        "sample__grid": "optimised",
        "sample__optimised": {"images": 4, "iterations": 2},
        "evaluate__metrics": "distances,denoising,likelihood",
        "evaluate__likelihood": {"num_images": 3, "probes": 2, "noise_levels": 4},
    }
    assert run.run(tiny(**settings), tmp_path, "sample") == 0
    assert "root mean square distance from the exact samples" in capsys.readouterr().out
    (kept,) = (tmp_path / "grids").iterdir()
    times = json.loads(kept.read_text())["times"]
    assert len(times) == 5
    assert not np.allclose(times, np.linspace(1, 0, 5))
    assert run.run(tiny(**settings), tmp_path, "evaluate") == 0
    assert "searching" not in capsys.readouterr().out
    entry = json.loads((tmp_path / "result.json").read_text())["bits_ode_heldout"]
    assert entry["n"] == 3
    # No model is better than log2(256) on noise, up to the spread of three images.
    assert 7.5 < entry["low"] <= entry["value"] <= entry["high"]
    assert entry["passport"]["hutchinson_standard_error"] > 0
    page = (tmp_path / "report.md").read_text()
    for name in ("bits_ode", "bits_bound", "bits_ancestral"):
        assert f"(`{name}`) | **" in page
    assert "grid optimised(images=4, iterations=2)" in page


@pytest.mark.parametrize(
    ("num", "sizes"), [(60, [60]), (10, [10]), (100, [32, 32, 36]), (112, [32, 32, 32, 16])]
)
def test_samples_are_drawn_in_chunks_of_whole_batches(
    monkeypatch: pytest.MonkeyPatch, num: int, sizes: list[int]
) -> None:
    """A chunk smaller than a batch would be another program."""
    limit = 32 * 64 if num > 60 else 2**20
    monkeypatch.setattr(run.evaluation, "CHUNK_BYTES", limit)
    config = tiny(sample__batch_size=16, evaluate__num_samples=num)
    parts = SimpleNamespace(dataset=random_dataset())
    labelled = 2 * np.arange(num)
    conditions = SimpleNamespace(as_trained=lambda num, seed: ({"label": labelled}, labelled))

    def items(seed: int, index: np.ndarray, cond: dict) -> tuple:
        assert seed == config.evaluate.seed
        np.testing.assert_array_equal(cond["label"], 2 * index)
        return index, None

    made, spent = SimpleNamespace(config=config, parts=parts, conditions=conditions), []
    drawn = list(run.evaluation.samples(SimpleNamespace(run=made, items=items), spent))
    assert [len(images) for images, _ in drawn] == sizes
    np.testing.assert_array_equal(np.concatenate([images for images, _ in drawn]), np.arange(num))
    labels = np.concatenate([labels for _, labels in drawn])
    np.testing.assert_array_equal(labels, 2 * np.arange(num))
    assert len(spent) == len(sizes)


def test_a_missing_reference_is_refused_before_any_training(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    missing = tiny(evaluate__reference=str(tmp_path / "none.npz"))
    assert run.run(missing, tmp_path / "new", "all") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: evaluate.reference=")
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_what_is_learned_beside_the_network_moves(tmp_path: Path) -> None:
    c = tiny(time_sampling__learned=True, objective__learned_uncertainty=True)
    assert run.run(c, tmp_path, "train") == 0
    params = run.Run(c, tmp_path, from_config.build(c)).trained().params
    assert np.ptp(params["time_law"]) > 0
    assert np.ptp(jax.tree.leaves(params["uncertainty"])[-1]) > 0


@pytest.mark.slow
def test_a_picture_can_be_made_again_from_what_its_png_says(tmp_path: Path) -> None:
    assert run.run(tiny(), tmp_path, "all") == 0
    picture = tmp_path / "samples/images/000007.png"
    pixels = np.asarray(Image.open(picture), int)
    says = json.loads(Image.open(picture).text["made_by"])
    assert says["config"] == from_config.config_hash(tiny())
    assert run.run(tiny(**as_made(says)), tmp_path, "sample") == 0
    assert [p.name for p in (tmp_path / "samples/images").iterdir()] == ["000007.png"]
    assert np.abs(np.asarray(Image.open(picture), int) - pixels).max() <= 1


@pytest.mark.slow
def test_same_seed_same_bits_also_after_sigterm_and_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert run.run(tiny(), tmp_path / "one", "train") == 0
    assert run.run(tiny(), tmp_path / "two", "train") == 0
    one = final_state(tiny(), tmp_path / "one")
    assert_same(one, final_state(tiny(), tmp_path / "two"))

    split, seen = Replicated.split, []

    def interrupt(self: Replicated, batch: dict) -> dict:
        seen.append(batch)
        if signum := {2: signal.SIGTERM, 4: signal.SIGINT}.get(len(seen)):
            os.kill(os.getpid(), signum)
        return split(self, batch)

    monkeypatch.setattr(Replicated, "split", interrupt)
    for step, status in ((2, 143), (4, 130)):
        assert run.run(tiny(), tmp_path / "three", "all") == status
        assert "go on with the same command" in capsys.readouterr().out
        assert Checkpoints(tmp_path / "three/checkpoints").latest() == step
    assert run.run(tiny(), tmp_path / "three", "train") == 0
    assert "going on from step 4" in capsys.readouterr().out
    assert_same(one, final_state(tiny(), tmp_path / "three"))
    assert len(seen) == 6

    assert run.run(tiny(seed=1), tmp_path / "four", "train") == 0
    assert not np.array_equal(one[3], final_state(tiny(seed=1), tmp_path / "four")[3])


@pytest.mark.slow
def test_a_full_disk_or_a_closed_workdir_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Files that may not grow beyond a limit stand in for the disk, once step 3 is saved."""
    split, left = Replicated.split, [3]
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    checkpoints = Checkpoints(tmp_path / "run/checkpoints")

    def limit(self: Replicated, batch: dict) -> dict:
        left[0] -= 1
        if left[0] < 0:
            while checkpoints.steps() != [3]:
                time.sleep(0.01)
            resource.setrlimit(resource.RLIMIT_FSIZE, (left[1], before[1]))
        return split(self, batch)

    monkeypatch.setattr(Replicated, "split", limit)
    # Too little for the checkpoint of step 6, for a picture before it, for the metrics before that.
    for largest, changed, says in (
        (40_000, {}, "checkpoint of step 6 could not be written in .*: File too large; those"),
        (500, {"train__sample_every": 5}, "run: File too large"),
        (10, {}, "run: File too large"),
    ):
        left[1:] = [largest]
        try:
            assert run.run(tiny(**changed), tmp_path / "run", "train") == 2
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        error = capsys.readouterr().err
        assert re.fullmatch(f"error: .*{says}.*\n", error)
        assert checkpoints.latest() == 3
    left[0] = 3
    assert run.run(tiny(), tmp_path / "run", "train") == 0
    assert "going on from step 3" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").open()]
    assert rows[-1]["step"] == 6

    (tmp_path / "file").touch()
    assert run.run(tiny(), tmp_path / "file/run", "train") == 2
    assert re.fullmatch(r"error: .*file/run\S*: Not a directory\n", capsys.readouterr().err)


@pytest.mark.slow
def test_sample_i_is_the_same_in_any_batch() -> None:
    config = tiny(sample__sampler="ancestral", sample__guidance_scale=2.0)
    parts = from_config.build(config)
    params = jax.tree.map(
        lambda a: a + 0.05 * jax.random.normal(jax.random.key(a.size), a.shape),
        jax.jit(parts.task.init)(jax.random.key(0)),
    )
    index, labels = np.arange(64), np.arange(64, dtype=np.int32) % 10
    request = Request(index, {"label": labels}, 2.0)
    whole, states = parts.generator(params, 3, request, batch_size=64, keep_every=2)
    assert np.abs(whole - whole[:1]).max() > 0.1
    for size in (1, 7):
        for start in (0, 5, 57):
            rows = slice(start, start + size)
            request = Request(index[rows], {"label": labels[rows]}, 2.0)
            x, kept = parts.generator(params, 3, request, batch_size=size, keep_every=2)
            np.testing.assert_array_equal(kept[0], states[0][rows])  # the noise, to the bit
            np.testing.assert_allclose(x, whole[rows], atol=1e-4)


@pytest.mark.slow
def test_step_and_sampler_are_traced_once() -> None:
    parts = from_config.build(tiny())
    traces = {"step": 0, "sampler": 0}
    params = jax.jit(parts.task.init)(jax.random.key(0))

    def counted(name: str, apply):
        def call(*args):
            traces[name] += 1
            return apply(*args)

        return call

    generator = dataclasses.replace(
        parts.generator, apply=counted("sampler", parts.generator.apply)
    )
    draw = lambda seed, labels, scale: generator(  # noqa: E731
        params, seed, Request(np.arange(4), {"label": labels}, scale), batch_size=4
    )
    draw(0, np.arange(4), 1.5)
    once = traces["sampler"]
    for seed, label, scale in ((1, 0, 1.5), (1, 5, 3.0), (2, -1, 1.0)):
        draw(seed, np.full(4, label), scale)
    assert traces["sampler"] == once

    loss = dataclasses.replace(parts.task.loss, apply=counted("step", parts.task.loss.apply))
    parallel = Replicated()
    step = parallel.compile(
        make_train_step(loss, parts.optimizer, parts.averages, 1, parallel.axis_name)
    )
    state = parallel.place(create_state(params, parts.optimizer, parts.averages))
    for seed in (0, 1):
        x = np.full((16, 8, 8, 1), 0.1 * seed, np.float32)
        batch = parallel.split({"x": x, "cond": {"label": np.full(16, seed, np.int32)}})
        state, _ = step(state, batch, parallel.place(jax.random.key(seed)), {})
    assert traces["step"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_is_sound_at_full_size(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its train step is traced, and what samples from it; nothing is computed."""
    config = config_with_noise(name, monkeypatch)
    parts = from_config.build(config)
    kind = parts.kind
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(
        lambda key: create_state(parts.task.init(key), parts.optimizer, parts.averages), key
    )
    size = config.train.batch_size
    batch = {
        "x": jax.ShapeDtypeStruct((size, *kind.shape), kind.stored),
        "cond": {
            name: jax.ShapeDtypeStruct((size, *one.shape[1:]), one.dtype)
            for name, one in parts.task.cond.items()
        },
        "index": jax.ShapeDtypeStruct((size,), np.int32),
    }
    step = make_train_step(parts.loss, parts.optimizer, parts.averages, config.train.accumulate)
    frozen = {name: params.shapes for name, params in parts.task.frozen.items()}
    after, metrics = jax.eval_shape(step, state, batch, key, frozen)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    assert metrics["loss"].shape == ()
    if parts.task.generator is None:
        return
    t = jax.ShapeDtypeStruct((size,), np.float32)
    denoise = lambda params, *args: parts.generator.denoiser(params)(*args)  # noqa: E731
    diffused = size, *parts.generator.codec.shape
    x_t = jax.ShapeDtypeStruct(diffused, kind.dtype)
    denoised = jax.eval_shape(denoise, state.params, x_t, t, batch["cond"])
    vocabulary = parts.dataset.kind.vocabulary
    assert denoised.x_0.shape == (*diffused, *[vocabulary] * bool(vocabulary))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["default", "imagenet64_adm"])
def test_a_config_trains_shrunk(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the default UNet and with ADM's, without dropout; the others here train a DiT."""
    config = config_with_noise(name, monkeypatch)
    shrunk = {
        "model.name": "unet",
        "model.unet.channels": 8,
        "model.unet.channel_mults": (1, 2),
        "model.unet.num_blocks": 1,
        "model.unet.attention_levels": (1,),
        "model.unet.head_dim": min(config.model.unet.head_dim, 8),
        "model.unet.dropout": 0.0,  # random bits take half of the compilation
        "optimizer.warmup_steps": 0,
        "train.steps": 1,
        "train.batch_size": 2 * config.train.accumulate,
        "train.log_every": 1,
        "train.checkpoint_every": 0,
    }
    config.update_from_flattened_dict(TINY | shrunk)
    assert run.run(config, tmp_path, "train") == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert np.isfinite(rows[0]["loss"])
    assert rows[0]["grad_norm"] > 0


BAD = {
    "schedule.name": ("cosin", "did you mean 'cosine'"),
    "model.dit.remat": ("ful", "did you mean 'full'"),
    "model.name": ("unett", "did you mean 'unet'"),
    "objective.prediction": ("epsilon", "did you mean 'eps'"),
    "objective.weighting": ("minsnr", "did you mean 'min_snr'"),
    "objective.loss_space": ("data", "objective.loss_space='data' is not known"),
    "optimizer.name": ("adammw", "adamw"),
    "optimizer.decay": ("cosin", "did you mean 'cosine'"),
    "sample.sampler": ("ddimm", "did you mean 'ddim'"),
    "sample.grid": ("karas", "did you mean 'karras'"),
    "schedule.shift": (0.0, "schedule.shift=0.0 must lie in (0, inf)"),
    "sample.labels": ("11", "classes from 0 to 9"),
    "sample.checkpoint": (5, "no checkpoint of step 5"),
    "sample.ancestral.variance": ("learned", "objective.learned_variance"),
    "model.unet.channel_mults": ((1, 1, 1, 1, 1), "all sides of size 8x8 must be multiples of 16"),
    "train.steps": (0, "train.steps=0 must lie in [1, inf)"),
    "train.keep_every": (-1, "train.keep_every=-1 must lie in [0, inf)"),
    "data.stall_seconds": (0.0, "data.stall_seconds=0.0 must lie in (0, inf)"),
    "train.accumulate": (3, "must be a multiple of 3"),
    "ema.decay": (1.0, "ema.decay=1.0 must lie in [0, 1)"),
    "ema.lengths": ((0.1, 0.3), "ema.lengths=0.3 must lie in (0, 0.288"),
    "ema.snapshot_every": (5, "of the averages that ema.lengths gives"),
    "sample.ema": ("0.07", "no snapshots to compute it from: train with ema.lengths=0.05,0.1"),
    "data.in_memory": ("sometimes", "Known: auto, always, never"),
}


@pytest.mark.parametrize("key", BAD)
def test_bad_settings_end_in_one_line(
    key: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    value, says = BAD[key]
    config = tiny(**{key: value})
    if key.startswith("model.unet."):
        config.model.name = "unet"
    if key == "sample.ancestral.variance":
        config.sample.sampler = "ancestral"
    mode = "sample" if key.startswith("sample.") else "all"
    assert run.run(config, tmp_path / "run", mode) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert not (tmp_path / "run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"schedule__name": "ddpm", "sample__steps": 1001},
            "must be at most 1000, the number of steps of schedule",
        ),
        ({"sample__grid": "trailing", "sample__steps": 1001}, "more than the 1000 of the table"),
        ({"schedule__name": "laplace", "sample__grid": "karras"}, "must decrease, but at step"),
        (
            {"sample__sampler": "heun", "sample.heun.scaling": "edm"},
            "sample.heun.scaling='edm' must be 've' or 'flow'",
        ),
        (
            {"sample__sampler": "unipc", "sample.unipc.order": 4},
            "sample.unipc.order=4 must be 1, 2 or 3",
        ),
        (
            {"sample.restart.repeats": 1, "sample.restart.low": 0.5},
            "sample.restart.low=0.5 must lie in [0, high) with high=0.4",
        ),
    ],
)
def test_samplers_and_grids_that_do_not_fit(
    settings: dict, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny(**{"sample__steps": 50, **settings})
    assert run.run(config, tmp_path, "sample") == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("mode", "topology", "says"),
    [
        ("plan", "h10:8", "did you mean 'h100'"),
        ("plan", "h100:7", "cannot be split over 7 devices"),
        ("train", "h100:8", "goes with --mode plan"),
    ],
)
def test_topologies_that_cannot_be(
    mode: str, topology: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run.run(tiny(), tmp_path, mode, topology) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_plan_without_the_data() -> None:
    """Its shape and classes are those that TFDS knows, or the shape that is asked for."""
    config = importlib.import_module("configs.imagenet256_dit").get_config()
    found = from_config.planned_dataset(config)
    assert (found.kind.shape, found.num_classes, len(found.splits["train"])) == (
        (256, 256, 3),
        1000,
        0,
    )
    config.plan.shape = (32, 32, 4)
    found = from_config.planned_dataset(config)
    assert (found.kind.shape, found.num_classes, len(found.splits["train"])) == (
        (32, 32, 4),
        1000,
        0,
    )
    config.plan.shape = (32, 32)
    with pytest.raises(from_config.ConfigError, match=r"plan\.shape"):
        from_config.planned_dataset(config)


@pytest.mark.slow
def test_plan_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("diffusion_jax.plan.measured.SECONDS", 0.0)
    monkeypatch.setattr("diffusion_jax.plan.measured.SIDES", {"cpu": 256})
    known = lambda kind: HARDWARE["h100"]  # noqa: E731
    monkeypatch.setattr("diffusion_jax.plan.devices.find_hardware", known)
    assert run.run(tiny(schedule__name="edm"), tmp_path / "run", "plan") == 0
    captured = capsys.readouterr()
    assert "training  sampling steps" in captured.out
    assert re.search(r"a step: .* of the measured peak", captured.out)
    assert re.search(r"\d [MG]B together\npredicted:\na step takes", captured.out)
    assert captured.err.startswith("warning: ")
    assert not (tmp_path / "run").exists()


def test_eps_cannot_start_where_there_is_no_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny(schedule__name="flow", objective__prediction="eps")
    assert run.run(config, tmp_path, "all") == 2
    assert "use sample.t_max=0.999" in capsys.readouterr().err


def test_batch_not_divisible_by_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 5)
    assert run.run(tiny(), tmp_path, "all") == 2
    assert "train.batch_size=16 cannot be split over 5 devices" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("strategy", "gradients", "says"),
    [
        ("sharded", "bfloat16", "is for parallel.strategy='replicated'"),
        ("replicated", "bfloat", "did you mean 'bfloat16'"),
    ],
)
def test_a_dtype_of_gradients_is_for_the_replicated_step(
    strategy: str, gradients: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny(parallel__strategy=strategy, parallel__gradients=gradients)
    assert run.run(config, tmp_path, "train") == 2
    assert says in capsys.readouterr().err


@pytest.mark.slow
def test_a_workdir_keeps_to_its_config(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run.run(tiny(train__steps=1), tmp_path, "train") == 0
    before = (tmp_path / "config.json").read_text()
    assert run.run(tiny(train__steps=1, ema__decay=0.5), tmp_path, "all") == 2
    error = capsys.readouterr().err
    assert "another config: ema.decay=0.5 (there: 0.999)" in error
    assert (tmp_path / "config.json").read_text() == before
    # What does not change the training may change.
    assert run.run(tiny(train__steps=1, sample__steps=2), tmp_path, "sample") == 0


@pytest.mark.slow
def test_a_batch_that_is_not_finite_is_skipped_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    split, taken = Replicated.split, []

    def spoil(self: Replicated, batch: dict) -> dict:
        taken.append(batch)
        return split(self, {**batch, "x": batch["x"] * np.uint8(len(taken) != 3)})

    def black_is_nan(self: Images, items: Any) -> Any:
        return jnp.where(jnp.any(items), to_float(items), jnp.nan)

    monkeypatch.setattr(Replicated, "split", spoil)
    monkeypatch.setattr(Images, "decode", black_is_nan)
    assert run.run(tiny(), tmp_path, "train") == 0
    said = capsys.readouterr().out
    assert "warning: 1 of the last 2 steps skipped" in said
    assert "the first had batch 2 (training images " in said
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]
    assert [row["skipped"] for row in rows if "loss" in row] == [0, 1, 0]
    assert all(np.isfinite(row["loss"]) for row in rows if "loss" in row)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tiny(optimizer__learning_rate=1e30, optimizer__warmup_steps=0, train__steps=20)
    config.optimizer.clip_norm = 0.0
    assert run.run(config, tmp_path, "train") == 2
    error = capsys.readouterr().err
    assert re.search(
        r"10 steps in a row skipped .* the first of them step \d+ with batch \d+", error
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config", "configs/digit.py"], "did you mean 'configs/digits.py'"),
        (["--config", "configs/digits.py", "--config.train.stepz=1"], "did you mean 'steps'"),
        (["--config", "configs/digits.py", "--config.train.steps=many"], "invalid literal"),
        (["--config", "configs/digits.py", "--config.ema.lengths=0.05,0.3"], "ema.lengths=0.3"),
        (
            ["--config", "configs/digits.py", "--mode", "smaple"],
            "all|train|sample|restore|evaluate",
        ),
        (
            ["--config", "configs/digits.py", "--config=README.md"],
            "README.md: is not a Python file",
        ),
        (
            ["--config", "configs/digits.py", "--config=x.py"],
            "--config=x.py: there is no such file",
        ),
        ([], "which config?"),
    ],
)
def test_bad_command_lines_end_in_one_line(arguments: list[str], says: str) -> None:
    done = subprocess.run(
        [sys.executable, "launch.py", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("    import nothing_of_this_name", "line 4: No module named 'nothing_of_this_name'"),
        ("    return (", "line 4: '(' was never closed"),
        ("    raise ValueError('no\\nsuch')", "line 4: no such"),
        ("    assert False", "line 4: AssertionError"),
        ("    c.train.stepz = 3", "Did you mean"),
    ],
)
def test_mistakes_in_a_config_file_are_one_line(body: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    start = "from configs import default\ndef get_config():\n    c = default.get_config()\n"
    path.write_text(start + body)
    found = check_command_line(["launch.py", f"--config={path}"])
    assert says in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("variable", "says"),
    [
        ({"JAX_PLATFORMS": "cuda"}, "there is: 1 x cpu"),
        pytest.param({"JAX_PLATFORMS": "nonsense"}, "known backends", marks=pytest.mark.slow),
        pytest.param({"JAX_DEBUG_NANS": "maybe"}, "'JAX_DEBUG_NANS'", marks=pytest.mark.slow),
    ],
)
def test_what_jax_refuses_is_said_in_one_line(
    variable: dict[str, str], says: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "launch.py", "--config", "configs/digits.py", "--workdir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, **variable},
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert says in done.stderr


def test_a_full_device_is_said_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(*made: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes\n")

    monkeypatch.setattr(run.command, "train", full)
    assert run.run(tiny(), tmp_path, "train") == 2
    error = capsys.readouterr().err
    assert "Out of memory allocating 9 bytes" in error
    assert "lower train.batch_size" in error
    assert error.count("\n") == 1


WITHOUT_TENSORFLOW = """
import sys
sys.path.insert(0, {root!r})
from tests import without_tensorflow
from pathlib import Path
from tests import runs as t
from diffusion_jax import from_config, run
from diffusion_jax.evaluation import extractor
from_config.data.load_dataset = lambda *a, **k: t.random_dataset()
run.evaluation.cache_dir = lambda: Path({out!r}) / "cache"
extractor.STEPS = 3
sys.exit(run.run(t.tiny(), Path({out!r}), "all"))
"""


@pytest.mark.slow
def test_without_tensorflow_everything_but_tensorboard(tmp_path: Path) -> None:
    script = WITHOUT_TENSORFLOW.format(root=str(ROOT), out=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("TensorFlow is not installed") == 1
    names = {p.name for p in tmp_path.iterdir()}
    assert {"metrics.jsonl", "samples", "result.json", "report.md", "checkpoints"} <= names
    assert not list(tmp_path.glob("events.*"))


def test_labels() -> None:
    index = np.arange(7)
    assert cycle_labels("all", 3, index).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert cycle_labels("2,0", 3, index + 1).tolist() == [0, 2, 0, 2, 0, 2, 0]
    assert cycle_labels("none", 3, index).tolist() == [-1] * 7
    assert cycle_labels("all", 0, index) is None
    for spec in ("3", "-2", "cat", "1,,2"):
        with pytest.raises(ValueError, match="from 0 to 2"):
            cycle_labels(spec, 3, index)
    labels = np.array([0] * 5 + [1] * 3 + [2] * 2)
    assert np.bincount(proportional_labels(labels, 3, 20)).tolist() == [10, 6, 4]
    assert np.bincount(proportional_labels(labels, 3, 7)).tolist() == [4, 2, 1]
    assert len(proportional_labels(labels, 3, 1797)) == 1797
