"""Machines without git, without a home or a writable cache, and with old locales."""

import io
import os
import sys
from pathlib import Path

import pytest
from tensorflow_datasets.core import constants

from diffusion_jax.cli import main
from diffusion_jax.data import load_dataset
from diffusion_jax.run import run
from diffusion_jax.system import runtime
from diffusion_jax.system.files import path_of
from tests.runs import tiny
from tests.stores import in_memory


@pytest.fixture
def no_folder(tmp_path: Path) -> Path:
    """A place where no folder can be made, for root either."""
    (tmp_path / "file").write_text("no folder")
    return tmp_path / "file" / "below"


def test_without_git_the_commit_is_unknown(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.environment()["commit"] == "unknown"
    (tmp_path / "git").write_text("not to be executed")
    assert runtime.environment()["commit"] == "unknown"


def test_caches_go_to_the_workdir_where_the_users_cannot_be_written(
    no_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    runtime.settle_caches(tmp_path / "run")
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"warning: {no_folder}/diffusion_jax: Not a directory; caches are kept in "
        f"{tmp_path}/run/cache/diffusion_jax"
    ]
    assert runtime.cache_dir() == tmp_path / "run" / "cache" / "diffusion_jax"
    runtime.settle_caches(tmp_path / "run")  # again, as by a process that this one starts
    assert capsys.readouterr().err == ""
    assert runtime.cache_dir() == tmp_path / "run" / "cache" / "diffusion_jax"


def test_a_cache_with_a_name_that_jax_does_not_take_is_not_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "\udce9"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    runtime.settle_caches(tmp_path / "run")
    assert runtime.cache_dir() == tmp_path / "run" / "cache" / "diffusion_jax"


def test_a_workdir_with_such_a_name_is_refused(tmp_path: Path, capsys) -> None:
    assert run(tiny(), tmp_path / "\udce9", "train") == 2
    assert "its name is not UTF-8 in this locale, as JAX" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_home_no_folder_is_called_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as of a user without one
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path))
    runtime.settle_caches(tmp_path / "run")
    assert "~/.cache/diffusion_jax: there is no home; caches" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_caches_of_a_run_in_a_store_are_on_this_machine(
    no_folder: Path, monkeypatch, capsys
) -> None:
    in_memory(monkeypatch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_folder))
    runtime.settle_caches(path_of("s3://bucket/run"))
    assert "caches are kept in" in capsys.readouterr().err
    assert not runtime.unwritable(runtime.cache_dir())


def test_a_cache_that_can_be_written_is_used_without_a_word(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    runtime.settle_caches(tmp_path / "run")
    assert runtime.cache_dir() == tmp_path / "cache" / "diffusion_jax"
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().err == ""


def test_settings_of_matplotlib_go_to_the_cache_too(no_folder: Path, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(no_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("MPLCONFIGDIR", "")
    del os.environ["MPLCONFIGDIR"]
    runtime.settle_caches(tmp_path / "run")
    assert os.environ["MPLCONFIGDIR"] == str(tmp_path / "cache" / "diffusion_jax" / "matplotlib")


def test_sets_are_prepared_in_the_cache_where_the_home_cannot_be_written(
    no_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(constants, "DATA_DIR", str(no_folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert len(load_dataset("digits").splits["train"]) == 1442
    assert (tmp_path / "diffusion_jax" / "tensorflow_datasets" / "digits").is_dir()


def test_any_text_can_be_printed(monkeypatch) -> None:
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    monkeypatch.setattr(sys, "stderr", None)  # closed, as by `2>&-`
    main._open_streams()
    print("é → 字", flush=True)
    assert ascii_only.buffer.getvalue() == rb"\xe9 \u2192 \u5b57" + b"\n"
    print("nowhere", file=sys.stderr)
    assert not sys.stderr.isatty()
