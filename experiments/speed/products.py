"""Times products on this CPU, and the gradients of kernels: the library's and `models/products.py`.

Prints GFLOP/s of the fastest of some interleaved runs. As in a network, inputs come from and
outputs go to element-wise operations.
"""

import functools
from collections.abc import Callable, Sequence

from experiments.speed.ours import seconds  # first: it tunes the allocator before JAX starts

import jax  # isort: skip
import jax.numpy as jnp  # isort: skip

from diffusion_jax.models.products import conv_for_cpu, matmul_for_cpu, plain_conv  # isort: skip
from diffusion_jax.system.keys import make_key  # isort: skip

ROUNDS = 15
CONVOLUTIONS = [  # images, side, channels in, channels out
    (32, 32, 64, 64),
    (32, 32, 192, 64),
    (32, 32, 64, 128),
    (32, 16, 256, 128),
    (32, 16, 128, 128),
    (32, 8, 128, 128),
    (32, 8, 256, 128),
    (4, 16, 256, 256),  # from here on by `conv_by_patches`
    (4, 8, 512, 512),
    (2, 4, 1280, 1280),
]
PRODUCTS = [  # positions of an image, channels in, channels out
    (64, 384, 1536),
    (64, 1536, 384),
    (64, 384, 1152),
    (64, 384, 384),
    (256, 128, 384),
    (1024, 192, 64),
]


def rates(
    products: Sequence[Callable[..., jax.Array]], x: jax.Array, kernel: jax.Array
) -> list[float]:
    """GFLOP/s of each product's forward pass, and then of each product's kernel gradient."""

    def gradient(product: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
        def of_kernel(x: jax.Array, kernel: jax.Array, g: jax.Array) -> jax.Array:
            return jax.vjp(lambda kernel: product(2 * x, kernel), kernel)[1](3 * g)[0]

        return of_kernel

    g = jnp.ones_like(products[0](x, kernel))
    flops = 2 * kernel.size * g.size // g.shape[-1]
    jobs = [jax.jit(lambda x, kernel, _, f=f: f(2 * x, kernel)) for f in products]
    jobs += [jax.jit(gradient(product)) for product in products]
    times = [
        [seconds(functools.partial(_finish, job, x, kernel, g)) for job in jobs]
        for _ in range(ROUNDS)
    ]
    return [flops / min(column) / 1e9 for column in zip(*times, strict=True)]


def _finish(job: Callable[..., jax.Array], *arrays: jax.Array) -> None:
    jax.block_until_ready(job(*arrays))


def main() -> None:
    """Prints the table."""
    print("| product | forward, library | forward, ours | gradient, library | gradient, ours |")
    print("|---|---|---|---|---|")
    key = make_key(0)
    cases: list[tuple[str, list[Callable[..., jax.Array]], tuple, tuple]] = [
        (
            f"3x3, {b} of {side}x{side}, {c} to {d}",
            [plain_conv, conv_for_cpu],
            (b, side, side, c),
            (3, 3, c, d),
        )
        for b, side, c, d in CONVOLUTIONS
    ]
    cases += [
        (f"dense, {n} positions, {c} to {d}", [jnp.matmul, matmul_for_cpu], (32, n, c), (c, d))
        for n, c, d in PRODUCTS
    ]
    for name, products, x, kernel in cases:
        found = rates(products, jax.random.normal(key, x), jax.random.normal(key, kernel))
        print(f"| {name} | " + " | ".join(f"{rate:.0f}" for rate in found) + " |", flush=True)


if __name__ == "__main__":
    main()
