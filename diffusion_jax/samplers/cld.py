"""The probability flow of critically damped Langevin diffusion, for any denoiser and schedule."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.langevin import Langevin
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.ddim import noise_estimate
from diffusion_jax.samplers.exponential import DATA, step_size
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler, Step


class State(NamedTuple):
    """Sampler state besides `x_t`."""

    w: Array  # `[B, ...]`, noise of the velocities, independent of the image's
    drawn: Array  # `[]`, whether `w` has been drawn
    history: multistep.History  # `x_0_hat` at `t` and before


@checked(order=(1, 2), gamma="[0, inf)")
def cld(schedule: Schedule, order: int = 2, gamma: float = 0.04) -> Sampler:
    """DDIM in the space of pixels and velocities (gDDIM, Zhang, Tao & Chen 2023), order 1 or 2.

    As derived in `langevin`, a state is the image `x_t`, on the scale of any schedule, and a normal
    `w` independent of it, drawn at the start. With `theta` the angle from `t` to `s`

        eps_s = cos(theta) eps_hat - sin(theta) w_t,    x_s = alpha_s x_0_hat + sigma_s eps_s
        w_s = sin(theta) eps_hat + cos(theta) w_t

    which is exact if `x_0_hat` is constant over the step. Order 2 replaces it by

        D = x_0_hat(t) + h / (2 h_-) (x_0_hat(t) - x_0_hat(t_-))

    with h and h_- this step and the last in logsnr, as in DPM-Solver++(2M), unless one of them is
    infinite. With the noise of the reverse SDE the sampler would be `ancestral` with the small
    variance, and in order 2 `sde.dpmpp_sde_multistep`, for any gamma (see `langevin`).
    """
    process = Langevin(gamma)

    def init(x_T: Array) -> State:
        return State(jnp.zeros_like(x_T), jnp.array(False), multistep.empty(x_T, order))

    def step(denoise: Denoise, state: State, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        w = jax.lax.cond(state.drawn, lambda: state.w, lambda: sample_noise(keys, x_t.shape[1:]))
        x_0 = denoise(x_t, t).x_0
        history = multistep.push(state.history, DATA.node(schedule, t), x_0)
        h, _ = step_size(DATA, schedule, t, s)
        x_0 = x_0 + multistep.correction(history, h, [h, h / 2])
        eps = noise_estimate(schedule, x_t, x_0, t)
        theta = process.angle(schedule.logsnr(s)) - process.angle(schedule.logsnr(t))
        cos, sin = jnp.cos(theta), jnp.sin(theta)
        x_s = schedule.alpha(s) * x_0 + schedule.sigma(s) * (cos * eps - sin * w)
        return x_s, State(sin * eps + cos * w, jnp.array(True), history)

    return Sampler(init=init, step=step, stochastic=True)
