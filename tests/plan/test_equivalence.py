"""Configs with the same objective in different forms, and some that only look alike."""

import functools

import pytest

from configs import default
from diffusion_jax.plan.equivalence import compare_objectives


def config(words):
    """The default config with overrides such as `"schedule.name=flow objective.huber=0.1"`."""
    c = default.get_config()
    pairs = dict(word.split("=") for word in words.split())
    for key, value in pairs.items():
        *groups, name = key.split(".")
        target = functools.reduce(getattr, groups, c)
        target[name] = type(target[name])(value)
    return c


EDM = "time_sampling.name=log_normal objective.weighting=edm"
HUBER = "objective.huber=0.1 time_sampling.name=log_normal"
LOG_3 = 1.0986122886681098
SHIFTED = "schedule.name=flow schedule.shift=3 time_sampling.name=logit_normal"
MOVED = (
    f"schedule.name=flow time_sampling.name=logit_normal time_sampling.logit_normal.mean={LOG_3}"
)
SAME = {
    "the error of the noise is that of the data times the SNR": (
        "objective.prediction=eps",
        "objective.prediction=x0 objective.weighting=snr",
    ),
    "a loss space is the error of a network of that type": (
        "objective.prediction=x0",
        "objective.prediction=score objective.loss_space=x0",
    ),
    "with unit variance EDM predicts -v": (
        "objective.prediction=edm objective.sigma_data=1",
        "objective.prediction=v",
    ),
    "the bound is the same for all schedules": (
        "schedule.name=cosine objective.weighting=vlb",
        "schedule.name=flow objective.weighting=vlb",
    ),
    "so is what is stated per unit of logsnr": (
        "schedule.name=laplace objective.weighting=sigmoid time_sampling.uniform.t_min=0",
        "schedule.name=cauchy objective.weighting=sigmoid time_sampling.uniform.t_min=0",
    ),
    "a law of noise levels is one for all schedules": (
        f"schedule.name=edm objective.prediction=edm {EDM}",
        f"schedule.name=cosine objective.prediction=eps {EDM}",
    ),
    "a shifted flow is a flow at shifted times (Esser et al. 2024)": (
        f"{SHIFTED} objective.weighting=min_snr",
        f"{MOVED} objective.weighting=min_snr",
    ),
    "robust errors too": (
        f"schedule.name=flow objective.loss_space=x0 {HUBER}",
        f"schedule.name=ve objective.prediction=x0 {HUBER}",
    ),
}
DIFFERENT = {
    "errors of noise and data": ("objective.prediction=eps", "objective.prediction=x0"),
    "min-SNR is of the error in x_0, not of that in v": (
        "objective.weighting=min_snr",
        "objective.weighting=uniform",
    ),
    "a shift without the weight that goes with it: velocity is per unit of t": (
        f"{SHIFTED} objective.prediction=velocity",
        f"{MOVED} objective.prediction=velocity",
    ),
    "uniform times of two schedules": (
        "schedule.name=cosine objective.weighting=snr",
        "schedule.name=flow objective.weighting=snr",
    ),
    "times that one of them never sees": (
        "time_sampling.uniform.t_min=0.5 objective.weighting=vlb",
        "objective.weighting=vlb",
    ),
    "square and Huber": ("objective.huber=0.1", "objective.huber=0"),
}


@pytest.mark.parametrize("case", SAME)
@pytest.mark.slow
def test_same_objectives_have_the_same_gradients(case):
    found = compare_objectives(*(config(words) for words in SAME[case]))
    assert found.deviation < 1e-6, found
    assert abs(found.factor - 1) < 1e-6, found


@pytest.mark.parametrize("case", DIFFERENT)
@pytest.mark.slow
def test_different_objectives_are_told_apart(case):
    """In either order."""
    first, second = (config(words) for words in DIFFERENT[case])
    assert compare_objectives(first, second).deviation > 0.01
    assert compare_objectives(second, first).deviation > 0.01


@pytest.mark.slow
def test_a_constant_factor_is_told():
    """EDM's own squared error is the weighted one: 1 / c_out^2 at any `sigma_data`."""
    edm = "schedule.name=ve objective.prediction=edm time_sampling.name=log_normal"
    weighted = "schedule.name=ve objective.weighting=edm time_sampling.name=log_normal"
    found = compare_objectives(config(edm), config(weighted))
    assert found.deviation < 1e-6
    assert abs(found.factor - 1) < 1e-6
    # Data that are twice as large as they are said to be: the scale of x_t is the same.
    flow = "schedule.name=flow objective.weighting=vlb"
    part = f"{flow} time_sampling.uniform.t_max=0.5"
    assert compare_objectives(config(part), config(part)).factor == 1


def test_times_on_a_table_have_no_density():
    with pytest.raises(ValueError, match="no density"):
        compare_objectives(config("time_sampling.name=discrete"), config("objective.huber=0"))
