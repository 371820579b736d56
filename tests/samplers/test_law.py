"""Every sampler x every schedule, and every prediction: samples follow the data distribution.

A sampler uses a schedule only through its values, so it is compiled once, for tables of values, and
runs on several schedules at once with the same noise. A row of its batch holds problems in 1, 2 and
64 dimensions, as samplers treat entries separately. Start and end are exactly `t = 1` and `t = 0`,
where alpha and sigma may be 0; the steps between are those of Karras et al. 2022.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from configs import default
from diffusion_jax.diffusion import schedules
from diffusion_jax.diffusion.corruption import diffuse, sample_keys
from diffusion_jax.diffusion.prediction import PREDICTIONS, Prediction
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.from_config import SAMPLERS, make_sampler
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.restart import restart_times
from tests.oracles import SCHEDULES, as_it_is, assert_law, mixture
from tests.trajectories import Table, between

ROWS = 250
PROBLEMS = {1: 16, 2: 16, 64: 1}
"""How many problems of each dimension are in a row: 4,000, 4,000 and 250 samples."""
FINEST = 600
STEPS = {"adaptive": 12, "ddim": 200, "euler": 200, "ddim_0.5": 300, "predictor_corrector": 300}
STEPS |= dict.fromkeys(("ancestral_small", "ancestral_large", "euler_ancestral"), 600)
STEPS |= {"euler_maruyama": 600, "cld_1": 600}
"""Divisors of `FINEST`: for methods of first order more than 60, whose bias samples would show."""
SETTINGS = {
    "ancestral_small": ("ancestral", {"ancestral.variance": "small"}),
    "ancestral_large": ("ancestral", {"ancestral.variance": "large"}),
    "ddim_0.5": ("ddim", {"ddim.eta": 0.5}),
    # A corrector of finite step size keeps a slightly wider law; churn's s_noise is meant to.
    "predictor_corrector": ("predictor_corrector", {"predictor_corrector.snr": 0.05}),
    "churn": ("churn", {"churn.s_churn": 10.0, "churn.s_noise": 1.0}),
    "dpmpp_multistep_3": ("dpmpp_multistep", {"dpmpp_multistep.order": 3}),
    "unipc_3": ("unipc", {"unipc.order": 3}),
    "cld_1": ("cld", {"cld.order": 1}),
    "restart": ("heun", {"restart.repeats": 2}),
}
"""Settings other than the defaults, by the name of the case."""
CASES = [name for name in SAMPLERS if name != "ancestral"]
CASES += [name for name in SETTINGS if name not in CASES]

pytestmark = pytest.mark.slow


def steps_of(case):
    return STEPS.get(case, 60)


@functools.cache
def table(name, kind):
    """`alpha`, `sigma` and the prediction's coefficients `[4, FINEST + 7]` from clean to noise.

    In float64: near t = 1 the times of Laplace's law are too near to each other for float32.
    """
    with jax.enable_x64(True):
        schedule, times = SCHEDULES[name], times_of_steps(name)
        p, q = PREDICTIONS[kind].coefficients(schedule, times)
        # Where there is no noise no denoiser is asked, and some coefficients are infinite.
        p, q = (c.at[0].set(jnp.where(schedule.sigma(times[0]) > 0, c[0], c[1])) for c in (p, q))
        return np.stack([schedule.alpha(times), schedule.sigma(times), p, q]).astype(np.float32)


@functools.cache
def times_of_steps(name):
    """0, times of `FINEST` steps evenly in `(sigma / alpha)^(1 / 7)`, of 4 in its log, and 1.

    The 4 are above 80, where there is such noise: from 10,000 down to 80 at once is too far for the
    two slopes of PNDM's first step.
    """
    schedule = SCHEDULES[name]
    most = jnp.exp(-0.5 * schedule.logsnr(jnp.ones(())))
    high = jnp.minimum(80.0, 0.9 * most)
    levels = jnp.linspace(0.002 ** (1 / 7), high ** (1 / 7), FINEST + 1) ** 7
    higher = jnp.geomspace(high, jnp.minimum(1e5, 0.99 * most), 5)[1:]
    logsnr = -2 * np.log(np.concatenate([levels, higher]))
    # `time_at`, but nothing to compile for each schedule.
    low, step = np.zeros_like(logsnr), 0.5
    for _ in range(60):
        low += step * (np.asarray(schedule.logsnr(low + step)) > logsnr)
        step /= 2
    return jnp.concatenate([jnp.zeros(1), low, jnp.ones(1)])


def config_of(case):
    c = default.get_config()
    c.sample.sampler, settings = SETTINGS.get(case, (case, {}))
    for key, value in settings.items():
        group, name = key.split(".")
        c.sample[group][name] = value
    return c


def pack(parts):
    """Samples `[ROWS n, D]` by dimension as rows."""
    return jnp.concatenate([part.reshape(ROWS, -1) for part in parts.values()], axis=1)


def unpack(x):
    """Samples `[..., ROWS n, D]` by dimension."""
    ends = np.cumsum([dim * num for dim, num in PROBLEMS.items()])
    parts = jnp.split(x, ends[:-1], axis=-1)
    return {
        dim: part.reshape(*x.shape[:-2], -1, dim) for dim, part in zip(PROBLEMS, parts, strict=True)
    }


@functools.cache
def data_and_noise():
    """`x_0` and noise, `[ROWS, entries]`."""
    noise_key, *data_keys = jax.random.split(jax.random.key(0), 1 + len(PROBLEMS))
    data = zip(PROBLEMS.items(), data_keys, strict=True)
    x_0 = pack({dim: mixture(dim).sample(key, ROWS * num) for (dim, num), key in data})
    return x_0, jax.random.normal(noise_key, x_0.shape)


@functools.cache
def posterior_mean(dim):
    """Traced once for all programs."""
    return jax.jit(mixture(dim).posterior_mean)


@functools.cache
def program(case):
    """`(tables [S, 4, FINEST + 7], x_0, noise, key) -> samples [S, ROWS, entries]`."""
    steps, c = steps_of(case), config_of(case)
    times = np.linspace(1, 0, steps + 7)
    if c.sample.restart.repeats:
        times = restart_times(times, 0.3, 0.6, 2, 12)

    def run(table, x_0, noise, key):
        some = table[:, 1 : FINEST + 2 : FINEST // steps]
        values = jnp.concatenate([table[:, :1], some, table[:, -5:]], axis=1)
        schedule = Table(jnp.linspace(0, 1, steps + 7), values[0], values[1])
        prediction = Prediction(
            lambda schedule, t: tuple(between(schedule.nodes, c, t) for c in values[2:])
        )

        def network(x_t, t, cond):
            alpha, sigma = schedule.alpha(t[0]), schedule.sigma(t[0])
            parts = unpack(x_t).items()
            x_0 = pack({dim: posterior_mean(dim)(x, alpha, sigma) for dim, x in parts})
            return prediction.from_x_0(schedule, x_t, x_0, t)

        bound = Gaussian(schedule, prediction, time_input=as_it_is).denoiser(network)
        return sample(
            lambda x_t, t, cond: bound(x_t, t[:1], cond),
            make_sampler(c, schedule),
            jnp.asarray(times, jnp.float32),
            # From the law of x_t at t = 1 itself: here the sampler is tested, not the prior.
            diffuse(schedule, x_0, noise, jnp.ones(())),
            {},
            sample_keys(key, jnp.arange(ROWS)),
        )[0]

    # These run for seconds: unlike other programs of tests (conftest.py) they are worth optimising.
    options = {"xla_backend_optimization_level": 2}
    return jax.jit(jax.vmap(run, (0, None, None, None)), compiler_options=options)


def assert_laws(case, pairs):
    """Of `case` on pairs of a schedule and a prediction, as many at a time as there are schedules.

    So that no more is compiled; places that are left over are filled with the first pair.
    """
    for start in range(0, len(pairs), len(SCHEDULES)):
        some = pairs[start : start + len(SCHEDULES)]
        some += pairs[:1] * (len(SCHEDULES) - len(some))
        tables = np.stack([table(*pair) for pair in some])
        samples = program(case)(tables, *data_and_noise(), jax.random.key(1))
        for dim, laws in unpack(samples).items():
            for pair, x in zip(some, np.asarray(laws), strict=True):
                assert_law(x, (dim, *pair))


@pytest.mark.parametrize("dim", PROBLEMS)
def test_mixture_is_what_it_says(x64, dim):
    """Density by SciPy, score as its gradient, posterior mean by Tweedie's formula."""
    law, alpha, sigma = mixture(dim), 0.7, 0.3
    x = alpha * law.sample(jax.random.key(1), 20) + sigma
    covs = alpha**2 * law.covs + sigma**2 * np.eye(dim)
    parts = zip(law.weights, alpha * law.means, covs, strict=True)
    density = sum(w * stats.multivariate_normal(m, c).pdf(x) for w, m, c in parts)
    np.testing.assert_allclose(law.log_density(x, alpha, sigma), np.log(density), rtol=1e-9)
    score = jax.grad(lambda x: law.log_density(x, alpha, sigma).sum())(x)
    np.testing.assert_allclose(law.score(x, alpha, sigma), score, rtol=1e-9, atol=1e-9)
    mean = (x + sigma**2 * score) / alpha
    np.testing.assert_allclose(law.posterior_mean(x, alpha, sigma), mean, rtol=1e-9, atol=1e-9)


def test_law_of_exact_samples():
    for dim, num in PROBLEMS.items():
        assert_law(mixture(dim).sample(jax.random.key(0), ROWS * num))


@pytest.mark.parametrize("case", CASES)
def test_final_law_on_every_schedule(case):
    assert_laws(case, [(name, "v") for name in SCHEDULES])


@pytest.mark.parametrize("case", ["dpmpp_sde_multistep", "ddim", "heun"])
def test_final_law_for_every_prediction(case):
    """On every schedule; but where `alpha = 0` at t = 1, eps and score do not say what x_0 is."""
    signal = [name for name in SCHEDULES if SCHEDULES[name].alpha(jnp.ones(())) > 0]
    kinds = [kind for kind in PREDICTIONS if kind != "v"]
    pairs = [(n, k) for k in kinds for n in (signal if k in ("eps", "score") else SCHEDULES)]
    assert_laws(case, pairs)


def test_every_sampler_and_schedule_is_there():
    assert {SETTINGS.get(case, (case,))[0] for case in CASES} == set(SAMPLERS)
    known = {kind for name, kind in vars(schedules).items() if name[0] != "_" and is_schedule(kind)}
    assert {type(schedule) for schedule in SCHEDULES.values()} == known


def is_schedule(kind):
    return (
        isinstance(kind, type)
        and issubclass(kind, schedules.Schedule)
        and not inspect.isabstract(kind)
    )
