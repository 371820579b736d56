"""Variants of an image and interpolations, with exact denoisers and small runs."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import run
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.generation.variations import between, inverted, mixed, renoised, slerp, turn
from diffusion_jax.samplers.ddim import ddim
from tests.oracles import SCHEDULES, three_components
from tests.runs import tiny

KEY, NUM = jax.random.key(0), 400
PICTURE = np.array([0.9, 1.1], np.float32)


def generator(name="cosine", steps=50):
    schedule, prediction = SCHEDULES[name], PREDICTIONS["v"]
    exact = three_components().denoiser(schedule)

    def apply(params, x_t, t, cond):
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, cond).x_0, t)

    times = jnp.linspace(1, 0, steps + 1)
    process = Gaussian(schedule, prediction, time_input=lambda _, t: t)
    return Generator(apply, process, Identity((2,)), ddim(schedule), times)


def varied(way, strength, name="cosine"):
    made = generator(name)
    program = jax.jit(lambda index: way(made, {}, KEY, Request(index, {}), PICTURE, strength))
    return np.asarray(program(jnp.arange(NUM)))


@pytest.mark.parametrize("name", ["cosine", "flow", "edm"])
def test_inversion_gives_the_picture_back(name):
    np.testing.assert_allclose(varied(inverted, 0.0, name), np.tile(PICTURE, (NUM, 1)), atol=5e-3)


def far(x):
    return np.sqrt(((x - PICTURE) ** 2).sum(1)).mean()


@pytest.mark.parametrize("way", [renoised, inverted])
@pytest.mark.slow
def test_variants_are_the_farther_the_stronger_and_samples_at_last(way):
    distances = [far(varied(way, s)) for s in (0.1, 0.4, 0.7, 1.0)]
    assert np.all(np.diff(distances) > 0.02), distances
    samples = generator().draw({}, KEY, Request(jnp.arange(NUM), {}))[0]
    # The two solvers part where two modes meet.
    assert np.mean(np.abs(varied(way, 1.0) - samples).max(1) < 0.05) > 0.95


def one(number, **cond):
    return Request(jnp.array([number]), cond)


def test_a_way_has_both_samples_at_its_ends_and_noise_of_the_same_size_between():
    made, shares = generator(), jnp.linspace(0, 1, 5)
    found = between(made, {}, KEY, (one(3), one(7)), shares)
    ends = made.draw({}, KEY, Request(jnp.array([3, 7]), {}))[0]
    np.testing.assert_allclose(found[jnp.array([0, -1])], ends, atol=1e-3)
    assert len({tuple(row) for row in np.asarray(found).round(4).tolist()}) > 2
    noise = jax.random.normal(KEY, (2, 10_000))
    for share in (0.0, 0.3, 0.5, 1.0):
        assert abs(float(turn(noise[0], noise[1], share).std()) - 1) < 0.03


def test_conditioning_between_is_linear():
    seen = []

    def apply(params, x_t, t, cond):
        seen.append(cond["pooled"])
        return x_t

    schedule = SCHEDULES["cosine"]
    process, times = Gaussian(schedule, PREDICTIONS["v"]), jnp.array([1.0, 0.0])
    made = Generator(apply, process, Identity((2,)), ddim(schedule), times)
    ends = [one(1, pooled=jnp.array([pair])) for pair in ([0.0, 2.0], [1.0, -2.0])]
    with jax.disable_jit():
        between(made, {}, KEY, ends, jnp.linspace(0, 1, 3))
    np.testing.assert_allclose(seen[0], [[0, 2], [0.5, 0], [1, -2]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("vary") / "run"
    assert run.run(tiny(), workdir, "train") == 0
    return workdir


def sampled(workdir: Path, **changes: Any) -> int:
    config = tiny(sample__num_images=5, **changes)
    return run.run(config, workdir, "sample")


@pytest.mark.slow
@pytest.mark.parametrize("by", ["noise", "inversion"])
def test_variants_of_a_file_are_drawn(trained: Path, tmp_path: Path, by: str) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    Image.fromarray(colour).save(tmp_path / "a.png")
    changes = {"sample__vary__image": str(tmp_path / "a.png"), "sample__vary__by": by}
    assert sampled(trained, **changes) == 0
    sheet = Image.open(trained / "samples/variants.png")
    assert json.loads(sheet.info["made_by"])["vary"]["by"] == by
    assert np.asarray(sheet).shape == (50, 8 * 49 + 1)  # the picture, and five of it


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"vary__image": "none.png"},
            "sample.vary.image: none.png cannot be read: No such file",
        ),
        ({"vary__image": __file__}, "cannot be read: it is no picture"),
        ({"vary__image": "a.png", "vary__strength": 1.5}, "strength=1.5 must lie in"),
        ({"vary__image": "a.png", "vary__by": "x"}, "sample.vary.by='x' must be 'noise' or 'inv"),
        ({"interpolate": ("a", "b")}, "needs a network with a frozen text encoder: text.name is"),
        ({"interpolate": ("a",)}, "must be two texts"),
        ({"interpolate": ("a", "b"), "vary__image": "a.png"}, "do not go together"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_varied_is_one_line(
    trained: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], says: str
) -> None:
    assert sampled(trained, **{f"sample__{key}": value for key, value in changes.items()}) == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1


def test_two_pictures_are_mixed_on_the_circle_through_their_noises(x64):
    """Of normal data the noise is linear in the picture: `x_0 / std`, but for 1 in 500.

    That is the share of noise in a picture of variance 0.04 at the first time of the way up.
    """
    std, schedule = np.array([0.2, 0.7, 1.0]), SCHEDULES["cosine"]

    def apply(params, x_t, t, cond):
        alpha, sigma = (a[:, None] for a in schedule.scales(t))
        return alpha * std**2 / (alpha**2 * std**2 + sigma**2) * x_t

    process = Gaussian(schedule, PREDICTIONS["x0"], time_input=lambda _, t: t)
    made = Generator(apply, process, Identity((3,)), ddim(schedule), jnp.linspace(1, 0, 9))
    ends = np.array([[0.3, 0.5, -0.2], [0.1, -0.6, 0.9]])
    shares = np.linspace(0, 1, 5)
    request = Request(jnp.zeros(5, int), {})
    found = jax.jit(lambda: mixed(made, {}, KEY, request, jnp.asarray(ends), shares))()
    a, b = ends / std
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    weights = np.sin([(1 - shares) * angle, shares * angle]).T / np.sin(angle)
    np.testing.assert_allclose(found, weights @ ends, atol=2e-3)


def test_noise_between_two_keeps_its_norm_and_of_one_stays():
    a, b = np.random.default_rng(0).normal(size=(2, 500))
    for share in (0.0, 0.3, 1.0):
        norms = (1 - share) * np.linalg.norm(a) + share * np.linalg.norm(b)
        np.testing.assert_allclose(np.linalg.norm(slerp(a, b, share)), norms, rtol=0.05)
        np.testing.assert_allclose(slerp(a, a, share), a, rtol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-5)
