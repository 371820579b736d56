"""Conditioning of samples, by their numbers and with the proportions of the training data."""

import numpy as np
import pytest

from diffusion_jax.data import Images, empty_dataset
from diffusion_jax.generation.conditions import Asked, Conditions
from diffusion_jax.text import Reader
from tests.runs import random_dataset


def conditions(wanted=None, condition=None):
    dataset = random_dataset()
    return dataset, Conditions(dataset, None, condition, None, wanted or Asked(), 16)


def given(x_0, keys):
    """All of a picture."""
    return {"image": x_0}


def test_labels_as_trained_are_in_the_proportions_of_the_data():
    dataset, made = conditions()
    cond, labels = made.as_trained(1000, 0)
    shares = np.bincount(dataset.arrays("train")[1], minlength=10) / len(dataset.splits["train"])
    np.testing.assert_array_less(np.abs(np.bincount(labels, minlength=10) / 1000 - shares), 1e-3)
    np.testing.assert_array_equal(cond["label"], labels)
    # By their numbers they are in turn.
    np.testing.assert_array_equal(made.cond(np.arange(23))["label"], np.arange(23) % 10)


def test_labels_of_samples_that_are_given_pictures_are_those_of_the_pictures():
    dataset, made = conditions(condition=given)
    cond, labels = made.as_trained(50, 0)
    pictures, own = dataset.arrays("heldout")
    rows = np.arange(50) % len(own)
    np.testing.assert_array_equal(labels, own[rows])
    np.testing.assert_array_equal(cond["label"], own[rows])
    np.testing.assert_allclose(cond["image"], dataset.kind.decode(pictures)[rows], atol=1e-6)


def test_no_labels_are_asked_for_where_the_config_says_none():
    cond, labels = conditions(Asked(labels="none"))[1].as_trained(7, 0)
    assert labels is None
    np.testing.assert_array_equal(cond["label"], np.full(7, -1))


@pytest.mark.parametrize("labels", ["10", "3,x", "-1"])
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match=rf"labels='{labels}': allowed are all, none, or classes"):
        conditions(Asked(labels=labels))[1].labels(np.arange(1))


class Lengths:
    """An encoder that pads; a text's features are its length and one."""

    pads, width, pooled_width = True, 1, 2

    def __call__(self, texts):
        lengths = 1 + np.array([len(text) for text in texts], np.float32)
        return {"text": np.tile(lengths[:, None, None], (1, 3, 1)), "pooled": lengths[:, None] * 2}

    @property
    def tokeniser(self):
        return self

    def rest(self, text, length):
        return ""


def test_no_text_is_the_encoded_empty_one_where_a_network_was_trained_with_that():
    dataset = empty_dataset("none", Images((8, 8, 3)), ("a", "b"), captioned=True)
    index = np.arange(2)

    def asked(**wanted):
        reader = Reader(Lengths(), 3, empty=True)
        made = Conditions(dataset, reader, None, None, Asked(**wanted), 16)
        return made.request(index, made.cond(index), 2.0, {})

    without = asked()
    np.testing.assert_array_equal(without.cond["text"], np.ones((2, 3, 1)))
    found = asked(prompts=["four"])
    np.testing.assert_array_equal(found.cond["text"], np.full((2, 3, 1), 5))
    # Guidance leads away from the empty text, and from no class.
    np.testing.assert_array_equal(found.given["negative"]["text"], np.ones((2, 3, 1)))
    np.testing.assert_array_equal(found.given["negative"]["label"], [-1, -1])
    negative = asked(prompts=["four"], negative="no").given["negative"]
    np.testing.assert_array_equal(negative["text"], np.full((2, 3, 1), 3))
