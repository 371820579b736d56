"""Damaged results, metrics and images do not count, and are named."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.report import has_passport, read_result, write_result
from diffusion_jax.report.curves import plot_curves, read_rows
from diffusion_jax.system.pictures import read_made_by, save_png

ENTRY = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 3, "passport": {"steps": 4}}


@pytest.mark.parametrize(
    "damaged",
    [
        *("", "{", "[]", "null", "3", '{"a": 1}', '{"a": {}}', '{"a": {"passport": {}}}'),
        *("\0\0", json.dumps({"a": ENTRY})[:-9]),
    ],
)
def test_a_damaged_result_is_none(
    damaged: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "result.json"
    assert not has_passport(path, {})
    assert capsys.readouterr().err == ""
    path.write_text(damaged)
    for _ in range(2):
        assert not has_passport(path, {"steps": 4})
    assert capsys.readouterr().err == f"warning: {path} is damaged: evaluation writes it again\n"
    write_result(path, {"a": {**ENTRY, "more": 1}})
    assert read_result(path) == {"a": {**ENTRY, "more": 1}}
    assert has_passport(path, {"steps": 4})
    assert not has_passport(path, {"steps": 5})


def test_damaged_lines_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": i, "loss": 1.0 / i, "train_seconds": 2.0} for i in (1, 2, 3)]
    lines = [json.dumps(row).encode() for row in rows]
    damaged = [
        b"",
        b"[]",
        b"7",
        b'{"loss": 1}',
        b'{"step": 2, "loss": "x"}',
        b"\xff\0",
        lines[0][:9],
    ]
    path.write_bytes(b"\n".join([lines[0], *damaged, lines[1], lines[2]]) + b"\n")
    assert read_rows(path) == rows
    assert capsys.readouterr().err == f"warning: {path}: 7 damaged lines are left out\n"
    assert plot_curves(path, tmp_path / "curves.png") == 6.0
    assert (tmp_path / "curves.png").exists()
    path.write_bytes(b"\n".join(lines[:2]))  # cut off at the end of a line, by a hair
    assert read_rows(path) == rows[:2]


def test_pictures_without_passports_or_cut_off_have_none(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    assert read_made_by(path) is None
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    save_png(path, pixels, {"step": 3})
    assert read_made_by(path) == {"step": 3}
    whole = path.read_bytes()
    for end in range(0, len(whole) - 200, 97):
        path.write_bytes(whole[:end])
        assert read_made_by(path) is None, end
    path.write_bytes(whole.replace(b'{"step": 3}', b'{"step": 3 '))
    assert read_made_by(path) is None
    path.write_text("no picture")
    assert read_made_by(path) is None
