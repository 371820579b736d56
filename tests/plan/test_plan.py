"""`--mode plan`: figures compared with closed forms, and a warning for each known mistake."""

import functools

import numpy as np
import pytest
from scipy import stats

from configs import default
from diffusion_jax.from_config import build
from diffusion_jax.plan import make_plan


def plan(words="", second_moment=0.5):
    """Plan of the default config (digits, 64 pixels, 50 steps) with overrides."""
    c = default.get_config()
    for word in words.split():
        key, value = word.split("=")
        *groups, name = key.split(".")
        target = functools.reduce(getattr, groups, c)
        target[name] = value == "True" if value in ("True", "False") else type(target[name])(value)
    return make_plan(c, build(c), second_moment)


RESIDUAL = "image_condition.name=masked image_condition.residual=True"


def row(found, high):
    """Training share and sampling steps of the band from `high` down."""
    cells = next(line.split() for line in found.lines if line.split()[0] == f"{high:g}")
    return float(cells[3].rstrip("%")) / 100, int(cells[4])


def test_the_default_has_nothing_to_warn_of():
    assert plan().warnings == []


@pytest.mark.slow
def test_a_grid_that_is_not_there_yet_is_not_judged():
    found = plan("schedule.name=edm sample.sampler=heun sample.grid=optimised")
    assert "not yet optimised" in found.lines[-1]
    assert not any("sampling steps hardly" in warning for warning in found.warnings)


@pytest.mark.slow
def test_terminal_snr_and_prior_kl_are_those_of_the_table():
    """alpha_1^2 = 0.0047: KL per pixel is alpha^2 x^2 / (2 sigma^2)."""
    alpha2 = np.prod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    snr = alpha2 / (1 - alpha2)
    lines = plan("schedule.name=scaled_linear").lines
    assert f"t = 1: {snr:.3g};" in lines[0]
    assert f"prior KL: {0.5 * snr * 0.5 * 64:.3g} nats per image" in lines[1]


@pytest.mark.slow
def test_bands_are_the_shares_of_the_law():
    """log(sigma / alpha) is N(-1.2, 1.2^2) in EDM's training."""
    found = plan("schedule.name=edm time_sampling.name=log_normal sample.grid=karras")
    for high, low in ((4.0, 2.0), (0.0, -2.0)):
        expected = np.diff(stats.norm(-1.2, 1.2).cdf([-high / 2, -low / 2]))[0]
        assert abs(row(found, high)[0] - expected) < 1e-3
    steps = [int(line.split()[4]) for line in found.lines[4:]]
    assert sum(steps) == 50


def test_a_bridge_starts_about_what_is_given():
    """OUVE's mean is e^-1.5 of the way short of it; the bridge ends there."""
    found = plan(f"{RESIDUAL} schedule.name=ouve")
    growth = 1.5 + np.log(10)
    snr = growth / np.log(10) / (0.05**2 * np.expm1(2 * growth))
    assert f"prior KL: {0.5 * snr * 0.5 * 64:.3g} nats per image" in found.lines[1]
    says = [warning for warning in found.warnings if "x_t at t = 1" in warning]
    assert len(says) == 1
    assert "about how its image differs from what is given, and samples start about" in says[0]
    assert "pure noise" not in says[0]
    assert not any(
        "x_t at t" in words for words in plan(f"{RESIDUAL} schedule.name=bridge").warnings
    )


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        ("schedule.name=scaled_linear", "contains 0.075 nats"),
        ("sample.grid=leading sample.steps=4", "start at t = 1"),
        ("schedule.name=ve schedule.ve.sigma_max=3", "zero_terminal_snr=True"),
        (
            "schedule.name=linear_logsnr schedule.linear_logsnr.logsnr_max=6",
            "end with noise of 0.05",
        ),
        ("schedule.name=laplace", "the last step goes from noise 0.45"),
        ("schedule.name=edm", "wasted"),
        ("schedule.name=edm", "of the training is spent where there is almost no noise"),
        ("sample.t_max=0.9 time_sampling.uniform.t_max=0.6", "0.00% of the training"),
        (
            "schedule.name=flow schedule.shift=3 time_sampling.name=logit_normal "
            "time_sampling.logit_normal.mean=1",
            "shifted twice",
        ),
    ],
)
def test_mistakes_are_told_in_words(words, warning):
    found = plan(words).warnings
    assert any(warning in sentence for sentence in found), found


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "schedule.name=scaled_linear schedule.zero_terminal_snr=True",
        "schedule.name=flow schedule.shift=3 time_sampling.name=logit_normal",
        "schedule.name=linear_beta sample.grid=karras",
        "sample.steps=4",
    ],
)
def test_what_is_right_is_not_warned_of(words):
    assert plan(words).warnings == []
