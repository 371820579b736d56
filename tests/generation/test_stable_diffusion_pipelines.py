"""Whole pipelines of Stable Diffusion, of texts to pictures, beside diffusers' in float64.

Theirs are in `reference/pipelines.npz`, made by `reference/make_pipelines.py`: small networks of
the published layout, with weights that are read through the table of published names.
"""

import functools
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

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
from diffusion_jax.models.published.lora import lora_init, merged, read_lora
from diffusion_jax.models.weights import like_torch, write_tensors
from diffusion_jax.restoration.image_conditions import inpainting, of_latents
from tests.models.test_stable_diffusion import AUTOENCODERS, GIVEN, TEXT, weights
from tests.models.test_stable_diffusion import UNET as LARGER
from tests.reference.small_stable_diffusion import EVERY, FEW, factor, hidden, noise

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "pipelines.npz")
SHAPE = 8, 12, 4  # of latents
UNET = LARGER.clone(channel_mults=(1, 2), num_blocks=1, attention_levels=(0,))
PAINTER = UNET.clone(inpainting_channels=5)
WIDE_UNET = LARGER.clone(attention_levels=(1,))
NETWORKS = {(32, 32): LARGER, (64, 96): WIDE_UNET, (72, 96): WIDE_UNET}  # by sides of latents
LORA = re.compile(r".*/(self|text)_(q|k|v|out)")
CODER = Latents(AUTOENCODERS["least_autoencoder"], SHAPE, 0.18215)
DPM_GRID = {"end": 0.0, "skip": 1}


@functools.cache
def variables(network):
    """Those of a U-Net."""
    cond = {"text": np.zeros((1, 12, 48)), "inpainting": np.zeros((1, 8, 8, 5))}
    return weights(network, unet.diffusers, np.zeros((1, 8, 8, 4)), np.zeros(1), cond)


@functools.cache
def parts():
    """Parameters that are not trained, and features of texts and of none."""
    coder = weights(CODER.network, autoencoder.diffusers, GIVEN["picture"])["params"]
    tokens = GIVEN["tokens"]
    nothing = np.full_like(tokens, 99)
    nothing[:, 0] = 98
    read = weights(TEXT, lambda template: like_torch, tokens)
    text, negative = (TEXT.apply(read, each)[0] for each in (tokens, nothing))
    return {CODEC: coder}, {"text": text}, {"text": negative}


def generator(sampler, network=UNET, steps=48, **grid):
    process = Gaussian(ScaledLinear(), PREDICTIONS["eps"], time_input=table_index)
    made = SAMPLERS[sampler](process.schedule)
    times = leading(steps, offset=1, **{"end": 0.001, **grid})
    inputs = np.zeros((1, *SHAPE)), np.zeros(1), {}
    return Generator(Applied(network, inputs), process, CODER, made, times, start=STANDARD)


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


def drawn(made, params, request, shape=SHAPE):
    """The latents of texts that a pipeline ends with."""
    keys, steps = made.keys(jax.random.key(0), request.index)
    x_T = made.start.draw(made.process, keys, shape, made.times[0])
    return made.go_on(params, x_T, steps, request)[0]


def ended(made, params, text, negative, frozen, shape=SHAPE):
    """The same, of two texts."""
    request = Request(jnp.arange(2), text, 7.5, {"negative": negative}, frozen)
    return jax.jit(functools.partial(drawn, made, shape=shape))(params, request)


def painted(request, picture, mask):
    """The request of a network that is told of the picture and of what to paint."""
    given = inpainting(CODER, request.frozen, picture, mask, None)
    given = {name: jnp.repeat(array, len(request.index), 0) for name, array in given.items()}
    return request._replace(cond={**request.cond, **given})


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
        ("told_pndm", "pndm", {}),
        ("told_ddim", "ddim", {}),
    ],
)
def test_pipelines_end_as_those_of_diffusers(x64, same_noise, run, sampler, grid):
    network = PAINTER if run.startswith("told") else UNET
    params, (frozen, text, negative) = variables(network)["params"], parts()
    made = generator(sampler, network, **grid)
    request = Request(jnp.arange(2), text, 7.5, {"negative": negative}, frozen)
    key = jax.random.key(0)

    def program(params, request):
        x_0 = CODER.encode(request.frozen, GIVEN["picture"][:1], None)[0]
        if run.startswith("text"):
            return drawn(made, params, request)
        if run == "image_ddim":
            return renoised(made, params, key, request, x_0, 0.58)
        mask = hidden()[None, ..., None]
        if run.startswith("told"):
            request = painted(request, GIVEN["picture"][:1], mask)
        known = 1 - of_latents(mask, (1, *SHAPE))[0]
        return inpainted(made, params, key, request, x_0, known, 1.0 if "pndm" in run else 0.6)

    found = jax.jit(program)(params, request)
    assert found.dtype == jnp.float64
    expected = REFERENCE[run]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    if run == "text_pndm":
        picture = CODER.decode(frozen, found)
        assert np.abs(picture - REFERENCE["picture"]).max() <= 1e-6


@pytest.mark.slow
def test_a_network_that_is_told_does_not_see_what_it_paints_at_full_strength(x64, same_noise):
    made, (frozen, text, negative) = generator("ddim", PAINTER, steps=3), parts()
    request = Request(jnp.arange(2), text, 7.5, {"negative": negative}, frozen)
    mask = hidden()[None, ..., None]

    @jax.jit
    def program(picture):
        told, x_0 = painted(request, picture, mask), CODER.encode(frozen, picture, None)[0]
        known = 1 - of_latents(mask, (1, *SHAPE))[0]
        params = variables(PAINTER)["params"]
        return inpainted(made, params, jax.random.key(0), told, x_0, known)

    picture = GIVEN["picture"][:1]
    found = program(picture)
    np.testing.assert_array_equal(program(np.where(mask > 0, -picture, picture)), found)
    assert np.abs(program(-picture) - found).max() > 1e-3


@pytest.mark.slow
def test_a_pipeline_with_lora_ends_as_that_of_diffusers(x64, same_noise, tmp_path):
    (frozen, text, negative), own = parts(), variables(UNET)
    layout, tensors = unet.diffusers(own), {}
    chosen = lora_init(
        own["params"], 2, jax.random.key(0), lambda path: LORA.fullmatch("/".join(path[:-1]))
    )
    for path in {path[:-1] for path in flatten_dict(chosen)}:
        leaf = flatten_dict(own["params"])[path]
        layer = layout(path, leaf).name.removesuffix(".weight")
        for letter, shape in ("A", (2, leaf.shape[0])), ("B", (leaf.shape[1], 2)):
            name = f"unet.{layer}.lora_{letter}.weight"
            tensors[name] = factor(name, shape)
    write_tensors(tmp_path / "lora.safetensors", tensors)
    lora = read_lora(tmp_path / "lora.safetensors", {"unet": own})
    factors = jax.tree.map(lambda a: np.asarray(a, np.float64), lora.factors["unet"])
    params = merged(own["params"], factors, lora.scales["unet"])
    found = ended(generator("pndm"), params, text, negative, frozen)
    expected = REFERENCE["lora_pndm"]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
    assert np.abs(expected - REFERENCE["text_pndm"]).max() > 1


@pytest.mark.slow
@pytest.mark.parametrize("sides", NETWORKS)
def test_networks_agree_at_other_sizes(x64, sides):
    network = NETWORKS[sides]
    x = noise((1, *sides, 4), 3), np.array([500]), {"text": GIVEN["text"][:1]}
    found = jax.jit(network.apply)(variables(network), *x)[:, ::EVERY, ::EVERY]
    expected = REFERENCE["x".join(map(str, sides))]
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


@pytest.mark.slow
def test_a_pipeline_of_pictures_that_are_not_square_ends_as_that_of_diffusers(x64, same_noise):
    (frozen, text, negative), shape = parts(), (72, 96, 4)
    params = variables(WIDE_UNET)["params"]
    made = generator("ddim", WIDE_UNET, FEW)
    found = ended(made, params, text, negative, frozen, shape)[:, ::EVERY, ::EVERY]
    expected = REFERENCE["wide_ddim"]
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()
