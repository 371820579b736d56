"""Golden metrics of one training step of every config, on noise and with a small network.

They may change only where the mathematics of a step is meant to change.
"""

import json
import sys

import jax
import numpy as np
import pytest

from diffusion_jax.data import train_batches
from diffusion_jax.from_config import build, make_step
from diffusion_jax.training.state import create_state
from tests.runs import CONFIGS, ROOT, config_with_noise

GOLDEN = ROOT / "tests/reference/golden_steps.json"
SMALL = {
    "model.dit.hidden_size": 16,
    "model.dit.depth": 2,
    "model.dit.num_heads": 2,
    "model.unet.channels": 8,
    "model.unet.channel_mults": (1, 2),
    "model.unet.attention_levels": (1,),
    "codec.autoencoder.channels": 8,
    "codec.autoencoder.channel_mults": (1, 2),
    "codec.autoencoder.num_blocks": 1,
    "codec.cache": False,
    "model.autoencoder.channels": 8,
    "model.autoencoder.channel_mults": (1, 2),
    "model.autoencoder.num_blocks": 1,
    "model.critic.channels": 4,
    "model.critic.channel_mults": (1, 2),
    "text.bytes.width": 16,
    "text.bytes.depth": 1,
    "model.unet.num_blocks": 1,
    "model.unet.dropout": 0.0,
    "model.dual_encoder.channels": 8,
    "optimizer.warmup_steps": 0,
    "train.batch_size": 4,
    "train.accumulate": 1,
}


def numbers_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Loss and norm of the gradient of the second step: the first gradient reaches few layers."""
    config = config_with_noise(name, monkeypatch)
    config.update_from_flattened_dict(SMALL)
    config.model.unet.head_dim = min(config.model.unet.head_dim, 8)
    parts = build(config)
    init = jax.jit(lambda key: create_state(parts.task.init(key), *tools))
    tools, reader = (parts.optimizer, parts.averages), parts.task.reader
    state, step = init(jax.random.key(config.seed)), jax.jit(make_step(config, parts))
    embed = (lambda ids: reader([f"text {i}" for i in ids])) if reader else None
    frozen = jax.tree.map(
        lambda a: 0.1 * jax.random.normal(jax.random.key(a.size), a.shape),
        {name: params.shapes for name, params in parts.task.frozen.items()},
    )
    batches = train_batches(parts.dataset, batch_size=4, seed=0, prefetch=0, embed=embed)
    for _ in range(2):
        batch = {**next(batches), "index": np.arange(4)}
        state, metrics = step(state, batch, jax.random.key(1), frozen)
    return {key: float(metrics[key]) for key in ("loss", "grad_norm")}


QUICK = ("digits",)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in CONFIGS]
)
def test_a_step_has_the_numbers_that_it_had(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, golden = numbers_of(name, monkeypatch), json.loads(GOLDEN.read_text())[name]
    for key, value in golden.items():
        assert found[key] == pytest.approx(value, rel=2e-4), (
            f"{key} of the second step of configs/{name}.py is {found[key]:.8g}, and was "
            f"{value:.8g}: the mathematics of a step has changed. If that is meant, say so in "
            "CHANGELOG.md and write the new numbers: python -m tests.test_golden"
        )


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        found = {name: numbers_of(name, patch) for name in CONFIGS}
    GOLDEN.write_text(json.dumps(found, indent=2) + "\n")
    print(GOLDEN, file=sys.stderr)
