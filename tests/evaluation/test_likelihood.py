"""Likelihoods of mixtures, whose denoiser, density and entropy are exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.corruption import diffuse, variational_term
from diffusion_jax.diffusion.schedules import Cosine, Schedule
from diffusion_jax.evaluation import likelihood
from diffusion_jax.evaluation.likelihood import ancestral_bound, ode_nll, variational_bound
from diffusion_jax.samplers.adaptive import velocity
from diffusion_jax.samplers.ode import coordinate
from diffusion_jax.types import Denoised
from tests.oracles import SCHEDULES, GaussianMixture, gaussian, three_components

NAMES = tuple(SCHEDULES)
FIVE = ["flow", "ddpm", "cosine", "edm", "sub_vp"]
LEVELS = np.arange(256) / 127.5 - 1


@dataclasses.dataclass(frozen=True)
class Chosen(Schedule):
    """One of several; which, an argument of the program says, so that one serves for all."""

    names: tuple[str, ...]
    index: jax.Array

    def _switch(self, method, t):
        return jax.lax.switch(self.index, [getattr(SCHEDULES[n], method) for n in self.names], t)

    def scales(self, t):
        return self._switch("scales", t)

    def logsnr(self, t):
        return self._switch("logsnr", t)


@functools.cache
def mixture(dim):
    """Components of all sizes and, in many dimensions, in bases that have nothing in common."""
    if dim == 2:
        return three_components()
    random = np.random.default_rng(dim)
    bases = np.linalg.qr(random.normal(size=(3, dim, dim)))[0]
    values = np.exp(random.uniform(np.log(0.02), np.log(0.5), (3, dim)))
    covs = np.einsum("kij,kj,klj->kil", bases, values, bases)
    return GaussianMixture(np.array([0.5, 0.3, 0.2]), 0.3 * random.normal(size=(3, dim)), covs)


@functools.cache
def in_levels():
    """A law of one dimension on 24 of the 256 levels, some of them neighbours, and its entropy."""
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(24))
    places = LEVELS[[*range(8), *random.choice(np.arange(8, 255), 15, False), 255]]
    law = GaussianMixture(weights, places[:, None], np.zeros((24, 1, 1)))
    return law, -np.sum(weights * np.log(weights))


def always(value):
    """A denoiser that has made up its mind."""
    return lambda x_t, t, cond: Denoised(jnp.full_like(x_t, value))


def keys_of(num, seed=1):
    return jax.random.split(jax.random.key(seed), num)


def mean_error(values):
    """Mean and its standard error."""
    values = np.asarray(values, np.float64)
    return values.mean(), values.std(ddof=1) / np.sqrt(len(values))


# The ODE.


@functools.cache
def ode(dim, probes, names=tuple(FIVE), least=1e-3):
    """`(name, x, keys, tolerance) -> OdeLikelihood` of a mixture."""
    law = mixture(dim)

    @jax.jit
    def run(index, x, keys, tolerance):
        schedule = Chosen(names, index)
        denoiser = law.denoiser(schedule)
        return ode_nll(denoiser, schedule, x, {}, keys, probes, least, tolerance, tolerance)

    return lambda name, x, keys, tol: run(names.index(name), x, keys, jnp.asarray(tol, x.dtype))


def with_exact_trace(found):
    """In the plane `v . J v` is `tr J` plus or minus the same: the middle of both is exact.

    All probes of an example have the same sign once in 32,768 times.
    """
    return (jnp.min(found.by_probe, axis=1) + jnp.max(found.by_probe, axis=1)) / 2


@pytest.mark.slow
def test_ode_is_the_density_of_the_least_noise(x64):
    """With no signal at t = 1 there is no error but the solver's."""
    law, least = mixture(2), 0.05
    x = law.sample(jax.random.key(0), 64)
    found = ode(2, 16, ("flow",), least)("flow", x, keys_of(64), 1e-8)
    exact = -law.log_density(x, 1.0, least)
    np.testing.assert_allclose(with_exact_trace(found), exact, atol=1e-6)
    assert jnp.mean(jnp.std(found.by_probe, axis=1)) > 0.05
    np.testing.assert_allclose(found.nll, jnp.mean(found.by_probe, axis=1), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", FIVE)
@pytest.mark.parametrize(("dim", "probes"), [(1, 1), (2, 16)])
def test_ode_in_one_and_two_dimensions(name, dim, probes):
    """512 examples in float32: the mean is exact to 0.001 nats per dimension but for the probes.

    What is left is the tolerance, and what the schedule's last `x_t` still says of `x_0`.
    """
    law, num = mixture(dim), 512
    x = law.sample(jax.random.key(0), num)
    found = ode(dim, probes)(name, x, keys_of(num), 1e-4)
    exact = -law.log_density(x, 1.0, 0.0)
    assert abs(mean_error(with_exact_trace(found) - exact)[0]) / dim < 0.001
    assert found.steps <= 20
    if dim == 2:
        variance = np.var(found.by_probe, axis=1, ddof=1) / probes
        assert abs(mean_error(found.nll - exact)[0]) < 5 * np.sqrt(variance.mean() / num) + 0.002


@pytest.mark.parametrize("name", FIVE)
@pytest.mark.slow
def test_ode_in_64_dimensions(name):
    """Mean of 256 examples; Hutchinson's own error is all the error there is.

    Means of 8 examples over their standard errors: the mean of 32 squares is within 0.4 to 2 but
    for 1 in 1,000 times.
    """
    law, num, probes = mixture(64), 256, 8
    x = law.sample(jax.random.key(0), num)
    found = ode(64, probes)(name, x, keys_of(num), 1e-4)
    error = np.asarray(found.nll + law.log_density(x, 1.0, 0.0), np.float64)
    variance = np.asarray(found.by_probe).var(axis=1, ddof=1) / probes
    assert abs(error.mean()) / 64 < 0.005
    assert found.steps <= 20
    assert np.sqrt(variance.mean() / num) / 64 < 0.003
    scores = error.reshape(32, 8).mean(1) / np.sqrt(variance.reshape(32, 8).mean(1) / 8)
    assert 0.4 < np.mean(scores**2) < 2.0


@pytest.mark.parametrize("name", NAMES)
def test_velocity_is_the_same_for_every_schedule(name):
    """`dy/du = (y - x_0_hat) / u` with `alpha = 1 - u`, `sigma = u`: `ode_nll` asks no more."""
    schedule, law = SCHEDULES[name], mixture(2)
    y = law.sample(jax.random.key(0), 8)
    last = float(coordinate(schedule, "flow", jnp.array(1.0)))

    def denoise(x_t, t):
        return law.denoiser(schedule)(x_t, t, {})

    run = jax.jit(functools.partial(velocity, schedule, denoise))
    for u in (1.4e-3, 0.03, 0.5, 0.9, last):
        expected = (y - law.posterior_mean(y, 1 - u, u)) / u
        np.testing.assert_allclose(run(jnp.float32(u), y), expected, rtol=5e-3, atol=5e-3)


# The bound in continuous time.


@functools.cache
def bound_in_the_plane():
    """`(name, factor) -> Bound`, and the data; with the mixture's denoiser times a factor."""
    law = mixture(2)

    @jax.jit
    def run(index, x, keys, factor):
        schedule = Chosen(NAMES, index)
        exact = law.denoiser(schedule)
        denoiser = lambda x_t, t, cond: Denoised(factor * exact(x_t, t, cond).x_0)  # noqa: E731
        # All schedules have these noise levels.
        return variational_bound(
            denoiser, schedule, x, {}, keys, 0, 8, logsnr_min=-5.0, logsnr_max=13.2
        )

    x = law.sample(jax.random.key(0), 512)
    return lambda name, factor=1.0: run(NAMES.index(name), x, keys_of(512), factor)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_variational_bound_is_the_same_for_every_schedule(name):
    found, flow = (bound_in_the_plane()(n) for n in (name, "flow"))
    for part, expected in zip(found, flow, strict=True):
        np.testing.assert_allclose(part, expected, rtol=2e-3, atol=1e-2)


@pytest.mark.slow
def test_variational_bound_of_a_wrong_denoiser_is_worse():
    wrong, exact = (bound_in_the_plane()("flow", factor).total for factor in (0.9, 1.0))
    worse, error = mean_error(wrong - exact)
    assert worse > 5 * error


def test_variational_bound_of_the_exact_denoiser_is_tight():
    """Above the exact one by the entropy of the least noise, 1e-5 nats per dimension, and errors.

    The bound on the mean is 5 standard errors: false-alarm rate 6e-7.
    """
    law, num = mixture(64), 1024
    x, schedule = law.sample(jax.random.key(0), num), SCHEDULES["flow"]

    @jax.jit
    def run(x, keys):
        return variational_bound(law.denoiser(schedule), schedule, x, {}, keys, levels=0)

    gap, error = mean_error(run(x, keys_of(num)).total + law.log_density(x, 1.0, 0.0))
    assert error / 64 < 0.01
    assert abs(gap) < 5 * error


@pytest.mark.slow
def test_variational_bound_of_a_normal_law():
    """The entropy with the least noise added, and `KL(q(x_T) || p(x_T))`, both large enough to see.

    4,096 examples in 16 dimensions, 5 standard errors.
    """
    std, num, low, high = 0.7, 4096, -1.0, 2.0
    law, schedule = gaussian(std, 16), SCHEDULES["ddpm"]

    @jax.jit
    def run(x, keys):
        denoiser = law.denoiser(schedule)
        return variational_bound(denoiser, schedule, x, {}, keys, 0, 16, low, high)

    found, error = mean_error(run(law.sample(jax.random.key(0), num), keys_of(num)).total / 16)
    entropy = stats.norm(0, np.sqrt(std**2 + np.exp(-high))).entropy()
    ratio = std**2 * np.exp(low)
    assert error < 0.004
    assert abs(found - entropy - 0.5 * (ratio - np.log1p(ratio))) < 5 * error


def test_variational_bound_of_a_constant_denoiser_is_known():
    """Levels are spread evenly: 512 of them leave an error of at most 0.4% of the integral.

    The schedule ends before the most noise that was asked for.
    """
    x, low, high = jnp.asarray([[0.3, -0.7], [1.0, 0.5], [-0.2, 0.1]]), -2.0, 2.0
    schedule = Cosine(logsnr_min=low)
    found = variational_bound(
        always(0.1), schedule, x, {}, keys_of(3), levels=0, samples=512, logsnr_max=high
    )
    diffusion = (np.exp(high) - np.exp(low)) / 2 * np.sum((np.asarray(x) - 0.1) ** 2, axis=1)
    np.testing.assert_allclose(found.diffusion, diffusion, rtol=4.5e-3)
    np.testing.assert_allclose(found.prior, np.exp(low) / 2 * np.sum(x**2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(found.reconstruction, 1 + np.log(2 * np.pi) - high, rtol=1e-5)


# Data in 256 levels.


@pytest.mark.parametrize("std", [1e-3, 0.01, 0.5])
def test_probabilities_of_levels_sum_to_one(std):
    """At any `z`, and are those of Eq. 14, Kingma et al. 2021; in float32."""
    z = np.array([-1.02, -0.3, 0.1234, 0.999])
    x, noise = np.broadcast_arrays(LEVELS[:, None], (z - LEVELS[:, None]) / std)
    found = likelihood.log_level_probability(
        *(jnp.asarray(a, jnp.float32) for a in (x, noise)), std, 256
    )
    assert np.all(found <= 1e-6)
    weights = stats.norm.logpdf(z, LEVELS[:, None], std)
    expected = weights - np.logaddexp.reduce(weights)
    np.testing.assert_allclose(np.exp(found), np.exp(expected), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(np.sum(np.exp(found), axis=0), 1, rtol=1e-3)


def test_bound_of_levels_is_their_entropy():
    """The exact denoiser in continuous time: from the entropy by 5 standard errors at most."""
    law, entropy = in_levels()
    x, schedule = law.sample(jax.random.key(0), 2048), SCHEDULES["flow"]

    @jax.jit
    def run(x, keys):
        denoiser = law.denoiser(schedule)
        return variational_bound(denoiser, schedule, x, {}, keys, levels=256, samples=64)

    found = run(x, keys_of(2048))
    mean, error = mean_error(found.total)
    assert error < 0.05
    assert abs(mean - entropy) < 5 * error
    assert jnp.all(found.reconstruction >= 0)


@pytest.mark.slow
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_bound_falls_to_the_entropy(variance):
    """In inverse proportion to the steps, in theory, where they are many."""
    law, entropy = in_levels()
    x, keys, schedule = law.sample(jax.random.key(0), 1024), keys_of(1024), SCHEDULES["flow"]

    @jax.jit
    def run(times, x, keys):
        return ancestral_bound(law.denoiser(schedule), schedule, times, x, {}, keys, variance, 256)

    grids = [time_grids.uniform_logsnr(schedule, n, sigma_min=5e-4) for n in (20, 80)]
    gaps, errors = np.transpose([mean_error(run(g, x, keys).total - entropy) for g in grids])
    assert gaps[0] > 2.5 * gaps[1]
    assert 5 * errors[1] < gaps[1] < 1


# Ancestral sampling.


CHAIN = np.linspace(1.0, 0.0, 13)
ERROR = 0.4


def terms_of_the_chain(name, fraction, dtype):
    """Of each step, `[12]`, where the denoiser is off by ERROR."""
    x = jnp.linspace(-1, 1, 12, dtype=dtype)
    times = jnp.asarray(CHAIN, dtype)
    t, s = times[:-1], times[1:]
    x_t = diffuse(SCHEDULES[name], x, x[::-1], t)
    fraction = jnp.full_like(x, fraction)
    x_0_hat = x + jnp.asarray(ERROR, dtype)
    return variational_term(SCHEDULES[name], x, x_t, x_0_hat, fraction, t, s, 256)


@pytest.mark.parametrize("name", NAMES)
def test_ancestral_terms_are_those_of_normal_laws(x64, name):
    """KL of each step by Eqs. 5-7 of Ho et al. 2020; with the small variance, by the SNR alone.

    That is `1/2 (SNR_s - SNR_t) ||x_0 - x_0_hat||^2` (Eq. 13, Kingma et al. 2021).
    """
    schedule = SCHEDULES[name]
    alpha, sigma = (np.asarray(f(jnp.asarray(CHAIN))) for f in (schedule.alpha, schedule.sigma))
    snr = (alpha[:-1] / sigma[:-1]) ** 2
    rest = 1 - snr[:-1] / snr[1:]
    lower, upper = sigma[1:-1] ** 2 * rest, sigma[:-2] ** 2 * rest
    for fraction in (0.0, 0.3, 1.0):
        found = terms_of_the_chain(name, fraction, jnp.float64)
        variance = upper**fraction * lower ** (1 - fraction)
        mean = alpha[1:-1] * rest * ERROR
        kl = 0.5 * (np.log(variance / lower) + (lower + mean**2) / variance - 1)
        np.testing.assert_allclose(found[:-1], kl, rtol=1e-6)
        if fraction == 0:
            np.testing.assert_allclose(found[:-1], 0.5 * np.diff(snr) * ERROR**2, rtol=1e-6)
    with jax.enable_x64(False):
        floats = terms_of_the_chain(name, fraction, jnp.float32)
    np.testing.assert_allclose(floats, found, rtol=1e-3, atol=1e-6)


@functools.cache
def chain(variance):
    """`(x_0_hat, fraction) -> Bound` of the 256 levels along four steps of DDPM's."""

    @jax.jit
    def run(x_0_hat, fraction):
        x, times = jnp.asarray(LEVELS)[:, None], jnp.array([0.004, 0.003, 0.002, 0.001, 0.0])

        def denoiser(x_t, t, cond):
            return Denoised(jnp.full_like(x_t, x_0_hat), jnp.full_like(x_t, fraction))

        return ancestral_bound(
            denoiser, SCHEDULES["ddpm"], times, x, {}, keys_of(256), variance, 256
        )

    return run


@pytest.mark.slow
@pytest.mark.parametrize(("variance", "fraction"), [("small", 0.0), ("large", 1.0)])
def test_ancestral_bound_is_the_sum_of_its_steps(variance, fraction):
    """The last is a probability; "small" and "large" are the ends of what can be learned."""
    bound = chain(variance)(0.3, 0.5)
    np.testing.assert_allclose(np.sum(np.exp(-bound.reconstruction)), 1, rtol=1e-4)
    for part, same in zip(bound, chain("learned")(0.3, fraction), strict=True):
        np.testing.assert_allclose(part, same, rtol=1e-6)
    snr = np.exp(SCHEDULES["ddpm"].logsnr(jnp.array([0.004, 0.001])))
    np.testing.assert_allclose(bound.prior, snr[0] / 2 * LEVELS**2, rtol=1e-5)
    if variance == "small":
        expected = (snr[1] - snr[0]) / 2 * (LEVELS - 0.3) ** 2
        np.testing.assert_allclose(bound.diffusion, expected, rtol=1e-4)


def test_learned_variance_must_have_been_learned():
    args = SCHEDULES["flow"], jnp.linspace(1, 0, 5), jnp.zeros((2, 1)), {}, keys_of(2)
    with pytest.raises(ValueError, match="learned"):
        ancestral_bound(always(0.1), *args, "learned", 256)


# Bits.


def test_eight_bits_know_nothing():
    """A uniform density over all bins, and a uniform probability, are 8 bits."""
    density = 3 * np.log(256 / 127.5)
    assert likelihood.bits_per_dimension(density, 3, 256) == pytest.approx(8)
    assert likelihood.bits_per_dimension(3 * np.log(256), 3) == pytest.approx(8)
    # And of 16 levels 4; a density of data without levels stays one.
    assert likelihood.bits_per_dimension(3 * np.log(16 / 7.5), 3, 16) == pytest.approx(4)
    assert likelihood.bits_per_dimension(3 * np.log(2), 3, 0) == pytest.approx(1)


def test_dequantised_data_fill_their_bins():
    """200 in each of the 256 bins, the first and the last as the others; p > 1e-6."""
    x = jnp.repeat(jnp.asarray(LEVELS, jnp.float32), 200)[:, None]
    found = np.asarray(likelihood.dequantise(x, keys_of(len(x)), 256))
    offset = (found - np.asarray(x)) * 127.5
    assert np.all(np.abs(offset) <= 0.5 + 1e-5)
    np.testing.assert_array_equal(np.round((found + 1) * 127.5), np.round((x + 1) * 127.5))
    for part in (offset, offset[:200], offset[-200:]):
        assert stats.kstest(part.ravel(), stats.uniform(-0.5, 1).cdf).pvalue > 1e-6
    np.testing.assert_array_equal(likelihood.dequantise(x, keys_of(len(x)), 0), x)
    few = (likelihood.dequantise(x, keys_of(len(x)), 16) - x) * 7.5
    assert stats.kstest(np.ravel(few), stats.uniform(-0.5, 1).cdf).pvalue > 1e-6


# One example of a batch.


@pytest.mark.parametrize("which", ["ode", "variational", "ancestral"])
def test_an_example_does_not_depend_on_its_batch(which):
    """The ODE within its tolerance."""
    law, schedule = mixture(2), SCHEDULES["flow"]
    x, keys, denoiser = law.sample(jax.random.key(0), 6), keys_of(6), law.denoiser(schedule)
    run = {
        "ode": lambda x, keys: ode_nll(denoiser, schedule, x, {}, keys, 2).by_probe,
        "variational": lambda x, keys: sum(
            variational_bound(denoiser, schedule, x, {}, keys, 256, samples=4)
        ),
        "ancestral": lambda x, keys: sum(
            ancestral_bound(denoiser, schedule, jnp.linspace(1, 0, 5), x, {}, keys, "small", 256)
        ),
    }[which]
    run, order = jax.jit(run), jnp.array([3, 3, 2, 0, 1, 2])
    tolerance = 1e-2 if which == "ode" else 1e-5
    np.testing.assert_allclose(
        run(x[order], keys[order]), run(x, keys)[order], rtol=1e-4, atol=tolerance
    )
