"""Measures folders of restored recordings against the clean ones. See README.md.

    PYTHONPATH=. python experiments/sound/measure.py --restored bridge=runs/sound/restored/bridge

adds figures to `results.json`. Word errors need `pip install pocketsphinx==5.1.1`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.errors import DataError
from diffusion_jax.data.sound_reading import read_sound
from diffusion_jax.evaluation.sound_measures import MEASURES
from diffusion_jax.evaluation.sound_words import recognised
from diffusion_jax.metrics.calibration import coverage, mean_line, ranks, spread
from diffusion_jax.metrics.sound_words import word_errors
from diffusion_jax.metrics.spectra import log_mel
from experiments.sound.folders import RATE

NAMES = "si_sdr_uncentred", "estoi", "lsd"
EDITS = "edits"
BANDS = 12  # of which the mean level is ranked among those of the samples
DIGITS = 4  # of figures that are kept
Result = dict[str, Any]


def samples_of(folder: Path, row: Result, most: int = 1) -> np.ndarray:
    """Restored recordings `[K, T]`: `NAME.wav`, or `most` samples in a folder of that name.

    Raises:
        DataError: there are none, or one has not the length of the noisy recording, or its rate.
    """
    path = folder / f"{row['name']}.wav"
    files = sorted(path.glob("[0-9]*.wav"))[:most] if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} has no samples")
    found = []
    for file in files:
        x, rate = read_sound(file)
        if rate != RATE or len(x) < row["size"]:
            raise DataError(f"{file} has {len(x)} samples at {rate} Hz, not {row['size']} or more")
        found.append(x[: row["size"], 0])
    return np.stack(found)


def figures(
    rows: Sequence[Result], clean: Sequence[np.ndarray], found: Sequence[np.ndarray]
) -> Result:
    """By name a figure of each recording: the mean over its samples, and edits of the first one."""
    values: Result = {}
    for name in NAMES:
        of = MEASURES[name].of
        values[name] = [
            float(np.mean(of(np.repeat(s[None, :, None], len(e), 0), e[..., None], RATE)))
            for s, e in zip(clean, found, strict=True)
        ]
    texts = [recognised(np.asarray(each[0], np.float64), RATE) for each in found]
    values["heard"] = texts
    values[EDITS] = word_errors([row["text"] for row in rows], texts)[:, 0].tolist()
    return values


def calibration(clean: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> Result:
    """Whether `K` samples of each recording have the spread of what it could have been."""
    long, num = max(map(len, clean)), len(found[0])
    truth = np.stack([np.pad(s, (0, long - len(s))) for s in clean])
    samples = np.stack([np.pad(e, ((0, 0), (0, long - e.shape[1]))) for e in found])
    line = mean_line(truth, samples)
    levels = [np.stack([_levels(x) for x in (s, *e)]) for s, e in zip(clean, found, strict=True)]
    of_bands = np.stack(levels)  # [N, 1 + K, BANDS]
    level = (num - 1) / (num + 1)  # of the ranks that lie between the samples
    inside = coverage(ranks(of_bands[:, 0], of_bands[:, 1:]), num, level)
    return {
        "samples": num,
        "mse_1": list(line.error[0]),
        "mse_K": list(line.error[-1]),
        "mse_limit": list(line.limit),
        "left": list(line.left),
        "spread": list(spread(truth, samples)),
        "level": level,
        "inside": list(inside),
    }


def _levels(x: np.ndarray) -> np.ndarray:
    """Mean log-mel level of each band, of a recording `[T]`."""
    return np.asarray(log_mel(jnp.asarray(x[:, None]), RATE, BANDS)[..., 0].mean(0))


def rounded(tree: Any) -> Any:
    """Floats of a tree to `DIGITS` digits."""
    if isinstance(tree, dict):
        return {name: rounded(each) for name, each in tree.items()}
    if isinstance(tree, list | tuple):
        return [rounded(each) for each in tree]
    return float(f"{tree:.{DIGITS}g}") if isinstance(tree, float) else tree


def measured(data: Path, folder: Path, most: int = 1) -> tuple[list[Result], Result]:
    """The recordings, and the figures of a folder; of several samples also those of their mean."""
    rows = json.loads((data / "test" / "test.json").read_text(encoding="utf-8"))
    clean = [samples_of(data / "test" / "clean", row)[0] for row in rows]
    found = [samples_of(folder, row, most) for row in rows]
    of_all = {"": figures(rows, clean, found)}
    if len(found[0]) > 1:
        means = [each.mean(0, keepdims=True) for each in found]
        of_all[f", mean of {len(found[0])}"] = figures(rows, clean, means)
        of_all[""]["calibration"] = calibration(clean, found)
    words = word_errors([row["text"] for row in rows], [""] * len(rows))[:, 1]
    return [{**row, "words": int(n)} for row, n in zip(rows, words, strict=True)], of_all


def main() -> None:
    """Adds methods to the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("runs/sound"))
    parser.add_argument("--restored", nargs="+", required=True, metavar="METHOD=FOLDER")
    parser.add_argument("--samples", type=int, default=1, help="of each recording, at most")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    options = parser.parse_args()
    result: Result = {"recordings": [], "methods": {}}
    if options.out.exists():
        result = json.loads(options.out.read_text(encoding="utf-8"))
    for pair in options.restored:
        name, _, folder = pair.rpartition("=")
        rows, found = measured(options.data, Path(folder), options.samples)
        if result["recordings"] not in ([], rows):
            raise DataError(f"{options.out} is of other recordings")
        result["recordings"] = rows
        result["methods"] |= {name + more: rounded(each) for more, each in found.items()}
        options.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
        print(name, {key: round(float(np.mean(found[""][key])), 3) for key in (*NAMES, EDITS)})


if __name__ == "__main__":
    main()
