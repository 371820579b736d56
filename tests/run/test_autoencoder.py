"""An autoencoder: trained beside a critic, measured, written, and read as a codec."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from diffusion_jax import run
from diffusion_jax.codecs.latents import CODEC
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.from_config.codecs import weights_digests
from diffusion_jax.objectives.autoencoder import CRITIC
from diffusion_jax.system.keys import make_key
from tests.runs import random_dataset, tiny

SMALL = {
    **{"objective__name": "autoencoder", "model__name": "autoencoder"},
    **{"model__autoencoder__channels": 8, "model__autoencoder__channel_mults": (1, 1)},
    **{"model__autoencoder__norm_groups": 4, "model__critic__channels": 4},
    **{"model__critic__channel_mults": (1, 1), "objective__autoencoder__adversarial": 0.1},
    **{"evaluate__metrics": "reconstruction", "evaluate__reconstruction__num_images": 12},
    **{"sample__batch_size": 16, "optimizer__warmup_steps": 0, "train__heldout_every": 3},
    **{"train__sample_every": 6},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that trained and evaluated one."""
    made = tmp_path_factory.mktemp("runs") / "autoencoder"
    assert run.run(tiny(**SMALL), made, "all") == 0
    return made


@pytest.mark.slow
def test_a_run_leaves_an_autoencoder_that_other_runs_read(folder: Path, capsys: Any) -> None:
    config = tiny(codec__name="autoencoder", codec__run=str(folder))
    parts = build(config)
    codec, params = parts.generator.codec, {CODEC: parts.task.frozen[CODEC].load()}
    trained = run.open_run(folder)
    for name in ("encoder", "decoder"):
        jax.tree.map(np.testing.assert_array_equal, params[CODEC][name], trained.params[name])
    items = parts.dataset.arrays("train")[0]
    keys = jax.random.split(make_key(0), len(items))
    x_0 = jax.jit(codec.encode)(params, parts.dataset.kind.decode(items), keys)
    of_channel = np.asarray(x_0).reshape(-1, codec.shape[-1])
    np.testing.assert_allclose(of_channel.std(0), 1, atol=0.01)
    np.testing.assert_allclose(of_channel.mean(0), 0, atol=0.01)
    assert run.run(tiny(**SMALL), folder, "train") == 0  # writes the same
    assert "is in" in capsys.readouterr().out
    assert (folder / "samples/step_00000006.png").exists()
    found = run.Run(config, folder.parent / "latents", parts)
    assert found.made_by(0, 0)["weights"] == weights_digests(config)


@pytest.mark.slow
def test_what_comes_back_is_measured(folder: Path) -> None:
    result = json.loads((folder / "result.json").read_text())
    names = {"psnr", "stlpips", "kl_bits", *(f"latent_std_{i}" for i in range(4))}
    assert set(result) == names
    assert "ST-LPIPS is for images" in result["stlpips"]["left_out"]
    for name in names - {"stlpips"}:
        assert result[name]["low"] <= result[name]["value"] <= result[name]["high"]
    page = (folder / "report.md").read_text()
    assert "samples/reconstructions.png" in page
    assert "samples/prior.png" in page
    assert "no pictures are expected here" in page
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = {name: value for row in rows for name, value in row.items()}
    for name in ("encoder", "decoder", CRITIC):
        assert logged[f"update_norm_{name}"] > 0
    assert "heldout/reconstruction" in logged
    assert "heldout/critic" not in logged


@pytest.mark.slow
def test_a_group_that_does_not_move_ends_the_run(tmp_path: Path, capsys: Any) -> None:
    still = tiny(**SMALL | {"train__steps": 12, "train__log_every": 11})
    still.optimizer.unlock().groups = {"decoder": {"learning_rate": 0.0}}
    assert run.run(still, tmp_path / "still", "train") == 2
    said = capsys.readouterr().err
    assert "step 11: the parameters of 'decoder' have not moved in the last 11 steps" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codec__name": "autoencoder"}, r"codec\.name is 'autoencoder', not 'identity'"),
        (
            {"objective__autoencoder__perceptual": 1.0},
            r"objective\.autoencoder\.perceptual=1\.0: ST-LPIPS is for images of .* 21 pixels",
        ),
        (
            {"model__autoencoder__norm_groups": 3},
            r"model.name='autoencoder' for images of 8x8x1: 8 channels cannot be split into 3",
        ),
        (
            {"model__autoencoder__channel_mults": (1, 1, 1, 1, 1)},
            r"images of 8x8x1: all sides of size 8x8 must be multiples of 16",
        ),
        (
            {"model__critic__channel_mults": (1, 1, 1, 1, 1)},
            r"model\.critic.*sides of size 8x8 must be multiples of 16",
        ),
        ({"objective__autoencoder__reconstruction": "l2"}, r"reconstruction='l2' is not known"),
        ({"model__name": "unet"}, r"does not support model\.name='unet'"),
        ({"evaluate__metrics": "distances"}, r"'distances' measures samples: .* draws no samples"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tiny(**SMALL | changes), random_dataset())


def test_only_an_autoencoder_is_measured_by_what_comes_back() -> None:
    with pytest.raises(ConfigError, match=r"'reconstruction' needs objective\.name='autoencoder'"):
        build(tiny(evaluate__metrics="reconstruction"), random_dataset())
