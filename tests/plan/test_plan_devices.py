"""`--mode plan` on devices: figures by hand, the compiler's figures, and errors."""

import dataclasses
import importlib.util
import math
from argparse import Namespace

import jax
import jax.numpy as jnp
import pytest

from configs import default
from diffusion_jax.data import Images, empty_dataset
from diffusion_jax.from_config import make_step, planned_dataset
from diffusion_jax.from_config.task import Frozen
from diffusion_jax.models.flops import count_peak_memory, count_traffic
from diffusion_jax.plan import TopologyError, parse_topology, plan_topology
from diffusion_jax.plan.ahead_of_time import compile_step
from diffusion_jax.plan.collectives import exchanged_bytes
from diffusion_jax.plan.devices import about_encoding
from diffusion_jax.plan.hardware import HARDWARE, find_hardware
from diffusion_jax.plan.measured import Steps
from diffusion_jax.plan.program import FROZEN, Program
from diffusion_jax.training.parallel import Sharded
from tests.runs import random_dataset

NETWORK = {
    "model.name": "dit",
    "model.dit.hidden_size": 64,
    "model.dit.depth": 3,
    "model.dit.num_heads": 4,
    "train.batch_size": 32,
    "plan.shape": (8, 8, 4),
}


def program(devices=4, platform="tpu", **changes):
    config = default.get_config()
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(NETWORK | changes)
    return Program(config, planned_dataset(config), devices, platform)


LATENTS = {
    "plan__shape": (16, 16, 3),
    "codec__name": "autoencoder",
    "codec__autoencoder__channels": 8,
    "codec__autoencoder__channel_mults": (1, 1),
    "codec__autoencoder__num_blocks": 1,
}


def test_latents_are_encoded_once_and_cached():
    # Multiply-adds by hand: convolutions of 3 x 3, and on the lower level attention of one head.
    upper = 27 * 8 + 2 * 9 * 8**2
    lower = (7 * 9 + 4) * 8**2 + 2 * 8**2 * 8 + 9 * 8 * 8 + 8 * 8
    flops = 2 * 2 * (16**2 * upper + 8**2 * lower)  # mirrored items are encoded, too
    size = 2 * 8 * 8 * 2 * 4 * 4 / 2**10
    each = (
        f"{flops / 1e9:.4g} GFLOP and {size:.4g} KiB in the user's cache folder for one of the im"
    )
    planned = program(data__flip=True, **LATENTS)
    (line,) = about_encoding(planned)
    assert each in line
    assert line.endswith("images, mirrored included")
    here = dataclasses.replace(planned, dataset=random_dataset((16, 16, 3)))
    here.__dict__["parts"] = planned.parts
    (line,) = about_encoding(here)
    assert line.endswith(f"; {40 * flops / 1e15:.4g} PFLOP and {40 * size:.4g} KiB for all 40")
    here.__dict__["parts"] = Namespace(task=Namespace(cached=None))
    assert about_encoding(here) == []


def test_topologies_by_name():
    found = parse_topology("V5E:16x16")
    assert (found.hardware, found.count) == (HARDWARE["v5e"], 256)
    assert found.link == 200e9
    assert parse_topology("v5p:4x4x8").count == 128
    assert parse_topology("h100:8").link == 450e9
    assert parse_topology("h100:16").link == 50e9  # over the network
    assert find_hardware("NVIDIA H100 80GB HBM3") is HARDWARE["h100"]
    assert find_hardware("TPU v5 lite") is HARDWARE["v5e"]
    assert find_hardware("TPU v5") is HARDWARE["v5p"]
    assert find_hardware("cpu") is None


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("v5:16x16", "did you mean 'v5"),
        ("h10:8", "did you mean 'h100'"),
        ("v5e:16", "'16' is not a size of v5e; use e.g. 1x1, 4x4, 16x16"),
        ("v5p:4x4", "use e.g. 2x2x1"),
        ("v5e:32x32", "at most 256 chips"),
        ("h100", "'' is not a size"),
        ("h100:0", "'0' is not a size"),
        ("h100:12", "must be a multiple of 8"),
    ],
)
def test_topologies_that_are_none_are_refused_in_one_line(name, says):
    with pytest.raises(TopologyError, match=r"^--topology=") as refused:
        parse_topology(name)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_traffic_and_peak_memory_of_known_programs():
    a, b = jnp.ones((3, 4)), jnp.ones((4, 5), jnp.bfloat16)
    assert count_traffic(jnp.matmul, a, b.astype(jnp.float32)) == 4 * (12 + 20 + 15)
    square = jnp.ones((3, 3))
    power = lambda c: jax.lax.scan(lambda c, _: (c @ square, None), c, length=7)[0]  # noqa: E731
    assert count_traffic(power, square) == 7 * 4 * 27

    # Two results of 100 floats are held at once, then the sum of them beside the last.
    x = jnp.ones(100)
    assert count_peak_memory(lambda x: jnp.sin(x) + jnp.cos(x), x) == 4 * 300
    assert count_peak_memory(lambda x: jnp.sin(jnp.cos(jnp.exp(x))), x) == 4 * 200
    # The carry, five states, and two values at once within an iteration.
    loop = lambda x: jax.lax.scan(lambda c, _: (jnp.sin(jnp.cos(c)), c), x, length=5)  # noqa: E731
    assert count_peak_memory(loop, x) == 4 * 100 * (1 + 5 + 2)
    # Each of 10 iterations keeps its input for the backward pass; recomputed, the scan's carry.
    stacked = lambda f: jax.grad(  # noqa: E731
        lambda x: jax.lax.scan(lambda c, _: (f(c), None), x, length=10)[0].sum()
    )
    deep = lambda x: jnp.sin(jnp.sin(jnp.sin(x)))  # noqa: E731
    assert count_peak_memory(stacked(deep), x) > 4 * 100 * 30
    assert 4 * 100 * 10 < count_peak_memory(stacked(jax.checkpoint(deep)), x) < 4 * 100 * 20


@pytest.mark.slow
def test_memory_by_part_is_that_of_the_arrays():
    replicated = program()
    size = 4 * replicated.parameters
    memory = replicated.memory
    assert memory["parameters"] == memory["moving averages"] == memory["gradients"] == size
    assert memory["optimizer"] == pytest.approx(2 * size, rel=1e-3)  # AdamW's two moments
    assert memory["batch"] == 8 * (8 * 8 * 4 + 2 * 4)  # 8 samples, each with index and label
    assert replicated.exchanged == 2 * size * 3 // 4  # a ring of four

    sharded = program(parallel__strategy="sharded", parallel__fsdp=4)
    assert 0.25 * size <= sharded.memory["parameters"] < 0.3 * size
    assert sharded.memory["batch"] == memory["batch"]
    assert program(train__accumulate=2).memory["activations"] < 0.6 * memory["activations"]
    full = program(**{"model.dit.remat": "full"})
    assert full.memory["activations"] < 0.6 * memory["activations"]
    assert full.model_flops == replicated.step_flops
    assert 1.2 < full.step_flops / full.model_flops < 1.34
    assert 2.9 < replicated.step_flops / (32 * replicated.forward_flops) < 3.01


def with_frozen(planned):
    """A program whose loss is the distance to a teacher, of as many parameters as the network."""
    parts = planned.parts
    teacher = Frozen(planned.state.params, load=None)  # which a plan does not

    def loss(params, batch, context):
        t = jnp.zeros(len(batch["x"]))
        student, target = (
            parts.task.apply(p, batch["x"], t, batch["cond"])
            for p in (params, context.frozen["teacher"])
        )
        return jnp.mean((student - target) ** 2, axis=(1, 2, 3)), {}

    found = dataclasses.replace(planned)
    task = dataclasses.replace(parts.task, loss=loss, frozen={"teacher": teacher})
    found.__dict__["parts"] = dataclasses.replace(parts, task=task)
    return found


@pytest.mark.slow
def test_frozen_parameters_are_a_part_of_their_own():
    plain, sharded = program(), program(parallel__strategy="sharded", parallel__fsdp=4)
    assert FROZEN not in plain.memory
    for planned in (plain, sharded):
        found = with_frozen(planned)
        assert found.memory[FROZEN] == planned.memory["parameters"]
        for name in ("parameters", "gradients", "optimizer", "moving averages"):
            assert found.memory[name] == planned.memory[name]
    gathered = with_frozen(sharded).exchanged - sharded.exchanged
    assert gathered == pytest.approx(4 * plain.parameters * 3 / 4, rel=1e-6)
    assert with_frozen(plain).exchanged == plain.exchanged


def test_gradients_in_half_precision_are_half_of_what_is_sent():
    halved = program(parallel__gradients="bfloat16").exchanged
    assert 2 * halved == pytest.approx(program().exchanged, abs=2)


def test_parameters_gathered_once_are_sent_once_per_step_and_gradients_per_microbatch():
    cut = {"parallel__strategy": "sharded", "parallel__fsdp": 4, "train__accumulate": 2}
    used, once = program(**cut), program(**cut, parallel__gather="step")
    each = 4 * used.parameters * 3 / 4
    assert used.exchanged == pytest.approx(6 * each, rel=1e-6)
    assert once.exchanged == pytest.approx(3 * each, rel=1e-6)


@pytest.mark.slow
def test_a_step_with_frozen_parameters_is_planned_and_measured():
    small = {"model.dit.hidden_size": 16, "model.dit.depth": 1, "train.batch_size": 4}
    planned = with_frozen(program(1, "cpu", **small))
    parallel = Sharded(1, 1)
    step = parallel.compile(make_step(planned.config, planned.parts))
    lowered = step.lower(*planned.arguments(parallel))
    leaves = jax.tree.leaves((planned.state, planned.batch(4), 0, planned.frozen))
    assert len(jax.tree.leaves(lowered.in_avals)) == len(leaves)
    steps = Steps(planned)
    steps.compile()
    assert steps.take() > 0
    assert steps.take() > 0


@pytest.mark.parametrize(
    ("topology", "changes", "says"),
    [
        ("h100:4", {}, ("it fits", "bound by", "device-hours", "next: --config.model.dtype=")),
        (
            "h100:1",
            {"model.dit.hidden_size": 8192, "train.batch_size": 4},
            ("it does not fit", "parallel.fsdp makes it"),
        ),
        (
            "a100-80:8",
            {"model.dit.hidden_size": 8192, "model.dit.depth": 6},
            ("it does not fit", "--config.parallel.fsdp=", "GiB and fit"),
        ),
    ],
)
@pytest.mark.slow
def test_the_plan_in_words(topology, changes, says):
    planned = program(**changes)
    lines = plan_topology(planned.config, planned.dataset, parse_topology(topology))
    text = "\n".join(lines)
    for words in says:
        assert words in text, text
    parts = {
        line.split(" ", 2)[2]: float(line.split()[0])
        * {"KiB": 1, "MiB": 2**10}.get(line.split()[1], 2**20)
        for line in (line.strip() for line in lines)
        if line.split(" ")[1:2] in (["KiB"], ["MiB"], ["GiB"])
    }
    whole = next(size for name, size in parts.items() if name.startswith("of the"))
    assert sum(parts.values()) - whole == pytest.approx(whole, rel=1e-2)


HLO = """
HloModule step

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]) parameter(0)
  %r = f32[8,16]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups=mesh['a'=2,'b'=4] {'b'}
  ROOT %t = (s32[], f32[8,16]) tuple(%i, %r)
}

%condition (p: (s32[], f32[8,16])) -> pred[] {
  %n = s32[]{:T(128)} constant(28)
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

%part (a: bf16[4]) -> bf16[16] {
  ROOT %g = bf16[16]{0} all-gather(%a), channel_id=2, replica_groups=[2,4]<=[8], dimensions={0}
}

ENTRY %main (p: f32[8,16]) -> f32[8,16] {
  %w = (s32[], f32[8,16]) while(%t), condition=%condition, body=%body
  %one = bf16[16]{0} fusion(%a), kind=kCustom, calls=%part
  %two = bf16[16]{0} fusion(%b), kind=kCustom, calls=%part
  %s = (bf16[4]{0}, bf16[4]{0}, u32[]) collective-permute-start(%a), channel_id=3
  ROOT %d = f32[2,16]{1,0} reduce-scatter(%w), channel_id=4, replica_groups={{0,1,2,3},{4,5,6,7}}
}
"""


def test_bytes_of_collectives():
    """In rings of four: a sum twice 3/4, 28 times; a gather 3/4, once; a scatter three times."""
    expected = 28 * 2 * 512 * 3 // 4 + 32 * 3 // 4 + 8 + 3 * 128
    assert exchanged_bytes(HLO) == {1: expected}


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs libtpu")
def test_a_step_compiled_for_a_tpu_slice():
    """Pure data: what is sent is the ring of the formula; what is held is near the estimate."""
    planned = program(16)
    found = compile_step(planned, parse_topology("v5e:4x4"))
    assert not found.refused
    assert sum(found.exchanged.values()) == pytest.approx(planned.exchanged, rel=1e-2)
    state = 4 * planned.parameters * 4
    assert state < found.arguments < 1.5 * state


def test_the_table_is_in_units():
    for hardware in HARDWARE.values():
        assert 1e14 < hardware.flops < 1e16
        assert 1e10 < hardware.memory < 3e11
        assert 5e11 < hardware.bandwidth < 1e13
        assert 1e11 < hardware.interconnect < 1e12
        assert 0 < math.log(hardware.flops / hardware.bandwidth) < 10


@pytest.mark.slow
def test_a_network_that_compares_is_planned_too():
    """It has no noise levels, and no blocks that could be computed again."""
    config = default.get_config()
    changes = {
        "objective.name": "contrastive",
        "model.name": "dual_encoder",
        "text.name": "bytes",
        "train.batch_size": 32,
        "evaluate.metrics": "names",
    }
    config.update_from_flattened_dict(changes)
    dataset = empty_dataset("none", Images((8, 8, 1)), (), captioned=True)
    lines = "\n".join(plan_topology(config, dataset, parse_topology("h100:1")))
    assert "it fits" in lines
    assert "next: --config.model.dtype=bfloat16" in lines
    assert "remat" not in lines
