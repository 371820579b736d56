"""Errors of parts about a wrong setting get the config key as prefix."""

import re

import pytest

from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.from_config.averages import make_averages
from diffusion_jax.from_config.checks import check_numbers
from diffusion_jax.from_config.choices import ConfigError, keyed
from diffusion_jax.from_config.guidance import check
from diffusion_jax.from_config.network import check_network
from diffusion_jax.from_config.process import make_schedule, make_times
from diffusion_jax.from_config.sampling import make_grid, make_sampler
from tests.runs import tiny


def sampler(config):
    return make_sampler(config, Cosine())


def grid(config):
    return make_grid(config, Cosine())


def training_times(config):
    return make_times(config, Cosine())


WRONG = [
    (make_schedule, "schedule.cosine.logsnr_min", 5.0, {}),
    (make_schedule, "schedule.ddpm.num_steps", 0, {"schedule__name": "ddpm"}),
    (make_schedule, "schedule.shift", -1.0, {}),
    (training_times, "time_sampling.uniform.t_min", -0.5, {}),
    (training_times, "time_sampling.log_normal.std", 0.0, {"time_sampling__name": "log_normal"}),
    (make_averages, "ema.decay", 1.5, {}),
    (make_averages, "sample.ema", 0.9, {}),
    (sampler, "sample.unipc.order", 7, {"sample__sampler": "unipc"}),
    (sampler, "sample.churn.s_min", 60.0, {"sample__sampler": "churn"}),
    (grid, "sample.steps", 0, {}),
    (grid, "sample.t_max", 1.5, {"sample__grid": "karras"}),
    (grid, "sample.steps", 1001, {"sample__grid": "leading"}),
    (grid, "sample.karras.rho", 0.0, {"sample__grid": "karras"}),
    (grid, "sample.restart.steps", 0, {"sample__restart__repeats": 1}),
    (check, "sample.guidance.parallel", 3.0, {}),
    (check, "sample.guidance.likeness.scale", -1.0, {}),
    (check, "sample.guidance.likeness.max_norm", -1.0, {}),
    (check, "sample.clip", -0.5, {}),
    (check, "sample.guidance.flock.size", 1, {}),
]


@pytest.mark.parametrize(("make", "key", "value", "also"), WRONG)
def test_the_key_stands_before_the_sentence(make, key, value, also):
    given = str(value) if key == "sample.ema" else value
    with pytest.raises(
        ConfigError, match=f"^{re.escape(f'{key}={value}')} (must|is more)"
    ) as error:
        make(tiny(**also, **{key: given}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("interval", [(0.5,), (0.1, 0.2, 0.3), (0.2, 0.1), (-1.0, 0.5)])
def test_intervals_that_are_none(interval):
    with pytest.raises(ConfigError, match=r"^sample\.guidance\.interval(\.low)?="):
        check(tiny(sample__guidance__interval=interval))


def test_only_sentences_of_arguments_are_changed():
    for error in (ConfigError("a=1 is wrong"), TypeError("b=2 is wrong")):
        with pytest.raises(type(error), match=r"^[ab]=. is wrong$"), keyed("group"):
            raise error
    with pytest.raises(ConfigError, match=r"^group: no argument$"), keyed("group"):
        raise ValueError("no argument")


def test_names_of_the_training_split_are_no_others():
    config = tiny()
    config.evaluate.names.splits = ("combination", "train")
    with pytest.raises(ConfigError, match=r"evaluate\.names\.splits: 'train' is trained on"):
        check_numbers(config, devices=1)


@pytest.mark.parametrize(
    "changes", [{"objective__learned_variance": True}, {"objective__name": "damage"}]
)
def test_gains_are_of_one_output_per_channel(changes):
    with pytest.raises(
        ConfigError, match=r"^model\.gains=True is for objective\.name='gaussian' w"
    ):
        check_network(tiny(model__name="unet", model__gains=True, **changes))
