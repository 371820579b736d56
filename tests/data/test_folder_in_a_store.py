"""A folder in an object store is read like one on a disk."""

from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.data import DataError, load_dataset
from diffusion_jax.system.files import path_of
from tests.data.test_folder import fill
from tests.stores import in_memory


def test_a_folder_of_a_store_is_read_as_one_on_a_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_memory(monkeypatch)
    for split in ("Train", "validation"):
        fill(tmp_path / split, mode="L")
        fill(tmp_path / split / ".hidden")
        (tmp_path / split / "metadata.csv").write_text(
            "file_name,text\n" + "".join(f"{i}.png,number {i}\n" for i in range(6))
        )
    (tmp_path / "Train" / "cut.png").write_bytes(b"no picture")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path_of(f"s3://bucket/{path.relative_to(tmp_path)}").write_bytes(path.read_bytes())
    here, there = (load_dataset("folder", data_dir=d) for d in (str(tmp_path), "s3://bucket"))
    assert there.kind.shape == here.kind.shape == (8, 8, 1)
    assert there.skipped == here.skipped == ("Train/cut.png",)
    assert there.notes == here.notes
    for split in ("train", "heldout"):
        np.testing.assert_array_equal(there.arrays(split)[0], here.arrays(split)[0])
        assert there.splits[split].captions.texts == here.splits[split].captions.texts
    with pytest.raises(DataError, match="is not a folder"):
        load_dataset("folder", data_dir="s3://bucket/none")
