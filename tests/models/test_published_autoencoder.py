"""Published files of autoencoders have the tensors that diffusers and CompVis give them.

Their names are in `reference/published_autoencoder.json.gz`.
"""

import functools
import gzip
import json
import pathlib

import jax
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.published.autoencoder import compvis, diffusers, diffusers_old
from diffusion_jax.models.weights import WeightsError, tensors_of, variables_from

REFERENCE = pathlib.Path(__file__).parents[1] / "reference" / "published_autoencoder.json.gz"
PUBLISHED = json.loads(gzip.decompress(REFERENCE.read_bytes()))
NETS = {
    "published": Autoencoder(),
    "small": Autoencoder(channels=32, channel_mults=(1, 2, 2), num_blocks=3),
}
FORMATS = {"new": diffusers, "old": diffusers_old, "single": compvis}


@functools.cache
def shapes_of(name):
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    return jax.eval_shape(NETS[name].init, jax.random.key(0), x)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NETS)
def test_names_and_shapes_are_the_published_ones(name, kind):
    shapes, found = shapes_of(name), []
    layout = FORMATS[kind](shapes)
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        stored = layout(tuple(key.key for key in keys[1:]), leaf)
        found.append((stored.name, list(stored.shape)))
    expected = [(tensor[kind]["name"], tensor[kind]["shape"]) for tensor in PUBLISHED[name]]
    assert sorted(found) == sorted(expected)
    if name == "published":
        assert len(found) == 248
        assert sum(np.prod(shape) for _, shape in found) == 83_653_863


def numbered(kind):
    """Tensors of the small network, the same in all formats."""
    rng = np.random.default_rng(0)
    return {
        tensor[kind]["name"]: rng.standard_normal(tensor[kind]["shape"]).astype(np.float32)
        for tensor in PUBLISHED["small"]
    }


def read(tensors, layout):
    return variables_from(tensors, pathlib.Path("vae"), shapes_of("small"), "net", layout=layout)


def test_all_formats_give_the_same_parameters_and_get_their_bytes_back():
    found = {}
    for kind, form in FORMATS.items():
        tensors, layout = numbered(kind), form(shapes_of("small"))
        found[kind] = read(tensors, layout)
        written = tensors_of(found[kind], layout)
        assert written.keys() == tensors.keys()
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(written[name], tensor)
    for kind in ("old", "single"):
        jax.tree.map(np.testing.assert_array_equal, found["new"], found[kind])


def test_a_tensor_renamed_or_of_another_shape_is_refused_by_name():
    tensors, layout = numbered("old"), diffusers_old(shapes_of("small"))
    name = "decoder.mid_block.attentions.0.proj_attn.weight"
    cut = tensors | {name: tensors[name][:, :-1]}
    renamed = {f"{n}s" if n == name else n: tensor for n, tensor in tensors.items()}
    for wrong in (cut, renamed):
        with pytest.raises(WeightsError, match=rf"vae: net has a tensor {name} \[64, 64\]"):
            read(wrong, layout)
