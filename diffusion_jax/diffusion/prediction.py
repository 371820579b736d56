"""Prediction types, and the conversion of a network's output to `x_0`.

Every prediction type is a linear combination of data and noise, `y = p_t x_0 + q_t eps`:

| type       | p_t      | q_t          | source                                            |
|------------|----------|--------------|---------------------------------------------------|
| `eps`      | 0        | 1            | noise, Ho et al. 2020                             |
| `x0`       | 1        | 0            | data                                              |
| `v`        | -sigma_t | alpha_t      | Salimans & Ho 2022, App. D                        |
| `velocity` | alpha'_t | sigma'_t     | dx_t/dt at fixed x_0, eps: Lipman et al. 2023     |
| `score`    | 0        | -1 / sigma_t | grad log q(x_t given x_0), Song et al. 2021       |
| `edm`      | see the function `edm`  | preconditioned, Karras et al. 2022                |

With `x_t = alpha_t x_0 + sigma_t eps` this is a 2 x 2 system with determinant
`d_t = alpha_t q_t - sigma_t p_t`, so that

    x_0 = (q_t x_t - sigma_t y) / d_t

and at given `x_t` an error in `y` is `-d_t / sigma_t` times the error in `x_0`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Array, Cond

Network = Callable[[Array, Array, Cond], Array]
"""`(x_t [B, ..., C], time [B], cond) -> y [B, ..., C]`; `[B, ..., 2C]` with learned variance."""


class Prediction(NamedTuple):
    """A prediction type; all functions are elementwise in `t`."""

    coefficients: Callable[[Schedule, Array], tuple[Array, Array]]  # `(schedule, t) -> (p_t, q_t)`
    # `(schedule, t) -> c_in`: the network's input is `c_in x_t`
    input_scale: Callable[[Schedule, Array], Array] = lambda _, t: jnp.ones_like(t)

    def network_input(self, schedule: Schedule, x_t: Array, t: Array) -> Array:
        """The network's input for `x_t` `[B, ...]`."""
        return per_sample(self.input_scale(schedule, t), x_t) * x_t

    def target(self, schedule: Schedule, x_0: Array, eps: Array, t: Array) -> Array:
        """`y = p_t x_0 + q_t eps` for `x_0`, `eps` `[B, ...]` and `t` `[B]`."""
        p, q = (per_sample(c, x_0) for c in self.coefficients(schedule, t))
        return p * x_0 + q * eps

    def determinant(self, schedule: Schedule, t: Array) -> Array:
        """`d_t = alpha_t q_t - sigma_t p_t`, shaped like `t`."""
        p, q = self.coefficients(schedule, t)
        return schedule.alpha(t) * q - schedule.sigma(t) * p

    def to_x_0(self, schedule: Schedule, x_t: Array, y: Array, t: Array) -> Array:
        """The `x_0` that corresponds to output `y` at `x_t` `[B, ...]`; needs `sigma_t > 0`."""
        (_, q), d = self.coefficients(schedule, t), self.determinant(schedule, t)
        q, sigma, d = (per_sample(c, x_t) for c in (q, schedule.sigma(t), d))
        return (q * x_t - sigma * y) / d

    def from_x_0(self, schedule: Schedule, x_t: Array, x_0: Array, t: Array) -> Array:
        """The output that corresponds to `x_0` at `x_t` `[B, ...]`; needs `sigma_t > 0`."""
        alpha, sigma = (per_sample(c, x_t) for c in schedule.scales(t))
        return self.target(schedule, x_0, (x_t - alpha * x_0) / sigma, t)


def edm(sigma_data: float = 0.5) -> Prediction:
    """EDM's preconditioning (Table 1 and App. B.6, Karras et al. 2022) for any schedule.

    Input and target have unit variance for data of standard deviation `sigma_data`, and output
    errors are amplified least: with `n_t^2 = alpha_t^2 sigma_data^2 + sigma_t^2`

        c_in = 1 / n_t,  c_skip = alpha_t sigma_data^2 / n_t^2,  c_out = sigma_t sigma_data / n_t

    and `x_0_hat = c_skip x_t + c_out y`. With `sigma_data = 1` on a variance-preserving schedule
    `y` is `-v`. The network's time input is `t` instead of `log(sigma) / 4`.
    """

    def norm(schedule: Schedule, t: Array) -> Array:
        return jnp.hypot(schedule.alpha(t) * sigma_data, schedule.sigma(t))

    def coefficients(schedule: Schedule, t: Array) -> tuple[Array, Array]:
        n = norm(schedule, t)
        return schedule.sigma(t) / (sigma_data * n), -schedule.alpha(t) * sigma_data / n

    return Prediction(coefficients, lambda schedule, t: 1 / norm(schedule, t))


PREDICTIONS = {
    "eps": Prediction(lambda _, t: (jnp.zeros_like(t), jnp.ones_like(t))),
    "x0": Prediction(lambda _, t: (jnp.ones_like(t), jnp.zeros_like(t))),
    "v": Prediction(lambda schedule, t: (-schedule.sigma(t), schedule.alpha(t))),
    "velocity": Prediction(lambda schedule, t: schedule.rates(t)),
    "score": Prediction(lambda schedule, t: (jnp.zeros_like(t), -1 / schedule.sigma(t))),
    "edm": edm(),
}


def per_sample(coefficient: Array, x: Array) -> Array:
    """Reshapes a coefficient `[B]` (or `[]`) so that it multiplies `x` `[B, ...]`."""
    return coefficient.reshape(coefficient.shape + (1,) * (x.ndim - coefficient.ndim))


def split_variance(y: Array) -> tuple[Array, Array]:
    """Splits `[..., 2C]` into prediction `[..., C]` and variance fraction (Nichol & Dhariwal 2021).

    The network's second half in [-1, 1] is mapped to the fraction in [0, 1] of `Denoised`.
    """
    y, variance = jnp.split(y, 2, axis=-1)
    return y, (variance + 1) / 2
