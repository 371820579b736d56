"""Inputs that `launch.py` reads before a run begins."""

import os

import pytest

import launch


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_prompts_are_read_as_people_save_them(tmp_path, monkeypatch, encoding):
    (tmp_path / "prompts.txt").write_bytes("a cat\r\n\r\n  ein Bär \r\n".encode(encoding))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert launch._prompts_in("~/prompts.txt") == ["a cat", "ein Bär"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "No such file or directory"),
        ("Bär".encode("latin-1"), "it is not text in UTF-8 at byte 1; save it as UTF-8"),
        (b" \r\n", "there is no text in it"),
    ],
)
def test_prompts_that_cannot_be_read_are_one_line(tmp_path, data, words):
    path = tmp_path / "prompts.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SystemExit) as found:
        launch._prompts_in(str(path))
    assert found.value.code == f"error: --prompts={path}: {words}"


def test_texts_in_another_encoding_are_one_line():
    with pytest.raises(SystemExit, match=r"error: 'B\\udce4r' is not UTF-8"):
        launch._check_texts(["a cat", os.fsdecode("Bär".encode("latin-1"))])
