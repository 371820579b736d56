"""Sampler and time grid of a config."""

import contextlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, keyed, lookup
from diffusion_jax.samplers import exponential, ode, sde
from diffusion_jax.samplers.adaptive import adaptive
from diffusion_jax.samplers.cld import cld
from diffusion_jax.samplers.ddim import ddim
from diffusion_jax.samplers.exponential import unipc
from diffusion_jax.samplers.ode import ghvb
from diffusion_jax.samplers.restart import restart, restart_times
from diffusion_jax.samplers.sde import ancestral, churn
from diffusion_jax.types import Array, Sampler

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    make.__name__: make
    for make in (
        *(ddim, ancestral, ode.euler, ode.heun, ode.midpoint, ode.rk4, adaptive),
        *(ode.lms, ode.ipndm, ode.pndm, ghvb),
        *(exponential.dpm_solver, exponential.dpmpp_singlestep, exponential.dpmpp_multistep),
        *(exponential.deis, unipc, sde.euler_ancestral, sde.euler_maruyama, churn),
        *(sde.dpmpp_sde, sde.dpmpp_sde_multistep, sde.predictor_corrector, cld),
    )
}
"""By function name."""
GRIDS: dict[str, Callable[..., Array]] = {
    "uniform": time_grids.uniform,
    "quadratic": time_grids.quadratic,
    "trailing": time_grids.trailing,
    "leading": time_grids.leading,
    "linspace": time_grids.linspace,
    "karras": time_grids.karras,
    "uniform_logsnr": time_grids.uniform_logsnr,
}
OF_SCHEDULE = ("karras", "uniform_logsnr")
"""Grids that are defined by noise levels, and take the schedule as their first argument."""
OPTIMISED = "optimised"
"""The grid that is optimised for a trained network."""
MOST_SIGNAL = 10.0  # largest alpha / sigma of a start from pure noise, which has no signal


def make_sampler(config: Config, schedule: Schedule) -> Sampler:
    """The sampler."""
    name = config.sample.sampler
    make = lookup(SAMPLERS, name, "sample.sampler")
    settings = dict(config.sample.get(name, {}))
    if settings.get("variance") == "learned" and not config.objective.learned_variance:
        raise ConfigError(
            "sample.ancestral.variance='learned' needs objective.learned_variance=True"
        )
    if name == "churn":
        settings["steps"] = config.sample.steps
    if name == "predictor_corrector":
        settings["predictor"] = SAMPLERS["euler_maruyama"](schedule)
    with keyed(f"sample.{name}", steps="sample.steps"):
        sampler = make(schedule, **settings)
    if config.sample.restart.repeats:
        sampler = restart(schedule, sampler)
    if sampler.stochastic and config.sample.grid == OPTIMISED:
        with_restart = " with sample.restart" * (config.sample.restart.repeats > 0)
        raise ConfigError(
            f"sample.grid={OPTIMISED!r} cannot be searched for sample.sampler={name!r}"
            f"{with_restart}, which draws noise: there is no exact sample to compare with"
        )
    return sampler


def make_grid(config: Config, schedule: Schedule) -> Array:
    """The sampling grid; the uniform one in place of a grid that is still to be optimised.

    It has fewer than the requested steps if the last noise levels are below float32's precision.
    """
    sample = config.sample
    check_known(sample.grid, (*GRIDS, OPTIMISED), "sample.grid")
    entries = getattr(schedule, "num_steps", np.inf)
    if sample.steps > entries:
        raise ConfigError(
            f"sample.steps={sample.steps} must be at most {entries}, the number of steps of "
            f"schedule {config.schedule.name!r}"
        )
    times = _grid("uniform" if sample.grid == OPTIMISED else sample.grid, sample, schedule)
    prediction = config.objective.prediction
    if prediction in ("eps", "score") and not float(schedule.alpha(jnp.array(sample.t_max))) > 0:
        raise ConfigError(
            f"sample.t_max={sample.t_max}: schedule {config.schedule.name!r} has no signal there, "
            f"so prediction {prediction!r} does not determine x_0; use sample.t_max=0.999, or "
            "objective.prediction=v, x0 or velocity"
        )
    jumps = sample.restart
    if not jumps.repeats:
        return times
    with keyed("sample.restart"):
        return jnp.asarray(restart_times(np.asarray(times), **jumps))


def grids_to_start_from(config: Config, schedule: Schedule) -> dict[str, Array]:
    """All grids of `sample.steps` that end like the uniform one, by name."""
    found = {}
    for name in GRIDS:
        with contextlib.suppress(ConfigError):
            found[name] = _grid(name, config.sample, schedule)
    most, end = max(map(len, found.values())), found["uniform"][-1]
    return {name: t for name, t in found.items() if len(t) == most and t[-1] == end}


def _grid(name: str, sample: Config, schedule: Schedule) -> Array:
    first = [schedule] * (name in OF_SCHEDULE)
    with keyed(f"sample.{name}", steps="sample.steps", t_max="sample.t_max"):
        times = GRIDS[name](*first, sample.steps, sample.t_max, **sample.get(name, Config()))
    same = np.flatnonzero(~(np.diff(times) < 0))
    if len(same):
        raise ConfigError(
            f"sample.grid={name!r} with sample.steps={sample.steps} must decrease, but at step "
            f"{same[0] + 1} goes from t = {times[same[0]]:.6g} to {times[same[0] + 1]:.6g}; use "
            "fewer steps, or another grid for this schedule"
        )
    signal = float(jnp.exp(0.5 * schedule.logsnr(times[0])))
    if signal > MOST_SIGNAL:
        raise ConfigError(
            f"sample.grid={name!r} with sample.steps={sample.steps} and sample.t_max="
            f"{sample.t_max} starts from pure noise at t = {times[0]:.6g}, where the schedule has "
            f"{signal:.2g} times more signal than noise; use more steps, another grid or a "
            "larger sample.t_max"
        )
    return time_grids.resolved(schedule, times)
