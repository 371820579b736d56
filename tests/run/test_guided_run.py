"""Guidance settings of a config: their effect on samples, and refusals."""

import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.generation.generator import Request
from tests.runs import tiny

pytestmark = pytest.mark.slow

GUIDED = {
    "train__steps": 4,
    "train__checkpoint_every": 2,
    "sample__num_images": 8,
    "sample__batch_size": 8,
    "evaluate__num_samples": 64,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a checkpoint of step 2 and one of step 4."""
    workdir = tmp_path_factory.mktemp("guided") / "run"
    assert run.run(tiny(**GUIDED), workdir, "train") == 0
    return workdir


def images_of(workdir: Path, disturbed: float = 0.0, **changes: Any) -> np.ndarray:
    """Samples of the run with other guidance, and other weights if so much is added to them."""
    config = tiny(**GUIDED, **changes)
    made = run.Run(config, workdir, from_config.build(config))
    model, index = made.trained(), np.arange(8)
    params = jax.tree.map(
        lambda a: a + disturbed * jax.random.normal(jax.random.key(a.size), a.shape), model.params
    )
    request = model.request(index, made.conditions.cond(index))
    x, _ = model.draws(params, 0, request, batch_size=8)
    return x


def test_guidance_of_a_config_reaches_its_samples(trained: Path) -> None:
    plain = images_of(trained, 0.1)
    guided = images_of(trained, 0.1, sample__guidance_scale=3.0)
    settings = {
        "off": {"guidance_scale": 1.0},
        "interval": {"guidance__interval": (0.3, 0.6)},
        "schedule": {"guidance__schedule": "cosine"},
        "parallel": {"guidance__parallel": 0.0},
        "norm": {"guidance__max_norm": 1e-3},
        "rescale": {"guidance__rescale": 0.7},
        "worse": {"guidance__worse": "@2"},
        "flock": {"guidance__flock__size": 4, "guidance__flock__separation": 5.0},
        "plus_plus": {"guidance__schedule": "plus_plus", "guidance_scale": 0.5, "sampler": "ddim"},
    }
    for name, changes in settings.items():
        changes = {f"sample__{key}": value for key, value in changes.items()}
        x = images_of(trained, 0.1, **{"sample__guidance_scale": 3.0, **changes})
        assert np.array_equal(x, plain) == (name == "off"), name
        assert not np.array_equal(x, guided), name


def test_a_worse_model_that_is_the_same_is_no_guidance(trained: Path) -> None:
    same = images_of(trained, sample__guidance_scale=3.0, sample__guidance__worse=str(trained))
    np.testing.assert_allclose(same, images_of(trained), atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"guidance__worse": "nowhere"}, "sample.guidance.worse='nowhere': there is no run in"),
        ({"guidance__worse": "@x"}, "sample.guidance.worse='@x': 'x' is not the step"),
        (
            {"guidance__worse": "@2", "guidance_scale": 1.0},
            "needs guidance, which is off at sample.guidance_sc",
        ),
        ({"negative": "a", "guidance_scale": 1.0}, "sample.negative='a' needs guidance"),
        (
            {"guidance__interval": (0.6, 0.3)},
            r"interval.low=0.6 must lie in \[0, high\) with high=0.3",
        ),
        ({"guidance__schedule": "cosin"}, "sample.guidance.schedule='cosin' .* 'cosine'"),
        ({"guidance__rescale": 2.0}, r"sample.guidance.rescale=2.0 must lie in \[0, 1\]"),
        ({"guidance__flock__size": 3}, "sample.batch_size=8 must be a multiple of .*size=3"),
        ({"guidance__flock__size": 1}, r"sample.guidance.flock.size=1 must lie in \[2, inf\)"),
        ({"guidance__schedule": "plus_plus"}, "'plus_plus' is for sample.sampler='ddim'"),
        ({"compose": ("a hat", 1.5)}, "must be pairs of a text and its weight, such as"),
        ({"compose": (("a hat",),)}, "must be pairs of a text and its weight, such as"),
        ({"guidance__max_norm": -1.0}, r"sample.guidance.max_norm=-1.0 must lie in \[0, inf\)"),
    ],
)
def test_guidance_that_cannot_be_is_refused(
    trained: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], says: str
) -> None:
    changes = {f"sample__{key}": value for key, value in changes.items()}
    config = tiny(
        **{**GUIDED, "train__checkpoint_every": 2, "sample__guidance_scale": 3.0, **changes}
    )
    assert run.run(config, trained, "sample") == 2
    error = capsys.readouterr().err
    assert re.search(says, error), error
    assert error.count("\n") == 1


def test_a_group_is_whole_where_fewer_samples_are_asked_for(trained: Path) -> None:
    flock = {"sample__guidance__flock__size": 4, "sample__guidance__flock__separation": 5.0}
    config = tiny(**GUIDED, **flock)
    generator = from_config.build(config).generator
    params = run.Run(config, trained, from_config.build(config)).trained().params

    def draw(num: int, batch_size: int) -> np.ndarray:
        cond = {"label": np.full(num, 3, np.int32)}
        return generator(params, 0, Request(np.arange(num), cond), batch_size=batch_size)[0]

    whole = draw(12, 8)
    assert len(draw(6, 8)) == 6
    np.testing.assert_allclose(draw(6, 8), whole[:6], atol=1e-5)
    np.testing.assert_allclose(draw(12, 4), whole, atol=1e-5)
