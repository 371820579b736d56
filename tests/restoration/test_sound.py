"""Operators and conditions of sound against closed forms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.restoration.image_conditions import Masked
from diffusion_jax.restoration.operators import Mask, linearised
from diffusion_jax.restoration.sound import (
    Band,
    Decimate,
    coloured_noise,
    gap,
    mixed,
    rms,
    room,
    room_response,
)
from diffusion_jax.restoration.sound_conditions import (
    Clipped,
    Coloured,
    FromBank,
    LowBand,
    Noisy,
    Reverberant,
)
from diffusion_jax.system.keys import make_key

T = 48


def keys_of(num: int, seed: int = 0) -> Any:
    return jax.random.split(make_key(seed), num)


def cosine(k: int, length: int) -> np.ndarray:
    """The `k`-th cosine of `length` samples, `[1, length, 1]`."""
    return np.cos(np.pi * k * (np.arange(length) + 0.5) / length)[None, :, None]


OPERATORS = {
    "band": lambda: Band(jnp.array([0.0, 0.1]), jnp.array([0.25, 0.4])),
    "decimate": lambda: Decimate(3),
    "gap": lambda: Mask(gap(jnp.array([0.2, 0.5]), jnp.array([0.1, 0.5]), T)),
    "room": lambda: room(
        room_response(keys_of(2), jnp.array([5.0, 9.0]), jnp.array([0.0, 6.0]), 16)
    ),
}


def first_quick(names: Any) -> Any:
    """The first one, and the others as slow tests: each compiles a program of its own."""
    rest = [pytest.param(name, marks=pytest.mark.slow) for name in list(names)[1:]]
    return pytest.mark.parametrize("name", [next(iter(names)), *rest])


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_decompositions_are_those_of_the_operators(x64: None, name: str) -> None:
    operator: Any = OPERATORS[name]()
    x, d = np.random.default_rng(0).standard_normal((2, 2, T, 2))

    @jax.jit
    def found(x: Any, d: Any) -> list[Any]:
        value, forward, adjoint = linearised(operator, x)
        y = jax.random.normal(make_key(1), value.shape)
        values, analyse, synthesise, observed = operator.spectrum(x)
        z = analyse(x)
        return [
            (value + forward(d), operator(x + d)),
            (jnp.sum(forward(d) * y), jnp.sum(d * adjoint(y))),
            (synthesise(z), x),
            (jnp.sum(z**2), jnp.sum(x**2)),
            (observed(value), values * z),
            (adjoint(y), synthesise(values * observed(y))),
        ]

    for one, other in found(x, d):
        np.testing.assert_allclose(one, other, atol=1e-9)
    alone = jax.tree.map(lambda leaf: leaf[1:], operator)(x[1:])
    np.testing.assert_allclose(alone, operator(x)[1:], atol=1e-9)


def test_a_band_keeps_its_frequencies_and_no_others() -> None:
    """Those of half of `k / T` cycles per sample from 0.1 to below 0.25."""
    band = jax.jit(Band(jnp.array([0.1]), jnp.array([0.25])).__call__)
    x, k = np.concatenate([cosine(k, T) for k in range(T)]), np.arange(T)[:, None, None]
    np.testing.assert_allclose(band(x), (k / T / 2 >= 0.1) * (k / T / 2 < 0.25) * x, atol=1e-5)


def test_decimation_keeps_what_a_lower_rate_can_hold_without_aliasing() -> None:
    found = jax.jit(Decimate(2).__call__)(np.concatenate([cosine(k, T) for k in range(T)]))
    expected = np.concatenate([(k < T // 2) * cosine(k, T // 2) for k in range(T)])
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("operator", "x", "says"),
    [
        (Decimate(5), np.zeros((1, T, 1)), "factor=5 must divide the length of the data, 48"),
        (Decimate(2), np.zeros((1, 8, 8, 1)), r"for sounds \[B, T, C\], and the data are \(1, 8"),
        (Band(jnp.zeros(1), jnp.ones(1)), np.zeros((1, 8, 8, 1)), "for sounds"),
    ],
)
def test_other_data_are_refused(operator: Any, x: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        operator(x)


def test_a_room_has_its_time_of_decay_and_its_direct_sound() -> None:
    response = np.asarray(room_response(keys_of(1), jnp.array([2000.0]), jnp.array([3.0]), 4000))[0]
    left = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])  # Schroeder 1965
    at = [np.argmax(left < left[1] - drop) for drop in (5, 35)]
    np.testing.assert_allclose(at[1] - at[0], 1000, rtol=0.1)  # 30 of 60 dB
    np.testing.assert_allclose(np.sum(response[1:] ** 2), 10**-0.3, rtol=1e-5)
    assert response[0] == 1


def test_a_room_is_a_convolution() -> None:
    rng = np.random.default_rng(0)
    response, x = rng.standard_normal((1, 8)), rng.standard_normal((1, T, 1))
    expected = np.convolve(response[0], np.tile(x[0, :, 0], 2))[T : 2 * T]
    np.testing.assert_allclose(room(response)(x)[0, :, 0], expected, atol=1e-5)


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_coloured_noise_has_its_slope_and_an_rms_of_one(exponent: float) -> None:
    made = coloured_noise(keys_of(200), jnp.full(200, exponent), (1024, 1))
    np.testing.assert_allclose(rms(made), 1, rtol=1e-5)
    power = np.mean(np.abs(np.fft.rfft(np.asarray(made)[..., 0])) ** 2, 0)[8:500]
    slope = np.polyfit(np.log(np.arange(8, 500)), np.log(power), 1)[0]
    np.testing.assert_allclose(slope, -exponent, atol=0.05)


def test_mixtures_have_their_snr_and_silence_gets_some_noise() -> None:
    rng, snr = np.random.default_rng(0), np.array([-10.0, 0.0, 30.0, 0.0])
    x, noise = rng.standard_normal((4, 500, 2)) * 0.1, 7 * rng.standard_normal((4, 500, 2))
    x[3] = 0
    y = np.asarray(mixed(jnp.asarray(x), jnp.asarray(noise), jnp.asarray(snr)))
    found = np.sum(x**2, (1, 2))[:3] / np.sum((y - x) ** 2, (1, 2))[:3]
    np.testing.assert_allclose(10 * np.log10(found), snr[:3], atol=1e-3)
    np.testing.assert_allclose(np.sqrt(np.mean(y[3] ** 2)), 1e-3, rtol=1e-4)
    assert np.isfinite(mixed(jnp.zeros((1, 9, 1)), jnp.zeros((1, 9, 1)), jnp.zeros(1))).all()


def test_a_bank_is_summed_by_voices_from_places_that_are_drawn() -> None:
    """Rows of one number, and a row that counts."""
    bank = FromBank(np.array([[1.0] * 9, [10.0] * 9]), 3)
    levels = jax.jit(lambda keys: bank(keys, (20, 2)))(keys_of(400))
    values, counts = np.unique(np.asarray(levels), return_counts=True)
    np.testing.assert_array_equal(values, [3, 12, 21, 30])
    np.testing.assert_allclose(counts / counts.sum(), [0.125, 0.375, 0.375, 0.125], atol=0.07)
    one = FromBank(np.arange(9.0)[None], 1)
    counted = np.asarray(jax.jit(lambda keys: one(keys, (20, 1)))(keys_of(400)))[..., 0]
    np.testing.assert_array_equal((counted[:, :1] + np.arange(20)) % 9, counted)
    assert len(np.unique(counted[:, 0])) == 9


CONDITIONS: dict[str, Any] = {
    "clipped": Clipped(0.2, 0.5),
    "noisy": Noisy(-5.0, 10.0, (Coloured(), FromBank(np.sin(np.arange(300.0))[None], 2))),
    "low_band": LowBand(0.1, 0.2),
    "reverberant": Reverberant(10.0, 60.0, 3.0),
    "masked": Masked(2, 0.1, 0.3),
}


@first_quick(CONDITIONS)
def test_a_condition_is_of_its_own_recording_and_key_and_finite_for_silence(name: str) -> None:
    condition = jax.jit(lambda x, keys: CONDITIONS[name](x, keys)["image"])
    x = 0.1 * np.random.default_rng(0).standard_normal((5, 200, 1)).astype(np.float32)
    x[2] = 0
    found, keys = np.asarray(condition(x, keys_of(5))), keys_of(5)
    assert found.shape == (5, 200, 2 if name == "masked" else 1)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(condition(x[1:4], keys[1:4]), found[1:4], atol=1e-6)
    assert np.abs(condition(x[:1], keys[1:2]) - found[:1]).max() > 1e-4


@pytest.mark.slow
def test_conditions_are_damaged_as_they_were_told() -> None:
    x = 0.1 * np.random.default_rng(0).standard_normal((64, 400, 1)).astype(np.float32)
    made = {
        name: np.asarray(jax.jit(lambda x, k, own=own: own(x, k)["image"])(x, keys_of(64)))
        for name, own in CONDITIONS.items()
    }
    snr = 10 * np.log10(np.sum(x**2, (1, 2)) / np.sum((made["noisy"] - x) ** 2, (1, 2)))
    assert -5.01 < snr.min() < -3 < 8 < snr.max() < 10.01
    share = np.abs(made["clipped"]).max((1, 2)) / np.abs(x).max((1, 2))
    assert 0.2 <= share.min() < 0.25 < 0.45 < share.max() <= 0.5
    level = share[:, None, None] * np.abs(x).max((1, 2), keepdims=True)
    np.testing.assert_allclose(made["clipped"], np.clip(x, -level, level), atol=1e-6)
    known = made["masked"][..., 1]
    np.testing.assert_allclose(made["masked"][..., 0], known * x[..., 0])
    assert 0.4 <= known.mean(1).min() < known.mean(1).max() < 0.9
    impulse = np.zeros((3, 400, 1), np.float32)
    impulse[:, 150] = 1
    heard = np.asarray(CONDITIONS["reverberant"](impulse, keys_of(3))["image"])[..., 0]
    np.testing.assert_allclose(heard[:, :150], 0, atol=1e-5)
    np.testing.assert_allclose(heard[:, 150], 1, atol=1e-5)
    np.testing.assert_allclose(np.sum(heard[:, 151:] ** 2, 1), 10**-0.3, rtol=1e-3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Noisy(5.0, 0.0, ()), r"least=5\.0 must lie in \(-inf, most\] with most=0\.0"),
        (lambda: Clipped(0.0, 0.5), r"least=0\.0 must lie in \(0, most\]"),
        (lambda: LowBand(0.1, 0.6), r"most=0\.6 must lie in \(0, 0\.5\]"),
        (lambda: Reverberant(0.5, 10.0, 0.0), r"least=0\.5 must lie in \[1, most\]"),
        (lambda: FromBank(np.zeros((1, 1)), 0), r"voices=0 must lie in \[1, inf\)"),
    ],
)
def test_impossible_arguments_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()
