"""The loss of classes: least at the exact classifier of noisy tokens; and how that is measured."""

import functools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import from_config
from diffusion_jax.data import ArraySource
from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.evaluation.classified import ClassesFound
from diffusion_jax.from_config import ConfigError
from diffusion_jax.objectives.classified import ClassLoss
from tests.from_config.test_token_tasks import config_of
from tests.runs import context_of, random_dataset, random_texts

V, NUM, SURE = 2, 4096, 30.0
PROCESS = Masked(Polynomial(), V)
X = np.random.default_rng(0).integers(0, V, (NUM, 3)).astype(np.int32)
BATCH = {"x": jnp.asarray(X), "cond": {"label": jnp.asarray(X[:, 0])}, "index": jnp.arange(NUM)}


def first_token(params: Any, signal: jax.Array, t: jax.Array) -> jax.Array:
    """The exact classifier if the class is the first token: sure of it, or of nothing."""
    return params * signal[:, 0, :V]


def test_the_loss_is_least_at_the_exact_classifier() -> None:
    """There it is `log 2` where the first token is masked, half of the time, and else 0."""
    loss = ClassLoss(lambda p, signal, t, key: first_token(p, signal, t), PROCESS, NUM)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def mean(params: jax.Array) -> Any:
        each, metrics = loss(params, BATCH, context_of(jax.random.key(0)))
        return each.mean(), metrics

    (least, metrics), slope = mean(jnp.asarray(SURE))
    assert float(least) == pytest.approx(np.log(2) / 2, abs=0.02)
    assert abs(float(slope)) < 1e-6
    for low in (0.0, 0.5):
        part = np.asarray((metrics["t"] > low) & (metrics["t"] <= low + 0.5))
        masked = low + 0.25
        assert metrics["error"][part].mean() == pytest.approx(masked * np.log(2), abs=0.03)
        assert metrics["accuracy"][part].mean() == pytest.approx(1 - masked / 2, abs=0.03)
    assert mean(jnp.zeros(()))[1] < 0


def test_accuracy_and_cross_entropy_by_noise() -> None:
    """Of masks the likeliest class is a guess: the first."""
    dataset = SimpleNamespace(
        splits={"heldout": ArraySource(X, X[:, 0])},
        kind=SimpleNamespace(decode=np.asarray, vocabulary=V),
    )
    model = SimpleNamespace(
        dataset=dataset,
        params=jnp.asarray(SURE),
        cond_of=lambda split, rows, labels: {"label": labels},
        passport={"seed": 1},
        seed=1,
        batch_size=1024,
    )
    found = ClassesFound(first_token, PROCESS, NUM)(model)
    share = np.mean(X[:, 0] == 0)
    for end, t in (("", 0.0), ("_t0.25", 0.25), ("_t0.75", 0.75)):
        for name, right in (
            ("accuracy", 1 - t + t * share),
            ("cross_entropy", t * np.log(2)),
        ):
            each = found[f"class_{name}{end}"]
            assert each["low"] - 0.01 <= right <= each["high"] + 0.01
            assert each["n"] == NUM
    assert found["class_accuracy"]["passport"]["guess"] == pytest.approx(max(share, 1 - share))


@pytest.mark.slow
@pytest.mark.parametrize("replaced", [False, True])
def test_a_classifier_of_a_config_takes_laws_of_tokens(replaced: bool) -> None:
    """It is told the time of uniform noise, and of masks it sees how many there are."""
    config = config_of("classified", objective__classified__replaced=replaced)
    config.evaluate.metrics = "classes"
    task = from_config.build(config, random_texts(8, 5)).task
    assert task.classifier is not None
    params = jax.tree.map(
        lambda a: jax.random.normal(jax.random.key(a.size), a.shape) / 4,
        jax.eval_shape(task.init, jax.random.key(0)),
    )
    logits = jax.jit(task.classifier.logits)
    signal = jax.nn.softmax(jax.random.normal(jax.random.key(1), (2, 8, 6)))
    half, end = (logits(params, signal, jnp.full(2, t)) for t in (0.5, 1.0))
    assert half.shape == (2, 3)
    assert np.allclose(half, end, atol=1e-6) == (not replaced)
    slope = jax.grad(lambda s: task.classifier.logits(params, s, jnp.ones(2))[0, 0])(signal)
    assert np.abs(slope[0]).min() > 0
    assert not np.any(slope[1])


def test_texts_without_classes_are_refused() -> None:
    config = config_of("classified", evaluate__metrics="classes")
    with pytest.raises(ConfigError, match="needs texts or other tokens of two or more classes"):
        from_config.build(config)
    with pytest.raises(ConfigError, match="and these data are images of 8x8x1"):
        from_config.build(config, random_dataset())
    config.text.name = "bytes"
    with pytest.raises(ConfigError, match=r"'classified' needs text\.name='none', not 'bytes'"):
        from_config.build(config, random_texts(8, 5))
    with pytest.raises(ConfigError, match=r"'classes' needs objective\.name='classified'"):
        from_config.build(config_of(evaluate__metrics="classes"))
