"""Observations of items as observations of what a codec makes of them.

Where the singular value decomposition stays known, so do the methods that need it.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import struct

from diffusion_jax.codecs.codec import Codec, Orthonormal
from diffusion_jax.codecs.codec import Identity as Plain
from diffusion_jax.restoration.linear import Composed, Decoded
from diffusion_jax.restoration.operators import (
    Decomposed,
    Identity,
    Mask,
    Observation,
    Operator,
    Spectrum,
)
from diffusion_jax.types import Array


@struct.dataclass
class Rotated:
    """An operator of sounds, of their coefficients `x_0 = c Q x` by an orthonormal matrix Q.

    As `A = U S V^T`, it is `A Q^T / c = U (S / c) (Q V)^T`. Sounds that the codec fills up with
    zeros are those of the full length, of which what is beyond the end is not seen.
    """

    operator: Decomposed  # of sounds [B, T, C]
    codec: Orthonormal = struct.field(pytree_node=False)  # whose gains are all c

    def __call__(self, x: Array) -> Array:
        return self.operator(self.codec.decode({}, x))

    @property
    def gain(self) -> float:
        """The number c."""
        return float(self.codec.gains.flat[0])

    def turned_back(self, x_0: Array) -> Array:
        """`Q^T x_0` `[B, T', C]` of coefficients `[B, ...]`, where T' is the full length."""
        return self.gain * self.codec.filled.decode({}, x_0)

    def turned(self, x: Array) -> Array:
        """`Q x` of sounds of the full length."""
        found: Array = self.codec.filled.encode({}, x, x) / self.gain
        return found

    def filled(self, y: Array) -> Array:
        """A sound `[B, T, C]` with zeros up to the full length."""
        return jnp.pad(y, [(0, 0), (0, self.codec.filled.length - y.shape[1]), (0, 0)])

    def spectrum(self, x: Array) -> Spectrum:
        whole = self.turned_back(x)
        length, shape = self.codec.length, x.shape[1:]
        own = self.operator.spectrum(whole[:, :length])
        values = jnp.broadcast_to(own.values, (len(own.values), length, whole.shape[2]))

        def each(change: Callable[[Array], Array], a: Array) -> Array:
            return jnp.concatenate([change(a[:, :length]), a[:, length:]], axis=1)

        return Spectrum(
            self.filled(values).reshape(-1, *shape) / self.gain,
            lambda x: each(own.analyse, self.turned_back(x)).reshape(-1, *shape),
            lambda z: self.turned(each(own.synthesise, z.reshape(-1, *whole.shape[1:]))),
            lambda y: self.filled(own.observed(y)).reshape(-1, *shape),
        )


def encoded(observation: Observation, codec: Codec) -> Observation:
    """An observation of items as one of their `x_0`, by a codec without parameters.

    Of a codec `x_0 = G Q x`, with an orthonormal matrix Q and a diagonal one G, the decomposition
    is known of all operators that have one if G is a number (`Rotated`). Otherwise that of A is
    lost, but for the identity: `Q y = G^-1 x_0 + noise`, a mask that darkens. The zeros with which
    the codec fills up sounds are then seen, too, as all encoded data have them.
    """
    operator = observation.operator
    if isinstance(codec, Plain):
        return observation
    if isinstance(codec, Orthonormal):
        gains = jnp.asarray(codec.gains, observation.y.dtype)
        if isinstance(operator, Identity):
            y = codec.encode({}, observation.y, observation.y) / gains
            mask = Mask(jnp.broadcast_to(1 / gains, (len(y), *(1,) * (y.ndim - 2), y.shape[-1])))
            return dataclasses.replace(observation, y=y, operator=mask)
        if isinstance(operator, Decomposed) and np.ptp(codec.gains) == 0:
            return dataclasses.replace(observation, operator=Rotated(operator, codec))
    through: Operator = Composed(operator, Decoded(codec))
    return dataclasses.replace(observation, operator=through)
