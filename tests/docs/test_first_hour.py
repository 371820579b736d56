"""The notebook of the first hour runs from its first cell to its last, with less training."""

import os
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from docs.check import ROOT


@pytest.mark.slow
def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, that has what a clone has."""
    for name in ("launch.py", "configs", "diffusion_jax"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    page = nbformat.read(tmp_path / "docs" / "first_hour.ipynb", as_version=4)
    for given, shorter in {
        "train.steps=600": "train.steps=40",
        "num_samples=400": "num_samples=64",
    }.items():
        assert sum(given in cell.source for cell in page.cells) == 1
        for cell in page.cells:
            cell.source = cell.source.replace(given, shorter)
    client = NotebookClient(page, resources={"metadata": {"path": tmp_path / "docs"}}, timeout=600)
    client.execute()
    shown = [cell for cell in page.cells if cell.get("outputs")]
    assert sum("image/png" in str(cell.outputs) for cell in shown) >= 7
    assert "frechet_heldout" in str(shown[-1].outputs)
