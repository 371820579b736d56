"""Bridges from data to an observation: schedules and an origin. Compared with sgmse 0.1.2.

`tests/reference/make_sound.py` made the reference. sgmse's states are complex, here two channels,
and its noise has variance 1/2 in each: so scales of noise here are `sqrt(1/2)` of its.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion import schedules
from diffusion_jax.diffusion.prediction import PREDICTIONS, per_sample
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.schedules import OUVE, Bridge
from diffusion_jax.from_config.process import make_process, make_schedule
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.generation.variations import between
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.sde import ancestral, euler_maruyama, predictor_corrector
from diffusion_jax.types import Denoised, Sampler
from tests.oracles import as_it_is, keys_of
from tests.runs import tiny

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "sound.npz")
HALF = 0.5**0.5
PUBLISHED = {"ouve": OUVE(), "bridge": Bridge()}
PARTS = {"ouve": OUVE(1.5, 0.05 * HALF, 0.5 * HALF), "bridge": Bridge(2.6, 0.2)}
"""The same with half of the variance, of each part of complex noise."""
STEPS = 6


def parts(z):
    """Real and imaginary part as the last axis."""
    return jnp.asarray(np.stack([z.real, z.imag], -1))


@pytest.fixture
def given(monkeypatch):
    """Noise of the reference in place of the samplers' own, in turn."""
    left = [parts(z) / HALF for z in REFERENCE["noise"]]
    monkeypatch.setattr("diffusion_jax.samplers.sde.sample_noise", lambda keys, shape: left.pop(0))
    return left


def scale_of(name, t):
    """`X_t = origin + scale u_t`: sgmse's state about its origin."""
    return PUBLISHED["bridge"].alpha(t) if name == "bridge" else jnp.ones_like(t)


@pytest.mark.parametrize("name", PUBLISHED)
def test_mean_and_deviation_are_those_of_sgmse(x64, name):
    t = jnp.asarray(REFERENCE["t"])
    x_0, y = parts(REFERENCE["x_0"][0]), parts(REFERENCE["y"][0])
    alpha, sigma = PUBLISHED[name].scales(t)
    scale = scale_of(name, t)
    mean = y + per_sample(scale * alpha, y[None]) * (x_0 - y)
    np.testing.assert_allclose(mean, parts(REFERENCE[f"{name}_mean"]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(scale * sigma, REFERENCE[f"{name}_std"], rtol=1e-10)
    np.testing.assert_allclose(PARTS[name].sigma(t), sigma * HALF, rtol=1e-12)
    np.testing.assert_allclose(PARTS[name].alpha(t), alpha, rtol=1e-15)


@pytest.mark.parametrize("name", PUBLISHED)
def test_bridges_are_schedules(x64, name):
    """Noise grows over signal, the norm is 1 and homogeneous, and ends are what they should be."""
    schedule, t = PUBLISHED[name], jnp.linspace(1e-4, 1, 200)

    @jax.jit
    def program(t):
        alpha, sigma = schedule.scales(t)
        norms = schedule.norm(alpha, sigma), schedule.norm(3 * alpha, 3 * sigma) / 3
        back = schedule.time_at(schedule.logsnr(t[1:-1]))
        return schedule.logsnr(t), norms, back, schedules.Shifted(schedule, 2.0).scales(t)

    logsnr, norms, back, shifted = program(t)
    assert (np.diff(logsnr[:-1]) < 0).all()
    np.testing.assert_allclose(norms, 1, rtol=1e-10)
    np.testing.assert_allclose(back, t[1:-1], rtol=1e-6)
    assert np.isfinite(shifted).all()
    np.testing.assert_allclose(schedule.scales(jnp.zeros(())), (1, 0))
    end = np.exp(-1.5) if name == "ouve" else 0
    np.testing.assert_allclose(schedule.alpha(jnp.ones(())), end, atol=1e-15)


def test_the_noise_of_a_bridge_is_that_of_a_brownian_bridge_in_its_own_time(x64):
    """`dX = sqrt(c) k^t dW` has the clock `s_t^2`: pinned at both ends."""
    t = np.linspace(0, 1, 100_001)
    clock = np.concatenate([[0], np.cumsum(0.4 * 2.6 ** (t[:-1] + t[1:]) * np.diff(t))])
    alpha, sigma = (np.asarray(a) for a in Bridge().scales(jnp.asarray(t)))
    np.testing.assert_allclose(sigma**2, clock, rtol=1e-6, atol=1e-9)
    expected = clock * (clock[-1] - clock) / clock[-1]
    np.testing.assert_allclose((alpha * sigma) ** 2, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["sde", "ode"])
def test_steps_of_the_bridge_are_those_of_sgmse(x64, given, kind):
    """Its SDE is `ancestral` with the small variance, its ODE `ddim` from no noise.

    sgmse tells its network the time to which a step goes: it is `cond["until"]` here. Its ODE is
    right for `s_1 = 1` alone (`make_sound.py`), to six digits: it divides by 1e-13 in place of 0.
    """
    c = 0.4 if kind == "sde" else 2 * np.log(2.6) / (2.6**2 - 1)
    schedule, y = Bridge(2.6, c / 2), parts(REFERENCE["y"])
    process = Gaussian(schedule, PREDICTIONS["x0"], time_input=as_it_is, residual=True)
    make = ddim(schedule) if kind == "ode" else ancestral(schedule, "small")
    times = jnp.linspace(1, 1e-4, STEPS + 1)

    def network(u, t, cond):
        """The reference's `x_0_hat` for sgmse's state, less the origin."""
        x_t = y + per_sample(schedule.alpha(t), u) * u
        return 0.6 * x_t + jnp.cos(3 * cond["until"]) * y - y

    @jax.jit
    def program():
        x = process.placed(jnp.zeros_like(y), times[0], {"image": y})
        for i in range(STEPS):
            if i == STEPS - 1:
                given[:] = [jnp.zeros_like(y)]  # sgmse's last step has no noise
            cond = {"image": y, "until": times[i + 1]}
            denoise = lambda x, t, cond=cond: process.denoiser(network)(x, jnp.full(2, t), cond)  # noqa: E731
            x, _ = make.step(denoise, (), x, times[i], times[i + 1], keys_of(2))
        alpha = schedule.alpha(times[-1])
        return y + alpha * (x - alpha * y)

    expected = parts(REFERENCE[f"bridge_{kind}"])
    np.testing.assert_allclose(program(), expected, rtol=2e-6, atol=2e-6)


def score_denoiser(name):
    """The denoiser of the reference's score, on `u_t` alone."""
    y = parts(REFERENCE["y"])

    def denoise(u, t):
        # a time for each sample: the reference's two differ
        score = (0.9 * y - (y + u)) * per_sample(1 + jnp.cos(3 * t), u)
        # complex noise of variance s^2 has the score -(x - mean) / s^2; each part has half of it
        alpha, sigma = (per_sample(a, u) for a in PUBLISHED[name].scales(t))
        return Denoised((u + sigma**2 * score) / alpha)

    return denoise


def of_samples(sampler, t, s, u):
    """A step of each sample at its own time."""
    denoise = score_denoiser("ouve")

    @jax.jit
    def step(u, t, s):
        of = lambda x, own: denoise(x, jnp.broadcast_to(own, (2,)))  # noqa: E731
        return sampler.step(of, (), u, t, s, keys_of(2))[0]

    return jnp.stack([step(u, t[i], s[i])[i] for i in range(2)])


def test_the_corrector_is_that_of_sgmse(x64, monkeypatch):
    """Annealed Langevin steps, with `snr` 0.5 and twice: ours are those after a step to `s`."""
    t, y, x = jnp.array([0.5, 0.8]), parts(REFERENCE["y"]), parts(REFERENCE["x_0"])
    noise = [parts(z) for z in REFERENCE["noise"]]
    nothing = Sampler(lambda x: (), lambda denoise, state, x, t, s, keys: (x, state))
    left = noise[:2]
    monkeypatch.setattr("diffusion_jax.samplers.sde.sample_noise", lambda keys, shape: left.pop(0))
    sampler = predictor_corrector(PUBLISHED["ouve"], nothing, corrector_steps=2, snr=0.5)
    found = y + of_samples(sampler, t, t, x - y)
    np.testing.assert_allclose(found, parts(REFERENCE["corrected"]), rtol=1e-10, atol=1e-12)


def test_the_predictor_is_that_of_sgmse_up_to_the_square_of_a_step(x64, monkeypatch):
    """Its `reverse_diffusion` discretises by Euler's rule what `euler_maruyama` integrates."""
    t, y, x = jnp.array([0.5, 0.8]), parts(REFERENCE["y"]), parts(REFERENCE["x_0"])
    noise = parts(REFERENCE["noise"][0])
    monkeypatch.setattr("diffusion_jax.samplers.sde.sample_noise", lambda keys, shape: noise)
    sampler, off = euler_maruyama(PUBLISHED["ouve"]), []
    for size in (0.1, 0.05, 0.025):
        found = y + of_samples(sampler, t, t - size, x - y)
        off.append(np.abs(found - parts(REFERENCE[f"predicted_{size}"])).max())
    assert off[-1] < 0.01
    np.testing.assert_array_less(2.6, np.divide(off[:-1], off[1:]))  # 2^1.5: noise has a root


def test_sampling_starts_about_the_origin(x64):
    """With an exact denoiser of `x_0 - c` the noise is about `alpha_T c`, else it is not there."""
    shape, t = (5, 1), jnp.ones(())
    c, keys = jnp.arange(10.0).reshape(2, *shape), keys_of(2)
    own = Gaussian(OUVE(), PREDICTIONS["eps"], residual=True)
    noise = own.prior(keys, shape, t)
    found = own.placed(noise, t, {"image": jnp.concatenate([c, c], -1)})
    np.testing.assert_allclose(found, np.exp(-1.5) * c + noise, rtol=1e-12)
    np.testing.assert_array_equal(own.placed(noise, t, {}), noise)
    plain = dataclasses.replace(own, residual=False)
    np.testing.assert_array_equal(plain.placed(noise, t, {"image": c}), noise)


STD = 0.4


def generator_about_an_origin():
    """Of data that are normal about `c`, by their exact denoiser, with OUVE."""
    schedule = OUVE()

    def apply(params, u, t, cond):
        alpha, sigma = schedule.scales(t[:, None])
        return alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * u

    process = Gaussian(schedule, PREDICTIONS["x0"], time_input=as_it_is, residual=True)
    times = jnp.linspace(1, 0, 60)
    return Generator(apply, process, Identity((1,)), ancestral(schedule, "small"), times)


def test_a_generator_samples_about_the_origin():
    """The noise of the start lacks the variance `(alpha_T STD)^2`: theirs is a little smaller."""
    num = 3000
    c = jnp.linspace(-2, 2, num)[:, None]
    request = Request(jnp.arange(num), {"image": c})
    generator = generator_about_an_origin()
    x, _ = jax.jit(lambda key: generator.draw({}, key, request))(jax.random.key(0))
    residual = np.asarray(x - c)[:, 0]
    error = STD / num**0.5
    assert abs(residual.mean()) < 4 * error
    assert abs(residual.std() / STD - 0.965) < 0.05
    assert abs(np.polyfit(c[:, 0], residual, 1)[0]) < 4 * error / c.std()


@pytest.mark.slow
def test_samples_between_two_are_about_an_origin_between_theirs():
    ends = tuple(Request(jnp.zeros(1, int), {"image": jnp.full((1, 1), c)}) for c in (-2.0, 2.0))
    generator, shares = generator_about_an_origin(), jnp.array([0.0, 0.5, 1.0])
    x = between(generator, {}, jax.random.key(1), ends, shares)
    assert np.abs(x[:, 0] - jnp.array([-2.0, 0, 2])).max() < 4 * STD


def test_the_config_makes_bridges():
    config = tiny(
        schedule__name="bridge",
        schedule__bridge__c=0.2,
        image_condition__name="decayed",
        image_condition__residual=True,
    )
    assert make_schedule(config) == Bridge(2.6, 0.2)
    assert make_process(config).residual
    config.schedule.name, config.schedule.ouve.theta = "ouve", 2.0
    assert make_schedule(config) == OUVE(2.0, 0.05, 0.5)
