"""The problems to sample: digits by a trained network, and a mixture by its exact denoiser."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import run
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import to_uint8
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian, gaussian
from diffusion_jax.diffusion.schedules import Cosine, Schedule
from diffusion_jax.evaluation.extractor import get_extractor
from diffusion_jax.generation.generator import Generator
from diffusion_jax.generation.labels import proportional_labels
from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.system.runtime import cache_dir
from tests.oracles import three_components

Interval = tuple[float, float, float]
BOOTSTRAP = 200


class Problem(NamedTuple):
    """A distribution to sample from.

    Attributes:
        generator: its sampler and times are replaced.
        params: parameters of the network.
        cond: conditioning of the N samples, the same for all methods.
        frechet: `(samples [N, ...], resamplings) -> (value, low, high)`; without resamplings the
            interval is empty.
    """

    generator: Generator
    params: Any
    cond: dict[str, np.ndarray]
    frechet: Callable[[np.ndarray, int], Interval]

    @property
    def schedule(self) -> Schedule:
        """The noise schedule."""
        return gaussian(self.generator.process).schedule


def digits_problem(workdir: pathlib.Path, num: int) -> Problem:
    """The network of `configs/digits.py` in `workdir`."""
    model = run.open_run(workdir)
    dataset = model.run.parts.dataset
    images, labels = dataset.arrays("train")
    extractor = get_extractor(dataset, cache_dir() / "extractors", print)
    reference = moments(extractor(images)[1])
    wanted = proportional_labels(labels, dataset.num_classes, num)

    def features(samples: np.ndarray) -> np.ndarray:
        return extractor(to_uint8(samples))[1]

    frechet = functools.partial(_frechet, reference, features, wanted)
    return Problem(model.draws, model.params, {"label": wanted}, frechet)


def mixture_problem() -> Problem:
    """Three components in the plane (`tests/oracles.py`), on the schedule of the digits."""
    mixture, schedule = three_components(), Cosine()
    exact, prediction = mixture.denoiser(schedule), PREDICTIONS["v"]

    def apply(_: Any, x_t: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, {}).x_0, t)

    process = Gaussian(schedule, prediction, time_input=lambda _, t: t)
    times = jnp.array([1.0, 0.0])
    generator = Generator(apply, process, Identity((2,)), ddim(schedule), times)
    frechet = functools.partial(_frechet, Moments(*mixture.moments()), lambda x: x, None)
    return Problem(generator, {}, {}, frechet)


def _frechet(
    reference: Moments,
    features: Callable[[np.ndarray], np.ndarray],
    strata: np.ndarray | None,
    samples: np.ndarray,
    repeats: int,
) -> Interval:
    distance = lambda rows: frechet_distance(moments(rows), reference)  # noqa: E731
    if not repeats:
        return (distance(features(samples)),) * 3
    return bootstrap(distance, features(samples), repeats, strata)
