"""The network of block diffusion between the autoregressive and the masked one, and its cache."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.models.attention import block_mask
from diffusion_jax.models.blocks import BlockNetwork, with_cache
from diffusion_jax.models.dit import DiT
from diffusion_jax.models.tokens import signal_of
from diffusion_jax.objectives.tokens import block_bound, by_count, masked_bound
from diffusion_jax.samplers.blocks import Parts, block_times, in_blocks
from diffusion_jax.samplers.loop import run
from diffusion_jax.samplers.unmasking import ancestral, first_hitting

VOCABULARY, LENGTH, NUM = 5, 6, 3
PROCESS = Masked(Polynomial(), VOCABULARY)
KEYS = jax.random.split(jax.random.key(2), NUM)
X_0 = jax.random.randint(jax.random.key(1), (NUM, LENGTH), 0, VOCABULARY)
U = jnp.array([0.1, 0.5, 0.8])


def transformer(mask=None):
    return DiT(*(1, 16, 2, 2), out_channels=VOCABULARY, mask=mask, rotary=True)


@functools.cache
def parameters():
    """Of a network that has left its initialisation, where all blocks are the identity."""
    signal = jnp.zeros((1, LENGTH, VOCABULARY + 1))
    params = transformer().init(jax.random.key(0), signal, jnp.zeros(1), {})["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


def blocks_of(block):
    """The network, and its function `(x_t, t, cond) -> logits`."""
    mask = functools.partial(block_mask, block=block)
    model = BlockNetwork(transformer(mask), VOCABULARY)
    apply = jax.jit(model.apply)
    return model, lambda *inputs: apply({"params": {"network": parameters()}}, *inputs)


@pytest.mark.slow
def test_a_block_of_one_has_the_autoregressive_loss():
    _, network = blocks_of(1)
    loss, _ = block_bound(PROCESS, by_count, 1, PROCESS.denoiser(network), X_0, {}, U, KEYS)
    nats = 0.0
    for i in range(LENGTH):  # from left to right, without what is not there yet
        x_t = jnp.where(jnp.arange(LENGTH) < i, X_0, PROCESS.mask)
        log_p = jax.nn.log_softmax(network(x_t, jnp.ones(NUM), {}))[:, i]
        nats -= jnp.take_along_axis(log_p, X_0[:, i : i + 1], -1)[:, 0]
    np.testing.assert_allclose(loss, nats / LENGTH, rtol=1e-5)


@pytest.mark.slow
def test_a_block_of_all_has_the_loss_of_masking():
    _, network = blocks_of(LENGTH)

    def masked(x_t, t, cond):
        signal = signal_of(x_t, VOCABULARY)
        return transformer().apply({"params": parameters()}, signal, jnp.zeros(NUM), {})

    keys = jax.vmap(lambda key: jax.random.split(key, 1)[0])(KEYS)
    ours, _ = block_bound(PROCESS, by_count, LENGTH, PROCESS.denoiser(network), X_0, {}, U, KEYS)
    theirs, _ = masked_bound(PROCESS, by_count, PROCESS.denoiser(masked), X_0, {}, U, keys)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_a_block_sees_itself_and_earlier_ones_without_noise():
    _, network = blocks_of(2)
    x_t = X_0.at[:, 3].set(PROCESS.mask)
    base = np.asarray(network(x_t, jnp.zeros(NUM), {"clean": X_0}))
    other = (X_0 + 1) % VOCABULARY
    for i in range(LENGTH):
        changed = network(x_t.at[:, i].set(other[:, i]), jnp.zeros(NUM), {"clean": X_0})
        differs = np.abs(np.asarray(changed) - base).max(axis=(0, 2)) > 1e-6
        np.testing.assert_array_equal(differs, np.arange(LENGTH) // 2 == i // 2)
        changed = network(x_t, jnp.zeros(NUM), {"clean": X_0.at[:, i].set(other[:, i])})
        differs = np.abs(np.asarray(changed) - base).max(axis=(0, 2)) > 1e-6
        np.testing.assert_array_equal(differs, np.arange(LENGTH) // 2 > i // 2)


kept = functools.partial(ancestral, cached=True)


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "steps"), [(first_hitting, 2), (ancestral, 4), (kept, 12)])
def test_with_the_cache_samples_are_the_same(inner, steps):
    model, network = blocks_of(2)
    evaluate = with_cache(model, {"network": parameters()}, LENGTH, {})
    times = block_times(jnp.linspace(1, 0, steps + 1), LENGTH // 2)
    x_T = PROCESS.prior(KEYS, (LENGTH,), times[0]).at[0, 3].set(1)  # one is known

    def draw(parts):
        sampler = in_blocks(PROCESS, inner(PROCESS), 2, parts)
        denoiser = PROCESS.denoiser(network)
        return jax.jit(lambda x: run(denoiser, sampler, times, x, {}, KEYS, keep_every=1))(x_T)

    whole, cached = draw(None), draw(Parts(model.cache, evaluate))
    np.testing.assert_array_equal(whole.kept, cached.kept)
    assert (whole.x[0, 3] == 1) & (whole.x < VOCABULARY).all()
    # Of the three blocks two are evaluated once more, for those after them.
    np.testing.assert_array_equal(cached.state.evaluations, whole.state.evaluations + 2)
    if inner is first_hitting:
        np.testing.assert_array_equal(whole.state.evaluations, [LENGTH - 1, LENGTH, LENGTH])
    if inner is kept:  # after each token that is found, until the block is whole
        assert (whole.state.evaluations <= np.array([LENGTH - 1, LENGTH, LENGTH])).all()

    cache = model.cache(NUM, LENGTH)
    for place in (0, 2, 4):
        x_t = jnp.where(jnp.arange(LENGTH) < place + 1, whole.x, PROCESS.mask)
        block = x_t[:, place : place + 2]
        logits, _ = evaluate(cache, block, place)
        expected = network(x_t, jnp.zeros(NUM), {})[:, place : place + 2]
        np.testing.assert_allclose(logits, expected, atol=1e-5)
        _, cache = evaluate(cache, whole.x[:, place : place + 2], place)
