"""All kinds of guidance, compared with closed forms and their published formulas."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.guidance import scales
from diffusion_jax.guidance.extrapolation import Push, autoguidance, classifier_free
from diffusion_jax.guidance.gradients import by_gradient
from diffusion_jax.guidance.particles import flock
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.loop import sample
from diffusion_jax.types import Denoised
from tests.oracles import CLEAN, SCHEDULES, GaussianMixture, three_components, times_of

LABELS = {"label": np.array([0, 1, 2, 0, 1, 2])}
NONE = {"label": np.full(6, -1)}
KEYS = jax.random.split(jax.random.key(0), 6)


def points(num=6, dim=2, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(num, dim)))


def counted(denoise, ran):
    def denoise_and_count(x_t, t, cond):
        jax.debug.callback(lambda: ran.append(len(x_t)))
        return denoise(x_t, t, cond)

    return denoise_and_count


def run(denoise, times, cond=LABELS, x_T=None, name="cosine"):
    x_T = points() if x_T is None else x_T
    return sample(denoise, ddim(SCHEDULES[name]), jnp.asarray(times), x_T, cond, KEYS)[0]


# How strong, when.


@pytest.mark.parametrize(
    ("low", "high", "inside"), [(0.0, 1.0, range(10)), (0.25, 0.65, (4, 5, 6, 7)), (0.91, 1, [0])]
)
def test_outside_of_the_interval_the_other_half_is_not_evaluated(low, high, inside):
    """Counted as the compiled loop runs; step i starts at t = 1 - i / 10."""
    exact, times, ran = three_components().denoiser(SCHEDULES["cosine"]), np.linspace(1, 0, 11), []

    @jax.jit
    def draw(scale):
        guided = classifier_free(counted(exact, ran), scales.within(scale, low, high))
        return run(guided, times)

    draw(3.0).block_until_ready()
    jax.effects_barrier()
    assert ran == [12 if i in inside else 6 for i in range(10)]


def test_outside_of_the_interval_it_is_the_plain_denoiser():
    exact = three_components().denoiser(SCHEDULES["cosine"])
    guided = classifier_free(exact, scales.within(4.0, 0.3, 0.6))
    for t, same in ((0.2, True), (0.3, False), (0.6, False), (0.7, True)):
        pair = (f(points(), jnp.full(6, t), LABELS).x_0 for f in (guided, exact))
        assert np.allclose(*pair, rtol=1e-5, atol=1e-6) == same, t


def test_what_is_known_to_be_off_is_not_there():
    """So that the program is that of no guidance, and its samples the same to the bit."""
    exact = three_components().denoiser(SCHEDULES["cosine"])
    assert classifier_free(exact, 1.0) is exact
    assert classifier_free(exact, 1.0, others=[(NONE, 0.0)]) is exact
    assert autoguidance(exact, exact, 1.0) is exact
    assert by_gradient(exact, lambda *_: 0.0, SCHEDULES["cosine"], 0.0) is exact
    assert flock(exact, SCHEDULES["cosine"], 3) is exact
    assert flock(exact, SCHEDULES["cosine"], 3, cohesion=0.1) is not exact


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_courses_are_off_at_the_noise_and_have_the_mean_of_a_constant(name):
    t = jnp.linspace(0, 1, 1001)
    course = scales.at(scales.SCHEDULES[name](3.0), t)
    assert np.isclose(np.trapezoid(course, t), 3.0, rtol=1e-5)
    assert np.isclose(course[-1], 1.0, atol=1e-6)
    assert np.all(np.diff(course) <= 1e-6)
    np.testing.assert_array_equal(scales.at(scales.SCHEDULES[name](1.0), t), np.ones(1001))


@pytest.mark.parametrize("name", ["cosine", "flow", "edm"])
@pytest.mark.parametrize("scale", [0.0, 0.6, 1.0])
def test_cfg_plus_plus_is_its_authors_step(x64, name, scale):
    """Alg. 2 of Chung et al. 2025: guided x_0, renoised with the unconditional noise."""
    schedule, exact = SCHEDULES[name], three_components().denoiser(SCHEDULES[name])
    times = jnp.linspace(0.98, 0.0, 13)
    x_T = points() * schedule.sigma(times[0])
    guided = classifier_free(exact, scales.plus_plus(scale, schedule, times))
    found = run(guided, times, x_T=x_T, name=name)

    x = x_T
    for t, s in itertools.pairwise(times):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        own, none = (exact(x, jnp.full(6, t), cond).x_0 for cond in (LABELS, NONE))
        eps_none = (x - alpha * none) / sigma
        x = schedule.alpha(s) * (none + scale * (own - none)) + schedule.sigma(s) * eps_none
    np.testing.assert_allclose(found, x, rtol=1e-9, atol=1e-9)


# Along which difference.


def test_push_is_that_of_its_authors():
    """APG: Sadat et al. 2025, the listing of their appendix; rescaling: Lin et al. 2024, Eq. 16."""
    rng = np.random.default_rng(1)
    plain, difference = rng.normal(size=(2, 3, 4, 4, 2))
    scale, radius, eta, phi = 5.0, 0.7, 0.3, 0.4

    norm = np.sqrt((difference**2).sum((1, 2, 3), keepdims=True))
    limited = difference * np.minimum(1, radius * np.sqrt(32) / norm)
    unit = plain / np.sqrt((plain**2).sum((1, 2, 3), keepdims=True))
    parallel = (limited * unit).sum((1, 2, 3), keepdims=True) * unit
    expected = plain + (scale - 1) * (limited - parallel + eta * parallel)
    ratio = plain.std((1, 2, 3), keepdims=True) / expected.std((1, 2, 3), keepdims=True)
    expected = phi * expected * ratio + (1 - phi) * expected

    term = jnp.full(3, scale - 1), jnp.asarray(difference)
    found = Push(eta, radius, phi)(jnp.asarray(plain), [term])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert 0 < np.sum(norm > radius * np.sqrt(32)) <= 3


# Several prompts.


def grid(first=None, second=None):
    """A law of two independent factors; with one or both of them given."""
    places, weights = np.array([-0.8, 0.1, 0.9]), np.array([0.2, 0.5, 0.3])
    stds = np.array([0.1, 0.3, 0.15])
    pairs = [
        (i, j)
        for i, j in itertools.product(range(3), range(3))
        if first in (None, i) and second in (None, j)
    ]
    weight = np.array([weights[i] * weights[::-1][j] for i, j in pairs])
    return GaussianMixture(
        weight / weight.sum(),
        np.array([[places[i], places[j]] for i, j in pairs]),
        np.array([np.diag([stds[i], stds[j]]) ** 2 for i, j in pairs]),
    )


def two_factors(schedule):
    """The denoiser of `grid`, given by `cond` either factor (0), both (never), or none (-1)."""
    none, first, second = (g.denoiser(schedule) for g in (grid(), grid(first=0), grid(second=2)))

    def denoise(x_t, t, cond):
        found = [f(x_t, t, {}).x_0 for f in (none, first, second)]
        x_0 = jnp.where((cond["first"] >= 0)[:, None], found[1], found[0])
        return Denoised(jnp.where((cond["second"] >= 0)[:, None], found[2], x_0))

    return denoise


ON, OFF = np.zeros(6, np.int32), np.full(6, -1, np.int32)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddpm", "flow", "edm"])
def test_independent_factors_compose_to_their_product(x64, name):
    """At every noise level, where they are independent given noisy data."""
    schedule = SCHEDULES[name]
    cond, other = {"first": ON, "second": OFF}, {"first": OFF, "second": ON}
    composed = classifier_free(two_factors(schedule), 1.0, others=[(other, 1.0)])
    both = grid(first=0, second=2).denoiser(schedule)
    for t in times_of(name):
        x_t = points() * schedule.sigma(t) + schedule.alpha(t)
        t = jnp.full(6, t)
        found, known = composed(x_t, t, cond).x_0, both(x_t, t, {}).x_0
        np.testing.assert_allclose(found, known, rtol=1e-8, atol=1e-8)


def test_not_leads_away_and_weights_are_those_of_liu(x64):
    """`eps = eps_0 + sum_i w_i (eps_i - eps_0)`, Eq. 11 and 13 of Liu et al. 2022."""
    schedule, t, x_t = SCHEDULES["ddpm"], jnp.full(6, 0.4), points()
    exact = three_components().denoiser(schedule)
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    conds = [NONE, LABELS, {"label": np.array([1, 2, 0, 2, 0, 1])}, {"label": np.full(6, 2)}]
    eps = [(x_t - alpha * exact(x_t, t, cond).x_0) / sigma for cond in conds]
    weights = 2.5, 1.5, -0.7
    expected = eps[0] + sum(w * (e - eps[0]) for w, e in zip(weights, eps[1:], strict=True))
    others = list(zip(conds[2:], weights[1:], strict=True))
    found = classifier_free(exact, weights[0], others=others)(x_t, t, LABELS).x_0
    np.testing.assert_allclose(found, (x_t - sigma * expected) / alpha, rtol=1e-9)


def test_a_negative_prompt_takes_the_place_of_none():
    exact, t = three_components().denoiser(SCHEDULES["ddpm"]), jnp.full(6, 0.4)
    against = {"label": np.array([1, 2, 0, 1, 2, 0])}
    own, away = (exact(points(), t, cond).x_0 for cond in (LABELS, against))
    found = classifier_free(exact, 3.0, against=against)(points(), t, LABELS).x_0
    np.testing.assert_allclose(found, away + 3 * (own - away), rtol=1e-5, atol=1e-5)


def test_all_prompts_are_one_call_and_none_is_made_where_their_weights_are_0():
    exact, ran = three_components().denoiser(SCHEDULES["ddpm"]), []

    @jax.jit
    def guided(scale, weight):
        others = [(NONE, weight), (NONE, scales.within(weight, 0.9, 1.0, 0.0))]
        f = classifier_free(counted(exact, ran), scale, others=others)
        return f(points(), jnp.full(6, 0.5), LABELS).x_0

    for scale, weight, images in ((1.0, 0.0, 6), (1.0, 0.3, 24), (2.0, 0.0, 24)):
        ran.clear()
        guided(scale, weight).block_until_ready()
        jax.effects_barrier()
        assert ran == [images]


# A worse model of itself.


def test_autoguidance_is_eq_3_and_off_at_1():
    schedule, t, ran = SCHEDULES["ddpm"], jnp.full(6, 0.3), []
    good, bad = (g.denoiser(schedule) for g in (three_components(), blurred()))
    scale = jnp.array(2.0)
    run = jax.jit(lambda s: autoguidance(good, counted(bad, ran), s)(points(), t, LABELS).x_0)
    own, worse = (f(points(), t, LABELS).x_0 for f in (good, bad))
    np.testing.assert_allclose(run(scale), worse + 2 * (own - worse), rtol=1e-4, atol=1e-5)
    jax.effects_barrier()
    assert ran == [6]
    np.testing.assert_allclose(run(1.0), own, rtol=1e-5, atol=1e-6)
    jax.effects_barrier()
    assert ran == [6]


def blurred():
    """A worse model: the law with more noise in it."""
    law = three_components()
    return GaussianMixture(law.weights, law.means, law.covs + 0.2 * np.eye(2))


# Gradients.


@pytest.mark.parametrize("name", CLEAN)
def test_an_exact_classifier_of_noisy_data_makes_the_conditional_law(x64, name):
    """Bayes' rule: grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)."""
    schedule, law = SCHEDULES[name], three_components()

    def log_prob(x_t, t, cond, x_0):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        r = law.responsibilities(x_t, alpha, sigma)
        return jnp.log(jnp.take_along_axis(r, cond["label"][:, None], axis=1))[:, 0]

    plain = law.denoiser(schedule)
    unconditional = lambda x_t, t, cond: plain(x_t, t, {})  # noqa: E731
    guided = by_gradient(unconditional, log_prob, schedule, 1.0)
    for t in times_of(name):
        x_t = schedule.sigma(t) * points() + schedule.alpha(t) * law.means[LABELS["label"]]
        t = jnp.full(6, t)
        found, known = guided(x_t, t, LABELS).x_0, plain(x_t, t, LABELS).x_0
        np.testing.assert_allclose(found, known, rtol=1e-6, atol=1e-7)


def test_the_gradient_goes_through_the_denoiser(x64):
    """Data N(0, s^2): x_0_hat = c x_t; the gradient of -(x_0_hat - y)^2 / 2 is c (y - c x_t)."""
    schedule, t, s, y = SCHEDULES["cosine"], jnp.full(6, 0.4), 0.5, 0.8
    alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
    c = alpha * s**2 / (alpha**2 * s**2 + sigma**2)

    def denoise(x_t, t, cond):
        return Denoised(c * x_t)

    def near(x_t, t, cond, x_0):
        return -jnp.sum((x_0 - y) ** 2, axis=1) / 2

    for limit in (0.0, 0.01):
        found = by_gradient(denoise, near, schedule, 0.3, limit)(points(), t, {}).x_0
        change = 0.3 * sigma**2 / alpha * c * (y - c * points())
        rms = np.sqrt(np.mean(change**2, axis=1, keepdims=True))
        change = change * np.minimum(1, limit / rms) if limit else change
        np.testing.assert_allclose(found, c * points() + change, rtol=1e-9)


def test_a_gradient_that_is_off_costs_nothing():
    exact, ran = three_components().denoiser(SCHEDULES["ddpm"]), []

    def log_prob(x_t, t, cond, x_0):
        jax.debug.callback(lambda: ran.append(1))
        return -jnp.sum(x_0**2, axis=1)

    strength = scales.within(1.0, 0.5, 1.0, 0.0)
    guided = jax.jit(by_gradient(exact, log_prob, SCHEDULES["ddpm"], strength))
    for t, calls in ((0.2, 0), (0.7, 1)):
        x_0 = guided(points(), jnp.full(6, t), LABELS).x_0.block_until_ready()
        jax.effects_barrier()
        assert len(ran) == calls
    assert not np.allclose(x_0, exact(points(), jnp.full(6, t), LABELS).x_0)


# Flocks.


def neighbours(x):
    """`k_ij` with a zero diagonal, and h, of one group `[n, D]`."""
    n = len(x)
    square = jnp.array([[jnp.sum((a - b) ** 2) for b in x] for a in x])
    h = np.median(np.sqrt(square[np.triu_indices(n, 1)])) ** 2 / np.log(n)
    return jnp.exp(-square / h) * (1 - jnp.eye(n)), h


def test_separation_is_the_gradient_of_its_potential(x64):
    schedule, t = SCHEDULES["ddpm"], jnp.full(6, 0.3)
    exact = three_components().denoiser(schedule)
    alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
    found = flock(exact, schedule, 3, separation=0.7)(points(), t, LABELS).x_0
    for group in (slice(0, 3), slice(3, 6)):
        x = points()[group]
        _, h = neighbours(x)

        def log_phi(x, h=h):
            pairs = itertools.combinations(range(3), 2)
            return -sum(jnp.exp(-jnp.sum((x[i] - x[j]) ** 2) / h) for i, j in pairs)

        plain = exact(points(), t, LABELS).x_0[group]
        expected = plain + 0.7 * sigma**2 / alpha * alpha * jax.grad(log_phi)(x)
        np.testing.assert_allclose(found[group], expected, rtol=1e-8)


def test_cohesion_and_alignment_draw_pictures_and_noise_together(x64):
    schedule, t = SCHEDULES["ddpm"], jnp.full(6, 0.3)
    exact = three_components().denoiser(schedule)
    alpha, sigma = schedule.alpha(t)[0], schedule.sigma(t)[0]
    kernel, _ = neighbours(points())
    weights = kernel / kernel.sum(1, keepdims=True)
    x_0 = exact(points(), t, LABELS).x_0
    eps = (points() - alpha * x_0) / sigma

    drawn = flock(exact, schedule, 6, cohesion=0.4)(points(), t, LABELS).x_0
    np.testing.assert_allclose(drawn, 0.6 * x_0 + 0.4 * weights @ x_0, rtol=1e-8)
    aligned = flock(exact, schedule, 6, alignment=0.4)(points(), t, LABELS).x_0
    expected = (1 - 0.4 * alpha) * eps + 0.4 * alpha * weights @ eps
    np.testing.assert_allclose((points() - alpha * aligned) / sigma, expected, rtol=1e-8)


def test_a_flock_is_no_flock_where_its_strength_turns_out_to_be_0():
    """Within rounding: the two programs are compiled differently."""
    times, schedule = np.linspace(1, 0, 9), SCHEDULES["cosine"]
    exact = three_components().denoiser(schedule)

    @jax.jit
    def draw(strength):
        return run(flock(exact, schedule, 3, separation=strength), times)

    independent = jax.jit(lambda: run(exact, times))()
    np.testing.assert_allclose(draw(0.0), independent, rtol=1e-5, atol=1e-6)
    assert not np.allclose(draw(1.0), independent, rtol=1e-5, atol=1e-6)


def test_a_sample_depends_on_its_group_only():
    exact = three_components().denoiser(SCHEDULES["cosine"])
    rules = {"separation": 0.5, "cohesion": 0.1, "alignment": 0.1}
    f = jax.jit(flock(exact, SCHEDULES["cosine"], 3, **rules))
    t, other = jnp.full(6, 0.5), points().at[4].add(0.3)
    first, second = (f(x, t, NONE).x_0 for x in (points(), other))
    np.testing.assert_array_equal(first[:3], second[:3])
    assert np.all(first[3:] != second[3:])


@pytest.mark.parametrize(
    ("size", "says"), [(1, "size=1 must lie in"), (4, "6 samples must be a multiple of size=4")]
)
def test_groups_that_cannot_be_are_refused(size, says):
    exact, schedule = three_components().denoiser(SCHEDULES["cosine"]), SCHEDULES["cosine"]
    with pytest.raises(ValueError, match=says):
        flock(exact, schedule, size, separation=1.0)(points(), jnp.full(6, 0.5), NONE)


def ring(modes=8):
    angles = 2 * np.pi * np.arange(modes) / modes
    means = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return GaussianMixture(
        np.full(modes, 1 / modes), means, np.tile(0.01 * np.eye(2), (modes, 1, 1))
    )


def test_particles_that_repel_cover_more_modes():
    """Of eight modes eight independent samples hit 8 (1 - (7/8)^8) = 5.25 on average."""
    schedule, law, groups = SCHEDULES["cosine"], ring(), 200
    x_T = jnp.asarray(np.random.default_rng(3).normal(size=(8 * groups, 2)))
    keys = jax.random.split(jax.random.key(1), 8 * groups)
    exact, times = law.denoiser(schedule), jnp.linspace(1, 0, 41)

    @functools.partial(jax.jit, static_argnums=0)
    def covered(separation):
        denoise = flock(exact, schedule, 8, separation=separation)
        x = sample(denoise, ddim(schedule), times, x_T, {}, keys)[0]
        nearest = jnp.argmax(law.responsibilities(x, 1.0, 0.0), axis=1).reshape(groups, 8)
        return jnp.mean(jnp.sum(jax.nn.one_hot(nearest, 8).sum(1) > 0, axis=1).astype(float))

    alone, apart = covered(0.0), covered(2.0)
    assert abs(alone - 5.25) < 0.25  # of a standard deviation of 0.06
    assert apart > alone + 0.5, (alone, apart)
