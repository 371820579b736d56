"""Variants and inpainting of one item, and interpolation between two conditions, by their noise.

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
    schedule = gaussian(generator.process).schedule
    noise_keys, keys = generator.keys(key, request.index)
    times = jnp.linspace(generator.times[0], FIRST, INVERSION_STEPS + 1)
    down = dataclasses.replace(generator, sampler=heun(schedule), times=times)
    up = dataclasses.replace(down, times=times[::-1])
    x = schedule.alpha(times[-1]) * jnp.broadcast_to(x_0, (len(keys), *x_0.shape))
    x_T, _ = up.go_on(params, x, keys, request)
    process = generator.process
    origin = process.placed(jnp.zeros_like(x_T), times[0], request.cond)
    eps = process.prior(noise_keys, x_0.shape, times[0])
    turned = origin + turn(x_T - origin, eps, strength)
    x, _ = down.go_on(params, turned, keys, request)
    return x / schedule.alpha(times[-1])


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
