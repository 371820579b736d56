"""Texts of a hidden Markov source: any number of them, with their exact probabilities.

A small language of articles, adjectives, nouns, verbs and prepositions, spelled letter by letter
with a blank after each word. A state is a letter of a word of a class; it is hidden, as some words
are of several classes. A window begins anywhere in a text without beginning.
"""

import dataclasses
import functools
from typing import ClassVar

import numpy as np

from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.sets.points import hashed, uniform
from diffusion_jax.data.sources import Items, content_hash
from diffusion_jax.data.tokens import Tokens

LENGTH = 64
ALPHABET = " abcdefghijklmnopqrstuvwxyz"
WORDS = {
    "article": "the a every that",
    "adjective": "old red small light quiet",
    "noun": "cat dog bird fish tree sea ship light watch",
    "verb": "sees likes finds fish light watch follows",
    "preposition": "of near under with",
}
NEXT = {
    "article": {"adjective": 0.4, "noun": 0.6},
    "adjective": {"adjective": 0.2, "noun": 0.8},
    "noun": {"verb": 0.7, "preposition": 0.3},
    "verb": {"article": 0.9, "preposition": 0.1},
    "preposition": {"article": 1.0},
}


@dataclasses.dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A stationary hidden Markov source of V tokens with S states."""

    transition: np.ndarray  # float64 `[S, S]`, rows sum to one
    emission: np.ndarray  # float64 `[S, V]`, rows sum to one

    @functools.cached_property
    def initial(self) -> np.ndarray:
        """The stationary distribution `[S]`."""
        size = len(self.transition)
        equations = np.vstack([self.transition.T - np.eye(size), np.ones(size)])
        found, *_ = np.linalg.lstsq(equations, np.append(np.zeros(size), 1.0), rcond=None)
        return np.maximum(found, 0) / np.maximum(found, 0).sum()

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """Log probability in nats `[N]` of windows `[N, L]` (forward algorithm, Rabiner 1989)."""
        total = np.zeros(len(tokens))
        state = np.broadcast_to(self.initial, (len(tokens), len(self.initial)))
        for column in tokens.T:
            joint = state * self.emission[:, column].T
            p = joint.sum(1)
            with np.errstate(divide="ignore"):
                total += np.log(p)
            state = joint / np.maximum(p, 1e-300)[:, None] @ self.transition
        return total


def language() -> HiddenMarkov:
    """The small language."""
    words = [(kind, word + " ") for kind, found in WORDS.items() for word in found.split()]
    first = np.cumsum([0, *(len(word) for _, word in words)])
    transition = np.zeros((first[-1], first[-1]))
    emission = np.zeros((first[-1], len(ALPHABET)))
    for (kind, word), start in zip(words, first, strict=False):
        last = start + len(word) - 1
        for place, letter in enumerate(word):
            emission[start + place, ALPHABET.index(letter)] = 1
        transition[np.arange(start, last), np.arange(start + 1, last + 1)] = 1
        for (other, _), begin in zip(words, first, strict=False):
            among = len(WORDS[other].split())
            transition[last, begin] = NEXT[kind].get(other, 0) / among
    return HiddenMarkov(transition, emission)


@dataclasses.dataclass(frozen=True, eq=False)
class WindowSource:
    """Random access to `size` windows of a source: a pure function of seed, row and draw."""

    law: HiddenMarkov
    length: int
    size: int
    seed: int
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    def __len__(self) -> int:
        return self.size

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Windows for `rows` [B]: tokens int32 `[B, length]` and labels, all 0.

        A different number in `draws`, uint64 `[B]` (None: 0), gives an independent window.
        """
        word = np.full(len(rows), self.seed, np.uint64)
        for number in (rows, np.zeros_like(rows) if draws is None else draws):
            word = hashed(word) + np.asarray(number).astype(np.uint64)
        words = hashed(hashed(word)[:, None] + np.arange(2 * self.length, dtype=np.uint64))
        u = uniform(words).reshape(len(rows), self.length, 2)
        steps, symbols = (np.cumsum(p, -1) for p in (self.law.transition, self.law.emission))
        begin = np.cumsum(self.law.initial)
        tokens = np.empty((len(rows), self.length), np.int32)
        state = np.zeros(len(rows), int)
        for i in range(self.length):
            table = np.broadcast_to(begin, (len(rows), len(begin))) if i == 0 else steps[state]
            state = _picked(table, u[:, i, 0])
            tokens[:, i] = _picked(symbols[state], u[:, i, 1])
        return tokens, np.zeros(len(rows), np.int32)


def _picked(cumulative: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Entries `[B]` of distributions with cumulative sums `[B, N]`, at uniform `u` `[B]`."""
    last = cumulative[:, -1:]
    return np.minimum((cumulative <= u[:, None] * last).sum(1), cumulative.shape[1] - 1)


def load_hidden_markov(options: Options) -> Dataset:
    """Windows of `length` (0: 64) letters of the `language`.

    Each read of a training row is a new window; held-out ones are fixed.
    """
    law, length = language(), options.length or LENGTH
    splits = {
        name: Split(WindowSource(law, length, size, seed))
        for seed, (name, size) in enumerate({"train": 2**16, "heldout": 2**12}.items())
    }
    kind = Tokens((length,), tuple(ALPHABET))
    fingerprint = content_hash(law.transition, law.emission, length)
    return Dataset(options.name, kind, splits, fingerprint=fingerprint)
