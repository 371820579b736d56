"""DiT with published weights: the network of diffusers in float64, and files in both directions.

Outputs of diffusers' are in `reference/dit.npz`, made by `make_dit.py` there.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import imagenet256_dit
from diffusion_jax.from_config.published import network_digests, network_params
from diffusion_jax.models.dit import DiT, position_embedding
from diffusion_jax.models.published import dit
from diffusion_jax.models.published.dit import read_dit, write_dit
from diffusion_jax.models.weights import WeightsError, names_of, read_tensors, sha256, write_tensors
from tests.published import drawn_variables

STORED = np.load(Path(__file__).parents[1] / "reference" / "dit.npz")
SMALL = DiT(
    patch_size=2,
    hidden_size=48,
    depth=2,
    num_heads=4,
    num_classes=10,
    out_channels=8,
)
LARGE = DiT(
    hidden_size=1152, depth=28, num_heads=16, num_classes=1000, out_channels=8, patch_size=2
)


@functools.cache
def shapes(net, side):
    args = np.zeros((1, side, side, 4)), np.zeros(1), {"label": np.zeros(1, np.int32)}
    return jax.eval_shape(net.init, jax.random.key(0), *args)


def variables(net=SMALL):
    """Of tensors drawn by their names in the published file."""
    apart = dit.apart(shapes(net, 8))
    return dit.together(drawn_variables(apart, dit.published(apart)))


def test_dit_agrees_with_diffusers(x64):
    cond = {"label": STORED["label"]}
    net = SMALL.clone(dtype=np.float64)
    found = jax.jit(net.apply)(variables(net), STORED["x"], STORED["t"], cond)
    assert found.dtype == np.float64
    expected = STORED["y"]
    assert np.abs(found - expected).max() <= 1e-9 * np.abs(expected).max()


def test_names_and_shapes_are_those_of_the_published_file():
    apart = dit.apart(shapes(LARGE, 32))
    names = names_of(apart, dit.published(apart))
    assert len(names) == 4 + 2 + 1 + 28 * 10 + 4
    positions = 256 * 1152  # which are no parameters here
    assert sum(leaf.size for leaf in jax.tree.leaves(apart)) == 675_129_632 - positions
    for name in (
        *("x_embedder.proj.weight", "t_embedder.mlp.2.bias", "y_embedder.embedding_table.weight"),
        *("blocks.27.attn.qkv.weight", "blocks.0.attn.proj.bias", "blocks.3.mlp.fc1.weight"),
        *("blocks.27.adaLN_modulation.1.weight", "final_layer.adaLN_modulation.1.bias"),
        *("blocks.9.mlp.fc2.bias", "final_layer.linear.weight"),
    ):
        assert name in names


def test_what_is_written_is_read_and_has_all_tensors(tmp_path):
    path, given = tmp_path / "dit.safetensors", variables()
    write_dit(path, given, (4, 4))
    tensors = dict(read_tensors(path))
    assert tensors["x_embedder.proj.weight"].shape == (48, 4, 2, 2)
    np.testing.assert_array_equal(tensors["pos_embed"][0], position_embedding((4, 4), 48))
    jax.tree.map(np.testing.assert_array_equal, read_dit(path, shapes(SMALL, 8), (8, 8)), given)


def test_positions_may_be_rounded_to_half_precision_or_absent(tmp_path):
    path, given = tmp_path / "dit.safetensors", variables()
    write_dit(path, given, (4, 4))
    tensors = dict(read_tensors(path))
    tensors["pos_embed"] = tensors["pos_embed"].astype(jnp.bfloat16)
    for changed in (tensors, {name: t for name, t in tensors.items() if name != "pos_embed"}):
        write_tensors(path, changed)
        jax.tree.map(np.testing.assert_array_equal, read_dit(path, shapes(SMALL, 8), (8, 8)), given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("blocks.1.attn.qkv.bias"), r"blocks\.1\.attn\.qkv\.bias \[144\], which"),
        (lambda t: t.update(more=t["pos_embed"]), r"tensor more \[1, 16, 48\] is not part of"),
        (
            lambda t: t.update({"blocks.0.mlp.fc1.weight": t["blocks.0.mlp.fc2.weight"]}),
            r"blocks\.0\.mlp\.fc1\.weight \[192, 48\], which in the file is \[48, 192\]",
        ),
        (
            lambda t: t.update({"blocks.2.mlp.fc1.bias": t["blocks.0.mlp.fc1.bias"]}),
            r"tensor blocks\.2\.mlp\.fc1\.bias \[192\] is not part of the transformer",
        ),
        (
            lambda t: t.update(pos_embed=np.zeros((1, 64, 48), np.float32)),
            r"other sizes than 8x8 latents: its pos_embed is \[1, 64, 48\], and .* \[1, 16, 48\]",
        ),
        (  # rows before columns
            lambda t: t.update(pos_embed=np.roll(t["pos_embed"], 24, axis=-1)),
            "its pos_embed is not the table of sines and cosines of 8x8 latents",
        ),
    ],
)
def test_other_tensors_are_refused_by_name(tmp_path, change, message):
    path = tmp_path / "dit.safetensors"
    write_dit(path, variables(), (4, 4))
    tensors = dict(read_tensors(path))
    change(tensors)
    write_tensors(path, tensors)
    with pytest.raises(WeightsError, match=message):
        read_dit(path, shapes(SMALL, 8), (8, 8))


def test_the_config_reads_published_weights(tmp_path):
    path, config = tmp_path / "dit.safetensors", imagenet256_dit.get_config()
    write_dit(path, variables(), (4, 4))
    config.weights.source = str(path)
    found = network_params(config, shapes(SMALL, 8)["params"], (8, 8))
    jax.tree.map(np.testing.assert_array_equal, found, variables()["params"])
    assert network_digests(config) == {"dit": sha256(path)}
    config.weights.source = str(tmp_path)
    with pytest.raises(WeightsError, match="a transformer is one file, such as DiT-XL-2"):
        network_params(config, shapes(SMALL, 8)["params"], (8, 8))
