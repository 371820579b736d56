"""Does `speaker_similarity` tell voices apart? Pairs of prompts of one voice beside pairs of two.

    python experiments/voices/measure.py MANUAL_DIR [EACH]

MANUAL_DIR has the Debian packages of `data.name=prompts`, and EACH recordings of each of the five
voices are compared, all with all. Writes `voices.json` beside this file.
"""

import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, load_dataset
from diffusion_jax.diffusion.corruption import sample_keys
from diffusion_jax.evaluation.sound_extractor import statistics
from diffusion_jax.evaluation.sound_speaker import RATE, spoken, voice
from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.restoration.sound import coloured_noise, mixed
from diffusion_jax.system.keys import make_key

LENGTH = 2 * RATE
EACH = 60
SNRS = (10, 0)
"""dB of pink noise in one recording of a pair."""
FILLED = 0.9
"""Least share of a window that is spoken."""
REPEATS = 100
OUT = Path(__file__).with_name("voices.json")


def auc(rows: np.ndarray) -> float:
    """The share of pairs of one voice that score above pairs of two, ties counted half.

    Of rows `[N, 2 + 2 D]`: number of the recording, voice, and the features of either recording of
    a pair, whose scores are inner products. A recording makes no pair with itself.
    """
    number, who = rows[:, 0], rows[:, 1]
    first, second = np.split(rows[:, 2:], 2, axis=1)
    score, other = first @ second.T, number[:, None] != number
    same = score[other & (who[:, None] == who)]
    different = np.sort(score[other & (who[:, None] != who)])
    below, upto = (np.searchsorted(different, same, side) for side in ("left", "right"))
    return float((below + upto).mean() / 2 / len(different))


def chosen(dataset: Dataset, each: int) -> tuple[np.ndarray, np.ndarray]:
    """So many windows of each class that are filled: `[N, T]` in [-1, 1], and classes."""
    split = dataset.splits["train"]
    items, labels = split.gather(np.arange(len(split)))
    x, rng = dataset.kind.decode(items)[..., 0], np.random.default_rng(0)
    filled = spoken_share(x) > FILLED
    rows = [
        rng.permutation(np.flatnonzero(filled & (labels == label)))[:each]
        for label in range(dataset.num_classes)
    ]
    return x[np.concatenate(rows)], labels[np.concatenate(rows)]


def spoken_share(x: np.ndarray) -> np.ndarray:
    """The share of each recording `[N, T]` that is not silent."""
    return np.array([spoken(one).mean() if one.any() else 0.0 for one in x])


def measured(x: np.ndarray, who: np.ndarray) -> dict[str, Any]:
    """Areas under the curve by judge and noise, and the mean similarity of each two voices."""
    num = len(x)
    found: dict[str, Any] = {}
    keys = sample_keys(make_key(0), jnp.arange(num))
    noise = coloured_noise(keys, jnp.ones(num), (x.shape[1], 1))
    judged = {"clean": x}
    for snr in SNRS:
        noisy = mixed(jnp.asarray(x)[..., None], noise, jnp.full(num, snr))
        judged[f"pink noise at {snr} dB"] = np.asarray(noisy)[..., 0]
    rows = np.stack([np.arange(num), who], 1)
    plain = np.asarray(statistics(jnp.asarray(x)[..., None], RATE))
    middle, scale = plain.mean(0), plain.std(0)

    def standard(y: np.ndarray) -> np.ndarray:
        z = (np.asarray(statistics(jnp.asarray(y)[..., None], RATE)) - middle) / scale
        return np.asarray(z / np.linalg.norm(z, axis=1, keepdims=True))

    def voices(y: np.ndarray) -> np.ndarray:
        both = zip(x, y, strict=True)
        return np.stack([voice(other[spoken(one)]) for one, other in both])

    judges = {"speaker": voices, "mel statistics": standard}
    for judge, of in judges.items():
        clean = of(x)
        for name, y in judged.items():
            both = np.concatenate([rows, clean, of(y)], axis=1)
            estimate = bootstrap(auc, both, REPEATS, strata=who)
            found[f"{judge}, {name}"] = {**estimate._asdict(), "n": num}
            print(judge, name, estimate, flush=True)
        score = clean @ clean.T - 2.0 * np.eye(num)  # -1 is a recording beside itself
        classes = np.unique(who)
        means = [[score[np.ix_(who == a, who == b)] for b in classes] for a in classes]
        found[f"{judge}, between voices"] = [
            [float(part[part > -1].mean()) for part in row] for row in means
        ]
        print(np.round(found[f"{judge}, between voices"], 3))
    return found


def table(found: dict[str, Any]) -> list[str]:
    """Rows of the areas, as in README.md."""
    judges = "speaker", "mel statistics"
    names = ("clean", *(f"pink noise at {snr} dB" for snr in SNRS))
    rows = ["| other recording of a pair | speaker_similarity | mel statistics |", "|---|---|---|"]
    for name in names:
        each = [found[f"{judge}, {name}"] for judge in judges]
        cells = [f"{e['value']:.3f} ({e['low']:.3f} to {e['high']:.3f})" for e in each]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return rows


def main() -> None:
    """Measures, prints and writes."""
    how: dict[str, Any] = {"rate": RATE, "channels": 1, "length": LENGTH}
    dataset = load_dataset("prompts", manual_dir=sys.argv[1], loudness=-26.0, **how)
    each = int(sys.argv[2]) if sys.argv[2:] else EACH
    found = measured(*chosen(dataset, each))
    print("\n".join(table(found)))
    OUT.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
