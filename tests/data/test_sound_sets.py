"""Sets of recordings: folders, windows that resume exactly, and the sets of packages."""

import gzip
import json

import numpy as np
import pytest
import soundfile

from diffusion_jax.data import DataError, load_dataset, train_batches
from diffusion_jax.data.sets.drums import class_of, instruments
from diffusion_jax.data.sets.prompts import VOICES, groups, transcripts
from tests.data.test_sound_files import tone, write


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def fill(folder, number=6, seconds=0.2, rate=8_000, first=0):
    for i in range(number):
        write(folder / f"{i}.wav", tone(seconds, rate, 300 + 50 * (first + i)), rate)


def load(folder, **settings):
    return load_dataset("recordings", data_dir=str(folder), **{"length": 512} | settings)


def sizes(dataset):
    return [len(dataset.splits[split]) for split in ("train", "heldout")]


def test_a_folder_is_of_windows_of_its_recordings_and_sub_folders_are_classes(tmp_path):
    fill(tmp_path / "low")
    fill(tmp_path / "high", first=20)
    dataset = load(tmp_path)
    assert dataset.kind.words == "sounds of 0.064 s at 8,000 Hz"
    assert dataset.class_names == ("high", "low")
    train, heldout = sizes(dataset)
    assert train % 3 == 0  # 1,600 samples have 1,089 windows, in three cells
    assert heldout % 3 == 0
    assert (train + heldout) // 3 == 12
    items, labels = dataset.arrays("heldout")
    assert (items.shape[1:], items.dtype) == ((512, 1), np.int16)
    assert {labels.tolist()[i] for i in range(len(labels))} <= {0, 1}


def test_captions_are_those_of_the_recording_of_a_window(tmp_path):
    fill(tmp_path, 8)
    lines = [json.dumps({"file_name": f"{i}.wav", "text": f"tone {i}"}) for i in range(8)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    dataset = load(tmp_path)
    assert dataset.captioned
    assert any("longer than a window" in note for note in dataset.notes)
    for split in dataset.splits.values():
        rows = np.arange(len(split))
        for item, text in zip(split.gather(rows)[0], split.names(rows), strict=True):
            padded = np.fft.rfft(item[:, 0] * np.hanning(512), 8192)
            found = np.abs(padded).argmax() * 8_000 / 8192
            assert found == pytest.approx(300 + 50 * int(text.split()[1]), abs=3)


def test_splits_are_sub_folders_with_usual_names(tmp_path):
    fill(tmp_path / "train", 4)
    fill(tmp_path / "test", 2, first=9)
    dataset = load(tmp_path)
    assert sizes(dataset) == [4 * 3, 2 * 3]


def batches(dataset, num, state=None, **share):
    stream = train_batches(dataset, batch_size=4, seed=1, prefetch=0, **share)
    if state:
        stream.set_state(state)
    return np.stack([next(stream)["x"] for _ in range(num)]), stream.get_state()


def test_windows_are_random_and_resume_exactly_whoever_shares_them(tmp_path):
    fill(tmp_path)
    dataset = load(tmp_path)
    whole, _ = batches(dataset, 20)
    assert len(np.unique(whole.reshape(-1, 512), axis=0)) > 2 * len(dataset.splits["train"])
    first, state = batches(dataset, 7)
    rest, _ = batches(load(tmp_path), 13, state)  # the second time from the cache
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    halves = [batches(dataset, 10, process_index=i, process_count=2)[0] for i in range(2)]
    shared = np.stack(halves, 1).reshape(20, 4, 512, 1)
    np.testing.assert_array_equal(shared, whole)


def test_heldout_windows_are_fixed_and_cover_a_recording_side_by_side(tmp_path):
    fill(tmp_path / "train", 3)
    noise = np.random.default_rng(0).integers(-999, 999, 1600, np.int16)
    write(tmp_path / "test" / "a.wav", noise)
    items, _ = load(tmp_path).arrays("heldout")
    found = sorted(item.tobytes() for item in items)
    assert found == sorted(noise[i : i + 512].tobytes() for i in (0, 512, 1024))


def test_loudness_and_rate_are_part_of_the_fingerprint_and_place_is_not(tmp_path):
    fill(tmp_path / "a")
    fill(tmp_path / "b")
    one = load(tmp_path / "a")
    assert load(tmp_path / "b").fingerprint == one.fingerprint
    others = [{"loudness": -26.0}, {"rate": 4_000}, {"length": 256}, {"cut": "shots"}]
    prints = [load(tmp_path / "a", **other).fingerprint for other in others]
    assert len({one.fingerprint, *prints}) == 5


def test_sounds_are_prepared_once(tmp_path, monkeypatch):
    fill(tmp_path)
    one = load(tmp_path)
    monkeypatch.setattr("diffusion_jax.data.sets.recordings.prepare", None)
    np.testing.assert_array_equal(load(tmp_path).arrays("train")[0], one.arrays("train")[0])


def _mixed_rates(folder):
    fill(folder, 3)
    write(folder / "z.wav", tone(0.2, 16_000), 16_000)


def _stereo_among_mono(folder):
    fill(folder, 3)
    write(folder / "z.wav", np.stack([tone(), tone()], 1))


def _texts_alone(folder):
    folder.mkdir()
    (folder / "a.wav").write_text("dear diary")


@pytest.mark.parametrize(
    ("made", "settings", "says"),
    [
        (
            _mixed_rates,
            {},
            r"data\.rate=0 keeps sounds as stored, but 0\.wav is 8,000 Hz and z\.wav 16,000 Hz; "
            r"data\.rate=RATE resamples them\.",
        ),
        (
            _stereo_among_mono,
            {},
            r"data\.channels=0 keeps sounds as stored, but 0\.wav is mono and z\.wav stereo; "
            r"data\.channels=1 mixes them to mono\.",
        ),
        (_texts_alone, {}, r"holds no readable sound: .*a\.wav \(it is no sound\)"),
        (fill, {"channels": 3}, r"data\.channels=3 is for pictures; of sounds 1 mixes"),
        (fill, {"length": 5000}, r"\d\.wav is shorter than a window"),
        (lambda folder: folder.mkdir(), {}, r"holds no readable sound\. Files may end in \.wav"),
        (lambda folder: None, {}, r"is not a folder; data\.name='recordings' reads one"),
        (fill, {"cut": "pieces"}, r"cut='pieces' must be"),
        (fill, {"loudness": 3.0}, r"loudness=3.0 must lie in \(-inf, 0\]"),
    ],
)
def test_bad_folders_end_in_one_sentence(tmp_path, made, settings, says):
    made(tmp_path / "data")
    with pytest.raises(ValueError, match=says) as error:
        load(tmp_path / "data", **settings)
    assert "\n" not in str(error.value)


def test_different_rates_and_channels_are_resampled_and_mixed_where_asked(tmp_path):
    _mixed_rates(tmp_path)
    write(tmp_path / "y.wav", np.stack([tone(), tone()], 1))
    assert load(tmp_path, rate=4_000, channels=1).kind.rate == 4_000


def test_a_file_that_is_no_sound_is_skipped_with_a_note(tmp_path):
    fill(tmp_path)
    (tmp_path / "z.wav").write_text("dear diary")
    dataset = load(tmp_path)
    assert dataset.skipped == ("z.wav",)
    assert "skipped 1 unreadable sounds: z.wav (it is no sound)" in dataset.notes


@pytest.mark.parametrize("name", ["drums", "letters", "prompts", "music"])
def test_missing_packages_are_named(tmp_path, name):
    with pytest.raises(DataError, match=rf"data\.name='{name}': data\.manual_dir=.*apt-get inst"):
        load_dataset(name, manual_dir=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("PearlSnareRimshot-Hard", "snare"),
        ("hhclosed_01", "hat"),
        ("BD_01", "kick"),
        ("Djembe1 Slap", "hand drum"),
        ("Kenkeni1 Bell Hit", "bell"),
        ("crash16i__ride_cup4", "cymbal"),
        ("f#3 - hi-hat closed", "hat"),
        ("Cowbell-Soft", "bell"),
        ("beats_01-10", None),
        ("elec_twang", None),
    ],
)
def test_names_of_drums_tell_their_class(name, kind):
    assert class_of(name) == kind


def test_drums_are_of_the_instrument_that_the_kit_names(tmp_path):
    kit, folder = tmp_path / "usr/share/hydrogen/data/drumkits/A", "usr/share/sonic-pi/samples"
    for layer in range(4):
        write(kit / f"x{layer}.wav", tone(0.1))
    files = "".join(f"<layer><filename>x{n}.wav</filename></layer>" for n in range(4))
    (kit / "drumkit.xml").write_text(
        f'<drumkit_info xmlns="u"><name>A</name><instrument><name>Kick</name>{files}'
        "</instrument></drumkit_info>"
    )
    assert instruments(kit) == {f"x{n}.wav": "Kick" for n in range(4)}
    for name in ("bd_one", "sn_one", "loop_tabla", "elec_pop", "tabla_na"):
        write(tmp_path / folder / f"{name}.flac", tone(0.1))
    dataset = load_dataset("drums", manual_dir=str(tmp_path), rate=8_000, heldout_fraction=0.3)
    assert dataset.kind.shape == (16_384, 1)
    counts = [np.bincount(dataset.arrays(key)[1], minlength=10) for key in dataset.splits]
    kicks = [count[3] for count in counts]
    assert sum(kicks) == 5  # all four layers of the kit on one side
    assert max(kicks) >= 4
    assert sum(map(sum, counts)) == 7
    assert any("2 sounds that are no strokes" in note for note in dataset.notes)


def test_letters_are_those_of_the_alphabets(tmp_path):
    folder = tmp_path / "usr/share/klettres"
    for language, names in (("de", "AÄ"), ("fr", "AB"), ("en", "BC")):
        sounds = "".join(f'<sound name="{n}" file="{language}/alpha/{n}.ogg"/>' for n in names)
        (folder / language / "alpha").mkdir(parents=True)
        (folder / language / "sounds.xml").write_text(
            f"<klettres><language><alphabet>{sounds}</alphabet><syllables>{sounds}</syllables>"
            "</language></klettres>"
        )
        for name in names:
            write(folder / language / "alpha" / f"{name}.ogg", tone(0.2))
    dataset = load_dataset("letters", manual_dir=str(tmp_path), rate=8_000, length=1024)
    labels = np.concatenate([dataset.arrays(key)[1] for key in dataset.splits])
    assert sorted(dataset.class_names[label] for label in labels) == list("AABBC")


def test_prompts_are_held_out_in_all_languages_with_those_of_the_same_words(tmp_path):
    codec = pytest.importorskip("G722").G722(16_000, 64_000)
    sound = bytes(codec.encode((tone(0.1, 16_000) * 2**15).astype(np.int16)))
    for language, voice in VOICES.items():
        lines = ["; a comment", "silence/1: (1 second of silence)", "digits/A: same as letters"]
        lines += [f"p{i}: {language} text {i}" for i in range(20)]
        lines += ["letters/a: Same as letters", "beep: [a tone]", "letters/at: at [@]"]
        file = tmp_path / f"usr/share/doc/asterisk-core-sounds-{language}"
        file.mkdir(parents=True)
        (file / f"core-sounds-{language}.txt.gz").write_bytes(
            gzip.compress("\n".join(lines).encode())
        )
        names = ("silence/1", "digits/a", "letters/a", "beep", "letters/at", "untold")
        for name in (*names, *(f"p{i}" for i in range(20))):
            path = tmp_path / "usr/share/asterisk/sounds" / voice / f"{name}.g722"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sound)
    dataset = load_dataset("prompts", manual_dir=str(tmp_path), heldout_fraction=0.3, length=2048)
    assert dataset.class_names == tuple(VOICES)
    assert sum(sizes(dataset)) == 5 * 23
    assert any("15 recordings of tones" in note for note in dataset.notes)
    seen = []
    for split in dataset.splits.values():
        labels = split.gather(np.arange(len(split)))[1]
        assert len(set(np.bincount(labels))) == 1  # as many in each language
        seen.append({text.lower().split()[-1] for text in split.captions.texts})
    assert not seen[0] & seen[1]


def test_names_that_share_a_key_in_a_row_are_one_group():
    found = groups([("x", "a"), ("y", "a"), ("y", "b"), ("z", "c"), ("z", "b"), ("w", "d")])
    assert found["a"] == found["b"] == found["c"] != found["d"]


def test_a_damaged_file_of_transcripts_is_named(tmp_path):
    (tmp_path / "a.txt.gz").write_bytes(b"no gzip")
    with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read: .* install its package"):
        transcripts(tmp_path / "a.txt.gz")


def test_music_is_held_out_by_track(tmp_path):
    folder = tmp_path / "usr/share/games/wesnoth/1.16/data/core/music"
    for i in range(5):
        write(folder / f"{i}.ogg", np.stack([tone(0.5, 8_000, 300 + 200 * i)] * 2, 1))
    write(folder / "silence.ogg", np.zeros(4000))
    dataset = load_dataset("music", manual_dir=str(tmp_path), rate=8_000, length=1000)
    assert sizes(dataset) == [4 * 4, 4]
    assert dataset.kind.shape == (1000, 1)
    assert all(item.any() for item in dataset.arrays("train")[0])
    soundfile.write(folder / "0.ogg", tone(0.6), 8_000)  # another content
    again = load_dataset("music", manual_dir=str(tmp_path), rate=8_000, length=1000)
    assert again.fingerprint != dataset.fingerprint
