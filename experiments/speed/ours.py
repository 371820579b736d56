"""Our side of the comparison: a worker that times one round for each input line.

Alone (as in `bench.py --ours-only`) it prints images/s and FLOP/s instead.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from diffusion_jax.system.runtime import tune_cpu_allocator

tune_cpu_allocator()

import jax  # noqa: E402  the allocator comes first
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402

from diffusion_jax.diffusion.schedules import Cosine  # noqa: E402
from diffusion_jax.models.dit import DiT  # noqa: E402
from diffusion_jax.models.flops import count_flops  # noqa: E402
from diffusion_jax.models.unet import UNet  # noqa: E402
from diffusion_jax.samplers.ddim import ddim  # noqa: E402
from diffusion_jax.samplers.loop import sample  # noqa: E402
from diffusion_jax.system.keys import make_key  # noqa: E402
from diffusion_jax.types import Denoised  # noqa: E402

SAMPLING_STEPS = 10


def network(name: str, dtype: Any) -> Any:
    """The two networks of the comparison; bench.py prints their sizes."""
    if name == "unet":
        return UNet(64, (1, 2, 2), 2, (1,), num_heads=4, dropout=0.0, dtype=dtype)
    return DiT(patch_size=4, hidden_size=384, depth=12, num_heads=6, unroll=12, dtype=dtype)


def jobs(net: Any, batch: int) -> tuple[dict[str, Callable[[], None]], int]:
    """Functions that run one training step, forward pass or sampling; FLOPs of one forward."""
    x = jax.random.normal(make_key(0), (batch, 32, 32, 3))
    t = jnp.linspace(10.0, 990.0, batch)
    params = jax.jit(net.init)(make_key(1), x, t, {})
    optimizer = optax.adam(1e-4)

    def loss(params: Any) -> jax.Array:
        return jnp.mean((net.apply(params, x, t, {}, train=True) - x) ** 2)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    def samples(params: Any) -> jax.Array:
        def denoiser(x_t: jax.Array, t: jax.Array, cond: Any) -> Denoised:
            return Denoised(net.apply(params, x_t, 1000 * t, cond))

        times = jnp.linspace(0.999, 0.001, SAMPLING_STEPS + 1)
        keys = jax.random.split(make_key(2), batch)
        return sample(denoiser, ddim(Cosine()), times, x, {}, keys)[0]

    step = jax.jit(step, donate_argnums=(0, 1))
    forward = jax.jit(lambda params: net.apply(params, x, t, {}))
    samples = jax.jit(samples)
    carry = [params, optimizer.init(params)]

    def train() -> None:
        carry[:] = jax.block_until_ready(step(*carry))

    flops = count_flops(net.apply, params, x, t, {})
    return {
        "train": train,
        "forward": lambda: jax.block_until_ready(forward(carry[0])),
        "sample": lambda: jax.block_until_ready(samples(carry[0])),
    }, flops


def seconds(job: Callable[[], None]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def main() -> None:
    """Serves bench.py, or reports on our side alone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("network", choices=["unet", "dit"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--alone", type=int, default=0, help="rounds to run and report on")
    args = parser.parse_args()
    todo, flops = jobs(network(args.network, jnp.dtype(args.dtype)), args.batch)
    if not args.alone:
        for line in sys.stdin:
            print(json.dumps(seconds(todo[line.strip()])), flush=True)
        return
    for name, forwards in [("train", 3), ("forward", 1), ("sample", SAMPLING_STEPS)]:
        todo[name]()
        median = sorted(seconds(todo[name]) for _ in range(args.alone))[args.alone // 2]
        print(
            f"{args.network} {name}: {median:.4f} s, {args.batch / median:.1f} images/s, "
            f"{forwards * flops / median / 1e12:.3f} TFLOP/s on {jax.devices()[0].device_kind}"
        )


if __name__ == "__main__":
    main()
