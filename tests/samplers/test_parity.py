"""Whole trajectories compared with diffusers and k-diffusion, for the same denoiser and noise.

Their states are in `reference/samplers.npz`, made by `reference/make_samplers.py`.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import schedules
from diffusion_jax.samplers import ode
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.exponential import (
    deis,
    dpm_solver,
    dpmpp_multistep,
    dpmpp_singlestep,
    unipc,
)
from diffusion_jax.samplers.sde import (
    ancestral,
    churn,
    dpmpp_sde,
    dpmpp_sde_multistep,
    euler_ancestral,
    euler_maruyama,
)
from diffusion_jax.types import Denoised
from tests.oracles import three_components

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "samplers.npz")
DRAWING = ("ddim", "sde")
"""The modules of `diffusion_jax.samplers` that draw noise."""

TABLE, SCALED, FLOW = schedules.DDPM(), schedules.ScaledLinear(), schedules.Flow()
COSINE = schedules.Cosine(logsnr_min=-np.inf)
K = schedules.EDM(sigma_max=160.0)  # twice as far as the runs: churn goes above their first level
CASES = {
    "ddpm_small": (TABLE, functools.partial(ancestral, variance="small")),
    "ddpm_large": (TABLE, functools.partial(ancestral, variance="large")),
    "ddpm_learned": (TABLE, functools.partial(ancestral, variance="learned")),
    "ddim_0": (TABLE, ddim),
    "ddim_half": (TABLE, functools.partial(ddim, eta=0.5)),
    "ddim_1": (TABLE, functools.partial(ddim, eta=1.0)),
    "scaled_ddim": (SCALED, ddim),
    "euler": (TABLE, ode.euler),
    "flow_euler": (FLOW, ode.euler),
    "k_euler": (K, ode.euler),
    "heun": (TABLE, functools.partial(ode.heun, scaling="ve")),
    "flow_heun": (FLOW, functools.partial(ode.heun, scaling="flow")),
    "k_heun": (K, functools.partial(ode.heun, scaling="ve")),
    "pndm": (TABLE, ode.pndm),
    "ipndm": (COSINE, ode.ipndm),
    "k_lms": (K, ode.lms),
    "dpmpp_2m": (TABLE, dpmpp_multistep),
    "scaled_dpmpp_2m": (SCALED, dpmpp_multistep),
    "k_dpmpp_2m": (K, dpmpp_multistep),
    "dpmpp_2m_heun": (TABLE, functools.partial(dpmpp_multistep, exact=True)),
    "dpmpp_3m": (TABLE, functools.partial(dpmpp_multistep, order=3)),
    "k_dpmpp_2s": (K, dpmpp_singlestep),
    "k_dpm_2": (K, dpm_solver),
    "k_dpm_3": (K, functools.partial(dpm_solver, order=3)),
    "deis_2": (TABLE, functools.partial(deis, order=2)),
    "deis_3": (TABLE, functools.partial(deis, order=3)),
    "unipc_2_bh1": (TABLE, functools.partial(unipc, order=2, variant="bh1")),
    "unipc_2_bh2": (TABLE, functools.partial(unipc, order=2, variant="bh2")),
    "unipc_3_bh1": (TABLE, functools.partial(unipc, order=3, variant="bh1")),
    "unipc_3_bh2": (TABLE, functools.partial(unipc, order=3, variant="bh2")),
    "euler_ancestral": (TABLE, euler_ancestral),
    "k_euler_ancestral": (K, euler_ancestral),
    "k_euler_ancestral_half": (K, functools.partial(euler_ancestral, eta=0.5)),
    "dpmpp_2m_sde": (TABLE, dpmpp_sde_multistep),
    "score_sde": (K, euler_maruyama),
    "k_dpmpp_2m_sde": (K, dpmpp_sde_multistep),
    "k_dpmpp_sde": (K, dpmpp_sde),
    "k_dpmpp_sde_half": (K, functools.partial(dpmpp_sde, eta=0.5)),
    "k_heun_churn": (K, functools.partial(churn, steps=20, s_churn=4.0)),
}
"""By run of the reference: the schedule on which it is one of ours, and the sampler."""


def read(run, schedule):
    """Times `[steps + 1]`, states `[steps + 1, B, 2]` and noise `[steps, draws, B, 2]`."""
    states = REFERENCE[f"{run}/x"]
    if f"{run}/sigmas" in REFERENCE:
        times = (REFERENCE[f"{run}/sigmas"] / schedule.sigma_max) ** (1 / schedule.rho)
    else:
        times = REFERENCE[f"{run}/times"]
    steps, shape = len(times) - 1, states.shape[1:]
    noise = REFERENCE[f"{run}/noise"] if f"{run}/noise" in REFERENCE else np.zeros((0, *shape))
    draws = -(-len(noise) // steps)
    # Some draw none in the step to sigma = 0.
    noise = np.concatenate([noise, np.zeros((draws * steps - len(noise), *shape))])
    noise = noise.reshape(steps, draws, *shape)
    if run.startswith("k_dpmpp_sde"):
        # Theirs are of the first half of a step and of all of it, ours of the halves.
        noise = np.stack([noise[:, 0], 2**0.5 * noise[:, 1] - noise[:, 0]], axis=1)
    return times, states, noise


@pytest.mark.parametrize("run", CASES)
@pytest.mark.slow
def test_trajectory(x64, monkeypatch, run):
    schedule, factory = CASES[run]
    sampler, oracle = factory(schedule), three_components().denoiser(schedule)
    times, states, noise = read(run, schedule)
    keys = jax.random.split(jax.random.key(0), states.shape[1])

    def denoise(x_t, t):
        # The fraction is for learned variances: that of a network which puts out cos(x_t).
        return Denoised(oracle(x_t, jnp.full(len(x_t), t), {}).x_0, (jnp.cos(x_t) + 1) / 2)

    def body(carry, step):
        (x, state), (t, s, noise) = carry, step
        draws = iter(noise)
        for module in DRAWING:
            path = f"diffusion_jax.samplers.{module}.sample_noise"
            monkeypatch.setattr(path, lambda keys, shape: next(draws))
        carry = sampler.step(denoise, state, x, t, s, keys)
        return carry, carry[0]

    def follow(x):
        # With further evaluations in the first step, as in `samplers.loop`.
        repeated = [times[1]] * sampler.extra
        steps = (
            np.insert(times[:-1], 1, repeated),
            np.insert(times[1:], 1, repeated),
            np.insert(noise, 1, noise[: sampler.extra], axis=0),
        )
        return jax.lax.scan(body, (x, sampler.init(x)), steps)[1][sampler.extra :]

    np.testing.assert_allclose(jax.jit(follow)(states[0]), states[1:], rtol=1e-10, atol=1e-10)


def test_reference_is_of_the_same_mixture_and_all_of_it_is_compared():
    about = json.loads(str(REFERENCE["about"]))
    for name, value in about["mixture"].items():
        np.testing.assert_array_equal(value, getattr(three_components(), name))
    assert set(about["runs"]) == set(CASES)
