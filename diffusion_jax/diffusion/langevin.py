"""Critically damped Langevin diffusion (CLD): pixels have velocities, which receive the noise.

Eq. 5 of Dockhorn, Vahdat & Kreis 2022 for a pixel x and its velocity v, critically damped
(`Gamma^2 = 4 M`), from `v_0 ~ N(0, gamma M)`. In the time `dtau = beta dt / sqrt(M)`, and with
velocities in units of `sqrt(M)`, it is

    dx = v dtau,    dv = -(x + 2 v) dtau + 2 dW,    v_0 ~ N(0, gamma)

so that beta and M disappear. The drift has the double eigenvalue -1: it propagates a state by
`Phi = e^-tau (I + tau N)`, `N = [[1, 1], [-1, -1]]`, `N^2 = 0`. Propagated back to time 0, it is

    Phi^-1 (x, v) = (x_0, 0) + N(0, P),    P = diag(0, gamma) + int_0^tau g g^T dr,
    g(r) = Phi(r)^-1 (0, 2) = 2 e^r (-r, 1 + r)

The second entry is pure noise: `w`, in units of its standard deviation `sqrt(P_22)`. After
subtracting its regression on the second, the first entry is `x_0 + eps / sqrt(SNR)`,
`SNR = P_22 / det P`, with `eps` and `w` independent. The integrals evaluate, with
`k = 1 - (1 - gamma) e^-2tau`, `p = e^-2tau P_22 = 2 tau (1 + tau) + k` and `d = e^-4tau det P`, to

    SNR = e^-2tau p / d

with `v_0` integrated out (hybrid score matching). All information about `x_0` in a state is
therefore an ordinary noisy image, `sqrt(SNR) x_0 + eps`: any denoiser of such images is a denoiser
of states, and gives the score of their distribution. In these terms

* The probability flow, for a given `x_0`, rotates `(eps, w)` towards `w` at the angular rate

      dtheta / dlogsnr = (1 + tau) sqrt(d) / (2 tau k)

  because it is `y' = g g^T P^-1 y / 2` for `y = Phi^-1 (x, v) - (x_0, 0)`, where `P' = g g^T`. The
  rate tends to 1/2 in noise and to `sqrt(tau / (3 gamma))` in data; for large gamma it is 0 and the
  flow is the ordinary one.
* The reverse SDE, for a given `x_0`, does not rotate them: `y_s` given `y_t` has mean
  `P_s P_t^-1 y_t` and covariance `P_s - P_s P_t^-1 P_s`, in which `eps_s` depends on `eps_t` alone,
  and is `sqrt(SNR_t / SNR_s) eps_t` plus noise of variance `1 - SNR_t / SNR_s`. With the score from
  the same `x_0` for a whole step it is therefore ancestral sampling with the small variance.
"""

import dataclasses
import functools

import numpy as np

from diffusion_jax.diffusion.interpolation import linear
from diffusion_jax.types import Array

TAUS = np.geomspace(1e-7, 40.0, 8192)  # of the table of angles, for logsnr from 48 down to -72


@dataclasses.dataclass(frozen=True)
class Langevin:
    """The CLD process; times `tau > 0` `[...]` are NumPy arrays."""

    gamma: float = 0.04  # initial variance of the velocities, relative to the final one

    def logsnr(self, tau: np.ndarray) -> np.ndarray:
        """Log signal-to-noise ratio of the image in a state, decreasing in `tau`."""
        _, p, d = self._terms(tau)
        return np.log(p / d) - 2 * tau

    def angle(self, logsnr: Array) -> Array:
        """Angle by which the flow has rotated `(eps, w)` at a `logsnr` of any shape.

        Interpolated, with an error of at most 1e-5. Constant beyond the table, so that it is finite
        at +-inf, where the true angle is not: without signal every angle gives the same
        distribution.
        """
        logsnrs, angles = self._table
        return linear(logsnr, logsnrs, angles)

    @functools.cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """Increasing `logsnr` and the angles there, by the trapezoidal rule."""
        logsnr = self.logsnr(TAUS)[::-1]
        k, _, d = self._terms(TAUS)
        rate = ((1 + TAUS) * np.sqrt(d) / (2 * TAUS * k))[::-1]
        angle = np.cumsum(np.diff(logsnr) * (rate[1:] + rate[:-1]) / 2)
        return logsnr, np.append(0.0, angle) - np.interp(0.0, logsnr[1:], angle)

    def _terms(self, tau: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """`k`, `p` and `d`; the only cancellation, in `d`, is between 4/3 and 1."""
        from scipy.special import gammainc  # here: the import is slow, and few runs need it

        decay, square = np.exp(-2 * tau), 1 + 2 * tau + 2 * tau**2
        # 1 - decay * square, the variance of x for v_0 = 0.
        a = gammainc(3, 2 * tau)
        k = self.gamma - (1 - self.gamma) * np.expm1(-2 * tau)
        d = a * (a + 4 * tau * decay) - (2 * tau**2 * decay) ** 2
        d += self.gamma * decay * (a + 4 * tau**4) / square
        return k, 2 * tau * (1 + tau) + k, d
