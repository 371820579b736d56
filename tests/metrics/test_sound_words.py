"""Word error rates."""

import itertools

import numpy as np
import pytest

from diffusion_jax.metrics.sound_words import edits, spoken_words, word_error_rate, word_errors


@pytest.mark.parametrize(
    ("reference", "found", "num"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a x c", 1),
        ("a b c", "a c", 1),
        ("a c", "a b c", 1),
        ("a b c", "", 3),
        ("", "a b", 2),
        ("k i t t e n", "s i t t i n g", 3),
    ],
)
def test_edits_by_hand(reference: str, found: str, num: int) -> None:
    assert edits(reference.split(), found.split()) == num


def test_edits_are_the_least_of_all_ways() -> None:
    """By search over all common subsequences: n + m less twice the matches, substitutions aside."""

    def least(a: str, b: str) -> int:
        if not a or not b:
            return len(a) + len(b)
        return min(least(a[1:], b[1:]) + (a[0] != b[0]), least(a[1:], b) + 1, least(a, b[1:]) + 1)

    words = ["".join(w) for n in range(4) for w in itertools.product("xy", repeat=n)]
    for a, b in itertools.product(words, words):
        assert edits(a, b) == least(a, b)


def test_case_and_punctuation_do_not_count() -> None:
    assert spoken_words('Press the "star" key. It’s don\'t!') == [
        *("press", "the", "star", "key", "it's", "don't")
    ]


def test_the_rate_is_of_the_corpus() -> None:
    """One word of ten wrong, and both of two: 3 / 12, not the mean of 0.1 and 1."""
    counts = word_errors(["a b c d e f g h i j", "k l"], ["a b c d e f g h i x", "m n"])
    np.testing.assert_array_equal(counts, [[1, 10], [2, 2]])
    found = word_error_rate(counts, 100)
    assert found.value == 0.25
    assert found.low < 0.25 < found.high


@pytest.mark.slow
def test_the_interval_covers_the_truth_as_often_as_it_should() -> None:
    """Recordings of 1 to 8 words, each wrong with probability 0.3 or 0.1 by recording."""
    rng, covered = np.random.default_rng(1), []
    for _ in range(120):
        words = rng.integers(1, 9, 60)
        wrong = rng.binomial(words, np.where(rng.random(60) < 0.5, 0.3, 0.1))
        found = word_error_rate(np.stack([wrong, words], 1), 60)
        covered.append(found.low <= 0.2 <= found.high)
    assert 0.88 <= np.mean(covered) <= 0.99
