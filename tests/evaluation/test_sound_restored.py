"""Restored recordings measured beside what was given."""

import dataclasses
import re
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import ArraySource, Captions, Dataset, Split
from diffusion_jax.evaluation import sound_measures, sound_words
from diffusion_jax.evaluation.sound_measures import MEASURES, pesq_scores
from diffusion_jax.evaluation.sound_restored import Restored, as_conditioned, names_of
from diffusion_jax.evaluation.sound_words import WordsHeard
from diffusion_jax.from_config import ConfigError, build
from tests.evaluation.models import model_of
from tests.runs import random_dataset, tiny
from tests.sounds import recordings

LEVELS = np.array([-5.0, 5.0, 20.0])  # dB, in turn


def restoring(dataset: Dataset, folder: Path, left: float = 0.5, spread: float = 0.0) -> Any:
    """A model that is given noise of known levels and leaves a share of it; samples spread."""
    whole = dataset.kind.decode(dataset.arrays("heldout")[0])
    noise = np.random.default_rng(1).standard_normal(whole.shape)
    power = np.sum(whole**2, (1, 2), keepdims=True) / np.sum(noise**2, (1, 2), keepdims=True)
    at = LEVELS[np.arange(len(whole)) % 3][:, None, None]
    noise *= np.sqrt(power) * 10 ** (-at / 20)

    def cond_of(split: str, rows: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": whole[rows] + noise[rows], "clean": whole[rows]}

    def draw(index: np.ndarray, cond: dict[str, np.ndarray]) -> np.ndarray:
        own = np.random.default_rng(index[0]).standard_normal(cond["image"].shape)
        clean = cond["clean"]
        return dataset.kind.encode(clean + left * (cond["image"] - clean) + spread * own)

    generator: Any = types.SimpleNamespace(codec=Identity(dataset.kind.shape, None, 0))
    model = model_of(dataset, generator, folder=folder)
    return dataclasses.replace(model, cond_of=cond_of, draw=draw)


def measure(*names: str, samples: int = 1, recognise: Any = None) -> Restored:
    return Restored(as_conditioned, names, 12, samples, (0.0, 10.0), recognise, 50)


def test_halved_noise_is_a_gain_of_six_decibels_in_every_band(tmp_path: Path) -> None:
    result = measure("snr")(restoring(recordings(512), tmp_path))
    np.testing.assert_allclose(result["given_snr"]["value"], LEVELS.mean(), atol=0.01)
    for band in ("", "_below_0db", "_0_to_10db", "_from_10db"):
        found = result[f"gain_snr{band}"]
        np.testing.assert_allclose(found["value"], 6.0206, atol=0.02)
        assert found["n"] == (12 if not band else 4)
        assert found["low"] <= found["value"] <= found["high"]
    # Paired: the gain is certain where the figures are not.
    assert result["gain_snr"]["high"] - result["gain_snr"]["low"] < 0.05
    assert result["restored_snr"]["high"] - result["restored_snr"]["low"] > 5
    assert (tmp_path / "restored.png").exists()


def test_silent_recordings_are_counted_and_left_out(tmp_path: Path) -> None:
    dataset = recordings(512)
    items = dataset.arrays("heldout")[0].copy()
    items[3] = 0
    split = Split(ArraySource(items, np.zeros(12, np.int32)))
    dataset = dataclasses.replace(dataset, splits={**dataset.splits, "heldout": split})
    result = measure("si_sdr_uncentred")(restoring(dataset, tmp_path))
    found = result["gain_si_sdr_uncentred"]
    assert found["n"] == 11
    assert found["passport"]["undefined"] == 1
    assert np.isfinite(found["value"])


def test_samples_are_averaged_and_held_to_the_line(tmp_path: Path) -> None:
    """With no noise left and samples that spread: MSE_k = spread^2 / k."""
    dataset = recordings(512)
    result = measure("snr", samples=4)(restoring(dataset, tmp_path, 0.0, 0.01))
    np.testing.assert_allclose(result["mse_1"]["value"], 1e-4, rtol=0.1)
    np.testing.assert_allclose(result["mse_4"]["value"], 2.5e-5, rtol=0.1)
    assert abs(result["mse_limit"]["value"]) < 1e-5
    assert result["restored_snr"]["passport"]["samples"] == 4


def test_word_errors_are_those_of_the_corpus_and_their_gain_is_paired(tmp_path: Path) -> None:
    """A recogniser that hears both words below a level of noise, and one above it."""
    dataset = recordings(512, texts=True)
    clean = dataset.kind.decode(dataset.arrays("heldout")[0])

    def recognise(x: np.ndarray, rate: int) -> str:
        assert rate == 16_000
        off = np.sqrt(np.mean((clean[..., 0] - x) ** 2, 1))
        row = int(off.argmin())
        loud = off[row] > 0.2 * np.sqrt(np.mean(clean[row] ** 2))
        return "text" if loud else f"text {chr(97 + row)}"

    measures = measure("word_error", recognise=recognise)
    found = measures(restoring(dataset, tmp_path, left=0.25))
    assert found["original_word_error"]["value"] == 0
    np.testing.assert_allclose(found["given_word_error"]["value"], 8 / 24)
    np.testing.assert_allclose(found["restored_word_error"]["value"], 4 / 24)
    np.testing.assert_allclose(found["gain_word_error"]["value"], -4 / 24)
    assert found["gain_word_error"]["high"] < 0
    assert found["given_word_error"]["passport"]["words"] == 24


def test_word_errors_of_samples_are_those_of_transcripts_that_one_window_has() -> None:
    """Of class "b" alone, and of what is said whole; a sample is quieter than its recording."""
    dataset = recordings(512, texts=True)
    split, names = dataset.splits["heldout"], ("a", "b")
    items, _ = dataset.arrays("heldout")
    labels = (np.arange(len(items)) % 2).astype(np.int32)
    texts = split.names(np.arange(len(items)))
    texts[3] = texts[1]  # two windows of one recording
    captions = Captions.of([[text] for text in texts])
    heldout = Split(ArraySource(items, labels), captions)
    dataset = dataclasses.replace(
        dataset, splits={**dataset.splits, "heldout": heldout}, class_names=names
    )
    clean = dataset.kind.decode(items)[..., 0]
    asked: list[np.ndarray] = []

    def draw(index: np.ndarray, cond: dict[str, np.ndarray]) -> np.ndarray:
        np.testing.assert_array_equal(cond["label"], 1)
        np.testing.assert_array_equal(index, np.arange(len(cond["row"])))
        asked.append(cond["row"])
        return dataset.kind.encode(0.5 * clean[cond["row"], :, None])

    def recognise(x: np.ndarray, rate: int) -> str:
        assert rate == 16_000
        row = int((clean @ x / np.linalg.norm(clean, axis=1)).argmax())
        whole = np.linalg.norm(x) > 0.75 * np.linalg.norm(clean[row])
        return texts[row] if whole else texts[row].split()[0]

    model = dataclasses.replace(
        model_of(dataset),
        cond_of=lambda split, rows, labels: {"label": labels, "row": rows},
        draw=draw,
    )
    measure = WordsHeard(dataset, recognise, ("b",), 3, 50)
    found = measure(model) | measure.of_data({})
    rows = asked[0]
    assert len(rows) == len(set(rows)) == 3
    assert set(rows) <= {5, 7, 9, 11}
    assert found["word_error"]["value"] == pytest.approx(1 / 2)
    assert found["word_error"]["passport"]["words"] == 6
    assert found["word_error_heldout"]["value"] == 0
    few = WordsHeard(dataset, recognise, ("a",), 1, 50).of_data({})["word_error_heldout"]
    assert few["left_out"].startswith("2 held-out transcripts of one window are needed")


def test_the_recogniser_hears_sixteen_bits_of_each_recording_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Any] = []

    class Decoder:
        def __init__(self, **settings: Any) -> None:
            heard.append(settings)

        def start_utt(self) -> None: ...

        def end_utt(self) -> None: ...

        def process_raw(self, data: bytes, full_utt: bool) -> None:
            heard.append((np.frombuffer(data, "<i2").tolist(), full_utt))

        def hyp(self) -> Any:
            return None if len(heard) > 2 else types.SimpleNamespace(hypstr="yes")

    package: Any = types.ModuleType("pocketsphinx")
    package.Decoder, package.__spec__ = Decoder, types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "pocketsphinx", package)
    sound_words._decoder.cache_clear()
    assert sound_words.recognised(np.array([0.5, -1, 1.0]), 16_000) == "yes"
    assert sound_words.recognised(np.zeros(3), 16_000) == ""
    assert heard[0]["samprate"] == 16_000
    assert heard[1] == ([2**14, -(2**15), 2**15 - 1], True)
    with pytest.raises(ValueError, match="needs recordings of 16,000 Hz, and these are of 8,000"):
        sound_words.recognised(np.zeros(3), 8_000)
    monkeypatch.setattr(sound_words.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"a recogniser: pip install pocketsphinx==5\.1\.1"):
        sound_words.recognised(np.zeros(3), 16_000)
    sound_words._decoder.cache_clear()


def test_bands_are_named() -> None:
    assert names_of((0.0, 7.5)) == ["below_0db", "0_to_7.5db", "from_7.5db"]
    assert names_of((5.0,)) == ["below_5db", "from_5db"]


def test_pesq_is_optional_its_failures_are_no_scores_and_its_arguments_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Error(Exception):
        pass

    def scored(rate: int, s: np.ndarray, e: np.ndarray, mode: str) -> float:
        if not s.any():
            raise Error("No utterances detected")
        return float(rate + s[0] + 10 * e[0] + 100 * (mode == "wb"))

    package: Any = types.ModuleType("pesq")
    package.pesq, package.PesqError = scored, Error
    monkeypatch.setitem(sys.modules, "pesq", package)
    s, e = np.ones((2, 4000, 1)), 2 * np.ones((2, 4000, 1))
    s[1] = 0
    np.testing.assert_array_equal(pesq_scores(s, e, 16_000, "wb"), [16_121, np.nan])
    monkeypatch.setattr(sound_measures.importlib.util, "find_spec", lambda name: None)
    lacks = MEASURES["pesq_wb"].lacks
    assert "needs a package that is no part of this project: pip install pesq" in lacks(16_000, 2)
    assert "is for 16,000 Hz, and these recordings are of 22,050 Hz" in lacks(22_050, 2)
    assert "is for 8,000 or 16,000 Hz" in MEASURES["pesq_nb"].lacks(44_100, 2)


METRICS = {"evaluate__metrics": "restored", "evaluate__restored__measures": "snr,lsd"}


@pytest.mark.parametrize(
    ("changes", "dataset", "says"),
    [
        ({}, {}, r"'restored' with evaluate\.restored\.by='condition' needs an image_condition"),
        ({"measures": "snr,loud"}, {}, r"evaluate\.restored\.measures='loud' is not known"),
        ({"by": "restor"}, {}, r"evaluate\.restored\.by='restor' is not known: did you mean"),
        ({"bands": (5.0, 0.0)}, {}, r"evaluate\.restored\.bands=\(5\.0, 0\.0\) must ascend"),
        ({"measures": "word_error"}, {"rate": 8000},
         "needs recordings of 16,000 Hz, and these are of 8,000 Hz"),
        ({"measures": "estoi"}, {}, "needs 0.5 s, and these recordings are of 0.004 s"),
        ({"num_sounds": 1}, {}, r"evaluate\.restored\.num_sounds=1 must lie in \[2, inf\)"),
        ({"samples": 0}, {}, r"evaluate\.restored\.samples=0 must lie in"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_line(
    changes: dict[str, Any], dataset: dict[str, Any], says: str
) -> None:
    own = {f"evaluate__restored__{key}": value for key, value in changes.items()}
    with pytest.raises(ConfigError) as error:
        build(tiny(**{**METRICS, **own}), recordings(**dataset))
    assert re.search(says, str(error.value))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "dataset", "says"),
    [
        ({}, recordings(rate=8000), "needs recordings of 16,000 Hz, and these are of 8,000 Hz"),
        ({}, recordings(), r"needs transcripts, and the held-out sounds have no captions"),
        ({"evaluate__words__classes": ("de",)}, recordings(texts=True),
         r"evaluate\.words\.classes='de' is not known"),
        ({"evaluate__words__num_sounds": 1}, recordings(texts=True), r"must lie in \[2, inf\)"),
        ({}, random_dataset(), "'words' needs sounds, and these data are images of 8x8x1"),
    ],
)  # fmt: skip
def test_speech_whose_words_cannot_be_heard_is_refused_in_one_line(
    settings: dict[str, Any], dataset: Dataset, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sound_words.importlib.util, "find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=says):
        build(tiny(evaluate__metrics="words", **settings), dataset)


def test_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match="needs sounds, and these data are images of 8x8x1"):
        build(tiny(**METRICS), random_dataset())
