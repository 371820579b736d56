"""Recordings restored and varied, from WAV files to WAV files, in the space of a codec."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from diffusion_jax import from_config, run
from diffusion_jax.data import load_dataset
from diffusion_jax.system.sounds import read_made_by
from tests.data.test_sound_files import tone, write
from tests.runs import tiny

pytestmark = pytest.mark.slow
RATE = 4_000
MDCT = {"codec__name": "mdct", "codec__mdct__bins": 32, "codec__mdct__rms": (0.5, 0.2, 0.1)}
STFT = {"codec__name": "stft", "codec__stft__size": 30, "codec__stft__hop": 8}
STFT |= {"codec__stft__multiple": 4, "sample__clip": 0.0}
MEL = {"codec__name": "mel", "codec__mel__size": 64, "codec__mel__hop": 16, "sample__clip": 0.0}
MEL |= {"codec__mel__bands": 16, "codec__mel__iterations": 2}
BRIDGE = {
    "image_condition__name": "noisy",
    "image_condition__residual": True,
    "schedule__name": "ouve",
    "restore__method": "as_trained",
    "restore__operator": "identity",
}


@pytest.fixture(autouse=True)
def real_data(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recordings")
    for i in range(16):
        write(folder / f"{i}.wav", tone(0.3, RATE, 250 + 20 * i), RATE)
    return folder


def settings(recordings: Path, **more: object) -> Any:
    own = {"data__name": "recordings", "data__dir": str(recordings), "data__length": 256}
    few = {"train__steps": 2, "train__batch_size": 8, "train__checkpoint_every": 2}
    few |= {"evaluate__metrics": "denoising"}
    few |= {"model__dit__patch_size": 1, "restore__num_samples": 3, "sample__steps": 3}
    return tiny(**{**own, **few, **MDCT, **more})


@pytest.fixture(scope="module")
def trained(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without conditions."""
    workdir = tmp_path_factory.mktemp("sound") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(from_config.data, "load_dataset", load_dataset)
        assert run.run(settings(recordings), workdir, "train") == 0
    return workdir


def sound(path: Path) -> np.ndarray:
    found, rate = soundfile.read(path, dtype="int16", always_2d=True)
    assert rate == RATE
    return np.asarray(found)


@pytest.mark.parametrize("codec", [MDCT, {**STFT, "model__dit__patch_size": 2}])
def test_a_long_recording_is_restored_as_the_network_was_trained(
    codec: dict[str, Any], recordings: Path, tmp_path: Path
) -> None:
    """By a bridge, in overlapping windows; with a page to listen to and passports."""
    own = {**BRIDGE, **codec}
    workdir, old = tmp_path / "run", write(tmp_path / "old.wav", tone(0.2, RATE), RATE)
    assert run.run(settings(recordings, **own), workdir, "train") == 0
    asked = settings(recordings, **own, restore__image=str(old))
    assert run.run(asked, workdir, "restore") == 0
    out = workdir / "samples" / "restored" / "old.wav"
    names = ["000000.wav", "000001.wav", "000002.wav", "given.wav", "listen.html", "mean.wav"]
    assert sorted(path.name for path in out.iterdir()) == [*names, "sheet.png"]
    assert sound(out / "mean.wav").shape == sound(old).shape == (800, 1)
    np.testing.assert_array_equal(sound(out / "given.wav"), sound(old))
    assert np.any(sound(out / "000000.wav") != sound(out / "000001.wav"))
    about = read_made_by(out / "000001.wav")
    assert about
    assert (about["index"], about["restore"]["method"]) == (1, "as_trained")
    page = (out / "listen.html").read_text()
    words = re.findall(r"<th>([a-z]+[ \d]*)</th>", page.split("<tbody>")[0])
    assert words == ["given", *(f"restored {i}" for i in range(3))]
    first = sound(out / "000000.wav")
    fewer = settings(recordings, **own, restore__image=str(old), restore__num_samples=2)
    assert run.run(fewer, workdir, "restore") == 0
    assert np.abs(sound(out / "000000.wav").astype(int) - first).max() <= 8


@pytest.mark.parametrize(
    ("operator", "method"),
    [("gap", "mmps"), ("clipping", "dps"), ("band", "pigdm"), ("decimate", "diffpir")],
)
def test_simulated_damage_is_restored_and_compared(
    operator: str,
    method: str,
    trained: Path,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Through the codec; longer than the network's window, and shorter."""
    for length in (0.1, 0.05):
        old = write(tmp_path / f"{length}.wav", tone(length, RATE), RATE)
        asked = settings(recordings, restore__image=str(old), restore__simulate=True)
        asked.restore.update(operator=operator, method=method)
        asked.restore.mmps.iterations = asked.restore.pigdm.iterations = 1
        assert run.run(asked, trained, "restore") == 0
        out = trained / "samples" / "restored" / old.name
        np.testing.assert_array_equal(sound(out / "original.wav"), sound(old))
        assert sound(out / "given.wav").shape == sound(old).shape
        assert "against the truth: mean" in capsys.readouterr().out
        if operator == "gap":  # what is known stays as it is
            known = sound(out / "given.wav") != 0
            assert 0.8 < known.mean() < 1
            np.testing.assert_array_equal(sound(out / "mean.wav")[known], sound(old)[known])


def test_methods_that_need_singular_values_work_in_coefficients(
    trained: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise is taken off those of any gain; a gap is filled where all have one gain."""
    old = write(tmp_path / "old.wav", tone(0.0825, RATE), RATE)
    own = {"restore__image": str(old), "restore__simulate": True, "restore__sigma": 0.05}
    own |= {"restore__operator": "identity", "restore__method": "ddrm"}
    assert run.run(settings(recordings, **own), trained, "restore") == 0
    assert "against the truth: mean" in capsys.readouterr().out
    own |= {"restore__operator": "gap", "restore__method": "repaint", "restore__sigma": 0.0}
    own |= {"codec__mdct__rms": ()}
    for mode in ("train", "restore"):
        assert run.run(settings(recordings, **own), tmp_path / "run", mode) == 0
    out = tmp_path / "run" / "samples" / "restored" / "old.wav"
    known = sound(out / "given.wav") != 0
    np.testing.assert_array_equal(sound(out / "000000.wav")[known], sound(old)[known])


@pytest.mark.parametrize("space", [MDCT, MEL])
def test_gaps_are_filled_as_the_network_was_trained(
    space: dict[str, Any], recordings: Path, tmp_path: Path
) -> None:
    own = {"image_condition__name": "masked", "restore__method": "as_trained"}
    own |= {"restore__operator": "gap", **space}
    workdir, old = tmp_path / "run", write(tmp_path / "old.wav", tone(0.1, RATE), RATE)
    assert run.run(settings(recordings, **own), workdir, "train") == 0
    assert run.run(settings(recordings, **own, restore__image=str(old)), workdir, "restore") == 0
    known = sound(workdir / "samples/restored/old.wav/given.wav") != 0
    restored = sound(workdir / "samples/restored/old.wav/000000.wav")
    np.testing.assert_array_equal(restored[known], sound(old)[known])


def test_a_recording_is_continued(trained: Path, recordings: Path, tmp_path: Path) -> None:
    """The samples begin with it, to the bit, and are longer by the share that is asked for."""
    old = write(tmp_path / "old.wav", tone(0.075, RATE), RATE)
    asked = settings(recordings, restore__image=str(old), restore__operator="beginning")
    asked.restore.update(method="mmps", beginning={"share": 0.6})
    asked.restore.mmps.iterations = 1
    assert run.run(asked, trained, "restore") == 0
    out = trained / "samples" / "restored" / "old.wav"
    both = np.stack([sound(out / f"00000{i}.wav") for i in range(2)])
    assert both.shape == (2, 500, 1)
    np.testing.assert_array_equal(both[:, :300], np.stack([sound(old)] * 2))
    assert np.any(both[0, 300:] != both[1, 300:])
    assert not sound(out / "given.wav")[300:].any()


@pytest.mark.parametrize("by", ["noise", "inversion"])
def test_variants_of_a_recording_are_drawn(
    by: str, trained: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_jax.generation.variations.INVERSION_STEPS", 4)
    old = write(tmp_path / "old.wav", tone(0.2, RATE), RATE)
    few = {"sample__num_images": 2, "sample__vary__by": by, "sample__vary__image": str(old)}
    assert run.run(settings(recordings, **few), trained, "sample") == 0
    out = trained / "samples" / "variants"
    assert sound(out / "000001.wav").shape == (256, 1)
    assert (out / "listen.html").read_text().count("<audio") == 3


def test_spectra_without_phases_are_not_compared_with_a_recording(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = str(write(tmp_path / "old.wav", tone(0.1, RATE), RATE))
    own = {**MEL, "restore__operator": "gap", "restore__method": "mmps"}
    assert run.run(settings(recordings, **own, restore__image=old), tmp_path, "restore") == 2
    assert "'mmps' compares waveforms, and codec.name='mel' leaves" in capsys.readouterr().err


@pytest.mark.parametrize("by", ["noise", "inversion"])
def test_a_way_leads_from_one_recording_to_another(
    by: str, trained: Path, recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffusion_jax.generation.variations.INVERSION_STEPS", 40)
    ends = [write(tmp_path / f"{i}.wav", tone(0.2, RATE, 300 + 500 * i), RATE) for i in range(2)]
    few = {"sample__frames": 3, "sample__vary__by": by, "sample__vary__strength": 0.4}
    few |= {"sample__vary__image": str(ends[0]), "sample__vary__towards": str(ends[1])}
    assert run.run(settings(recordings, **few), trained, "sample") == 0
    out = trained / "samples" / "variants"
    page = (out / "listen.html").read_text()
    assert page.count("<audio") == 5
    assert re.findall(r"(\d+)% of the way", page) == ["0", "50", "100"]
    found = np.stack([sound(out / f"00000{i}.wav") for i in range(3)]).astype(float)
    if by == "inversion":  # whose ends are the recordings, but for the error of the solver
        for i, path in ((0, ends[0]), (2, ends[1])):
            assert np.abs(found[i] - sound(path)[:256]).mean() < 0.1 * np.abs(found[i]).mean()
    assert len({each.tobytes() for each in found}) == 3


def test_a_way_needs_both_ends(
    trained: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = settings(recordings, sample__vary__towards=str(recordings / "0.wav"))
    assert run.run(one, trained, "sample") == 2
    assert "needs the other one, sample.vary.image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("made", "more", "says"),
    [
        ((tone(0.2, 8_000), 8_000), {}, "it is at 8,000 Hz: resample it to 4,000 Hz"),
        ((np.zeros((900, 2)), RATE), {}, "it is in stereo, and must be in mono"),
        ((), {}, "restore.image: .*old.wav cannot be read: it is no sound"),
        ((tone(0.2, RATE), RATE), {"operator": "blur"}, "'blur' is for pictures, and these data"),
        (
            (tone(0.2, RATE), RATE),
            {"operator": "clipping", "blind__rounds": 2},
            "restore.blind.rounds=2 is for pictures",
        ),
        (
            (tone(0.2, RATE), RATE),
            {"operator": "beginning+band"},
            "restore.operator='beginning.band' needs 'beginning' to be the last",
        ),
        (
            (tone(0.2, RATE), RATE),
            {"operator": "gap", "method": "ddrm"},
            "needs an operator with a spectrum, and Composed has none; through a codec that is",
        ),
        (
            (tone(0.2, RATE), RATE),
            {"method": "as_trained"},
            "needs a network of image_condition.name='masked' with the operator 'mask' or 'gap'",
        ),
        (
            (tone(0.2, RATE), RATE),
            {"operator": "decimate"},
            "it is at 4,000 Hz: resample it to 2,000 Hz",
        ),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    made: tuple[Any, ...],
    more: dict[str, Any],
    says: str,
    trained: Path,
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old = tmp_path / "old.wav"
    write(old, *made) if made else old.write_text("no sound")
    own = {f"restore__{key}": value for key, value in {"operator": "identity", **more}.items()}
    assert run.run(settings(recordings, restore__image=str(old), **own), trained, "restore") == 2
    said = capsys.readouterr().err
    assert re.search(f"^error: .*{says}.*\n$", said, re.MULTILINE), said
    assert said.count("error") == 1


def test_a_recording_is_not_painted(
    trained: Path, recordings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = settings(recordings, sample__inpaint__image=str(recordings / "0.wav"))
    assert run.run(asked, trained, "sample") == 2
    said = capsys.readouterr().err
    assert re.search(r"sounds of .*: --mode restore .*'gap'.* continues one \('beginning'\)", said)
