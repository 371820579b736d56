"""Layouts over eight virtual devices: all train the same network as a single device."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax import from_config
from diffusion_jax.data import train_batches
from diffusion_jax.generation.generator import Request
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.layout import rows_over
from diffusion_jax.models.unet import UNet
from diffusion_jax.plan.collectives import exchanged_bytes
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.ema import EXPONENTIAL
from diffusion_jax.training.parallel import ROWS, Replicated, Sharded, axes_of
from diffusion_jax.training.state import TrainState, initial_state
from diffusion_jax.training.step import make_train_step
from tests.runs import random_dataset, tiny, with_eight_devices

pytestmark = pytest.mark.slow

STEPS, BATCH = 20, 16
LAYOUTS = {
    "one": lambda: Sharded(fsdp=1, model=1, devices=jax.devices()[:1]),
    "pmap": lambda: Replicated(),
    "data": lambda: Sharded(fsdp=1, model=1),
    "fsdp4_model2": lambda: Sharded(fsdp=4, model=2),
    "fsdp4_model2_once": lambda: Sharded(fsdp=4, model=2, gather="step"),
}


def parts() -> from_config.Parts:
    net = {"model.dit.num_heads": 4, "model.dit.hidden_size": 32, "model.dit.depth": 3}
    train = {"optimizer.warmup_steps": 2, "train.steps": STEPS}
    return from_config.build(tiny(**net, **train, sample__sampler="ancestral"))


def train(parts: from_config.Parts, layout: Any) -> tuple[list[float], TrainState, int, int]:
    """Losses of `STEPS` steps, the state after them, and bytes of a device.

    Those of parameters, and those that it sends in a step.
    """
    step = make_train_step(parts.loss, parts.optimizer, parts.averages, 2, layout.axis_name)
    state = initial_state(
        parts.task.init, parts.optimizer, jax.random.key(0), parts.averages, layout.shardings
    )
    state, key = layout.place((state, jax.random.key(1)))
    batches = train_batches(parts.dataset, batch_size=BATCH, seed=0)
    step_fn, losses = layout.compile(step), []
    first = layout.split(next(batches))
    text = step_fn.lower(state, first, key, {}).compile().as_text()
    for _ in range(STEPS):
        state, metrics = step_fn(state, layout.split(next(batches)), key, {})
        losses.append(float(np.mean(jax.device_get(metrics["loss"]))))
    batches.close()
    here = sum(leaf.addressable_data(0).nbytes for leaf in jax.tree.leaves(state.params))
    return losses, layout.fetch(state), here, sum(exchanged_bytes(text).values())


def draw(parts: from_config.Parts, params: Any) -> np.ndarray:
    index = np.arange(12)
    return parts.generator(params, 3, Request(index, {"label": index % 10}), batch_size=12)[0]


def eight(out: str) -> None:
    """What the process with eight devices does."""
    from_config.data.load_dataset = lambda *a, **k: random_dataset()
    assert jax.device_count() == 8
    made, found = parts(), {}
    for name, layout in LAYOUTS.items():
        losses, state, here, sent = train(made, layout())
        found |= {f"{name}/losses": losses, f"{name}/bytes": here, f"{name}/step": state.step}
        found[f"{name}/sent"] = sent
        found[f"{name}/state"] = np.concatenate([np.ravel(a) for a in leaves_of(state)])
        if name == "fsdp4_model2":
            found["samples"] = draw(made, state.ema[EXPONENTIAL])
        checkpoints = Checkpoints(Path(out).parent / name)
        checkpoints.save(STEPS, state, {})
        checkpoints.wait()
        # And taken on in another layout, as it lies there.
        other = Sharded(fsdp=4, model=2) if name == "one" else Replicated()
        shapes = jax.tree.map(
            lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s),
            state,
            other.shardings(state),
        )
        restored, _ = checkpoints.restore(shapes)
        assert jax.tree.all(jax.tree.map(lambda a, b: a.sharding == b.sharding, restored, shapes))
        for a, b in zip(leaves_of(restored), leaves_of(state), strict=True):
            np.testing.assert_array_equal(a, b)
    np.savez(out, **found)


def held(out: str) -> None:
    """Bytes of the arrays on eight devices: of the state, after a step, and read by an action."""
    layout, one = Replicated(), jnp.ones((256, 256))

    def live() -> int:
        shards = [shard.data for a in jax.live_arrays() for shard in a.addressable_shards]
        return sum({data.unsafe_buffer_pointer(): data.nbytes for data in shards}.values())

    before = live()
    state = jax.jit(lambda: {"w": one}, out_shardings=layout.shardings({"w": one}))()
    state, key = layout.place((state, jax.random.key(0)))
    found = [live() - before]
    step = layout.compile(lambda state, *_: ({"w": state["w"] + 1}, {"loss": jnp.zeros(())}))
    state, metrics = step(state, layout.split({"x": np.zeros((8, 1))}), key, {})
    found.append(live() - before)
    layout._devices = [SimpleNamespace(platform="gpu")]
    read = layout.fetch(state)
    found.append(live() - before)
    assert np.all(np.asarray(read["w"]) == 2)
    assert metrics["loss"].shape == ()
    np.savez(out, found=found, of_one=one.nbytes)


def leaves_of(state: TrainState) -> list[np.ndarray]:
    return jax.device_get(jax.tree.leaves((state.params, state.ema)))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("eight") / "found.npz"
    return with_eight_devices("tests.training.test_parallel.eight", out)


@pytest.mark.parametrize("name", [*LAYOUTS][1:])
def test_every_layout_trains_the_network_of_one_device(name: str, found: dict) -> None:
    np.testing.assert_allclose(found[f"{name}/losses"], found["one/losses"], rtol=1e-5)
    np.testing.assert_allclose(found[f"{name}/state"], found["one/state"], atol=1e-5)
    assert found[f"{name}/step"] == STEPS
    params, ema = np.split(found["one/state"], 2)
    assert np.abs(params - ema).max() > 1e-5  # it trained


def test_parameters_that_are_cut_draw_the_samples_of_one_device(
    found: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: random_dataset())
    made = parts()
    shapes = jax.eval_shape(made.task.init, jax.random.key(0))
    leaves, structure = jax.tree.flatten(shapes)
    sizes = np.cumsum([leaf.size for leaf in leaves])
    ema = np.split(found["one/state"], 2)[1]
    arrays = [a.reshape(b.shape) for a, b in zip(np.split(ema, sizes[:-1]), leaves, strict=True)]
    samples = draw(made, jax.tree.unflatten(structure, arrays))
    assert np.ptp(samples) > 0.1
    np.testing.assert_allclose(found["samples"], samples, atol=1e-3)


def test_parameters_are_cut(found: dict) -> None:
    whole = found["one/bytes"]
    assert found["pmap/bytes"] == found["data/bytes"] == whole
    # A few vectors stay whole.
    for name in ("fsdp4_model2", "fsdp4_model2_once"):
        assert whole / 8 < found[f"{name}/bytes"] < whole / 7


def test_parameters_that_are_gathered_once_are_sent_less(found: dict) -> None:
    assert found["fsdp4_model2_once/sent"] < 0.8 * found["fsdp4_model2/sent"]


def test_every_device_has_one_copy_of_the_state_and_no_reader_makes_another(tmp_path: Path) -> None:
    found = with_eight_devices("tests.training.test_parallel.held", tmp_path / "held.npz")
    copies = found["found"] / found["of_one"]
    assert np.all((copies >= 8) & (copies < 8.1)), copies


def test_names_and_sizes_decide_how_parameters_are_cut() -> None:
    shape, tall, row = (
        jax.ShapeDtypeStruct(sizes, np.float32) for sizes in ((4, 8, 16), (3, 20, 6), (4, 16))
    )
    two = {"kernel": shape, "bias": row}
    tree = {"blocks": {"qkv": two, "out": two}, "odd": shape, "tall": tall, "one": jnp.zeros(())}

    def cut(fsdp: int, model: int) -> Any:
        mesh = {"fsdp": fsdp, "model": model}
        specs = jax.tree_util.tree_map_with_path(
            lambda path, a: axes_of(path, a, mesh), {"opt": (tree,)}
        )
        return specs["opt"][0]

    both, one = cut(2, 2), cut(4, 1)
    assert both["blocks"]["qkv"] == {"kernel": (None, "fsdp", "model"), "bias": (None, "model")}
    assert both["blocks"]["out"] == {"kernel": (None, "model", "fsdp"), "bias": (None, None)}
    assert one["blocks"]["qkv"] == {"kernel": (None, None, "fsdp"), "bias": (None, None)}
    assert both["odd"] == one["odd"] == (None, None, "fsdp")
    assert both["tall"] == (None, "fsdp", None)
    assert cut(3, 1)["tall"] == (None, None, "fsdp")  # 20 cannot be cut in 3
    assert both["one"] == ()


def test_activations_stay_with_their_samples() -> None:
    """Between blocks, and only where it is said over which devices the samples are."""
    layout = Sharded(fsdp=1, model=1)
    x, t = np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.float32)
    unet = UNet(channels=8, channel_mults=(1,), num_blocks=1, attention_levels=(0,))
    for network in (DiT(hidden_size=16, depth=2, num_heads=2), unet):
        params = jax.eval_shape(network.init, jax.random.key(0), x, t, {})

        def constraints(params: Any, network: Any = network) -> int:
            return str(jax.make_jaxpr(network.apply)(params, x, t, {})).count("sharding_constraint")

        assert constraints(params) == 0
        with rows_over(NamedSharding(layout.mesh, PartitionSpec(ROWS))):
            assert constraints(params) >= 4


def test_layouts_that_do_not_fit(tmp_path: Path) -> None:
    for settings, says in (
        ({"parallel.strategy": "shard"}, "must be 'replicated' or 'sharded'"),
        ({"parallel.strategy": "sharded", "parallel.fsdp": 3}, "must divide the number of devices"),
        ({"parallel.strategy": "sharded", "parallel.model": 0}, "must lie in"),
        ({"parallel.gather": "step"}, "parallel.fsdp above 1"),
    ):
        with pytest.raises(from_config.ConfigError, match=says):
            from_config.build(tiny(**settings))
