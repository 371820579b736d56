"""Search for the best time grid for a network, a sampler and a number of steps.

With few steps the grid matters as much as the solver (Sabour et al. 2024; Xue et al. 2024). The
search minimises the distance of samples in few steps from those of a fine solution of the
probability-flow ODE from the same noise, which is differentiable in the times, through sampler and
network.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.samplers.ode import heun
from diffusion_jax.system.cache import cached
from diffusion_jax.system.progress import stage, tracked
from diffusion_jax.types import Array, Key, Params

REFERENCE_STEPS = 250  # of Heun's method, two evaluations each, taken as the exact solution
SKIPPED = 0.01  # smallest share of the range skipped at first; at 0 it would have no gradient


class Found(NamedTuple):
    """Result of a search."""

    times: Array  # `[steps + 1]`, descending
    error: float  # root mean square distance, per dimension, of its samples from the exact ones
    starts: dict[str, float]  # error of each grid tried at the start


def optimise_times(
    generator: Generator,
    params: Params,
    key: Key,
    request: Request,
    starts: Mapping[str, Array],
    iterations: int,
) -> Found:
    """Searches from the best of several grids, by L-BFGS in the logs of the steps.

    The first time is searched for, too: with few steps it helps to skip the noisiest times and to
    treat their small share of the image as noise. The generator's first time is that of the exact
    solution, its last time that of the searched grid. Samples of `request` are compared. `starts`
    are grids `[steps + 1]` by name; each of the `iterations` of L-BFGS costs about one gradient.

    Raises:
        ValueError: the sampler is stochastic, so that no exact sample exists to compare with.
    """
    if generator.sampler.stochastic:
        raise ValueError("only the grid of a deterministic sampler can be optimised")
    first, last = generator.times[0], generator.times[-1]
    fine = dataclasses.replace(
        generator,
        sampler=heun(gaussian(generator.process).schedule),
        times=jnp.linspace(first, last, REFERENCE_STEPS + 1),
    )
    with stage("exact samples to search with", 1) as progress:
        with progress.apart("compiling"):
            exact = jax.jit(fine.draw)(params, key, request)[0]
        jax.block_until_ready(exact)
    # Only the states between the steps are stored for the backward pass.
    lean = dataclasses.replace(generator, apply=jax.checkpoint(generator.apply))

    from scipy.optimize import minimize  # here, as it is slow to import and rarely needed

    def error(times: Array) -> Array:
        x_0, _ = dataclasses.replace(lean, times=times).draw(params, key, request)
        return jnp.sqrt(jnp.mean((x_0 - exact) ** 2))

    def from_logs(logs: Array) -> Array:
        """Times from the logs of the shares of the range: before the start, and of each step."""
        times = first + (last - first) * jnp.cumsum(jax.nn.softmax(logs))
        return times.at[-1].set(last)

    def logs_of(times: Array) -> Array:
        parts = -jnp.diff(times, prepend=first)
        return jnp.log(parts.at[0].max(SKIPPED * (first - last)))

    objective = jax.jit(jax.value_and_grad(lambda logs: jnp.log(error(from_logs(logs)))))
    plain = jax.jit(error)
    grids = tracked(starts.items(), "comparing grids", len(starts))
    errors = {name: float(plain(times)) for name, times in grids}
    best = min(errors, key=lambda name: errors[name] if np.isfinite(errors[name]) else np.inf)
    with stage("searching the times", iterations) as progress:
        found = minimize(
            lambda logs: tuple(np.asarray(v, np.float64) for v in objective(jnp.asarray(logs))),
            np.asarray(logs_of(starts[best]), np.float64),
            jac=True,
            method="L-BFGS-B",
            callback=lambda _: progress.advance(),
            options={"maxiter": iterations},
        )
    times = from_logs(jnp.asarray(found.x))
    if found.fun < np.log(errors[best]):
        return Found(times, float(np.exp(found.fun)), errors)
    return Found(starts[best], errors[best], errors)  # if a gradient is not finite


def cached_times(
    folder: Path, made_by: Mapping[str, Any], search: Callable[[], Found], say: Callable[[str], Any]
) -> Array:
    """The cached times of an earlier search with the same `made_by`, or those of a new one.

    A search, which depends on `made_by` alone, saves one JSON file in `folder` and reports its
    result to `say`.
    """

    def read(path: Path) -> Array:
        return jnp.asarray(json.loads(path.read_text(encoding="utf-8"))["times"], jnp.float32)

    def write(path: Path) -> None:
        found = search()
        start = min(found.starts, key=found.starts.__getitem__)
        say(
            f"root mean square distance from the exact samples: {found.error:.4g}; with the grid "
            f"{start}, the best of the others, {found.starts[start]:.4g}; kept in {folder}"
        )
        times = np.asarray(found.times, np.float64).tolist()
        whole = {**found._asdict(), "times": times, "made_by": made_by}
        path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")

    return cached(folder, json.dumps(made_by, sort_keys=True), ".json", read, write)
