"""Distributions of training times; statistical tests have fixed keys, false alarms 1e-6 each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.schedules import DDPM
from diffusion_jax.diffusion.time_sampling import (
    discrete,
    learned,
    log_normal,
    logit_normal,
    stratified,
    uniform,
)
from tests.oracles import SCHEDULES

FALSE_ALARM = 1e-6


@pytest.mark.parametrize("batch_size", [1, 2, 64, 256])
def test_one_sample_per_stratum(batch_size):
    """Powers of two, for which `index / batch_size` is exact."""
    for seed in range(20):
        u = stratified(jax.random.key(seed), jnp.arange(batch_size), batch_size)
        assert np.all((u >= 0) & (u < 1))
        strata = np.sort(np.floor(np.asarray(u) * batch_size))
        np.testing.assert_array_equal(strata, np.arange(batch_size))


def test_parts_of_a_batch_have_the_times_of_the_whole():
    key = jax.random.key(3)
    whole = stratified(key, jnp.arange(48), 48)
    parts = [stratified(key, jnp.arange(i, i + 16), 48) for i in (0, 16, 32)]
    np.testing.assert_array_equal(whole, jnp.concatenate(parts))
    assert len(np.unique(whole)) == 48


@pytest.mark.parametrize("place", [0, 5])
@pytest.mark.parametrize(
    ("quantile", "cdf"),
    [
        (uniform(0.0, 1.0), stats.uniform.cdf),
        (uniform(0.2, 0.7), stats.uniform(0.2, 0.5).cdf),
        (logit_normal(), lambda t: stats.norm.cdf(np.log(t / (1 - t)))),
        (logit_normal(-0.8, 1.6), lambda t: stats.norm(-0.8, 1.6).cdf(np.log(t / (1 - t)))),
    ],
)
def test_every_place_of_the_batch_follows_the_law(quantile, cdf, place):
    """Over keys, at one place of the batch: the strata turn, so that none is tied to a place."""
    keys = jax.random.split(jax.random.key(place), 20000)
    t = jax.vmap(lambda key: quantile(stratified(key, jnp.array([place]), 8))[0])(keys)
    assert stats.kstest(np.asarray(t, np.float64), cdf).pvalue > FALSE_ALARM


def test_learned_law_has_the_densities_of_its_logits(x64):
    """Its distribution function is straight in each part, and 0 logits leave `u` as it is."""
    share = np.array([0.5, 0.1, 0.15, 0.25])
    u = np.linspace(0, 1, 101)
    spread, log_density = learned(jnp.log(3 * share), jnp.asarray(u))
    cdf = np.interp(spread, np.arange(5) / 4, np.concatenate([[0], np.cumsum(share)]))
    np.testing.assert_allclose(cdf, u, atol=1e-12)
    inside = np.abs(cdf[:, None] - np.cumsum(share)).min(1) > 1e-6
    part = np.floor(np.asarray(spread) * 4).astype(int)[inside]
    np.testing.assert_allclose(np.exp(log_density)[inside], 4 * share[part])
    np.testing.assert_allclose(learned(jnp.zeros(64), jnp.asarray(u))[0], u, atol=1e-12)


@pytest.mark.parametrize("name", ["edm", "cosine", "flow"])
def test_log_normal_is_a_law_of_noise_over_signal(x64, name):
    """Table 1, Karras et al. 2022: log(sigma / alpha) ~ N(-1.2, 1.2^2), on any schedule."""
    u = np.linspace(0.001, 0.999, 101)
    schedule = SCHEDULES[name]
    t = log_normal(schedule)(jnp.asarray(u))
    found = np.log(schedule.sigma(t) / schedule.alpha(t))
    np.testing.assert_allclose(stats.norm(-1.2, 1.2).cdf(found), u, atol=1e-9)


LAWS = {
    "uniform": uniform(),
    "discrete": discrete(),
    "logit_normal": logit_normal(),
    **{f"log_normal_{name}": log_normal(schedule) for name, schedule in SCHEDULES.items()},
}


@pytest.mark.parametrize("name", LAWS)
def test_laws_rise_within_the_unit_interval(name):
    """As quantile functions do, for all `u` in [0, 1)."""
    t = np.asarray(LAWS[name](jnp.linspace(0, np.nextafter(np.float32(1), np.float32(0)), 10001)))
    assert np.all((t >= 0) & (t <= 1))
    assert np.all(np.diff(t) >= 0)
    assert t[-1] > t[0] + 0.1


def test_logit_normal_keeps_off_the_ends():
    t = logit_normal(0.0, 3.0, t_min=1e-3)(jnp.array([0.0, 1e-12, 0.5, 1 - 1e-7]))
    np.testing.assert_allclose(t, [1e-3, 1e-3, 0.5, 1 - 1e-3], rtol=1e-6)


def test_uniform_reaches_from_end_to_end():
    np.testing.assert_allclose(uniform(0.1, 0.9)(jnp.array([0.0, 0.5, 1.0])), [0.1, 0.5, 0.9])


@pytest.mark.parametrize("num_steps", [10, 1000])
def test_discrete_times_are_those_of_the_table(num_steps):
    """Exactly `i / N`, so that DDPM's table is read at its entries; and equally often."""
    u = stratified(jax.random.key(0), jnp.arange(100 * num_steps), 100 * num_steps)
    t = np.asarray(discrete(num_steps)(u))
    table = np.asarray(jnp.arange(1, num_steps + 1) / num_steps)
    places, counts = np.unique(t, return_counts=True)
    np.testing.assert_array_equal(places, table)
    np.testing.assert_allclose(counts, 100, atol=1)  # one may round across an edge


def test_discrete_times_are_equally_likely_over_keys():
    keys = jax.random.split(jax.random.key(1), 20000)
    t = jax.vmap(lambda key: discrete(10)(stratified(key, jnp.array([3]), 8))[0])(keys)
    counts = np.bincount(np.round(np.asarray(t) * 10).astype(int), minlength=11)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > FALSE_ALARM


@pytest.mark.parametrize("num_steps", [3, 1000, 1024, 4000])
def test_discrete_never_leaves_its_steps(num_steps):
    ends = np.array([0.0, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    t = discrete(num_steps)(jnp.asarray(ends))
    np.testing.assert_allclose(t, [1 / num_steps, 1.0], rtol=1e-6)


def test_uniform_grid_of_1000_steps_is_ddpms():
    times = time_grids.uniform(1000)
    table = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
    np.testing.assert_allclose(DDPM().alpha(times) ** 2, table[::-1], atol=1e-6)


@pytest.mark.parametrize("steps", [1, 7, 50])
@pytest.mark.parametrize(
    ("grid", "straight"), [(time_grids.uniform, lambda t: t), (time_grids.quadratic, np.sqrt)]
)
def test_grids_run_from_noise_to_clean(grid, straight, steps):
    times = np.asarray(grid(steps, t_max=0.9, t_min=0.01))
    expected = np.linspace(straight(0.9), straight(0.01), steps + 1)
    np.testing.assert_allclose(straight(times), expected, rtol=1e-5)
    assert np.asarray(grid(steps))[-1] == 0
    assert np.asarray(grid(steps))[0] == 1


@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_trailing_and_leading_are_those_of_the_table(steps):
    """Table 2, Lin et al. 2024: whole entries, from the last one and from the first one."""
    index = np.asarray(time_grids.trailing(steps)) * 1000 - 1
    np.testing.assert_allclose(index[:-1], np.arange(1000, 0, -1000 / steps) - 1, atol=1e-3)
    index = np.asarray(time_grids.leading(steps)) * 1000 - 1
    np.testing.assert_allclose(index[:-1], np.arange(0, 1000, 1000 // steps)[::-1], atol=1e-3)
    assert time_grids.trailing(steps)[-1] == time_grids.leading(steps)[-1] == 0


def test_more_steps_than_the_table_has_are_refused():
    for grid in (time_grids.trailing, time_grids.leading):
        with pytest.raises(ValueError, match="steps=101 is more than the 100 of the table"):
            grid(101, num_steps=100)
        with pytest.raises(ValueError, match="more than the 50 of the table"):
            grid(60, 0.5, num_steps=100)


@pytest.mark.parametrize("name", ["edm", "cosine", "linear_beta", "flow", "ve"])
def test_grids_of_noise_levels(x64, name):
    """Eq. 5, Karras et al. 2022, and its limit of large rho; as far as the schedule goes."""
    schedule, i = SCHEDULES[name], np.arange(18) / 17
    ratio = lambda t: np.asarray(schedule.sigma(t) / schedule.alpha(t))  # noqa: E731
    high = min(80.0, 50.0 if name == "ve" else 80.0)
    expected = (high ** (1 / 7) + i * (0.002 ** (1 / 7) - high ** (1 / 7))) ** 7
    times = time_grids.karras(schedule, 18)
    np.testing.assert_allclose(ratio(times[:-1]), expected, rtol=1e-6)
    even = time_grids.uniform_logsnr(schedule, 18)
    np.testing.assert_allclose(
        np.diff(np.log(ratio(even[:-1]))), np.log(0.002 / high) / 17, rtol=1e-5
    )
    assert times[-1] == even[-1] == 0
    if name in ("edm", "ve"):
        assert times[0] == even[0] == 1
