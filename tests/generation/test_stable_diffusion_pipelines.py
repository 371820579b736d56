"""Whole pipelines of Stable Diffusion, of texts to pictures, beside diffusers' in float64.

Theirs are in `reference/pipelines.npz`, made by `reference/make_pipelines.py`: small networks of
the published layout, with weights that are read through the table of published names.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.latents import CODEC, Latents
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian, table_index
from diffusion_jax.diffusion.schedules import ScaledLinear
from diffusion_jax.diffusion.time_grids import leading
from diffusion_jax.from_config.sampling import SAMPLERS
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.generation.starts import STANDARD
from diffusion_jax.generation.variations import inpainted, renoised
from diffusion_jax.models.applied import Applied
from diffusion_jax.models.published import autoencoder, unet
from diffusion_jax.models.weights import like_torch
from tests.models.test_stable_diffusion import AUTOENCODERS, GIVEN, TEXT, weights
from tests.models.test_stable_diffusion import UNET as LARGER
from tests.reference.small_stable_diffusion import hidden, noise

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "pipelines.npz")
SHAPE = 8, 12, 4  # of latents
UNET = LARGER.clone(channel_mults=(1, 2), num_blocks=1, attention_levels=(0,))
CODER = Latents(AUTOENCODERS["least_autoencoder"], SHAPE, 0.18215)
DPM_GRID = {"end": 0.0, "skip": 1}


@functools.cache
def parts():
    """Parameters of the U-Net, those that are not trained, and features of texts and of none."""
    x = np.zeros((1, *SHAPE)), np.zeros(1), {"text": np.zeros((1, 12, 48))}
    params = weights(UNET, unet.diffusers, *x)["params"]
    coder = weights(CODER.network, autoencoder.diffusers, GIVEN["picture"])["params"]
    tokens = GIVEN["tokens"]
    nothing = np.full_like(tokens, 99)
    nothing[:, 0] = 98
    read = weights(TEXT, lambda template: like_torch, tokens)
    text, negative = (TEXT.apply(read, each)[0] for each in (tokens, nothing))
    return params, {CODEC: coder}, {"text": text}, {"text": negative}


def generator(sampler, **grid):
    process = Gaussian(ScaledLinear(), PREDICTIONS["eps"], time_input=table_index)
    made = SAMPLERS[sampler](process.schedule)
    times = leading(48, offset=1, **{"end": 0.001, **grid})
    inputs = np.zeros((1, *SHAPE)), np.zeros(1), {}
    return Generator(Applied(UNET, inputs), process, CODER, made, times, start=STANDARD)


@pytest.fixture
def same_noise(monkeypatch):
    """All noise is that of the reference."""
    for module in ("diffusion.process", "generation.starts", "generation.variations"):
        monkeypatch.setattr(
            f"diffusion_jax.{module}.sample_noise", lambda _, shape: noise((2, *shape), 0)
        )
    monkeypatch.setattr(
        "diffusion_jax.codecs.latents.sample_noise", lambda keys, shape: noise((1, *shape), 1)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "sampler", "grid"),
    [
        ("text_pndm", "pndm", {}),
        ("text_ddim", "ddim", {}),
        ("text_dpm", "dpmpp_multistep", DPM_GRID),
        ("image_ddim", "ddim", {}),
        ("inpaint_pndm", "pndm", {}),
        ("inpaint_ddim", "ddim", {}),
    ],
)
def test_pipelines_end_as_those_of_diffusers(x64, same_noise, run, sampler, grid):
    params, frozen, text, negative = parts()
    made = generator(sampler, **grid)
    request = Request(jnp.arange(2), text, 7.5, {"negative": negative}, frozen)
    key = jax.random.key(0)

    def program(params, request):
        x_0 = CODER.encode(request.frozen, GIVEN["picture"][:1], None)[0]
        if run.startswith("text"):
            keys, steps = made.keys(key, request.index)
            x_T = made.start.draw(made.process, keys, SHAPE, made.times[0])
            return made.go_on(params, x_T, steps, request)[0]
        if run == "image_ddim":
            return renoised(made, params, key, request, x_0, 0.58)
        # A latent is known where the first of its pixels is, as in diffusers.
        known = 1 - hidden()[::2, ::2, None]
        return inpainted(made, params, key, request, x_0, known, 1.0 if "pndm" in run else 0.6)

    found = jax.jit(program)(params, request)
    assert found.dtype == jnp.float64
    expected = REFERENCE[run]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    if run == "text_pndm":
        picture = CODER.decode(frozen, found)
        assert np.abs(picture - REFERENCE["picture"]).max() <= 1e-6
