"""CLIP's objective compared with closed forms, and retrieval with counting."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.metrics.retrieval import ranks, text_estimates
from diffusion_jax.models.dual_encoder import DualEncoder, Likeness
from diffusion_jax.objectives.contrastive import ContrastiveLoss, moved
from tests.runs import context_of

N, WIDTH = 8, 5


def units(seed: int, num: int = N, width: int = WIDTH) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def apply(params: dict, x: jax.Array, cond: dict, key: jax.Array) -> Likeness:
    """Pictures and texts as they are given, turned by the parameters."""
    images = x.reshape(len(x), -1) @ params["turn"]
    return Likeness(images, cond["pooled"] @ params["turn"].T, params["scale"])


def batch(images: np.ndarray, texts: np.ndarray) -> dict:
    x = images.reshape(len(images), 1, 1, -1)
    return {"x": x, "cond": {"pooled": texts}, "index": np.arange(len(images), dtype=np.int32)}


def params(scale: float = 4.0) -> dict:
    return {"turn": jnp.eye(WIDTH) + 0.1 * units(5, WIDTH), "scale": jnp.array(scale)}


def cross_entropy(logits: np.ndarray, labels: np.ndarray, axis: int) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis, keepdims=True))
    probability = shifted / shifted.sum(axis, keepdims=True)
    return -np.log(
        np.take_along_axis(probability, np.expand_dims(labels, axis), axis).squeeze(axis)
    )


def test_it_is_the_published_objective():
    """Fig. 3 of Radford et al. 2021, in NumPy, line by line."""
    images, texts, own = units(0), units(1), params()
    loss, metrics = ContrastiveLoss(apply)(own, batch(images, texts), context_of(jax.random.key(0)))
    turn = np.asarray(own["turn"])
    logits = (images @ turn) @ (texts @ turn.T).T * 4.0
    labels = np.arange(N)
    loss_i, loss_t = (cross_entropy(logits, labels, axis) for axis in (0, 1))
    np.testing.assert_allclose(loss, (loss_i + loss_t) / 2, rtol=1e-5)
    np.testing.assert_array_equal(metrics["accuracy"], logits.argmax(1) == labels)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, np.log(5)), (3.0, np.log1p(4 * np.exp(-3)))])
def test_perfect_pairs_have_their_closed_form(scale, expected):
    own = {"turn": jnp.eye(WIDTH), "scale": jnp.array(scale)}
    one_of_each = np.eye(WIDTH, dtype=np.float32)
    loss, _ = ContrastiveLoss(apply)(
        own, batch(one_of_each, one_of_each), context_of(jax.random.key(0))
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_equal_texts_are_no_candidates_of_each_other():
    images, texts, own = units(0), units(1), params()
    twice = batch(np.tile(images, (2, 1)), np.tile(texts, (2, 1)))
    loss, _ = ContrastiveLoss(apply)(own, twice, context_of(jax.random.key(0)))
    # What is not the own pair stands there twice; the own one once.
    turn = np.asarray(own["turn"])
    logits = 4.0 * (images @ turn) @ (texts @ turn.T).T
    weights = 2 - np.eye(N)
    total = [np.log((weights * np.exp(table)).sum(1)) for table in (logits, logits.T)]
    expected = sum(total) / 2 - np.diag(logits)
    np.testing.assert_allclose(loss, np.tile(expected, 2), rtol=1e-5)


def test_devices_share_their_candidates():
    images, texts = units(0), units(1)
    whole = batch(images, texts)
    parts = jax.tree.map(lambda a: a.reshape(4, 2, *a.shape[1:]), whole)
    key = jax.random.key(0)

    def mean(own, part, axis_name):
        return ContrastiveLoss(apply)(own, part, context_of(key, axis_name))[0].mean()

    def on_devices(own):
        each = jax.vmap(lambda part: mean(own, part, "devices"), axis_name="devices")(parts)
        return each.mean()

    expected = jax.value_and_grad(lambda own: mean(own, whole, None))(params())
    found = jax.value_and_grad(on_devices)(params())
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_pictures_are_moved_by_so_much_and_all_alike_wherever_they_lie():
    x = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 1)
    shifts = np.array([[1, 0], [0, -1]])
    found = moved(x, shifts)
    np.testing.assert_array_equal(found[0], np.roll(x[0], 1, axis=0))
    np.testing.assert_array_equal(found[1], np.roll(x[1], -1, axis=1))

    seen = []

    def watch(params, x, cond, key):
        seen.append(np.asarray(x))
        return Likeness(cond["pooled"], cond["pooled"], jnp.array(1.0))

    pictures = np.random.default_rng(0).normal(size=(64, 8, 8, 1)).astype(np.float32)
    every = {"x": pictures, "cond": {"pooled": units(0, 64)}, "index": np.arange(64)}
    loss = ContrastiveLoss(watch, max_shift=1)
    loss({}, every, context_of(jax.random.key(0)))
    loss({}, jax.tree.map(lambda a: a[10:], every), context_of(jax.random.key(0)))
    np.testing.assert_array_equal(seen[0][10:], seen[1])
    ways = [[np.roll(p, (i, j), (0, 1)) for i in (-1, 0, 1) for j in (-1, 0, 1)] for p in pictures]
    which = [
        next(n for n, way in enumerate(each) if np.array_equal(way, found))
        for each, found in zip(ways, seen[0], strict=True)
    ]
    assert len(set(which)) == 9


def test_ranks_count_what_is_as_near_and_retrieval_by_chance_is_chance():
    images = np.eye(4)
    products = np.array([[3.0, 1, 1, 1], [2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 1]])
    np.testing.assert_array_equal(ranks(images, products.T), [0, 1, 3, 2])
    found = text_estimates(images, products.T)
    assert found["top1"].value == 0.25
    assert found["top5"] is None  # of four, it would always be one
    assert found["clip_score"].value == 1.25
    num = 2000
    by_chance = text_estimates(units(0, num), units(1, num))
    assert by_chance["top5"].low < 5 / num < by_chance["top5"].high
    assert abs(by_chance["clip_score"].value) < 5 / num**0.5


@pytest.mark.slow
def test_vectors_have_length_one_and_no_text_has_none():
    net = DualEncoder(16, 4, 8, 0.0)
    x = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
    cond = {"pooled": np.concatenate([units(0, 2), np.zeros((1, WIDTH), np.float32)])}
    variables = net.init(jax.random.key(0), x, cond)
    found = net.apply(variables, x, cond)
    np.testing.assert_allclose(np.linalg.norm(found.images, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.texts, axis=1), [1, 1, 0], rtol=1e-5)
    np.testing.assert_allclose(found.scale, 1 / 0.07, rtol=1e-5)
    hot = {"params": {**variables["params"], "logit_scale": jnp.array(9.0)}}
    assert net.apply(hot, x, cond).scale == 100
    gradient = jax.grad(lambda v: jnp.sum(net.apply(v, x, cond).texts))(variables)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
