"""Classical models of texts, in bits per character: compressors and Kneser-Ney n-grams.

    PYTHONPATH=. python experiments/text/baselines.py --hidden_markov
    PYTHONPATH=. python experiments/text/baselines.py --train train.txt --heldout heldout.txt

See README.md.
"""

import argparse
import bz2
import importlib.util
import itertools
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data.sets.hidden_markov import ALPHABET, WindowSource, language
from diffusion_jax.metrics.texts import bits_per_character
from experiments.text.kneser_ney import KneserNey

Pack = Callable[[bytes], bytes]
Result = dict[str, dict[str, Any]]
ORDERS = 1, 2, 3, 4, 6, 8, 12, 16  # of n-grams that are tried
PPMD_ORDERS, PPMD_MEMORY = (4, 8, 12, 16), 1 << 29
STRETCHES = 10  # of the training text; orders are chosen on the last tenth of each
REPEATS = 1000  # of the bootstrap
CONTINUOUS = 64  # texts without beginning of the hidden Markov source, for training


def xz(data: bytes) -> bytes:
    """LZMA with a window of the whole text."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 26}]
    return lzma.compress(data, lzma.FORMAT_RAW, filters=filters)


def ppmd(order: int) -> Pack:
    """PPMd, variant H (Shkarin 2002), with contexts of up to `order` bytes."""
    import pyppmd

    return lambda data: pyppmd.compress(data, max_order=order, mem_size=PPMD_MEMORY, variant="H")


def packed(pack: Pack, train: str, heldout: str) -> float:
    """Bits per character of the held-out text after the training text."""
    before, after = (len(pack(text.encode())) for text in (train, train + heldout))
    return 8 * (after - before) / len(heldout)


def parted(text: str) -> tuple[str, str]:
    """A training text without the last tenth of each of its stretches, and these."""
    ends = np.linspace(0, len(text), STRETCHES + 1).astype(int)
    stretches = [text[a:b] for a, b in itertools.pairwise(ends)]
    cuts = [round(0.9 * len(each)) for each in stretches]
    pieces = [(each[:cut], each[cut:]) for each, cut in zip(stretches, cuts, strict=True)]
    most, rest = ("".join(piece) for piece in zip(*pieces, strict=True))
    return most, rest


def numbered(text: str, symbols: str) -> np.ndarray:
    """The number of each character among the sorted `symbols`."""
    places, characters = (np.frombuffer(a.encode("utf-32-le"), np.uint32) for a in (symbols, text))
    return np.searchsorted(places, characters)


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """Consecutive windows `[M, length]`; the rest is left out."""
    return values[: len(values) // length * length].reshape(-1, length)


def interval(nats: np.ndarray) -> dict[str, float]:
    """Bits per character of `-log p` `[M, L]`, with the interval over the rows."""
    return bits_per_character(nats.sum(1), np.full(len(nats), nats.shape[1]), REPEATS)._asdict()


def best_order(train: str, symbols: str) -> int:
    """The order of n-grams that is the best on parts of the training text."""
    most, rest = (numbered(each, symbols) for each in parted(train))
    model = KneserNey(most, len(symbols), max(ORDERS))
    return min(ORDERS, key=lambda order: float(model.nats(rest[None], order).mean()))


def n_grams(train: str, heldout: str, length: int) -> Result:
    """Kneser-Ney n-grams of the characters of both texts, on the text and on windows of it.

    The order is the best on parts of the training text.
    """
    symbols = "".join(sorted(set(train + heldout)))
    text, held = (numbered(each, symbols) for each in (train, heldout))
    order = best_order(train, symbols)
    model, about = KneserNey(text, len(symbols), order), {"order": order, "alphabet": len(symbols)}
    running, alone = model.nats(held[None], order)[0], model.nats(windows(held, length), order)
    return {
        "kneser_ney": {**interval(windows(running, length)), **about},
        "kneser_ney_windows": {**interval(alone), **about},
    }


def compressors(train: str, heldout: str) -> Result:
    """Bytes of both texts less those of the training text; they go on learning as they read.

    PPMd, of the order that is the best on parts of the training text, needs the package pyppmd.
    """
    found: Result = {
        "xz": {"value": packed(xz, train, heldout)},
        "bz2": {"value": packed(lambda data: bz2.compress(data, 9), train, heldout)},
    }
    if importlib.util.find_spec("pyppmd"):
        tried = {each: packed(ppmd(each), *parted(train)) for each in PPMD_ORDERS}
        order = min(PPMD_ORDERS, key=tried.__getitem__)
        found["ppmd"] = {"value": packed(ppmd(order), train, heldout), "order": order}
    return found


def compare(train: str, heldout: str, length: int) -> Result:
    """All baselines on a held-out text; those on windows know nothing before their beginning."""
    return {**compressors(train, heldout), **n_grams(train, heldout, length)}


def hidden_markov(size: int, length: int) -> Result:
    """The same on a text of `size` characters of the small language, beside its exact entropy.

    The held-out text has an eighth of that size.
    """
    source = WindowSource(language(), size // CONTINUOUS, CONTINUOUS * 9 // 8, seed=0)
    tokens, _ = source.gather(np.arange(len(source)))
    texts = ["".join(ALPHABET[token] for token in row) for row in tokens]
    train, heldout = "".join(texts[:CONTINUOUS]), "".join(texts[CONTINUOUS:])
    held = tokens[CONTINUOUS:]
    alone = windows(held.ravel(), length)
    exact = {
        "entropy": interval(-source.law.log_prob(held)[:, None] / [held.shape[1]]),
        "entropy_windows": interval(-source.law.log_prob(alone)[:, None] / [length]),
    }
    return {**exact, **compare(train, heldout, length)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=Path, help="a text file")
    parser.add_argument("--heldout", type=Path, help="another")
    parser.add_argument("--hidden_markov", action="store_true", help="a text of known entropy")
    parser.add_argument("--size", type=int, default=1 << 20, help="characters of that text")
    parser.add_argument("--length", type=int, default=256, help="characters of a window")
    parser.add_argument("--out", type=Path, help="JSON file of the results")
    asked = parser.parse_args()
    if asked.hidden_markov:
        found = hidden_markov(asked.size, asked.length)
    elif asked.train and asked.heldout:
        train, heldout = (each.read_text("utf-8") for each in (asked.train, asked.heldout))
        found = compare(train, heldout, asked.length)
    else:
        parser.error("--hidden_markov, or --train and --heldout, are needed")
    for name, entry in found.items():
        limits = " to ".join(f"{entry[key]:.4f}" for key in ("low", "high") if key in entry)
        print(f"{name:20} {entry['value']:.4f}  {limits}")
    if asked.out:
        asked.out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
