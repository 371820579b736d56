"""The learned field, its divergence, basins and distances, where all of them are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import Dataset, Split
from diffusion_jax.data.sets.points import POINTS, Law, Points, PointSource
from diffusion_jax.data.sources import ArraySource
from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.mixture import exact_denoiser
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.evaluation import field as field_module
from diffusion_jax.evaluation.field import (
    TIMES,
    LearnedField,
    root_mean_square,
    score_and_divergence,
    score_errors,
)
from diffusion_jax.evaluation.model import Model
from diffusion_jax.generation.generator import Generator
from diffusion_jax.metrics.neighbours import two_nearest
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, GaussianMixture, keys_of

COSINE = Cosine()


def law_of(means, labels=None, std=0.1):
    means = np.asarray(means, np.float64)
    labels = np.arange(len(means)) if labels is None else np.asarray(labels)
    parts = tuple(f"part {i}" for i in range(labels.max() + 1))
    return Law(means, labels.astype(np.int32), std, parts)


def mixture_of(law):
    num, dims = law.means.shape
    covs = np.broadcast_to(law.std**2 * np.eye(dims), (num, dims, dims)).copy()
    return GaussianMixture(np.full(num, 1 / num), law.means, covs)


@pytest.mark.parametrize("name", ["cosine", "flow", "edm"])
@pytest.mark.parametrize(("x64", "close"), [(False, 1e-5), (True, 1e-10)])
def test_the_exact_denoiser_is_that_of_the_oracle(name, x64, close):
    with jax.enable_x64(True):
        schedule, law = SCHEDULES[name], POINTS["eight_gaussians"]()
        rng = np.random.default_rng(0)
        t = jnp.asarray(rng.uniform(0.3, 0.95, 500))
        alpha, sigma = (c(t)[:, None] for c in (schedule.alpha, schedule.sigma))
        x = alpha * rng.normal(0, 0.5, (500, 2)) + sigma * rng.normal(size=(500, 2))
        labels = jnp.asarray(rng.integers(-1, 8, 500))
        x, t = (jnp.asarray(np.asarray(a, np.float32), jnp.float64) for a in (x, t))
        cases = [{}, {"label": labels}]
        expected = [np.asarray(mixture_of(law).denoiser(schedule)(x, t, c).x_0) for c in cases]
        x, t, labels = (np.asarray(a) for a in (x, t, labels))
    with jax.enable_x64(x64):
        dtype = jnp.float64 if x64 else jnp.float32
        for cond, known in zip(cases, expected, strict=True):
            cond = {"label": jnp.asarray(labels)} if cond else {}
            found = exact_denoiser(law, schedule)(
                jnp.asarray(x, dtype), jnp.asarray(t, dtype), cond
            )
            assert found.x_0.dtype == dtype
            np.testing.assert_allclose(found.x_0, known, atol=close)


def test_a_label_means_all_of_its_components():
    law = law_of([[0.0, 1], [0, -1], [1, 0]], [0, 0, 1])
    both, one = law._replace(means=law.means[:2], labels=law.labels[:2]), law_of([[1.0, 0]])
    x, t = jax.random.normal(jax.random.key(0), (6, 2)), jnp.full(6, 0.4)
    for label, other in ((0, both), (1, one)):
        found = exact_denoiser(law, COSINE)(x, t, {"label": jnp.full(6, label)})
        known = exact_denoiser(other, COSINE)(x, t, {})
        np.testing.assert_allclose(found.x_0, known.x_0, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_score_and_divergence_of_one_gaussian(dims):
    """`-(x - alpha m) / v` and `-D / v` with `v = alpha^2 std^2 + sigma^2`."""
    mean, t = np.linspace(0.3, -0.5, dims), jnp.array(0.35)
    x = jax.random.normal(jax.random.key(0), (50, dims))
    alpha, sigma = COSINE.alpha(t), COSINE.sigma(t)
    variance = alpha**2 * 0.2**2 + sigma**2
    denoise = exact_denoiser(law_of([mean], std=0.2), COSINE)
    found, divergence = score_and_divergence(denoise, COSINE, x, t, {})
    np.testing.assert_allclose(found, -(x - alpha * mean) / variance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence, np.full(50, -dims / variance), rtol=1e-4)


def test_the_divergence_counts_the_own_derivative_of_each_axis():
    """Of `s = A x`, with `A` neither symmetric nor diagonal, the trace of `A`."""
    t, matrix = jnp.array(0.5), jnp.array([[1.0, 2.0], [-3.0, 0.5]])

    def denoise(x, t, cond):
        alpha, sigma = COSINE.alpha(t)[:, None], COSINE.sigma(t)[:, None]
        return Denoised((sigma**2 * x @ matrix.T + x) / alpha)

    x = jax.random.normal(jax.random.key(0), (5, 2))
    found, divergence = score_and_divergence(denoise, COSINE, x, t, {})
    np.testing.assert_allclose(found, x @ matrix.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(divergence, np.full(5, 1.5), rtol=1e-4)


def biased(law, by):
    """Exact, but for `by` units of the noise in the first axis."""
    exact = exact_denoiser(law, COSINE)

    def denoise(x, t, cond):
        off = (by * COSINE.sigma(t) / COSINE.alpha(t))[:, None] * jnp.eye(x.shape[1])[0]
        return Denoised(exact(x, t, cond).x_0 + off)

    return denoise


def test_the_distance_of_a_known_bias():
    law = POINTS["moons"]()
    x_0 = PointSource(law, 200, 0).gather(np.arange(200))[0]
    exact, process = exact_denoiser(law, COSINE), Gaussian(COSINE, PREDICTIONS["x0"])
    for by in (0.0, 0.3):
        squares = score_errors(biased(law, by), exact, process, x_0, {}, 0)
        assert squares.shape == (len(TIMES), 200)
        np.testing.assert_allclose(squares, np.full((len(TIMES), 200), by**2 / 2), atol=1e-5)


def test_the_interval_of_a_distance_covers_the_true_one():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(300):
        _, low, high = root_mean_square(rng.normal(0, 2, 200) ** 2)
        hits += low < 2 < high
    assert 0.9 < hits / 300 < 0.98


def test_basins_of_eight_gaussians_are_their_sectors():
    law, schedule = POINTS["eight_gaussians"](), COSINE
    angle, radius = np.meshgrid(np.linspace(0, 2 * np.pi, 80, endpoint=False), [0.3, 1.0, 2.0])
    angle = angle.ravel() + 1e-3
    x_T = radius.ravel()[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    denoise = exact_denoiser(law, schedule)
    x_0, kept = sample(
        denoise, heun(schedule), time_grids.uniform(32), jnp.asarray(x_T), {}, keys_of(len(x_T)), 8
    )
    parts = law.labels[two_nearest(np.asarray(x_0), law.means.astype(np.float32))[1][:, 0]]
    sector = np.rint(angle / (np.pi / 4)).astype(int) % 8
    clear = np.abs(angle / (np.pi / 4) % 1 - 0.5) > 0.05
    np.testing.assert_array_equal(parts[clear], sector[clear])
    np.testing.assert_array_equal(np.bincount(parts), np.full(8, len(x_T) // 8))
    assert kept.shape == (5, *x_T.shape)
    off = np.linalg.norm(x_0 - law.means[parts], axis=1) / law.std
    assert np.quantile(off, 0.9) < 4  # not only nearest, but there


@pytest.fixture
def small(monkeypatch):
    """Fewer places, levels and particles."""
    for name, value in {"GRID": 12, "DRAWN": (0.1,), "PARTICLES": 100}.items():
        monkeypatch.setattr(field_module, name, value)


def measured(law, tmp_path, by=0.3, known=True):
    """Of a process whose network is told what to say by its parameters."""
    source = PointSource(law, 300, 1)
    kind, parts = Points((law.means.shape[1],)), law.parts if known else ()
    if not known:
        source = ArraySource(*source.gather(np.arange(300)))
    dataset = Dataset("points", kind, {"train": Split(source)}, parts)
    process = Gaussian(COSINE, PREDICTIONS["x0"], time_input=lambda schedule, t: t)
    apply = lambda by, x_t, t, cond: biased(law, by)(x_t, t, cond).x_0  # noqa: E731
    times, codec = time_grids.uniform(16), Identity(kind.shape)
    generator = Generator(apply, process, codec, heun(COSINE), times)
    model = Model(
        dataset, generator, jnp.array(by), frozen={}, cond_of=None, read=None, draw=None,
        samples=None, passport={"config": "c"}, seed=0, batch_size=100, folder=tmp_path,
    )  # fmt: skip
    return LearnedField()(model)


@pytest.mark.slow
def test_the_evaluator_in_the_plane(tmp_path, small):
    found = measured(POINTS["moons"](), tmp_path)
    names = [f"field_error{kind}_t{t:.2f}" for kind in ("", "_label") for t in TIMES]
    assert sorted(found) == sorted([*names, "basin_agreement"])
    for t, name in zip(TIMES * 2, names, strict=True):
        assert found[name]["value"] == pytest.approx(0.3 / 2**0.5, abs=2e-3)
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert found[name]["n"] == 300
        assert found[name]["passport"] == {"config": "c", "t": t}
    assert 0.1 < found["basin_agreement"]["value"] < 0.9
    with Image.open(tmp_path / "particles.gif") as gif:
        assert gif.n_frames == 17
        assert gif.size[0] > 2 * 320
    for name in ("field", "conditions", "basins"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_the_exact_field_is_at_no_distance_from_itself(tmp_path):
    found = measured(law_of([[-0.5], [0.5]]), tmp_path, by=0.0)
    assert found["basin_agreement"]["value"] == 1
    assert max(entry["value"] for name, entry in found.items() if "error" in name) < 1e-5
    assert not list(tmp_path.iterdir())  # one dimension is measured, but not drawn


@pytest.mark.slow
def test_without_a_law_there_are_pictures_of_the_learned_field_alone(tmp_path, small):
    assert not measured(POINTS["moons"](), tmp_path, known=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "basins.png",
        "field.png",
        "particles.gif",
    ]


def test_more_dimensions_are_refused(tmp_path):
    with pytest.raises(ValueError, match="4 dimensions"):
        measured(law_of(np.zeros((1, 4))), tmp_path)
