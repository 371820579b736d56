"""Texts as people save them, and names of files as they can be printed."""

import codecs
from pathlib import Path

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark begins it
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""By the byte order mark that a file begins with."""


def read_text(path: Path) -> str:
    r"""The text of a file in UTF-8, or in what its byte order mark says, with lines that end in \n.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds no such text.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = f"{encoding.removesuffix('-sig').upper()} at byte {error.start}"
        raise ValueError(f"it is no text in {wrong}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("it is no text in UTF-8, nor in UTF-16 with its mark; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown(name: object) -> str:
    r"""A name of a file as it can be printed and written: what is no UTF-8 in it as `\udcff`."""
    return str(name).encode("utf-8", "backslashreplace").decode()
