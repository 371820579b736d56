"""Samples that are not finite are counted and named, and are not written as images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import load_dataset
from diffusion_jax.evaluation import field
from diffusion_jax.generation.generator import Generator, SamplingError, check_finite
from diffusion_jax.run.trained import Trained, suspects
from tests.runs import tiny

SMALL = {"train__steps": 2, "train__checkpoint_every": 2, "train__log_every": 1}
POINTS = {
    "data__name": "moons",
    "model__name": "mlp",
    "model__time_input": "log_noise",
    "model__mlp__features": 8,
    "model__mlp__depth": 1,
    "sample__num_images": 7,
    "evaluate__metrics": "field",
}


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second sample is not finite."""
    draw = Generator.draw

    def half(self: Generator, params: Any, key: Any, request: Any, keep_every: int = 0) -> Any:
        x, kept = draw(self, params, key, request, keep_every)
        odd = request.index.reshape(-1, *[1] * (x.ndim - 1)) % 2
        return jnp.where(odd > 0, jnp.nan, x), kept

    monkeypatch.setattr(Generator, "draw", half)


def test_they_are_counted_and_named() -> None:
    x, params = np.zeros((4, 2)), {"w": np.ones(3)}
    check_finite(x, np.arange(4), params, "step 7", ["a=1", "b=2"])
    x[1, 0], x[3] = np.nan, np.inf
    with pytest.raises(SamplingError) as error:
        check_finite(x, np.arange(10, 14), params, "step 7", ["a=1", "b=2", "c"])
    assert str(error.value) == (
        "2 of 4 samples of step 7 are not finite, number 11 the first: the cause may be a=1, b=2 "
        "or c"
    )
    with pytest.raises(SamplingError, match="first: nor are the parameters, so that it is the tr"):
        check_finite(x, np.arange(4), {"w": np.array(np.nan)}, "step 7", ["a=1", "b=2"])


def test_half_precision_is_the_first_suspect() -> None:
    config = tiny(sample__guidance_scale=1.5)
    found = suspects(config)
    assert found[:2] == ["sample.guidance_scale=1.5", "sample.sampler='ddim'"]
    config.model.dtype = "bfloat16"
    assert suspects(config) == ["half precision, model.dtype='bfloat16'", *found]


@pytest.mark.slow
@pytest.mark.usefixtures("noise", "broken")
def test_no_picture_of_them_is_saved(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """By the mode that samples and the one that evaluates; a training says so and goes on."""
    config = tiny(**SMALL, train__sample_every=1, sample__guidance_scale=1.5)
    assert run.run(config, tmp_path, "train") == 0
    said = capsys.readouterr().err.splitlines()
    why = (
        "the cause may be sample.guidance_scale=1.5, sample.sampler='ddim', sample.steps=4 or "
        "sample.grid='uniform'"
    )
    says = "6 of 12 samples of step {} are not finite, number 1 the first: " + why
    assert [line for line in said if "finite" in line] == [
        f"warning: no step_{step:08d}.png: {says.format(step)}" for step in (1, 2)
    ]
    for mode, num in (("sample", 12), ("evaluate", 60)):
        assert run.run(config, tmp_path, mode) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error == f"error: {says.format(2)}".replace("6 of 12", f"{num // 2} of {num}")
    assert not list((tmp_path / "samples").glob("**/*.*"))
    assert not (tmp_path / "result.json").exists()
    with pytest.raises(SamplingError, match="1 of 2 samples"):
        run.open_run(tmp_path).draw(2)


PARTS = ("step", "average", "generator", "frozen")
FAILED = (
    "error: {0} of {0} samples of {1} are not finite, number 0 the first: nor are the parameters, "
    "so that it is the training that failed"
)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes parameters not finite, as a training that failed leaves them."""
    trained = run.Run.trained

    def failed(self: run.Run, *args: Any) -> Trained:
        model = trained(self, *args)
        params = jax.tree.map(lambda leaf: leaf * jnp.nan, model.params)
        return Trained(self, params, *(getattr(model, name) for name in PARTS))

    return lambda: monkeypatch.setattr(run.Run, "trained", failed)


@pytest.mark.slow
@pytest.mark.usefixtures("noise")
def test_nor_of_variants(
    failing: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    Image.fromarray(np.full((8, 8), 128, np.uint8)).save(tmp_path / "picture.png")
    config = tiny(**SMALL, sample__num_images=2)
    assert run.run(config, tmp_path / "run", "train") == 0
    failing()
    config.sample.vary.image = str(tmp_path / "picture.png")
    for by in ("noise", "inversion"):
        config.sample.vary.by = by
        assert run.run(config, tmp_path / "run", "sample") == 2
        assert capsys.readouterr().err.splitlines()[-1] == FAILED.format(2, "step 2")
    assert not (tmp_path / "run/samples").exists()


@pytest.mark.slow
def test_nor_of_points(
    failing: Callable[[], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also of those that are followed through the field."""
    monkeypatch.setattr(from_config.data, "load_dataset", load_dataset)
    config = tiny(**SMALL, **POINTS)
    assert run.run(config, tmp_path, "train") == 0
    failing()
    assert run.run(config, tmp_path, "sample") == 2
    assert capsys.readouterr().err.splitlines()[-1] == FAILED.format(7, "step 2")
    assert not (tmp_path / "samples").exists()
    monkeypatch.setattr(field, "GRID", 4)
    monkeypatch.setattr(field, "PARTICLES", 8)
    assert run.run(config, tmp_path, "evaluate") == 2
    assert capsys.readouterr().err.splitlines()[-1] == FAILED.format(24, "Heun's method")
    assert not (tmp_path / "samples/basins.png").exists()
