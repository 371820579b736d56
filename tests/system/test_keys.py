"""All keys have one generator, whatever JAX's default; others would draw a batch as one."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import run
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.from_config import build
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.samplers.sde import ancestral
from diffusion_jax.system.keys import make_key
from tests.runs import ROOT, assert_same, tiny

OTHERS = ("rbg", "unsafe_rbg")


@pytest.mark.parametrize("other", OTHERS)
def test_sample_i_is_the_same_whatever_its_batch(other: str) -> None:
    """Also as it is where JAX is told nothing: alone, and of two in one batch."""
    process = Gaussian(Cosine(), PREDICTIONS["x0"])
    times = jnp.linspace(1, 0, 4)

    def drawn(*index: int) -> np.ndarray:
        generator = Generator(
            lambda params, x, t, cond: params * x,
            *(process, Identity((2,)), ancestral(process.schedule), times),
        )
        request = Request(np.array(index, np.int32), {})
        return generator(jnp.float32(0.5), 3, request, batch_size=4)[0]

    expected = drawn(0, 1)
    with jax.default_prng_impl(other):
        np.testing.assert_array_equal(drawn(0, 1), expected)
        np.testing.assert_allclose(drawn(1), expected[1:], rtol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "noisy_sgd"])
@pytest.mark.slow
def test_a_training_ends_in_the_same_bits(optimizer: str, tmp_path: Path, noise: None) -> None:
    """Also with an optimiser that draws noise by a key of its own."""
    config = tiny(optimizer__name=optimizer, optimizer__learning_rate=1e-3)
    assert run.run(config, tmp_path / "plain", "train") == 0
    jax.config.update("jax_default_prng_impl", "rbg")
    try:
        assert run.run(config, tmp_path / "rbg", "train") == 0
        plain, rbg = (
            run.Run(config, tmp_path / name, build(config)).restored_state().params
            for name in ("plain", "rbg")
        )
        assert_same(jax.tree.leaves(plain), jax.tree.leaves(rbg))
    finally:
        jax.config.update("jax_default_prng_impl", "threefry2x32")


@pytest.mark.parametrize("seed", [-1, 2**32, 99999999999999999999, np.int64(2**40)])
def test_a_seed_that_would_be_cut_is_refused(seed: int) -> None:
    """2^32 would give the pictures of seed 0."""
    with pytest.raises(ValueError, match=re.escape(f"seed={seed} must lie in [0, 4294967296)")):
        make_key(seed)


def test_all_keys_are_made_in_one_place() -> None:
    making = re.compile(r"random\.(key|PRNGKey)\(")
    files = [*(ROOT / "diffusion_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]
    found = [path.relative_to(ROOT) for path in files if making.search(path.read_text())]
    assert found == [Path("diffusion_jax/system/keys.py")]
