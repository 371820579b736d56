"""Published weights are read without torch, and everything but tensors is refused.

The two files in `reference` were written by torch: see `reference/make_extractors.py`.
"""

import pathlib
from collections import OrderedDict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import weights
from diffusion_jax.models.torch_files import DTYPES
from diffusion_jax.models.weights import (
    WeightsError,
    in_layer,
    load_variables,
    read_tensors,
    tensors_of,
    variables_from,
    write_tensors,
)
from diffusion_jax.system.devices import all_devices, everywhere
from tests.torch_files import Asking, Stored, pickled, tensor, write_legacy, write_zip

REFERENCE = pathlib.Path(__file__).parents[1] / "reference"
FORMATS = ("zip", "legacy")


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_torch_are_read(name):
    found = read_tensors(REFERENCE / f"tensors_{name}.pth")
    base = np.arange(24, dtype=np.float32).reshape(4, 6)
    expected = {
        "whole": base,
        "part": base[1:3, ::2],
        "turned": base.T,
        "half": np.array([[0.5, -2.0]], np.float16),
        "brain": np.array([1.5, 3.0], jnp.bfloat16),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype
        np.testing.assert_array_equal(found[key], value)


def test_every_kind_of_storage_is_read(tmp_path):
    for kind, dtype in DTYPES.items():
        values = np.array([0, 1, 1], dtype)
        state = {"x": tensor((3,), (1,), stored=Stored(kind, size=3))}
        np.testing.assert_array_equal(
            read_tensors(write_zip(tmp_path / "x.pth", state, values.tobytes()))["x"], values
        )


@pytest.mark.parametrize("write", [write_zip, write_legacy])
def test_what_a_module_adds_to_its_state_dict_is_passed_over(tmp_path, write):
    state = OrderedDict(x=tensor())
    state._metadata = OrderedDict({"": {"version": 1}})
    found = read_tensors(write(tmp_path / "x.pth", state))
    np.testing.assert_array_equal(found["x"], [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"x": Asking("os", "system", "touch /tmp/x")}, "contains os.system, which is not part"),
        ({"x": Asking("builtins", "eval", "1")}, "builtins.eval"),
        ({"x": Asking("torch", "load", "x")}, "torch.load"),
        ({"x": Asking("torch", "float32")}, "torch.float32"),
        ({"x": Asking("functools", "partial", int)}, "functools.partial"),
        (
            {"x": Asking("diffusion_jax.models.torch_files", "DTYPES")},
            "diffusion_jax.models.torch_files.DTYPES",
        ),
        ({"y": tensor(), "x": 3}, "'x' is a int, not a tensor"),
        ({"teacher": {"x": tensor()}}, "'teacher' is a dict, not a tensor"),
        ([tensor()], "holds a list, not tensors by name"),
        ({"x": tensor((2, 4), (3, 1))}, r"tensor \[2, 4\] reaches beyond its storage"),
        ({"x": tensor(offset=1)}, "reaches beyond"),
        ({"x": tensor(offset=-1)}, r"shape \(2, 3\)"),
        ({"x": tensor(strides=(3, -1))}, r"strides \(3, -1\)"),
        ({"x": tensor(strides=(1,))}, "cut short"),
        ({"x": tensor(stored=Stored(view=("1", 1, 2)))}, "no storage"),  # of torch before 0.4
        ({"x": Asking("torch._utils", "_rebuild_tensor_v2", 3, 0, (1,), (1,))}, "cut short"),
    ],
)
def test_what_is_no_tensor_is_refused(tmp_path, write, state, says):
    path = write(tmp_path / "weights.pth", state)
    with pytest.raises(WeightsError, match=says) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_files_cut_short_are_refused(tmp_path, name):
    whole = (REFERENCE / f"tensors_{name}.pth").read_bytes()
    path = tmp_path / "weights.pth"
    for size in (0, 1, 10, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(WeightsError, match=r"weights\.pth: not a file of weights .* cut short"):
            read_tensors(path)


def test_foreign_and_damaged_files_are_refused(tmp_path):
    path = tmp_path / "weights.pth"
    for content in (b"<html>not found</html>", b"version https://git-lfs", pickled({"x": 3})):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"weights\.pth: not a file of weights"):
            read_tensors(path)
    whole = bytearray((REFERENCE / "tensors_zip.pth").read_bytes())
    whole[whole.index(np.float32(23).tobytes())] ^= 1  # within the first storage
    path.write_bytes(whole)
    with pytest.raises(WeightsError, match="CRC"):
        read_tensors(path)
    with pytest.raises(WeightsError, match="big-endian"):
        read_tensors(write_zip(path, {"x": tensor()}, byteorder="big"))
    with pytest.raises(WeightsError, match="big-endian"):
        read_tensors(write_legacy(path, {"x": tensor()}, little=False))
    with pytest.raises(WeightsError, match="storage 0 has 5 elements, not 6"):
        read_tensors(write_legacy(path, {"x": tensor()}, size=5))
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "none.pth")


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=True, name="bn")(nn.Dense(2, name="a.fc")(x))


TEMPLATE = jax.eval_shape(Net().init, jax.random.key(0), jnp.zeros((1, 3)))
NORM = {f"bn.{name}": (2,) for name in ("weight", "bias", "running_mean", "running_var")}
SHAPES = {"a.fc.weight": (2, 3), "a.fc.bias": (2,), **NORM}


def state_of(shapes, kind="FloatStorage"):
    def strides(shape):
        return tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))

    return {
        name: tensor(shape, strides(shape), stored=Stored(kind)) for name, shape in shapes.items()
    }


def load(path, unused=lambda name: False):
    return load_variables(path, TEMPLATE, "net", unused)


def test_variables_take_their_tensors_by_name(tmp_path):
    path = write_zip(tmp_path / "w.pth", state_of(SHAPES))
    found = load(path)
    np.testing.assert_array_equal(found["params"]["a.fc"]["kernel"], [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(found["batch_stats"]["bn"]["var"], [0, 1])
    assert jax.tree.structure(found) == jax.tree.structure(TEMPLATE)
    more = write_zip(tmp_path / "w.pth", state_of({**SHAPES, "bn.num_batches_tracked": ()}))
    load(more, lambda name: name.endswith("num_batches_tracked"))
    with pytest.raises(WeightsError, match=r"bn\.num_batches_tracked \[\] is not part of net"):
        load(more)


@pytest.mark.parametrize(
    ("shapes", "kind", "says"),
    [
        (
            {**SHAPES, "a.fc.weight": (3, 2)},
            "FloatStorage",
            r"net has a tensor a\.fc\.weight \[2, 3\], which in the file is \[3, 2\]",
        ),
        (NORM, "FloatStorage", r"net has a tensor a\.fc\.bias \[2\], which the file lacks"),
        (
            {**SHAPES, "head.weight": (1, 3)},
            "FloatStorage",
            r"the file's tensor head\.weight \[1, 3\] is not part of net",
        ),
        (
            SHAPES,
            "IntStorage",
            r"net has a tensor bn\.running_mean \[2\], which in the file has dtype int32",
        ),
    ],
)
def test_other_weights_are_refused_by_the_first_wrong_tensor(tmp_path, shapes, kind, says):
    path = write_zip(tmp_path / "w.pth", state_of(shapes, kind))
    with pytest.raises(WeightsError, match=says) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")


def as_convolution(path, leaf):
    """The dense layer `a.fc` is a 1x1 convolution in the file."""
    return in_layer(".".join(path[:-1]), path[-1], leaf, 2 if path[0] == "a.fc" else None)


def random_variables():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: rng.standard_normal(a.shape, np.float32), TEMPLATE)


def test_a_dense_layer_may_be_a_convolution_in_the_file(tmp_path):
    variables = random_variables()
    tensors = tensors_of(variables, as_convolution)
    kernel = variables["params"]["a.fc"]["kernel"]
    np.testing.assert_array_equal(tensors["a.fc.weight"], kernel.T[:, :, None, None])
    assert tensors["bn.running_mean"].shape == (2,)
    found = variables_from(tensors, tmp_path, TEMPLATE, "net", layout=as_convolution)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    with pytest.raises(WeightsError, match=r"a\.fc\.weight \[2, 3\], .* is \[2, 3, 1, 1\]"):
        variables_from(tensors, tmp_path, TEMPLATE, "net")


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_what_is_read_and_written_again_has_the_same_bytes(tmp_path, dtype):
    first, again = tmp_path / "w.safetensors", tmp_path / "again.safetensors"
    tensors = tensors_of(random_variables(), dtype=dtype)
    write_tensors(first, tensors)
    found = load(first)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(found))
    write_tensors(again, tensors_of(found, dtype=dtype))
    assert first.read_bytes() == again.read_bytes()
    np.testing.assert_array_equal(read_tensors(again)["a.fc.weight"], tensors["a.fc.weight"])
    (tmp_path / "other").touch()
    assert again.stat().st_mode == (tmp_path / "other").stat().st_mode
    assert b'"__metadata__":{"format":"pt"}' in first.read_bytes()


def test_tensors_are_the_same_when_the_file_is_mapped_anew_for_each(tmp_path, monkeypatch):
    tensors = tensors_of(random_variables())
    write_tensors(tmp_path / "w.safetensors", tensors)
    monkeypatch.setattr(weights, "MAPPED_BYTES", 0)
    found = read_tensors(tmp_path / "w.safetensors")
    for _ in range(2):
        assert found.keys() == tensors.keys()
        for name, value in tensors.items():
            np.testing.assert_array_equal(found[name], value)
    with pytest.raises(KeyError):
        found["none"]


def test_parameters_are_put_where_their_shapes_say(tmp_path):
    where = everywhere(all_devices())
    template = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), TEMPLATE)
    template["params"]["a.fc"]["kernel"] = template["params"]["a.fc"]["kernel"].update(
        sharding=where
    )
    variables = random_variables()
    found = variables_from(tensors_of(variables), tmp_path, template, "net")
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    assert found["params"]["a.fc"].pop("kernel").sharding == where
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_two_parameters_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two parameters the name same"):
        tensors_of(random_variables(), lambda path, leaf: in_layer("", "same", leaf))


def test_safetensors_of_types_that_numpy_lacks_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    head = b'{"x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}'
    path.write_bytes(len(head).to_bytes(8, "little") + head + b"ab")
    with pytest.raises(WeightsError, match=r"w\.safetensors: 'x' has dtype F8_E4M3"):
        read_tensors(path)
