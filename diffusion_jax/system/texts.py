"""Text files of users, and printable file names."""

import codecs
from pathlib import Path

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""Encodings by byte order mark."""


def read_text(path: Path) -> str:
    r"""Reads a text file in UTF-8, or as its byte order mark tells, with lines ending in \n.

    Raises:
        OSError: it cannot be read.
        ValueError: it does not contain such text.
    """
    data = path.read_bytes()
    encoding = next((name for mark, name in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        wrong = f"{encoding.removesuffix('-sig').upper()} at byte {error.start}"
        raise ValueError(f"it is not text in {wrong}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError("it is not text in UTF-8, or UTF-16 with its mark; save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def shown(name: object) -> str:
    r"""A printable file name: bytes that are not UTF-8 become escapes such as `\udcff`."""
    return str(name).encode("utf-8", "backslashreplace").decode()
