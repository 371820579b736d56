"""Bounds, probabilities and masks of tokens compared with published code, in float64.

Theirs are in `reference/tokens.npz`, made by `reference/make_tokens.py` from MD4, MDLM, Duo, ReMDM,
BD3LM and SEDD for the same logits, texts, noisy texts and times.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion import time_grids
from diffusion_jax.diffusion.tokens import (
    Cosine,
    Masked,
    MaskedByToken,
    Polynomial,
    Replaced,
    found_share,
    loss_rate,
)
from diffusion_jax.models.attention import block_mask
from diffusion_jax.objectives.masked_by_token import bound_at
from diffusion_jax.objectives.tokens import (
    Draw,
    block_bound,
    in_steps,
    masked_bound,
    replaced_bound,
)
from diffusion_jax.samplers.unmasking import most_remasked, refilled

THEIRS = np.load(pathlib.Path(__file__).parents[1] / "reference" / "tokens.npz")
X_0, T = THEIRS["x_0"], THEIRS["t"]
VOCABULARY = THEIRS["logits"].shape[-1]


@dataclasses.dataclass(frozen=True)
class Lost:
    """A schedule of theirs, which does not reach its ends."""

    lost: Callable


LOGLINEAR = Lost(lambda t: (1 - 1e-3) * t)
MDLM_COSINE = Lost(lambda t: (1 - 1e-3) * (1 - jnp.cos(jnp.pi / 2 * t)))


def md4(schedule):
    return Lost(lambda t: 1 - ((1 - 2e-4) * (1 - schedule.lost(t)) + 1e-4))


def same(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=1e-10, atol=1e-10)


def network(x_t, t, cond):
    return jnp.asarray(THEIRS["logits"])


@dataclasses.dataclass(frozen=True)
class Given(Masked):
    """Its noisy data are those that are stored."""

    def corrupt(self, x_0, t, keys):
        return jnp.asarray(THEIRS["x_masked"]).reshape(x_0.shape)


def at_given_times(t):
    """The estimator `in_time` at times of ours, and not uniform."""
    t = jnp.asarray(t)

    def draw(process, x_0, u, keys):
        return Draw(process.corrupt(x_0, t, keys), t, loss_rate(process.schedule, t))

    return draw


def bound(schedule, estimator, u=None):
    process = Given(schedule, VOCABULARY)
    keys = jax.random.split(jax.random.key(0), len(X_0))
    denoiser = process.denoiser(network)
    return masked_bound(process, estimator, denoiser, jnp.asarray(X_0), {}, u, keys)[0]


@pytest.mark.parametrize(("name", "schedule"), [("loglinear", LOGLINEAR), ("cosine", MDLM_COSINE)])
def test_mdlm(x64, name, schedule):
    same(bound(schedule, at_given_times(T)), THEIRS[f"mdlm/{name}"].mean(-1))


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("linear", Polynomial()), ("poly3", Polynomial(3.0)), ("cosine", Cosine())],
)
def test_md4(x64, name, schedule):
    length = X_0.shape[1]
    same(bound(md4(schedule), at_given_times(T)) * length, THEIRS[f"md4/{name}"])
    # Both round times up to the next of ten, and those of theirs are of ten already.
    ours = bound(md4(schedule), in_steps(10), jnp.asarray(T) + 0.01)
    same(ours * length, THEIRS[f"md4/{name}_steps"])


def test_genmd4(x64):
    process = MaskedByToken(Polynomial(), jnp.asarray(THEIRS["genmd4/powers"]))
    x_0, x_t, t = jnp.asarray(X_0), jnp.asarray(THEIRS["x_masked"]), jnp.asarray(T)
    ours = bound_at(process, process.denoiser(network), x_0, x_t, t, {})
    same(ours * X_0.shape[1], THEIRS["genmd4/loss"])


def test_mdlm_in_steps(x64):
    same(bound(Polynomial(), in_steps(10), jnp.asarray(T) - 0.05), THEIRS["mdlm/steps"].mean(-1))


class GivenReplaced(Replaced):
    """Its noisy data are those that are stored."""

    def corrupt(self, x_0, t, keys):
        return jnp.asarray(THEIRS["x_replaced"])


@pytest.mark.parametrize(
    ("name", "schedule"),
    [("duo/linear", Polynomial()), ("duo/cosine", Cosine()), ("sedd/uniform", LOGLINEAR)],
)
def test_uniform_noise(x64, name, schedule):
    """Duo's loss, and SEDD's score entropy of the scores of the same prediction."""
    process = GivenReplaced(schedule, VOCABULARY)
    u = 1 - jnp.asarray(T)
    ours = replaced_bound(process, process.denoiser(network), jnp.asarray(X_0), {}, u, None)[0]
    same(ours, THEIRS[name].mean(-1))


def test_score_entropy_of_masks_is_cross_entropy(x64):
    same(bound(LOGLINEAR, at_given_times(T)), THEIRS["sedd/absorb"].mean(-1))


def probabilities(schedule, t, s, sigma):
    """What a step draws from, `[B, L, V + 1]`."""
    p = np.asarray(jax.nn.softmax(THEIRS["logits"]))
    fill = float(refilled(schedule, t, s, sigma))
    masked = (THEIRS["x_masked"] == VOCABULARY)[..., None]
    own = (X_0[..., None] == np.arange(VOCABULARY)) * (1 - sigma)
    p = np.where(masked, fill * p, own)
    return np.concatenate([p, np.where(masked, 1 - fill, sigma)], axis=-1)


@pytest.mark.parametrize(("number", "t"), [(0, 0.9), (1, 0.4)])
def test_remdm(x64, number, t):
    schedule, t, s = Polynomial(), jnp.asarray(t), jnp.asarray(t - 0.1)
    most = float(most_remasked(schedule, t, s))
    same(probabilities(schedule, t, s, min(0.1, most)), THEIRS[f"remdm/cap_{number}"])
    same(probabilities(schedule, t, s, 0.4 * most), THEIRS[f"remdm/rescale_{number}"])
    # Theirs are proportional, and of what is masked only.
    theirs = THEIRS[f"remdm/ancestral_{number}"] / t
    masked = THEIRS["x_masked"] == VOCABULARY
    same(probabilities(schedule, t, s, 0.0)[masked], theirs[masked])
    same(found_share(schedule, t, s), theirs[masked][0, :-1].sum())


def test_remdm_in_a_loop(x64):
    """It is the rule "cap" along times that stand still."""
    schedule, times = Polynomial(), time_grids.held(100, at=0.1, begin=0.55, end=0.05)
    masked = THEIRS["x_masked"] == VOCABULARY
    for number, place in ((0, 20), (2, 96)):
        t, s = times[place], times[place + 1]
        same(probabilities(schedule, t, s, 0.0)[masked], THEIRS[f"remdm/loop_{number}"][masked] / t)
    t, s = times[70], times[71]
    assert t == s
    assert most_remasked(schedule, t, s) > 0.02
    same(probabilities(schedule, t, s, 0.02), THEIRS["remdm/loop_1"])


def test_bd3lm(x64):
    """The attention masks bit for bit, and the loss with a time for each block."""
    masks = [name for name in THEIRS.files if name.startswith("bd3lm/mask")]
    assert len(masks) == 5
    for name in masks:
        length, block = map(int, name.split("_")[1:])
        np.testing.assert_array_equal(block_mask(2 * length, block), THEIRS[name])
    process = Given(Polynomial(), VOCABULARY)
    times = THEIRS["block_t"]
    block = X_0.shape[1] // times.shape[1]
    keys = jax.random.split(jax.random.key(0), len(X_0))
    estimator, denoiser = at_given_times(times.ravel()), process.denoiser(network)
    u = jnp.zeros(len(X_0))
    ours, t = block_bound(process, estimator, block, denoiser, jnp.asarray(X_0), {}, u, keys)
    same(ours, THEIRS["bd3lm/loss"].mean(-1))
    same(t, times.mean(-1))
