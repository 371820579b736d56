"""The time grid that is best for one network, one sampler and one number of steps, by search.

With few steps the grid matters as much as the solver (Sabour et al. 2024; Xue et al. 2024). Here
it is found by what it is for: from the same noise, the samples in few steps are to be those of the
probability-flow ODE solved finely. Their distance is differentiable in the times, through sampler
and network.
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

REFERENCE_STEPS = 250  # of Heun's method, two evaluations each, that stand for the exact solution
SKIPPED = 0.01  # least part of the way left out at first; of none the search could not see the use


class Found(NamedTuple):
    """What a search found."""

    times: Array  # `[steps + 1]`, descending
    error: float  # root mean square distance, per dimension, of its samples from the exact ones
    starts: dict[str, float]  # that of each grid tried at the start


def optimise_times(
    generator: Generator,
    params: Params,
    key: Key,
    request: Request,
    starts: Mapping[str, Array],
    iterations: int,
) -> Found:
    """Searches from the best of several grids, by L-BFGS in the logs of the steps.

    Where sampling starts is searched for too: with few steps it pays to leave out the noisiest
    times, and to take their small share of the image for noise. The sampler is deterministic; the
    times of the generator end where those searched for end, and start where the exact solution
    starts. Samples of `request` are compared. `starts` are grids `[steps + 1]` by name; each of the
    `iterations` of L-BFGS costs about one gradient.

    Raises:
        ValueError: the sampler is stochastic, so that there is no exact sample to come near to.
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
    # Only the states between the steps are kept for the backward pass.
    lean = dataclasses.replace(generator, apply=jax.checkpoint(generator.apply))

    from scipy.optimize import minimize  # here, as it is slow to import, and few runs come by

    def error(times: Array) -> Array:
        x_0, _ = dataclasses.replace(lean, times=times).draw(params, key, request)
        return jnp.sqrt(jnp.mean((x_0 - exact) ** 2))

    def from_logs(logs: Array) -> Array:
        """Times from the parts of the way: before the start, and of each step."""
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
    return Found(starts[best], errors[best], errors)  # where a gradient is not finite


def cached_times(
    folder: Path, made_by: Mapping[str, Any], search: Callable[[], Found], say: Callable[[str], Any]
) -> Array:
    """The times of an earlier search with the same `made_by`, or of a new one, which is kept.

    A search, which depends on `made_by` alone, leaves one JSON file in `folder`; `say` is told what
    it found.
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
