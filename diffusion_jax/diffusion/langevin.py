"""Critically damped Langevin diffusion (CLD): every pixel has a velocity, and noise enters there.

Eq. 5 of Dockhorn, Vahdat & Kreis 2022 for a pixel x and its velocity v, critically damped
(`Gamma^2 = 4 M`), from `v_0 ~ N(0, gamma M)`. In the time `dtau = beta dt / sqrt(M)` and in units
of `sqrt(M)` for the velocity it is

    dx = v dtau,    dv = -(x + 2 v) dtau + 2 dW,    v_0 ~ N(0, gamma)

so that beta and M are no settings. The drift has the double eigenvalue -1: it takes a state on by
`Phi = e^-tau (I + tau N)`, `N = [[1, 1], [-1, -1]]`, `N^2 = 0`. Taken back to time 0 a state is

    Phi^-1 (x, v) = (x_0, 0) + N(0, P),    P = diag(0, gamma) + int_0^tau g g^T dr,
    g(r) = Phi(r)^-1 (0, 2) = 2 e^r (-r, 1 + r)

Its second entry is noise alone: `w`, in units of its standard deviation `sqrt(P_22)`. Without its
regression on that the first is `x_0 + eps / sqrt(SNR)`, `SNR = P_22 / det P`, and `eps` and `w` are
independent. With the integrals done, and with `k = 1 - (1 - gamma) e^-2tau`,
`p = e^-2tau P_22 = 2 tau (1 + tau) + k` and `d = e^-4tau det P`,

    (x, v) = mu x_0 + e eps + f w,    SNR = e^-2tau p / d
    mu = e^-tau (1 + tau, -tau),  e = mu / sqrt(SNR),  f = (tau k, 2 tau + (1 - tau) k) / sqrt(p)

in which `e e^T + f f^T` is the covariance of App. B there, with `v_0` integrated out (hybrid score
matching). So all that a state says of `x_0` is an ordinary noisy picture, `sqrt(SNR) x_0 + eps`:
any denoiser of such pictures is one of states, and gives the score of their law. In these terms

* The probability flow, for a given `x_0`, turns `(eps, w)` towards `w` by an angle of rate

      dtheta / dlogsnr = (1 + tau) sqrt(d) / (2 tau k)

  For it is `y' = g g^T P^-1 y / 2` for `y = Phi^-1 (x, v) - (x_0, 0)`, in which `P' = g g^T`. The
  rate tends to 1/2 in noise and to `sqrt(tau / (3 gamma))` in data; for large gamma it is 0 and the
  flow the ordinary one.
* The reverse SDE, for a given `x_0`, does not turn them: `y_s` given `y_t` has mean
  `P_s P_t^-1 y_t` and covariance `P_s - P_s P_t^-1 P_s`, in which `eps_s` depends on `eps_t` alone,
  and is `sqrt(SNR_t / SNR_s) eps_t` with noise of variance `1 - SNR_t / SNR_s`. So with the score
  taken from the same `x_0` for a whole step it is ancestral sampling with the small variance.
"""

import dataclasses
import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.prediction import per_sample
from diffusion_jax.types import Array

TAUS = np.geomspace(1e-7, 40.0, 8192)
"""Where angles are tabled: from a logsnr of 48 to one of -72."""


class Basis(NamedTuple):
    """What a state is made of, each `[2, ...]` for times `[...]`, in float64.

    Attributes:
        mu: of `x_0`.
        e: of the noise in the picture.
        f: of the noise that is not in the picture.
    """

    mu: np.ndarray
    e: np.ndarray
    f: np.ndarray


@dataclasses.dataclass(frozen=True)
class Langevin:
    """The process; times `tau > 0` `[...]` are NumPy's, pixels and velocities `[*tau, ...]`.

    Attributes:
        gamma: variance of the first velocities, in units of their last.
    """

    gamma: float = 0.04

    def basis(self, tau: np.ndarray) -> Basis:
        """`mu`, `e` and `f`."""
        k, p, d = self._terms(tau)
        direction = np.stack([1 + tau, -tau])
        f = np.stack([tau * k, 2 * tau + (1 - tau) * k]) / np.sqrt(p)
        return Basis(np.exp(-tau) * direction, np.sqrt(d / p) * direction, f)

    def logsnr(self, tau: np.ndarray) -> np.ndarray:
        """Log signal-to-noise ratio of the picture in a state, falling."""
        _, p, d = self._terms(tau)
        return np.log(p / d) - 2 * tau

    def diffuse(self, x_0: Array, eps: Array, w: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """`(x, v) = mu x_0 + e eps + f w` from `x_0` and standard normal `eps`, `w`."""
        x, v = (_combined(row, (x_0, eps, w)) for row in np.stack(self.basis(tau), axis=1))
        return x, v

    def split(self, x: Array, v: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """The picture in units of its noise, `x_t / sigma_t = sqrt(SNR) x_0 + eps`, and `w`."""
        return self._solve(x, v, tau, transposed=False)

    def score(self, x: Array, v: Array, x_0: Array, tau: np.ndarray) -> tuple[Array, Array]:
        """Gradient by x and v of their log density, `x_0` being its mean given (x, v) (Tweedie).

        `-(e e^T + f f^T)^-1 ((x, v) - mu x_0)`.
        """
        picture, w = self.split(x, v, tau)
        eps = _combined((np.ones_like(tau), -np.exp(0.5 * self.logsnr(tau))), (picture, x_0))
        s_x, s_v = self._solve(eps, w, tau, transposed=True)
        return -s_x, -s_v

    def angle(self, logsnr: Array) -> Array:
        """By how much the flow has turned `(eps, w)` at a log signal-to-noise ratio, any shape.

        Interpolated, to 1e-5 and better. Constant beyond the table, so that it is finite at +-inf,
        where in truth it is not: without signal any angle gives the same law.
        """
        logsnrs, angles = self._table
        return jnp.interp(logsnr, logsnrs, angles)

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Rising `logsnr`, and angles there, by the trapezoidal rule."""
        logsnr = self.logsnr(TAUS)[::-1]
        k, _, d = self._terms(TAUS)
        rate = ((1 + TAUS) * np.sqrt(d) / (2 * TAUS * k))[::-1]
        angle = np.cumsum(np.diff(logsnr) * (rate[1:] + rate[:-1]) / 2)
        return logsnr, np.append(0.0, angle) - np.interp(0.0, logsnr[1:], angle)

    def _terms(self, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`k`, `p` and `d`; the one difference of near numbers, in `d`, is of 4/3 and 1."""
        from scipy.special import gammainc  # here, as it is slow to import, and few runs come by

        decay, square = np.exp(-2 * tau), 1 + 2 * tau + 2 * tau**2
        # 1 - decay * square, the variance of x for v_0 = 0.
        a = gammainc(3, 2 * tau)
        k = self.gamma - (1 - self.gamma) * np.expm1(-2 * tau)
        d = a * (a + 4 * tau * decay) - (2 * tau**2 * decay) ** 2
        d += self.gamma * decay * (a + 4 * tau**4) / square
        return k, 2 * tau * (1 + tau) + k, d

    def _solve(self, x: Array, v: Array, tau: np.ndarray, transposed: bool) -> tuple[Array, Array]:
        """The inverse of the matrix with columns `e` and `f`, or of its transpose, times (x, v)."""
        _, (e_x, e_v), (f_x, f_v) = self.basis(tau)
        rows = ((f_v, -e_v), (-f_x, e_x)) if transposed else ((f_v, -f_x), (-e_v, e_x))
        first, second = (_combined(row, (x, v)) for row in np.array(rows) / (e_x * f_v - e_v * f_x))
        return first, second


def _combined(coefficients: Iterable[np.ndarray], parts: Iterable[Array]) -> Array:
    """`sum_i c_i y_i` of coefficients `[]` or `[B]` and `y_i` `[B, ...]`."""
    terms = [per_sample(jnp.asarray(c), y) * y for c, y in zip(coefficients, parts, strict=True)]
    return jnp.sum(jnp.stack(terms), axis=0)
