"""The cost of sampling, where nothing is trained."""

from typing import Any

import jax
import pytest

from configs import sd15
from diffusion_jax.from_config import build
from diffusion_jax.from_config.data import planned_dataset
from diffusion_jax.plan import parse_topology, plan_sampling
from diffusion_jax.plan.sampling import memory, products
from tests.stable_diffusion import SMALL


def small(**changes: Any) -> Any:
    config = sd15.get_config()
    config.update_from_flattened_dict({**SMALL, "sample.prompts": ()})
    config.text.name, config.text.unconditional = "none", "zeros"
    config.update_from_flattened_dict(changes)
    return config


def size(tree: Any) -> int:
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
def test_a_picture_costs_the_guided_steps_and_the_decoder() -> None:
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
    assert "at the published peak, 495 TFLOP/s" in rest[-1]
    held = memory(config, parts, "gpu")
    params = jax.eval_shape(parts.task.init, jax.eval_shape(jax.random.key, 0))
    assert held["parameters"] == size(params)
    assert held["parameters of the codec and of other networks"] == size(
        {name: own.shapes for name, own in parts.task.frozen.items()}
    )
    # At least the picture itself, of 4 samples.
    assert held["activations"] > 4 * 16 * 24 * 3 * 4
