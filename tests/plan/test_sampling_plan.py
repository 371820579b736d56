"""The cost of sampling, where nothing is trained."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from configs import sd15
from diffusion_jax.from_config import build
from diffusion_jax.from_config.data import planned_dataset
from diffusion_jax.models.clip import TextTower
from diffusion_jax.plan import parse_topology, plan_sampling, sampling
from diffusion_jax.plan.ahead_of_time import read
from diffusion_jax.plan.sampling import about_texts, memory, products
from diffusion_jax.text import Reader, TextEncoder
from tests.stable_diffusion import SMALL


def small(**changes: Any) -> Any:
    config = sd15.get_config()
    config.update_from_flattened_dict({**SMALL, "sample.prompts": ()})
    config.text.name, config.text.unconditional = "none", "zeros"
    config.update_from_flattened_dict(changes)
    return config


def size(tree: Any) -> int:
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_a_text_costs_the_layers_of_its_encoder() -> None:
    net, width, length = TextTower(50, width=16, depth=3, heads=2), 16, 77
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, length), jnp.int32))
    tokeniser: Any = None
    sizes = length, width, width
    encoder = TextEncoder("clip", "", tokeniser, *sizes, True, net.apply, variables, 4)
    (line,) = about_texts(Reader(encoder, length))
    # Per token four projections and an MLP of four times the width, and two products of attention;
    # the last token is taken by a product with a row of zeros and a one.
    flops = 2 * 3 * length * (12 * width**2 + 2 * length * width) + 2 * length * width
    assert line.endswith(f": {flops / 1e9:.4g} GFLOP")
    assert about_texts(Reader(None, length)) == about_texts(None) == []


@pytest.mark.slow
def test_a_picture_costs_the_guided_steps_and_the_decoder(monkeypatch: Any) -> None:
    monkeypatch.setattr(sampling, "about_texts", lambda reader: ["of texts"])
    monkeypatch.setattr(sampling, "has_compiler", lambda topology: False)
    config = small(**{"sample.steps": 48})
    dataset = planned_dataset(config)
    parts = build(config, dataset)
    network, decoder = products(config, parts)
    plain, same = products(small(**{"sample.guidance_scale": 1.0}), parts)
    assert (network, decoder) == (2 * plain, same)
    assert min(plain, same) > 1e6
    first, *rest = plan_sampling(config, dataset, parse_topology("h100:1"))
    assert f": 49 evaluations of the network in 48 steps of pndm, {network / 1e9:.4g} G" in first
    assert f": {(49 * network + decoder) / 1e12:.4g} TFLOP" in first
    assert rest[0] == "of texts"
    assert "at the published peak, 495 TFLOP/s" in rest[-1]
    held = memory(config, parts, "gpu")
    params = jax.eval_shape(parts.task.init, jax.eval_shape(jax.random.key, 0))
    assert held["parameters"] == size(params)
    assert held["parameters of the codec and of other networks"] == size(
        {name: own.shapes for name, own in parts.task.frozen.items()}
    )
    # At least the picture itself, of 4 samples.
    assert held["activations"] > 4 * 16 * 24 * 3 * 4

    def compile_here(fn: Any, args: Any, topology: Any) -> Any:
        return read(jax.jit(fn).lower(*args).compile(), jax.devices())

    monkeypatch.setattr(sampling, "has_compiler", lambda topology: True)
    monkeypatch.setattr(sampling, "compile_call", compile_here)
    compiled = plan_sampling(config, dataset, parse_topology("h100:1"))
    assert compiled[0] == first
    assert "memory on each device, as compiled, 4 at a time:" in compiled
    assert any(line.startswith("memory read and written by a batch of 4 on") for line in compiled)
    assert compiled[-1].startswith("a batch of 4 takes ")
