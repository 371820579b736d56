"""All samplers on all schedules and grids, from one step to a thousand, with an exact denoiser.

See README.md. Writes `edges.json` next to this file, and prints the tables.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import norm

from configs import default
from diffusion_jax.data.sets.points import Law
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.diffusion.mixture import exact_denoiser
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config import SAMPLERS, Config, ConfigError, make_sampler
from diffusion_jax.from_config.process import SCHEDULES, make_schedule
from diffusion_jax.from_config.sampling import GRIDS, make_grid
from diffusion_jax.report.figures import table
from diffusion_jax.samplers.loop import sample
from diffusion_jax.system.keys import make_key
from diffusion_jax.types import Array, Denoise, Sampler, Step

RESULTS = pathlib.Path(__file__).parent / "edges.json"
NUM = 256
LAW = Law(np.array([[-0.7], [0.1], [0.6]]), np.arange(3), 0.1, ("left", "middle", "right"))
ABOUT_AN_ORIGIN = ("ouve", "bridge")  # which lead from data to it, and not to noise
SHIFTED = ("flow", "cosine", "edm")
ZERO_SNR = ("ddpm", "scaled_linear", "ve")
NEAR = {1: 1.25, 2: 1.25, 3: 1.25, 10: 0.87, 50: 0.25, 1000: 0.2}
"""Largest accepted distance from the exact distribution, in its standard deviations, by number of
steps. A single point in the middle has 0.87. Alternatively twice that of DDIM on the same times,
which is exact for known `x_0`, so that its error is due to the times alone."""


def schedules() -> dict[str, dict[str, Any]]:
    """Settings of the schedules, by name."""
    found: dict[str, dict[str, Any]] = {
        name: {"name": name} for name in SCHEDULES if name not in ABOUT_AN_ORIGIN
    }
    found |= {f"{name}, shift 3": {"name": name, "shift": 3.0} for name in SHIFTED}
    zero = {f"{n}, zero terminal SNR": {"name": n, "zero_terminal_snr": True} for n in ZERO_SNR}
    return found | zero


def config_of(sampler: str, schedule: dict[str, Any], grid: str, steps: int) -> Config:
    """A config with these settings."""
    config = default.get_config()
    config.schedule.update(schedule)
    config.sample.update({"sampler": sampler, "grid": grid, "steps": steps})
    return config


def without_pauses(sampler: Sampler, end: Array) -> Sampler:
    """`sampler` that stands still at the time `end`, so that one program serves all steps."""

    def step(denoise: Denoise, state: Any, x_t: Array, t: Array, s: Array, keys: Array) -> Step:
        return jax.lax.cond(
            (t != s) | (t > end),
            lambda: sampler.step(denoise, state, x_t, t, s, keys),
            lambda: (x_t, state),
        )

    return sampler._replace(step=step)


def program(sampler: Sampler, schedule: Schedule) -> Any:
    """`times -> samples [NUM, 1]`, from noise at the quantiles of its distribution."""
    quantiles = norm.ppf((np.arange(NUM) + 0.5) / NUM)[:, None].astype(np.float32)
    denoiser = exact_denoiser(LAW, schedule)

    @jax.jit
    def run(times: Array) -> Array:
        keys = sample_keys(make_key(0), jnp.arange(NUM))
        method, x_T = without_pauses(sampler, times[-1]), schedule.sigma(times[0]) * quantiles
        return sample(denoiser, method, times, x_T, {}, keys)[0]

    return run


@functools.cache
def exact_quantiles() -> np.ndarray:
    """Quantiles `[NUM]` of the exact distribution, the positions of ideal samples in order."""
    places = np.linspace(-2, 2, 40_001)
    heights = norm.cdf((places[:, None] - LAW.means[:, 0]) / LAW.std).mean(axis=1)
    return np.interp((np.arange(NUM) + 0.5) / NUM, heights, places)


def distance(x: np.ndarray) -> float:
    """Wasserstein distance `W_1` of samples `[NUM, 1]` over the data's std; inf for NaN."""
    if not np.isfinite(x).all():
        return np.inf
    exact = exact_quantiles()
    off = np.mean(np.abs(np.sort(x[:, 0].astype(np.float64)) - exact)) / exact.std()
    return float(f"{off:.3g}")


def grids_of(
    schedule: dict[str, Any], steps: Sequence[int]
) -> tuple[dict[str, dict[int, np.ndarray]], dict[str, str]]:
    """Times by grid and number of steps, and the error messages of refused ones."""
    times: dict[str, dict[int, np.ndarray]] = {grid: {} for grid in GRIDS}
    refused = {}
    for grid in GRIDS:
        for num in steps:
            config = config_of("ddim", schedule, grid, num)
            try:
                times[grid][num] = np.asarray(make_grid(config, make_schedule(config)))
            except ConfigError as error:
                refused[f"{grid}, {num}"] = str(error)
    return times, refused


def look(
    sampler: str,
    schedule: dict[str, Any],
    times: Mapping[str, Mapping[int, np.ndarray]],
    steps: Sequence[int],
) -> dict[str, list[float | None]]:
    """Distances by grid, one for each of `steps`; None where times are refused."""
    programs: dict[int, Any] = {}

    def at(grid: str, num: int) -> float | None:
        if num not in times[grid]:
            return None
        own = num if sampler == "churn" else 0  # which depends on the number of steps
        if own not in programs:
            config = config_of(sampler, schedule, grid, num)
            made = make_schedule(config)
            programs[own] = program(make_sampler(config, made), made)
        padded = np.full(1 + (own or max(steps)), times[grid][num][-1])
        padded[: len(times[grid][num])] = times[grid][num]
        return distance(np.asarray(programs[own](padded)))

    return {grid: [at(grid, num) for num in steps] for grid in times}


def is_near(far: float, ddim: float, steps: int) -> bool:
    """Whether a distance is accepted."""
    return far <= max(NEAR[steps], 2 * ddim)


def tables(result: dict[str, Any]) -> list[str]:
    """Markdown tables: largest distances of each sampler, failures, and refused settings."""
    steps, all_of_it = result["steps"], result["distances"]
    rows, beyond = [], []
    for sampler, by_schedule in all_of_it.items():
        cells = []
        for i, num in enumerate(steps):
            found = {
                (schedule, grid): far[i]
                for schedule, by_grid in by_schedule.items()
                for grid, far in by_grid.items()
                if far[i] is not None
            }
            where = max(found, key=lambda place: found[place])
            cells.append(f"{found[where]:.2g}")
            for (schedule, grid), far in found.items():
                if not is_near(far, all_of_it["ddim"][schedule][grid][i], num):
                    beyond.append([sampler, schedule, grid, str(num), f"{far:.2g}"])
        rows.append([sampler, *cells])
    refused = [
        [schedule, place, line]
        for schedule, lines in result["refused"].items()
        for place, line in lines.items()
    ]
    total = sum(
        far is not None
        for by_schedule in all_of_it.values()
        for by_grid in by_schedule.values()
        for distances in by_grid.values()
        for far in distances
    )
    return [
        *table(("sampler", *(f"{num:,} steps" for num in steps)), rows),
        "",
        f"{total:,} in all, of which not near: {len(beyond)}",
        "",
        *table(("sampler", "schedule", "grid", "steps", "distance"), beyond),
        "",
        *table(("schedule", "grid, steps", "refused"), refused),
    ]


def main() -> None:
    """Runs the selected cases, adds them to earlier results and prints everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--samplers", default=",".join(SAMPLERS))
    parser.add_argument("--schedules", default=";".join(schedules()))
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    asked = parser.parse_args()
    result: dict[str, Any] = {"steps": list(NEAR), "distances": {}, "refused": {}}
    if asked.out.exists():
        result = json.loads(asked.out.read_text())
    for name in asked.schedules.split(";"):
        schedule = schedules()[name]
        times, result["refused"][name] = grids_of(schedule, result["steps"])
        for sampler in asked.samplers.split(","):
            own = result["distances"].setdefault(sampler, {})
            own[name] = look(sampler, schedule, times, result["steps"])
        asked.out.write_text(json.dumps(result))
        print(name, flush=True)
    print("\n".join(tables(result)))


if __name__ == "__main__":
    main()
