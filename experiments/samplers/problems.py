"""What is sampled: digits by a trained network, and a mixture by its exact denoiser."""

import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
from configs import digits  # noqa: E402
from diffusion_jax.data import arrays, to_uint8  # noqa: E402
from diffusion_jax.diffusion.prediction import PREDICTIONS  # noqa: E402
from diffusion_jax.diffusion.schedules import Cosine  # noqa: E402
from diffusion_jax.evaluation.extractor import get_extractor  # noqa: E402
from diffusion_jax.from_config import build  # noqa: E402
from diffusion_jax.generation.generator import Generator, proportional_labels  # noqa: E402
from diffusion_jax.metrics.frechet import Moments, frechet_distance, moments  # noqa: E402
from diffusion_jax.metrics.intervals import bootstrap  # noqa: E402
from diffusion_jax.run import Job  # noqa: E402
from diffusion_jax.samplers.ddim import ddim  # noqa: E402
from diffusion_jax.system.runtime import cache_dir  # noqa: E402
from tests.oracles import three_components  # noqa: E402

Interval = tuple[float, float, float]
BOOTSTRAP = 200


class Problem(NamedTuple):
    """A law to sample from.

    Attributes:
        generator: its sampler and times are to be replaced.
        params: of the network.
        cond: conditioning of the N samples, which are the same for all methods.
        frechet: `(samples [N, ...], resamplings) -> (value, low, high)`; without resamplings the
            interval is no interval.
    """

    generator: Generator
    params: Any
    cond: dict[str, np.ndarray]
    frechet: Callable[[np.ndarray, int], Interval]


def digits_problem(workdir: pathlib.Path, num: int) -> Problem:
    """The network that `configs/digits.py` left in `workdir`."""
    config = digits.get_config()
    job = Job(config, workdir, build(config))
    dataset = job.parts.dataset
    images, labels = arrays(dataset.train)
    extractor = get_extractor(dataset, cache_dir() / "extractors", print)
    reference = moments(extractor(images)[1])
    wanted = proportional_labels(labels, dataset.num_classes, num)

    def features(samples: np.ndarray) -> np.ndarray:
        return extractor(to_uint8(samples))[1]

    params, _ = job.restore()
    frechet = functools.partial(_frechet, reference, features, wanted)
    return Problem(job.parts.generator, params, {"label": wanted}, frechet)


def mixture_problem() -> Problem:
    """Three components in the plane (`tests/oracles.py`) on the schedule of digits."""
    mixture, schedule = three_components(), Cosine()
    exact, prediction = mixture.denoiser(schedule), PREDICTIONS["v"]

    def apply(_: Any, x_t: jax.Array, t: jax.Array, cond: Any) -> jax.Array:
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, {}).x_0, t)

    generator = Generator(apply, schedule, prediction, ddim(schedule), jnp.array([1.0, 0.0]), (2,))
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
