"""Builds folders of recordings from Debian's packages: four voices to train on, a fifth to test on.

Those of `data.name=prompts`, with `klettres-data`, `sonic-pi-samples` and `wesnoth-1.16-music` for
the noise of the test, and `tuxpaint-stamps-default`, `warzone2100-music`, `hedgewars-data` and
`lincity-ng-data` for that of the training. See README.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sets import letters, music, prompts
from diffusion_jax.data.sound import Sound
from diffusion_jax.data.sound_files import Preparation, prepare, resampled, without_silence
from diffusion_jax.data.sound_reading import SUFFIXES, read_sound
from diffusion_jax.metrics.sound_words import spoken_words
from diffusion_jax.system.sounds import save_wav

RATE = 16_000  # Hz
LOUDNESS = -26.0  # dB, root mean square of each clean recording
HEARD, UNHEARD = ("es", "fr", "it", "ru"), "en"
"""Languages, each of one voice: to train on, and to test on."""
SNRS = -5, 0, 5, 10, 15
"""Of the noisy recordings in dB, in turn."""
SECONDS = 1.5, 4.0  # least and most of a recording to test on
WORDS = 4  # least number of words in it
STEP, LEAST = 8192, 32_768
"""Samples: recordings to test on go on with silence to a multiple of `STEP`, `LEAST` or more, so
that there are few lengths."""
VOICES = 4  # at once in babble
LOOPS = "usr/share/sonic-pi/samples"
STAMPS, SPOKEN = "usr/share/tuxpaint/stamps", "_desc_"
"""Sounds of things, and their names as spoken in many languages, beside each other."""
GAMES = "usr/share/games"
TRACKS = "warzone2100/music", "hedgewars/Data/Music", "lincity-ng/music"
EFFECTS = "hedgewars/Data/Sounds", "lincity-ng/sounds"
QUIET = 0.1  # of the RMS of a whole track: where music is fainter it is no noise
TRIES = 100


class Noises(NamedTuple):
    """Files of noise by kind."""

    music: list[Path]  # tracks
    babble: dict[str, list[Path]]  # spoken letters or words, by language
    loops: list[Path]  # drums and machines, or animals and effects


def voice(root: Path, language: str) -> Iterator[tuple[str, Path, str]]:
    """Name, file and transcript of each prompt of a language."""
    texts = prompts.transcripts(root / prompts.TEXTS.format(language))
    folder = root / prompts.FOLDER / prompts.VOICES[language]
    for path in sorted(folder.rglob("*.g722")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        if text := texts.get(name.lower()):
            yield name.replace("/", "_"), path, text


def train_folder(root: Path, out: Path, num: int) -> int:
    """Writes the recordings to train on, at most `num` of each voice; returns how many there are.

    They are in one folder and have no classes: the voice to test on would be of none.
    """
    how = Preparation(RATE, 1, LOUDNESS, "padded", 1)
    out.mkdir(parents=True)
    for language in HEARD:
        for name, path, _ in list(voice(root, language))[:num]:
            about = {"file": path.relative_to(root).as_posix()}
            save_wav(out / f"{language}_{name}.wav", prepare(path, how), RATE, about)
    return len(list(out.iterdir()))


def noise_to_train_on(root: Path) -> Noises:
    """Files that are of no test: other music, other voices, and sounds that are no loops."""
    stamps, babble = sorted((root / STAMPS).rglob("*.ogg")), dict[str, list[Path]]()
    for path in stamps:
        if SPOKEN in path.stem:
            babble.setdefault(path.stem.split(SPOKEN)[1][:2], []).append(path)
    effects = [path for folder in EFFECTS for path in _sounds(root / GAMES / folder, "*")]
    effects += [path for path in _sounds(root / LOOPS, "*") if not path.name.startswith("loop_")]
    effects += [path for path in stamps if SPOKEN.strip("_") not in path.stem]
    tracks = [path for folder in TRACKS for path in _sounds(root / GAMES / folder, "**/*")]
    return checked(root, Noises(tracks, babble, effects))


def _sounds(folder: Path, pattern: str) -> list[Path]:
    return sorted(path for path in folder.glob(pattern) if path.suffix in SUFFIXES)


def noise_folder(root: Path, out: Path, num: int, seed: int) -> int:
    """Writes `num` windows of noise to train on, of all kinds in turn, as loud as recordings."""
    files = noise_to_train_on(root)
    for i in range(num):
        kind, rng = list(KINDS)[i % len(KINDS)], np.random.default_rng([seed, i])
        x, source = KINDS[kind](files, LEAST, rng)
        level = max(float(np.sqrt(np.mean(x**2))), 1e-6)
        loud = np.clip(x * 10 ** (LOUDNESS / 20) / level, -1, 1)
        out.mkdir(parents=True, exist_ok=True)
        written(out / f"{i:04d}_{kind}.wav", loud, {"kind": kind, "source": source})
    return num


def noise_to_test_on(root: Path) -> Noises:
    """The files of noise of the test; of letters those of languages that no prompt is in."""
    known = {*HEARD, UNHEARD}
    babble: dict[str, list[Path]] = {}
    for path in sorted((root / letters.FOLDER).glob("*/alpha/*.ogg")):
        if path.parts[-3].split("_")[0] not in known:
            babble.setdefault(path.parts[-3], []).append(path)
    tracks = sorted((root / music.FOLDER).glob("*.ogg"))
    found = Noises(
        [path for path in tracks if path.name != music.SILENCE],
        babble,
        sorted((root / LOOPS).glob("loop_*.flac")),
    )
    return checked(root, found)


def checked(root: Path, found: Noises) -> Noises:
    """The files, if there are some of all kinds."""
    for kind, files in found._asdict().items():
        if not files:
            raise DataError(f"{root} lacks the noise for {kind!r}: see experiments/sound/README.md")
    return found


def mono(path: Path) -> np.ndarray:
    """A recording `[T]` at `RATE`."""
    x, rate = read_sound(path)
    return resampled(x.mean(1, keepdims=True), rate, RATE)[:, 0]


def of_music(files: Noises, size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A stretch `[size]` of a track that is not nearly silent, and the track's name."""
    path = files.music[rng.integers(len(files.music))]
    x, rate = read_sound(path)
    level, long = np.sqrt(np.mean(x**2)), int(size * rate / RATE) + rate // 10
    for _ in range(TRIES):
        start = rng.integers(len(x) - long)
        part = x[start : start + long]
        if np.sqrt(np.mean(part**2)) > QUIET * level:
            break
    return resampled(part.mean(1, keepdims=True), rate, RATE)[:size, 0], path.stem


def of_babble(files: Noises, size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Letters one after another by each of `VOICES` voices at once, as loud as each other."""
    chosen = rng.choice(sorted(files.babble), VOICES, replace=False)
    whole = np.zeros(size)
    for language in chosen:
        names, parts, long = files.babble[language], list[np.ndarray](), 0
        while long < 2 * size:
            x = without_silence(mono(names[rng.integers(len(names))])[:, None], RATE)[:, 0]
            parts.append(x / max(float(np.sqrt(np.mean(x**2))), 1e-6))
            long += len(x)
        start = rng.integers(size)
        whole += np.concatenate(parts)[start : start + size]
    return whole, "+".join(chosen)


def of_loops(files: Noises, size: int, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """A loop from a random place on."""
    path = files.loops[rng.integers(len(files.loops))]
    x = mono(path)
    return np.resize(np.roll(x, -rng.integers(len(x))), size), path.stem


KINDS: dict[str, Callable[[Noises, int, np.random.Generator], tuple[np.ndarray, str]]] = {
    "music": of_music,
    "babble": of_babble,
    "loops": of_loops,
}
"""By kind: `(files, size, rng) -> (noise [size] of any level, its source)`."""


def test_recordings(root: Path, num: int, seed: int) -> list[tuple[str, Path, str]]:
    """`num` prompts of the voice to test on, drawn by the seed: of some length, said only once."""
    found: dict[str, tuple[str, Path, str]] = {}
    for name, path, text in voice(root, UNHEARD):
        words = spoken_words(text)
        seconds = len(read_sound(path)[0]) / RATE
        if SECONDS[0] <= seconds <= SECONDS[1] and len(words) >= WORDS:
            found.setdefault(" ".join(words), (name, path, text))
    if len(found) < num:
        raise DataError(f"{root} has {len(found)} prompts to test on, not {num}")
    order = np.random.default_rng(seed).permutation(len(found))[:num]
    return [list(found.values())[i] for i in order]


def mixture(
    clean: np.ndarray, snr: float, kind: str, files: Noises, rng: np.random.Generator
) -> tuple[np.ndarray, str]:
    """Noise `[S]` for a clean recording `[T]`, S >= T, and its source.

    The level is that of the signal-to-noise ratio over the recording itself; none is clipped.
    """
    size, speech = padded(len(clean)), float(np.mean(clean**2))
    whole = np.pad(clean, (0, size - len(clean)))
    for _ in range(TRIES):
        noise, source = KINDS[kind](files, size, rng)
        power = float(np.mean(noise[: len(clean)] ** 2))
        noise = noise * np.sqrt(speech / max(power, 1e-12)) * 10 ** (-snr / 20)
        if np.abs(whole + noise).max() < 1:
            return noise, source
    raise DataError(f"no {kind} was found that is not clipped at {snr} dB")


def written(path: Path, x: np.ndarray, about: dict[str, Any], rate: int = RATE) -> None:
    """Writes a recording `[T]` of 16 bits."""
    save_wav(path, Sound((len(x), 1), rate).encode(x[:, None]), rate, about)


def padded(size: int) -> int:
    """The length of a file with a recording of `size` samples."""
    return max(-(-size // STEP) * STEP, LEAST)


def test_folder(root: Path, out: Path, num: int, seed: int) -> int:
    """Writes `clean`, `noise` and `noisy` recordings and `test.json`, which says what they are.

    `noisy_at/SNR` has the noisy ones once more, by their signal-to-noise ratio.
    """
    files, how = noise_to_test_on(root), Preparation(RATE, 1, LOUDNESS, "padded", 1)
    about = []
    for i, (name, path, text) in enumerate(test_recordings(root, num, seed)):
        snr, kind = SNRS[i % len(SNRS)], list(KINDS)[i // len(SNRS) % len(KINDS)]
        clean = prepare(path, how)[:, 0] / 2**15
        noise, source = mixture(clean, snr, kind, files, np.random.default_rng([seed, i]))
        whole = np.pad(clean, (0, len(noise) - len(clean)))
        row = {"name": f"{i:03d}", "prompt": name, "text": text, "size": len(clean)}
        row |= {"snr": snr, "kind": kind, "source": source}
        about.append(row)
        parts = {"clean": whole, "noise": noise, "noisy": whole + noise}
        parts[f"noisy_at/{snr}"] = parts["noisy"]
        for folder, x in parts.items():
            (out / folder).mkdir(parents=True, exist_ok=True)
            written(out / folder / f"{row['name']}.wav", x, row)
    (out / "test.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return len(about)


def processed(
    folder: Path, name: str, parts: Sequence[str], method: Callable[..., np.ndarray]
) -> int:
    """Writes `method(*parts)` `[T]` of each test recording to `restored/NAME`; returns how many."""
    test, out = folder / "test", folder / "restored" / name
    out.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = json.loads((test / "test.json").read_text(encoding="utf-8"))
    for row in rows:
        file = f"{row['name']}.wav"
        x = [read_sound(test / part / file)[0][:, 0].astype(np.float64) for part in parts]
        written(out / file, method(*x), {"method": name, **row})
    return len(rows)


def main() -> None:
    """Writes both folders."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--packages", type=Path, default=Path("sounds"), help="unpacked packages")
    parser.add_argument("--out", type=Path, default=Path("runs/sound"))
    parser.add_argument("--num", type=int, default=100, help="recordings to test on")
    parser.add_argument("--num_train", type=int, default=10_000, help="most of each voice")
    parser.add_argument("--num_noise", type=int, default=600, help="windows of noise to train on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    trained = train_folder(options.packages, options.out / "train", options.num_train)
    noise = noise_folder(options.packages, options.out / "noise", options.num_noise, options.seed)
    tested = test_folder(options.packages, options.out / "test", options.num, options.seed)
    print(f"{trained} recordings and {noise} of noise to train on, {tested} to test on")


if __name__ == "__main__":
    main()
