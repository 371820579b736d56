"""Samplers that guidance makes for a request, and what a sampler ends with."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.generation.generator import (
    CLASSIFIER_FREE,
    Generator,
    Guidance,
    Request,
    as_they_are,
)
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.types import Sampler
from tests.oracles import SCHEDULES, as_it_is, three_components

SCHEDULE = SCHEDULES["cosine"]


def plain(denoise, request, times):
    return denoise


def generator(guidance):
    prediction, exact = PREDICTIONS["v"], three_components().denoiser(SCHEDULE)

    def apply(params, x_t, t, cond):
        return prediction.from_x_0(SCHEDULE, x_t, exact(x_t, t, cond).x_0, t)

    process = Gaussian(SCHEDULE, prediction, time_input=as_it_is)
    times = jnp.linspace(1, 0, 6)
    return Generator(apply, process, Identity((2,)), ddim(SCHEDULE, 1.0), times, guidance)


def request(num):
    y = np.arange(2.0 * num, dtype=np.float32).reshape(num, 2)
    observation = Observation(y, Mask(np.ones((num, 1), np.float32)), np.zeros(num, np.float32))
    return Request(np.arange(num), {}, given={"observation": observation})


def test_a_sampler_that_guidance_does_not_change_gives_the_same_bits():
    made, keys = generator(Guidance(plain)), jax.random.key(3)
    other = generator(Guidance(plain, sampler=lambda sampler, request: Sampler(*sampler)))

    def plainly(index):
        noise, steps = made.keys(keys, index)
        x_T = made.process.prior(noise, (2,), made.times[0])
        return sample(made.denoiser({}), made.sampler, made.times, x_T, {}, steps)[0]

    expected = jax.jit(plainly)(jnp.arange(4, dtype=jnp.int32))
    for each in (made, other):
        np.testing.assert_array_equal(each({}, 3, request(4), batch_size=4)[0], expected)


def test_the_sampler_of_an_observation_and_its_final_state():
    """In batches filled up to groups; each sample has its own observation, and its own state."""

    def ending_in_y(sampler, request):
        y = request.given["observation"].y

        def step(denoise, state, x_t, t, s, keys):
            return jnp.where(s > 0, sampler.step(denoise, (), x_t, t, s, keys)[0], y), state + y[
                :, 0
            ]

        return Sampler(lambda x_T: jnp.zeros(len(x_T)), step, stochastic=True)

    guidance = Guidance(plain, ("observation",), group=2, sampler=ending_in_y)
    x, states, steps = generator(guidance).with_state({}, 3, request(7), batch_size=4, keep_every=5)
    assert states.shape[1:] == x.shape
    np.testing.assert_array_equal(states[-1], x)
    y = request(7).given["observation"].y
    np.testing.assert_array_equal(x, y)
    np.testing.assert_array_equal(steps, 5 * y[:, 0])
    called, _ = generator(guidance)({}, 3, request(7), batch_size=4)
    np.testing.assert_array_equal(called, y)


def test_the_network_gets_parameters_that_were_made_ready_once_for_all_steps():
    made, ran = generator(CLASSIFIER_FREE), []
    network = made.apply

    def halved(params):
        ran.append(params)
        return {"half": params["whole"] / 2}

    def apply(params, x_t, t, cond):
        return network({}, x_t, t, cond) * params["half"]

    made = dataclasses.replace(made, apply=apply, ready=halved)
    plainly = dataclasses.replace(made, apply=network, ready=as_they_are)
    same = [
        m(params, 3, Request(np.arange(4), {}), batch_size=4)[0]
        for m, params in ((made, {"whole": jnp.array(2.0)}), (plainly, {}))
    ]
    np.testing.assert_allclose(*same, rtol=1e-6)
    assert len(ran) == 1
