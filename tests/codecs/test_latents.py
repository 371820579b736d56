"""Latents have the statistics that the autoencoder's folder says, and no others."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from diffusion_jax.codecs.latents import CODEC
from diffusion_jax.data import Images
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.codecs import make_codec, weights_digests
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.published import autoencoder_configs
from diffusion_jax.models.published.files import write_part
from diffusion_jax.models.weights import sha256
from diffusion_jax.system.keys import make_key

NETWORK = Autoencoder(
    channels=8, channel_mults=(1, 1), num_blocks=1, latent_channels=2, out_channels=1, norm_groups=2
)
MEAN, STD = (0.5, -2.0), (0.25, 4.0)
KIND = Images((8, 8, 1))


@pytest.fixture(scope="module")
def variables() -> Any:
    shapes = jax.eval_shape(NETWORK.init, make_key(0), jnp.zeros((1, 8, 8, 1)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: 0.3 * rng.standard_normal(a.shape, np.float32), shapes)


@pytest.fixture(scope="module")
def folder(variables: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a run that trained an autoencoder writes it."""
    run = tmp_path_factory.mktemp("autoencoder")
    write_part(run, "vae", variables)
    settings = autoencoder_configs.write(NETWORK, MEAN, STD, 8)
    (run / "vae/config.json").write_text(json.dumps(settings))
    return run


def settings(folder: Path, **changes: Any) -> Any:
    config = default.get_config()
    config.codec.name, config.codec.run = "autoencoder", str(folder)
    config.update_from_flattened_dict(changes)
    return config


def test_latents_of_a_run_are_normalised_by_its_statistics(variables: Any, folder: Path) -> None:
    codec, frozen = make_codec(settings(folder), KIND)
    params = {CODEC: frozen[CODEC].load()}
    jax.tree.map(np.testing.assert_array_equal, params[CODEC], variables["params"])
    assert (codec.shape, codec.network) == ((4, 4, 2), NETWORK)
    x = jax.random.normal(make_key(1), (3, 8, 8, 1))
    keys = jax.random.split(make_key(2), 3)
    x_0 = jax.jit(codec.encode)(params, x, keys)
    of_network = jax.jit(NETWORK.apply, static_argnames="method")
    mean, logvar = of_network(variables, x, method="encode")
    noise = jax.vmap(lambda key: jax.random.normal(key, (4, 4, 2)))(keys)
    z = mean + jnp.exp(logvar / 2) * noise
    np.testing.assert_allclose(x_0, (z - np.array(MEAN)) / np.array(STD), rtol=1e-5, atol=1e-6)
    decoded = of_network(variables, z, method="decode")
    np.testing.assert_allclose(jax.jit(codec.decode)(params, x_0), decoded, rtol=1e-3, atol=1e-4)
    digest = sha256(folder / "vae/diffusion_pytorch_model.safetensors")
    assert weights_digests(settings(folder)) == {CODEC: digest}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents_std": [1.0, 0.0]}, "latents_std=.* must have a value for each"),
        ({"latents_mean": [1.0]}, "latents_mean=.* must have a value for each"),
        ({"use_quant_conv": False}, "use_quant_conv=False is not supported"),
        ({"block_out_channels": [8, 12]}, "widths be multiples of the first"),
        ({"_class_name": "AutoencoderTiny"}, "is not AutoencoderKL"),
    ],
)
def test_another_kind_of_autoencoder_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    (tmp_path / "vae").mkdir()
    wrong = {**autoencoder_configs.write(NETWORK, MEAN, STD, 8), **changes}
    (tmp_path / "vae/config.json").write_text(json.dumps(wrong))
    with pytest.raises(ConfigError, match=f"codec.run: .*/vae/config.json: .*{message}"):
        make_codec(settings(tmp_path), KIND)


def test_a_folder_without_an_autoencoder_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"config": {}}')  # of a run that is not finished
    with pytest.raises(ConfigError, match=r"codec\.run='.*': there is no vae/config\.json"):
        make_codec(settings(tmp_path), KIND)
    with pytest.raises(ConfigError, match=r"codec\.run='/nowhere': there is no such file"):
        make_codec(settings(Path("/nowhere")), KIND)
    with pytest.raises(ConfigError, match="is of data of 1 channels, and these are images of"):
        make_codec(settings(folder), Images((8, 8, 3)))
    with pytest.raises(ConfigError, match=r"for images of 9x9x1: all sides .* multiples of 2"):
        make_codec(settings(folder), Images((9, 9, 1)))


def test_published_settings_are_read_as_diffusers_applies_them() -> None:
    """`(z - shift_factor) scaling_factor` of Stable Diffusion 3, and v1's own default."""
    found = autoencoder_configs.read({"block_out_channels": [128, 256, 512, 512]}, "config.json")
    assert (found.mean, found.scale) == ((0.0,) * 4, (0.18215,) * 4)
    assert found.network.channel_mults == (1, 2, 4, 4)
    shifted = {"shift_factor": 0.0609, "scaling_factor": 1.5305, "block_out_channels": [32]}
    found = autoencoder_configs.read(shifted, "config.json")
    assert (found.mean, found.scale) == ((0.0609,) * 4, (1.5305,) * 4)


def test_norms_that_differ_in_groups_cannot_be_written() -> None:
    narrow = Autoencoder(channels=32, channel_mults=(1, 2))
    with pytest.raises(ValueError, match=r"norm_groups=0 must divide all widths \[32, 64\]"):
        autoencoder_configs.write(narrow, MEAN, STD, 8)
    assert autoencoder_configs.groups_of(Autoencoder()) == 32
