"""Files of textual inversion: those of diffusers and of stable-diffusion-webui."""

import numpy as np
import pytest

from diffusion_jax.models.published.embeddings import read_embeddings, write_embeddings
from diffusion_jax.models.weights import WeightsError, read_tensors, write_tensors
from tests.torch_files import Asking, tensor, write_zip

ONE, TWO = np.arange(3, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_embeddings_are_written_as_diffusers_names_them_and_read_again(tmp_path, dtype):
    path = tmp_path / "learned_embeds.safetensors"
    write_embeddings(path, {"<cat>": ONE, "<dog>": ONE[None], "<toy>": TWO}, dtype)
    stored = read_tensors(path)
    assert {token: value.shape for token, value in stored.items()} == {
        **{"<cat>": (3,), "<dog>": (3,), "<toy>": (2, 3)},
    }
    found = read_embeddings(path, 3)
    np.testing.assert_array_equal(found["<cat>"], ONE[None])
    np.testing.assert_array_equal(found["<toy>"], TWO)
    assert all(value.dtype == np.float32 for value in found.values())
    write_embeddings(tmp_path / "again.safetensors", found, dtype)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_files_of_other_programs_are_read(tmp_path):
    write_tensors(tmp_path / "toy.safetensors", {"emb_params": TWO})
    np.testing.assert_array_equal(read_embeddings(tmp_path / "toy.safetensors", 3)["toy"], TWO)
    binary = write_zip(tmp_path / "learned_embeds.bin", {"<toy>": tensor()})
    np.testing.assert_array_equal(read_embeddings(binary, 3)["<toy>"], TWO)
    state = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": tensor()},
        "name": "toy",
        "step": 500,
    }
    (found,) = read_embeddings(write_zip(tmp_path / "x.pt", state), 3).items()
    assert found[0] == "toy"
    np.testing.assert_array_equal(found[1], TWO)
    (found,) = read_embeddings(write_zip(tmp_path / "x.pt", state | {"name": None}), 3)
    assert found == "x"


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (
            {"<cat>": np.zeros(1024, np.float32)},
            "'<cat>' has vectors of width 1024, as Stable Diff",
        ),
        ({"<cat>": np.zeros(5, np.float32)}, "of width 5, and the text encoder has 3"),
        ({"<cat>": np.zeros((1, 1, 3), np.float32)}, r"shape \[1, 1, 3\], not \[N, 3\]"),
        ({"<cat>": np.zeros((0, 3), np.float32)}, r"shape \[0, 3\], not \[N, 3\]"),
        ({"<cat>": np.zeros(3, int)}, "'<cat>' is no tensor of floats"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused_by_their_token(tmp_path, tensors, says):
    path = tmp_path / "w.safetensors"
    write_tensors(path, tensors)
    with pytest.raises(WeightsError, match=says) as caught:
        read_embeddings(path, 3)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {"<cat>": Asking("os", "system", "true")},
            "os.system, .*; where you trust the file, open",
        ),
        ({"string_to_param": {"*": tensor(), "x": tensor()}}, "has 2 entries, not one"),
        ([tensor()], "holds a list, not embeddings"),
        ({"<cat>": 3}, "'<cat>' is no tensor of floats"),
    ],
)
def test_pickles_with_anything_else_are_refused(tmp_path, state, says):
    with pytest.raises(WeightsError, match=says):
        read_embeddings(write_zip(tmp_path / "w.pt", state), 3)
