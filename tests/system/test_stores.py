"""Paths in object stores have the methods of `pathlib.Path`, and writes are atomic."""

import json
import os
import pickle
import platform
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import from_config, run
from diffusion_jax.data import load_dataset
from diffusion_jax.evaluation.references import read_statistics
from diffusion_jax.models.weights import file_digest, read_tensors
from diffusion_jax.system import files, lock, stores
from diffusion_jax.system.files import local_copy, path_of, remove_tree, write_whole, written_whole
from diffusion_jax.system.lock import LockedError, locked
from diffusion_jax.system.pictures import read_made_by, save_gif, save_png
from diffusion_jax.training import writers
from diffusion_jax.training.checkpoint import CheckpointError, Checkpoints
from diffusion_jax.training.manifest import MANIFEST
from diffusion_jax.training.writers import JsonlWriter
from tests.runs import tiny
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
    with pytest.raises(OSError, match="stores must be gs://BUCKET/NAME and s3://BUCKET/NAME"):
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
    here = f"diffusion_jax-{platform.node()}"
    (tmp_path / f"{here}-4194304-x").mkdir()  # above the highest number of a process
    theirs = [tmp_path / f"{here}-1-x", tmp_path / "diffusion_jax-elsewhere-4194304-x"]
    for folder in theirs:
        folder.mkdir()
    with files.temporary_folder() as name:
        assert sorted(tmp_path.iterdir()) == sorted([*theirs, Path(name)])


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


def test_what_is_read_whole_may_lie_in_a_store(bucket: Path, tmp_path: Path) -> None:
    weights = Path("tests/reference/tensors_zip.pth")
    write_whole(bucket / "w.pth", weights.read_bytes())
    here, there = read_tensors(weights), read_tensors(bucket / "w.pth")
    assert here.keys() == there.keys()
    assert file_digest(bucket / "w.pth") == file_digest(weights)
    np.savez(tmp_path / "a.npz", mu=np.zeros(2), sigma=np.eye(2))
    write_whole(bucket / "a.npz", (tmp_path / "a.npz").read_bytes())
    assert read_statistics(bucket / "a.npz").words == read_statistics(tmp_path / "a.npz").words


def test_a_folder_of_images_is_the_same_on_a_disk_and_in_a_store(
    bucket: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
        write_whole(bucket / "data" / path.parent.name / path.name, path.read_bytes())
    sets = [
        load_dataset("folder", memory=memory, data_dir=str(root))
        for root in (tmp_path, bucket / "data")
        for memory in (True, False)
    ]
    for one in sets[1:]:
        assert one.fingerprint == sets[0].fingerprint
        assert one.class_names == ("a", "b", "c")
        for mine, theirs in zip(
            one.splits["train"].gather(np.arange(5)),
            sets[0].splits["train"].gather(np.arange(5)),
            strict=True,
        ):
            np.testing.assert_array_equal(mine, theirs)


def test_a_lock_of_a_store_names_its_holder(bucket: Path, monkeypatch) -> None:
    with locked(bucket / "run", "training"):
        monkeypatch.setattr(lock, "_held", set())  # as another process
        monkeypatch.setattr(lock.platform, "node", lambda: "elsewhere")
        monkeypatch.setattr("diffusion_jax.system.beats.LOOK_SECONDS", 0.01)
        monkeypatch.setattr("diffusion_jax.system.beats.BEAT_SECONDS", 0.05)
        _beat_soon(bucket / "run" / ".training.lock")
        words = rf"process {os.getpid()} on .* is training there"
        with (
            pytest.raises(LockedError, match=words),
            locked(bucket / "run", "training"),
        ):
            pass
    assert files.files_below(bucket / "run") == []


def _beat_soon(path: Path) -> None:
    """The holder's next beat, which it waits longer for."""
    about = json.loads(path.read_bytes())
    threading.Timer(
        0.1, lambda: path.write_bytes(json.dumps({**about, "beat": 1}).encode())
    ).start()


@pytest.mark.slow
def test_a_run_in_a_store_is_trained_resumed_sampled_and_evaluated(
    bucket: Path, noise: None, tmp_path: Path, monkeypatch, capsys
) -> None:
    """Ends as one on a disk does, to the bit."""
    monkeypatch.setattr(writers, "hide_accelerators_from_tensorflow", lambda: False)
    changes = {"evaluate__metrics": "denoising", "optimizer__decay": "constant"}
    arrays, left = [], []
    for workdir in (tmp_path / "run", bucket / "run"):
        for steps in (3, 6):  # the second goes on from the first
            config = tiny(train__steps=steps, **changes)
            assert run.run(config, workdir, "all") == 0
        made = run.Run(config, workdir, from_config.build(config))
        arrays.append(made.checkpoints.restore(made.abstract_state()))
        rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
        assert {2, 4, 6} <= {row["step"] for row in rows}
        left.append([name for name in files.files_below(workdir) if "checkpoints" not in name])
    jax.tree.map(np.testing.assert_array_equal, *arrays)
    assert [name for name in left[0] if not name.startswith(".")] == left[1]
    assert "going on from step 3" in capsys.readouterr().out
