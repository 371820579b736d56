"""Files that are there whole or not at all, and stay when the machine goes down.

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

REWRITE_SECONDS = 10  # between two writes of a growing object; a store allows one per second
STAMPED = 2**16  # bytes at the beginning of a file
WAITING = 32  # files of a store that are read at once: the time goes in waiting
Result = TypeVar("Result")
_told: set[Path] = set()


def path_of(text: str | os.PathLike[str]) -> Path:
    """What a person wrote as a path: `~` is the home, `gs://` and `s3://` are object stores.

    Raises:
        StoreError: a scheme that is not known, or no bucket.
    """
    local = os.path.expanduser(text)  # as it is where there is no home
    return cast(Path, store_path(local) or Path(local))


def in_store(path: object) -> TypeGuard[StorePath]:
    """Whether a path is of an object store, which has no folders and appends to nothing."""
    return isinstance(path, StorePath)


@contextlib.contextmanager
def written_whole(path: Path, lasting: bool = True) -> Iterator[Path]:
    """Yields a file on this machine to write to, which becomes `path` at the end, if it comes.

    With `lasting` false a loss of power may leave nothing of it: for many files that can be made
    again.
    """
    if in_store(path):
        with temporary_folder() as folder:
            part = Path(folder) / path.name
            yield part
            path.upload(part)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: several processes may write the same.
    part = path.with_name(f"{path.name}.{jax.process_index()}-{os.getpid()}.part")
    try:
        yield part
        if lasting:
            sync(part)
        part.replace(path)
    except BaseException:  # the disk is full, or someone stops it
        part.unlink(missing_ok=True)
        raise
    if lasting:
        sync(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` so that whoever stops it leaves no half of it at `path`."""
    if in_store(path):
        path.write_bytes(data)
        return
    with written_whole(path) as part:
        part.write_bytes(data)


class Lines:
    """Whole lines at the end of a file; `flush` returns when they are there."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not (text := path.read_bytes()).endswith(b"\n"):
            os.truncate(path, text.rfind(b"\n") + 1)  # a line that a full disk cut off
        self._file = path.open("a", encoding="utf-8")

    def write(self, line: str) -> None:
        self._file.write(line)
        self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class StoredLines:
    """The same of an object of a store, which is written anew, every `REWRITE_SECONDS` at most."""

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
    """The file at `path`, to write further lines to."""
    return StoredLines(path) if in_store(path) else Lines(path)


def read_json(path: Path, parse: Callable[[Any], Result], remedy: str) -> Result | None:
    """What `parse` makes of a JSON file; None if it is not there or, which is said once, damaged.

    `parse` raises a KeyError, a TypeError, an AttributeError or a ValueError where a part of it is
    missing; `remedy` is what is done about that.
    """
    try:
        return parse(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (AttributeError, KeyError, TypeError, ValueError):
        if path not in _told:
            print(f"warning: {path} is damaged: {remedy}", file=sys.stderr, flush=True)
        _told.add(path)
        return None


def sync(path: Path) -> None:
    """Returns when a file's bytes, or a folder's entries, are on the disk; those of a store are."""
    if in_store(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_tree(path: Path, missing_ok: bool = False) -> None:
    """Removes a folder with all that is in it."""
    if in_store(path):
        path.rmtree(missing_ok)
    else:
        shutil.rmtree(path, ignore_errors=missing_ok)


@contextlib.contextmanager
def local_copy(path: Path) -> Iterator[Path]:
    """The file or folder itself, or for one of a store a copy on this machine, for the time."""
    if not in_store(path):
        yield path
        return
    with temporary_folder() as folder:
        here = Path(folder) / path.name
        path.download(here)
        yield here


def temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder on this machine; what processes that were killed left of theirs is removed first."""
    prefix = f"diffusion_jax-{platform.node()}-"  # containers may share the place, not the name
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
    except PermissionError:  # another user's
        pass
    return True


def files_below(folder: Path) -> list[str]:
    """Relative names of all files below a folder, in order of their paths."""
    if in_store(folder):
        return list(folder.below())
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return [path.relative_to(folder).as_posix() for path in found]


def checksums(folder: Path, names: Sequence[str]) -> list[str]:
    """For each file below a folder its digest and size, "DIGEST BYTES"; '' for one not to be read.

    The SHA-256 of what is read here; of a store the checksum that it keeps, from one listing.
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

    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to the others
        return list(tracked(pool.map(entry, names), "hashing", len(names)))


def stamps(folder: Path, names: Sequence[str]) -> list[tuple[int, str]]:
    """For each file below a folder what tells it from others, and a copy of it does not change.

    Its size, and the SHA-256 of its first `STAMPED` bytes.
    """
    sizes = {name: of.size for name, of in folder.below().items()} if in_store(folder) else {}

    def stamp(name: str) -> tuple[int, str]:
        path = folder / name
        if in_store(path):
            size, head = sizes[name], path.head(STAMPED) if sizes[name] else b""
        else:
            with path.open("rb") as file:
                size, head = path.stat().st_size, file.read(STAMPED)
        return size, hashlib.sha256(head).hexdigest()

    with ThreadPoolExecutor(readers(folder)) as pool:
        return list(tracked(pool.map(stamp, names), "hashing", len(names)))


def each_file(function: Callable[[Path], Any], paths: Sequence[Path], doing: str = "") -> list[Any]:
    """What a function returns for each file: in turn, those of a store at once.

    With `doing`, its name, it is a stage of progress.
    """

    def shown(found: Iterable[Any]) -> list[Any]:
        return list(tracked(found, doing, len(paths)) if doing else found)

    if not any(map(in_store, paths)):
        return shown(map(function, paths))
    with ThreadPoolExecutor(WAITING) as pool:
        return shown(pool.map(function, paths))


def readers(folder: Path) -> int:
    """Threads by which many files of a folder are read: one for each core, more of a store."""
    return WAITING if in_store(folder) else os.cpu_count() or 1
