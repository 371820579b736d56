"""Generalised heavy-ball momentum (GHVB), Wizadwongsa et al. 2023."""

import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.multistep import History
from diffusion_jax.samplers.ode import SCALINGS, coordinate, norm, rise, slope, straight_step
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


@checked(order=(1, 2, 3, 4), beta="(0, 1]", scaling=SCALINGS)
def ghvb(schedule: Schedule, order: int = 2, beta: float = 0.8, scaling: str = "ve") -> Sampler:
    """Adams-Bashforth of `order` 1 to 4 along smoothed slopes (Sec. 4.2, Wizadwongsa et al. 2023).

    With `dy/du = f` as in `samplers.ode`, momentum damps what diverges in large steps:

        v_n = (1 - beta) v_{n-1} + beta f_n,    v_0 = f_0

    `beta` in (0, 1] is the damping, 1 is none. Steps along `v` alone are of first order (heavy
    ball). But with differences `D v_n = v_n - v_{n-1}`

        f_n = v_n + (1 / beta - 1) D v_n

    so that the step of order r, the integral I_r of the polynomial through the last r slopes, is
    `I_r(f) = I_r(v) + (1 / beta - 1) I_r(D v)`. Its last term needs one order less; GHVB is

        y_{n+1} = y_n + I_r(v) + (1 / beta - 1) I_{r-1}(D v),    I_0 = 0

    On equal steps, where `I_r = h (1 + D/2 + 5/12 D^2 + 3/8 D^3)` up to `D^{r-1}`, this has the
    published weights, such as `h ((2 + beta) v_n - (2 - beta) v_{n-1}) / (2 beta)` for r = 2. On
    others those are of order two at most, these of order r. As in all multistep methods the first
    steps are of lower order, and so is the error that they make.
    """

    def integral(history: History, h: Array) -> Array:
        moments = [h ** (j + 1) / (j + 1) for j in range(len(history.nodes))]
        whole = h * history.values[0] + multistep.correction(history, moments)
        return jnp.where(history.known > 0, whole, 0.0)

    def step(denoise: Denoise, state: History, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        x_0 = denoise(x_t, t).x_0
        u_t, h = coordinate(schedule, scaling, t), rise(schedule, scaling, t, s)
        f = slope(schedule, scaling, x_t, x_0, t)
        smooth = jnp.where(state.known > 0, (1 - beta) * state.values[0] + beta * f, f)
        state = multistep.push(state, u_t, smooth)
        change = integral(state, h) - h * f
        if beta < 1 and order > 1:
            values = state.values[:-1] - state.values[1:]
            differences = History(state.nodes[:-1], values, state.known - 1)
            change += (1 / beta - 1) * integral(differences, h)
        return straight_step(schedule, x_t, x_0, t, s) + norm(schedule, scaling, s) * change, state

    return Sampler(init=lambda x_T: multistep.empty(x_T, order), step=step)
