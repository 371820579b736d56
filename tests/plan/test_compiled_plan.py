"""Plans by compilation for absent devices: readings of time, stages, sharding, and GPUs."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import SingleDeviceSharding

from diffusion_jax.models.attention import attention
from diffusion_jax.models.platform import capability, computing_on
from diffusion_jax.plan import gpu_targets, parse_topology
from diffusion_jax.plan.absent import absent_devices, compiling_for, has_compiler
from diffusion_jax.plan.ahead_of_time import Compiled
from diffusion_jax.plan.devices import _about_undivided
from diffusion_jax.plan.memory import about_traffic
from diffusion_jax.plan.program import PARTS, REST
from diffusion_jax.plan.proposals import next_change
from diffusion_jax.plan.roofline import Times, roofline
from diffusion_jax.plan.stages import about_stages, stages
from diffusion_jax.plan.traffic import Traffic
from tests.plan.test_plan_devices import program

H100 = parse_topology("h100:1")


def test_time_is_read_as_overlapped_and_as_serial():
    times = Times(computation=3, memory=4, interconnect=2)
    assert (times.overlapped, times.serial, times.bound) == (4, 9, "memory")


@pytest.mark.parametrize(
    ("name", "axes", "rate"),
    [
        ("v5e:16x16", 1, 100e9),  # two of four links
        ("v5e:16x16", 2, 200e9),
        ("v5p:4x4x4", 1, 200e9),
        ("v5p:4x4x4", 3, 600e9),
        ("h100:8", 1, 450e9),
        ("h100:16", 1, 50e9),
    ],
)
def test_a_collective_has_the_links_of_its_axes(name, axes, rate):
    assert parse_topology(name).along(axes) == rate


def test_the_bytes_of_the_compiled_program_take_the_place_of_estimates():
    topology = parse_topology("v5e:2x2")
    planned = program(parallel__strategy="sharded", parallel__fsdp=2)
    planned.__dict__["gradient"] = (197 * 10**9, 1, 1)  # FLOPs of 8 rows
    compiled = Compiled(
        traffic=Traffic({"rest": 819 * 10**6}, 1, 0), exchanged={1: 10**8, 2: 10**8}
    )
    times = roofline(planned, topology, compiled)
    assert times.computation == pytest.approx(1e-3)
    assert times.memory == pytest.approx(1e-3)
    assert times.interconnect == pytest.approx(1e-3 + 0.5e-3)


def test_the_table_of_bytes_is_sorted_and_in_units():
    traffic = Traffic({"rest": 250_000_000, "casts": 750_000_000, "copies": 1000}, 7, 3)
    head, *rows = about_traffic(traffic, "gpu")
    assert "by 7 kernels of which 3 are fused attention" in head
    assert [" ".join(row.split()) for row in rows] == [
        "0.75 GB 75% casts",
        "0.25 GB 25% rest",
        "1.00 GB together",
    ]
    assert "kernels" not in about_traffic(Traffic({"rest": 1}, 7, 0), "tpu")[0]


@pytest.mark.slow
def test_axes_that_do_not_divide_are_told():
    planned = program(3, parallel__strategy="sharded", parallel__fsdp=3, train__batch_size=33)
    whole = 4 * planned.parameters
    told = planned.undivided
    assert {axis for axis, _ in told} == {"fsdp"}
    assert 0.9 * whole < told["fsdp", 64] < whole  # blocks; all of whose kernels have such an axis
    assert planned.bytes_of({"params": planned.state.params}) > 0.9 * whole
    first = next(line for line in _about_undivided(planned) if "divide 64" in line)
    assert "are not cut by parallel.fsdp=3" in first
    even = program(4, parallel__strategy="sharded", parallel__fsdp=4)
    assert even.undivided == {}


@pytest.mark.slow
def test_a_state_that_binds_is_cut():
    changes = {"model.dit.hidden_size": 512, "train.batch_size": 8, "model.dtype": "bfloat16"}
    planned, topology = program(8, **changes), parse_topology("v5e:2x4")
    assert roofline(planned, topology).bound == "memory"
    assert planned.state_traffic > planned.traffic / 2
    held = sum(planned.memory.values())
    words = next_change(planned, topology, held, "", "memory", topology.hardware.memory)
    assert words.startswith("--config.parallel.strategy=sharded --config.parallel.fsdp=")
    cut = program(8, **changes, parallel__strategy="sharded", parallel__fsdp=8)
    assert "parallel.fsdp" not in next_change(
        *(cut, topology, sum(cut.memory.values()), "", "memory", topology.hardware.memory)
    )
    assert next_change(
        *(cut, topology, sum(cut.memory.values()), "", "interconnect", topology.hardware.memory)
    ).startswith("--config.parallel.gather=step")
    # In the compute dtype: gathered twice and scattered once.
    assert cut.exchanged == 3 * 2 * cut.parameters * 7 // 8


@pytest.mark.slow
def test_every_stage_of_a_training_has_its_memory():
    planned = program(1, "gpu")
    memory = planned.memory
    step = sum(memory.values())
    found = stages(planned, step)
    state = sum(memory[name] for name in (*PARTS.values(), REST))
    assert found["training step"] == step
    assert found["checkpoint"] == state
    average = memory[PARTS["params"]]
    x = 4 * 32 * 8 * 8 * 4
    assert found["held-out loss"] > state + average + 2 * x
    assert found["grid of samples"] > state + average
    # On a CPU they are read from a copy of the state.
    assert stages(program(1, "cpu"), step)["checkpoint"] == 2 * state
    # A batch that is accumulated is held out as a whole.
    split = program(1, "gpu", train__accumulate=16)
    line, warning = about_stages(split, 0, 1)
    assert line.startswith("largest of the stages of a training: the ")
    assert "does not fit" in warning
    assert stages(split, 0)["held-out loss"] == found["held-out loss"]
    off = program(1, "gpu", train__heldout_every=0, train__sample_every=0)
    assert list(stages(off, 1)) == ["training step", "checkpoint"]


def test_an_absent_gpu_is_described_by_its_published_figures():
    text = gpu_targets.description(H100)
    assert "core_count: 132" in text
    assert "memory_bandwidth: 3350000000000" in text
    assert "cuda_compute_capability { major: 9 minor: 0" in text
    assert gpu_targets.capability(parse_topology("a100-80:8")) == 8.0
    assert gpu_targets.is_known(parse_topology("h100:8"))
    assert not gpu_targets.is_known(parse_topology("h100:16"))  # two nodes


def test_a_target_has_its_own_capability():
    with computing_on("gpu"):
        assert capability() == 0
    with computing_on("gpu", 9.0):
        assert capability() == 9
        with computing_on("tpu"):
            assert capability() == 0
    assert capability() == 0  # of this process


@pytest.mark.skipif(not has_compiler(H100), reason="needs jax-cuda13-plugin and jax-cuda13-pjrt")
def test_attention_for_an_absent_gpu_is_cudnns():
    target = SingleDeviceSharding(absent_devices(H100)[0])
    q = jax.ShapeDtypeStruct((2, 64, 32), jnp.bfloat16, sharding=target)
    with compiling_for(H100):
        compiled = jax.jit(lambda q: attention(q, q, q, 2)).lower(q).compile()
    assert "fmhaSoftmax" in compiled.as_text()
    assert compiled.memory_analysis().argument_size_in_bytes == 2 * 64 * 32 * 2
