"""Compares all samplers with those of diffusers and k-diffusion, at few and many evaluations.

See README.md. Adds to `results.json` next to this file as it goes.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import default
from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.from_config import SAMPLERS, Config, ConfigError, make_sampler
from diffusion_jax.from_config.sampling import GRIDS, make_grid
from diffusion_jax.generation.generator import Request
from diffusion_jax.generation.grid_search import optimise_times
from diffusion_jax.guidance.extrapolation import clip
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.samplers.adaptive import adaptive
from diffusion_jax.samplers.loop import sample
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache, tune_cpu_allocator
from diffusion_jax.types import Array, Sampler
from experiments.samplers.problems import (
    BOOTSTRAP,
    Interval,
    Problem,
    digits_problem,
    mixture_problem,
)

HERE = pathlib.Path(__file__).parent
EVALUATIONS = (4, 5, 6, 8, 10, 20, 50)
REFERENCE_STEPS = 1000
SCREENED = 128
"""Number of samples for choosing the best grid, and the best settings of other packages."""
VARIANTS = {
    "ddim, eta 1": ("ddim", {"eta": 1.0}),
    "dpmpp_multistep, order 3": ("dpmpp_multistep", {"order": 3}),
    "dpmpp_multistep, order 3, exact": ("dpmpp_multistep", {"order": 3, "exact": True}),
    "dpmpp_singlestep, order 3": ("dpmpp_singlestep", {"order": 3}),
    "unipc, order 3": ("unipc", {"order": 3}),
    "deis in t": ("deis", {"polynomial": "t"}),
    "lms, flow": ("lms", {"scaling": "flow"}),
    "ghvb, order 4": ("ghvb", {"order": 4}),
}
RESTARTED: dict[str, tuple[str, dict]] = {
    f"{name}, Restart": (name, {}) for name in ("ddim", "heun")
}
"""One jump from `sample.restart.low` up to `high`, down again in a third of all steps."""
METHODS = {
    **{name: (name, {}) for name in SAMPLERS if name not in ("adaptive", "euler")},
    **VARIANTS,
    **RESTARTED,
}
TOLERANCES = (1.0, 0.3, 0.1, 0.03, 0.01, 1e-3, 1e-4)
"""Relative and absolute tolerances of `adaptive`, which set its number of evaluations."""
OPTIMISED, ITERATIONS, SEARCHED = 2, 60, 256
"""Number of methods whose grid is optimised, iterations, and number of samples."""
KEY = make_key(0)


class Bench:
    """One problem: its denoiser, its noise, and the exact solution."""

    def __init__(self, problem: Problem, num: int):
        self.problem, self.num = problem, num
        g = problem.generator
        self.denoiser = g.denoiser(problem.params)
        if g.codec.limit:
            self.denoiser = clip(self.denoiser, g.codec.limit)
        keys, self.keys = g.keys(KEY, jnp.arange(num))
        self.noise = sample_noise(keys, g.codec.shape)
        self.cond = {k: jnp.asarray(v) for k, v in problem.cond.items()}
        self.few = np.arange(num)[:: max(1, num // SCREENED)][:SCREENED]
        times = jnp.linspace(1.0, 0.0, REFERENCE_STEPS + 1)
        self.exact = np.asarray(self.program(heun(problem.schedule))(times, *self.inputs()))

    def inputs(self, rows: Any = slice(None)) -> tuple:
        """Noise, conditioning and keys of a subset of the samples."""
        return self.noise[rows], {k: v[rows] for k, v in self.cond.items()}, self.keys[rows]

    def program(self, sampler: Sampler) -> Callable[..., Array]:
        """`(times, noise, cond, keys) -> samples`."""

        def run(times: Array, noise: Array, cond: Any, keys: Array) -> Array:
            x_T = self.problem.schedule.sigma(times[0]) * noise
            return sample(self.denoiser, sampler, times, x_T, cond, keys)[0]

        return jax.jit(run)

    def rms(self, samples: np.ndarray, rows: Any = slice(None)) -> float:
        """Root-mean-square distance per dimension from the exact samples."""
        return float(np.sqrt(np.mean((samples - self.exact[rows]) ** 2)))

    def figures(self, samples: np.ndarray) -> dict[str, Interval]:
        """RMS and Frechet distance with their intervals."""
        squares = ((samples - self.exact) ** 2).reshape(self.num, -1).mean(1)
        root = lambda rows: float(np.sqrt(rows.mean()))  # noqa: E731
        return {
            "rms": bootstrap(root, squares, 500),
            "frechet": self.problem.frechet(samples, BOOTSTRAP),
        }

    def numpy_denoiser(self, rows: Any) -> Callable[[np.ndarray, float], np.ndarray]:
        """For other packages: `(x_t of variance 1, noise over signal) -> x_0_hat`."""
        schedule = self.problem.schedule
        _, cond, _ = self.inputs(rows)

        @jax.jit
        def call(x_t: Array, ratio: Array, cond: Any) -> Array:
            t = jnp.maximum(schedule.time_at(-2 * jnp.log(ratio)), 1e-6)
            return self.denoiser(x_t, jnp.full(len(x_t), t), cond).x_0

        def denoise(x_t: np.ndarray, ratio: float) -> np.ndarray:
            part = {k: v[: len(x_t)] for k, v in cond.items()}
            return np.asarray(call(jnp.asarray(x_t), jnp.asarray(ratio, jnp.float32), part))

        return denoise


def config_of(method: str, steps: int) -> Config:
    """The config of a method with this many steps, including those of a jump."""
    config = default.get_config()
    config.sample.sampler, settings = METHODS[method]
    if settings:
        config.sample[config.sample.sampler].update(settings)
    if method == "ancestral":
        config.sample.ancestral.variance = "small"
    jump = steps // 3 if method in RESTARTED else 0
    config.sample.steps = steps - jump
    config.sample.restart.update(repeats=min(jump, 1), steps=jump)
    return config


def sampler_of(method: str, steps: int, bench: Bench) -> Sampler:
    """The sampler made from a config."""
    return make_sampler(config_of(method, steps), bench.problem.schedule)


def grids_of(method: str, steps: int, bench: Bench) -> dict[str, Array]:
    """All grids with the settings of `configs/default.py`, and one more."""
    config, found = config_of(method, steps), {}
    sigma_min = config.sample.karras.sigma_min
    for name in (*GRIDS, "karras, sigma_min 0.03"):
        config.sample.grid = name.split(",")[0]
        config.sample.karras.sigma_min = sigma_min if name in GRIDS else 0.03
        with contextlib.suppress(ConfigError):  # too few times near the ends of a jump
            found[name] = make_grid(config, bench.problem.schedule)
    del found["trailing"]  # equals uniform, rounded
    return found


def ours(bench: Bench, say: Callable[..., None]) -> None:
    """All samplers, each on its best grid, and the best ones on optimised grids."""
    for evaluations in EVALUATIONS:
        best: list[tuple[float, str, dict[str, Array]]] = []
        for method in METHODS:
            one = sampler_of(method, 1, bench)
            steps, rest = divmod(evaluations - one.extra, one.evaluations)
            if rest or steps < (3 if method in RESTARTED else 1):
                continue
            sampler = sampler_of(method, steps, bench)
            run, grids, rows = bench.program(sampler), grids_of(method, steps, bench), bench.few
            errors = {}
            for name, times in grids.items():
                # Stochastic samplers have no exact solution: Frechet distance, on all samples.
                if sampler.stochastic:
                    x = np.asarray(run(times, *bench.inputs()))
                    errors[name] = bench.problem.frechet(x, 0)[0]
                else:
                    errors[name] = bench.rms(np.asarray(run(times, *bench.inputs(rows))), rows)
            grid = min(errors, key=lambda name: errors[name])
            best += [(errors[grid], method, grids)] * (not sampler.stochastic)
            record(bench, say, run, grids[grid], method, grid, evaluations, sampler.stochastic)
        if evaluations > 10:
            continue
        for _, method, grids in sorted(best, key=lambda entry: entry[0])[:OPTIMISED]:
            steps = len(next(iter(grids.values()))) - 1
            sampler = sampler_of(method, steps, bench)
            generator = bench.problem.generator
            generator = dataclasses.replace(generator, sampler=sampler)
            other = np.arange(bench.num)[:: max(1, bench.num // SEARCHED)]
            began = time.monotonic()
            search = optimise_times(
                generator,
                bench.problem.params,
                make_key(1),  # other noise than that of the comparison
                Request(jnp.asarray(other), {k: v[other] for k, v in bench.cond.items()}),
                grids,
                ITERATIONS,
            )
            seconds = time.monotonic() - began
            run = bench.program(sampler)
            more = {"search_seconds": seconds, "found": np.asarray(search.times).tolist()}
            record(bench, say, run, search.times, method, "optimised", evaluations, False, **more)


def ours_adaptive(bench: Bench, say: Callable[..., None]) -> None:
    """The adaptive sampler, at several tolerances."""
    plain, calls = bench.denoiser, 0

    def count() -> None:
        nonlocal calls
        calls += 1

    def counted(*args: Any) -> Any:
        jax.debug.callback(count)
        return plain(*args)

    for tolerance in TOLERANCES:
        sampler = adaptive(bench.problem.schedule, tolerance, tolerance)
        times, calls, bench.denoiser = jnp.array([1.0, 0.0]), 0, counted
        jax.block_until_ready(bench.program(sampler)(times, *bench.inputs()))
        jax.effects_barrier()
        bench.denoiser = plain
        grid = f"tolerance {tolerance}"
        record(bench, say, bench.program(sampler), times, "adaptive", grid, calls, False)


def record(
    bench: Bench,
    say: Callable[..., None],
    run: Callable[..., Array],
    times: Array,
    method: str,
    grid: str,
    evaluations: int,
    stochastic: bool,
    **more: Any,
) -> None:
    """Records the figures of all samples of one method on one grid."""
    jax.block_until_ready(run(times, *bench.inputs()))
    began = time.monotonic()
    samples = np.asarray(run(times, *bench.inputs()))
    seconds = time.monotonic() - began
    figures = bench.figures(samples)
    if stochastic:
        del figures["rms"]
    say(package="ours", method=method, grid=grid, evaluations=evaluations, seconds=seconds,
        **figures, **more)  # fmt: skip


def theirs(bench: Bench, say: Callable[..., None]) -> None:
    """Each method of the other packages with its best settings."""
    from experiments.samplers.theirs import TABLE, all_runs

    schedule = bench.problem.schedule
    ratios = np.exp(-0.5 * np.asarray(schedule.logsnr(jnp.arange(1, TABLE + 1) / TABLE), float))
    for evaluations in EVALUATIONS:
        noise = np.asarray(bench.noise)
        best: dict[tuple[str, str], tuple[float, str, Callable]] = {}
        denoise = bench.numpy_denoiser(bench.few)
        for package, method, words, samples, again in all_runs(
            denoise, ratios, noise[bench.few], evaluations
        ):
            error = bench.rms(samples, bench.few)
            if error < best.get((package, method), (np.inf,))[0]:
                best[package, method] = error, words, again
        for (package, method), (_, words, again) in best.items():
            samples = again(bench.numpy_denoiser(slice(None)), noise)
            say(package=package, method=method, grid=words, evaluations=evaluations,
                **bench.figures(samples))  # fmt: skip


def main() -> None:
    """Runs both problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", type=pathlib.Path, help="of a finished run of configs/digits.py")
    parser.add_argument("--num", type=int, default=512, help="samples of each")
    parser.add_argument("--problems", default="mixture,digits")
    parser.add_argument("--parts", default="ours,theirs")
    args = parser.parse_args()
    tune_cpu_allocator()
    enable_compilation_cache()
    path = HERE / "results.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    for name in args.problems.split(","):
        problem = mixture_problem() if name == "mixture" else digits_problem(args.workdir, args.num)
        bench = Bench(problem, args.num)
        floor = problem.frechet(bench.exact, BOOTSTRAP)

        def say(name: str = name, **row: Any) -> None:
            rows.append({"problem": name, **row})
            print(json.dumps(rows[-1])[:200], flush=True)
            path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")

        if "ours" in args.parts:
            say(package="reference", method="heun", grid="uniform",
                evaluations=2 * REFERENCE_STEPS, frechet=floor)  # fmt: skip
            ours(bench, say)
            ours_adaptive(bench, say)
        if "theirs" in args.parts:
            theirs(bench, say)


if __name__ == "__main__":
    main()
