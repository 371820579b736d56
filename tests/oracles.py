"""Closed-form cases: Gaussian mixtures, whose every marginal under diffusion is a mixture too.

With `x_0 ~ sum_k w_k N(m_k, C_k)` and `x_t = alpha_t x_0 + sigma_t eps`, given the component k

    x_t ~ N(alpha_t m_k, S_k),  S_k = alpha_t^2 C_k + sigma_t^2 I
    E[x_0 | x_t, k] = m_k + alpha_t C_k S_k^-1 (x_t - alpha_t m_k)

and the probability of k is proportional to w_k N(x_t; alpha_t m_k, S_k). Nothing here uses the
mathematics of the package: a schedule is asked for `alpha` and `sigma` only.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import schedules
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
"""Those with no noise at t = 0; the others are stated by a logsnr that is finite there."""


@functools.cache
def times_of(name: str) -> np.ndarray:
    """Times of a schedule from little noise to much, `[6]`, away from its ends and its kinks."""
    logsnr = jnp.array([9.0, 5.03, 1.0, -1.0, -3.5, -8.0])
    return np.asarray(jnp.clip(SCHEDULES[name].time_at(logsnr), 1.5e-3, 0.9995))


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
            component_key, len(self.weights), (num,), p=jnp.asarray(self.weights)
        )
        values, vectors = np.linalg.eigh(self.covs)
        root = jnp.asarray(vectors * np.sqrt(np.maximum(values, 0))[:, None, :])[components]
        eps = jax.random.normal(noise_key, (num, self.means.shape[1]), root.dtype)
        return jnp.asarray(self.means)[components] + _product(root, eps[..., None])[..., 0]

    def moments(self, alpha: float = 1.0, sigma: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Mean `[D]` and covariance `[D, D]` of `alpha x_0 + sigma eps`."""
        mean = self.weights @ self.means
        second = np.einsum("k,kij->ij", self.weights, self.covs) + np.einsum(
            "k,ki,kj->ij", self.weights, self.means, self.means
        )
        cov = second - np.outer(mean, mean)
        return alpha * mean, alpha**2 * cov + sigma**2 * np.eye(len(mean))

    def log_density(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """`log q(x_t)` `[B]` at `x` for `alpha`, `sigma` `[B]` or `[]`."""
        return jax.nn.logsumexp(self._solve(x, alpha, sigma)[0], axis=0)

    def responsibilities(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """Probability of each component given `x_t`, `[B, K]`."""
        return jax.nn.softmax(self._solve(x, alpha, sigma)[0], axis=0).T

    def score(self, x: Array, alpha: Array, sigma: Array) -> Array:
        """`grad log q(x_t)`, `[B, D]`."""
        logits, solved, _ = self._solve(x, alpha, sigma)
        return -jnp.sum(jax.nn.softmax(logits, axis=0)[:, None] * solved, axis=0).T

    def posterior_mean(
        self, x: Array, alpha: Array, sigma: Array, label: Array | None = None
    ) -> Array:
        """`E[x_0 | x_t]` `[B, D]`; given the component too where `label` `[B]` is not -1."""
        logits, _, moved = self._solve(x, alpha, sigma)
        if label is not None:
            other = jnp.arange(len(self.weights))[:, None] != label
            logits = jnp.where(other & (label >= 0), -jnp.inf, logits)
        return jnp.sum(jax.nn.softmax(logits, axis=0)[:, None] * moved, axis=0).T

    def denoiser(self, schedule: schedules.Schedule) -> Denoiser:
        """The exact denoiser; `cond["label"]`, if there, is the component, and -1 none."""

        def denoise(x_t: Array, t: Array, cond: Cond) -> Denoised:
            alpha, sigma = schedule.alpha(t), schedule.sigma(t)
            return Denoised(self.posterior_mean(x_t, alpha, sigma, cond.get("label")))

        return denoise

    def _solve(self, x: Array, alpha: Array, sigma: Array) -> tuple[Array, Array, Array]:
        """Per component: log joint `[K, B]`, `S_k^-1 (x - alpha m_k)`, `E[x_0 | x, k]` `[K, D, B]`.

        In the eigenbasis of C_k, the same at all times, S_k is diagonal.
        """
        values, vectors = np.linalg.eigh(self.covs)
        values, means = jnp.asarray(values)[..., None], jnp.asarray(self.means)[..., None]
        variances = alpha**2 * values + sigma**2
        rotated = _product(np.swapaxes(vectors, 1, 2), x.T - alpha * means)
        logits = jnp.log(jnp.asarray(self.weights))[:, None] - 0.5 * jnp.sum(
            rotated**2 / variances + jnp.log(2 * jnp.pi * variances), axis=1
        )
        solved = _product(vectors, rotated / variances)
        return logits, solved, means + alpha * _product(self.covs, solved)


def gaussian(std: float, dim: int = 1) -> GaussianMixture:
    """`N(0, std^2 I)`."""
    return GaussianMixture(np.ones(1), np.zeros((1, dim)), std**2 * np.eye(dim)[None])


def three_components() -> GaussianMixture:
    """A plane mixture in which no two weights, means or covariances are the same."""
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


def standard_scores(x: Array) -> np.ndarray:
    """How many standard errors each weight, mean and covariance of the mixture is off, `[21]`.

    With the exact responsibilities r_k(x): E r_k = w_k, E r_k (x - m_k) = 0 and
    E r_k ((x - m_k)(x - m_k)^T - C_k) = 0, each a mean of independent terms.
    """
    mixture = three_components()
    r = np.asarray(mixture.responsibilities(x, 1.0, 0.0), np.float64)
    d = np.asarray(x, np.float64)[:, None] - mixture.means
    outer = d[..., :, None] * d[..., None, :] - mixture.covs
    terms = [r - mixture.weights, r[..., None] * d, r[..., None, None] * outer]
    terms = np.concatenate([term.reshape(len(x), -1) for term in terms], axis=1)
    return terms.mean(0) / (terms.std(0) / np.sqrt(len(x)))


def assert_law(x: Array, what: object = "") -> None:
    """21 statistics within 5 standard errors: false-alarm rate 1e-5, were there no bias.

    5 standard errors of 4,000 samples are about 0.04 in a weight and 15% in a variance.
    """
    scores = standard_scores(x)
    assert np.max(np.abs(scores)) < 5, (what, scores)


def _product(matrices: np.ndarray, x: Array) -> Array:
    """`matrices[..., i, j] x[..., j, B]`, in full precision on every device."""
    return jnp.matmul(jnp.asarray(matrices), x, precision="highest")
