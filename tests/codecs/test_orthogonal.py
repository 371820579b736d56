"""Diffusion in the latents of an orthogonal transform is diffusion of pixels, rotated.

Noise of variance 1 stays so under a rotation Q, and E[Q x | Q x_t] = Q E[x | x_t]. So with the same
noise, rotated, samples and losses are those in pixels.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion import corruption
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.time_sampling import uniform
from diffusion_jax.from_config import SAMPLERS
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.models.layers import patchify, unpatchify
from diffusion_jax.objectives.gaussian import Error, GaussianLoss
from diffusion_jax.objectives.parts import Times
from diffusion_jax.types import Array, Params
from tests.oracles import SCHEDULES, GaussianMixture, as_it_is, karras_times, mixture
from tests.runs import context_of

PIXELS, LATENTS, NUM = (4, 4, 1), (2, 2, 4), 16
SCHEDULE = SCHEDULES["flow"]
SETTINGS = {"ddim_0.5": ("ddim", {"eta": 0.5})}


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Each block of 2 x 2 pixels is transformed by an orthonormal matrix, times `scale`."""

    scale: float = 1.0
    shape: tuple[int, ...] = LATENTS
    limit: None = None
    levels: int = 0
    second_moment: None = None

    @property
    def matrix(self) -> np.ndarray:
        return self.scale * np.linalg.qr(np.random.default_rng(2).normal(size=(4, 4)))[0]

    def encode(self, frozen: Mapping[str, Params], x: Array, keys: Array) -> Array:
        return patchify(x, 2) @ self.matrix

    def decode(self, frozen: Mapping[str, Params], x_0: Array) -> Array:
        return unpatchify(x_0 @ np.linalg.inv(self.matrix), 2)


ORTHOGONAL = Blocks()


@pytest.fixture
def same_noise(x64, monkeypatch):
    """That of latents is that of pixels, rotated."""
    drawn = corruption.sample_noise

    def sample_noise(keys, shape):
        pixels = drawn(keys, PIXELS)
        return ORTHOGONAL.encode({}, pixels, keys) if shape == LATENTS else pixels

    for module in ("diffusion.process", "samplers.ddim", "samplers.sde", "objectives.gaussian"):
        monkeypatch.setattr(f"diffusion_jax.{module}.sample_noise", sample_noise)


def samples(codec, law, name):
    """Of each component of a mixture, guided away from no component."""
    exact = law.denoiser(SCHEDULE)

    def apply(params, x_t, t, cond):
        return exact(x_t.reshape(len(x_t), -1), t, cond).x_0.reshape(x_t.shape)

    process = Gaussian(SCHEDULE, PREDICTIONS["x0"], time_input=as_it_is)
    sampler, settings = SETTINGS.get(name, (name, {}))
    made = SAMPLERS[sampler](SCHEDULE, **settings)
    generator = Generator(apply, process, codec, made, karras_times(8))
    request = Request(jnp.arange(NUM), {"label": jnp.arange(NUM) % 3}, 2.0)
    return jax.jit(lambda key: generator.draw({}, key, request)[0])(jax.random.key(0))


def in_latents(codec, law):
    """The law of the latents of images of a law."""
    matrix = codec.encode({}, np.eye(16).reshape(16, *PIXELS), None).reshape(16, 16)
    covs = np.einsum("ia,kij,jb->kab", matrix, law.covs, matrix)
    return GaussianMixture(law.weights, law.means @ matrix, covs)


@pytest.mark.parametrize(
    "name",
    [
        "ddim_0.5",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("heun", "unipc", "euler_maruyama")),
    ],
)
def test_latents_of_an_orthogonal_codec_give_the_samples_of_pixels(same_noise, name):
    law = mixture(16)
    expected = samples(Identity(PIXELS), law, name)
    found = samples(ORTHOGONAL, in_latents(ORTHOGONAL, law), name)
    assert found.shape == (NUM, *PIXELS)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.std(expected) > 0.2


@pytest.mark.slow
def test_of_another_scale_the_same_noise_gives_other_samples(same_noise):
    law, twice = mixture(16), Blocks(2.0)
    found = samples(twice, in_latents(twice, law), "heun")
    assert np.abs(found - samples(Identity(PIXELS), law, "heun")).max() > 1e-2


def test_losses_in_latents_of_an_orthogonal_codec_are_those_of_pixels(same_noise):
    def network(params, x_t, t, cond, dropout_key):
        return jnp.tanh(x_t) * params

    def rotated(params, x_t, t, cond, dropout_key):
        y = network(params, ORTHOGONAL.decode({}, x_t), t, cond, dropout_key)
        return ORTHOGONAL.encode({}, y, None)

    process, error = Gaussian(SCHEDULE, PREDICTIONS["v"]), Error(PREDICTIONS["eps"])
    x = np.random.default_rng(0).normal(size=(NUM, *PIXELS))
    batch = {"x": x, "cond": {}, "index": jnp.arange(NUM)}
    times, context = Times(uniform(0.1, 0.9), NUM), context_of(jax.random.key(1))
    found, expected = (
        GaussianLoss(apply, process, codec, times, error)(0.7, batch, context)[0]
        for apply, codec in ((rotated, ORTHOGONAL), (network, Identity(PIXELS)))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9)
