"""Scheduler configs of diffusers: what they mean here, and back.

Trajectories are compared in `tests/generation/test_published_pipelines.py`.
"""

import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.scheduler_configs import ALLOWED, CLASSES, OF_CLASS, read, write
from diffusion_jax.diffusion.schedules import DDPM, Cosine, ScaledLinear

REFERENCE = np.load(Path(__file__).parents[1] / "reference" / "schedulers.npz")
ABOUT = json.loads(str(REFERENCE["about"]))
V1_5 = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def test_the_published_config_of_stable_diffusion_is_plms_that_ends_at_the_first_entry():
    asked = read(V1_5)
    assert asked.schedule == ScaledLinear(0.00085, 0.012, 1000)
    assert (asked.prediction, asked.sampler, asked.sampler_settings) == ("eps", "pndm", {})
    assert asked.grid == "leading"
    assert asked.grid_settings == {"num_steps": 1000, "offset": 1, "end": 0.001, "skip": 0}
    assert (asked.start, asked.clip) == ("standard", 0.0)


def test_keys_and_defaults_are_those_of_diffusers():
    for name, defaults in ABOUT["defaults"].items():
        theirs = {key: value for key, value in defaults.items() if not key.startswith("_")}
        assert CLASSES[name] == theirs, name
    known = {key for keys in CLASSES.values() for key in keys}
    assert set(ALLOWED) <= known
    assert {key for _, key in OF_CLASS} <= known


@pytest.mark.parametrize("run", ABOUT["runs"])
def test_what_is_written_is_read_as_the_same_and_has_the_same_values(run):
    config = ABOUT["runs"][run]["config"]
    written = write(read(config))
    assert read(written) == read(config)
    assert set(written) == {"_class_name", *CLASSES[config["_class_name"]]}
    for key in config.keys() & written.keys():
        # Only "leading" has an offset.
        if key != "steps_offset" or written["timestep_spacing"] == "leading":
            assert written[key] == config[key], key
    assert json.loads(json.dumps(written)) == written


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"_class_name": "LCMScheduler"}, "_class_name='LCMScheduler' must be one of PNDMSched"),
        ({"beta_strat": 1.0}, "'beta_strat' is not a key of these schedulers"),
        ({"trained_betas": [0.1]}, "trained_betas=[0.1] of a PNDMScheduler must be None"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "must be 'linear' or 'scaled_linear'"),
        ({"skip_prk_steps": False}, "skip_prk_steps=False of a PNDMScheduler must be True"),
        (
            {"prediction_type": "v_prediction"},
            "of a PNDMScheduler must be 'epsilon'",
        ),
        ({"beta_start": "x"}, "beta_start='x' must be a number"),
        ({"num_train_timesteps": 0}, "num_steps=0 must lie in [1, inf)"),
        ({"_class_name": "DDIMScheduler", "thresholding": True}, "must be False or None"),
        (
            {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True},
            "rescale_betas_zero_snr=True of a DDIMScheduler must be False or None",
        ),
        ({"_class_name": "EulerDiscreteScheduler"}, "must be 'leading' or 'trailing'"),
        (
            {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
            "use_karras_sigmas=True of a DPMSolverMultistepScheduler must be False or None",
        ),
        (
            {
                "_class_name": "DPMSolverMultistepScheduler",
                "solver_order": 3,
                "solver_type": "heun",
            },
            "solver_type='heun' must be 'midpoint' with solver_order=3",
        ),
    ],
)
def test_what_is_not_known_is_refused_in_a_line_that_names_the_file_and_the_key(changes, says):
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        read({**V1_5, **changes}, "folder/scheduler_config.json")
    assert str(error.value).startswith("folder/scheduler_config.json: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sampler": "heun"}, "sampler 'heun' on the schedule"),
        ({"schedule": Cosine()}, "sampler 'pndm' on the schedule Cosine"),
        ({"start": "normal"}, "a PNDMScheduler of diffusers has start='standard', not 'normal'"),
        ({"grid": "karras"}, "timestep_spacing='karras' of a PNDMScheduler must be 'leading'"),
        ({"prediction": "velocity"}, "prediction_type=None of a PNDMScheduler must be 'epsilon'"),
        ({"clip": 1.0}, "has clip=0.0, not 1.0"),
        ({"sampler": "ddim", "sampler_settings": {"eta": 1.0}}, "has sampler_settings={}, not"),
    ],
)
def test_what_diffusers_has_not_is_not_written(changes, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        write(read(V1_5)._replace(**changes))


def test_a_table_of_ddpm_can_be_written_too():
    config = read(V1_5)._replace(schedule=DDPM(num_steps=500))
    config.grid_settings.update(num_steps=500, end=1 / 500)
    written = write(config)
    assert (written["beta_schedule"], written["num_train_timesteps"]) == ("linear", 500)
    assert read(written) == config


def test_the_published_table_is_that_of_float32(x64):
    """Ours is in float64, and theirs off by its rounding errors: 3e-6 of `alpha_bar` at most."""
    t = (jnp.arange(1000) + 1) / 1000
    ours = np.asarray(ScaledLinear().alpha(t)) ** 2
    assert REFERENCE["table/float32"].dtype == np.float32
    difference = np.max(np.abs(REFERENCE["table/float32"] / ours - 1))
    assert 1e-8 < difference < 1e-5, difference
