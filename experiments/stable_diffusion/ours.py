"""Our side: a worker of bench.py, which draws with the weights of a folder."""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from diffusion_jax.system.runtime import tune_cpu_allocator

tune_cpu_allocator()

import jax.numpy as jnp  # noqa: E402  the allocator comes first
import numpy as np  # noqa: E402

from configs import sd15  # noqa: E402
from diffusion_jax.from_config import Config, build  # noqa: E402
from diffusion_jax.generation.starts import known  # noqa: E402
from diffusion_jax.run import Run, Trained  # noqa: E402
from diffusion_jax.system.runtime import enable_compilation_cache  # noqa: E402


def opened(config: Config, noise: np.ndarray) -> Trained:
    """The published model of a config, which starts from `noise` [H, W, 4]."""
    config.sample.batch_size = 1
    model = Run(config, Path(tempfile.mkdtemp()), build(config)).trained()
    return model.replace(start=known(jnp.asarray(noise), "given"))


def picture(model: Trained, prompt: str) -> np.ndarray:
    """A picture of a text, float32 [1, H, W, 3], clipped as theirs is."""
    request = model.request(np.zeros(1, np.int32), model.run.conditions.read([prompt]))
    return np.clip(model.draws(model.params, 0, request, batch_size=1)[0], -1, 1)


def main() -> None:
    """Serves bench.py: draws a picture into the file that a line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--latents", type=Path)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--prompt")
    args = parser.parse_args()
    enable_compilation_cache()
    config = sd15.get_config()
    config.weights.source, config.sample.steps = args.folder, args.steps
    noise = np.load(args.latents)
    config.data.shape = (8 * noise.shape[0], 8 * noise.shape[1], 3)
    model = opened(config, noise)
    for line in sys.stdin:
        start = time.perf_counter()
        x = picture(model, args.prompt)
        seconds = time.perf_counter() - start
        np.save(line.strip(), x)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": seconds, "memory": memory}), flush=True)


if __name__ == "__main__":
    main()
