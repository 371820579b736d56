"""Conditioning computed from the recording itself, damaged: noise, clipping, low bands, rooms.

All are pure functions `(x_0 [B, T, C], keys [B]) -> cond` with `image` `[B, T, C]`, the name of all
that a network takes beside a sample. Gaps are `image_conditions.Masked`.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import fold_in
from diffusion_jax.restoration.nonlinear import Clipping
from diffusion_jax.restoration.sound import Band, coloured_noise, mixed, room, room_response
from diffusion_jax.system.arguments import checked
from diffusion_jax.types import Array, Cond

Noise = Callable[[Array, tuple[int, ...]], Array]
"""`(keys [B], (T, C)) -> noise [B, T, C]` of any level."""


def uniform(keys: Array, least: float, most: float) -> Array:
    """A draw for each key, `[B]`."""
    return least + (most - least) * jax.vmap(jax.random.uniform)(keys)


@dataclasses.dataclass(frozen=True)
@checked(least="(-inf, most]", most="(-inf, inf)")
class Coloured:
    """Noise whose power falls as `1 / f^a`, with `a` drawn: from white (0) to brown (2)."""

    least: float = 0.0
    most: float = 2.0

    def __call__(self, keys: Array, shape: tuple[int, ...]) -> Array:
        exponent = uniform(fold_in(keys, 0), self.least, self.most)
        return coloured_noise(fold_in(keys, 1), exponent, shape)


@dataclasses.dataclass(frozen=True, eq=False)
@checked(voices="[1, inf)")
class FromBank:
    """Sums of recordings of a bank, each from a random place on: babble; of one voice, the noise.

    The place goes round the end of a recording.
    """

    bank: Array  # `[N, L]`
    voices: int

    def __call__(self, keys: Array, shape: tuple[int, ...]) -> Array:
        num, size = self.bank.shape

        def of_one(key: Array) -> Array:
            rows, starts = jax.random.split(key)
            row = jax.random.randint(rows, (self.voices, 1), 0, num)
            start = jax.random.randint(starts, (self.voices, 1), 0, size)
            return jnp.asarray(self.bank)[row, (start + jnp.arange(shape[0])) % size].sum(0)

        return jnp.broadcast_to(jax.vmap(of_one)(keys)[..., None], (len(keys), *shape))


@dataclasses.dataclass(frozen=True)
@checked(least="(-inf, most]", most="(-inf, inf)")
class Noisy:
    """The recording with noise of a signal-to-noise ratio that is drawn, in dB over all of it."""

    least: float  # dB
    most: float  # dB
    noises: Sequence[Noise]  # one of them for each recording, all as likely

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, T, C]; a silent recording gets some noise, too (`sound.mixed`)."""
        num, snr = len(self.noises), uniform(fold_in(keys, 0), self.least, self.most)
        of_all = [noise(fold_in(keys, 2 + i), x_0.shape[1:]) for i, noise in enumerate(self.noises)]
        which = jax.vmap(lambda key: jax.random.randint(key, (), 0, num))(fold_in(keys, 1))
        noise = jnp.stack(of_all, 1)[jnp.arange(len(x_0)), which]
        return {"image": mixed(x_0, noise.astype(x_0.dtype), snr)}


@dataclasses.dataclass(frozen=True)
@checked(least="(0, most]", most="(0, 1]")
class Clipped:
    """The recording cut off above a share of its largest value that is drawn."""

    least: float
    most: float

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, T, C]."""
        level = uniform(keys, self.least, self.most) * jnp.max(jnp.abs(x_0), axis=(1, 2))
        return {"image": Clipping(-level, level)(x_0)}


@dataclasses.dataclass(frozen=True)
@checked(least="(0, most]", most="(0, 0.5]")
class LowBand:
    """The recording without frequencies above one that is drawn, in cycles per sample."""

    least: float
    most: float

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, T, C]."""
        high = uniform(keys, self.least, self.most)
        return {"image": Band(jnp.zeros_like(high), high)(x_0)}


@dataclasses.dataclass(frozen=True)
@checked(least="[1, most]", most="[1, inf)", direct="(-inf, inf)")
class Reverberant:
    """The recording in a room whose time of decay is drawn, by the model of `room_response`.

    Before the recording there was silence.
    """

    least: float  # T60 in samples
    most: float
    direct: float  # energy of the direct sound over that of the rest, dB

    def __call__(self, x_0: Array, keys: Array) -> Cond:
        """`image` [B, T, C]."""
        size = min(int(self.most) + 1, x_0.shape[1])
        decay = uniform(fold_in(keys, 0), self.least, self.most)
        direct = jnp.full_like(decay, self.direct)
        response = room_response(fold_in(keys, 1), decay, direct, size)
        padded = jnp.pad(x_0, [(0, 0), (0, x_0.shape[1]), (0, 0)])
        return {"image": room(response)(padded)[:, : x_0.shape[1]]}
