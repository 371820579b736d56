"""Conditioning of samples, by their numbers and with the proportions of the training data."""

import numpy as np
import pytest

from diffusion_jax.generation.conditions import Asked, Conditions
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
