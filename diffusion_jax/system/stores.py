"""Paths in object stores, `gs://bucket/name` and `s3://bucket/name`, by etils.epath and fsspec.

A store has no folders, only names with slashes; an object is written completely or not at all, and
cannot be appended to. Its client package is only needed when such a path is used.
"""

import contextlib
import errno
import functools
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import fsspec
from etils.epath import gpath

CLIENTS = {"gs": "gcsfs", "s3": "s3fs"}
"""Client packages by scheme."""
F = TypeVar("F", bound=Callable[..., Any])


class StoreError(OSError):
    """A store cannot be reached, or denies access."""


class Entry(NamedTuple):
    """Size and checksum of an object."""

    size: int
    checksum: str

    @property
    def words(self) -> str:
        return f"{self.checksum} {self.size}"


def store_path(text: str) -> "StorePath | None":
    """Parses a path in a store; None if the text has no scheme.

    Raises:
        StoreError: the scheme is unknown, or the bucket is missing.
    """
    found = re.match(r"([A-Za-z][\w+.-]+):/+", text)  # pathlib merges slashes
    if not found:
        return None
    scheme, rest = found[1], text[found.end() :]
    if scheme not in CLIENTS or not rest:
        known = " and ".join(f"{name}://BUCKET/NAME" for name in CLIENTS)
        raise StoreError(errno.EINVAL, f"paths of object stores must be {known}", text)
    return StorePath(f"{scheme}://{rest}")


@contextlib.contextmanager
def _one_line_error(path: Any) -> Iterator[None]:
    """Turns any exception of a client into one line that names the path."""
    try:
        yield
    except FileNotFoundError as error:
        what = "no such file or bucket"
        raise FileNotFoundError(errno.ENOENT, what, str(path)) from error
    except (FileExistsError, StoreError):
        raise
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise StoreError(errno.EIO, why, str(path)) from error


def _one_line_errors(method: F) -> F:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _one_line_error(self):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


@functools.cache
def _client(scheme: str) -> Any:
    """The store's file system, without caching: TensorStore and others write there too."""
    # Also for clients made by Orbax. Without these settings Google's client queries the control
    # interface for the type of every bucket, and epath takes TensorFlow as its client.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    os.environ["EPATH_USE_TF"] = "0"
    fsspec.config.conf.setdefault(scheme, {})["use_listings_cache"] = False
    try:
        return fsspec.filesystem(scheme)
    except ImportError as error:
        package = CLIENTS[scheme]
        why = f"{scheme}:// needs the package {package}: pip install {package}"
        raise StoreError(errno.ENOPKG, why) from error


class StorePath(gpath.PosixGPath):
    """A path in an object store with the methods of `pathlib.Path`; Orbax accepts it too."""

    @property
    def client(self) -> Any:
        """The fsspec file system."""
        try:
            return _client(str(self).partition(":")[0])
        except StoreError as error:
            raise StoreError(error.errno, error.strerror, str(self)) from None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)

    def absolute(self) -> "StorePath":
        return self

    def resolve(self, strict: bool = False) -> "StorePath":
        return self

    def expanduser(self) -> "StorePath":
        return self

    @_one_line_errors
    def exists(self) -> bool:
        return bool(self.client.exists(str(self)))

    @_one_line_errors
    def is_dir(self) -> bool:
        return bool(self.client.isdir(str(self)))

    @_one_line_errors
    def is_file(self) -> bool:
        return bool(self.client.isfile(str(self)))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: names need no folders."""

    @_one_line_errors
    def iterdir(self) -> Iterator["StorePath"]:
        try:
            found = self.client.ls(str(self), detail=False)
        except FileNotFoundError:
            return iter(())
        return iter([self / PurePosixPath(name).name for name in found])

    @_one_line_errors
    def glob(self, pattern: str) -> Iterator["StorePath"]:
        found = self.client.glob(f"{glob.escape(str(self))}/{pattern}")
        scheme = str(self).partition("://")[0]
        return iter([type(self)(f"{scheme}://{name}") for name in found])

    def rglob(self, pattern: str) -> Iterator["StorePath"]:
        """Objects below, at any depth, whose names match."""
        return (self / name for name in self.below() if PurePosixPath(name).match(pattern))

    @_one_line_errors
    def below(self) -> Mapping[str, Entry]:
        """All objects below by relative name, sorted, from one listing."""
        root = self.client._strip_protocol(str(self)).rstrip("/") + "/"
        found = self.client.find(root, detail=True)
        return {
            name.removeprefix(root): Entry(info["size"], _checksum(info))
            for name, info in sorted(found.items())
            if name != root.rstrip("/")
        }

    @_one_line_errors
    def open(self, mode: str = "r", **options: Any) -> Any:
        """A file object; writes appear when it is closed, even after an exception."""
        return self.client.open(str(self), mode, **options)

    @_one_line_errors
    def read_bytes(self) -> bytes:
        data: bytes = self.client.cat_file(str(self))
        return data

    @_one_line_errors
    def head(self, count: int) -> bytes:
        """The first bytes of an object that is not empty."""
        data: bytes = self.client.cat_file(str(self), start=0, end=count)
        return data

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    @_one_line_errors
    def write_bytes(self, data: bytes) -> int:
        self.client.pipe_file(str(self), data)
        return len(data)

    @_one_line_errors
    def create(self, data: bytes) -> bool:
        """Creates an object if there is none; returns whether it did. Only one process can."""
        try:
            self.client.pipe_file(str(self), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    @_one_line_errors
    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            self.client.rm_file(str(self))

    @_one_line_errors
    def rmtree(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            self.client.rm(str(self), recursive=True)

    @_one_line_errors
    def upload(self, path: Path) -> None:
        """Copies a local file, or a folder with its contents, to this path."""
        files = [one for one in sorted(path.rglob("*")) if one.is_file()] or [path]
        names = [str(self / one.relative_to(path)) for one in files]
        self.client.put(list(map(str, files)), names)

    @_one_line_errors
    def download(self, path: Path) -> None:
        """Copies the object, or all objects below, to this machine."""
        names = list(self.below())
        for name in names or ["."]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        remote = [str(self / name) for name in names] or [str(self)]
        self.client.get(remote, [str(path / name) for name in names] or [str(path)])


def _checksum(info: Mapping[str, Any]) -> str:
    """The store's checksum of an object's contents."""
    return str(info.get("crc32c") or info.get("ETag", "")).strip('"')
