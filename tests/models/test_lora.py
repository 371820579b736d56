"""LoRA's files are read, merged and written as diffusers and PEFT do.

`reference/lora.npz` was made by `reference/make_lora.py`.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published.files import PARTS
from diffusion_jax.models.published.lora import (
    Lora,
    lora_init,
    merged,
    read_lora,
    write_lora,
)
from diffusion_jax.models.unet import UNet
from diffusion_jax.models.weights import WeightsError, read_tensors, write_tensors
from tests.published import drawn, drawn_variables

REFERENCE = np.load(pathlib.Path(__file__).parents[1] / "reference" / "lora.npz")
TOKENS = jnp.array([[0, 5, 3, 10, 10, 10, 10], [0, 10, 10, 10, 10, 10, 10]])
UNET = UNet(
    channels=128,
    channel_mults=(1,),
    num_blocks=1,
    attention_levels=(0,),
    num_heads=4,
    context_dim=8,
    symmetric_padding=True,
    dropout=0.0,
    out_channels=4,
)
TOWER = TextTower(vocabulary=11, positions=7, width=8, depth=1, heads=2, end=10)
X = np.random.default_rng(0).standard_normal((2, 4, 4, 4)).astype(np.float32)
ARGS = X, jnp.array([100.0, 900.0]), {"text": jnp.zeros((2, 7, 8))}


@functools.cache
def templates():
    return {
        "unet": jax.eval_shape(UNET.init, jax.random.key(0), *ARGS),
        "text_encoder": jax.eval_shape(TOWER.init, jax.random.key(0), TOKENS),
    }


@functools.cache
def variables():
    return {
        part: drawn_variables(template, PARTS[part].formats[0](template))
        for part, template in templates().items()
    }


@jax.jit
def outputs(params):
    x, t, _ = ARGS
    text, _ = TOWER.apply({"params": params["text_encoder"]}, TOKENS)
    return UNET.apply({"params": params["unet"]}, x, t, {"text": text})


def with_lora(lora):
    return {
        part: merged(found["params"], lora.factors[part], lora.scales[part])
        for part, found in variables().items()
    }


def published(name, folder, **changes):
    """The reference's file of a name, with tensors added, or removed where the change is None."""
    shapes, header = json.loads(str(REFERENCE[f"{name}_file"]))
    tensors = {
        key: drawn(key, tuple(shape)) if shape else np.float32(1.5) for key, shape in shapes.items()
    } | changes
    tensors = {key: value for key, value in tensors.items() if value is not None}
    path = folder / f"{name}.safetensors"
    header.pop("format")
    write_tensors(path, {key: np.asarray(value) for key, value in tensors.items()}, **header)
    return path


@pytest.mark.parametrize("name", ["peft", "scaled", "kohya"])
@pytest.mark.slow
def test_networks_with_a_published_lora_agree_with_diffusers(tmp_path, name):
    """`peft` has no alpha, `scaled` has them in its header, and `kohya` as tensors."""
    lora = read_lora(published(name, tmp_path), templates())
    y = outputs(with_lora(lora))
    np.testing.assert_allclose(y, REFERENCE[name], atol=1e-5)
    assert np.abs(y - REFERENCE["none"]).max() > 0.2


@pytest.mark.parametrize("name", ["peft", "kohya"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_lora_read_and_written_again_has_the_same_bytes(tmp_path, name, dtype):
    path, again = published(name, tmp_path), tmp_path / "again.safetensors"
    usual = {  # the names of files before transformers 5, which all programs read
        "text_encoder.encoder.": "text_encoder.text_model.encoder.",
        "lora_te1_encoder_": "lora_te_text_model_encoder_",
    }
    stored = {}
    for key, value in read_tensors(path).items():
        for new, old in usual.items():
            key = key.replace(new, old)
        stored[key] = value.astype(dtype)
    write_tensors(path, stored)
    write_lora(again, read_lora(path, templates()), templates(), name, dtype)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("naming", ["peft", "kohya"])
def test_scales_that_differ_by_layer_are_kept_by_both_namings(tmp_path, naming):
    lora = read_lora(published("kohya", tmp_path), templates())
    numbers = iter(np.linspace(0.5, 2.0, len(jax.tree.leaves(lora.scales))))
    lora = Lora(lora.factors, jax.tree.map(lambda _: float(np.float32(next(numbers))), lora.scales))
    write_lora(tmp_path / "w.safetensors", lora, templates(), naming)
    found = read_lora(tmp_path / "w.safetensors", templates())
    jax.tree.map(np.testing.assert_array_equal, found.factors, lora.factors)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[1], lora[1])


def test_names_of_compvis_and_of_transformers_5_are_read_too(tmp_path):
    shapes = {
        "lora_unet_middle_block_1_proj_in.lora_down.weight": (2, 128, 1, 1),
        "lora_unet_middle_block_1_proj_in.lora_up.weight": (128, 2, 1, 1),
        "lora_te1_encoder_layers_0_mlp_fc1.lora_down.weight": (2, 8),
        "lora_te1_encoder_layers_0_mlp_fc1.lora_up.weight": (32, 2),
    }
    path = tmp_path / "w.safetensors"
    write_tensors(path, {name: drawn(name, shape) for name, shape in shapes.items()})
    found = read_lora(path, templates())
    assert jax.tree.map(np.shape, found.factors) == {
        "unet": {"middle_attention": {"proj_in": {"kernel": {"a": (128, 2), "b": (2, 128)}}}},
        "text_encoder": {
            "text_model.encoder.layers.0": {"mlp.fc1": {"kernel": {"a": (8, 2), "b": (2, 32)}}}
        },
    }


def test_merging_is_the_equation_for_dense_layers_and_convolutions():
    rng = np.random.default_rng(0)
    params = {
        "dense": {"kernel": rng.standard_normal((3, 4)), "bias": np.zeros(4)},
        "conv": {"kernel": rng.standard_normal((3, 3, 5, 4))},
    }
    before = jax.tree.map(np.copy, params)
    factors = {
        "dense": {"kernel": {"a": rng.standard_normal((3, 2)), "b": rng.standard_normal((2, 4))}},
        "conv": {
            "kernel": {"a": rng.standard_normal((3, 3, 5, 2)), "b": rng.standard_normal((2, 4))}
        },
    }
    scales = {"dense": {"kernel": 0.5}, "conv": {"kernel": 3.0}}
    with jax.enable_x64():
        found = merged(params, factors, scales)
        for name, change in (("dense", "ir,ro->io"), ("conv", "hwir,ro->hwio")):
            a, b = factors[name]["kernel"]["a"], factors[name]["kernel"]["b"]
            expected = params[name]["kernel"] + scales[name]["kernel"] * np.einsum(change, a, b)
            np.testing.assert_allclose(found[name]["kernel"], expected, rtol=1e-12)
    assert found["dense"]["bias"] is params["dense"]["bias"]
    jax.tree.map(np.testing.assert_array_equal, params, before)
    with pytest.raises(ValueError, match="factors of 'other', which is not among"):
        merged(params, {"other": factors["dense"]})


def test_new_factors_change_nothing_and_train_from_there():
    params = {"middle_attention": variables()["unet"]["params"]["middle_attention"]}
    factors = lora_init(params, 4, jax.random.key(1))
    parts = ("q", "k", "v", "out")
    assert factors["middle_attention"].keys() == {
        f"{n}_{p}" for n in ("self", "text") for p in parts
    }
    jax.tree.map(np.testing.assert_array_equal, merged(params, factors), params)
    text = factors["middle_attention"]["text_k"]["kernel"]
    bound = 8**-0.5  # of 8 inputs
    assert 0.8 * bound < np.abs(text["a"]).max() < bound
    assert np.std(factors["middle_attention"]["self_q"]["kernel"]["a"]) == pytest.approx(
        (3 * 128) ** -0.5, rel=0.1
    )
    kernel = params["middle_attention"]["text_k"]["kernel"]

    def loss(factors):
        changed = merged(params, factors, 2.0)["middle_attention"]["text_k"]["kernel"]
        return jnp.sum((changed - kernel - 1) ** 2)

    gradient = jax.grad(loss)(factors)["middle_attention"]["text_k"]["kernel"]
    # At b = 0 the derivative by b is -2 * 2 a^T 1, and that by a is 0.
    expected = np.broadcast_to(-4 * np.sum(text["a"], axis=0)[:, None], (4, 128))
    np.testing.assert_allclose(gradient["b"], expected, rtol=1e-5)
    np.testing.assert_array_equal(gradient["a"], 0)
    with pytest.raises(ValueError, match="no layer that the network has"):
        lora_init(params, 4, jax.random.key(1), lambda path: False)


QUERY = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({f"{QUERY}.lora_B.weight": None}, rf"{QUERY}\.lora_B\.weight \[128, 2\], which the file"),
        (
            {f"{QUERY}.lora_B.weight": np.zeros((2, 128))},
            r"lora_B\.weight \[128, 2\], which in the file is \[2, 128\]",
        ),
        (
            {f"{QUERY}.lora_A.weight": np.zeros((2, 64))},
            r"lora_A\.weight \[2, 128\], which in the file is \[2, 64\]",
        ),
        (
            {f"{QUERY}.lora_magnitude_vector": np.zeros(128)},
            "to_q.lora_magnitude_vector .* is not part of LoRA of the U-Net and the text encoder",
        ),
        ({"unet.gadget.lora_A.weight": np.zeros((2, 3))}, r"gadget\.lora_A\.weight .* not part of"),
        ({f"{QUERY}.alpha": np.zeros(2)}, r"to_q\.alpha \[2\] is no number"),
        ({"unet.gadget.alpha": np.float32(1)}, r"gadget\.alpha \[\] is not part of"),
    ],
)
def test_factors_that_do_not_fit_are_refused_by_name(tmp_path, changes, says):
    with pytest.raises(WeightsError, match=says):
        read_lora(published("peft", tmp_path, **changes), templates())


def test_a_damaged_header_is_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    write_tensors(path, {}, lora_adapter_metadata="{")
    with pytest.raises(WeightsError, match="lora_adapter_metadata in its header is no JSON"):
        read_lora(path, templates())
