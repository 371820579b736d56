"""Every sampler x every schedule, and every prediction: the law that samples end in is the data's.

A sampler knows a schedule by its values only, so it is compiled once, for a table that any schedule
is put in. Start and end are exactly `t = 1` and `t = 0`, where alpha and sigma may be 0; between
them the steps are those of Karras et al. 2022.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import CLEAN, SCHEDULES, assert_law, three_components
from trajectories import Table

from configs import default
from diffusion_jax.build import SAMPLERS, make_sampler
from diffusion_jax.corruption import diffuse, sample_keys, sample_noise
from diffusion_jax.prediction import PREDICTIONS, Prediction, denoiser
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.restart import restart_times

NUM = 4_000
NODES = dict.fromkeys(("ddim", "ddim_0.5", "euler", "euler_ancestral", "ancestral_small"), 200)
NODES |= dict.fromkeys(("ancestral_large", "euler_maruyama", "predictor_corrector"), 300)
"""Steps of the methods of first order, where 60 would have a bias that 4,000 samples show."""
SETTINGS = {
    "ancestral_small": ("ancestral", {"ancestral.variance": "small"}),
    "ancestral_large": ("ancestral", {"ancestral.variance": "large"}),
    "ddim_0.5": ("ddim", {"ddim.eta": 0.5}),
    # A corrector of finite step size keeps a slightly wider law; churn's s_noise is meant to.
    "predictor_corrector": ("predictor_corrector", {"predictor_corrector.snr": 0.05}),
    "churn": ("churn", {"churn.s_churn": 10.0, "churn.s_noise": 1.0}),
    "dpmpp_multistep_3": ("dpmpp_multistep", {"dpmpp_multistep.order": 3}),
    "unipc_3": ("unipc", {"unipc.order": 3}),
    "restart": ("heun", {"restart.repeats": 2}),
}
"""Settings other than the defaults, by the name of the case."""
CASES = [name for name in SAMPLERS if name != "ancestral"]
CASES += [name for name in SETTINGS if name not in CASES]


def nodes_of(case):
    return NODES.get(case, 60)


@functools.cache
def tables(nodes):
    """By schedule: alpha and sigma `[nodes + 1]` from clean to noise.

    In float64: near t = 1 the times of Laplace's law are too near to each other for float32.
    """
    found = {}
    with jax.enable_x64(True):
        for name, schedule in SCHEDULES.items():
            # Most of the noise that there is, short of that at t = 1 itself.
            high = jnp.minimum(80.0, 0.9 * jnp.exp(-0.5 * schedule.logsnr(jnp.ones(()))))
            levels = jnp.linspace(0.002 ** (1 / 7), high ** (1 / 7), nodes - 1) ** 7
            inner = schedule.time_at(-2 * jnp.log(levels))
            times = jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
            values = schedule.alpha(times), schedule.sigma(times)
            found[name] = tuple(np.asarray(v, np.float32) for v in values)
    return found


def config_of(case):
    c = default.get_config()
    c.sample.sampler, settings = SETTINGS.get(case, (case, {}))
    for key, value in settings.items():
        group, name = key.split(".")
        c.sample[group][name] = value
    return c


def compiled(case):
    """`(alphas, sigmas, kind of prediction) -> samples` of the mixture with three components."""
    nodes, c = nodes_of(case), config_of(case)
    times = np.linspace(1, 0, nodes + 1)
    if c.sample.restart.repeats:
        times = restart_times(times, 0.3, 0.6, 2, 12)

    @jax.jit
    def run(alphas, sigmas, kind):
        schedule = Table(jnp.linspace(0, 1, nodes + 1), alphas, sigmas)
        prediction = Prediction(
            lambda schedule, t: jax.lax.switch(
                kind, [lambda t, p=p: p.coefficients(schedule, t) for p in PREDICTIONS.values()], t
            )
        )
        exact = three_components().denoiser(schedule)
        network = lambda x_t, t, cond: prediction.from_x_0(  # noqa: E731
            schedule, x_t, exact(x_t, t, cond).x_0, t
        )
        data_key, noise_key, key = jax.random.split(jax.random.key(0), 3)
        indices = jnp.arange(NUM)
        # From the law of x_t at t = 1 itself: here the sampler is tested, not the prior.
        noise = sample_noise(sample_keys(noise_key, indices), (2,))
        x_T = diffuse(schedule, three_components().sample(data_key, NUM), noise, jnp.ones(()))
        keys = sample_keys(key, indices)
        return sample(
            denoiser(network, schedule, prediction),
            make_sampler(c, schedule),
            jnp.asarray(times, jnp.float32),
            x_T,
            {},
            keys,
        )[0]

    return run


def test_law_of_exact_samples():
    assert_law(three_components().sample(jax.random.key(0), NUM))


@pytest.mark.parametrize("case", CASES)
def test_final_law_on_every_schedule(case):
    run = compiled(case)
    for name, table in tables(nodes_of(case)).items():
        assert_law(run(*table, list(PREDICTIONS).index("v")), name)


@pytest.mark.parametrize("case", ["ancestral_small", "ddim", "heun"])
def test_final_law_for_every_prediction(case):
    """On a schedule with signal at t = 1, from which `eps` and `score` say what x_0 is."""
    run = compiled(case)
    for name in ("ddpm", "edm", "sub_vp"):
        for number, kind in enumerate(PREDICTIONS):
            assert_law(run(*tables(nodes_of(case))[name], number), (name, kind))


def test_every_sampler_and_schedule_is_there():
    assert {SETTINGS.get(case, (case,))[0] for case in CASES} == set(SAMPLERS)
    assert set(tables(60)) == set(SCHEDULES) >= set(CLEAN)
