"""Metrics of texts: bits per character, entropies, share of known words, longest copies.

Texts are strings, or windows of tokens `[N, L]`. Low perplexity comes with repetition, too: the
entropy of samples belongs beside it.
"""

import re
from collections.abc import Hashable, Iterable, Sequence, Set

import numpy as np

from diffusion_jax.metrics.intervals import Estimate, bootstrap, quantile, share

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
RANK = 6  # another set's largest value is below the sixth largest with probability < 2^-6


def ratio(parts: np.ndarray, wholes: np.ndarray, repeats: int) -> Estimate:
    """The sum of `parts` `[N]` over that of `wholes` `[N]`; the interval is over pairs of them."""
    pairs = np.stack([parts, wholes], 1).astype(np.float64)
    return bootstrap(lambda rows: float(np.divide(*rows.sum(0))), pairs, repeats)


def bits_per_character(nats: np.ndarray, characters: np.ndarray, repeats: int) -> Estimate:
    """All nats of texts `[N]` over all their `characters` `[N]`, in bits.

    Not the mean over texts: texts of few characters would count as much as long ones.
    """
    return ratio(np.asarray(nats, np.float64) / np.log(2), characters, repeats)


def entropies(tokens: np.ndarray, n: int = 1) -> np.ndarray:
    """Entropy of the n-grams within each of the texts `[N, L]`, in bits per token, `[N]`.

    It is that of their frequencies, over n; at most `log2(L - n + 1) / n`, and 0 for a text that
    repeats one token.
    """
    grams = _grams(tokens, n)
    own = np.arange(len(grams))[:, None] * (grams.max() + 1) + grams
    return np.log2(grams.shape[1] / _frequencies(own)).mean(1) / n


def pooled_entropies(tokens: np.ndarray, n: int = 1) -> np.ndarray:
    """The part `[N]` of each text `[N, L]` in the entropy of all their n-grams, in bits per token.

    The mean is the entropy of the frequencies in all texts, over n, and the variance of the mean
    its variance (the infinitesimal jackknife): texts that are alike have less than real ones.
    """
    grams = _grams(tokens, n)
    return np.log2(grams.size / _frequencies(grams)).mean(1) / n


def _grams(tokens: np.ndarray, n: int) -> np.ndarray:
    """A number for each n-gram, `[N, L - n + 1]`, the same for equal ones."""
    found = np.unique(tokens, return_inverse=True)[1].reshape(tokens.shape)
    first = found
    for i in range(1, n):
        pairs = found[:, :-1] * (int(np.max(first)) + 1) + first[:, i:]
        found = np.unique(pairs, return_inverse=True)[1].reshape(pairs.shape)
    return found


def _frequencies(numbers: np.ndarray) -> np.ndarray:
    """How often each of the numbers occurs among all, shaped like them."""
    _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    return counts[place].reshape(numbers.shape)


def words(text: str) -> list[str]:
    """The words of a window of text in lower case, without those that its ends may cut."""
    whole = (each for each in WORD.finditer(text) if each.start() > 0 and each.end() < len(text))
    return [each[0].casefold() for each in whole]


def word_counts(texts: Sequence[str], known: Set[str]) -> np.ndarray:
    """Numbers of known words and of all words, int `[N, 2]`, of the texts that have words."""
    found = [words(text) for text in texts]
    counts = [(sum(word in known for word in each), len(each)) for each in found if each]
    return np.array(counts, int).reshape(-1, 2)


def share_of_words(counts: np.ndarray, repeats: int) -> Estimate:
    """The share of known words among all, from `word_counts` of two texts or more."""
    found = ratio(counts[:, 0], counts[:, 1], repeats)
    variance = ((found.high - found.value) / quantile(len(counts))) ** 2
    return share(found.value, variance, len(counts))


def longest_copied(texts: Sequence[str], reference: str) -> np.ndarray:
    """Length of the longest substring of each text that is in the reference, int `[N]`.

    The reference is read once, by the suffix automaton of all texts (Blumer et al. 1985), in time
    proportional to their characters and its own.
    """
    # The end of a text is no character: nothing of the reference goes across.
    follow, link, length, ends = _automaton(each for text in texts for each in (*text, None))
    best = [0] * len(link)  # longest substring of the reference that ends in each state
    state = matched = 0
    for symbol in reference:
        while state and symbol not in follow[state]:
            state = link[state]
            matched = length[state]
        if symbol in follow[state]:
            state = follow[state][symbol]
            matched += 1
            if matched > best[state]:
                best[state] = matched
    # With a string its suffixes are found, and a prefix of a text has what its suffixes have.
    states = sorted(range(1, len(link)), key=length.__getitem__)
    for state in reversed(states):
        if best[state]:
            best[link[state]] = length[link[state]]
    for state in states:
        best[state] = best[state] or best[link[state]]
    starts = np.cumsum([0, *(len(text) + 1 for text in texts)])
    found: np.ndarray = np.maximum.reduceat(np.array(best)[ends], starts[:-1])
    return found


def _automaton(
    symbols: Iterable[Hashable],
) -> tuple[list[dict[Hashable, int]], list[int], list[int], list[int]]:
    """The suffix automaton of a sequence (Blumer et al. 1985).

    Returns:
        The transitions of each state, its suffix link, the length of its longest string, and the
        state of each prefix of the sequence.
    """
    follow: list[dict[Hashable, int]] = [{}]
    link, length, ends = [-1], [0], []
    last = 0
    for symbol in symbols:
        state, new = last, len(link)
        follow.append({})
        length.append(length[last] + 1)
        while state >= 0 and symbol not in follow[state]:
            follow[state][symbol] = new
            state = link[state]
        if state < 0:
            link.append(0)
        else:
            target = follow[state][symbol]
            if length[target] == length[state] + 1:
                link.append(target)
            else:
                copy = new + 1
                link += [copy, link[target]]
                follow.append(dict(follow[target]))
                length.append(length[state] + 1)
                link[target] = copy
                while state >= 0 and follow[state].get(symbol) == target:
                    follow[state][symbol] = copy
                    state = link[state]
        last = new
        ends.append(new)
    return follow, link, length, ends


def largest(values: np.ndarray, most: float) -> Estimate:
    """The largest of values `[N]`, none of which can exceed `most`.

    The largest of N others lies in the interval with probability above 98%, whatever their law:
    below the sixth largest with `C(2N - 6, N) / C(2N, N) < 2^-6`. There is no upper limit of the
    samples' own (order statistics; Wilks 1942).
    """
    ordered = np.sort(values)[::-1]
    return Estimate(float(ordered[0]), float(ordered[min(RANK, len(ordered)) - 1]), float(most))
