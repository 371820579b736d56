"""Variants of one item, and items between two texts: sampling from other noise than fresh.

All take a `generator`, the `params` of its network and the `key` of the noise, and give samples
`[B, *shape]`, not decoded. Variants are those of a `request` of `B`, made from an item `x_0`
`[*shape]`, encoded.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.process import gaussian
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Array, Key, Params

INVERSION_STEPS = 200  # of Heun's method, two evaluations each, from picture to noise and back
FIRST = 1e-3  # time at which a picture is taken for a state of the process: its noise is not seen


def renoised(
    generator: Generator, params: Params, key: Key, request: Request, x_0: Array, strength: float
) -> Array:
    """Samples that begin at a picture with noise: SDEdit (Meng et al. 2022).

    Args (those of all are above):
        generator: whose last times are taken, from `strength` of the way on.
        strength: in (0, 1], where on the way sampling begins; 1 leaves nothing of the picture but
            what the schedule leaves there.
    """
    times = np.asarray(generator.times)
    start = np.float32(strength * times[0])
    rest = jnp.asarray(np.concatenate([[start], times[times < start]]))
    noise_keys, keys = generator.keys(key, request.index)
    same = jnp.broadcast_to(x_0, (len(keys), *x_0.shape))
    x = generator.process.corrupt(same, jnp.full(len(keys), start), noise_keys)
    from_there = dataclasses.replace(generator, times=rest)
    return from_there.go_on(params, x, keys, request)[0]


def inverted(
    generator: Generator, params: Params, key: Key, request: Request, x_0: Array, strength: float
) -> Array:
    """Samples from the noise that a picture comes from, turned towards other noise.

    The probability-flow ODE is solved from the picture to its noise (DDIM inversion, Song et al.
    2021, section 4.3, with Heun's method), and back from `cos(a) x_T + sin(a) sigma_T eps` with
    `a = strength pi / 2`.

    Args (those of all are above):
        generator: its sampler and times are not used, but for where they begin.
        request: its guidance holds both ways, and much of it cannot be solved backwards.
        strength: in [0, 1]; 0 gives the picture back, but for the error of the solver.
    """
    schedule = gaussian(generator.process).schedule
    noise_keys, keys = generator.keys(key, request.index)
    times = jnp.linspace(generator.times[0], FIRST, INVERSION_STEPS + 1)
    down = dataclasses.replace(generator, sampler=heun(schedule), times=times)
    up = dataclasses.replace(down, times=times[::-1])
    x = schedule.alpha(times[-1]) * jnp.broadcast_to(x_0, (len(keys), *x_0.shape))
    x_T, _ = up.go_on(params, x, keys, request)
    turned = turn(x_T, generator.process.prior(noise_keys, x_0.shape, times[0]), strength)
    x, _ = down.go_on(params, turned, keys, request)
    return x / schedule.alpha(times[-1])


def between(
    generator: Generator, params: Params, key: Key, ends: tuple[Request, Request], shares: Array
) -> Array:
    """Samples on the way from one to another: spherical in noise, linear in conditioning.

    Args (those of all are above):
        ends: one sample each, whose conditioning is floats `[1, ...]`; the same number twice keeps
            the noise. Guidance is that of the first, for `B` samples.
        shares: `[B]` in [0, 1], how far from the first.
    """
    first, last = ends
    noise_keys, keys = generator.keys(key, jnp.concatenate([first.index, last.index]))
    ends_x_T = generator.process.prior(noise_keys, generator.codec.shape, generator.times[0])
    x_T = jax.vmap(lambda share: turn(ends_x_T[0], ends_x_T[1], share))(shares)

    def mixed(a: Array, b: Array) -> Array:
        share = shares.reshape(-1, *[1] * (a.ndim - 1))
        return (1 - share) * a + share * b

    request = first._replace(cond=jax.tree.map(mixed, dict(first.cond), dict(last.cond)))
    return generator.go_on(params, x_T, jnp.repeat(keys[:1], len(shares)), request)[0]


def turn(a: Array, b: Array, share: Array | float) -> Array:
    """`cos(s pi / 2) a + sin(s pi / 2) b`: standard normal if a and b are, and independent."""
    angle = share * jnp.pi / 2
    return jnp.cos(angle) * a + jnp.sin(angle) * b
