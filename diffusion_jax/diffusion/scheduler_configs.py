"""Scheduler configs of diffusers: what a `scheduler_config.json` is here, and the way back.

The file gives a class, which is a sampler, and the table that a network was trained with; its grid
and the end of it belong to the network as much as the table does. Trajectories are those of
diffusers 0.42.1 with its tables in float64, except that

- the grids "linspace", and "trailing" unless `steps` divides the table, are followed by DDIM and
  PNDM as they are; theirs tell the network these times, and step by `num_steps // steps` entries;
- DDIM computes the noise of a clipped `x_0_hat` anew, as theirs by `use_clipped_model_output`;
- DPM-Solver++ keeps its order below 15 steps, where theirs lowers that of the last ones: with order
  3 of the last two, and with `final_sigmas_type="sigma_min"` of the last.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from diffusion_jax.diffusion.schedules import DDPM, ScaledLinear, Schedule


class SchedulerConfig(NamedTuple):
    """A schedule, and how it is sampled: names and settings as in `sample` of a config."""

    schedule: Schedule
    prediction: str  # a name in `PREDICTIONS`
    sampler: str
    sampler_settings: dict[str, Any]
    grid: str
    grid_settings: dict[str, Any]
    start: str = "standard"  # noise of the first state: of variance 1, or "normal", `sigma_t^2`
    clip: float = 0.0  # `x_0_hat` is limited to [-clip, clip]; 0: not at all


_TABLE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
}
_THRESHOLDING = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_LEVELS = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "rescale_betas_zero_snr": False,
    "final_sigmas_type": "zero",
}
CLASSES: dict[str, dict[str, Any]] = {
    "PNDMScheduler": {**_TABLE, "skip_prk_steps": False, "set_alpha_to_one": False},
    "DDIMScheduler": {
        **_TABLE,
        **_THRESHOLDING,
        "clip_sample": True,
        "clip_sample_range": 1.0,
        "set_alpha_to_one": True,
        "rescale_betas_zero_snr": False,
    },
    "DPMSolverMultistepScheduler": {
        **_TABLE,
        **_THRESHOLDING,
        **_LEVELS,
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
        "use_lu_lambdas": False,
        "use_flow_sigmas": False,
        "flow_shift": 1.0,
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
        "use_dynamic_shifting": False,
        "time_shift_type": "exponential",
    },
    "EulerDiscreteScheduler": {
        **_TABLE,
        **_LEVELS,
        "timestep_spacing": "linspace",
        "interpolation_type": "linear",
        "sigma_min": None,
        "sigma_max": None,
        "timestep_type": "discrete",
    },
}
"""Keys by class, with the values that diffusers gives them where a file lacks them.

Files keep keys of other classes here, as diffusers does; they mean nothing to their class.
"""
SAMPLERS = {
    "PNDMScheduler": "pndm",
    "DDIMScheduler": "ddim",
    "DPMSolverMultistepScheduler": "dpmpp_multistep",
    "EulerDiscreteScheduler": "euler",
}
"""Sampler by class."""
SCHEDULES = {"linear": DDPM, "scaled_linear": ScaledLinear}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
IGNORED = ("_class_name", "_diffusers_version")
"""Keys of every file beside those of its class."""
_OFF = (False, None)
ALLOWED: dict[str, tuple[Any, ...]] = {
    "trained_betas": (None,),
    "beta_schedule": tuple(SCHEDULES),
    "prediction_type": tuple(PREDICTIONS),
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "skip_prk_steps": (True,),
    **dict.fromkeys(("set_alpha_to_one", "clip_sample", "lower_order_final"), (True, False)),
    "final_sigmas_type": ("zero", "sigma_min"),
    "algorithm_type": ("dpmsolver++",),
    "solver_order": (1, 2, 3),
    "solver_type": ("midpoint", "heun"),
    "lambda_min_clipped": (-float("inf"),),
    "variance_type": (None,),
    "interpolation_type": ("linear",),
    "timestep_type": ("discrete",),
    **dict.fromkeys(("sigma_min", "sigma_max"), (None,)),
    **dict.fromkeys(("thresholding", "rescale_betas_zero_snr", "euler_at_final"), _OFF),
    **dict.fromkeys(("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"), _OFF),
    **dict.fromkeys(("use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"), _OFF),
}
"""Values that are implemented; of other keys all are, or mean nothing with these."""
OF_CLASS: dict[tuple[str, str], tuple[Any, ...]] = {
    # Theirs takes means of v at different times.
    ("PNDMScheduler", "prediction_type"): ("epsilon",),
    ("EulerDiscreteScheduler", "prediction_type"): ("epsilon", "v_prediction"),
    # Theirs takes times between the entries of the table.
    ("EulerDiscreteScheduler", "timestep_spacing"): ("leading", "trailing"),
}
"""Fewer values, by class."""


def read(settings: Mapping[str, Any], file: str = "scheduler_config.json") -> SchedulerConfig:
    """What a config of diffusers means; `settings` are those of the `file`.

    Raises:
        ValueError: of the file: a class, a key or a value that is not known or not implemented.
    """
    name = settings.get("_class_name")
    if name not in CLASSES:
        raise ValueError(f"{file}: _class_name={name!r} must be one of {', '.join(CLASSES)}")
    known = {key for keys in CLASSES.values() for key in keys}
    if unknown := [key for key in settings if key not in known and key not in IGNORED]:
        raise ValueError(f"{file}: {unknown[0]!r} is not a key of these schedulers")
    found = {key: settings.get(key, value) for key, value in CLASSES[name].items()}
    for key, value in found.items():
        allowed = OF_CLASS.get((name, key), ALLOWED.get(key))
        if allowed and value not in allowed:
            words = " or ".join(map(repr, allowed))
            raise ValueError(f"{file}: {key}={value!r} of a {name} must be {words}")
    if found.get("solver_order") == 3 and found["solver_type"] == "heun":
        raise ValueError(f"{file}: solver_type='heun' must be 'midpoint' with solver_order=3")
    try:
        table = SCHEDULES[found["beta_schedule"]]
        schedule = table(found["beta_start"], found["beta_end"], found["num_train_timesteps"])
    except ValueError as error:
        raise ValueError(f"{file}: {error}, the table's") from error
    spacing = found["timestep_spacing"]
    return SchedulerConfig(
        schedule,
        PREDICTIONS[found["prediction_type"]],
        SAMPLERS[name],
        _solver(found) if "solver_order" in found else {},
        spacing,
        _grid(found, skip=int("solver_order" in found)),
        "normal" if (name, spacing) == ("EulerDiscreteScheduler", "trailing") else "standard",
        float(found["clip_sample_range"]) if found.get("clip_sample") else 0.0,
    )


def _solver(found: dict[str, Any]) -> dict[str, Any]:
    """Settings of `dpmpp_multistep`."""
    return {"order": found["solver_order"], "exact": found["solver_type"] == "heun"}


def _grid(found: dict[str, Any], skip: int) -> dict[str, Any]:
    """Settings of the grid; the table is left at its first entry unless `alpha` is 1 at the end."""
    clean = found.get("set_alpha_to_one", found.get("final_sigmas_type") == "zero")
    entries, spacing = found["num_train_timesteps"], found["timestep_spacing"]
    settings = {"num_steps": entries, "end": 0.0 if clean else 1 / entries}
    settings |= {"offset": found["steps_offset"]} if spacing == "leading" else {}
    return settings | ({"skip": skip} if spacing != "trailing" else {})


def write(config: SchedulerConfig) -> dict[str, Any]:
    """The config of diffusers that means `config`: all keys of its class.

    Raises:
        ValueError: diffusers has no such scheduler.
    """
    name = {sampler: name for name, sampler in SAMPLERS.items()}.get(config.sampler)
    schedules = {kind: name for name, kind in SCHEDULES.items()}
    if name is None or not isinstance(config.schedule, DDPM):
        raise ValueError(
            f"sampler {config.sampler!r} on the schedule {config.schedule} is no scheduler of "
            f"diffusers: take one of {', '.join(SAMPLERS.values())} on a table of DDPM or of "
            "Stable Diffusion"
        )
    schedule, clean = config.schedule, config.grid_settings.get("end") == 0
    predictions = {ours: theirs for theirs, ours in PREDICTIONS.items()}
    values = {
        "num_train_timesteps": schedule.num_steps,
        "beta_start": schedule.beta_start,
        "beta_end": schedule.beta_end,
        "beta_schedule": schedules.get(type(schedule)),
        "prediction_type": predictions.get(config.prediction),
        "timestep_spacing": config.grid,
        "steps_offset": config.grid_settings.get("offset", 0),
        "skip_prk_steps": True,
        "set_alpha_to_one": clean,
        "final_sigmas_type": "zero" if clean else "sigma_min",
        "clip_sample": config.clip > 0,
        "clip_sample_range": config.clip or 1.0,
        "solver_order": config.sampler_settings.get("order"),
        "solver_type": "heun" if config.sampler_settings.get("exact") else "midpoint",
    }
    written = {"_class_name": name} | {
        key: values.get(key, value) for key, value in CLASSES[name].items()
    }
    again = read(written, "diffusers")
    for field, ours, theirs in zip(config._fields, config, again, strict=True):
        if ours != theirs:
            raise ValueError(f"a {name} of diffusers has {field}={theirs!r}, not {ours!r}")
    return written
