"""Cost of guidance: time of sampling with guidance relative to without, interleaved in one run.

    PYTHONPATH=. python experiments/guidance/cost.py

The network has its initial weights, on which time does not depend. "Two calls" evaluates the two
halves of classifier-free guidance separately.
"""

import argparse
import dataclasses
import importlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.conditioning import unconditional
from diffusion_jax.from_config import Config, build
from diffusion_jax.generation.generator import Guidance, Request
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache, tune_cpu_allocator
from diffusion_jax.types import Array, Cond, Denoised, Denoiser


def two_calls(denoise: Denoiser, request: Request, times: Array) -> Denoiser:
    """Classifier-free guidance in its common form, with two calls."""

    def guided(x_t: Array, t: Array, cond: Cond) -> Denoised:
        own, none = denoise(x_t, t, cond), denoise(x_t, t, unconditional(cond))
        return Denoised(none.x_0 + request.scale * (own.x_0 - none.x_0))

    return guided


def times_of(config: Config, images: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds `[rounds]` of sampling with each setting; each round has all of them."""
    # Two fifths of the times t = 1, 1 - 1 / steps, ... are inside the interval.
    low, high = 0.3 + 0.5 / config.sample.steps, 0.7 + 0.5 / config.sample.steps
    settings: dict[str, dict[str, Any]] = {
        "none": {},
        "guided": {"sample.guidance_scale": 3.0},
        "within two fifths": {
            "sample.guidance_scale": 3.0,
            "sample.guidance.interval": (low, high),
        },
        "two calls": {"sample.guidance_scale": 3.0},
    }
    parts = build(config)
    runs = {}
    for name, changes in settings.items():
        own = config.copy_and_resolve_references()
        own.update_from_flattened_dict(changes)
        generator = build(own, parts.dataset).generator
        if name == "two calls":
            generator = dataclasses.replace(generator, guidance=Guidance(two_calls))
        runs[name] = jax.jit(generator.draw)
    params = jax.jit(parts.task.init)(make_key(0))
    index = jnp.arange(images)
    request = Request(index, {"label": index % parts.dataset.num_classes}, jnp.float32(3.0))
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            jax.block_until_ready(run(params, make_key(number), request)[0])
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values[1:]) for name, values in seconds.items()}


def main() -> None:
    """Times all settings, round by round."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="digits")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    tune_cpu_allocator()
    enable_compilation_cache()
    config = importlib.import_module(f"configs.{args.config}").get_config()
    config.sample.steps, config.sample.sampler = args.steps, "ddim"
    found = times_of(config, args.images, args.rounds)
    print(f"{args.config}, {args.images} images, {args.steps} steps, {args.rounds} rounds")
    for name, values in found.items():
        ratio = np.sort(values / found["none"])
        low, middle, high = np.quantile(ratio, (0.1, 0.5, 0.9))
        print(f"{name:18} {np.median(values):6.3f} s, {middle:.2f} ({low:.2f} to {high:.2f}) times")


if __name__ == "__main__":
    main()
