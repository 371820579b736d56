"""The exact flow of a mixture, and one compiled program per solver for all schedules and grids.

In `y = x / (alpha + sigma)` and `u = sigma / (alpha + sigma)` the probability-flow ODE is the same
for every schedule, `dy/du = eps - x_0` with `alpha = 1 - u` and `sigma = u`: it is solved once.
Solvers use a schedule only through its values, so the program takes a schedule as a table.
"""

import dataclasses
import functools
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp

from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, three_components

MOST = 800
"""Largest number of steps of a run."""
LAMBDA = 2.5
"""Orders are measured for `log(alpha / sigma)` from -LAMBDA to LAMBDA."""
LEAST = 1e-4
"""End of the exact flow: from there to `u = 0` it is straight to 1e-8."""
START = np.array([[1.0, 0.3], [-0.4, -1.2], [0.5, 1.1], [-1.5, 0.2]])


def between(nodes, values, t):
    """Linear interpolation of `values` at ascending `nodes`; constant beyond the ends."""
    # Counting compiles and runs faster than the search in jnp.interp.
    i = jnp.clip(jnp.sum(nodes <= jnp.expand_dims(t, -1), axis=-1) - 1, 0, len(nodes) - 2)
    share = jnp.clip((t - nodes[i]) / (nodes[i + 1] - nodes[i]), 0, 1)
    return (1 - share) * values[i] + share * values[i + 1]


@dataclasses.dataclass(frozen=True)
class Table(Schedule):
    """A schedule given by its values at ascending `nodes`, with linear interpolation."""

    nodes: jax.Array
    alphas: jax.Array
    sigmas: jax.Array

    def scales(self, t):
        return between(self.nodes, self.alphas, t), between(self.nodes, self.sigmas, t)


def values(name, times):
    """`alpha` and `sigma` at `times`, NumPy."""
    return _values(name, tuple(times))


@functools.cache
def _values(name, times):
    schedule, times = SCHEDULES[name], jnp.asarray(times)
    return np.asarray(schedule.alpha(times)), np.asarray(schedule.sigma(times))


@functools.cache
def flow():
    """`u -> y` `[..., B, D]` from `START` at `u = 1`."""
    posterior_mean = jax.jit(three_components().posterior_mean)

    def velocity(u, y):
        y = y.reshape(START.shape)
        return ((y - np.asarray(posterior_mean(y, 1 - u, u))) / u).ravel()

    with jax.enable_x64(True):
        y = solve_ivp(
            velocity, (1, LEAST), START.ravel(), "DOP853", dense_output=True, rtol=1e-12, atol=1e-13
        ).sol
        rate = velocity(LEAST, y(LEAST))

    def at(u):
        u = np.asarray(u, np.float64)
        states = y(np.maximum(u, LEAST)) + np.minimum(u - LEAST, 0) * rate[:, None]
        return states.T.reshape(*u.shape, *START.shape)

    return at


def exact_states(name, times):
    """Exact states `[N + 1, B, D]` at `times`, float64."""
    alpha, sigma = values(name, times)
    return (alpha + sigma)[:, None, None] * flow()(sigma / (alpha + sigma))


@functools.cache
def program(factory, dtype, name=None):
    """Program of a solver in `dtype`; everything that differs between runs is an argument.

    With a `name` the solver gets that schedule itself instead of the table.
    """
    mixture = three_components()

    @jax.jit
    def run(table, times, steps, x, exact, forced, constant):
        schedule = SCHEDULES[name] if name else Table(*table)
        sampler = factory(schedule)

        def denoise(x_t, t):
            x_0 = mixture.posterior_mean(x_t, schedule.alpha(t), schedule.sigma(t))
            x_0 = jnp.where(jnp.isnan(constant), x_0, constant)
            return Denoised(jnp.where(schedule.sigma(t) > 0, x_0, jnp.nan))

        def body(i, carry):
            states, state = carry
            x, state = sampler.step(denoise, state, states[i], times[i], times[i + 1], None)
            for _ in range(sampler.extra):  # in the first step, as in `samplers.loop`
                again = sampler.step(denoise, state, x, times[i + 1], times[i + 1], None)
                x, state = jax.tree.map(partial(jnp.where, i == 0), again, (x, state))
            if hasattr(state, "x"):
                state = state._replace(x=jnp.where(i < forced, exact[i], state.x))
            x = jnp.where(i < forced, exact[i + 1], x)
            return states.at[i + 1].set(x), state

        states = jnp.zeros((MOST + 1, *x.shape), x.dtype).at[0].set(x)
        return jax.lax.fori_loop(0, steps, body, (states, sampler.init(x)))[0]

    return run


def run(
    factory, name, times, x, exact=0.0, forced=0, constant=np.nan, dtype=np.float64, itself=False
):
    """States `[N + 1, B, D]` of a solver at `times` `[N + 1]`, from `x`.

    The denoiser is that of the mixture, or returns `constant` `[B, D]`; NaN at `sigma = 0`.

    The first `forced` states are replaced by the `exact` ones, also in the solver's history, so
    that a multistep method starts without initial errors. With `itself` the solver has the
    schedule between times too.
    """
    steps = len(times) - 1
    order = np.argsort(times)
    beyond = 2.0 + np.arange(MOST - steps)
    table = [np.concatenate([np.asarray(times)[order], beyond])]
    table += [np.pad(v[order], (0, MOST - steps), "edge") for v in values(name, times)]
    known = np.zeros((MOST + 1, *x.shape))
    known[: steps + 1] = exact
    constant = np.broadcast_to(constant, x.shape)
    arrays = (table, np.pad(times, (0, MOST - steps)), x, known, constant)
    table, times, x, known, constant = jax.tree.map(lambda a: jnp.asarray(a, dtype), arrays)
    solve = program(factory, dtype, name if itself else None)
    states = solve(table, times, steps, x, known, forced, constant)
    return np.asarray(states)[: steps + 1]


def evenly(name, steps):
    """Times evenly spaced in `t`."""
    ends = SCHEDULES[name].time_at(jnp.array([-2 * LAMBDA, 2 * LAMBDA]))
    return np.linspace(*np.asarray(ends), steps + 1)


def even_ratios(name, steps):
    """Times evenly spaced in `sigma / alpha`, from 2 to 0.3: beyond, steps are large."""
    ratio = np.linspace(2.0, 0.3, steps + 1)
    return np.asarray(SCHEDULES[name].time_at(jnp.asarray(-2 * np.log(ratio))))


def whole(name, steps):
    """Times from 1 to 0, even in `t`, or in `logsnr` if that is finite at both ends."""
    schedule, ends = SCHEDULES[name], jnp.array([1.0, 0.0])
    logsnr = schedule.logsnr(ends)
    if not np.isfinite(logsnr).all():
        return np.linspace(1, 0, steps + 1)
    times = schedule.time_at(jnp.linspace(*logsnr, steps + 1))
    return np.asarray(times.at[0].set(1.0).at[-1].set(0.0))


@functools.cache
def problem(name, steps, grid):
    """Times and exact states."""
    times = grid(name, steps)
    return times, exact_states(name, times)


def measured_order(factory, name, steps=(400, 800), grid=evenly, forced=0, itself=False):
    """Order of convergence, from the last states of two runs."""
    errors = []
    for n in steps:
        times, exact = problem(name, n, grid)
        states = run(factory, name, times, exact[0], exact, forced, itself=itself)
        errors.append(np.max(np.abs(states[-1] - exact[-1])))
    return np.log(errors[0] / errors[1]) / np.log(steps[1] / steps[0])


def order_of_return(factory, name):
    """Order of the distance from the start after a run to noise and back."""
    distances = []
    for n in (100, 200):
        times, exact = problem(name, n, evenly)
        noisy = run(factory, name, times[::-1], exact[-1])[-1]
        distances.append(np.max(np.abs(run(factory, name, times, noisy)[-1] - exact[-1])))
    return np.log2(distances[0] / distances[1])


def assert_whole(factory, name, tolerance):
    """In float32: from `t = 1` to 0 it equals the exact flow, and from 0.1 to 1 it is finite."""
    times, exact = problem(name, 40, whole)
    states = run(factory, name, times, exact[0], dtype=np.float32)
    assert np.isfinite(states).all()
    assert np.max(np.abs(states[-1] - exact[-1])) < tolerance
    back = run(factory, name, np.linspace(0.1, 1, 41), exact[-1], dtype=np.float32)
    assert np.isfinite(back).all()


def constant_states(factory, name, times):
    """States of a solver with a constant denoiser, and the exact ones."""
    x_0 = np.random.default_rng(0).normal(size=START.shape)
    alpha, sigma = (v[:, None, None] for v in values(name, times))
    states = run(factory, name, np.array(times), START, constant=x_0)
    return states, alpha * x_0 + sigma * (START - alpha[0] * x_0) / sigma[0]


def times_asked(factory, name, times):
    """Times of the denoiser calls in each step, and the solver itself."""
    sampler, x = factory(SCHEDULES[name]), jnp.asarray(START)
    state, asked = sampler.init(x), []

    def denoise(x_t, t):
        asked[-1].append(float(t))
        return Denoised(0.5 * x_t)

    with jax.disable_jit():
        for t, s in itertools.pairwise(jnp.asarray(times)):
            asked.append([])
            x, state = sampler.step(denoise, state, x, t, s, None)
            for _ in range(sampler.extra if len(asked) == 1 else 0):
                x, state = sampler.step(denoise, state, x, s, s, None)
    return asked, sampler


@functools.cache
def _posterior_mean():
    return jax.jit(three_components().posterior_mean)


def x_0_hat(x, alpha, sigma):
    """The denoiser of all these runs, for formulas in NumPy."""
    return np.asarray(_posterior_mean()(x, alpha, sigma))


def few(name, steps=6):
    """A short run for published formulas: times, `alpha`, `sigma`, `lambda` and the first state."""
    times = np.linspace(0.9, 0.2, steps + 1) ** 2
    alpha, sigma = values(name, times)
    return times, alpha, sigma, np.log(alpha / sigma), START * sigma[0]
