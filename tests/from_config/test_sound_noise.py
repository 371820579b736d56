"""Noise of a folder of recordings, as configured."""

from pathlib import Path

import jax
import numpy as np
import pytest

from configs import default
from diffusion_jax.data import load_dataset
from diffusion_jax.from_config.choices import ConfigError
from diffusion_jax.from_config.sound_damage import condition_of_sounds
from diffusion_jax.system.keys import make_key
from tests.data.test_sound_files import tone, write

RATE, LENGTH = 8_000, 1024
BIN = 131
FREQUENCY = BIN * RATE / LENGTH


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Noise of two tones, of which one recording has another rate and is shorter than a window."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write(tmp_path / "noise/long.wav", tone(2 * LENGTH / RATE, RATE, FREQUENCY), RATE)
    write(tmp_path / "noise/short.wav", tone(512 / RATE, 2 * RATE, FREQUENCY), 2 * RATE)
    own = default.get_config().image_condition.noisy
    own.noises, own.dir, own.least, own.most = ("recordings",), str(tmp_path / "noise"), 6.0, 6.0
    return own


@pytest.fixture
def dataset(tmp_path: Path):
    for i in range(4):
        write(tmp_path / f"speech/{i}.wav", tone(LENGTH / RATE, RATE, 200 + i), RATE)
    own = {"data_dir": str(tmp_path / "speech"), "length": LENGTH}
    return load_dataset("recordings", **own)


def test_noise_is_of_the_recordings_of_a_folder(settings, dataset):
    """At the rate of the data, with silence after what is short, at the level that is asked for."""
    condition = condition_of_sounds("noisy", settings, dataset)
    x = dataset.kind.decode(dataset.splits["train"].source.gather(np.zeros(16, int))[0])
    noise = np.asarray(condition(x, jax.random.split(make_key(0), 16))["image"] - x)[..., 0]
    spectrum = np.abs(np.fft.rfft(noise, axis=1)).sum(0)
    assert spectrum.argmax() == BIN
    np.testing.assert_allclose(10 * np.log10(np.mean(x**2) / np.mean(noise**2, 1)), 6, atol=0.01)
    silent = (np.abs(noise) < 1e-4).mean(1)
    assert {*np.round(silent, 1).tolist()} == {0, 0.5}  # half of the window of the short one
    again = condition(x[:3], jax.random.split(make_key(0), 16)[:3])["image"] - x[:3]
    np.testing.assert_allclose(again[..., 0], noise[:3], atol=1e-6)


def test_it_needs_a_folder(settings, dataset):
    settings.dir = ""
    with pytest.raises(ConfigError, match=r"^image_condition\.noisy\.noises has 'recordings', and"):
        condition_of_sounds("noisy", settings, dataset)
