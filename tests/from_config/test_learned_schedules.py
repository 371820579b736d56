"""A schedule for each token that is learned (GenMD4), as a config makes it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hmm
from diffusion_jax import from_config
from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.from_config import make_step
from diffusion_jax.generation.generator import Request
from diffusion_jax.training.state import initial_state
from tests.runs import TINY, context_of
from tests.samplers.test_masked_by_token import POWERS, exact, law_of_steps
from tests.samplers.test_tokens import NUM, TEXTS, every, p_value

LEARNED = {"log_powers": jnp.log(jnp.asarray(POWERS))}


def config_of(**changes):
    config = hmm.get_config()
    config.update_from_flattened_dict({**TINY, "evaluate.metrics": "bits"})
    config.objective.name, config.sample.unmasking.cached = "masked_by_token", False
    config.token_schedule.polynomial.power = 2.0
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def parts_of(items, config):
    """Of texts of three kinds of tokens."""
    source = ArraySource(np.asarray(items, np.int32), np.zeros(len(items), np.int32))
    kind = Tokens((TEXTS.length,), ("a", "b", "c"))
    dataset = Dataset("chain", kind, {"train": Split(source), "heldout": Split(source)})
    return from_config.build(config, dataset)


def of_learned(params, x_t, t, cond):
    """The exact network: of the schedule `t^2`, whose powers are twice those that are learned."""
    return exact(2 * jnp.exp(params["log_powers"]))(x_t, t, cond)


@pytest.mark.slow
def test_samples_have_the_law_of_the_learned_powers():
    task = parts_of(TEXTS.all, config_of(sample__steps=3)).task
    words = "learned powers of 0.50 to 2.00: tokens found first are 'c', 'b', 'a', and last"
    assert task.learned(LEARNED).startswith(words)
    made = dataclasses.replace(task.generator, apply=of_learned)
    texts, _ = made(LEARNED, 0, Request(np.arange(NUM), {}), batch_size=NUM)
    lost = np.linspace(1, 0, 4) ** 2
    assert p_value(texts, law_of_steps(POWERS, exact(POWERS), lost)) > 1e-4
    assert p_value(texts, law_of_steps(np.ones(3), exact(np.ones(3)), lost)) < 1e-9


def test_the_bound_that_is_measured_is_the_entropy_with_the_learned_powers():
    config, num = config_of(), 4000
    generator = dataclasses.replace(parts_of(TEXTS.all, config).task.generator, apply=of_learned)
    family = from_config.token_families.FAMILIES["masked_by_token"]
    (bound,) = family.likelihoods(config, generator.process, 8).values()
    assert bound.evaluations == 16
    denoiser, keys = generator.denoiser(LEARNED), jax.random.split(jax.random.key(0), num)
    x_0 = jnp.asarray(TEXTS.sample(num))
    nats = jax.jit(lambda params: bound.nats(params, denoiser, x_0, {}, keys))
    values, others = (nats({"log_powers": p}) for p in (LEARNED["log_powers"], jnp.zeros(3)))
    assert abs(values.mean() - TEXTS.entropy) < 4 * values.std() / num**0.5
    assert others.mean() - values.mean() > 4 * (others - values).std() / num**0.5


def test_the_loss_and_its_gradient_are_those_of_the_bound():
    """Of a network that is not exact, over all masks and times."""
    num, text = 60_000, np.array([0, 2, 1, 2])
    logits = jax.random.normal(jax.random.key(0), (TEXTS.length, 3)) * 2

    def apply(params, x_t, t, cond, *_):
        return logits * jnp.mean(x_t == 3, axis=-1)[:, None, None]

    loss = parts_of(TEXTS.all, config_of(train__batch_size=num)).task.loss
    batch = {"x": jnp.tile(text, (num, 1)), "cond": {}, "index": jnp.arange(num)}
    context = context_of(jax.random.key(1))

    def drawn(params):
        values, metrics = dataclasses.replace(loss, apply=apply)(params, batch, context)
        return jnp.mean(values), (values, metrics["t"])

    y, weight = np.polynomial.legendre.leggauss(40)
    lost = ((y + 1) / 2)[:, None, None] ** 4  # smooth in its fourth root
    share = weight * 2 * ((y + 1) / 2) ** 3

    def expected(log_powers):
        """The integral over the share that is lost, and the sum over all masks."""
        w, masked = jnp.exp(log_powers), every(2) == 1
        log_p = jax.nn.log_softmax(logits * masked.mean(-1)[:, None, None])
        own = log_p[:, np.arange(TEXTS.length), text]
        each = jnp.where(masked, w[text] * (-own - 1) + jnp.exp(log_p) @ w, 0).mean(-1)
        q = jnp.prod(jnp.where(masked, lost ** w[text], 1 - lost ** w[text]), axis=-1)
        return jnp.sum(share[:, None] * q * each / lost[..., 0])

    gradient, (values, t) = jax.jit(jax.grad(drawn, has_aux=True))(LEARNED)
    truth, slope = jax.jit(jax.value_and_grad(expected))(LEARNED["log_powers"])
    assert abs(t.mean() - 0.5) < 1e-3
    assert abs(values.mean() - truth) < 4 * values.std() / num**0.5
    np.testing.assert_allclose(gradient["log_powers"], slope, atol=0.02)


@pytest.mark.slow
def test_training_moves_the_powers_unless_their_group_stands_still():
    for rate in (1e-2, 0.0):
        groups = {"log_powers": {"learning_rate": rate}}
        config = config_of(optimizer__warmup_steps=0, optimizer__groups=groups)
        parts = parts_of(TEXTS.all, config)
        state = initial_state(parts.task.init, parts.optimizer, jax.random.key(0), parts.averages)
        step = jax.jit(make_step(config, parts))
        batch = {"x": jnp.asarray(TEXTS.sample(16)), "cond": {}, "index": jnp.arange(16)}
        for _ in range(3):
            state, metrics = step(state, batch, jax.random.key(1), {})
            assert np.isfinite(metrics["loss"])
        moved = np.asarray(state.params["log_powers"])
        assert (moved != 0).all() == (rate > 0)
        assert np.ptp(moved) > 0.01 or not rate
