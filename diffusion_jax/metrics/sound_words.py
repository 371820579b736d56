"""Word error rate of transcripts."""

from collections.abc import Sequence

import numpy as np

from diffusion_jax.metrics.intervals import Estimate
from diffusion_jax.metrics.texts import WORD, ratio


def spoken_words(text: str) -> list[str]:
    """Words in lower case, without punctuation: 'Press the "star" key.' has four."""
    return [each.replace("’", "'").casefold() for each in WORD.findall(text)]


def edits(reference: Sequence[str], found: Sequence[str]) -> int:
    """Least number of substitutions, insertions and deletions between them (Levenshtein 1966)."""
    row = list(range(len(found) + 1))
    for number, word in enumerate(reference, 1):
        diagonal, row[0] = row[0], number
        for place, other in enumerate(found, 1):
            least = min(diagonal + (word != other), row[place] + 1, row[place - 1] + 1)
            diagonal, row[place] = row[place], least
    return row[-1]


def word_errors(references: Sequence[str], found: Sequence[str]) -> np.ndarray:
    """Edits, and words of the reference, of each pair of transcripts: int `[N, 2]`."""
    pairs = [(spoken_words(a), spoken_words(b)) for a, b in zip(references, found, strict=True)]
    return np.array([(edits(a, b), len(a)) for a, b in pairs], int).reshape(-1, 2)


def word_error_rate(counts: np.ndarray, repeats: int) -> Estimate:
    """All edits over all words of `counts` `[N, 2]`; above 1 where many words are inserted.

    Not the mean over recordings, in which short ones would count as much as long ones. The interval
    is over recordings, by resampling them.
    """
    return ratio(counts[:, 0], counts[:, 1], repeats)
