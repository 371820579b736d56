"""Observations of sounds as those of their coefficients: by matrices, and beside the waveform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity as Plain
from diffusion_jax.codecs.mdct import MDCT
from diffusion_jax.codecs.stft import STFT
from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.diffusion.schedules import Cosine
from diffusion_jax.restoration.ddrm import ddrm
from diffusion_jax.restoration.encoded import Rotated, encoded
from diffusion_jax.restoration.linear import Composed
from diffusion_jax.restoration.operators import Identity, Mask, Observation, linearised
from diffusion_jax.restoration.projections import ddnm
from diffusion_jax.restoration.repaint import repaint
from diffusion_jax.restoration.sound import Band, Decimate, gap
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.ode import heun
from diffusion_jax.types import Denoised, Denoiser
from tests.oracles import keys_of
from tests.stationary import Stationary, coloured

T, C = 48, 2
CODECS = {"whole": MDCT(T, C, 8, scale=2.0), "filled up": MDCT(T, C, 20, scale=0.5)}
OPERATORS: dict[str, Callable[[], Any]] = {
    "gap": lambda: Mask(gap(jnp.array([0.2, 0.5]), jnp.array([0.1, 0.5]), T)),
    "band": lambda: Band(jnp.array([0.0, 0.1]), jnp.array([0.25, 0.4])),
    "decimate": lambda: Decimate(3),
}


def of(operator: Any, y: Any, sigma: float = 0.1) -> Observation:
    return Observation(jnp.asarray(y), operator, jnp.full(len(y), sigma))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gap", "filled up"),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in (
            ("gap", "whole"), ("band", "whole"), ("decimate", "filled up"))),
    ],
)  # fmt: skip
def test_a_rotated_operator_has_the_decomposition_of_its_own(
    x64: None, name: str, size: str
) -> None:
    codec, operator, rng = CODECS[size], OPERATORS[name](), np.random.default_rng(0)
    y = operator(jnp.asarray(rng.normal(size=(2, T, C))))
    rotated = encoded(of(operator, y), codec).operator
    assert isinstance(rotated, Rotated)
    x, d = rng.normal(size=(2, 2, *codec.shape))

    @jax.jit
    def found(x: Any, d: Any) -> list[Any]:
        value, forward, adjoint = linearised(rotated, x)
        values, analyse, synthesise, observed = rotated.spectrum(x)
        z = analyse(x)
        return [
            (value, operator(codec.decode({}, x))),
            (value + forward(d), rotated(x + d)),
            (synthesise(z), x),
            (jnp.sum(z**2), jnp.sum(x**2)),
            (observed(value), values * z),
            (adjoint(y), synthesise(values * observed(y))),
        ]

    for one, other in found(x, d):
        np.testing.assert_allclose(one, other, atol=1e-9)


def test_noise_is_the_same_in_coefficients_of_any_gain(x64: None) -> None:
    """What is encoded of the recording tells of each coefficient alone, by its gain."""
    codec, rng = MDCT(T, C, 8, rms=(0.5, 0.1, 0.02)), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, T, C)))
    eps = 0.1 * jnp.asarray(rng.normal(size=(2, T, C)))
    seen = encoded(of(Identity(), x + eps), codec)
    left = seen.residual(codec.encode({}, x, None))  # noise, orthonormally transformed
    np.testing.assert_allclose(left, MDCT(T, C, 8).encode({}, eps, None), atol=1e-12)
    assert isinstance(seen.operator, Mask)


def test_other_codecs_and_operators_are_seen_through_their_decoding() -> None:
    mask = OPERATORS["gap"]()
    y = jnp.zeros((2, T, C))
    for codec in (MDCT(T, C, 8, rms=(0.5, 0.1)), STFT(T, C, 8, 4, multiple=2)):
        assert isinstance(encoded(of(mask, y), codec).operator, Composed)
    assert isinstance(encoded(of(Identity(), y), STFT(T, C, 8, 4)).operator, Composed)
    assert encoded(of(mask, y), Plain((T, C))).operator is mask


SIDE = 64
LAW = Stationary(coloured(SIDE))
OF_ONE = MDCT(SIDE, 1, 16)
SCHEDULE = Cosine()


def in_coefficients(denoise: Denoiser) -> Denoiser:
    return lambda x_t, t, cond: Denoised(
        OF_ONE.encode({}, denoise(OF_ONE.decode({}, x_t), t, cond).x_0, None)
    )


@pytest.mark.parametrize("name", ["ddnm", pytest.param("repaint", marks=pytest.mark.slow)])
def test_methods_do_in_coefficients_what_they_do_in_the_waveform(x64: None, name: str) -> None:
    """Without noise of their own they find the same recording."""
    rng = np.random.default_rng(0)
    x_T, z, y = (jnp.asarray(rng.normal(size=(2, SIDE, 1))) for _ in range(3))
    mask = Mask(gap(jnp.array([0.2, 0.5]), jnp.array([0.3, 0.5]), SIDE))
    seen, times = of(mask, mask(y)), jnp.linspace(1, 0, 6) ** 2

    def restored(denoise: Denoiser, seen: Observation, x_T: Any, z: Any) -> Any:
        sampler = heun(SCHEDULE)
        if name == "ddnm":
            denoise = ddnm(denoise, seen, SCHEDULE)
        else:
            sampler = repaint(SCHEDULE, seen, sampler, z)
        return run(denoise, sampler, times, x_T, {}, keys_of(2)).x

    there = [OF_ONE.encode({}, a, None) for a in (x_T, z)]
    plain = LAW.denoiser(SCHEDULE)
    expected = restored(plain, seen, x_T, z)
    found = restored(in_coefficients(plain), encoded(seen, OF_ONE), *there)
    np.testing.assert_allclose(OF_ONE.decode({}, found), expected, atol=1e-9)
    assert float(np.abs(expected - np.asarray(mask(y))).max()) > 0.1


def test_repaint_makes_bright_what_a_mask_darkens(x64: None) -> None:
    """So that a recording that is seen whole, by coefficients of any gain, is found."""
    codec = MDCT(SIDE, 1, 16, rms=(0.5, 0.1))
    y = jnp.asarray(np.random.default_rng(0).normal(size=(1, SIDE, 1)))
    sampler = repaint(SCHEDULE, encoded(of(Identity(), y, 0.0), codec), heun(SCHEDULE))
    x_0, _ = sampler.step(
        lambda x, t: Denoised(0 * x), None, jnp.ones((1, *codec.shape)), jnp.ones(1),
        jnp.zeros(()), keys_of(1),
    )  # fmt: skip
    np.testing.assert_allclose(codec.decode({}, x_0), y, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("rms", [(), (0.5, 0.1)])
def test_noise_is_taken_off_coefficients_as_off_the_waveform(rms: tuple[float, ...]) -> None:
    """DDRM: the mean of many samples, by the exact denoiser in either space.

    Measured: the square of its error is 0.02 of the posterior's variance, and 0.06 with gains that
    differ, where other directions are denoised at other times.
    """
    codec, num, sigma = MDCT(SIDE, 1, 16, rms=rms), 400, 0.2
    x = LAW.sample(jnp.asarray(np.random.default_rng(0).normal(size=(1, SIDE, 1))))
    y = x + sigma * np.random.default_rng(1).normal(size=x.shape)
    gains, transform = codec.gains, np.asarray(
        MDCT(SIDE, 1, 16).encode({}, jnp.eye(SIDE)[..., None], None)
    ).reshape(SIDE, SIDE).T  # fmt: skip
    matrix = np.tile(gains, codec.frames)[:, None] * transform
    cov = jnp.asarray(matrix @ LAW.cov @ matrix.T, jnp.float32)

    def denoise(x_t: Any, t: Any, cond: Any) -> Denoised:
        alpha, sigma_t = (a[:, None, None] for a in SCHEDULE.scales(t))
        total = alpha**2 * cov + sigma_t**2 * jnp.eye(SIDE)
        flat = x_t.reshape(len(x_t), SIDE, 1)
        return Denoised((alpha * cov @ jnp.linalg.solve(total, flat)).reshape(x_t.shape))

    seen = encoded(of(Identity(), jnp.tile(y, (num, 1, 1)), sigma), codec)
    times = jnp.linspace(1, 1e-3, 21) ** 2
    x_T = sample_noise(keys_of(num, 2), codec.shape)
    program = jax.jit(lambda x, keys: run(denoise, ddrm(SCHEDULE, seen), times, x, {}, keys).x)
    found = np.asarray(codec.decode({}, program(x_T, keys_of(num))), np.float64)[..., 0]
    mean, left = LAW.posterior(np.ones(SIDE), np.asarray(y)[0, :, 0], sigma)
    assert np.mean((found.mean(0) - mean) ** 2) < 0.1 * np.trace(left) / SIDE
