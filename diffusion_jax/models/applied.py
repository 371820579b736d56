"""Networks as pure functions of their parameters."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.models.casts import cast, read_as
from diffusion_jax.system.keys import GENERATOR, make_key, rekeyed
from diffusion_jax.types import Key, Params


class Applied:
    """A linen module as a pure function of its parameters.

    Args:
        network: module whose last input is the conditioning.
        inputs: example inputs for one item.
        generator: of the random bits of dropout.
    """

    def __init__(
        self, network: nn.Module, inputs: tuple[Any, ...], generator: str = GENERATOR
    ) -> None:
        self._network, self.inputs, self._generator = network, inputs, generator

    def init(self, key: Key) -> Params:
        """Initial parameters."""
        return self._network.init(key, *jax.tree.map(jnp.asarray, self.inputs))["params"]

    def ready(self, params: Params) -> Params:
        """`params` for many calls: what the network only reads in half precision is in it.

        Outputs are the same to the bit.
        """
        half = jnp.dtype(getattr(self._network, "dtype", jnp.float32)).itemsize < 4
        return cast(params, self._read_as) if half else params

    @functools.cached_property
    def _read_as(self) -> Any:
        return read_as(self, jax.eval_shape(self.init, make_key(0)), *self.inputs)

    def __call__(self, params: Params, *inputs: Any) -> Any:
        """The outputs, without dropout."""
        return self._network.apply({"params": params}, *inputs)

    def train(self, params: Params, *inputs: Any) -> Any:
        """The outputs in training; the last input is the dropout key."""
        *first, key = inputs
        variables, rngs = {"params": params}, {"dropout": rekeyed(key, self._generator)}
        return self._network.apply(variables, *first, train=True, rngs=rngs)

    def heldout(self, params: Params, *inputs: Any) -> Any:
        """Same arguments as `train`, without dropout."""
        return self(params, *inputs[:-1])
