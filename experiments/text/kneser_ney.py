"""Interpolated Kneser-Ney n-grams of characters, normalised exactly over an alphabet."""

import numpy as np

FALLBACK = np.array([0, 0.5, 1, 1.5])  # KenLM's, where counts are too few to estimate discounts


class KneserNey:
    """Modified Kneser-Ney n-grams of all orders up to `most` (Chen & Goodman 1998, section 3).

    With the `k - 1` symbols before it as context h, and h' without the first of these,

        p(x | h) = (c(h x) - D(c(h x))) / sum_x c(h x) + left(h) p(x | h'),

    where `left(h)` is what the discounts D leave. The counts c are those of the text for the
    largest k; below they are the numbers of different symbols before `h x`. Under the unigrams is
    the uniform distribution.

    Args:
        text: numbers below `vocabulary`, int `[N]`, N >= `most`.
        vocabulary: number V of symbols.
        most: the largest order.
    """

    def __init__(self, text: np.ndarray, vocabulary: int, most: int) -> None:
        self.vocabulary, self.most = vocabulary, most
        # The k-grams in order: `keys` is V times the number of the first k - 1 symbols among the
        # (k - 1)-grams, plus the last symbol; `_before` is the number of different symbols before.
        self._keys, self._counts, self._before = [np.zeros(1, int)], [np.ones(1, int)], []
        numbers = np.zeros(len(text) + 1, int)  # of the (k - 1)-gram that begins at each place
        for k in range(1, most + 1):
            joint = numbers[:-1] * vocabulary + text[k - 1 :]
            keys, first, place, counts = np.unique(
                joint, return_index=True, return_inverse=True, return_counts=True
            )
            shorter = numbers[first + 1]  # without the first symbol
            self._before.append(np.bincount(shorter, minlength=len(self._keys[-1])))
            self._keys.append(keys)
            self._counts.append(counts)
            numbers = place

    def _level(self, k: int, top: bool) -> tuple[np.ndarray, np.ndarray]:
        """Of k-grams: the first term of each, and `left` of each context."""
        counts = self._counts[k] if top else self._before[k]
        contexts, size = self._keys[k] // self.vocabulary, len(self._keys[k - 1])
        discounts = _discounts(counts)[np.minimum(counts, 3)]
        total = np.bincount(contexts, counts, size)
        some = np.maximum(total, 1)
        left = np.where(total > 0, np.bincount(contexts, discounts, size) / some, 1.0)
        return (counts - discounts) / some[contexts], left

    def nats(self, rows: np.ndarray, order: int) -> np.ndarray:
        """`-log p` of the symbols of `rows` `[M, L]`, given those before them in their row.

        Args:
            rows: numbers below `vocabulary`.
            order: of the n-grams, at most `most`; the first `order - 1` symbols have less context.
        """
        p = np.full(rows.shape, 1 / self.vocabulary)
        numbers = np.zeros((len(rows), rows.shape[1] + 1), int)  # as above; -1 if not in the text
        for k in range(1, min(order, rows.shape[1]) + 1):
            keys, (first, left) = self._keys[k], self._level(k, k == order)
            contexts = numbers[:, :-1]
            wanted = contexts * self.vocabulary + rows[:, k - 1 :]
            place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
            seen = keys[place] == wanted  # never with a context that is not
            rest = np.where(contexts >= 0, left[contexts], 1.0) * p[:, k - 1 :]
            p[:, k - 1 :] = np.where(seen, first[place], 0.0) + rest
            numbers = np.where(seen, place, -1)
        return -np.log(p)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """D of the counts 0, 1, 2, and 3 or more (Chen & Goodman 1998, section 3)."""
    once, twice, three, four = (int(np.sum(counts == number)) for number in (1, 2, 3, 4))
    if not once * twice * three:
        return FALLBACK
    y = once / (once + 2 * twice)
    found = [0, 1 - 2 * y * twice / once, 2 - 3 * y * three / twice, 3 - 4 * y * four / three]
    # Without a discount nothing would be left for symbols that have not been seen.
    return (
        np.array(found) if all(0 < each <= k + 1 for k, each in enumerate(found[1:])) else FALLBACK
    )
