"""A normal prior in the plane and operators given by matrices, for posteriors in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.restoration.operators import Observation, Operator, Spectrum
from diffusion_jax.samplers.loop import Outcome, run
from diffusion_jax.types import Array
from tests.oracles import SCHEDULES, GaussianMixture, keys_of

MEAN, COV = np.array([0.3, -0.2]), np.array([[0.5, 0.3], [0.3, 0.4]])


def normal(mean=MEAN, cov=COV) -> GaussianMixture:
    return GaussianMixture(np.ones(1), np.asarray(mean)[None], np.asarray(cov)[None])


@struct.dataclass
class Matrix:
    """`y = M x` for vectors, with no known decomposition."""

    matrix: Array

    def __call__(self, x):
        return x @ self.matrix.T


@struct.dataclass
class Dense:
    """`A = V S V^T` for vectors."""

    vectors: Array
    values: Array

    def __call__(self, x):
        return (x @ self.vectors * self.values) @ self.vectors.T

    def spectrum(self, x):
        along, back = (lambda x: x @ self.vectors), (lambda z: z @ self.vectors.T)
        return Spectrum(self.values[None], along, back, along)


def observed(operator: Operator, y, sigma: float, num: int) -> Observation:
    """The same observation for `num` samples."""
    return Observation(jnp.tile(jnp.asarray(y, float), (num, 1)), operator, jnp.full(num, sigma))


def outcome(prior: GaussianMixture, sampler, times, num: int, name="cosine") -> Outcome:
    """Samples `[num, D]` with the exact denoiser, and the sampler's final state."""
    schedule, times = SCHEDULES[name], jnp.asarray(times)
    x_T = schedule.sigma(times[0]) * sample_noise(keys_of(num, 2), prior.means.shape[1:])

    @jax.jit
    def program(x, keys):
        return run(prior.denoiser(schedule), sampler, times, x, {}, keys)

    return jax.tree.map(np.asarray, program(x_T, keys_of(num)))


def assert_normal(x, mean, cov):
    """Mean and covariance of `x` `[N, D]` within 5 standard errors; none of what is constant."""
    x, diagonal = np.asarray(x, float), np.diag(cov)
    mean_error = 5 * np.sqrt(diagonal / len(x)) + 1e-5
    cov_error = 5 * np.sqrt((np.outer(diagonal, diagonal) + cov**2) / len(x)) + 1e-5
    assert np.all(np.abs(x.mean(0) - mean) < mean_error), (x.mean(0), mean)
    assert np.all(np.abs(np.cov(x.T) - cov) < cov_error), (np.cov(x.T), cov)
