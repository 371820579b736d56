"""Where sampling starts: the laws reached from other noise, and pictures taken for noise."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import special, stats

from diffusion_jax import run
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.generation.starts import NORMAL, UNIFORM, picture
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.sde import ancestral
from tests.oracles import (
    SCHEDULES,
    as_it_is,
    assert_law,
    keys_of,
    mixture,
    smirnov,
    standard_scores,
)
from tests.runs import tiny

NUM, KEY = 4000, jax.random.key(0)


def drawn(dim, start, sampler=heun, steps=60, name="cosine"):
    """Samples `[NUM, D]` of the mixture's exact denoiser."""
    schedule, prediction = SCHEDULES[name], PREDICTIONS["v"]
    exact = mixture(dim).denoiser(schedule)

    def apply(params, x_t, t, cond):
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, cond).x_0, t)

    process = Gaussian(schedule, prediction, time_input=as_it_is)
    times = jnp.linspace(1, 0, steps + 1)
    made = Generator(apply, process, Identity((dim,)), sampler(schedule), times, start=start)
    return np.asarray(jax.jit(made.draw)({}, KEY, Request(jnp.arange(NUM), {}))[0])


def normal_score(x):
    """The noise that the ODE takes to `x` `[N, 1]`: on a line it keeps the order of all points."""
    law = mixture(1)
    std = np.sqrt(law.covs[:, 0, 0])
    share = (law.weights * special.ndtr((x - law.means[:, 0]) / std)).sum(1)
    return special.ndtri(share)


@pytest.mark.parametrize(("start", "law"), [(NORMAL, stats.norm()), (UNIFORM, None)])
def test_the_law_that_is_reached_on_a_line(start, law):
    """That of the data has the noise `Phi^-1(F(x_0))`: its law is that of the start."""
    width = 3**0.5
    law = law or stats.uniform(-width, 2 * width)
    other = stats.uniform(-width, 2 * width) if start is NORMAL else stats.norm()
    found = normal_score(drawn(1, start))
    assert stats.kstest(found, law.cdf).pvalue > 1e-3
    assert stats.kstest(found, other.cdf).pvalue < 1e-6


def test_what_is_drawn_later_makes_the_law_right():
    """A sampler that draws noise of its own forgets the start."""
    assert_law(drawn(1, UNIFORM, ancestral, steps=400))


@pytest.mark.slow
def test_in_many_dimensions_only_the_size_of_the_noise_tells_the_starts_apart():
    """Along any direction that is no axis both are normal; `|x_T|^2` varies 2.5 times less."""
    x = drawn(64, UNIFORM)
    assert np.max(np.abs(standard_scores(x))) < 5
    *directions, log_density = smirnov(x)
    assert min(directions) > 1e-5
    assert log_density < 1e-5


@pytest.mark.parametrize("name", ["cosine", "ve"])
def test_starts_have_the_mean_and_variance_of_noise(name):
    schedule, t = SCHEDULES[name], jnp.array(0.9)
    process = Gaussian(schedule, PREDICTIONS["eps"])
    image = jnp.asarray(np.random.default_rng(0).uniform(-1, 0.3, (50, 40, 1)))
    for start in (NORMAL, UNIFORM, picture(image, "a picture")):
        x = np.asarray(start.draw(process, keys_of(4), image.shape, t)) / float(schedule.sigma(t))
        assert x.shape == (4, *image.shape)
        np.testing.assert_allclose((x.mean(), x.std()), (0, 1), atol=0.03)
        if start not in (NORMAL, UNIFORM):
            np.testing.assert_allclose(np.corrcoef(x[3].ravel(), image.ravel())[0, 1], 1, rtol=1e-5)
    uniform = np.asarray(UNIFORM.draw(process, keys_of(4), (5,), t))
    alone = np.asarray(UNIFORM.draw(process, keys_of(4)[2:3], (5,), t))
    np.testing.assert_array_equal(uniform[2:3], alone)  # each from its own key
    assert len(np.unique(uniform)) == 20


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("starts") / "run"
    assert run.run(tiny(sample__sampler="ddim"), workdir, "train") == 0
    return workdir


def passport(workdir: Path, name: str = "grid.png") -> dict:
    return json.loads(Image.open(workdir / "samples" / name).info["made_by"])


@pytest.mark.slow
def test_a_run_says_where_it_started(trained, tmp_path):
    file = tmp_path / "cat.png"
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file)
    seen = {}
    for start in ("normal", "uniform", str(file)):
        asked = tiny(sample__sampler="ddim", sample__start=start, sample__labels="3")
        assert run.run(asked, trained, "sample") == 0
        seen[start] = np.asarray(Image.open(trained / "samples" / "grid.png"))
        said = passport(trained).get("start")
        assert (said or "normal").split(" (")[0] == start
    assert not np.array_equal(seen["normal"], seen["uniform"])
    images = sorted((trained / "samples" / "images").glob("*.png"))
    assert len({path.read_bytes() for path in images}) == 12  # each with its number,
    pixels = {np.asarray(Image.open(path)).tobytes() for path in images}
    assert len(pixels) == 1  # and all of one picture: nothing is drawn
    # Another picture in the same place is another start.
    Image.fromarray(np.arange(192, dtype=np.uint8)[::-1].reshape(8, 8, 3)).save(file)
    before = passport(trained)["start"]
    assert run.run(asked, trained, "sample") == 0
    assert passport(trained)["start"] != before


@pytest.mark.slow
def test_a_model_opens_without_the_picture_that_it_once_started_from(tmp_path):
    file = tmp_path / "cat.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file)
    assert run.run(tiny(sample__start=str(file)), tmp_path / "run", "train") == 0
    file.unlink()
    assert run.open_run(tmp_path / "run").draw(2).shape == (2, 8, 8, 1)


def test_starts_that_are_none(tmp_path):
    flat = tmp_path / "flat.png"
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(flat)
    for wrong, said in (
        (
            {"sample__start": "unifrom"},
            "must be normal, standard, uniform or the path",
        ),
        ({"sample__start": str(flat)}, "all its pixels are the same"),
        ({"sample__start": __file__}, "sample.start: "),
        ({"sample__start": "uniform", "sample__vary__image": "a.png"}, "sample.vary.image"),
        ({"sample__start": "uniform", "sample__interpolate": ("a", "b")}, "sample.interpolate"),
        ({"sample__start": str(flat), "data__name": "spiral", "model__name": "mlp"}, "points"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            build(tiny(**wrong))
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("sample.start")
