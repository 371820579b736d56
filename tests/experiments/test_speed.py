"""Benchmarks run small."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.unet import UNet
from tests.experiments.common import experiment
from tests.runs import ROOT

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
    rows = bench.compare("dit", 2, 3, 1, sys.executable, sys.executable)
    found = {row.split("|")[1].strip(): float(row.split("|")[2]) for row in rows}
    assert found["**dit train, theirs / ours**"] == 2
    assert found["**dit forward, theirs / ours**"] == 2
    assert found["**dit sample / (steps x forward), ours**"] == 1


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


def test_speed_of_others() -> None:
    theirs = experiment("speed/theirs")
    for name in ("unet", "dit"):
        count = sum(p.numel() for p in theirs.network(name).parameters())
        assert count == {"unet": 6_472_195, "dit": 32_499_120}[name]


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
