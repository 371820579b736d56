"""Stable Diffusion from its published files: a small one with random weights, as a folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs import default, sd15
from diffusion_jax import run
from diffusion_jax.codecs import Identity
from diffusion_jax.data import Images
from diffusion_jax.diffusion import scheduler_configs
from diffusion_jax.diffusion.schedules import DDPM, ScaledLinear
from diffusion_jax.from_config import ConfigError, build
from diffusion_jax.from_config.codecs import make_codec
from diffusion_jax.from_config.exports import check_export, scheduler_config
from diffusion_jax.from_config.published import Published, network_params, weights_source
from diffusion_jax.from_config.text import tokeniser_file
from diffusion_jax.models.published.files import digests, write_single_file
from diffusion_jax.models.weights import WeightsError
from diffusion_jax.system.pictures import read_made_by
from tests.runs import random_dataset
from tests.stable_diffusion import SCHEDULER, settings, variables, write_small
from tests.texts import TOKENISERS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("published") / "small")


@pytest.mark.slow
def test_pictures_of_texts_are_drawn_from_a_folder_and_from_a_single_file(
    folder: Path, tmp_path: Path
) -> None:
    assert run.run(settings(folder), tmp_path / "folder", "sample") == 0
    single = tmp_path / "small.safetensors"
    write_single_file(single, variables(folder))
    tokens = str(folder / "tokenizer")
    assert run.run(settings(single, text__tokenizer=tokens), tmp_path / "single", "sample") == 0
    names = [tmp_path / name / "samples/images/000001.png" for name in ("folder", "single")]
    first, second = (np.asarray(Image.open(name)) for name in names)
    assert first.shape == (16, 24, 3)
    assert first.std() > 1
    np.testing.assert_array_equal(first, second)
    about = read_made_by(names[0])
    assert about is not None
    assert about["weights"] == digests(folder)
    assert len(about["weights"]["unet"]) == 64
    assert about["unconditional"] == "the empty text"
    # A negative text of no words is none.
    assert run.run(settings(folder, sample__negative=" "), tmp_path / "none", "sample") == 0
    third = np.asarray(Image.open(tmp_path / "none/samples/images/000001.png"))
    np.testing.assert_array_equal(first, third)


def test_what_was_trained_otherwise_is_refused(folder: Path) -> None:
    published = Published.of(settings(folder), "model.name")
    published.check_scheduler(ScaledLinear(), "eps")
    published.check_scale(0.18215)
    with pytest.raises(ConfigError, match=r"trained with eps: objective\.prediction is v"):
        published.check_scheduler(ScaledLinear(), "v")
    with pytest.raises(ConfigError, match=r"trained with ScaledLinear.*: schedule is DDPM"):
        published.check_scheduler(DDPM(), "eps")
    with pytest.raises(ConfigError, match=r"are scaled by 0\.18215: codec\.autoencoder\.scale=1"):
        published.check_scale(1.0)


def test_files_that_are_missing_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.name='unet' needs published weights"):
        Published.of(sd15.get_config(), "model.name")
    with pytest.raises(ConfigError, match=r"weights\.source='/nowhere': there is no such file"):
        Published.of(settings(Path("/nowhere")), "model.name")
    with pytest.raises(WeightsError, match=r"has no unet/diffusion_pytorch_model\.safetensors"):
        network_params(settings(tmp_path), {}, (8, 12))
    with pytest.raises(ConfigError, match=r"for networks that are published: model\.name='mlp'"):
        network_params(settings(folder, model__name="mlp"), {}, (8, 12))


def test_a_folder_of_stable_diffusion_xl_is_refused_by_its_second_encoder(tmp_path: Path) -> None:
    (tmp_path / "text_encoder_2").mkdir()
    Published.of(settings(tmp_path), "model.name")  # a version with another network, or damaged
    (tmp_path / "unet").mkdir()
    with pytest.raises(ConfigError, match="by its text_encoder_2 this is Stable Diffusion XL"):
        Published.of(settings(tmp_path), "model.name")
    own = str(tmp_path)  # its autoencoder is one of our kind
    assert Published.of(settings(tmp_path), "codec.name", own).source == tmp_path


def test_the_tokeniser_of_a_single_file_is_looked_for_beside_it(tmp_path: Path) -> None:
    config = settings(tmp_path / "v1.safetensors")
    (tmp_path / "v1.safetensors").touch()
    with pytest.raises(ConfigError, match=rf"text\.tokenizer=.* there is none at {tmp_path}$"):
        tokeniser_file(config)
    (tmp_path / "vocab.json").touch()
    assert tokeniser_file(config) == tmp_path / "vocab.json"


def test_sizes_that_do_not_divide_are_named_with_those_of_the_pictures() -> None:
    sizes = {"data__shape": (16, 18, 3), "model__unet__channel_mults": (1, 1)}
    plain = {"text__name": "none", "text__unconditional": "zeros", "sample__prompts": ()}
    with pytest.raises(ConfigError, match=r"size 8x9 must be .* of 2.* \(for images of 16x18x3\)$"):
        build(settings(Path(), **sizes, **plain))


def test_runs_from_before_are_without_published_weights_and_codec() -> None:
    config = default.get_config()
    with config.unlocked():
        del config["weights"], config["codec"], config.text["unconditional"]
    assert weights_source(config) == ""
    codec, frozen = make_codec(config, Images((8, 8, 1)))
    assert (codec, frozen) == (Identity((8, 8, 1), 1.0, 256), {})
    task = build(config, random_dataset()).task
    assert not task.frozen


def test_nothing_can_be_trained_without_data(folder: Path, tmp_path: Path, capsys: Any) -> None:
    assert run.run(settings(folder), tmp_path / "run", "train") == 2
    assert "data.name='none' has no items to train on" in capsys.readouterr().err


def test_what_is_read_is_written_again_with_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    groups = {"model__unet__norm_groups": 32, "codec__autoencoder__norm_groups": 8}
    assert run.run(settings(folder, **groups), tmp_path, "export") == 0
    written = tmp_path / "published"
    assert digests(written) == digests(folder)
    names = ["scheduler/scheduler_config.json", *(f"tokenizer/{name}" for name in TOKENISERS)]
    for name in names:
        first, second = ((root / name).read_bytes() for root in (folder, written))
        assert json.loads(first) == json.loads(second)
    config = json.loads((written / "unet/config.json").read_text())
    assert (config["cross_attention_dim"], config["sample_size"]) == (16, 8)
    assert json.loads((written / "vae/config.json").read_text())["scaling_factor"] == 0.18215


def test_what_no_folder_can_hold_is_not_written() -> None:
    config = sd15.get_config()
    assert scheduler_config(config) == scheduler_configs.write(SCHEDULER)
    check_export(config)
    config.model.time_input = "thousands"
    with pytest.raises(ConfigError, match=r"of model\.time_input='table_index': it is 'thousands'"):
        check_export(config)
    config.sample.sampler = "heun"
    with pytest.raises(ConfigError, match=r"sample\.sampler='heun': sampler 'heun' on the sched"):
        scheduler_config(config)
