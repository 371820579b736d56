"""Variants of one picture, and pictures between two texts: sampling from other noise than fresh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion.corruption import diffuse
from diffusion_jax.generation.generator import Generator, Wanted
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Array, Key, Params

INVERSION_STEPS = 200
"""Steps of Heun's method, two evaluations each, from the picture to its noise and back."""
FIRST = 1e-3
"""The time at which a picture is taken for a state of the process: its noise cannot be seen."""


def renoised(
    generator: Generator,
    params: Params,
    key: Key,
    wanted: Wanted,
    x_0: Array,
    strength: float,
) -> Array:
    """Samples that begin at a picture with noise: SDEdit (Meng et al. 2022).

    Args:
        generator: whose last times are taken, from `strength` of the way on.
        params: of the network.
        key: of the noise.
        wanted: the variants.
        x_0: the picture `[*shape]`.
        strength: in (0, 1], where on the way sampling begins; 1 leaves nothing of the picture but
            what the schedule leaves there.

    Returns:
        `[B, *shape]`.
    """
    times = np.asarray(generator.times)
    start = np.float32(strength * times[0])
    rest = jnp.asarray(np.concatenate([[start], times[times < start]]))
    eps, keys = generator.noise(key, wanted.index)
    x = diffuse(
        generator.schedule, jnp.broadcast_to(x_0, eps.shape), eps, jnp.full(len(eps), start)
    )
    from_there = dataclasses.replace(generator, times=rest)
    return from_there.go_on(params, x, keys, wanted)[0]


def inverted(
    generator: Generator,
    params: Params,
    key: Key,
    wanted: Wanted,
    x_0: Array,
    strength: float,
) -> Array:
    """Samples from the noise that a picture comes from, turned towards other noise.

    The probability-flow ODE is solved from the picture to its noise (DDIM inversion, Song et al.
    2021, section 4.3, with Heun's method), and back from `cos(a) x_T + sin(a) sigma_T eps` with
    `a = strength pi / 2`.

    Args:
        generator: its sampler and times are not used, but for where they begin.
        params: of the network.
        key: of the noise.
        wanted: the variants; their guidance holds both ways, and much of it cannot be solved
            backwards.
        x_0: the picture `[*shape]`.
        strength: in [0, 1]; 0 gives the picture back, but for the error of the solver.

    Returns:
        `[B, *shape]`.
    """
    schedule = generator.schedule
    eps, keys = generator.noise(key, wanted.index)
    times = jnp.linspace(generator.times[0], FIRST, INVERSION_STEPS + 1)
    down = dataclasses.replace(generator, sampler=heun(schedule), times=times)
    up = dataclasses.replace(down, times=times[::-1])
    x = schedule.alpha(times[-1]) * jnp.broadcast_to(x_0, eps.shape)
    x_T, _ = up.go_on(params, x, keys, wanted)
    turned = turn(x_T, schedule.sigma(times[0]) * eps, strength)
    x, _ = down.go_on(params, turned, keys, wanted)
    return x / schedule.alpha(times[-1])


def between(
    generator: Generator, params: Params, key: Key, ends: tuple[Wanted, Wanted], shares: Array
) -> Array:
    """Samples on the way from one to another: spherical in noise, linear in conditioning.

    Args:
        generator: draws them.
        params: of the network.
        key: of the noise.
        ends: one sample each, whose conditioning is floats `[1, ...]`; the same number twice keeps
            the noise. Guidance is that of the first, for `F` samples.
        shares: `[F]` in [0, 1], how far from the first.

    Returns:
        `[F, *shape]`.
    """
    first, last = ends
    eps, keys = generator.noise(key, jnp.concatenate([first.index, last.index]))
    x_T = jax.vmap(lambda share: turn(eps[0], eps[1], share))(shares)

    def mixed(a: Array, b: Array) -> Array:
        share = shares.reshape(-1, *[1] * (a.ndim - 1))
        return (1 - share) * a + share * b

    wanted = first._replace(cond=jax.tree.map(mixed, dict(first.cond), dict(last.cond)))
    x_T = generator.schedule.sigma(generator.times[0]) * x_T
    return generator.go_on(params, x_T, jnp.repeat(keys[:1], len(shares)), wanted)[0]


def turn(a: Array, b: Array, share: Array | float) -> Array:
    """`cos(s pi / 2) a + sin(s pi / 2) b`: standard normal if a and b are, and independent."""
    angle = share * jnp.pi / 2
    return jnp.cos(angle) * a + jnp.sin(angle) * b
