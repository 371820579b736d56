"""A run on recordings, from a folder of WAV files to samples that are listened to."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import load_dataset
from diffusion_jax.system.sounds import read_made_by
from tests.data.test_sound_files import tone, write
from tests.runs import as_made, tiny

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for i in range(16):
        kind, pitch = ("low", 250) if i % 2 else ("high", 1500)
        write(folder / kind / f"{i}.wav", tone(0.3, 4_000, pitch + i), 4_000)
    return folder


def settings(recordings: Path, **more: object) -> Any:
    own = {"data__name": "recordings", "data__dir": str(recordings), "data__length": 256}
    few = {"train__steps": 2, "train__batch_size": 8, "evaluate__metrics": "denoising"}
    dit = {"model__dit__patch_size": 32}
    return tiny(**{**own, **few, **dit, **more})


@pytest.fixture(scope="module")
def trained(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("sound") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_config.data, "load_dataset", load_dataset)
        patch.setenv("XDG_CACHE_HOME", str(workdir.parent / "cache"))
        assert run.run(settings(recordings), workdir, "all") == 0
    return workdir


@pytest.fixture(autouse=True)
def same_cache(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(trained.parent / "cache"))


def test_a_run_leaves_wavs_a_sheet_and_a_page_to_listen_to(trained: Path) -> None:
    samples = trained / "samples"
    paths = sorted((samples / "images").iterdir())
    assert [path.name for path in paths] == [f"{i:06d}.wav" for i in range(12)]
    for number, path in enumerate(paths):
        sound, rate = soundfile.read(path)
        assert (sound.shape, rate) == ((256,), 4_000)
        about = read_made_by(path)
        assert about is not None
        assert (about["index"], about["label"]) == (number, number % 2)
    assert Image.open(samples / "grid.png").size[0] > 1000
    page = (samples / "listen.html").read_text()
    assert page.count("<audio") == 12
    assert re.findall(r"<br>(\w+)</th>", page) == ["high", "low"] * 6
    report = (trained / "report.md").read_text()
    assert "[listen.html](samples/listen.html)" in report
    assert "training sounds of 0.064 s at 4,000 Hz" in report


def test_a_sound_can_be_made_again_from_what_its_wav_says(trained: Path, recordings: Path) -> None:
    """Alone: it does not depend on its batch."""
    path = trained / "samples/images/000007.wav"
    before, _ = soundfile.read(path, dtype="int16")
    says = read_made_by(path)
    assert says is not None
    assert says["config"] == from_config.config_hash(settings(recordings))
    assert run.run(settings(recordings, **as_made(says)), trained, "sample") == 0
    assert [p.name for p in (trained / "samples/images").iterdir()] == ["000007.wav"]
    after, _ = soundfile.read(path, dtype="int16")
    assert np.abs(after.astype(int) - before).max() <= 4  # of 32,768


def test_a_damaged_wav_is_drawn_again(
    trained: Path, recordings: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run.run(settings(recordings), trained, "sample") == 0
    path = trained / "samples/images/000003.wav"
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    assert run.run(settings(recordings), trained, "all") == 0
    assert "000003.wav is missing or damaged: drawn again" in capsys.readouterr().err
    assert path.read_bytes() == whole


def test_a_run_does_not_go_on_at_another_rate(
    trained: Path, recordings: Path, capsys: pytest.CaptureFixture
) -> None:
    other = settings(recordings, data__rate=2_000, train__steps=4)
    assert run.run(other, trained, "train") == 2
    error = capsys.readouterr().err
    assert "data.rate=2000 (there: 0)" in error
