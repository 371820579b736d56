"""Optimisation of the sampling times, on a mixture with three components."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.from_config import ConfigError, build, grids_to_start_from
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.generation.grid_search import Found, cached_times, optimise_times
from diffusion_jax.samplers.exponential import dpmpp_multistep
from diffusion_jax.samplers.ode import heun
from diffusion_jax.samplers.sde import euler_ancestral
from tests.oracles import SCHEDULES, three_components


def generator(sampler, times, name="cosine"):
    schedule, prediction = SCHEDULES[name], PREDICTIONS["v"]
    exact = three_components().denoiser(schedule)

    def apply(params, x_t, t, cond):
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, {}).x_0, t)

    process = Gaussian(schedule, prediction, time_input=lambda _, t: t)
    return Generator(apply, process, Identity((2,)), sampler(schedule), times)


def search(made, starts, iterations=40, num=128):
    return optimise_times(
        made, {}, jax.random.key(0), Request(jnp.arange(num), {}), starts, iterations
    )


def errors_of(made, grids, key, num=128):
    """Root mean square distances from 500 steps of Heun's method."""

    @jax.jit
    def draw(times):
        g = dataclasses.replace(made, times=times)
        return g.draw({}, key, Request(jnp.arange(num), {}))[0]

    fine = dataclasses.replace(
        made, sampler=heun(made.process.schedule), times=jnp.linspace(1, 0, 501)
    )
    exact = fine.draw({}, key, Request(jnp.arange(num), {}))[0]
    return [float(jnp.sqrt(jnp.mean((draw(times) - exact) ** 2))) for times in grids]


@pytest.mark.slow
def test_two_times_are_the_best_of_all_that_there_are():
    """Two steps have a start and one time between: all on a grid of 0.04 are tried."""
    made = generator(dpmpp_multistep, jnp.array([1.0, 0.0]))
    found = search(made, {"uniform": time_grids.uniform(2)})
    tried = [(t, s) for t in np.arange(0.4, 1.01, 0.04) for s in np.arange(0.08, t - 0.03, 0.04)]
    grids = [jnp.array([t, s, 0.0]) for t, s in tried]
    errors = errors_of(made, grids, jax.random.key(0))
    np.testing.assert_allclose(found.times[:2], tried[np.argmin(errors)], atol=0.04)
    assert found.error <= min(errors)
    assert found.error == pytest.approx(min(errors), rel=0.02)
    assert found.times[2] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cosine", "edm", "flow"])
def test_better_than_every_other_grid_on_other_noise(name):
    """Also from `t = 1` with alpha = 0, and on a schedule of other times."""
    made, schedule = generator(dpmpp_multistep, jnp.array([1.0, 0.0]), name), SCHEDULES[name]
    starts = {"uniform": time_grids.uniform(6), "karras": time_grids.karras(schedule, 6)}
    found = search(made, starts)
    assert np.all(np.diff(found.times) < 0)
    assert found.error < 0.85 * min(found.starts.values())
    ours, *others = errors_of(made, [found.times, *starts.values()], jax.random.key(1))
    assert ours < 0.9 * min(others)


def test_a_stochastic_sampler_is_refused():
    made = generator(euler_ancestral, jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="deterministic"):
        search(made, {"uniform": time_grids.uniform(4)})
    c = default.get_config()
    c.sample.sampler, c.sample.grid = "ancestral", "optimised"
    with pytest.raises(ConfigError, match="'ancestral', which draws noise"):
        build(c)
    c.sample.sampler, c.sample.restart.repeats = "heun", 1
    with pytest.raises(ConfigError, match=r"with sample\.restart, which draws noise"):
        build(c)


def test_starts_are_the_grids_with_the_same_end():
    c = default.get_config()
    c.sample.steps = 5
    names = {"uniform", "quadratic", "trailing", "leading", "linspace", "karras", "uniform_logsnr"}
    assert set(grids_to_start_from(c, SCHEDULES["cosine"])) == names
    # Its times near 1 are too near to each other.
    c.sample.steps = 50
    assert set(grids_to_start_from(c, SCHEDULES["laplace"])) < names


def test_a_search_is_kept_and_depends_on_what_it_is_told(tmp_path):
    said, calls = [], []

    def find(value):
        calls.append(value)
        return Found(jnp.array([1.0, value, 0.0]), 0.1, {"uniform": 0.3, "karras": 0.2})

    for made_by, value in (({"steps": 2}, 0.5), ({"steps": 2}, 0.6), ({"steps": 3}, 0.7)):
        times = cached_times(tmp_path, made_by, functools.partial(find, value), said.append)
        assert times[1] == pytest.approx({0.6: 0.5}.get(value, value))
    assert calls == [0.5, 0.7]
    assert "0.1; with the grid karras, the best of the others, 0.2" in said[0]
