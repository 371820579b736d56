"""Audits of a planted memoriser, and of a model that has learned the distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import ArraySource, Dataset, Images, Split, to_uint8
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.evaluation.denoising import TIMES, Denoising, ratio
from diffusion_jax.evaluation.distances import Distances
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.metrics.similarity import cosines
from diffusion_jax.report import memorises
from diffusion_jax.samplers.ddim import ddim
from tests.evaluation.models import model_of, pictures_of
from tests.oracles import GaussianMixture

SIDE, NUM = 4, 200


def law() -> GaussianMixture:
    """Of pictures of 4x4: three kinds, each with a wide spread along some axes."""
    rng = np.random.default_rng(0)
    roots = 0.12 * rng.normal(size=(3, SIDE**2, SIDE**2)) / 2
    covs = roots @ roots.transpose(0, 2, 1) + 1e-3 * np.eye(SIDE**2)
    return GaussianMixture(np.full(3, 1 / 3), rng.uniform(-0.4, 0.4, (3, SIDE**2)), covs)


def pictures(x: np.ndarray) -> np.ndarray:
    return to_uint8(np.asarray(x, np.float32).reshape(-1, SIDE, SIDE, 1))


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    images = pictures(law().sample(jax.random.key(0), 2 * NUM))
    parts = zip(("train", "heldout"), np.split(images, 2), strict=True)
    splits = {name: Split(ArraySource(part, np.zeros(NUM, np.int32))) for name, part in parts}
    return Dataset("mixture", Images((SIDE, SIDE, 1)), splits, fingerprint="mixture")


def generator(mixture: GaussianMixture) -> Generator:
    """Draws from a mixture by its exact denoiser."""
    schedule = Cosine()

    def apply(params, x_t, t, cond):
        x_0 = mixture.denoiser(schedule)(x_t.reshape(len(x_t), -1), t, {}).x_0
        return params + x_0.reshape(x_t.shape)

    process = Gaussian(schedule, PREDICTIONS["x0"], time_input=lambda _, t: t)
    times = jnp.linspace(1.0, 0.0, 21)
    return Generator(apply, process, Identity((SIDE, SIDE, 1)), ddim(schedule), times)


def memoriser(dataset: Dataset) -> GaussianMixture:
    """The law of the training images and nothing else."""
    images = dataset.splits["train"].gather(np.arange(NUM))[0]
    means = images.reshape(NUM, -1) / 127.5 - 1
    covs = np.tile(1e-6 * np.eye(SIDE**2), (NUM, 1, 1))
    return GaussianMixture(np.full(NUM, 1 / NUM), means, covs)


def errors(mixture: GaussianMixture, dataset: Dataset) -> dict:
    made = model_of(dataset, generator(mixture), jnp.zeros(()), passport={"checkpoint": 7})
    return Denoising(NUM)(made)


def test_who_learned_the_law_denoises_unseen_images_as_well(dataset):
    found = errors(law(), dataset)
    assert len(found) == 3 * len(TIMES)
    for t in TIMES:
        gap = found[f"denoising_gap_t{t:.2f}"]
        # All five are to hold at once.
        assert np.log(gap["low"]) - 0.1 < 0 < np.log(gap["high"]) + 0.1
        assert gap["n"] == NUM
        assert gap["passport"]["checkpoint"] == 7
    # Better than to scale x_t alone, and than to say the mean.
    schedule, variance = Cosine(), np.trace(law().moments()[1]) / SIDE**2
    for t in TIMES:
        scaled = float(schedule.sigma(jnp.asarray(t)) / schedule.alpha(jnp.asarray(t))) ** 2
        assert found[f"denoising_error_train_t{t:.2f}"]["low"] < min(scaled, variance)


def test_a_memoriser_denoises_what_it_has_seen(dataset):
    found = errors(memoriser(dataset), dataset)
    gaps = [found[f"denoising_gap_t{t:.2f}"] for t in TIMES]
    assert gaps[0]["low"] > 5  # it knows each training image in little noise
    assert all(gap["low"] < 1 < gap["high"] for gap in gaps[2:])  # and in much there is no telling


def test_intervals_of_a_ratio_cover_it():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(1000):
        a, b = rng.gamma(2.0, 3.0, 300), rng.gamma(1.0, 4.0, 200)  # means 6 and 4
        value, low, high = ratio(a, b)
        hits.append(low <= 1.5 <= high)
        assert low < value < high
    assert 0.93 <= np.mean(hits) <= 0.97


def test_cosines():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(5, 2, 3, 1))
    np.testing.assert_allclose(cosines(a, 3 * a + 7), 1)
    np.testing.assert_allclose(cosines(a, -a), -1)
    b = rng.normal(size=a.shape)
    expected = [np.corrcoef(x.ravel(), y.ravel())[0, 1] for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(cosines(a, b), expected)
    np.testing.assert_array_equal(cosines(np.ones((2, 4)), rng.normal(size=(2, 4))), [0, 0])


def test_copies_are_flagged_and_a_model_of_the_law_is_not(dataset, tmp_path):
    """What `--mode evaluate` measures, of samples drawn by a memoriser and of the law."""
    measure = Distances(dataset, "no classes", 50, tmp_path)
    for mixture, copies in ((law(), False), (memoriser(dataset), True)):
        index = np.arange(NUM)
        x, _ = generator(mixture)(jnp.zeros(()), 5, Request(index, {}), batch_size=NUM)
        found = measure(model_of(dataset, chunks=[(to_uint8(x), None)], folder=tmp_path))
        pairs = pictures_of(tmp_path / "closest.png", SIDE)
        assert len(pairs) == 20
        found |= measure.of_data({})
        assert memorises(found) == copies
        assert (found["memorised_share"]["value"] > 0.9) == copies
        above, below = np.split(pairs, 2)
        assert (np.abs(above.astype(int) - below).max() <= 4) == copies
    assert memorises({}) is None
