"""Transforms of sound: MDCT and STFT as spaces of diffusion, and log-mel spectra.

`tests/reference/make_sound.py` made the spectra that these are compared with.
"""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, signal, stats

from diffusion_jax.codecs.mdct import MDCT, by_octave
from diffusion_jax.codecs.mel import Mel, griffin_lim, powers
from diffusion_jax.codecs.stft import FAINT, STFT
from diffusion_jax.data import Dataset, Kind, Split
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sources import ArraySource
from diffusion_jax.data.spectrograms import SILENCE
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.schedules import Flow
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.from_config.codecs import make_codec
from diffusion_jax.generation.conditions import Asked, Conditions
from diffusion_jax.generation.generator import Request
from diffusion_jax.metrics.sound_pitch import pitch
from diffusion_jax.metrics.spectra import istft, log_mel, mel_filters, stft
from diffusion_jax.restoration.image_conditions import Encoded
from diffusion_jax.restoration.linear import Composed, Decoded
from diffusion_jax.restoration.operators import Mask, Observation
from diffusion_jax.restoration.posterior_mean import mmps
from diffusion_jax.restoration.solvers import Solver
from diffusion_jax.run import planning
from diffusion_jax.types import Denoised
from tests.oracles import keys_of
from tests.runs import context_of, tiny

REFERENCE = Path(__file__).parents[1] / "reference" / "sound.npz"
LENGTHS = (1, 2, 7, 8, 15, 16, 64, 1001)
SMALL = {
    "sine": lambda *shape: MDCT(*shape, bins=16),
    "kbd": lambda *shape: MDCT(*shape, bins=8, window="kbd", multiple=4, scale=3.0),
    "stft": lambda *shape: STFT(*shape, size=30, hop=8, multiple=4),
    "stft_linear": lambda *shape: STFT(*shape, size=16, hop=8, power=1.0, scale=1.0, multiple=1),
}


def sounds(length, channels):
    """Noise at full scale and soft, silence, and impulses at the edges and in the middle."""
    rng = np.random.default_rng(length)
    x = np.zeros((6, length, channels), np.float32)
    x[0] = rng.choice([-1.0, 1.0], (length, channels))
    x[1] = 1e-4 * rng.normal(size=(length, channels))
    x[3, 0], x[4, length // 2], x[5, -1] = 1, -1, 1
    return x


def there_and_back(codec, x):
    """`x_0`, and `x` again."""

    def both(x):
        x_0 = codec.encode({}, x, None)
        return x_0, codec.decode({}, x_0)

    return jax.jit(both)(x)


@pytest.mark.parametrize(
    ("name", "length", "channels"),
    [
        ("kbd", 17, 2),
        ("stft", 17, 2),
        *(pytest.param(c, n, 1 + n % 2, marks=pytest.mark.slow) for c in SMALL for n in LENGTHS),
    ],
)
def test_sound_of_any_length_is_given_back(name, length, channels):
    codec, x = SMALL[name](length, channels), sounds(length, channels)
    x_0, found = there_and_back(codec, x)
    assert (x_0.shape[1:], x_0.dtype) == (codec.shape, jnp.float32)
    assert (found.shape, found.dtype) == (x.shape, jnp.float32)
    np.testing.assert_allclose(found, x, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [MDCT(5000, 1), MDCT(5000, 1, window="kbd"), STFT(5000, 1)])
def test_sound_is_given_back_by_the_sizes_of_the_config(codec):
    x = np.random.default_rng(0).uniform(-1, 1, (2, 5000, 1)).astype(np.float32)
    np.testing.assert_allclose(there_and_back(codec, x)[1], x, atol=1e-6)


def matrix_of(codec):
    """The matrix `[T, T]` of the MDCT of one channel."""
    eye = np.eye(codec.length)[:, :, None]
    return np.asarray(there_and_back(codec, eye)[0]).reshape(len(eye), -1)


@pytest.mark.parametrize("window", ["sine", "kbd"])
def test_the_mdct_is_orthonormal_its_edges_too(x64, window):
    matrix = matrix_of(MDCT(48, 1, bins=8, window=window))
    assert matrix.shape == (48, 48)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(48), atol=1e-14)
    padded = matrix_of(MDCT(43, 1, bins=8, window=window))
    np.testing.assert_allclose(padded @ padded.T, np.eye(43), atol=1e-14)  # norms are kept


def test_a_frame_of_the_mdct_away_from_the_edges(x64):
    """By the definition, `sqrt(2 / N) w_n cos(pi / N (n + 1/2 - N/2) (k + 1/2))`, n from 0 to 2N-1.

    Princen & Bradley 1986, Eq. 1, with blocks that are even at their left ends.
    """
    n, k, size = np.arange(16)[:, None] + 0.5, np.arange(8) + 0.5, 8
    cosines = np.cos(np.pi / size * (n - size / 2) * k)
    for window, values in (
        ("sine", np.sin(np.pi * n / 16)),
        ("kbd", np.asarray(signal.windows.kaiser_bessel_derived(16, 4 * np.pi))[:, None]),
    ):
        matrix = matrix_of(MDCT(48, 1, bins=size, window=window))
        expected = np.sqrt(2 / size) * values * cosines
        for frame in (1, 4):
            start = frame * size - size // 2
            found = matrix[:, frame * size : (frame + 1) * size].copy()
            np.testing.assert_allclose(found[start : start + 16], expected, atol=1e-12)
            found[start : start + 16] = 0
            np.testing.assert_allclose(found, 0, atol=1e-14)


def test_stationary_sound_is_as_likely_in_its_mdct(x64):
    """Its coefficients are normal with the covariance `M^T C M`, and `|det M| = scale^T`."""
    codec = MDCT(48, 1, bins=8, scale=2.0)
    lags = np.minimum(np.arange(48), 48 - np.arange(48))
    cov = 0.3 * np.exp(-0.2 * lags[np.subtract.outer(np.arange(48), np.arange(48))])
    matrix = matrix_of(codec)
    x = np.random.default_rng(0).multivariate_normal(np.zeros(48), cov, 5)
    x_0 = np.asarray(there_and_back(codec, x[:, :, None])[0]).reshape(5, -1)
    own = stats.multivariate_normal(np.zeros(48), matrix.T @ cov @ matrix).logpdf(x_0)
    waves = stats.multivariate_normal(np.zeros(48), cov).logpdf(x)
    np.testing.assert_allclose(own + 48 * np.log(2.0), waves, rtol=1e-9)


def test_octaves_of_the_mdct_are_divided_by_their_root_mean_square(x64):
    """White noise that is filtered: by octave as the definition says, and white with that `rms`."""
    codec, octaves = MDCT(4096, 2, bins=64), 4
    x_0 = np.random.default_rng(0).normal(size=(20, *codec.shape))
    bins = np.arange(64).repeat(2)  # of both channels
    steep = x_0 * np.array([1.0, 0.5, 0.25, 0.125])[(bins >= 8) * 1 + (bins >= 16) + (bins >= 32)]
    found = by_octave(steep, channels=2, octaves=octaves)
    np.testing.assert_allclose(found, [1, 0.5, 0.25, 0.125], rtol=0.02)
    flat = dataclasses.replace(codec, rms=(1.0, 0.5, 0.25, 0.125), scale=3.0)
    gains = np.asarray(flat.encode({}, codec.decode({}, jnp.ones((1, *codec.shape))), None))[0, 0]
    middles = np.round(64 * 2.0 ** -np.array([3.5, 2.5, 1.5, 0.5]) - 0.5).astype(int)  # of octaves
    np.testing.assert_allclose(gains[2 * middles], [3, 6, 12, 24], rtol=0.06)
    assert np.all(np.diff(gains[::2]) > -1e-9)
    np.testing.assert_array_equal(gains[::2], gains[1::2])
    x = sounds(4096, 2).astype(float)
    np.testing.assert_allclose(there_and_back(flat, x)[1], x, atol=1e-12)


def test_the_determinant_of_the_mdct_is_known(x64):
    for codec in (
        MDCT(48, 1, bins=8, scale=2.0),
        MDCT(48, 1, bins=8, rms=(0.3, 0.1), scale=1.5),
    ):
        _, log_det = np.linalg.slogdet(matrix_of(codec))
        np.testing.assert_allclose(48 * codec.log_scale, log_det, rtol=1e-12)


@pytest.mark.slow
def test_what_is_seen_of_sound_tells_the_posterior_of_its_coefficients(x64):
    """By MMPS of `A` composed with decoding, for normal coefficients: by solving the equations."""
    codec = MDCT(32, 1, bins=8, rms=(0.5, 0.2))
    schedule, t, sigma = Flow(), jnp.array([0.4]), 0.05
    alpha, noise = (float(c[0]) for c in schedule.scales(t))
    matrix = np.linalg.inv(matrix_of(codec)).T  # of decoding: x = matrix x_0
    rng = np.random.default_rng(0)
    x_t, x_0 = rng.normal(size=(2, 32))
    known = np.arange(32) < 20
    seen = matrix[known]
    y = matrix @ x_0 * known
    precision = (1 + alpha**2 / noise**2) * np.eye(32) + seen.T @ seen / sigma**2
    expected = np.linalg.solve(precision, alpha / noise**2 * x_t + seen.T @ y[known] / sigma**2)
    shape = (1, *codec.shape)

    def denoise(x_t, t, cond):
        return Denoised(alpha / (alpha**2 + noise**2) * x_t)

    mask = Mask(jnp.asarray(known, float)[None, :, None])
    operator = Composed(mask, Decoded(codec))
    observation = Observation(jnp.asarray(y)[None, :, None], operator, jnp.array([sigma]))
    given = mmps(denoise, observation, schedule, solver=Solver("gmres", 40, 1e-12))
    found = jax.jit(lambda x: given(x, t, {}).x_0)(jnp.asarray(x_t).reshape(shape))
    np.testing.assert_allclose(np.asarray(found).reshape(-1), expected, rtol=1e-6, atol=1e-9)


def test_the_stft_is_that_of_scipy(x64):
    codec, x = (
        STFT(1000, 2, power=1.0, scale=1.0),
        np.random.default_rng(0).normal(size=(1, 1000, 2)),
    )
    _, _, expected = signal.stft(
        *(x[0], 1.0, "hann", 510, 510 - 128),
        **{"boundary": "even", "padded": False, "axis": 0, "scaling": "spectrum"},
    )
    expected = 255 * np.moveaxis(expected, -1, 0)  # scaled by the sum of the window
    found = np.asarray(there_and_back(codec, x)[0])[0]
    assert found.shape == (64, 256, 4)
    np.testing.assert_allclose(found[:8, :, :2] + 1j * found[:8, :, 2:], expected, atol=1e-9)
    np.testing.assert_array_equal(found[8:], 0)


def test_absolute_values_are_compressed_and_phases_kept(x64):
    x = 0.1 * np.random.default_rng(0).normal(size=(1, 600, 1))
    plain, own = (
        np.asarray(there_and_back(STFT(600, 1, power=power, scale=scale), x)[0])[0, :5]
        for power, scale in ((1.0, 1.0), (0.5, 0.15))
    )
    plain, own = (parts[..., 0] + 1j * parts[..., 1] for parts in (plain, own))
    np.testing.assert_allclose(own, 0.15 * np.abs(plain) ** 0.5 * np.exp(1j * np.angle(plain)))


def test_derivatives_at_silence_are_finite():
    """Those of an absolute value, and of its root, are not."""
    mel = Mel(64, 1, 16000, size=16, hop=8, bands=4)
    silent = mel.encode({}, jnp.zeros((1, 64, 1)), None)
    for x_0 in (silent, silent + 1):
        found = jax.jit(jax.grad(lambda x_0: jnp.sum((mel.decode({}, x_0) - 0.1) ** 2)))(x_0)
        assert np.isfinite(found).all()
    codec = STFT(64, 1, size=16, hop=8, multiple=1)
    silence, x_0 = jnp.zeros((1, 64, 1)), jnp.zeros((1, *codec.shape))
    target = 0.1

    def encoded(x):
        return jnp.sum((codec.encode({}, x, None) - target) ** 2)

    def decoded(x_0):
        return jnp.sum((codec.decode({}, x_0) - 0.1) ** 2)

    there, back = jax.jit(lambda x, x_0: (jax.grad(encoded)(x), jax.grad(decoded)(x_0)))(
        silence, x_0
    )
    assert np.isfinite(back).all()
    assert 0 < np.abs(there).max() <= 2 * 0.1 * 0.15 * FAINT**-0.5 * 30 * 16 * 2


def test_log_mel_spectra_are_those_of_transformers(x64):
    found = np.load(REFERENCE)
    own = jax.jit(lambda x: log_mel(x, 16000, 40, 512, 160, 60.0, 7600.0)[..., 0])(
        found["sound"][:, None]
    )
    np.testing.assert_allclose(own, found["log_mel"], atol=1e-5)
    shaped = jax.eval_shape(lambda x: log_mel(x, 16000), jnp.zeros((3, 500, 2), jnp.float32))
    assert (shaped.shape, shaped.dtype) == ((3, 4, 64, 2), jnp.float32)


def test_mel_filters_are_triangles_of_an_area_of_one_hertz():
    filters = mel_filters(16000, 65536, 20, 0.0, 8000.0)
    np.testing.assert_allclose(filters.sum(0) * 16000 / 65536, 1, rtol=1e-3)


def test_phases_are_those_that_librosa_finds(x64):
    found = np.load(REFERENCE)
    magnitude = jnp.abs(stft(jnp.asarray(found["sound"][800:, None]), 128, 32))
    phases = griffin_lim(magnitude, 128, 32, 800, 10)
    own = istft(magnitude * phases, 128, 32, 800)[:, 0]
    np.testing.assert_allclose(own, found["griffin_lim"], atol=1e-9)


def test_powers_of_a_mel_spectrum_are_those_of_nonnegative_least_squares(x64):
    filters = mel_filters(16000, 512, 64, 0.0, 8000.0)
    mel = np.random.default_rng(0).normal(size=64)[:, None] ** 2
    found = np.asarray(powers(jnp.asarray(mel), filters, 3000))
    _, residual = optimize.nnls(filters.T, mel[:, 0])
    assert found.min() >= 0 < residual
    np.testing.assert_allclose(np.linalg.norm(filters.T @ found - mel), residual, rtol=1e-3)


def test_mel_spectra_are_given_back_by_the_sound_that_they_are_decoded_to():
    """Of a voice: harmonics of a pitch that moves, in two channels, and silence."""
    time = np.arange(8000) / 16000
    angle = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 2 * time)) / 16000
    voice = sum(np.sin(k * angle) / k for k in range(1, 20)) * np.hanning(8000)
    x = np.zeros((2, 8000, 2), np.float32)
    x[0] = np.stack([0.1 * voice, -0.05 * voice], -1)
    codec = Mel(8000, 2, 16000, multiple=5)
    x_0, found = there_and_back(codec, x)
    assert (x_0.shape[1:], found.shape) == ((35, 256), x.shape)
    again, _ = there_and_back(codec, found)
    bels = np.asarray(x_0 / codec.scale + codec.mean).reshape(2, 35, 128, 2)
    off = np.abs(np.asarray(again - x_0)[0]).mean() / codec.scale
    assert off < 0.1
    np.testing.assert_allclose(bels[1], SILENCE, atol=1e-5)
    np.testing.assert_allclose(bels[:, -1], SILENCE, atol=1e-5)  # beyond the sound
    assert np.abs(found[1]).max() < 1e-6
    pitches = np.array([pitch(each[0, :, 0], 16000) for each in (x, np.asarray(found))])
    voiced = np.isfinite(pitches).mean(1)
    assert voiced[1] > 0.8 * voiced[0]
    assert np.nanmedian(np.abs(pitches[1] / pitches[0] - 1)) < 0.01


def made(name, kind, **changes):
    return make_codec(tiny(codec__name=name, sample__clip=0.0, **changes), kind)


def test_the_config_makes_codecs_of_sound():
    codec, frozen = made("mdct", Kind((4000, 1)), codec__mdct__bins=64, codec__mdct__multiple=4)
    assert (codec, frozen) == (MDCT(4000, 1, bins=64, multiple=4), {})
    assert made("stft", Kind((4000, 2)))[0] == STFT(4000, 2)
    sound = Sound((4000, 1), 8000)
    assert made("mel", sound, codec__mel__bands=32)[0] == Mel(4000, 1, 8000, bands=32)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("mdct", "dit"),
        *(
            pytest.param(*names, marks=pytest.mark.slow)
            for names in (("mdct", "unet"), ("identity", "dit"), ("stft", "unet"), ("mel", "unet"))
        ),
    ],
)
def test_networks_are_trained_and_sampled_in_these_spaces(name, model):
    """As traced: sequences of one axis for both networks, and pictures."""
    x = sounds(64, 1)
    split = Split(ArraySource(x, np.zeros(6, np.int32)))
    dataset = Dataset("s", Sound((64, 1), 16000), {"train": split, "heldout": split}, ())
    config = tiny(
        **{"evaluate__metrics": "denoising"},
        **{"codec__name": name, "codec__mdct__bins": 8, "sample__clip": 0.0, "model__name": model},
        **{"codec__stft__size": 14, "codec__stft__hop": 4, "codec__stft__multiple": 8},
        **{"codec__mel__size": 16, "codec__mel__hop": 8, "codec__mel__multiple": 16},
        **{"model__dit__patch_size": 2, "model__unet__channels": 8, "model__unet__norm_groups": 2},
    )
    task = build(config, dataset).task
    batch = {"x": x, "cond": {}, "index": jnp.arange(6)}
    request = Request(jnp.arange(3), {})

    def program(key):
        params = task.init(key)
        return task.loss(params, batch, context_of(key)), task.generator.draw(params, key, request)

    (loss, _), (found, _) = jax.eval_shape(program, jax.random.key(0))
    assert (loss.shape, found.shape) == ((6,), (3, 64, 1))


@pytest.mark.parametrize(
    ("name", "shape", "changes", "message"),
    [
        ("mdct", (8, 8, 1), {}, "codec.name='mdct' is of sound, and these data are items of 8x8x1"),
        ("mdct", (64, 1), {"codec__mdct__bins": 7}, "codec.mdct.bins=7 must be even"),
        ("mdct", (64, 1), {"codec__mdct__rms": (0.1, 0.0)}, "codec.mdct.rms=(0.1, 0.0) must be"),
        ("mdct", (64, 1), {"codec__mdct__window": "hann"}, "codec.mdct.window='hann' must be"),
        ("stft", (64, 1), {"codec__stft__size": 511}, "codec.stft.size=511 must be even"),
        ("stft", (64, 1), {"codec__stft__hop": 300}, "codec.stft.hop=300 must be at most half of"),
        ("mel", (8, 8, 1), {}, "codec.name='mel' is of sound, and these data are items of 8x8x1"),
        (
            "stft",
            (64, 1),
            {"sample__clip": 1.0},
            "sample.clip=1.0 does not go with codec.name='stft'",
        ),
    ],
)
def test_wrong_settings_are_refused_by_name(name, shape, changes, message):
    config = tiny(codec__name=name, **changes)
    with pytest.raises(ConfigError) as error:
        make_codec(config, Kind(shape))
    assert str(error.value).startswith(message)


def test_a_recording_that_is_given_is_encoded_like_the_data():
    codec, x = MDCT(64, 1, bins=8), sounds(64, 1)

    def condition(x, keys):
        return {"image": 0.5 * x, "level": jnp.ones((len(x), 3))}

    found = jax.jit(Encoded(condition, codec))(x, keys_of(6))
    np.testing.assert_allclose(found["image"], 0.5 * there_and_back(codec, x)[0], atol=1e-6)
    np.testing.assert_array_equal(found["level"], 1)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_channel_of_what_is_known_is_encoded_behind_the_signal(channels):
    codec, x = MDCT(64, channels, bins=8), sounds(64, channels)
    known = (jnp.arange(64) % 40 > 9)[None, :, None] * jnp.ones((len(x), 1, 1))

    def condition(x, keys):
        return {"image": jnp.concatenate([known * x, known], -1)}

    found = jax.jit(Encoded(condition, codec))(x, keys_of(6))["image"]
    signals, mask = jnp.split(found, 2, -1)
    for part, expected in ((signals, known * x), (mask, jnp.repeat(known, channels, -1))):
        np.testing.assert_allclose(codec.decode({}, part), expected, atol=1e-5)


def of_a_run(codec, residual):
    """The parts of a run on six sounds, whose conditions are half of them."""
    split = Split(ArraySource(sounds(64, 1), np.zeros(6, np.int32)))
    process = Gaussian(Flow(), PREDICTIONS["v"], residual=residual)
    half = Encoded(lambda x, keys: {"image": 0.5 * x}, codec)
    return SimpleNamespace(
        dataset=Dataset("s", Kind((64, 1)), {"train": split}, ()),
        generator=SimpleNamespace(codec=codec, process=process),
        task=SimpleNamespace(condition=half, quantile=True),
    )


def test_the_space_and_the_error_of_its_round_trip_are_printed(capsys):
    planning.print_space(of_a_run(MDCT(64, 1, bins=8), False))
    line = capsys.readouterr().out
    assert line.startswith("diffused as 8 frames of an MDCT of 8 bins, sine window: decoded again")
    assert float(line.split(" by ")[1].split(" ")[0]) < 1e-6


def test_the_plan_is_of_what_the_prior_lacks_about_the_origin(monkeypatch):
    found = []
    monkeypatch.setattr(
        planning,
        "make_plan",
        lambda config, parts, moment: found.append(moment) or SimpleNamespace(warnings=[]),
    )
    for residual in (False, True):
        parts = of_a_run(MDCT(64, 1, bins=8, scale=2.0), residual)
        planning.print_plan(None, parts, only_warnings=True)
    np.testing.assert_allclose(found, np.mean(sounds(64, 1) ** 2) * np.array([4, 1]), rtol=1e-5)


def test_a_recording_that_was_given_is_decoded_to_be_shown():
    parts = of_a_run(MDCT(64, 1, bins=8), True)
    dataset, x = parts.dataset, sounds(64, 1)
    split = dataset.splits["train"]
    dataset = dataclasses.replace(dataset, splits=dict.fromkeys(("train", "heldout"), split))
    conditions = Conditions(
        *(dataset, None, parts.task.condition, None, Asked(), 4, parts.generator.codec)
    )
    index = np.arange(3)
    given = conditions.cond(index)["image"]
    assert given.shape == (3, 8, 8)
    shown = conditions.around(index, given, np.ones((3, 64, 1), np.float32))
    np.testing.assert_allclose(shown[::3], 0.5 * x[:3], atol=1e-6)
    np.testing.assert_array_equal(shown[1::3], 1)
    np.testing.assert_array_equal(shown[2::3], x[:3])
