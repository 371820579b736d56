"""Guidance of tokens by a config: laws of its generators against enumeration, and refusals.

The network of a generator is replaced by one that looks exact laws up; all else is as configured.
"""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from diffusion_jax import from_config
from diffusion_jax.data import ArraySource, Dataset, Split
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.diffusion.tokens import Masked, Polynomial
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.evaluators import check_weights
from diffusion_jax.from_config.task import Classifier
from diffusion_jax.generation.generator import Generator, Request
from tests.from_config.test_token_tasks import config_of
from tests.runs import tiny
from tests.tilted import every, law_in_steps, predicted, table
from tests.token_oracles import chain

V, L, H, NUM = 3, 4, 1.3, 20_000
TEXTS = chain()
P = predicted(TEXTS.of_masked, V, L)
STATES = every(V + 1, L)
WORDS, NUMBERS = ("b", "ca"), ((1,), (2, 0))


def count(texts: np.ndarray) -> np.ndarray:
    """The number of words in each of the texts `[N, L]`."""
    places = [(word, i) for word in NUMBERS for i in range(L - len(word) + 1)]
    return np.sum([np.all(texts[:, i : i + len(word)] == word, 1) for word, i in places], axis=0)


COUNT = count(TEXTS.all)
ALL = {"sample.guidance.magnet.words": WORDS, "sample.guidance.magnet.scale": H}


def data(classes: int = 0, pieces: tuple[str, ...] = ("a", "b", "c"), length: int = L) -> Dataset:
    names = tuple(f"class {i}" for i in range(classes))
    items = np.zeros((8, length), np.int32)
    split = Split(ArraySource(items, np.arange(8, dtype=np.int32) % max(classes, 1)))
    kind = Tokens((length,), pieces)
    return Dataset("noise", kind, {"train": split, "heldout": split}, names)


def made(dataset: Dataset | None = None, of: str = "masked", **changes: Any) -> from_config.Parts:
    """The parts of a config, one token at a time in random order by default."""
    sampler = {} if of in ("replaced", "autoregressive") else {"sample.sampler": "by_count"}
    base = {"sample.steps": L, "sample.num_images": 8, "sample.batch_size": 8} | sampler
    config = config_of(of)
    config.update_from_flattened_dict({**base, **changes})
    return from_config.build(config, dataset or data())


def exact(parts: from_config.Parts, network: Any = None, **models: Any) -> Generator:
    """The generator with the exact network."""
    network = network or table(P)
    generator, guide = parts.generator, parts.task.guide
    assert guide is not None
    return dataclasses.replace(
        generator,
        apply=lambda params, x_t, t, cond: network(x_t, t, cond),
        guidance=guide(**models),
    )


def drawn(generator: Generator, num: int = NUM, **more: Any) -> tuple[np.ndarray, Any]:
    """Numbers of texts, and their log weights if they have any."""
    request = Request(np.arange(num), {}, **more)
    if weigh := generator.guidance.log_weights:
        x, _, state = generator.with_state({}, 0, request, batch_size=num)
        return TEXTS.number(x), np.asarray(weigh(state), np.float64)
    return TEXTS.number(generator({}, 0, request, batch_size=num)[0]), None


def p_value(texts: np.ndarray, law: np.ndarray) -> float:
    """Of the chi-square test that numbers of texts are of the law `[V^L]`, rare ones together."""
    expected = law / law.sum() * len(texts)
    counts, rare = np.bincount(texts, minlength=len(law)), expected < 5
    found, right = (np.append(a[~rare], a[rare].sum()) for a in (counts, expected))
    return float(stats.chisquare(found[right > 0], right[right > 0]).pvalue)


def pushed(p: np.ndarray, known: np.ndarray, seen: np.ndarray, h: float) -> np.ndarray:
    """Laws `[S, L, V]` in the naive field: `p(v) exp(h E[m | x_i = v])`, the mean over all texts.

    Tokens are independent with the laws of those that are `seen`; others are a sign that no word
    has. `known` are one-hot laws of tokens that are not masks, else 0.
    """
    laws = np.where(known.any(-1, keepdims=True), known, np.where(seen[..., None], p, 0))
    laws = np.append(laws, 1 - laws.sum(-1, keepdims=True), axis=-1)
    each = np.stack([laws[:, i, STATES[:, i]] for i in range(L)], axis=-1)  # [S, (V + 1)^L, L]
    one_hot, m = np.eye(V + 1)[STATES][..., :V], count(STATES)
    mean = np.stack(
        [(np.delete(each, i, -1).prod(-1) * m) @ one_hot[:, i] for i in range(L)], axis=1
    )
    found = p * np.exp(h * mean)
    return found / found.sum(-1, keepdims=True)


def first_masks(size: int) -> np.ndarray:
    """Which masks `[S, L]` are in the first block of `size` that has any."""
    masked = STATES == V
    now = np.argmax(masked, axis=1)[:, None] // size
    return masked & (np.arange(L) // size == now)


def law_by_blocks(p: np.ndarray, size: int) -> np.ndarray:
    """The law `[V^L]` of masks filled one at a time, in random order within blocks."""
    powers = (V + 1) ** np.arange(L)[::-1]
    now, allowed = np.all(STATES == V, axis=1).astype(float), first_masks(size)
    for _ in range(L):
        after = np.zeros_like(now)
        for number in np.flatnonzero(now):
            for i in np.flatnonzero(allowed[number]):
                share = now[number] * p[number, i] / allowed[number].sum()
                after[number - (V - np.arange(V)) * powers[i]] += share
        now = after
    return now[~(STATES == V).any(axis=1)]


ORDERS = {"masked": ({}, L), "block": ({"objective.block.size": 2}, 2), "autoregressive": ({}, 1)}


@pytest.mark.parametrize("name", ORDERS)
def test_samples_of_the_magnet_have_the_law_of_the_naive_field(name: str) -> None:
    """From left to right nothing is expected of what the network does not see yet."""
    changes, size = ORDERS[name]
    steps = {"sample.steps": 2 if name == "block" else L}
    known = np.eye(V + 1)[STATES][..., :V]
    naive = law_by_blocks(pushed(P, known, first_masks(size), H), size)
    found, _ = drawn(exact(made(of=name, **changes, **steps, **ALL)))
    assert p_value(found, naive) > 1e-4
    assert p_value(found, TEXTS.p * np.exp(H * COUNT)) < 1e-10
    assert p_value(found, TEXTS.p) < 1e-10


@pytest.mark.slow
def test_uniform_noise_has_the_law_of_the_naive_field_too() -> None:
    """Any token may have been replaced: all laws are those of the prediction."""
    lost = Polynomial().lost
    times = np.linspace(1, 0, 3)
    texts, now = TEXTS.all, np.full(V**L, 1 / V**L)
    same = np.eye(V)
    near = lambda a: a * same + (1 - a) / V  # noqa: E731
    for t, s in itertools.pairwise(times):
        logits = TEXTS.of_replaced(lost, others=False)(texts, jnp.full(len(texts), t), {})
        p = np.asarray(jax.nn.softmax(logits), np.float64)
        p = pushed(p, np.zeros_like(p), np.ones_like(texts, bool), H)
        to = near((1 - t) / (1 - s))[:, None, :] * near(1 - s)[None]  # [x_t, v, x_s]
        to /= to.sum(-1, keepdims=True)
        each = np.einsum("niv,nivj->nij", p, to[texts])
        now = now @ np.prod([each[:, i][:, texts[:, i]] for i in range(L)], axis=0)
    parts = made(of="replaced", **{**ALL, "sample.steps": 2})
    found, _ = drawn(exact(parts, TEXTS.of_replaced(lost, others=True)))
    assert p_value(found, now) > 1e-4
    plain = made(of="replaced", **{"sample.steps": 2})
    without, _ = drawn(exact(plain, TEXTS.of_replaced(lost, others=True)))
    assert p_value(without, now) < 1e-10


def test_the_magnet_acts_in_its_interval() -> None:
    known = np.eye(V + 1)[STATES][..., :V]
    naive = pushed(P, known, STATES == V, H)
    early = (STATES == V).sum(1) > 2  # half of the tokens are filled after t = 1/2
    law = law_by_blocks(np.where(early[:, None, None], naive, P), L)
    found, _ = drawn(exact(made(**ALL, **{"sample.guidance.interval": (0.6, 1.0)})))
    assert p_value(found, law) > 1e-4


def assert_weighted(found: np.ndarray, log_weights: np.ndarray, size: int, law: np.ndarray) -> None:
    """That weighted texts are of a law `[V^L]`, by the errors that groups give."""
    weights = softmax(log_weights)
    law = law / law.sum()
    values = np.stack([found == number for number in range(len(law))], axis=1).astype(float)
    values = np.append(values, COUNT[found][:, None], axis=1)
    right = np.append(law, law @ COUNT)
    estimate = weights @ values
    each = (weights[:, None] * (values - estimate)).reshape(-1, size, len(right)).sum(1)
    error = np.sqrt(np.sum(each**2, axis=0))
    assert error[-1] < 0.03
    z = ((estimate - right) / np.maximum(error, 1e-9))[right > 1e-3]
    assert np.abs(z).max() < 5, z
    assert np.mean(z**2) < 2


PARTICLES = {"sample.particles.size": 8}


@pytest.mark.parametrize("sampler", ["by_count", "unmasking"])
def test_particles_have_the_tilted_law_of_their_chain(sampler: str) -> None:
    """Of one token at a time, `p(x) exp(h m(x))`; with two steps that of the steps' law."""
    changes = {"sample.sampler": sampler, "sample.unmasking.cached": False}
    law = TEXTS.p
    if sampler == "unmasking":
        changes["sample.steps"] = 2
        law = law_in_steps([P, P], np.linspace(1, 0, 3))
    found = drawn(exact(made(**ALL, **PARTICLES, **changes)))
    assert_weighted(*found, 8, law * np.exp(H * COUNT))
    assert p_value(found[0], law * np.exp(H * COUNT)) < 1e-4  # without their weights they have not


CLASSES = np.random.default_rng(5).dirichlet(np.ones(2), len(TEXTS.all))  # p(y | x), `[V^L, 2]`
OF_STATES = np.array(
    [
        (fits := np.all((state == V) | (state == TEXTS.all), axis=1) * TEXTS.p)
        @ CLASSES
        / max(fits.sum(), 1e-300)
        for state in STATES
    ]
)


def judge() -> Classifier:
    """The exact classifier of masked texts; its parameters are a shift of all logits, 0."""
    log_p = jnp.log(jnp.maximum(jnp.asarray(OF_STATES), 1e-30))
    powers = (V + 1) ** jnp.arange(L)[::-1]

    def logits(params: Any, signal: jax.Array, t: jax.Array) -> jax.Array:
        return log_p[jnp.argmax(signal, -1) @ powers] + params["shift"]

    return Classifier(logits, Masked(Polynomial(), V))


FROZEN = {"frozen": {"classifier": {"shift": np.zeros(())}}}
JUDGED = {
    "sample.guidance.classifier.judge": "somewhere",
    "sample.guidance.classifier.label": 1,
    "sample.guidance.classifier.by": "exact",
}


def test_an_exact_classifier_gives_the_law_of_its_class() -> None:
    generator = exact(made(**JUDGED), classify=judge())
    with pytest.raises(ValueError, match="guidance needs 'classifier'"):
        drawn(generator, 8)
    found, _ = drawn(generator, **FROZEN)
    assert p_value(found, TEXTS.p * CLASSES[:, 1]) > 1e-4
    assert p_value(found, TEXTS.p * CLASSES[:, 0]) < 1e-10


@pytest.mark.slow
def test_particles_of_a_classifier_and_words_have_both_rewards() -> None:
    scale = {"sample.guidance.classifier.scale": 2.0}
    generator = exact(made(**JUDGED, **scale, **ALL, **PARTICLES), classify=judge())
    law = TEXTS.p * CLASSES[:, 1] ** 2 * np.exp(H * COUNT)
    assert_weighted(*drawn(generator, **FROZEN), 8, law)


WEIGHTS = np.random.default_rng(2).normal(size=(L, V + 1))


@pytest.mark.parametrize("by", ["first_order", "field"])
def test_a_classifier_pushes_by_its_gradient(by: str) -> None:
    """Of `log sigmoid(f)` with f linear in tokens: `sigmoid(-f) w`, at `x_t` or at the laws."""

    def logits(params: Any, signal: jax.Array, t: jax.Array) -> jax.Array:
        f = jnp.sum(signal * WEIGHTS, axis=(1, 2))
        return jnp.stack([f, jnp.zeros_like(f)], axis=1)

    settings = {**JUDGED, "sample.guidance.classifier.label": 0}
    settings |= {"sample.guidance.classifier.by": by, "sample.guidance.classifier.scale": H}
    classify = Classifier(logits, Masked(Polynomial(), V))
    generator = exact(made(**settings), classify=classify)
    x_t, t = jnp.array([[V, 1, V, V]]), jnp.ones(1)
    request = Request(np.arange(1), {}, frozen={"classifier": {}})
    guided = generator.guidance.guide(generator.denoiser({}), request, generator.times)
    found = np.asarray(guided(x_t, t, {}).x_0[0])
    p = P[np.flatnonzero(np.all(np.asarray(x_t) == STATES, axis=1))[0]]
    known = np.eye(V)[1]
    laws = np.where(np.arange(L)[:, None] == 1, known, p)
    f = (
        WEIGHTS[np.arange(L), x_t[0]].sum()
        if by == "first_order"
        else (laws * WEIGHTS[:, :V]).sum()
    )
    right = np.log(np.maximum(p, 1e-30)) + H / (1 + np.exp(f)) * WEIGHTS[:, :V]
    free = np.array([0, 2, 3])
    difference = (found - right)[free]
    np.testing.assert_allclose(difference, difference[:, :1] * np.ones(V), atol=1e-5)


def program(parts: from_config.Parts) -> str:
    generator = parts.generator
    params = jax.eval_shape(parts.task.init, jax.random.key(0))
    request = Request(jnp.arange(8), {})
    return jax.jit(generator.draw).lower(params, jax.random.key(0), request).as_text()


@pytest.mark.parametrize(
    "off",
    [
        {"sample.guidance.magnet.words": WORDS, "sample.guidance.magnet.scale": 0.0},
        pytest.param({**JUDGED, "sample.guidance.classifier.scale": 0.0}, marks=pytest.mark.slow),
        pytest.param({"sample.particles.resample_below": 0.9}, marks=pytest.mark.slow),
    ],
)
def test_what_is_off_compiles_the_same_program(off: dict) -> None:
    assert program(made(**off)) == program(made())
    assert program(made(**ALL)) != program(made())


def test_a_run_of_an_earlier_version_has_none_of_it() -> None:
    config = config_of("masked")
    config.sample.sampler, config.sample.steps = "by_count", L
    with config.unlocked():
        for name in ("magnet", "classifier"):
            del config.sample.guidance[name]
        del config.sample["particles"]
    assert program(from_config.build(config, data())) == program(made())


SIZE = {"sample.particles.size": 4, "sample.guidance.magnet.words": ("a",)}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample.guidance.magnet.words": ("ax",)}, "words: 'ax': 'x' is no token of the texts"),
        ({"sample.guidance.magnet.words": ("",)}, "words: '' must be one or more characters"),
        ({"sample.guidance.magnet.words": ("a_",)}, "words: 'a_' must be one or more"),
        ({"sample.guidance.magnet.words": ("aaaaa",)}, "5 tokens are more than the 4 of a window"),
        ({"sample.guidance.magnet.words": (3,)}, "sample.guidance.magnet.words=(3,) must be texts"),
        ({**JUDGED, "sample.guidance.classifier.by": "force"}, "by='force' is not known"),
        ({"sample.guidance.classifier.scale": -1.0}, "classifier.scale=-1.0 must lie in"),
        ({"sample.particles.size": 4}, "sample.particles.size=4 needs a reward"),
        ({**SIZE, "sample.guidance.magnet.scale": 0.0}, "sample.particles.size=4 needs a reward"),
        ({**SIZE, "sample.num_images": 6}, "sample.num_images=6 must be a multiple of sample.part"),
        ({**SIZE, "sample.batch_size": 6}, "sample.batch_size=6 must be a multiple of sample.part"),
        ({**SIZE, "sample.sampler": "first_hitting"}, "with sample.sampler='first_hitting'"),
        (
            {**SIZE, "sample.by_count.order": "confidence"},
            "sample.sampler='by_count'.order='confidence': use unmasking, by_count in another",
        ),
        ({**SIZE, "sample.sampler": "unmasking"}, "cached=True must be False with sample.part"),
        (
            {"sample.sampler": "unmasking", **ALL, "sample.guidance.interval": (0.2, 0.6)},
            "sample.unmasking.cached=True must be False with sample.guidance.interval",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        made(**changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["block", "replaced", "autoregressive"])
def test_particles_are_of_the_masked_process(name: str) -> None:
    with pytest.raises(ConfigError, match=f"is for objective.name='masked', not '{name}'"):
        made(of=name, **SIZE)


def test_words_of_tokens_with_several_spellings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"words need data\.tokenizer='characters' or 'bytes'"):
        made(data(pieces=("a", "b", "ab")), **{"sample.guidance.magnet.words": ("ab",)})


def test_particles_of_a_group_have_the_same_class() -> None:
    with pytest.raises(ConfigError, match=r"of one class in a group: sample\.labels='none' or one"):
        made(data(classes=2), **SIZE)
    for labels in ("none", "1"):
        made(data(classes=2), **SIZE, **{"sample.labels": labels})


@pytest.mark.parametrize(
    "key", ["guidance.magnet.words", "guidance.classifier.judge", "particles.size"]
)
def test_other_data_have_no_words(key: str) -> None:
    value = {"words": ("a",), "judge": "somewhere", "size": 4}[key.rpartition(".")[2]]
    with pytest.raises(ConfigError, match=f"sample.{key}=.* is for tokens, and objective.name='ga"):
        from_config.build(tiny(**{f"sample__{key.replace('.', '__')}": value}))


def test_metrics_of_samples_refuse_weights() -> None:
    parts, config = made(**SIZE), config_of(evaluate__metrics="bits,texts")
    with pytest.raises(ConfigError, match="'texts' measures samples without weights"):
        check_weights(config, parts.task)
    check_weights(config, made().task)
    config.evaluate.metrics = "bits"
    check_weights(config, parts.task)
