"""Variants and inpainting of one item, and ways between two items or two conditions, by noise.

All functions take a `generator`, the `params` of its network and the `key` of the noise, and return
samples `[B, *shape]`, not decoded. Variants of an encoded item `x_0` `[*shape]` are made for a
`request` of `B` samples.
"""

import dataclasses

import jax
import jax.numpy as jnp

from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Array, Key, Params

INVERSION_STEPS = 200  # of Heun's method, two evaluations each, from image to noise and back
FIRST = 1e-3  # time at which an image is taken as a state of the process: its noise is invisible


def renoised(
    generator: Generator, params: Params, key: Key, request: Request, x_0: Array, strength: float
) -> Array:
    """Samples that start from an image with added noise: SDEdit (Meng et al. 2022).

    Args (the common ones are above):
        x_0: also `[B, *shape]`, an image of its own for each sample.
        generator: samples start at one of its times, and follow the later ones.
        strength: in [0, 1], share of its steps that are taken, rounded down as in published image
            to image. 1 leaves nothing of the image except what the schedule leaves at the first
            time; less than one step returns it, at the noise level of the last time.
    """
    from_there = _last_steps(generator, strength)
    noise_keys, keys = generator.keys(key, request.index)
    x = _noisy(from_there, x_0, noise_keys)
    return from_there.go_on(params, x, keys, request)[0]


def inpainted(
    generator: Generator,
    params: Params,
    key: Key,
    request: Request,
    x_0: Array,
    known: Array,
    strength: float = 1.0,
) -> Array:
    """Samples that are `x_0` where it is known, or near it.

    By a network that is told of it, by the request's `cond["inpainting"]`, samples are drawn as
    ever. With another, what is known becomes `x_0` at the time just reached after each step, always
    with the noise of the start (`restoration.repaint`), and `x_0` itself after the last one.

    Args (the common ones are above):
        generator: of the Gaussian process.
        x_0: where it is not known, only used with a `strength` below 1.
        known: `[..., 1 or C]` for `x_0` `[..., C]`; above 0 where it is kept.
        strength: as for `renoised`; 1 starts from noise alone.
    """
    from_there = _last_steps(generator, strength)
    schedule = gaussian(generator.process).schedule
    noise_keys, keys = generator.keys(key, request.index)
    if strength == 1:
        x = generator.start.draw(generator.process, noise_keys, x_0.shape, generator.times[0])
        x = generator.process.placed(x, generator.times[0], request.cond)
    else:
        x = _noisy(from_there, x_0, noise_keys)
    if "inpainting" in request.cond:
        return from_there.go_on(params, x, keys, request)[0]
    num, noise = len(keys), sample_noise(noise_keys, x_0.shape)
    mask = Mask(jnp.broadcast_to(known, (num, *known.shape)))
    seen = Observation(jnp.broadcast_to(x_0, (num, *x_0.shape)), mask, jnp.zeros(num))
    sampler = repaint(schedule, seen, generator.sampler, noise, generator.times[-1])
    return dataclasses.replace(from_there, sampler=sampler).go_on(params, x, keys, request)[0]


def _last_steps(generator: Generator, share: float) -> Generator:
    """The generator with the last `int(share steps)` of its steps."""
    steps = len(generator.times) - 1
    first = steps - min(int(steps * share), steps)
    return dataclasses.replace(generator, times=generator.times[first:])


def _noisy(generator: Generator, x_0: Array, noise_keys: Array) -> Array:
    """`x_0` `[*shape]` at the first of the times, `[B, *shape]`, each with its own noise."""
    same = jnp.broadcast_to(x_0, (len(noise_keys), *x_0.shape))
    times = jnp.full(len(noise_keys), generator.times[0])
    return generator.process.corrupt(same, times, noise_keys)


def inverted(
    generator: Generator, params: Params, key: Key, request: Request, x_0: Array, strength: float
) -> Array:
    """Samples from the noise of an image, rotated towards random noise.

    The probability-flow ODE is solved from the image to its noise (DDIM inversion, Song et al.
    2021, section 4.3, with Heun's method), and back from `cos(a) x_T + sin(a) sigma_T eps` with
    `a = strength pi / 2`.

    Args (the common ones are above):
        generator: of its sampler and times only the first time is used.
        request: its guidance is applied both ways; strong guidance cannot be inverted.
        strength: in [0, 1]; 0 reproduces the image up to the error of the solver.
    """
    noise_keys, keys = generator.keys(key, request.index)
    path = _Inversion(generator, params, keys, request)
    eps = generator.process.prior(noise_keys, x_0.shape, path.times[0])
    return path.down(turn(path.up(x_0), eps, strength))


def mixed(
    generator: Generator, params: Params, key: Key, request: Request, ends: Array, shares: Array
) -> Array:
    """Samples between two images, by the noise of each: on the great circle through both.

    Both are inverted as by `inverted`, and between their noises it is interpolated spherically
    (Song et al. 2021, appendix D.5; Shoemake 1985).

    Args (the common ones are above):
        generator: of its sampler and times only the first time is used.
        request: of `B` samples; its guidance is applied both ways.
        ends: two encoded items `[2, *shape]`.
        shares: `[B]` in [0, 1] of the way from the first to the second, which the ends reproduce
            up to the error of the solver.
    """
    path = _Inversion(generator, params, generator.keys(key, request.index)[1], request)
    return path.down(jax.vmap(slerp)(path.up(ends[0]), path.up(ends[1]), shares))


class _Inversion:
    """The probability-flow ODE by Heun's method, from items to their noise and back."""

    def __init__(self, generator: Generator, params: Params, keys: Array, request: Request) -> None:
        schedule = gaussian(generator.process).schedule
        self.times = jnp.linspace(generator.times[0], FIRST, INVERSION_STEPS + 1)
        self._down = dataclasses.replace(generator, sampler=heun(schedule), times=self.times)
        self._job, self._request = (params, keys), request
        self._alpha = schedule.alpha(self.times[-1])
        self._placed = generator.process.placed

    def _gone(self, times: Array, x: Array) -> Array:
        (params, keys), path = self._job, dataclasses.replace(self._down, times=times)
        return path.go_on(params, x, keys, self._request)[0]

    def _origin(self, x: Array) -> Array:
        return self._placed(jnp.zeros_like(x), self.times[0], self._request.cond)

    def up(self, x_0: Array) -> Array:
        """The noise of `x_0` `[*shape]` about the origin, `[B, *shape]`, for each sample."""
        same = jnp.broadcast_to(x_0, (len(self._request.index), *x_0.shape))
        x_T = self._gone(self.times[::-1], self._alpha * same)
        return x_T - self._origin(x_T)

    def down(self, noise: Array) -> Array:
        """The items of noise about the origin, `[B, *shape]`."""
        return self._gone(self.times, self._origin(noise) + noise) / self._alpha


def between(
    generator: Generator, params: Params, key: Key, ends: tuple[Request, Request], shares: Array
) -> Array:
    """Samples between two others: spherical interpolation of noise, linear of conditioning.

    Args (the common ones are above):
        ends: of one sample each, with conditioning of floats `[1, ...]`; equal numbers have the
            same noise. Guidance is that of the first, for `B` samples.
        shares: `[B]` in [0, 1] of the way from the first to the second.
    """
    first, last = ends
    noise_keys, keys = generator.keys(key, jnp.concatenate([first.index, last.index]))
    shape, t = generator.codec.shape, generator.times[0]
    ends_x_T = generator.start.draw(generator.process, noise_keys, shape, t)
    x_T = jax.vmap(lambda share: turn(ends_x_T[0], ends_x_T[1], share))(shares)

    def mixed(a: Array, b: Array) -> Array:
        share = shares.reshape(-1, *[1] * (a.ndim - 1))
        return (1 - share) * a + share * b

    request = first._replace(cond=jax.tree.map(mixed, dict(first.cond), dict(last.cond)))
    x_T = generator.process.placed(x_T, t, request.cond)
    return generator.go_on(params, x_T, jnp.repeat(keys[:1], len(shares)), request)[0]


def turn(a: Array, b: Array, share: Array | float) -> Array:
    """`cos(s pi / 2) a + sin(s pi / 2) b`: standard normal if a and b are, and independent."""
    angle = share * jnp.pi / 2
    return jnp.cos(angle) * a + jnp.sin(angle) * b


def slerp(a: Array, b: Array, share: Array | float) -> Array:
    """From `a` to `b` on the circle through both about 0, by a share of the angle between them.

    Of noises that are nearly the same or opposite, on the straight line.
    """
    cosine = jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-12)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1))
    sine, flat = jnp.sin(angle), jnp.sin(angle) < 1e-3
    of_a, of_b = (jnp.sin(part * angle) / jnp.where(flat, 1, sine) for part in (1 - share, share))
    return jnp.where(flat, 1 - share, of_a) * a + jnp.where(flat, share, of_b) * b
