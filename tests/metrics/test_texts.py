"""Metrics of texts, by brute force and against closed forms."""

import itertools

import numpy as np
import pytest

from diffusion_jax.metrics.intervals import bootstrap, mean, wilson
from diffusion_jax.metrics.texts import (
    bits_per_character,
    entropies,
    largest,
    longest_copied,
    pooled_entropies,
    share_of_words,
    word_counts,
    words,
)

REPEATS = 300
rng = np.random.default_rng(0)


def test_bits_are_of_all_texts_together():
    characters = np.array([1, 9])
    found = bits_per_character(np.log(2) * np.array([5, 9]), characters, REPEATS)
    assert found.value == pytest.approx(1.4)  # and not 3, the mean of 5 and 1


def test_the_interval_of_bits_contains_the_truth():
    """Texts of 10 to 100 characters, and 2 bits of each but for those of a text: the ratio is 2."""
    inside = []
    for _ in range(200):
        characters = rng.integers(10, 101, 40)
        bits = characters * (2 + rng.normal(size=40) * 0.3) + rng.normal(size=40)
        found = bits_per_character(bits * np.log(2), characters, 100)
        inside.append(found.low < 2 < found.high)
    assert 0.89 <= np.mean(inside) <= 0.99


def plugin(grams):
    """Entropy in bits of the frequencies of a list."""
    p = np.array([grams.count(gram) for gram in set(grams)]) / len(grams)
    return -np.sum(p * np.log2(p))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_entropies_are_those_of_frequencies(n):
    tokens = rng.integers(0, 3, (5, 9)) * 7
    rows = [[tuple(row[i : i + n]) for i in range(9 - n + 1)] for row in tokens.tolist()]
    np.testing.assert_allclose(entropies(tokens, n), [plugin(row) / n for row in rows])
    everything = plugin(list(itertools.chain(*rows)))
    np.testing.assert_allclose(pooled_entropies(tokens, n).mean(), everything / n)


def test_entropy_of_uniform_and_of_repeating_texts():
    np.testing.assert_allclose(entropies(np.arange(16)[None], 1), 4)
    np.testing.assert_allclose(entropies(np.full((2, 16), 3), 2), 0)
    alike = np.tile(np.arange(4), (3, 4))  # each is varied, and all are the same
    np.testing.assert_allclose(pooled_entropies(alike, 1).mean(), 2)


def test_the_interval_of_the_pooled_entropy_is_that_of_resampled_texts():
    kinds = rng.dirichlet(np.ones(6) * 0.5, 400)
    tokens = np.array([rng.choice(6, 30, p=p) for p in kinds])
    found = mean(pooled_entropies(tokens))
    again = bootstrap(lambda rows: float(pooled_entropies(rows).mean()), tokens, REPEATS)
    assert found.value == pytest.approx(again.value)
    assert (found.high - found.low) / (again.high - again.low) == pytest.approx(1, abs=0.12)


def test_words_that_the_window_cuts_do_not_count():
    assert words("ited States, don’t give 1,000 dollars to Co-op's o") == [
        *("states", "don’t", "give", "dollars", "to", "co", "op's"),
    ]
    assert words("whole") == words("") == []


def test_the_share_of_words_is_of_all_words_together():
    texts = [" a a a b ", " a ", "12", " b b b "]
    counts = word_counts(texts, {"a"})
    np.testing.assert_array_equal(counts, [[3, 4], [1, 1], [0, 3]])
    found = share_of_words(counts, REPEATS)
    assert found.value == 0.5
    assert 0 <= found.low < 0.5 < found.high <= 1
    # Words of a text that are alike count as one.
    alike = share_of_words(np.repeat([[4, 4], [0, 4]], 20, 0), 2000)
    np.testing.assert_allclose(alike, wilson(0.5, 40), atol=0.02)
    # Texts that are all right leave room for one that is not.
    sure = share_of_words(np.full((20, 2), 4), REPEATS)
    assert (sure.value, sure.high) == (1, 1)
    assert sure.low == pytest.approx(1 - 3.84 / (20 + 3.84), abs=1e-3)


def brute_force(text, reference):
    starts = range(len(text) + 1)
    pieces = (text[i:j] for i in starts for j in starts if i <= j)
    return max(len(piece) for piece in pieces if piece in reference)


def test_longest_copies_by_brute_force():
    for size in (2, 3, 5):
        draw = lambda num, size=size: "".join(rng.choice([*"abcde"][:size], num))  # noqa: E731
        for _ in range(30):
            reference = draw(rng.integers(0, 60))
            texts = [draw(rng.integers(0, 20)) for _ in range(6)]
            expected = [brute_force(text, reference) for text in texts]
            np.testing.assert_array_equal(longest_copied(texts, reference), expected)


def test_a_copy_does_not_go_across_texts():
    reference = "we hold these truths"
    np.testing.assert_array_equal(
        longest_copied(["xx we hold", " these truths", "", "xyz", reference], reference),
        [7, 13, 0, 0, 20],
    )


def test_the_largest_of_others_is_in_the_interval():
    both = rng.exponential(size=(2000, 2, 50))
    inside = []
    for mine, others in both:
        found = largest(mine, 1e9)
        assert found.value == mine.max()
        inside.append(found.low <= others.max() <= found.high)
    assert 0.98 <= np.mean(inside) <= 0.995
    assert largest(np.array([3, 1]), 8) == (3, 1, 8)
