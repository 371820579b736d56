"""Judges of generated sound: views, the classifier, mel statistics, pitch and nearest sounds."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.spectrograms import FRAMES, MIDDLE, SCALE, SILENCE
from diffusion_jax.evaluation import extractor as judge
from diffusion_jax.evaluation.distances import PAGE, Distances
from diffusion_jax.evaluation.sound_extractor import BANDS, statistics
from diffusion_jax.evaluation.sound_measures import gross_pitch
from diffusion_jax.evaluation.sound_pitch import Pitches
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.extractors import make_extractor
from diffusion_jax.from_config.sounds import has_no_pitch
from diffusion_jax.metrics.frechet import frechet_distance, moments
from tests.evaluation.models import model_of
from tests.runs import random_dataset, tiny

RATE, LENGTH = 8_000, 2_048
KIND = Sound((LENGTH, 1), RATE)


def tones(pitches: Any, amplitude: float = 0.5, length: int = LENGTH) -> np.ndarray:
    """Tones `[N, T, 1]` of some pitches in Hz, with a second harmonic."""
    phase = 2 * np.pi * np.asarray(pitches)[:, None] * np.arange(length) / RATE
    return (amplitude * (np.sin(phase) + 0.5 * np.sin(2 * phase)) / 1.5)[..., None]


def two_classes(num: int = 24) -> Dataset:
    """Low and high tones, all at one phase."""
    labels = np.arange(num, dtype=np.int32) % 2

    def split(first: float) -> Split:
        pitches = np.where(labels == 0, 150, 600) + first + np.arange(num)
        return Split(ArraySource(KIND.encode(tones(pitches)), labels))

    splits = {"train": split(0.0), "heldout": split(0.5)}
    return Dataset("tones", KIND, splits, class_names=("low", "high"), fingerprint="0123")


def refused(config: Any, dataset: Dataset, tmp_path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        make_extractor(config, dataset, tmp_path, print)
    return str(error.value)


def test_views_of_sounds_do_not_see_the_sign_and_move_with_the_sound() -> None:
    view, noise = KIND.view, np.random.default_rng(0).normal(0, 0.1, (2, LENGTH, 1))
    x = noise.astype(np.float32)
    seen, hop = np.asarray(view.of(x)), 80
    assert seen.shape == (2, *view.shape)
    np.testing.assert_array_equal(np.asarray(view.of(-x)), seen)
    later = np.asarray(view.of(np.roll(x, 3 * hop, axis=1)))
    np.testing.assert_allclose(later[:, 5:-2], seen[:, 2:-5], atol=1e-4)
    np.testing.assert_allclose(
        np.asarray(view.of(0.1 * x)),
        np.maximum(seen - 2 / SCALE, (SILENCE - MIDDLE) / SCALE),
        atol=1e-4,
    )
    assert f"{LENGTH:,} samples at {RATE:,} Hz" in view.words


def test_views_are_of_one_size_and_range_whatever_the_sounds_are() -> None:
    loud = tones([440.0], 1.0).astype(np.float32)
    for x in (loud, np.zeros_like(loud), np.sign(loud)):
        assert np.abs(np.asarray(KIND.view.of(x))).max() < 1.5
    assert np.asarray(KIND.view.of(np.zeros_like(loud))) == pytest.approx(
        (SILENCE - MIDDLE) / SCALE
    )
    assert Sound((160_000, 2), RATE).view.shape == (FRAMES + 1, 64, 2)
    assert Sound((80, 1), RATE).view.shape == (2, 64, 1)


def test_a_view_does_not_depend_on_its_batch() -> None:
    x = np.random.default_rng(1).normal(0, 0.1, (70, 512, 1)).astype(np.float32)
    view = Sound((512, 1), RATE).view
    np.testing.assert_allclose(np.asarray(view.of(x))[66:], np.asarray(view.of(x[66:])), atol=1e-5)


def test_mel_statistics_of_known_sounds() -> None:
    """Silence is at the floor; a level that grows evenly is a ramp, whose moments are known."""
    silent = np.asarray(statistics(jnp.zeros((1, LENGTH, 1)), RATE))[0].reshape(3, BANDS)
    np.testing.assert_allclose(silent[0], SILENCE + 2 * np.log10(256), rtol=1e-6)
    np.testing.assert_allclose(silent[1:], 0, atol=1e-5)
    hop, frames = 80, LENGTH // 80 + 1
    growth = 10 ** (0.05 * np.arange(LENGTH) / hop)  # 0.1 bels of power in a frame
    x = growth[:, None] * np.random.default_rng(0).normal(0, 1e-3, (LENGTH, 1))
    noise = np.asarray(statistics(jnp.asarray(x[None], jnp.float32), RATE))[0].reshape(3, BANDS)
    louder = np.asarray(statistics(jnp.asarray(10 * x[None], jnp.float32), RATE))[0]
    np.testing.assert_allclose(louder[:BANDS], noise[0] + 2, atol=1e-4)
    np.testing.assert_allclose(louder[BANDS:].reshape(2, BANDS), noise[1:], atol=1e-4)
    tone = growth[None, :, None] * tones([500.0], 1e-3)
    ramp = np.asarray(statistics(jnp.asarray(tone, jnp.float32), RATE))[0].reshape(3, BANDS)
    band = ramp[0].argmax()  # but for the ends, where a sound is mirrored
    assert ramp[1, band] == pytest.approx(0.1 * np.sqrt((frames**2 - 1) / 12), rel=0.1)
    assert ramp[2, band] == pytest.approx(0.1, rel=0.1)


def test_mel_statistics_need_two_frames() -> None:
    with pytest.raises(ValueError, match="79 samples have one frame: 80 are needed"):
        statistics(jnp.zeros((1, 79, 1)), RATE)


def test_samples_are_compared_in_mel_statistics_beside_held_out_sounds(tmp_path: Path) -> None:
    """Those nearest to training sounds are shown and can be heard; the sign makes no difference."""
    data = two_classes()
    config = tiny(evaluate__extractor="mel_statistics", data__loudness=-26.0)
    extractor = make_extractor(config, data, tmp_path, print)
    assert not isinstance(extractor, str)
    assert extractor.preprocessing.endswith("float32; recordings at -26 dB")
    items, labels = data.arrays("train")
    copies = KIND.encode(-KIND.decode(items))
    measure = Distances(data, extractor, 10, tmp_path)
    result = measure(model_of(data, chunks=[(copies, labels)], folder=tmp_path))
    result |= measure.of_data({})
    assert result["nearest_training_distance"]["value"] == pytest.approx(0, abs=1e-2)
    assert result["nearest_training_distance_heldout"]["value"] > 0.1
    assert result["memorised_share"]["value"] == 1
    assert result["memorised_share"]["passport"]["compared"] == KIND.view.words
    held, train = (moments(extractor(data.arrays(s)[0])[1]) for s in ("heldout", "train"))
    found = result["fd_mel_statistics_heldout"]
    assert found["value"] == pytest.approx(frechet_distance(held, train), rel=1e-3)
    assert found["low"] <= found["value"] <= found["high"]
    page = (tmp_path / PAGE).read_text()
    assert page.count("<audio") == 20
    assert "<th>nearest of the training sounds</th>" in page
    assert (tmp_path / "closest.png").exists()


def test_the_judge_of_sounds_is_given_their_views(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, given = two_classes(), []

    class Net:
        def __init__(self, num_classes: int) -> None:
            self.classes = num_classes

        def init(self, key: Any, x: Any) -> Any:
            given.append(x.shape)
            return {}

        def apply(self, params: Any, x: Any) -> Any:
            return jnp.zeros((len(x), self.classes)), jnp.reshape(x, (len(x), -1))

    monkeypatch.setattr(judge, "Classifier", Net)
    monkeypatch.setattr(judge, "fit", lambda net, dataset: {})
    extractor = make_extractor(tiny(), data, tmp_path, print)
    assert not isinstance(extractor, str)
    items = data.arrays("heldout")[0][:3]
    logits, features = extractor(items)
    assert logits is not None
    assert logits.shape == (3, 2)
    seen = np.asarray(KIND.view.of(KIND.decode(items)))
    np.testing.assert_allclose(features, seen.reshape(3, -1), atol=1e-6)
    assert given == [(1, *KIND.view.shape)]
    assert (extractor.name, extractor.preprocessing) == ("tones_cnn", KIND.view.words)


@pytest.mark.slow
def test_a_judge_that_is_trained_on_sounds_tells_their_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge, "STEPS", 30)
    monkeypatch.setattr(judge, "BATCH_SIZE", 16)
    data = two_classes()
    items, labels = data.arrays("heldout")
    logits, _ = judge.get_extractor(data, tmp_path, print)(items)
    assert logits is not None
    assert (logits.argmax(1) == labels).all()


def test_the_pitch_of_samples_is_measured_beside_that_of_held_out_sounds(tmp_path: Path) -> None:
    data = two_classes()
    pitches = np.linspace(200, 300, 11)
    silence, items = np.zeros((4, LENGTH, 1), np.int16), KIND.encode(tones(pitches))
    chunks: Any = [(items, None), (silence, None)]
    evaluator = Pitches(data, 24, 20)
    result = evaluator(model_of(data, chunks=chunks)) | evaluator.of_data({})
    expected = {"low": 210, "median": 250, "high": 290}
    for name, hertz in expected.items():
        found = result[f"pitch_{name}"]
        assert found["value"] == pytest.approx(hertz, rel=0.01)
        assert found["low"] < found["value"] < found["high"]
        assert found["n"] == 11
        assert found["passport"]["without_pitch"] == 4
    assert result["pitch_voiced"]["value"] == pytest.approx(11 / 15, abs=0.02)
    assert result["pitch_voiced"]["n"] == 15
    held = np.concatenate([150.5 + np.arange(0, 24, 2), 600.5 + np.arange(1, 24, 2)])
    for name, share in (("low", 0.1), ("high", 0.9)):
        value = result[f"pitch_{name}_heldout"]["value"]
        assert value == pytest.approx(np.quantile(held, share), rel=0.01)


def test_pitch_is_left_out_where_no_sound_has_one() -> None:
    data = two_classes()
    silence: Any = [(np.zeros((4, LENGTH, 1), np.int16), None)]
    result = Pitches(data, 24, 20)(model_of(data, chunks=silence))
    assert result["pitch_voiced"]["value"] == 0
    assert result["pitch_median"]["left_out"].startswith("2 samples with pitch are needed")


def test_gross_errors_of_pitch_are_counted_where_both_have_a_pitch() -> None:
    reference = tones([200.0, 200.0, 200.0, 200.0])
    wrong = np.concatenate([tones([200.0])[:, : LENGTH // 2], tones([300.0])[:, LENGTH // 2 :]], 1)
    silent = np.zeros((1, LENGTH, 1))
    estimate = np.concatenate([tones([202.0]), tones([400.0]), wrong, silent])
    found = gross_pitch(reference, estimate, RATE)
    np.testing.assert_array_equal(found[:2], [0, 1])
    assert 0.3 < found[2] < 0.7
    assert np.isnan(found[3])


@pytest.mark.parametrize(
    ("extractor", "weights", "says"),
    [
        ("mel_statistics", "x.pth", "no effect with evaluate.extractor='mel_statistics'"),
        ("inception", "weights.pth", "needs images, and tones has sounds of .* use .*'mel_stat"),
    ],
)
def test_extractors_that_are_for_other_data_than_sounds_are_refused(
    tmp_path: Path, extractor: str, weights: str, says: str
) -> None:
    (tmp_path / weights).touch()
    asked = {"evaluate__extractor": extractor, "evaluate__weights": str(tmp_path / weights)}
    with pytest.raises(ConfigError, match=says):
        make_extractor(tiny(**asked), two_classes(), tmp_path, print)


def test_what_sounds_alone_have_is_refused_for_other_data(tmp_path: Path) -> None:
    config = tiny(evaluate__extractor="mel_statistics")
    words = "evaluate.extractor='mel_statistics' needs sounds, not images of 8x8x1"
    assert refused(config, random_dataset(), tmp_path) == words
    with pytest.raises(ConfigError, match="'pitch' needs sounds, and these data are images"):
        from_config.build(tiny(evaluate__metrics="pitch"), random_dataset())


def test_sounds_without_classes_have_mel_statistics_left(tmp_path: Path) -> None:
    data = dataclasses.replace(two_classes(), class_names=())
    why = make_extractor(tiny(), data, tmp_path, print)
    assert isinstance(why, str)
    assert why.endswith("; evaluate.extractor=mel_statistics needs none")


@pytest.mark.parametrize(
    ("shape", "rate", "says"),
    [((200, 1), 8_000, "needs 0.0338 s, and these recordings are of 0.025 s"),
     ((200, 1), 200, "is for rates above 240 Hz, and these recordings are of 200 Hz")],
)  # fmt: skip
def test_sounds_that_have_no_pitch_are_refused(
    shape: tuple[int, int], rate: int, says: str
) -> None:
    data = dataclasses.replace(two_classes(), kind=Sound(shape, rate))
    task: Any = type("Drawing", (), {"generator": True})
    assert has_no_pitch(tiny(), task, data) == says


@pytest.mark.slow
def test_a_run_on_sounds_is_judged_from_its_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folder = two_classes(), tmp_path / "run"
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: data)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = tiny(
        model__dit__patch_size=64,
        train__steps=2,
        evaluate__metrics="distances,pitch",
        evaluate__extractor="mel_statistics",
    )
    assert run.run(config, folder, "all") == 0
    result = json.loads((folder / "result.json").read_text())
    for name in ("fd_mel_statistics", "nearest_training_distance", "pitch_voiced"):
        for each in (name, f"{name}_heldout"):
            assert {"value", "low", "high", "n"} <= result[each].keys()
            assert result[each]["low"] <= result[each]["high"]
    report = (folder / "report.md").read_text()
    assert "[closest.html](samples/closest.html)" in report
    assert "pitch_voiced" in report
    assert "mean, deviation and deltas of 20 log-mel bands of 2,048 samples at 8,000 Hz" in report
