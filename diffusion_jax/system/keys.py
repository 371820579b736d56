"""PRNG keys, all of one generator."""

from typing import Any

import jax

from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Key

GENERATOR = "threefry2x32"
DROPOUT_GENERATORS = {"threefry": GENERATOR, "rbg": "rbg"}
"""Generators that can draw dropout, by the name of the setting."""


@checked(seed="[0, 4294967296)")
def make_key(seed: Any) -> Key:
    """The typed key of a seed, an integer below 2^32, traced or not.

    The generator is fixed, whatever `JAX_DEFAULT_PRNG_IMPL` is: another one would change the
    numbers of a run, and with "rbg" or "unsafe_rbg", which do not draw a batch key by key, sample i
    would depend on its batch.

    Raises:
        ValueError: the seed does not fit in 32 bits; JAX would truncate it to another one.
    """
    return jax.random.key(seed, impl=GENERATOR)


def rekeyed(key: Key, generator: str) -> Key:
    """A key of another generator, drawn with `key` `[]`; `key` itself if it is of that one."""
    if str(jax.random.key_impl(key)) == generator:
        return key
    size = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=generator))).shape
    return jax.random.wrap_key_data(jax.random.bits(key, size), impl=generator)


def settle_generator() -> None:
    """Sets JAX's default generator too, for keys made by libraries, such as optax's for its noise.

    Also sets `JAX_THREEFRY_PARTITIONABLE`, which changes the bits of all keys.
    """
    jax.config.update("jax_default_prng_impl", GENERATOR)
    jax.config.update("jax_threefry_partitionable", True)
