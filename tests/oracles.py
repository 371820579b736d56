"""Closed-form cases: Gaussian mixtures, all of whose noisy marginals are mixtures too.

With `x_0 ~ sum_k w_k N(m_k, C_k)` and `x_t = alpha_t x_0 + sigma_t eps`, given the component k

    x_t ~ N(alpha_t m_k, S_k),  S_k = alpha_t^2 C_k + sigma_t^2 I
    E[x_0 | x_t, k] = m_k + alpha_t C_k S_k^-1 (x_t - alpha_t m_k)

and the probability of k is proportional to w_k N(x_t; alpha_t m_k, S_k). The code does not use the
package's mathematics: of a schedule, it calls `alpha` and `sigma` only.

Samples are compared with a mixture by their moments and a two-sample statistic: `assert_law`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from diffusion_jax.diffusion import schedules, time_grids
from diffusion_jax.diffusion.corruption import sample_keys, sample_noise
from diffusion_jax.samplers.loop import sample
from diffusion_jax.types import Array, Cond, Denoised, Denoiser, Key

SCHEDULES = {
    "linear_beta": schedules.LinearBeta(),
    "sub_vp": schedules.SubVP(),
    "ddpm": schedules.DDPM(),
    "scaled_linear": schedules.ScaledLinear(),
    "cosine": schedules.Cosine(),
    "sigmoid": schedules.Sigmoid(),
    "flow": schedules.Flow(),
    "edm": schedules.EDM(),
    "ve": schedules.VE(),
    "linear_logsnr": schedules.LinearLogSNR(),
    "laplace": schedules.Laplace(),
    "cauchy": schedules.Cauchy(),
    "shifted_cosine": schedules.Shifted(schedules.Cosine(), 4.0),
    "shifted_flow": schedules.Shifted(schedules.Flow(), 3.0),
    "zero_snr_scaled_linear": schedules.ZeroTerminalSNR(schedules.ScaledLinear()),
}
CLEAN = [name for name in SCHEDULES if name not in ("linear_logsnr", "laplace", "cauchy")]
"""Schedules without noise at t = 0; the others are defined by a logsnr that is finite there."""


@functools.cache
def times_of(name: str) -> np.ndarray:
    """Six times of a schedule, from low to high noise, away from its ends and kinks."""
    logsnr = jnp.array([9.0, 5.03, 1.0, -1.0, -3.5, -8.0])
    return np.asarray(jnp.clip(SCHEDULES[name].time_at(logsnr), 1.5e-3, 0.9995))


def one_program(method: Callable) -> Callable:
    """Compiles each call of a method as one program, instead of operation by operation."""

    @functools.wraps(method)
    def call(self: object, *args: Any) -> Any:
        programs = self.__dict__.setdefault("programs", {})
        if method not in programs:
            programs[method] = jax.jit(functools.partial(method, self), inline=True)
        return programs[method](*args)

    return call


@dataclasses.dataclass(frozen=True)
class GaussianMixture:
    """`sum_k weights_k N(means_k, covs_k)` in D dimensions; inputs are `x` `[B, D]`, `t` `[B]`.

    Attributes:
        weights: `[K]`, sum 1.
        means: `[K, D]`.
        covs: `[K, D, D]`, symmetric, positive semidefinite.
    """

    weights: np.ndarray
    means: np.ndarray
    covs: np.ndarray

    def sample(self, key: Key, num: int) -> Array:
        """Exact samples of `x_0`, `[num, D]`."""
        component_key, noise_key = jax.random.split(key)
        components = jax.random.choice(
            component_key, len(self.weights), (num,), p=_fresh(self.weights)
        )
        values, vectors = np.linalg.eigh(self.covs)
        root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])
        eps = jax.random.normal(noise_key, (num, self.means.shape[1]), root.dtype)
        of_each = _fresh(self.means)[:, None] + _product(eps, jnp.swapaxes(root, 1, 2))
        return jnp.take_along_axis(of_each, components[None, :, None], axis=0)[0]

    def moments(self, alpha: float = 1.0, sigma: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean `[D]` and covariance `[D, D]` of `alpha x_0 + sigma eps`."""
        mean = self.weights @ self.means
        second = np.einsum("k,kij->ij", self.weights, self.covs) + np.einsum(
            "k,ki,kj->ij", self.weights, self.means, self.means
        )
        cov = second - np.outer(mean, mean)
        return alpha * mean, alpha**2 * cov + sigma**2 * np.eye(len(mean))

    @one_program
    def log_density(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """`log q(x_t)` `[B]` at `x` for `alpha`, `sigma` `[B]` or `[]`."""
        return jax.nn.logsumexp(self._solve(x, alpha, sigma)[0], axis=0)

    @one_program
    def responsibilities(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Probability of each component given `x_t`, `[B, K]`."""
        return jax.nn.softmax(self._solve(x, alpha, sigma)[0], axis=0).T

    @one_program
    def score(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """`grad log q(x_t)`, `[B, D]`: the mean of `-S_k^-1 (x - alpha m_k)`."""
        logits, along, least, excess = self._solve(x, alpha, sigma)
        r = jax.nn.softmax(logits, axis=0) / least
        along = alpha**2 * excess / (least[:, None] + alpha**2 * excess) * along
        return self._combined(x, -jnp.sum(r, axis=0), alpha * r, r[:, None] * along)

    @one_program
    def posterior_mean(
        self, x: Array, alpha: Array, sigma: Array, label: Array | None = None
    ) -> Array:
        """`E[x_0 | x_t]` `[B, D]`; given the component too where `label` `[B]` is not -1."""
        logits, along, least, excess = self._solve(x, alpha, sigma)
        if label is not None:
            other = jnp.arange(len(self.weights))[:, None] != label
            logits = jnp.where(other & (label >= 0), -jnp.inf, logits)
        r = jax.nn.softmax(logits, axis=0)
        noise = r * sigma**2 / least
        along = alpha * excess / (least[:, None] + alpha**2 * excess) * along
        own = jnp.sum(alpha * r * self._spectrum()[0] / least, axis=0)
        return self._combined(x, own, noise, noise[:, None] * along)

    def posterior(self, matrix: np.ndarray, y: np.ndarray, sigma: float) -> "GaussianMixture":
        """The law of `x` given `y = matrix x + sigma eps`: a mixture too.

        With `matrix` A `[m, D]`, `y` `[m]` and `S_k = A C_k A^T + sigma^2 I`, component k has the
        gain `G_k = C_k A^T S_k^-1`, the mean `m_k + G_k (y - A m_k)`, the covariance
        `(I - G_k A) C_k`, and a weight proportional to `w_k N(y; A m_k, S_k)`. Without noise the
        covariances are singular, and the `S_k` must not be.
        """
        logits, gains = self._evidence(matrix, y, sigma)
        means = self.means + np.einsum("kdm,km->kd", gains, y - self.means @ matrix.T)
        rest = np.eye(self.means.shape[1]) - gains @ matrix
        # Equal to (I - G A) C, and symmetric.
        covs = rest @ self.covs @ np.swapaxes(rest, 1, 2)
        covs = covs + sigma**2 * gains @ np.swapaxes(gains, 1, 2)
        return GaussianMixture(special.softmax(logits), means, covs)

    def log_evidence(self, matrix: np.ndarray, y: np.ndarray, sigma: float) -> float:
        """`log p(y)` of `y = matrix x + sigma eps`."""
        return float(special.logsumexp(self._evidence(matrix, y, sigma)[0]))

    def _evidence(
        self, matrix: np.ndarray, y: np.ndarray, sigma: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """`log w_k N(y; A m_k, S_k)` `[K]`, and the gains `[K, D, m]`."""
        across = self.covs @ matrix.T
        known = matrix @ across + sigma**2 * np.eye(len(y))
        gains = np.swapaxes(np.linalg.solve(known, np.swapaxes(across, 1, 2)), 1, 2)
        off = y - self.means @ matrix.T
        square = np.einsum("km,km->k", off, np.linalg.solve(known, off[..., None])[..., 0])
        log_det = np.linalg.slogdet(2 * np.pi * known)[1]
        return np.log(self.weights) - 0.5 * (square + log_det), gains

    def denoiser(self, schedule: schedules.Schedule) -> Denoiser:
        """The exact denoiser; `cond["label"]`, if there, is the component, and -1 none."""

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            return Denoised(self.posterior_mean(x_t, alpha, sigma, cond.get("label")))

        return denoise

    # C_k = f I + V E V^T with its smallest eigenvalue f and the few axes V of larger ones, so that
    # S_k = g I + alpha^2 V E V^T with g = alpha^2 f + sigma^2, and (Woodbury)
    # S_k^-1 = (I - V alpha^2 E / (g + alpha^2 E) V^T) / g: many dimensions are as cheap as few.

    def _solve(self, x: Array, alpha: Array, sigma: Array) -> tuple[Array, Array, Array, Array]:
        """Log joint `[K, B]`, `V^T (x - alpha m_k)` `[K, R, B]`, g `[K, B]`, E `[K, R, 1]`."""
        floor, excess, axes = self._spectrum()
        means = _fresh(self.means)
        on_axes, on_means = jnp.split(_product(self._vectors().T, x.T), [excess.size])
        origin = jnp.einsum("kdr,kd->kr", axes, means)[..., None]
        along = on_axes.reshape(*excess.shape[:2], len(x)) - alpha * origin
        least = alpha**2 * floor + sigma**2
        most = least[:, None] + alpha**2 * excess
        square = jnp.sum(x**2, axis=1) - 2 * alpha * on_means
        square += alpha**2 * jnp.sum(means**2, axis=1)[:, None]
        square -= jnp.sum(alpha**2 * excess / most * along**2, axis=1)
        log_det = jnp.sum(jnp.log(most / least[:, None]), axis=1)
        log_det += x.shape[1] * jnp.log(2 * jnp.pi * least)
        logits = jnp.log(_fresh(self.weights))[:, None] - 0.5 * (square / least + log_det)
        return logits, along, least, excess

    def _combined(self, x: Array, own: Array, of_means: Array, along: Array) -> Array:
        """`own x + sum_k of_means_k m_k + V_k along_k`; `[B]`, `[K, B]` and `[K, R, B]`."""
        parts = jnp.concatenate([along.reshape(-1, len(x)), of_means])
        return own[:, None] * x + _product(self._vectors(), parts).T

    def _vectors(self) -> Array:
        """The axes of all components and their means, `[D, K R + K]`."""
        axes = jnp.swapaxes(self._spectrum()[2], 0, 1).reshape(self.means.shape[1], -1)
        return jnp.concatenate([axes, _fresh(self.means).T], axis=1)

    def _spectrum(self) -> tuple[Array, Array, Array]:
        """Smallest eigenvalue f `[K, 1]`, E `[K, R, 1]`, V `[K, D, R]`; R is the largest rank."""
        values, vectors = np.linalg.eigh(self.covs)
        excess = values - values[:, :1]
        larger = excess > 1e-9 * values[:, -1:]
        first = values.shape[1] - np.max(np.sum(larger, axis=1))
        excess = np.where(larger, excess, 0.0)[:, first:, None]
        return jnp.asarray(values[:, :1]), jnp.asarray(excess), jnp.asarray(vectors[:, :, first:])


@functools.cache
def gaussian(std: float, dim: int = 1) -> GaussianMixture:
    """`N(0, std^2 I)`."""
    return GaussianMixture(np.ones(1), np.zeros((1, dim)), std**2 * np.eye(dim)[None])


@functools.cache
def three_components() -> GaussianMixture:
    """A mixture in the plane with distinct weights, means and covariances."""
    return GaussianMixture(
        weights=np.array([0.5, 0.3, 0.2]),
        means=np.array([[-1.0, 0.5], [1.0, 1.0], [0.2, -1.2]]),
        covs=np.array(
            [
                [[0.10, 0.04], [0.04, 0.06]],
                [[0.05, -0.03], [-0.03, 0.12]],
                [[0.2, 0.0], [0.0, 0.04]],
            ]
        ),
    )


@functools.cache
def mixture(dim: int) -> GaussianMixture:
    """Three overlapping components in 1, 2 or 64 dimensions, with distinct weights, means, covs.

    In 64 dimensions each component is isotropic except for two longer directions of its own, at an
    angle to all axes.
    """
    if dim == 2:
        return three_components()
    weights = three_components().weights
    if dim == 1:
        covs = np.array([0.06, 0.02, 0.15])
        return GaussianMixture(weights, np.array([[-0.9], [0.3], [1.3]]), covs[:, None, None])
    rng = np.random.default_rng(0)
    means = 1.5 / dim**0.5 * rng.normal(size=(3, dim))
    axes, _ = np.linalg.qr(rng.normal(size=(3, dim, 2)))
    longer = np.array([[0.4, 0.1], [0.2, 0.3], [0.1, 0.5]])
    covs = np.einsum("kir,kr,kjr->kij", axes, longer, axes)
    floor = np.array([0.08, 0.06, 0.1])
    return GaussianMixture(weights, means, covs + floor[:, None, None] * np.eye(dim))


# Distance of samples from their exact distribution.

KNOWN = 20_000
"""Number of exact samples for comparison."""


@functools.cache
def directions(dim: int) -> np.ndarray:
    """Unit vectors `[D, P]`: the mean and the longest axis of each component; one in 1D."""
    if dim == 1:
        return np.ones((1, 1))
    vectors = np.concatenate([mixture(dim).means, np.linalg.eigh(mixture(dim).covs)[1][..., -1]])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).T


@functools.cache
def _judge(dim: int):
    @jax.jit
    def judge(x: Array) -> tuple[Array, Array]:
        return mixture(dim).responsibilities(x, 1.0, 0.0), mixture(dim).log_density(x, 1.0, 0.0)

    return judge


def features(x: Array) -> np.ndarray:
    """Positions along the `directions`, and the log density, `[B, P + 1]`, of `x` `[B, D]`."""
    log_density = _judge(x.shape[1])(x)[1]
    return np.concatenate([x @ directions(x.shape[1]), np.asarray(log_density)[:, None]], axis=1)


def _moment_terms(x: Array) -> np.ndarray:
    """Terms `[B, S]` with mean 0 if `x` `[B, D]` follows the mixture: weights, means, covariances.

    With the exact responsibilities r_k(x): E r_k = w_k, E r_k (x - m_k) = 0 and
    E r_k ((x - m_k)(x - m_k)^T - C_k) = 0. In 64 dimensions the weights, the traces of those
    covariances, and along `directions` mean and covariance of the whole mixture.
    """
    law, dim = mixture(x.shape[1]), x.shape[1]
    r = np.asarray(_judge(dim)(x)[0], np.float64)
    d = np.asarray(x, np.float64)[:, None] - law.means
    weights = r - law.weights
    if dim <= 2:
        outer = d[..., :, None] * d[..., None, :] - law.covs
        terms = [weights, r[..., None] * d, r[..., None, None] * outer]
        return np.concatenate([term.reshape(len(x), -1) for term in terms], axis=1)
    traces = r * (np.sum(d**2, axis=-1) - np.trace(law.covs, axis1=1, axis2=2))
    mean, cov = law.moments()
    along, (i, j) = (x - mean) @ directions(dim), np.triu_indices(directions(dim).shape[1])
    outer = along[:, i] * along[:, j] - (directions(dim).T @ cov @ directions(dim))[i, j]
    return np.concatenate([weights, traces, along, outer], axis=1)


@functools.cache
def _known(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """For exact samples: the standard deviations of the terms, and the sorted features."""
    x = mixture(dim).sample(jax.random.key(99), KNOWN)
    return _moment_terms(x).std(0), np.sort(features(x), axis=0)


def standard_scores(x: Array) -> np.ndarray:
    """Errors of each weight, mean and covariance of the mixture, in standard errors.

    In 64 dimensions the last entry is for the whole mean: chi-square, as a normal with equal
    p-value.
    """
    scores = _moment_terms(x).mean(0) / (_known(x.shape[1])[0] / np.sqrt(len(x)))
    if x.shape[1] <= 2:
        return scores
    mean, cov = mixture(x.shape[1]).moments()
    off = np.asarray(x, np.float64).mean(axis=0) - mean
    square = len(x) * off @ np.linalg.solve(cov, off)
    return np.append(scores, -special.ndtri(special.chdtrc(len(mean), square)))


def smirnov(x: Array) -> np.ndarray:
    """P-values of the two-sample Kolmogorov-Smirnov statistic of each feature."""
    found, known = np.sort(features(x), axis=0), _known(x.shape[1])[1]
    n, m, p_values = len(found), len(known), []
    for one, other in zip(found.T, known.T, strict=True):
        # The distance of the two distribution functions is largest just before or at a sample.
        below = np.searchsorted(other, one) / m
        steps = np.arange(n + 1) / n
        distance = max(np.max(below - steps[:-1]), np.max(steps[1:] - below))
        p_values.append(special.kolmogorov(distance * np.sqrt(n * m / (n + m))))
    return np.array(p_values)


def assert_law(x: Array, what: object = "") -> None:
    """Tests `x` `[B, D]`, in 1, 2 or 64 dimensions, by moments and a two-sample statistic.

    The moments (9, 21 and 34) within 5 standard errors; the two-sample statistic with a p-value
    above 1e-5 over the number of features (2, 7, 7): without bias, a false alarm in 1 of 100,000
    distributions. With 4,000 samples 5 standard errors are about 0.04 in a weight and 15% in a
    variance, and the distribution function of a feature may be off by 0.04; with 250 by 0.16.
    """
    scores, p_values = standard_scores(x), smirnov(x)
    assert np.max(np.abs(scores)) < 5, (what, scores)
    assert np.min(p_values) > 1e-5 / len(p_values), (what, p_values)


def _fresh(values: np.ndarray) -> Array:
    """A copy of an array: JAX may have cached it as float32 before float64 was enabled."""
    return jnp.asarray(values.copy())


def _product(matrices: Array, x: Array) -> Array:
    """`matrices @ x`, in full precision on every device."""
    return jnp.matmul(matrices, x, precision="highest")


def as_it_is(schedule, t):
    """A `TimeInput` for networks that are formulas in `t`."""
    return t


def keys_of(num, seed=1):
    return sample_keys(jax.random.key(seed), jnp.arange(num))


def assert_own_and_right(make, times):
    """From `t = 1` of flow, where `alpha = 0`, samples depend on their own seeds and are correct.

    `test_law` tests the other schedules.
    """
    schedule, num = SCHEDULES["flow"], 10_000
    denoiser = three_components().denoiser(schedule)

    @jax.jit
    def run(seeds):
        noise_keys, keys = (jax.vmap(jax.random.fold_in)(keys_of(num, i), seeds) for i in range(2))
        x_T = sample_noise(noise_keys, (2,))
        return sample(denoiser, make(schedule), times, x_T, {}, keys)[0]

    x, new = run(jnp.zeros(num, int)), np.arange(num) % 2
    assert_law(x)
    other = run(jnp.asarray(new))
    np.testing.assert_array_equal(x[new == 0], other[new == 0])
    assert np.mean(np.abs(x - other)[new == 1] > 1e-3) > 0.95


def karras_times(steps=40):
    return time_grids.karras(SCHEDULES["flow"], steps).at[0].set(1.0)
