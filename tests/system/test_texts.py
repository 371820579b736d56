"""Text files and file names as users have them."""

import os
from pathlib import Path

import pytest

from diffusion_jax.system.files import path_of
from diffusion_jax.system.texts import read_text, shown


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_are_read_as_people_save_them(tmp_path, encoding):
    path = tmp_path / "a.txt"
    path.write_bytes("ä \u2028cat\r\nein\rHund\n".encode(encoding))
    assert read_text(path) == "ä \u2028cat\nein\nHund\n"


def test_utf_16_of_either_order_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xfe\xff" + "猫".encode("utf-16-be"))
    assert read_text(path) == "猫"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("Bär".encode("latin-1"), "it is not text in UTF-8 at byte 1; save it as UTF-8"),
        ("\ufeffab".encode("utf-16-le") + b"c", "not text in UTF-16 at byte 6"),
        ("cat".encode("utf-16-le"), "or UTF-16 with its mark; save it as UTF-8"),
        (b"PK\3\4\0\0", "it is not text"),
    ],
)
def test_what_is_no_text_is_one_sentence(tmp_path, data, words):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_text(tmp_path / "a.txt")


def test_any_name_can_be_shown():
    assert shown("é.png") == "é.png"
    assert shown(Path(os.fsdecode(b"caf\xe9.png"))) == r"caf\udce9.png"


def test_a_home_stands_for_its_path(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    assert path_of("~/runs") == Path("/home/ann/runs")
    assert path_of(Path("~/runs")) == Path("/home/ann/runs")
    assert path_of("runs/~") == Path("runs/~")
    assert path_of("~no such user/runs") == Path("~no such user/runs")
