"""Statistics of latents and of what comes back, for an autoencoder that is known."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from diffusion_jax.evaluation.reconstruction import PRIOR, SHEET, Reconstruction, latent_statistics
from diffusion_jax.objectives.autoencoder import Coder
from tests.evaluation.models import model_of
from tests.runs import random_dataset

GAIN, OFFSET, SPREAD = np.array([2.0, -0.5]), np.array([0.3, -1.0]), np.array([0.5, 3.0])
OFF = 0.1  # of what comes back


def known() -> Coder:
    """Each pixel's value is two latents with deviations of `SPREAD`; `OFF` is added."""
    return Coder(
        lambda p, x: (x * GAIN + OFFSET, jnp.broadcast_to(2 * np.log(SPREAD), (*x.shape[:-1], 2))),
        lambda p, z: (z[..., :1] - OFFSET[0]) / GAIN[0] + OFF,
    )


def test_latents_have_the_variance_of_their_means_and_their_own() -> None:
    dataset = random_dataset()
    x = dataset.kind.decode(dataset.arrays("train")[0])
    mean, std = latent_statistics(known(), {}, dataset, batch_size=3)
    np.testing.assert_allclose(mean, x.mean() * GAIN + OFFSET, rtol=1e-5)
    np.testing.assert_allclose(std, np.sqrt(x.var() * GAIN**2 + SPREAD**2), rtol=1e-5)


def test_what_comes_back_is_compared_as_it_is_stored(tmp_path: Path) -> None:
    dataset = random_dataset()
    measure = Reconstruction(known(), "no weights", num=8, repeats=20)
    result = measure(model_of(dataset, params={"p": jnp.zeros(1)}, folder=tmp_path))
    items, _ = dataset.splits["heldout"].gather(np.random.default_rng(0).permutation(20)[:8])
    back = np.minimum(np.rint(items + OFF * 127.5), 255)
    each = -10 * np.log10(np.mean((items - back) ** 2, (1, 2, 3)) / 255**2)
    np.testing.assert_allclose(result["psnr"]["value"], each.mean(), rtol=1e-3)
    assert result["stlpips"]["left_out"] == "no weights"
    x = dataset.kind.decode(items)
    nats = ((x * GAIN + OFFSET) ** 2 + SPREAD**2 - 1) / 2 - np.log(SPREAD)
    bits = nats.sum((1, 2, 3)).mean() / np.log(2)
    np.testing.assert_allclose(result["kl_bits"]["value"], bits, rtol=1e-4)
    want = np.sqrt(x.var() * GAIN[1] ** 2 + SPREAD[1] ** 2)
    np.testing.assert_allclose(result["latent_std_1"]["value"], want, rtol=1e-4)
    assert all((tmp_path / name).exists() for name in (SHEET, PRIOR))
