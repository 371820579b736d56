"""Paths of object stores have the methods of `pathlib.Path`; nothing there is seen half written."""

import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.system import files, stores
from diffusion_jax.system.files import local_copy, path_of, remove_tree, write_whole, written_whole
from diffusion_jax.system.pictures import read_made_by, save_gif, save_png
from diffusion_jax.training.checkpoint import CheckpointError, Checkpoints
from diffusion_jax.training.manifest import MANIFEST
from diffusion_jax.training.writers import JsonlWriter
from tests.stores import in_memory


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Path:
    in_memory(monkeypatch)
    return path_of("s3://bucket")


def test_a_path_is_local_unless_it_has_a_scheme(tmp_path: Path) -> None:
    assert path_of("runs/digits") == Path("runs/digits")
    assert path_of("~") == Path.home()
    assert path_of(tmp_path) is tmp_path or path_of(tmp_path) == tmp_path
    path = path_of("gs://bucket/run")
    assert str(path / "a.b") == "gs://bucket/run/a.b"
    assert (path.name, str(path.parent), (path / "a.b").suffix) == ("run", "gs://bucket", ".b")
    assert path.absolute() == path
    assert str(path_of(path)) == str(path)
    assert pickle.loads(pickle.dumps(path)) == path


@pytest.mark.parametrize("text", ["gs:/bucket/run", Path("gs://bucket/run")])
def test_pathlib_may_have_made_one_slash_of_two(text: str | Path) -> None:
    assert str(path_of(text)) == "gs://bucket/run"


@pytest.mark.parametrize("text", ["az://bucket/run", "GS://bucket/run", "gs://", "file:///tmp"])
def test_other_stores_are_refused(text: str) -> None:
    with pytest.raises(OSError, match="stores are given as gs://BUCKET/NAME and s3://BUCKET/NAME"):
        path_of(text)


def test_a_missing_package_is_named_at_the_first_touch(monkeypatch: pytest.MonkeyPatch) -> None:
    stores._client.cache_clear()

    def missing(scheme: str) -> None:
        raise ImportError("Please install it")

    monkeypatch.setattr(stores.fsspec, "filesystem", missing)
    with pytest.raises(OSError, match="needs the package gcsfs: pip install gcsfs") as error:
        path_of("gs://bucket/run").exists()
    assert error.value.filename == "gs://bucket/run"
    stores._client.cache_clear()


def test_files_of_a_store_are_written_read_and_listed(bucket: Path) -> None:
    write_whole(bucket / "run" / "a.txt", "é".encode())
    with written_whole(bucket / "run" / "deep" / "b.bin") as part:
        part.write_bytes(b"12")
    assert (bucket / "run" / "a.txt").read_text("utf-8") == "é"
    assert files.files_below(bucket / "run") == ["a.txt", "deep/b.bin"]
    assert sorted(path.name for path in (bucket / "run").iterdir()) == ["a.txt", "deep"]
    assert [str(path) for path in bucket.glob("run/*/b.bin")] == ["s3://bucket/run/deep/b.bin"]
    assert (bucket / "run").is_dir()
    assert (bucket / "run" / "a.txt").is_file()
    assert not (bucket / "none").exists()
    assert list((bucket / "none").iterdir()) == []
    with pytest.raises(FileNotFoundError, match="s3://bucket/none"):
        (bucket / "none").read_bytes()
    with local_copy(bucket / "run") as here:
        assert files.files_below(here) == ["a.txt", "deep/b.bin"]
    remove_tree(bucket / "run")
    assert not (bucket / "run").exists()
    remove_tree(bucket / "run", missing_ok=True)


def test_what_stops_half_way_leaves_nothing(bucket: Path) -> None:
    def fail() -> None:
        with written_whole(bucket / "a") as part:
            part.write_bytes(b"half")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()
    assert files.files_below(bucket) == []


def test_temporary_folders_of_killed_processes_are_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path))
    (tmp_path / "diffusion_jax-4194304-x").mkdir()  # above the highest number of a process
    (tmp_path / "diffusion_jax-1-x").mkdir()
    with files.temporary_folder():
        left = sorted(path.name.split("-")[1] for path in tmp_path.iterdir())
    assert left == sorted(["1", str(files.os.getpid())])


def test_metrics_of_a_store_are_there_at_a_flush_and_go_on(bucket: Path) -> None:
    path = bucket / "metrics.jsonl"
    for step in (1, 2):
        writer = JsonlWriter(path)
        writer.write_scalars(step, {"loss": 0.5})
        assert path.exists() == (step > 1)  # it is not written for every line
        writer.flush()
        assert len(path.read_text().splitlines()) == step
        writer.write_scalars(step, {"loss": 0.25})
        writer.close()
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:step]))


def test_pictures_of_a_store_keep_their_passport(bucket: Path) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    save_png(bucket / "a.png", image, {"step": 1})
    assert read_made_by(bucket / "a.png") == {"step": 1}
    assert read_made_by(bucket / "b.png") is None
    save_gif(bucket / "a.gif", [image, image + 1])
    assert (bucket / "a.gif").read_bytes().startswith(b"GIF")


def test_checkpoints_of_a_store_count_once_their_manifest_is_there(bucket: Path, capsys) -> None:
    state = {"a": jnp.arange(5.0)}
    saved = Checkpoints(bucket / "checkpoints", 2)
    saved.open()
    for step in (1, 2, 3):
        saved.save(step, state, {"next_index": step})
    saved.wait()
    again = Checkpoints(bucket / "checkpoints", 2)
    assert again.steps() == [2, 3]
    found, data = again.restore(state)
    assert data == {"next_index": 3}
    np.testing.assert_array_equal(found["a"], state["a"])
    # One that is damaged, and one whose upload was stopped.
    (bucket / "checkpoints" / "3" / "data" / "metadata").write_bytes(b"{}")
    assert Checkpoints(bucket / "checkpoints").latest() == 2
    assert "step 3 is damaged (file data/metadata)" in capsys.readouterr().err
    (bucket / "checkpoints" / "3" / MANIFEST).unlink()
    last = Checkpoints(bucket / "checkpoints")
    last.open()
    assert last.steps() == [2]
    assert "step 3 was not finished" in capsys.readouterr().err


def test_several_processes_need_a_store_that_orbax_knows(bucket: Path, monkeypatch) -> None:
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(CheckpointError, match=r"several processes cannot write .* on gs://"):
        Checkpoints(bucket / "checkpoints").open()
