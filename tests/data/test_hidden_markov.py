"""Texts of a hidden Markov source have the probabilities that it gives them."""

import jax.numpy as jnp
import numpy as np
from scipy import stats

from diffusion_jax.data import load_dataset
from diffusion_jax.data.sets.hidden_markov import ALPHABET, HiddenMarkov, WindowSource, language
from tests.token_oracles import Markov, Texts

rng = np.random.default_rng(3)
SMALL = HiddenMarkov(rng.dirichlet(np.ones(4), 4), rng.dirichlet(np.ones(3), 4))
TEXTS = Texts(np.empty(0), 3, 4).all


def test_probabilities_of_all_texts_sum_to_one_and_windows_are_stationary():
    p = np.exp(SMALL.log_prob(TEXTS))
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    one = SMALL.initial @ SMALL.emission
    for place in range(4):
        marginal = [p[TEXTS[:, place] == v].sum() for v in range(3)]
        np.testing.assert_allclose(marginal, one, rtol=1e-10)


def test_windows_are_of_the_source_and_reads_are_repeatable():
    source = WindowSource(SMALL, 4, 20_000, seed=5)
    rows = np.arange(20_000)
    tokens, _ = source.gather(rows)
    counts = np.bincount(tokens @ 3 ** np.arange(4)[::-1], minlength=81)
    assert stats.chisquare(counts, np.exp(SMALL.log_prob(TEXTS)) * 20_000).pvalue > 1e-4
    np.testing.assert_array_equal(source.gather(rows[7:9])[0], tokens[7:9])
    assert (source.gather(rows, rows.astype(np.uint64) + 1)[0] != tokens).any(1).mean() > 0.9


def test_forward_and_backward_are_the_sums_over_all_texts():
    texts = Texts(np.exp(SMALL.log_prob(TEXTS)), 3, 4)
    evidence = jnp.asarray(rng.uniform(size=(6, 4, 3)))
    for others in (False, True):
        np.testing.assert_allclose(
            Markov(SMALL).conditional(evidence, others),
            texts.conditional(evidence, others),
            rtol=1e-5,
        )


def test_the_language_is_read_as_text():
    tokens, _ = WindowSource(language(), 64, 8, 0).gather(np.arange(8))
    texts = ["".join(ALPHABET[token] for token in row) for row in tokens]
    assert sum(text.count(" the ") for text in texts) > 2
    assert np.isfinite(language().log_prob(tokens)).all()


def test_the_data_set_is_of_windows_that_are_never_the_same():
    dataset = load_dataset("hmm")
    assert dataset.kind.words == "texts of 64 characters"
    assert "".join(dataset.kind.pieces) == ALPHABET
    assert {key: len(split) for key, split in dataset.splits.items()} == {
        "train": 65_536,
        "heldout": 4_096,
    }
    longer = load_dataset("hmm", length=100)
    train, heldout = (longer.splits[key] for key in ("train", "heldout"))
    rows, draws = np.arange(50), rng.integers(0, 2**32, (2, 50)).astype(np.uint64)
    seen = [source.gather(rows, each)[0] for source in (train, heldout) for each in (None, *draws)]
    assert len({item.tobytes() for items in seen for item in items}) == 300
    assert np.isfinite(language().log_prob(np.concatenate(seen))).all()
    assert longer.fingerprint != dataset.fingerprint
