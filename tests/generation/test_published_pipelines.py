"""Whole pipelines of Stable Diffusion beside diffusers', call by call, with an exact denoiser.

Theirs are in `reference/schedulers.npz`, made by `reference/make_schedulers.py`: float64, and so
are the tables. What is sampled here is only what `scheduler_configs.read` makes of their configs.
"""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian, table_index
from diffusion_jax.diffusion.scheduler_configs import read
from diffusion_jax.from_config.sampling import GRIDS, SAMPLERS
from diffusion_jax.from_config.starts import STARTS
from diffusion_jax.generation.generator import CLASSIFIER_FREE, Generator, Request
from diffusion_jax.generation.variations import inpainted, inverted, renoised
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Denoised
from tests.oracles import three_components

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "schedulers.npz")
RUNS = json.loads(str(REFERENCE["about"]))["runs"]
KNOWN = np.array([1.0, 0.0])
SLOW_ONES = [name for name in RUNS if name not in ("pndm_48", "ddim", "dpm_leading")]


def draws(seed):
    return np.random.default_rng(seed).normal(size=(4, 2))


def generator_of(run, plain=False):
    """The generator that the config of a run means, and the indices that its network is asked at.

    The network is exact, or `plain`, which is compiled faster.
    """
    asked = read(RUNS[run]["config"])
    schedule, prediction = asked.schedule, PREDICTIONS[asked.prediction]
    exact, calls = three_components().denoiser(schedule), []

    def apply(params, x_t, index, cond):
        if plain:
            jax.debug.callback(lambda i: calls.append(float(i)), index[0], ordered=True)
            return 0.5 * x_t + 0.1 * x_t[:, ::-1]
        t = (index + 1) / 1000
        return prediction.from_x_0(schedule, x_t, exact(x_t, t, {}).x_0, t)

    return Generator(
        apply,
        Gaussian(schedule, prediction, time_input=table_index),
        Identity((2,)),
        SAMPLERS[asked.sampler](schedule, **asked.sampler_settings),
        GRIDS[asked.grid](RUNS[run].get("steps", 48), **asked.grid_settings),
        CLASSIFIER_FREE._replace(limit=asked.clip),
        start=STARTS[asked.start],
    ), calls


@pytest.fixture
def states(monkeypatch):
    """All noise is that of the reference; and a list of the states of each run."""
    seen = []
    for module in ("diffusion.process", "generation.starts", "generation.variations"):
        monkeypatch.setattr(f"diffusion_jax.{module}.sample_noise", lambda *_: draws(0))

    def go_on(self, params, x, keys, request):
        outcome = self.run(params, x, keys, request, keep_every=1)
        seen.append(np.asarray(outcome.kept))
        return outcome.x, outcome.kept

    monkeypatch.setattr(Generator, "go_on", go_on)
    return seen


def follow(run, plain=False):
    """Runs ours like a pipeline of theirs; the indices that a plain network was asked at."""
    (made, calls), job = generator_of(run, plain), RUNS[run].get("job")
    request, key = Request(jnp.arange(4), {}), jax.random.key(0)
    if not job:
        keys, steps = made.keys(key, request.index)
        x_T = made.start.draw(made.process, keys, (2,), made.times[0])
        made.go_on({}, x_T, steps, request)
    elif job == "image":
        renoised(made, {}, key, request, draws(1)[0], RUNS[run]["strength"])
    else:
        inpainted(made, {}, key, request, draws(1)[0], KNOWN, RUNS[run]["strength"])
    jax.effects_barrier()
    return np.array(calls)


def theirs(run):
    """Their states; without the trial point of PNDM's first step, which is within a step here."""
    x = REFERENCE[f"{run}/x"]
    return np.delete(x, 1, axis=0) if "pndm" in run else x


def is_skewed(run):
    """Image to image by their PNDM; see the last test."""
    return run.startswith("image_pndm") and not run.endswith("1.0")


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(run, marks=[pytest.mark.slow] if run in SLOW_ONES else [])
        for run in RUNS
        if not is_skewed(run)
    ],
)
def test_pipelines_are_those_of_diffusers_at_every_step(x64, states, run):
    follow(run)
    assert len(states[0]) == len(theirs(run))
    np.testing.assert_allclose(states[0], theirs(run), rtol=1e-9, atol=1e-9)


def test_plms_asks_the_network_49_times_in_48_steps_where_it_was_trained(x64, states):
    calls = follow("pndm_48", plain=True)
    expected = [941, 921, 921, *range(901, 0, -20)]
    np.testing.assert_allclose(calls, expected, atol=1e-9)
    made, _ = generator_of("pndm_48")
    assert made.sampler.total(48) == len(expected) == 49
    np.testing.assert_allclose(made.times[-1], 0.001)


@pytest.mark.parametrize(
    ("steps", "strength", "taken"),
    [
        *((50, 0.0, 0), (50, 0.01, 0), (50, 0.02, 1), (50, 0.5, 25), (50, 0.999, 49)),
        *((50, 1.0, 50), (48, 0.3, 14), (48, 0.58, 27), (1, 0.9, 0), (1, 1.0, 1)),
        (50, 0.58, 28),  # 50 * 0.58 is a little less than 29 in floats, there and here
    ],
)
def test_strength_is_a_share_of_the_steps_rounded_down(states, monkeypatch, steps, strength, taken):
    seen = []
    monkeypatch.setattr(Generator, "go_on", lambda self, _, x, *rest: (seen.append((self, x)), 0))
    made, _ = generator_of("ddim")
    made = dataclasses.replace(made, times=GRIDS["leading"](steps, offset=1, end=0.001))
    x_0 = jnp.asarray(draws(1)[0], jnp.float32)
    renoised(made, {}, jax.random.key(0), Request(jnp.arange(4), {}), x_0, strength)
    [(started, x)] = seen
    np.testing.assert_array_equal(started.times, made.times[steps - taken :])
    alpha, sigma = made.process.schedule.scales(made.times[steps - taken])
    np.testing.assert_allclose(x, alpha * x_0 + sigma * draws(0), rtol=1e-5, atol=1e-6)


def test_less_than_one_step_returns_the_picture(x64, states):
    made, _ = generator_of("ddim_clean", plain=True)
    x_0 = draws(1)[0]
    found = renoised(made, {}, jax.random.key(0), Request(jnp.arange(4), {}), x_0, 0.02)
    np.testing.assert_array_equal(found, np.tile(x_0, (4, 1)))


@pytest.mark.parametrize(
    "run", ["inpaint_ddim_0.6", pytest.param("inpaint_pndm_1.0", marks=pytest.mark.slow)]
)
def test_what_is_known_has_the_noise_of_the_start_at_every_time(x64, states, run):
    follow(run, plain=True)
    made, _ = generator_of(run)
    times = made.times[-len(states[0]) :][1:]
    alpha, sigma = (value[:, None] for value in made.process.schedule.scales(times))
    expected = np.array(alpha * draws(1)[0][0] + sigma * draws(0)[:, 0])
    expected[-1] = draws(1)[0][0]
    np.testing.assert_allclose(states[0][1:, :, 0], expected, rtol=1e-12)


def test_what_lies_under_the_mask_makes_no_difference_at_full_strength(x64):
    made, _ = generator_of("inpaint_ddim_1.0", plain=True)
    request, key = Request(jnp.arange(4), {}), jax.random.key(0)
    x_0, other = np.array([0.3, 0.8]), np.array([0.3, -5.0])
    program = jax.jit(lambda x: inpainted(made, {}, key, request, x, KNOWN))
    np.testing.assert_array_equal(program(x_0), program(other))


@pytest.mark.slow
def test_inversion_gives_the_picture_back_on_a_grid_that_ends_early(x64):
    made, _ = generator_of("pndm_48")
    x_0 = np.array([0.9, 1.1])
    found = inverted(made, {}, jax.random.key(0), Request(jnp.arange(4), {}), x_0, 0.0)
    np.testing.assert_allclose(found, np.tile(x_0, (4, 1)), atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("run", [run for run in RUNS if is_skewed(run)])
def test_their_pndm_leaves_out_an_entry_of_the_grid_in_image_to_image(x64, states, run):
    """Its list of times repeats the second one, and a list cut later has none to repeat.

    The third call takes the state at the second time of the cut list as if it were at the third:
    noise of one step stays. With that step left out here too the states are the same; as it is
    here, from time to time, the result is nearer to the exact solution from the same state.
    """
    made, _ = generator_of(run)
    sampler, schedule = made.sampler, made.process.schedule
    times = np.asarray(made.times)[47 - int(48 * RUNS[run]["strength"]) :]
    exact = three_components().denoiser(schedule)

    def denoise(x, t):
        return Denoised(exact(x, jnp.full(len(x), t), {}).x_0)

    def end(x, sampler, pairs):
        def body(carry, pair):
            x, state = sampler.step(denoise, carry[1], carry[0], *pair, None)
            return (x, state), x

        return np.asarray(jax.lax.scan(body, (x, sampler.init(x)), jnp.asarray(pairs))[1])

    x = jnp.asarray(theirs(run)[0])
    pairs = np.stack([times[:-1], times[1:]], axis=1)
    pairs = np.insert(pairs, 1, times[1], axis=0)  # the second evaluation of the first step
    skewed = end(x, sampler, np.delete(pairs, 2, axis=0))[1:]
    np.testing.assert_allclose(skewed, theirs(run)[1:], rtol=1e-9, atol=1e-9)
    fine = np.linspace(times[0], times[-1], 2001)
    truth = end(x, heun(schedule), np.stack([fine[:-1], fine[1:]], axis=1))[-1]
    ours = end(x, sampler, pairs)[-1]
    errors = [np.sqrt(np.mean((found - truth) ** 2)) for found in (ours, skewed[-1])]
    assert errors[0] < errors[1], errors
