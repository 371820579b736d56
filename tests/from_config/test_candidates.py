"""Candidates chosen by a second law (EDLM), from configs: their law, and refusals."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax import from_config
from diffusion_jax.data import ArraySource, Dataset, Record, Split
from diffusion_jax.data.tokens import Tokens
from diffusion_jax.from_config import ConfigError, config_hash
from diffusion_jax.from_config.candidates import LAW, candidates_of, with_candidates
from diffusion_jax.from_config.identity import Identity, write_config, write_identity
from diffusion_jax.generation import Request
from diffusion_jax.types import Array, Params
from tests.from_config.test_token_tasks import config_of

V, L, NUM = 3, 4, 4096
TEXTS = np.stack(np.meshgrid(*L * [np.arange(V)], indexing="ij"), -1).reshape(-1, L)


def dataset(length: int = L, letters: str = "abc", fingerprint: str = "f") -> Dataset:
    split = Split(ArraySource(np.zeros((9, length), np.int32), np.arange(9, dtype=np.int32) % 2))
    kind, splits = Tokens((length,), tuple(letters)), {"train": split, "heldout": split}
    return Dataset("abc", kind, splits, ("odd", "even"), fingerprint=fingerprint)


def small(name: str = "masked", **changes: Any) -> Any:
    steps = L if name == "autoregressive" else 1
    changes = {"sample__steps": steps, "model__dit__depth": 1, **changes}
    return config_of(name, **{"evaluate__metrics": "bits", **changes})


def task_of(name: str) -> tuple[Any, Params]:
    """A task with random parameters."""
    task = from_config.build(small(name), dataset()).task
    shapes, draw = jax.eval_shape(task.init, jax.random.key(0)), np.random.default_rng(len(name))
    return task, jax.tree.map(lambda a: jnp.asarray(draw.normal(0, 0.17, a.shape), a.dtype), shapes)


def laws(task: Any, params: Params, x_t: np.ndarray) -> np.ndarray:
    """The laws `[2, V^L]` of `TEXTS`, by label, with their tokens as predicted from `x_t`."""
    x = jnp.asarray(np.tile(x_t, (2, 1)), jnp.int32)
    cond = {"label": jnp.repeat(jnp.arange(2), len(TEXTS))}
    apply = jax.jit(lambda *of: jax.nn.log_softmax(task.apply(*of)))
    log_p = np.asarray(apply(params, x, jnp.ones(len(x)), cond), np.float64)
    each = np.take_along_axis(log_p, np.tile(TEXTS, (2, 1))[..., None], -1).sum((1, 2))
    p = np.exp(each).reshape(2, -1)
    return p / p.sum(1, keepdims=True)


@pytest.fixture(scope="module")
def drawn() -> Any:
    """`(num, label, x_T) -> counts [V^L]` of a single step, and both laws `[2, V^L]`."""
    (task, params), (other, frozen) = task_of("masked"), task_of("autoregressive")
    both = laws(task, params, np.full_like(TEXTS, V)), laws(other, frozen, TEXTS)

    def draw(num: int, label: int, x_T: Array | None = None) -> np.ndarray:
        generator = with_candidates(task.generator, other.apply, num)
        cond = {"label": jnp.full(NUM, label)}
        request = Request(np.arange(NUM), cond, frozen={LAW: frozen})
        keys = jax.random.split(jax.random.key(7), NUM)
        start = jnp.full((NUM, L), V) if x_T is None else x_T
        texts = jax.jit(lambda x: generator.go_on(params, x, keys, request)[0])(start)
        return np.bincount(np.asarray(texts) @ V ** np.arange(L)[::-1], minlength=len(TEXTS))

    return draw, both


def distance(p: np.ndarray, q: np.ndarray) -> float:
    return float(np.abs(p - q).sum() / 2)


@pytest.mark.slow
def test_one_candidate_is_none(drawn: Any) -> None:
    draw, (independent, second) = drawn
    assert distance(independent[0], second[0]) > 0.2
    assert stats.chisquare(draw(1, 0), NUM * independent[0]).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("label", [0, 1])
def test_with_many_a_step_has_the_second_law_of_the_class(drawn: Any, label: int) -> None:
    draw, (independent, second) = drawn
    noise = np.sqrt(len(TEXTS) / NUM) / 2
    assert distance(*second) > 0.1
    assert distance(independent[label], second[label]) > 4 * noise
    assert distance(draw(256, label) / NUM, second[label]) < noise


@pytest.mark.slow
def test_known_tokens_stay_and_the_rest_is_of_the_conditional_law(drawn: Any) -> None:
    draw, (_, second) = drawn
    known = jnp.broadcast_to(jnp.array([V, 1, V, V]), (NUM, L))
    law = np.where(TEXTS[:, 1] == 1, second[0], 0)
    found = draw(256, 0, known) / NUM
    assert found[law == 0].sum() == 0
    assert distance(found, law / law.sum()) < np.sqrt(V**3 / NUM) / 2


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """The folder of an autoregressive run of the data set, without a checkpoint."""
    config = small("autoregressive")
    write_config(config, tmp_path)
    write_identity(Identity(config_hash(config), Record.of(dataset()), []), tmp_path)
    return tmp_path


def test_a_law_of_the_same_data_is_accepted(second: Path) -> None:
    asked = {"sample__candidates__num": 8, "sample__candidates__law": str(second)}
    for more in (
        {"sample__sampler": "unmasking"},
        {"sample__sampler": "remasking"},
        {"sample__sampler": "first_hitting"},
        {"sample__sampler": "by_count", "sample__by_count__order": "left_to_right"},
    ):
        config = small(**asked, **more)
        from_config.build(config, dataset())
        assert candidates_of(config) == 8
    assert candidates_of(small()) == candidates_of(small(sample__candidates__num=1)) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"objective__name": "replaced", "sample__sampler": "replacement"},
            "sample.candidates.num=8 needs objective.name='masked', not 'replaced'",
        ),
        (
            {"sample__sampler": "by_count", "sample__by_count__order": "confidence"},
            "sample.candidates.num=8 needs sample.by_count.order='random' or 'left_to_right', not "
            "'confidence'",
        ),
        (
            {
                "sample__particles__size": 2,
                "sample__guidance__magnet__words": ("a",),
                "sample__unmasking__cached": False,
            },
            "sample.candidates.num=8 cannot be combined with sample.particles.size=2",
        ),
        ({"sample__candidates__law": ""}, "sample.candidates.num=8 needs sample.candidates.law"),
        ({"sample__candidates__law": "nowhere"}, "law='nowhere': there is no run in"),
        ({"sample__candidates__law": "a@b"}, "law='a@b': 'b' is not the step of a checkpoint"),
    ],
)
def test_what_cannot_be_is_refused(second: Path, changes: dict, says: str) -> None:
    asked = {"sample__candidates__num": 8, "sample__candidates__law": str(second)}
    with pytest.raises(ConfigError) as error:
        from_config.build(small(**{**asked, **changes}), dataset())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (
            dataset(length=5, fingerprint="g"),
            "texts of 5 characters (texts of 4 characters before)",
        ),
        (dataset(letters="abd", fingerprint="g"), "with other pieces"),
        (dataset(fingerprint="g"), "as many texts as before, with other contents"),
    ],
)
def test_a_law_of_other_data_is_refused(second: Path, other: Dataset, says: str) -> None:
    asked = {"sample__candidates__num": 8, "sample__candidates__law": str(second)}
    with pytest.raises(ConfigError) as error:
        from_config.build(small(**asked), other)
    assert f"sample.candidates.law='{second}': the data are not those that it was" in str(
        error.value
    )
    assert says in str(error.value)
    (second / "identity.json").unlink()
    with pytest.raises(ConfigError, match="there is no record of the data"):
        from_config.build(small(**asked), dataclasses.replace(other))


def test_a_law_that_is_not_from_left_to_right_is_refused(tmp_path: Path) -> None:
    write_config(small(), tmp_path)
    asked = {"sample__candidates__num": 8, "sample__candidates__law": str(tmp_path)}
    with pytest.raises(ConfigError, match=r"must be of objective\.name='autoregressive', not 'mas"):
        from_config.build(small(**asked), dataset())
