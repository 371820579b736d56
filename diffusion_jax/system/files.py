"""Files that are written completely or not at all, and survive a power failure.

A path is a `pathlib.Path`, or one of an object store with the same methods (`system/stores.py`).
"""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeGuard, TypeVar, cast

import jax

from diffusion_jax.system.progress import tracked
from diffusion_jax.system.stores import StorePath, store_path

REWRITE_SECONDS = 10  # minimum time between rewrites of an object; stores allow one per second
STAMPED = 2**16  # bytes at the beginning of a file
WAITING = 32  # files of a store that are read concurrently: most of the time is latency
Result = TypeVar("Result")
File = TypeVar("File")
_warned: set[Path] = set()


def path_of(text: str | os.PathLike[str]) -> Path:
    """Parses a path given by a user: `~` is the home, `gs://` and `s3://` are object stores.

    Raises:
        StoreError: an unknown scheme, or a missing bucket.
    """
    local = os.path.expanduser(text)  # unchanged if there is no home
    return cast(Path, store_path(local) or Path(local))


def in_store(path: object) -> TypeGuard[StorePath]:
    """Whether a path is in an object store, which has no folders and cannot append."""
    return isinstance(path, StorePath)


@contextlib.contextmanager
def written_whole(path: Path, lasting: bool = True) -> Iterator[Path]:
    """Yields a local file to write to, which becomes `path` at the end unless an error occurs.

    With `lasting` false it may be lost in a power failure: for many files that can be made again.
    """
    if in_store(path):
        with temporary_folder() as folder:
            part = Path(folder) / path.name
            yield part
            path.upload(part)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A unique name, as several processes may write the same file.
    part = path.with_name(f"{path.name}.{jax.process_index()}-{os.getpid()}.part")
    try:
        yield part
        if lasting:
            sync(part)
        part.replace(path)
    except BaseException:  # e.g. a full disk, or an interrupt
        part.unlink(missing_ok=True)
        raise
    if lasting:
        sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` so that an interruption never leaves a part of it at `path`."""
    if in_store(path):
        path.write_bytes(data)
        return
    with written_whole(path) as part:
        part.write_bytes(data)


class Lines:
    """Appends whole lines to a file; `flush` returns when they are written."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)  # a partial line, from a full disk
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class StoredLines:
    """The same for an object, which is rewritten, at most every `REWRITE_SECONDS`."""

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, time.monotonic()
        self._text = path.read_text() if path.exists() else ""
        self._there = len(self._text)

    def write(self, line: str) -> None:
        self._text += line
        if time.monotonic() - self._written > REWRITE_SECONDS:
            self.flush()

    def flush(self) -> None:
        if self._there < len(self._text):
            self._path.write_bytes(self._text.encode())
            self._there, self._written = len(self._text), time.monotonic()

    close = flush


def appending(path: Path) -> Lines | StoredLines:
    """Opens the file at `path` for appending lines."""
    return StoredLines(path) if in_store(path) else Lines(path)


def read_json(path: Path, parse: Callable[[Any], Result], remedy: str) -> Result | None:
    """Reads a JSON file with `parse`; None if it is missing or damaged, which prints a warning.

    `parse` raises a KeyError, a TypeError, an AttributeError or a ValueError for invalid contents;
    `remedy` tells what happens then. The warning is printed once per file.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError):
        if path not in _warned:
            print(f"warning: {path} is damaged: {remedy}", file=sys.stderr, flush=True)
        _warned.add(path)
        return None


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk; no-op for stores."""
    if in_store(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path, missing_ok: bool = False) -> None:
    """Deletes a folder and its contents."""
    if in_store(path):
        path.rmtree(missing_ok)
    else:
        shutil.rmtree(path, ignore_errors=missing_ok)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """The file or folder itself, or a temporary local copy of one in a store."""
    if not in_store(path):
        yield path
        return
    with temporary_folder() as folder:
        here = Path(folder) / path.name
        path.download(here)
        yield here


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A temporary local folder; first removes those of processes that were killed."""
    prefix = f"diffusion_jax-{platform.node()}-"  # containers may share the folder, not the name
    for left in Path(tempfile.gettempdir()).glob(f"{prefix}*-*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if owner.isdecimal() and not _is_running(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    return tempfile.TemporaryDirectory(prefix=f"{prefix}{os.getpid()}-")


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's process
        pass
    return True


def files_below(folder: Path) -> list[str]:
    """Relative names of all files below a folder, in order of their paths."""
    if in_store(folder):
        return list(folder.below())
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found]


def checksums(folder: Path, names: Sequence[str]) -> list[str]:
    """Digest and size of each file below a folder, "DIGEST BYTES"; '' if it cannot be read.

    The SHA-256 of local files; for a store its own checksums, from one listing.
    """
    if in_store(folder):
        found = folder.below()
        return [found[name].words if name in found else "" for name in names]

    def entry(name: str) -> str:
        try:
            with (folder / name).open("rb") as file:
                return f"{hashlib.file_digest(file, 'sha256').hexdigest()} {file.tell()}"
        except OSError:
            return ""

    with ThreadPoolExecutor() as pool:  # hashing releases the GIL
        return list(tracked(pool.map(entry, names), "hashing", len(names)))


def stamp_of(data: bytes, size: int) -> tuple[int, str]:
    """The stamp of a file of so many bytes, that begins with `data`."""
    return size, hashlib.sha256(data[:STAMPED]).hexdigest()


def stamps(folder: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """A fingerprint of each file below a folder, which copying does not change.

    Its size and the SHA-256 of its first `STAMPED` bytes.
    """
    sizes = {name: of.size for name, of in folder.below().items()} if in_store(folder) else {}

    def stamp(name: str) -> tuple[int, str]:
        path = folder / name
        if in_store(path):
            size, head = sizes[name], path.head(STAMPED) if sizes[name] else b""
        else:
            with path.open("rb") as file:
                size, head = path.stat().st_size, file.read(STAMPED)
        return stamp_of(head, size)

    with ThreadPoolExecutor(readers(folder)) as pool:
        return list(tracked(pool.map(stamp, names), "hashing", len(names)))


def each_file(
    function: Callable[[File], Result], files: Sequence[File], doing: str = ""
) -> list[Result]:
    """Applies a function to each file: sequentially, or concurrently if they are in a store.

    `doing` names the stage of progress that it is; '' is none.
    """

    def every(found: Iterable[Result]) -> list[Result]:
        return list(tracked(found, doing, len(files)) if doing else found)

    if not any(map(in_store, files)):
        return every(map(function, files))
    with ThreadPoolExecutor(WAITING) as pool:
        return every(pool.map(function, files))


def readers(folder: Path) -> int:
    """Number of threads for reading many files: one per core, more for a store."""
    return WAITING if in_store(folder) else os.cpu_count() or 1
