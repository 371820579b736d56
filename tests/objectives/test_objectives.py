import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.diffusion.prediction import PREDICTIONS
from diffusion_jax.diffusion.process import Gaussian
from diffusion_jax.diffusion.time_sampling import discrete, uniform
from diffusion_jax.objectives.gaussian import Error, GaussianLoss
from diffusion_jax.objectives.parts import Conditioning, Times
from diffusion_jax.objectives.weightings import (
    edm,
    min_snr,
    p2,
    sigmoid,
    snr,
    truncated_snr,
    vlb,
)
from tests.oracles import SCHEDULES, as_it_is, gaussian
from tests.runs import context_of

all_schedules = pytest.mark.parametrize("name", SCHEDULES)
all_predictions = pytest.mark.parametrize("kind", PREDICTIONS)
BETAS = np.linspace(1e-4, 0.02, 1000)
ALPHA_BARS = np.concatenate([[1.0], np.cumprod(1 - BETAS)])


class Recorder:
    """A small network that remembers what it was given."""

    def __call__(self, params, x_t, t, cond, dropout_key):
        self.x_t, self.t, self.cond = x_t, t, cond
        return params["a"] * jnp.tanh(x_t) + params["b"] * t[:, None, None] + 0.3


PARAMS = {"a": 0.7, "b": -0.4}


BATCH = 6
TIMES = Times(uniform(0.02, 0.98), BATCH)
IMAGES = Identity((3, 2), 1.0, 256)


def make_loss(name, kind, apply, space="eps", *, times=TIMES, codec=IMAGES, **settings):
    """Of a network that is told `t` itself; settings are of `Error`, and further ones."""
    error = {key: settings.pop(key) for key in ("weighting", "huber") if key in settings}
    variance = "vlb_steps" in settings
    process = Gaussian(SCHEDULES[name], PREDICTIONS[kind], variance, as_it_is)
    error = Error(PREDICTIONS[space], **error)
    return GaussianLoss(apply, process, codec, times, error, **settings)


def make_batch(num=BATCH, shape=(3, 2)):
    x = np.random.default_rng(0).normal(size=(num, *shape))
    return {"x": jnp.asarray(x), "index": jnp.arange(num), "cond": {"label": jnp.arange(num)}}


def constant(t):
    return lambda u: jnp.full_like(u, t)


# Textbook formulas, apart from the package; all take `[B, 3, 2]` and coefficients `[B, 1, 1]`.


def scales(name, t):
    """alpha, sigma and their time derivatives (finite differences) at `t` `[B]`."""
    schedule, h = SCHEDULES[name], 1e-6
    values = [schedule.alpha(t), schedule.sigma(t)]
    values += [(f(t + h) - f(t - h)) / (2 * h) for f in (schedule.alpha, schedule.sigma)]
    return [np.asarray(v)[:, None, None] for v in values]


def say(kind, x_0, eps, alpha, sigma, alpha_rate, sigma_rate):
    return {
        "eps": eps,
        "x0": x_0,
        "v": alpha * eps - sigma * x_0,
        "velocity": alpha_rate * x_0 + sigma_rate * eps,
        "score": -eps / sigma,
        # Table 1, Karras et al. 2022, at x_t / alpha_t and sigma_t / alpha_t.
        "edm": (x_0 - c_skip(alpha, sigma) * (alpha * x_0 + sigma * eps)) / c_out(alpha, sigma),
    }[kind]


def x_0_said(kind, y, x_t, alpha, sigma, alpha_rate, sigma_rate):
    return {
        "eps": (x_t - sigma * y) / alpha,
        "x0": y,
        "v": (alpha * x_t - sigma * y) / (alpha**2 + sigma**2),
        "velocity": (sigma_rate * x_t - sigma * y) / (alpha * sigma_rate - sigma * alpha_rate),
        "score": (x_t + sigma**2 * y) / alpha,
        "edm": c_skip(alpha, sigma) * x_t + c_out(alpha, sigma) * y,
    }[kind]


DATA = 0.5
"""The standard deviation that EDM takes the data to have."""


def c_skip(alpha, sigma):
    return DATA**2 / ((sigma / alpha) ** 2 + DATA**2) / alpha


def c_out(alpha, sigma):
    return sigma / alpha * DATA / np.sqrt((sigma / alpha) ** 2 + DATA**2)


def noisy(network, kind, name):
    """`x_t` of what the network was given, which is `c_in x_t`."""
    alpha, sigma = scales(name, network.t)[:2]
    c_in = 1 / np.sqrt(sigma**2 + DATA**2 * alpha**2) if kind == "edm" else 1.0
    return np.asarray(network.x_t) / c_in


def mean_square(x):
    return np.mean(np.asarray(x) ** 2, axis=(1, 2))


def textbook_snr(name, t):
    return np.asarray(SCHEDULES[name].alpha(t) ** 2 / SCHEDULES[name].sigma(t) ** 2)


WEIGHTINGS = {
    "snr": (snr, lambda s, rate: s),
    "truncated": (truncated_snr, lambda s, rate: np.maximum(s, 1)),
    "min_5": (min_snr, lambda s, rate: np.minimum(s, 5)),
    "min_1": (functools.partial(min_snr, gamma=1.0), lambda s, rate: np.minimum(s, 1)),
    "p2": (functools.partial(p2, k=2.0, gamma=0.5), lambda s, rate: s / np.sqrt(2 + s)),
    # lambda(sigma) = (sigma^2 + data^2) / (sigma data)^2, Karras et al. 2022.
    "edm": (edm, lambda s, rate: (1 / s + DATA**2) / (DATA**2 / s)),
    "sigmoid": (sigmoid, lambda s, rate: -rate / 2 / (1 + np.exp(1 + np.log(s)))),
    "vlb": (vlb, lambda s, rate: -rate / 2),
}


@all_schedules
@all_predictions
def test_loss_is_the_textbook_formula(x64, name, kind):
    """For each loss space: the plain squared error of what the network says in that space."""
    for space in PREDICTIONS:
        network, batch = Recorder(), make_batch()
        loss, metrics = make_loss(name, kind, network, space)(
            PARAMS, batch, context_of(jax.random.key(1))
        )
        values = scales(name, network.t)
        alpha, sigma = values[:2]
        x_t = noisy(network, kind, name)
        eps = (x_t - alpha * batch["x"]) / sigma
        y = network(PARAMS, network.x_t, network.t, {}, None)
        x_0_hat = x_0_said(kind, y, x_t, *values)
        eps_hat = (x_t - alpha * x_0_hat) / sigma
        error = say(space, x_0_hat, eps_hat, *values) - say(space, batch["x"], eps, *values)
        np.testing.assert_allclose(loss, mean_square(error), rtol=1e-5)
        np.testing.assert_array_equal(metrics["error"], loss)
        np.testing.assert_array_equal(metrics["t"], network.t)


@all_schedules
@all_predictions
def test_weighted_loss_is_the_textbook_formula(x64, name, kind):
    """A weighting multiplies `||x_0_hat - x_0||^2`, whatever network and loss space."""
    network, batch, context = Recorder(), make_batch(), context_of(jax.random.key(1))
    plain, _ = make_loss(name, kind, network, "v")(PARAMS, batch, context)
    t = network.t
    rate = (textbook_snr(name, t + 1e-7) - textbook_snr(name, t - 1e-7)) / 2e-7
    y = network(PARAMS, network.x_t, t, {}, None)
    x_t = noisy(network, kind, name)
    error = mean_square(x_0_said(kind, y, x_t, *scales(name, t)) - batch["x"])
    for weighting, textbook in WEIGHTINGS.values():
        loss, metrics = make_loss(name, kind, network, "v", weighting=weighting)(
            PARAMS, batch, context
        )
        weight = textbook(textbook_snr(name, t), rate)
        np.testing.assert_allclose(loss, weight * error, rtol=1e-5)
        np.testing.assert_array_equal(metrics["error"], plain)


def test_huber_is_the_square_for_small_errors_and_the_root_for_large(x64):
    """Sec. 3.3, Song & Dhariwal 2024: `sqrt(|e|^2 + c^2) - c`, for the errors of a whole sample."""
    batch, context = make_batch(), context_of(jax.random.key(1))
    square, metrics = make_loss("flow", "v", Recorder(), "v")(PARAMS, batch, context)
    for c in (0.03, 1.0):
        found, again = make_loss("flow", "v", Recorder(), "v", huber=c)(PARAMS, batch, context)
        np.testing.assert_allclose(found, np.sqrt(square + c**2) - c, rtol=1e-12)
        np.testing.assert_array_equal(again["error"], metrics["error"])
    weighted, _ = make_loss("flow", "v", Recorder(), "v", huber=0.3, weighting=snr)(
        PARAMS, batch, context
    )
    in_x_0, _ = make_loss("flow", "v", Recorder(), "x0")(PARAMS, batch, context)
    t = np.asarray(metrics["t"])
    expected = ((1 - t) / t) ** 2 * (np.sqrt(in_x_0 + 0.3**2) - 0.3)
    np.testing.assert_allclose(weighted, expected, rtol=1e-9)


def loss_with_time_law(logits, num=4000):
    """Mean loss, and its gradient for the logits, of an error that depends on `t` alone."""
    apply = lambda params, x_t, t, *_: jnp.sqrt(t)[:, None, None] + 0 * x_t  # noqa: E731
    times = Times(uniform(0, 1), num, lambda p: p["logits"])
    loss = make_loss("flow", "x0", apply, "x0", times=times)
    batch = {**make_batch(num), "x": jnp.zeros((num, 3, 2))}
    mean = lambda p: jnp.mean(loss(p, batch, context_of(jax.random.key(0)))[0])  # noqa: E731
    value, gradient = jax.value_and_grad(mean)({"logits": jnp.asarray(logits)})
    return value, np.asarray(gradient["logits"])


@pytest.mark.slow
def test_a_learned_time_law_leaves_the_mean_and_lowers_the_variance(x64):
    """The loss is `t`: with q = K p_k in part k its second moment is sum_k A_k / (K p_k).

    A_k is the integral of t^2 over the part, and p the softmax of the logits, so that the
    derivative for the k-th is `-A_k / (K p_k) + p_k sum_j A_j / (K p_j)`: 0 at `p ~ sqrt(A)`.
    """
    edges = np.linspace(0, 1, 6)
    moment = np.diff(edges**3) / 3
    p = np.array([0.3, 0.1, 0.2, 0.25, 0.15])
    value, gradient = loss_with_time_law(np.log(p))
    np.testing.assert_allclose(value, 0.5, rtol=1e-3)
    parts = moment / (5 * p)
    expected = -parts + p * parts.sum()
    np.testing.assert_allclose(gradient, expected / 0.5, atol=2e-3)
    value, gradient = loss_with_time_law(np.log(moment) / 2)
    np.testing.assert_allclose(value, 0.5, rtol=1e-3)
    np.testing.assert_allclose(gradient, 0, atol=2e-3)


def test_learned_uncertainty_is_least_at_the_log_of_the_loss(x64):
    """`L / exp(u) + u` is least at `u = log L`, where it says `1 + log L`."""
    batch, context = make_batch(), context_of(jax.random.key(1))
    plain, _ = make_loss("flow", "v", Recorder(), "v")(PARAMS, batch, context)
    loss = make_loss("flow", "v", Recorder(), "v", uncertainty=lambda params, t: params["u"])
    total = lambda u: loss({**PARAMS, "u": u}, batch, context)[0].sum()  # noqa: E731
    np.testing.assert_allclose(total(jnp.zeros(6)), plain.sum(), rtol=1e-12)
    best = jnp.log(plain)
    np.testing.assert_allclose(total(best), (1 + best).sum(), rtol=1e-12)
    np.testing.assert_allclose(jax.grad(total)(best), 0, atol=1e-12)
    assert np.all(jax.grad(total)(best + 0.1) > 0)


@pytest.mark.parametrize("name", ["linear_beta", "ddpm", "cosine", "laplace"])
@pytest.mark.parametrize(
    ("kind", "published"),
    [
        ("x0", lambda s: np.minimum(s, 5)),
        ("eps", lambda s: np.minimum(s, 5) / s),
        ("v", lambda s: np.minimum(s, 5) / (s + 1)),
    ],
)
def test_min_snr_weights_are_the_published_ones(x64, name, kind, published):
    """Sec. 3.4, Hang et al. 2023: weights of the squared error of the network's own output."""
    network, batch, context = Recorder(), make_batch(), context_of(jax.random.key(2))
    weighted, _ = make_loss(name, kind, network, kind, weighting=min_snr)(PARAMS, batch, context)
    plain, _ = make_loss(name, kind, network, kind)(PARAMS, batch, context)
    weights = published(textbook_snr(name, network.t))
    np.testing.assert_allclose(weighted / plain, weights, rtol=1e-9)


EQUAL = {
    "eps": ("cosine", snr),
    "x0": ("ddpm", lambda schedule, t: jnp.ones_like(t)),
    "v": ("linear_beta", lambda schedule, t: snr(schedule, t) + 1),
    "score": ("ddpm", lambda schedule, t: snr(schedule, t) / schedule.sigma(t) ** 2),
    "velocity": ("flow", lambda schedule, t: 1 / t**2),
    "edm": ("ve", edm),
}


@all_predictions
@pytest.mark.parametrize("space", EQUAL)
def test_equal_objectives_have_equal_gradients(x64, kind, space):
    """The loss in a space is the weighted x_0 loss, down to the gradients of the parameters."""
    name, weighting = EQUAL[space]
    losses = (
        make_loss(name, kind, Recorder(), space),
        make_loss(name, kind, Recorder(), "x0", weighting=weighting),
    )
    first, second = (
        jax.grad(
            lambda p, loss=loss: loss(p, make_batch(), context_of(jax.random.key(0)))[0].sum()
        )(PARAMS)
        for loss in losses
    )
    for name in PARAMS:
        assert abs(first[name]) > 1e-3
        np.testing.assert_allclose(first[name], second[name], rtol=1e-9)


# The variational bound. For x_0 ~ N(0, s^2) the posterior variance at a given signal-to-noise
# ratio is s^2 / (1 + s^2 SNR), so that with the exact denoiser
#     int -(1/2) dSNR/dt E||x_0 - x_0_hat||^2 dt = (1/2) log((1 + s^2 SNR_max) / (1 + s^2 SNR_min)).


def exact_bound(name, std, t_min, t_max):
    low, high = (textbook_snr(name, jnp.array([t]))[0] for t in (t_max, t_min))
    return 0.5 * np.log((1 + std**2 * high) / (1 + std**2 * low))


@all_schedules
def test_vlb_weight_integrates_to_the_exact_bound(x64, name):
    std, t = 0.5, np.geomspace(1e-3, 0.999, 40001)
    variance = std**2 / (1 + std**2 * textbook_snr(name, t))
    integral = np.trapezoid(np.asarray(vlb(SCHEDULES[name], t)) * variance, t)
    np.testing.assert_allclose(integral, exact_bound(name, std, 1e-3, 0.999), rtol=1e-4)


@all_schedules
def test_vlb_parts_sum_to_the_negative_log_likelihood(x64, name):
    """Eq. 11, Kingma et al. 2021, is tight where all three parts are exact.

    Reconstruction by the exact posterior at `t_min`, plus diffusion, plus the prior term against
    the exact law at `t_max`, is the entropy of the data.
    """
    std, t = 0.7, np.geomspace(1e-3, 0.999, 40001)
    variance = std**2 / (1 + std**2 * textbook_snr(name, t))
    reconstruction = 0.5 * np.log(2 * np.pi * np.e * variance[0])
    diffusion = np.trapezoid(np.asarray(vlb(SCHEDULES[name], t)) * variance, t)
    prior = 0.5 * np.log(std**2 / variance[-1])
    entropy = stats.norm(0, std).entropy()
    np.testing.assert_allclose(reconstruction + diffusion + prior, entropy, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("linear_beta", "x0"), ("ddpm", "eps"), ("cosine", "v"), ("flow", "velocity")],
)
def test_vlb_loss_of_the_exact_denoiser_is_the_exact_bound(name, kind):
    """65,536 samples; 5 standard errors: false-alarm rate 6e-7."""
    std, num, t_min, t_max = 0.5, 2**16, 0.05, 0.98
    oracle = gaussian(std).denoiser(SCHEDULES[name])

    def apply(params, x_t, t, cond, dropout_key):
        x_0_hat = oracle(x_t, t, {}).x_0
        return PREDICTIONS[kind].from_x_0(SCHEDULES[name], x_t, x_0_hat, t)

    loss = make_loss(name, kind, apply, weighting=vlb, times=Times(uniform(t_min, t_max), num))
    x_0 = std * jax.random.normal(jax.random.key(7), (num, 1))
    batch = {"x": x_0, "index": jnp.arange(num), "cond": {}}
    terms = np.asarray(jax.jit(loss)({}, batch, context_of(jax.random.key(8)))[0], np.float64)
    terms *= t_max - t_min
    bound = exact_bound(name, std, t_min, t_max)
    error = terms.std() / np.sqrt(num)
    assert error < 0.02 * bound
    assert abs(terms.mean() - bound) < 5 * error


# Learned variance (Nichol & Dhariwal 2021), in float64 at entries of DDPM's table.


def learned(kind, i, x_0_hat, channel, num=BATCH, **settings):
    """Loss, metrics and `x_t` with a network that says `x_0_hat` and the variance `channel`."""
    seen = {}

    def apply(params, x_t, t, cond, dropout_key):
        seen["x_t"] = x_t
        y = PREDICTIONS[kind].from_x_0(SCHEDULES["ddpm"], x_t, params["x_0_hat"], t)
        return jnp.concatenate([y, jnp.broadcast_to(params["channel"], y.shape)], axis=-1)

    times = Times(constant(i / 1000), num)
    loss = make_loss("ddpm", kind, apply, times=times, vlb_steps=1000, **settings)
    params = {"x_0_hat": jnp.asarray(x_0_hat), "channel": jnp.asarray(channel)}
    return loss, params, seen


def step_of_table(i):
    """Eqs. 6-7, Ho et al. 2020: coefficients of x_0 and x_t, beta tilde and beta of step `i`."""
    beta, alpha_bar, before = BETAS[i - 1], ALPHA_BARS[i], ALPHA_BARS[i - 1]
    of_x_0 = np.sqrt(before) * beta / (1 - alpha_bar)
    of_x_t = np.sqrt(1 - beta) * (1 - before) / (1 - alpha_bar)
    return of_x_0, of_x_t, (1 - before) / (1 - alpha_bar) * beta, beta


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
@pytest.mark.parametrize("i", [2, 300, 1000])
def test_learned_variance_term_is_the_kl_in_bits(x64, kind, i):
    batch = make_batch()
    of_x_0, of_x_t, lower, upper = step_of_table(i)
    x_0_hat, channel = batch["x"] + 0.2, 0.3
    loss, params, seen = learned(kind, i, x_0_hat, channel)
    total, metrics = loss(params, batch, context_of(jax.random.key(0)))
    variance = np.exp(0.65 * np.log(upper) + 0.35 * np.log(lower))
    mean, said = (of_x_0 * x + of_x_t * seen["x_t"] for x in (batch["x"], x_0_hat))
    kl = 0.5 * (np.log(variance / lower) + (lower + (mean - said) ** 2) / variance - 1)
    np.testing.assert_allclose(metrics["vlb"], np.mean(kl, axis=(1, 2)) / np.log(2), rtol=1e-6)
    hybrid = metrics["error"] + 1e-3 * 1000 * metrics["vlb"]
    np.testing.assert_allclose(total, hybrid, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("i", [2, 300, 1000])
def test_learned_variance_is_drawn_to_the_true_second_moment(x64, i):
    """The gradient vanishes where the variance is E(x_s - mean)^2, and has its sign elsewhere."""
    of_x_0, _, lower, upper = step_of_table(i)
    second_moment = np.exp(0.37 * np.log(upper) + 0.63 * np.log(lower))
    batch = make_batch()
    x_0_hat = batch["x"] + np.sqrt(second_moment - lower) / of_x_0
    gradients = {}
    for fraction in (0.1, 0.37, 0.9):
        loss, params, _ = learned("x0", i, x_0_hat, 2 * fraction - 1)
        bound = lambda p, loss=loss: loss(p, batch, context_of(jax.random.key(0)))[1]["vlb"].sum()  # noqa: E731
        gradients[fraction] = jax.grad(bound)(params)["channel"]
    assert abs(gradients[0.37]) < 1e-6 * gradients[0.9]
    assert gradients[0.1] < 0 < gradients[0.9]


@pytest.mark.slow
@pytest.mark.parametrize("x_0_hat", [-1.0, -0.3, 0.123, 0.99])
@pytest.mark.parametrize("channel", [-1.0, 1.0])
def test_last_step_is_the_likelihood_of_256_levels(x64, x_0_hat, channel):
    """Eq. 13, Ho et al. 2020: bins sum to 1, and each is the mass of a normal law."""
    levels = np.arange(256) / 127.5 - 1
    batch = {"x": jnp.asarray(levels)[:, None, None], "index": jnp.arange(256), "cond": {}}
    loss, params, _ = learned("x0", 1, np.full((256, 1, 1), x_0_hat), channel, num=256)
    found = 2.0 ** -np.asarray(loss(params, batch, context_of(jax.random.key(0)))[1]["vlb"])
    np.testing.assert_allclose(found.sum(), 1, atol=1e-9)

    law = stats.norm(x_0_hat, np.sqrt(BETAS[0] if channel == 1 else step_of_table(2)[2]))
    edges = np.concatenate([[-np.inf], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    expected = np.diff(law.cdf(edges))
    np.testing.assert_allclose(found, np.maximum(expected, 1e-12), rtol=1e-6, atol=1e-13)


def test_last_step_of_continuous_data_is_their_density(x64):
    """`-log2 N(x_0; x_0_hat, beta_1)`, where the data are in no levels."""
    batch, codec = make_batch(), Identity((3, 2))
    loss, params, _ = learned("x0", 1, batch["x"] + 0.01, 1.0, codec=codec)
    found = loss(params, batch, context_of(jax.random.key(0)))[1]["vlb"]
    nats = -stats.norm(0.01, np.sqrt(BETAS[0])).logpdf(0.0)
    np.testing.assert_allclose(found, nats / np.log(2), rtol=1e-6)


def test_last_step_is_told_in_spite_of_rounding(x64):
    """A time just above 1 / N goes down to 0, not to a hair above it."""
    batch = {"x": jnp.zeros((6, 1, 1)), "index": jnp.arange(6), "cond": {}}
    terms = []
    for i in (1, 1 + 1e-5):
        loss, params, _ = learned("x0", i, np.zeros((6, 1, 1)), 0.0)
        terms.append(loss(params, batch, context_of(jax.random.key(0)))[1]["vlb"])
    np.testing.assert_allclose(terms[0], terms[1], rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("i", [1, 2, 500])
def test_mean_learns_nothing_from_the_bound(x64, i):
    batch, context = make_batch(), context_of(jax.random.key(0))
    loss, params, _ = learned("v", i, batch["x"] + 0.1, 0.2)
    gradient = jax.grad(lambda p: loss(p, batch, context)[1]["vlb"].sum())(params)
    assert np.all(np.asarray(gradient["x_0_hat"]) == 0)
    assert abs(gradient["channel"]) > 0
    whole, simple = (
        jax.grad(lambda p, f=f: f(*loss(p, batch, context)).sum())(params)["x_0_hat"]
        for f in (lambda total, metrics: total, lambda total, metrics: metrics["error"])
    )
    np.testing.assert_array_equal(whole, simple)
    assert np.all(np.asarray(simple) != 0)


@pytest.mark.slow
def test_learned_variance_is_finite_at_every_step_in_float32():
    """Values and gradients; DDPM's steps, first and last among them."""

    def apply(params, x_t, t, cond, dropout_key):
        return jnp.concatenate([params["y"] * x_t, params["channel"] * x_t], axis=-1)

    times = Times(discrete(1000), 1000)
    loss = make_loss("ddpm", "eps", apply, times=times, vlb_steps=1000)
    batch = {"x": jnp.clip(make_batch(1000)["x"], -1, 1), "index": jnp.arange(1000), "cond": {}}
    params = {"y": jnp.full((1000, 1, 1), 0.9), "channel": jnp.full((1000, 1, 1), 0.5)}

    def total(params):
        loss_of_each, _ = loss(params, batch, context_of(jax.random.key(0)))
        return loss_of_each.sum(), loss_of_each

    gradient, values = jax.jit(jax.grad(total, has_aux=True))(params)
    assert np.all(np.isfinite(values))
    assert all(np.all(np.isfinite(g)) for g in gradient.values())


# The batch.


def test_networks_are_told_the_time_as_the_process_tells_it(x64):
    network, batch = Recorder(), make_batch()
    process = Gaussian(SCHEDULES["flow"], PREDICTIONS["edm"])
    loss = GaussianLoss(network, process, IMAGES, TIMES, Error(PREDICTIONS["edm"]))
    _, metrics = loss(PARAMS, batch, context_of(jax.random.key(0)))
    assert np.all((metrics["t"] > 0) & (metrics["t"] < 1))
    np.testing.assert_allclose(network.t, 1000 * metrics["t"], rtol=1e-12)


def test_the_loss_of_residuals_is_that_of_data_that_are_residuals(x64):
    """By the same noise at the same times, for a network that is not told the picture."""
    process = Gaussian(SCHEDULES["cosine"], PREDICTIONS["v"], time_input=as_it_is)
    context, batch, given = context_of(jax.random.key(1)), make_batch(), 0.3 * make_batch()["x"]
    error = Error(PREDICTIONS["v"])
    parts = (IMAGES, TIMES, error)
    plain = GaussianLoss(Recorder(), process, *parts)
    of_residuals = GaussianLoss(Recorder(), dataclasses.replace(process, residual=True), *parts)
    one, _ = plain(PARAMS, {**batch, "x": batch["x"] - given}, context)
    other, _ = of_residuals(PARAMS, {**batch, "cond": {"image": given}}, context)
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.slow
def test_loss_does_not_depend_on_how_the_batch_is_split():
    context, batch, network = context_of(jax.random.key(4)), make_batch(12), Recorder()
    times, half = Times(uniform(0.02, 0.98), 12), Conditioning(dropout=0.5)
    loss = make_loss("cosine", "v", network, times=times, conditioning=half)
    whole, metrics = loss(PARAMS, batch, context)
    labels = network.cond["label"]
    for part in (slice(0, 5), slice(5, 12)):
        some, some_metrics = loss(PARAMS, jax.tree.map(lambda x, i=part: x[i], batch), context)
        np.testing.assert_allclose(some, whole[part], rtol=1e-5)
        np.testing.assert_array_equal(some_metrics["t"], metrics["t"][part])
        np.testing.assert_array_equal(network.cond["label"], labels[part])


def test_noise_is_its_own_for_each_sample_and_key():
    """Same data everywhere: what is left of x_t is the noise."""
    network, batch = Recorder(), {**make_batch(6), "x": jnp.zeros((6, 3, 2))}
    noises = []
    for seed in (0, 1):
        loss = make_loss("flow", "v", network, times=Times(constant(1.0), BATCH))
        loss(PARAMS, batch, context_of(jax.random.key(seed)))
        noises.append(np.asarray(network.x_t))
    assert len(np.unique(noises)) == 2 * 6 * 3 * 2


def test_cond_dropout_has_its_rate_and_is_deterministic():
    """20,000 labels; 5 standard deviations: false-alarm rate 6e-7."""
    num, rate, network = 20_000, 0.1, Recorder()
    batch = make_batch(num, (1, 1))
    times = Times(uniform(0.02, 0.98), num)
    loss = make_loss("cosine", "v", network, times=times, conditioning=Conditioning(dropout=rate))
    masks = []
    for seed in (0, 0, 1):
        loss(PARAMS, batch, context_of(jax.random.key(seed)))
        label = np.asarray(network.cond["label"])
        assert np.all((label == -1) | (label == np.arange(num)))
        masks.append(label == -1)
        assert abs(masks[-1].mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / num)
    np.testing.assert_array_equal(masks[0], masks[1])
    assert np.any(masks[0] != masks[2])


@pytest.mark.parametrize(("rate", "expected"), [(0.0, range(6)), (1.0, [-1] * 6)])
def test_cond_dropout_never_and_always(rate, expected):
    network = Recorder()
    loss = make_loss("cosine", "v", network, conditioning=Conditioning(dropout=rate))
    loss(PARAMS, make_batch(), context_of(jax.random.key(0)))
    np.testing.assert_array_equal(network.cond["label"], np.array(expected))
