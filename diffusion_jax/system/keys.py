"""The generator of random numbers."""

from typing import Any

import jax

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Key

GENERATOR = "threefry2x32"


@checked(seed="[0, 4294967296)")
def make_key(seed: Any) -> Key:
    """The typed key of a seed, an integer below 2^32, traced or not.

    Of one generator, whatever `JAX_DEFAULT_PRNG_IMPL` is: a run would end in other numbers by
    another, and with "rbg" or "unsafe_rbg", which do not draw a batch key by key, sample i would
    depend on its batch.

    Raises:
        ValueError: JAX would cut the seed to 32 bits, and give the key of another one.
    """
    return jax.random.key(seed, impl=GENERATOR)


def settle_generator() -> None:
    """Whatever the environment says: for keys that libraries make, such as optax's for its noise.

    `JAX_THREEFRY_PARTITIONABLE` changes the bits of all keys.
    """
    jax.config.update("jax_default_prng_impl", GENERATOR)
    jax.config.update("jax_threefry_partitionable", True)
