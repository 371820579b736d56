"""Stable Diffusion's files: names and shapes are the published ones, and both ways agree.

`reference/published.json.gz` was made by `reference/make_published.py`.
"""

import functools
import gzip
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.clip import TextTower
from diffusion_jax.models.published.files import (
    PARTS,
    digests,
    part_file,
    prefixed,
    read_part,
    write_part,
    write_single_file,
)
from diffusion_jax.models.unet import UNet
from diffusion_jax.models.weights import (
    WeightsError,
    read_tensors,
    sha256,
    tensors_of,
    write_tensors,
)
from tests.models.test_models import SD_15
from tests.published import drawn, drawn_variables, shapes_of

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "published.json.gz"
SMALL_UNET = UNet(
    channels=32,
    channel_mults=(1, 2, 3),
    num_blocks=1,
    attention_levels=(0, 2),
    num_heads=4,
    context_dim=24,
    symmetric_padding=True,
    dropout=0.0,
    out_channels=4,
)
SMALL_AUTOENCODER = Autoencoder(channels=8, channel_mults=(1, 2), num_blocks=1)
SMALL_TOWER = TextTower(vocabulary=11, positions=7, width=8, depth=1, heads=2)


def unet_shapes(net, size):
    x = jax.ShapeDtypeStruct((1, size, size, 4), jnp.float32)
    text = jax.ShapeDtypeStruct((1, 7, net.context_dim), jnp.float32)
    t = jax.ShapeDtypeStruct((1,), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), x, t, {"text": text})


def tower_shapes(net):
    return jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 7), jnp.int32))


@functools.cache
def small(part):
    """The shapes of a part of a small model."""
    if part == "vae":
        x = jax.ShapeDtypeStruct((1, 2, 2, 3), jnp.float32)
        return jax.eval_shape(SMALL_AUTOENCODER.init, jax.random.key(0), x)
    return unet_shapes(SMALL_UNET, 4) if part == "unet" else tower_shapes(SMALL_TOWER)


def variables_of(part):
    return drawn_variables(small(part), PARTS[part].formats[0](small(part)))


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize(
    ("name", "part", "template"),
    [
        pytest.param("unet", "unet", lambda: unet_shapes(SD_15, 8), marks=pytest.mark.slow),
        ("small_unet", "unet", lambda: small("unet")),
        ("text_encoder", "text_encoder", lambda: tower_shapes(TextTower())),
    ],
)
def test_names_and_shapes_are_those_that_are_published(name, part, template):
    tensors, part, template = (
        json.loads(gzip.decompress(REFERENCE.read_bytes()))[name],
        PARTS[part],
        template(),
    )
    folder = shapes_of(template, part.formats[0](template))
    assert folder == {name: tuple(shape) for name, _, shape in tensors}
    single = shapes_of(template, prefixed(part.prefix, part.formats[-1](template)))
    assert single == {name: tuple(shape) for _, name, shape in tensors}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_folder_and_a_single_file_give_the_same_bits(tmp_path, dtype):
    parts = {part: variables_of(part) for part in PARTS}
    write_single_file(tmp_path / "whole.safetensors", parts, dtype)
    for part, variables in parts.items():
        write_part(tmp_path / "folder", part, variables, dtype)
        found = read_part(tmp_path / "folder", part, small(part))
        same(found, read_part(tmp_path / "whole.safetensors", part, small(part)))
        same(found, jax.tree.map(lambda a: a.astype(dtype).astype(np.float32), variables))


def test_each_part_has_the_digest_of_its_file(tmp_path):
    parts = {part: variables_of(part) for part in PARTS}
    for part, variables in parts.items():
        write_part(tmp_path, part, variables)
    found = digests(tmp_path)
    assert found == {part: sha256(part_file(tmp_path, part)) for part in PARTS}
    assert len(set(found.values())) == len(PARTS)
    path = tmp_path / "w.safetensors"
    write_single_file(path, parts)
    assert set(digests(path).values()) == {sha256(path)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("part", PARTS)
def test_published_files_read_and_written_again_keep_their_bytes(tmp_path, part, dtype):
    shapes = shapes_of(small(part), PARTS[part].formats[0](small(part)))
    tensors = {name: drawn(name, shape).astype(dtype) for name, shape in shapes.items()}
    path = tmp_path / PARTS[part].folder / PARTS[part].files[0]
    write_tensors(path, tensors)
    again = write_part(tmp_path / "again", part, read_part(tmp_path, part, small(part)), dtype)
    found = read_tensors(again)
    assert {name: tensor.tobytes() for name, tensor in found.items()} == {
        name: tensor.tobytes() for name, tensor in tensors.items()
    }
    assert again.relative_to(tmp_path / "again") == path.relative_to(tmp_path)
    assert again.read_bytes() == path.read_bytes()


def test_a_part_alone_is_read_with_the_names_of_either_format(tmp_path):
    path = tmp_path / "diffusion_pytorch_model.safetensors"
    for form in PARTS["unet"].formats:
        shapes = shapes_of(small("unet"), form(small("unet")))
        write_tensors(path, {name: drawn(name, shape) for name, shape in shapes.items()})
        found = read_part(path, "unet", small("unet"))
        same(found, drawn_variables(small("unet"), form(small("unet"))))
        same(found, read_part(tmp_path, "unet", small("unet")))


def whole(path, **changes):
    """Writes a single file with tensors added, or removed where the change is None."""
    write_single_file(path, {part: variables_of(part) for part in PARTS})
    tensors = dict(read_tensors(path)) | changes
    write_tensors(path, {name: value for name, value in tensors.items() if value is not None})
    return path


def test_buffers_and_positions_in_a_single_file_are_passed_over(tmp_path):
    names = ("betas", "alphas_cumprod_prev", "sqrt_recipm1_alphas_cumprod", "posterior_variance")
    more = {name: np.zeros(3, np.float32) for name in (*names, "model_ema.decay")}
    positions = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    path = whole(tmp_path / "w.safetensors", **more, **{positions: np.arange(7)[None]})
    for part in PARTS:
        same(read_part(path, part, small(part)), variables_of(part))


TIME = "model.diffusion_model.time_embed.0.weight"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({TIME: None}, rf"the U-Net has a tensor {TIME} \[128, 32\], which the file lacks"),
        ({TIME: np.zeros((32, 128))}, rf"{TIME} \[128, 32\], which in the file is \[32, 128\]"),
        ({TIME: np.zeros((128, 32), int)}, rf"{TIME} \[128, 32\], which in the file has dtype"),
        ({"gadget": np.zeros(2)}, r"file's tensor gadget \[2\] is not part of the U-Net"),
        (
            {"model.diffusion_model.gadget": np.zeros(2)},
            r"tensor model\.diffusion_model\.gadget \[2\] is not part of the U-Net",
        ),
        ({"conditioner.x": np.zeros(2)}, "these are weights of Stable Diffusion XL, which is"),
        ({"cond_stage_model.model.x": np.zeros(2)}, "weights of Stable Diffusion 2, which is"),
    ],
)
def test_a_single_file_with_a_wrong_tensor_is_refused_by_its_name(tmp_path, changes, says):
    path = whole(tmp_path / "w.safetensors", **changes)
    with pytest.raises(WeightsError, match=says) as caught:
        read_part(path, "unet", small("unet"))
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize(("width", "version"), [(1024, "2"), (2048, "XL")])
def test_a_folder_of_another_version_is_refused_as_such(tmp_path, width, version):
    form = PARTS["unet"].formats[0]
    shapes = shapes_of(small("unet"), form(small("unet")))
    tensors = {name: drawn(name, shape) for name, shape in shapes.items()}
    for name, (rows, *_) in shapes.items():
        if ".attn2.to_k" in name or ".attn2.to_v" in name:
            tensors[name] = np.zeros((rows, width), np.float32)
        if "proj_in.weight" in name:
            tensors[name] = tensors[name][:, :, 0, 0]
    write_tensors(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", tensors)
    with pytest.raises(WeightsError, match=f"weights of Stable Diffusion {version}, which is"):
        read_part(tmp_path, "unet", small("unet"))


def test_the_network_for_inpainting_is_named_where_another_is_wanted(tmp_path):
    wider = unet_shapes(SMALL_UNET, 4)
    wider["params"]["conv_in"]["kernel"] = jax.ShapeDtypeStruct((3, 3, 9, 32), jnp.float32)
    write_part(tmp_path, "unet", drawn_variables(wider, PARTS["unet"].formats[0](wider)))
    with pytest.raises(
        WeightsError, match=r"Diffusion for inpainting \(image_condition\.name='inp"
    ):
        read_part(tmp_path, "unet", small("unet"))
    read_part(tmp_path, "unet", wider)


def test_the_network_for_inpainting_of_another_version_is_named_by_its_version(tmp_path):
    changes = {"model.diffusion_model.input_blocks.0.0.weight": np.zeros((32, 9, 3, 3))}
    path = whole(tmp_path / "w.safetensors", **changes, **{"cond_stage_model.model.x": np.zeros(2)})
    with pytest.raises(WeightsError, match="these are weights of Stable Diffusion 2, which is"):
        read_part(path, "unet", small("unet"))


@pytest.mark.parametrize("form", range(3))
@pytest.mark.parametrize("levels", [1, 3])
def test_an_autoencoder_of_another_downsampling_is_refused_by_it(tmp_path, form, levels):
    net = SMALL_AUTOENCODER.clone(channel_mults=(1, 2, 2)[:levels])
    x = jax.ShapeDtypeStruct((1, 4, 4, 3), jnp.float32)
    shapes = jax.eval_shape(net.init, jax.random.key(0), x)
    layout = PARTS["vae"].formats[form](shapes)
    write_tensors(tmp_path / "v.safetensors", tensors_of(drawn_variables(shapes, layout), layout))
    says = f"this autoencoder divides all sides by {net.factor}, and one that divides them by 2 was"
    with pytest.raises(WeightsError, match=says):
        read_part(tmp_path / "v.safetensors", "vae", small("vae"))


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    broken = np.array([[np.inf] + [value] * 31] + [[0] * 32] * 127, np.float16)
    path = whole(tmp_path / "w.safetensors", **{TIME: broken})
    with pytest.raises(WeightsError, match=rf"{TIME} \[128, 32\], which in the file is not finite"):
        read_part(path, "unet", small("unet"))
    large = np.full((128, 32), 1e38, np.float32)  # whose sum is not finite
    read_part(whole(path, **{TIME: large}), "unet", small("unet"))


def test_what_a_training_left_in_a_file_of_the_autoencoder_alone_is_passed_over(tmp_path):
    variables = variables_of("vae")
    tensors = tensors_of(variables, PARTS["vae"].formats[-1](variables), np.float32)
    more = {"loss.logvar": np.zeros(1, np.float32), "model_ema.decay": np.ones(1, np.float32)}
    write_tensors(tmp_path / "vae.safetensors", tensors | more)
    same(read_part(tmp_path / "vae.safetensors", "vae", small("vae")), variables)
    write_tensors(tmp_path / "vae.safetensors", tensors | {"other": np.zeros(1, np.float32)})
    with pytest.raises(WeightsError, match="other"):
        read_part(tmp_path / "vae.safetensors", "vae", small("vae"))


def test_files_that_are_not_there_or_not_safe_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no text_encoder/model\.safetensors, with the weights"):
        part_file(tmp_path, "text_encoder")
    with pytest.raises(WeightsError, match=r"v1\.ckpt: .* take the \.safetensors file"):
        read_part(tmp_path / "v1.ckpt", "unet", small("unet"))
    with pytest.raises(FileNotFoundError):
        read_part(tmp_path / "none.safetensors", "unet", small("unet"))


def test_parameters_that_the_format_has_no_name_for_are_refused_by_name(tmp_path):
    template = {"params": {"down_0_0_res": {"conv_0": {"kernel": np.zeros((3, 3, 1, 1))}}}}
    template["params"]["embedding"] = {"label": {"embedding": np.zeros((3, 2))}}
    with pytest.raises(WeightsError, match="the U-Net's embedding/label/embedding is not part of"):
        write_part(tmp_path, "unet", template)
