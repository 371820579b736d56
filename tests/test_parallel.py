"""Layouts over eight (virtual) devices: all of them train the network of one device."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from diffusion_jax import build
from diffusion_jax.data import train_batches
from diffusion_jax.training.parallel import Replicated, Sharded
from diffusion_jax.training.state import TrainState, initial_state
from diffusion_jax.training.step import make_train_step
from tests.test_run import ROOT, random_dataset, tiny

STEPS, BATCH = 20, 16
LAYOUTS = {
    "pmap": lambda: Replicated(),
    "data": lambda: Sharded(fsdp=1, model=1),
    "fsdp4_model2": lambda: Sharded(fsdp=4, model=2),
}


def parts() -> build.Parts:
    net = {"model.dit.num_heads": 4, "model.dit.hidden_size": 32, "model.dit.depth": 3}
    learned = {"objective.learned_uncertainty": True, "time_sampling.learned": True}
    config = tiny(**net, **learned, optimizer__warmup_steps=2, sample__sampler="ancestral")
    return build.build(config)


def train(parts: build.Parts, layout: Any) -> tuple[list[float], TrainState, int]:
    """Losses of `STEPS` steps, the state after them, and the bytes of parameters on a device."""
    step = make_train_step(parts.loss, parts.optimizer, 0.9, 2, layout.axis_name)
    state = initial_state(parts.init, parts.optimizer, jax.random.key(0), layout.shardings)
    state, key = layout.place((state, jax.random.key(1)))
    batches = train_batches(parts.dataset, batch_size=BATCH, seed=0)
    step_fn, losses = layout.compile(step), []
    for _ in range(STEPS):
        state, metrics = step_fn(state, layout.split(next(batches)), key)
        losses.append(float(np.mean(jax.device_get(metrics["loss"]))))
    batches.close()
    here = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(state.params))
    return losses, layout.fetch(state), here


def draw(parts: build.Parts, params: Any) -> np.ndarray:
    index = np.arange(12)
    return parts.generator(params, 3, index, index % 10, 1.0, batch_size=12)[0]


def eight(out: str) -> None:
    """What the process with eight devices does."""
    build.parts.load_dataset = lambda *a, **k: random_dataset()
    assert jax.device_count() == 8
    made, found = parts(), {}
    for name, layout in LAYOUTS.items():
        losses, state, here = train(made, layout())
        found |= {f"{name}/losses": losses, f"{name}/bytes": here, f"{name}/step": state.step}
        leaves = jax.device_get(jax.tree.leaves((state.params, state.ema)))
        found |= {f"{name}/leaf{i}": leaf for i, leaf in enumerate(leaves)}
        if name != "data":
            found[f"{name}/samples"] = draw(made, state.ema)
    np.savez(out, **found)


@pytest.fixture(scope="module")
def one_and_eight(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, tuple]:
    out = str(tmp_path_factory.mktemp("eight") / "found.npz")
    flags = "--xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    script = f"from tests import test_parallel; test_parallel.eight({out!r})"
    process = subprocess.Popen([sys.executable, "-c", script], env=env, cwd=ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build.parts, "load_dataset", lambda *a, **k: random_dataset())
        made = parts()
        losses, state, here = train(made, Replicated())
        samples = draw(made, state.ema)
    assert process.wait() == 0
    return dict(np.load(out)), (losses, state, here, samples)


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_trains_the_network_of_one_device(name: str, one_and_eight: tuple) -> None:
    eight, (losses, state, _, samples) = one_and_eight
    np.testing.assert_allclose(eight[f"{name}/losses"], losses, rtol=1e-5)
    assert eight[f"{name}/step"] == STEPS
    leaves = jax.tree.leaves((state.params, state.ema))
    assert sum(np.ptp(leaf) > 0 for leaf in leaves) > len(leaves) / 2
    for i, leaf in enumerate(leaves):
        np.testing.assert_allclose(eight[f"{name}/leaf{i}"], leaf, atol=1e-5)
    if name != "data":
        np.testing.assert_allclose(eight[f"{name}/samples"], samples, atol=1e-4)


def test_parameters_are_cut(one_and_eight: tuple) -> None:
    eight, (_, _, here, _) = one_and_eight
    assert eight["pmap/bytes"] == eight["data/bytes"] == here
    # A few vectors stay whole.
    assert here / 8 < eight["fsdp4_model2/bytes"] < here / 7


def test_names_decide_how_parameters_are_cut() -> None:
    layout = Sharded(fsdp=1, model=1)
    shape = jax.ShapeDtypeStruct((4, 8, 16), np.float32)
    tree = {"blocks": {"qkv": {"kernel": shape}, "out": {"kernel": shape}}, "odd": shape}
    specs = jax.tree.map(lambda s: tuple(s.spec), layout.shardings({"opt": (tree,)}))["opt"][0]
    assert specs["blocks"]["qkv"]["kernel"] == (None, "fsdp", "model")
    assert specs["blocks"]["out"]["kernel"] == (None, "model", "fsdp")
    assert specs["odd"] == (None, None, "fsdp")
    scalar = layout.shardings(jax.ShapeDtypeStruct((), np.int32))
    assert tuple(scalar.spec) == ()


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    for settings, says in (
        ({"parallel.strategy": "shard"}, "did you mean 'sharded'"),
        ({"parallel.strategy": "sharded", "parallel.fsdp": 3}, "must divide the number of devices"),
        ({"parallel.strategy": "sharded", "parallel.model": 0}, "must divide the number of"),
    ):
        with pytest.raises(build.ConfigError, match=says):
            build.build(tiny(**settings))
