"""Tasks of tokens: what their network sees, and settings that mean nothing for them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import hmm
from diffusion_jax import from_config
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.task import Task
from diffusion_jax.generation.generator import Request
from diffusion_jax.types import Context
from tests.runs import TINY, tiny

FAMILIES = {
    "masked": "unmasking",
    "masked_by_token": "unmasking",
    "block": "unmasking",
    "replaced": "replacement",
    "autoregressive": "left_to_right",
}


def config_of(name: str = "masked", **changes: Any) -> Any:
    """A tiny config of an objective; `__` in names of `changes` stands for a dot."""
    config = hmm.get_config()
    config.update_from_flattened_dict(
        {**TINY, "sample.steps": 64, "evaluate.metrics": config.evaluate.metrics}
    )
    config.objective.name, config.sample.sampler = name, FAMILIES.get(name, "ddim")
    config.sample.unmasking.cached = name != "masked_by_token"
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def random_params(task: Task) -> Any:
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    return jax.tree.map(lambda a: jax.random.normal(jax.random.key(a.size), a.shape) / 4, shapes)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_prediction_depends_on(name: str) -> None:
    """Of uniform noise on the time too; from left to right on earlier tokens alone."""
    task = from_config.build(config_of(name)).task
    params = random_params(task)
    x = jnp.asarray(np.random.default_rng(0).integers(0, 27, (1, 64)), jnp.int32)
    apply = jax.jit(lambda x, t: task.apply(params, x, t, {}))
    logits = apply(x, jnp.ones(1))
    assert logits.shape == (1, 64, 27)
    other = apply(x.at[0, 40].set((x[0, 40] + 1) % 27), jnp.ones(1))
    changed = np.abs(np.asarray(logits - other)).max((0, 2)) > 1e-6
    first = {"autoregressive": 41, "block": 40}.get(name, 0)  # 40 is the first of a block
    assert changed.nonzero()[0].min() == first
    at_half = apply(x, jnp.full(1, 0.5))
    assert np.allclose(logits, at_half) == (name not in ("replaced", "masked_by_token"))


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_the_loss_of_an_untrained_network_is_that_of_equal_tokens(name: str) -> None:
    """Logits are 0 in the beginning, and `log 27` nats are lost per token."""
    parts = from_config.build(config_of(name))
    key = jax.random.key(0)
    items, _ = parts.dataset.arrays("heldout", 512)
    batch = {"x": jnp.asarray(items), "cond": {}, "index": jnp.arange(len(items))}
    context = Context(key, jnp.zeros((), int), {}, {})
    config = config_of(name, train__batch_size=512)
    loss, metrics = from_config.build(config, parts.dataset).task.loss(
        parts.task.init(key), batch, context
    )
    assert loss.shape == (512,)
    bound = 3.0 if name == "replaced" else np.log(27)
    assert np.mean(loss) == pytest.approx(bound, rel=0.12)
    np.testing.assert_allclose(metrics["bits"], loss / np.log(2), rtol=1e-6)
    assert ("t" in metrics) == (name != "autoregressive")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample__clip": 1.0}, "sample.clip=1.0 means nothing for tokens"),
        ({"sample__guidance__rescale": 0.5}, "sample.guidance.rescale=0.5 means nothing"),
        ({"sample__guidance__max_norm": 1.0}, "sample.guidance.max_norm=1.0 means nothing"),
        ({"sample__guidance__flock__size": 2}, "sample.guidance.flock.size=2 means nothing"),
        ({"sample__start": "The cat"}, "sample.start='The cat': 'T' is no token"),
        ({"sample__start": 65 * "a"}, "65 tokens are more than the 64 of a window"),
        ({"sample__sampler": "ddim"}, "sample.sampler='ddim'"),
        ({"sample__grid": "karras"}, "sample.grid='karras'"),
        ({"text__name": "bytes"}, "needs text.name='none', not 'bytes'"),
        (
            {"objective__masked__timed": True},
            "sample.unmasking.cached=True must be False with objective.masked.timed=True",
        ),
        (
            {"objective__name": "masked_by_token"},
            "sample.unmasking.cached=True must be False with objective.name='masked_by_token'",
        ),
        (
            {"objective__name": "masked_by_token", "sample__sampler": "by_count"},
            "sample.sampler='by_count' is not known. Known: unmasking.",
        ),
        (
            {"objective__name": "block", "objective__block__size": 5},
            "objective.block.size=5 must divide the length of a text, 64",
        ),
        ({"objective__masked__estimator": "all"}, "objective.masked.estimator='all'"),
        ({"token_schedule__name": "linear"}, "token_schedule.name='linear'"),
        ({"model__name": "unet"}, "does not support model.name='unet'"),
        ({"evaluate__metrics": "denoising"}, "needs objective.name='gaussian', not 'masked'"),
        ({"data__name": "digits"}, "goes with texts and other tokens"),
    ],
)
def test_settings_that_mean_nothing_for_tokens_are_refused(changes: dict, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        from_config.build(config_of(**changes))
    assert says in str(error.value)


def test_a_setting_of_another_objective_does_not_matter() -> None:
    from_config.build(config_of("block", objective__masked__timed=True))


@pytest.mark.slow
def test_blocks_are_drawn_with_a_cache_unless_they_are_guided() -> None:
    """Samples are those without, of all classes; a block is evaluated once more for those after."""

    def draw(cached: bool, scale: float = 1.0) -> Any:
        changes = {"sample__blocks__cached": cached, "sample__guidance_scale": scale}
        config = config_of("block", data__name="digits_tokens", sample__steps=4, **changes)
        task = from_config.build(config).task
        assert task.generator is not None
        labels = {"label": np.array([0, 0, 5], np.int32)}
        request = Request(np.array([0, 1, 1]), labels, scale)
        return task.generator.with_state(random_params(task), 0, request, batch_size=3)

    (whole, _, plain), (cached, _, kept) = draw(False), draw(True)
    np.testing.assert_array_equal(cached, whole)
    assert (whole[1] != whole[2]).any()  # of other classes, and otherwise the same
    np.testing.assert_array_equal(kept.evaluations, plain.evaluations + 7)
    assert (plain.evaluations >= 8).all() & (plain.evaluations <= 8 * 4).all()
    assert plain.cache == draw(True, 2.0)[2].cache == ()


def test_tokens_are_drawn_from_left_to_right_one_by_one() -> None:
    with pytest.raises(ConfigError, match=r"sample\.steps=10 must be 64, the number of tokens"):
        from_config.build(config_of("autoregressive", sample__steps=10))


def test_known_tokens_are_where_samples_start() -> None:
    """From left to right only what comes first can be known."""
    generator = from_config.build(config_of(sample__start="the _at")).task.generator
    assert generator is not None
    keys = jax.random.split(jax.random.key(0), 3)
    x_T = generator.start.draw(generator.process, keys, (64,), generator.times[0])
    assert x_T.shape == (3, 64)
    assert np.all(np.asarray(x_T) == [20, 8, 5, 0, 27, 1, 20, *57 * [27]])
    from_config.build(config_of("autoregressive", sample__start="the cat"))
    with pytest.raises(ConfigError, match="must be the beginning of a text, without gaps"):
        from_config.build(config_of("autoregressive", sample__start="the _at"))
    for name in ("replaced", "block", "masked_by_token"):
        with pytest.raises(ConfigError, match="must be 'normal'"):
            from_config.build(config_of(name, sample__start="the cat"))


def test_other_objectives_refuse_tokens() -> None:
    with pytest.raises(ConfigError, match="texts"):
        from_config.build(tiny(data__name="hmm"))
