"""Paths of object stores, `gs://bucket/name` and `s3://bucket/name`, by etils.epath and fsspec.

A store has no folders, only names with slashes; an object appears whole or not at all, and nothing
can be appended to it. Its client package is needed only where such a path is used.
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
"""By scheme, the packages that reach the stores."""
F = TypeVar("F", bound=Callable[..., Any])


class StoreError(OSError):
    """A store that cannot be reached, or does not allow it."""


class Entry(NamedTuple):
    """What a store says of an object."""

    size: int
    checksum: str

    @property
    def words(self) -> str:
        return f"{self.checksum} {self.size}"


def store_path(text: str) -> "StorePath | None":
    """The path of a store that a text is; None for one without a scheme.

    Raises:
        StoreError: its scheme is not known, or it names no bucket.
    """
    found = re.match(r"([A-Za-z][\w+.-]+):/+", text)  # pathlib makes one slash of two
    if not found:
        return None
    scheme, rest = found[1], text[found.end() :]
    if scheme not in CLIENTS or not rest:
        known = " and ".join(f"{name}://BUCKET/NAME" for name in CLIENTS)
        raise StoreError(errno.EINVAL, f"object stores are given as {known}", text)
    return StorePath(f"{scheme}://{rest}")


@contextlib.contextmanager
def _told(path: Any) -> Iterator[None]:
    """Whatever a client raises, as one line that names the path."""
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


def _told_of(method: F) -> F:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _told(self):
            return method(self, *args, **kwargs)

    return call  # type: ignore[return-value]


@functools.cache
def _client(scheme: str) -> Any:
    """The store's file system, which remembers nothing: TensorStore and others write there too."""
    # Also of clients that Orbax makes. Without these Google's asks the control interface for the
    # kind of every bucket, and epath takes TensorFlow for a client.
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
    """A path of an object store with the methods of `pathlib.Path`; Orbax takes it as it is."""

    @property
    def client(self) -> Any:
        """The file system of fsspec."""
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

    @_told_of
    def exists(self) -> bool:
        return bool(self.client.exists(str(self)))

    @_told_of
    def is_dir(self) -> bool:
        return bool(self.client.isdir(str(self)))

    @_told_of
    def is_file(self) -> bool:
        return bool(self.client.isfile(str(self)))

    def mkdir(self, mode: int | None = None, parents: bool = False, exist_ok: bool = False) -> None:
        """Nothing: names need no folders."""

    @_told_of
    def iterdir(self) -> Iterator["StorePath"]:
        try:
            found = self.client.ls(str(self), detail=False)
        except FileNotFoundError:
            return iter(())
        return iter([self / PurePosixPath(name).name for name in found])

    @_told_of
    def glob(self, pattern: str) -> Iterator["StorePath"]:
        found = self.client.glob(f"{glob.escape(str(self))}/{pattern}")
        scheme = str(self).partition("://")[0]
        return iter([type(self)(f"{scheme}://{name}") for name in found])

    def rglob(self, pattern: str) -> Iterator["StorePath"]:
        """Objects below, at any depth, whose names match; no folders, as there are none."""
        return (self / name for name in self.below() if PurePosixPath(name).match(pattern))

    @_told_of
    def below(self) -> Mapping[str, Entry]:
        """All objects below by relative name, in order, from one listing."""
        root = self.client._strip_protocol(str(self)).rstrip("/") + "/"
        found = self.client.find(root, detail=True)
        return {
            name.removeprefix(root): Entry(info["size"], _checksum(info))
            for name, info in sorted(found.items())
            if name != root.rstrip("/")
        }

    @_told_of
    def open(self, mode: str = "r", **options: Any) -> Any:
        """A file object; what is written appears at its end, also of a block that raises."""
        return self.client.open(str(self), mode, **options)

    @_told_of
    def read_bytes(self) -> bytes:
        data: bytes = self.client.cat_file(str(self))
        return data

    def read_text(self, encoding: str | None = None) -> str:
        return self.read_bytes().decode(encoding or "utf-8")

    @_told_of
    def write_bytes(self, data: bytes) -> int:
        self.client.pipe_file(str(self), data)
        return len(data)

    @_told_of
    def create(self, data: bytes) -> bool:
        """Writes it if there is no such object; whether there was none. One of several does."""
        try:
            self.client.pipe_file(str(self), data, mode="create")
        except FileExistsError:
            return False
        return True

    def write_text(self, data: str, encoding: str | None = None, errors: str | None = None) -> int:
        return self.write_bytes(data.encode(encoding or "utf-8"))

    @_told_of
    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            self.client.rm_file(str(self))

    @_told_of
    def rmtree(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.exists():
            self.client.rm(str(self), recursive=True)

    @_told_of
    def upload(self, path: Path) -> None:
        """Copies a file, or a folder with all that is in it, from this machine to here."""
        files = [one for one in sorted(path.rglob("*")) if one.is_file()] or [path]
        names = [str(self / one.relative_to(path)) for one in files]
        self.client.put(list(map(str, files)), names)

    @_told_of
    def download(self, path: Path) -> None:
        """Copies the object, or all objects below, to this machine."""
        names = list(self.below())
        for name in names or ["."]:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
        remote = [str(self / name) for name in names] or [str(self)]
        self.client.get(remote, [str(path / name) for name in names] or [str(path)])


def _checksum(info: Mapping[str, Any]) -> str:
    """Of an object's contents, as the store keeps it."""
    return str(info.get("crc32c") or info.get("ETag", "")).strip('"')
