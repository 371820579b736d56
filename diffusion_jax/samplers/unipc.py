"""UniPC, a predictor and a corrector that cost one evaluation together (Zhao et al. 2023)."""

from typing import NamedTuple

import jax.numpy as jnp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.samplers import multistep
from diffusion_jax.samplers.exponential import DATA, moments, step_size
from diffusion_jax.samplers.ode import straight_step
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Denoise, Sampler


class UniPCState(NamedTuple):
    """What a step leaves for the corrector of the next.

    Attributes:
        x: `[B, ...]`, the corrected `x_t`.
        t: `[]`, its time.
        history: `x_0_hat` at `t` and before.
    """

    x: Array
    t: Array
    history: multistep.History


@checked(order=(1, 2, 3), variant=("bh1", "bh2"))
def unipc(schedule: Schedule, order: int = 2, variant: str = "bh2") -> Sampler:
    """UniPC of `order` 1, 2 or 3 in its form for data prediction (Sec. 3, Zhao et al. 2023).

    Before a step, `x_t` is made anew from the `x` before it by the polynomial in `lambda` through
    the last `order` values `x_0_hat` and that at `x_t`, which the step from `t` needs anyway
    (UniC); then `x_s` is predicted by the polynomial through the last `order` values (UniP). Both
    are exponential Adams methods (see `exponential`), and `B(h)` matters only for polynomials of
    degree one, whose coefficient is set to 1/2: there `int e^(tau - h) tau dtau` becomes
    `h B(h) / 2` with `B(h) = h` ("bh1") or `1 - e^-h` ("bh2"). The order of convergence is
    `order + 1`. Fewer values are used in the first steps, and DDIM in a step to `sigma_s = 0`.
    """

    def change(history: multistep.History, t: Array, s: Array) -> Array:
        h, _ = step_size(DATA, schedule, t, s)
        m = moments(h, len(history.nodes))
        if len(m) > 1:
            b = h if variant == "bh1" else m[0]
            m[1] = jnp.where(history.known == 2, h * b / 2, m[1])
        return schedule.alpha(s) * multistep.correction(history, m)

    def corrected(state: UniPCState, x_t: Array, x_0: Array, t: Array) -> Array:
        history = state.history
        node = DATA.node(schedule, t)
        node = jnp.where(jnp.isfinite(node), node, 0.0)[None]
        extended = multistep.History(
            jnp.concatenate([history.nodes[:1], node, history.nodes[1:]]),
            jnp.concatenate([history.values[:1], x_0[None], history.values[1:]]),
            history.known + 1,
        )
        straight = straight_step(schedule, state.x, history.values[0], state.t, t)
        x = straight + change(extended, state.t, t)
        return jnp.where(history.known > 0, x, x_t)

    def step(
        denoise: Denoise, state: UniPCState, x_t: Array, t: Array, s: Array, keys: Array
    ) -> tuple[Array, UniPCState]:
        x_0 = denoise(x_t, t).x_0
        x_t = corrected(state, x_t, x_0, t)
        history = multistep.push(state.history, DATA.node(schedule, t), x_0)
        x_s = straight_step(schedule, x_t, x_0, t, s) + change(history, t, s)
        return x_s, UniPCState(x_t, t.astype(x_t.dtype), history)

    # Time 1 stands for no time: there sigma > 0.
    return Sampler(
        init=lambda x_T: UniPCState(x_T, jnp.ones((), x_T.dtype), multistep.empty(x_T, order)),
        step=step,
    )
