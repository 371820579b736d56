"""Training in the latents of an autoencoder: encoded in the step, or once before it."""

import re
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import run
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.from_config.restoration_checks import check_restoration
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.published.files import write_part
from diffusion_jax.run import training
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import cache_dir
from tests.runs import assert_same, final_state, random_dataset, tiny

SIZES: dict[str, Any] = {"channels": 8, "channel_mults": (1, 2), "num_blocks": 1}
LATENTS = {
    "codec__name": "autoencoder",
    **{f"codec__autoencoder__{name}": value for name, value in SIZES.items()},
    "data__flip": True,
    "train__batch_size": 8,
}


def write_autoencoder(folder: Path, seed: int = 0) -> Path:
    """The folder of an autoencoder of 8x8x1 pixels with random weights."""
    network = Autoencoder(**SIZES, out_channels=1)
    shapes = jax.eval_shape(network.init, make_key(0), jnp.zeros((1, 8, 8, 1)))
    rng = np.random.default_rng(seed)
    variables = jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape, np.float32), shapes)
    write_part(folder, "vae", variables)
    return folder


@pytest.fixture
def config(noise: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(training, "cache_dir", cache_dir)
    weights = str(write_autoencoder(tmp_path / "autoencoder"))

    def made(**changes: Any) -> Any:
        return tiny(**{**LATENTS, "codec__autoencoder__weights": weights, **changes})

    return made


@pytest.mark.slow
def test_a_training_on_stored_latents_is_the_same_to_the_bit_and_goes_on_exactly(
    config: Any, tmp_path: Path
) -> None:
    steps = {"train__steps": 12, "train__checkpoint_every": 4, "train__keep_checkpoints": 9}
    shown = {"train__heldout_every": 6, "train__sample_every": 6, "evaluate__metrics": "denoising"}
    in_step = config(**steps, codec__cache=False)
    assert run.run(in_step, tmp_path / "a", "train") == 0
    stored = config(**steps, **shown)
    assert run.run(stored, tmp_path / "b", "all") == 0
    expected = final_state(in_step, tmp_path / "a")
    assert_same(final_state(stored, tmp_path / "b"), expected)
    assert (tmp_path / "b/samples/grid.png").exists()
    assert "denoising" in (tmp_path / "b/result.json").read_text()
    assert "heldout/error_t0.45" in (tmp_path / "b/metrics.jsonl").read_text()
    for step in (8, 12):
        shutil.rmtree(tmp_path / f"b/checkpoints/{step}")
    assert run.run(stored, tmp_path / "b", "train") == 0
    assert_same(final_state(stored, tmp_path / "b"), expected)


@pytest.mark.slow
def test_a_run_keeps_its_autoencoder(config: Any, tmp_path: Path, capsys: Any) -> None:
    """Neither going on nor drawing takes another one in the same place."""
    short = config(train__steps=2, train__checkpoint_every=2)
    assert run.run(short, tmp_path / "a", "train") == 0
    write_autoencoder(tmp_path / "autoencoder", seed=1)
    for mode in ("train", "sample"):
        assert run.run(short, tmp_path / "a", mode) == 2
        assert "was trained with another codec: its parameters have" in capsys.readouterr().err


def test_restoring_is_of_pixels(config: Any) -> None:
    asked = config(restore__image="picture.png")
    with pytest.raises(ConfigError, match="restore needs a network of pixels, not codec"):
        check_restoration(asked, random_dataset().kind)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample__clip": 1.0}, "sample.clip=1.0 does not go with codec.name='autoencoder'"),
        ({"image_condition__name": "masked"}, "image_condition.name='masked' does not go with"),
        ({"data__image_size": 8, "codec__autoencoder__channel_mults": (1,) * 5}, "8x8x1"),
    ],
)
def test_settings_of_pixels_are_refused_in_latents(
    config: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(config(**changes), random_dataset())
