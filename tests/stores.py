"""Object stores in memory, instead of real ones."""

from typing import Any, ClassVar

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from diffusion_jax.system import stores


class Memory(MemoryFileSystem):
    """A client for `s3://bucket/name` in memory; like real ones it takes names without a scheme."""

    protocol = ("s3", "gs")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    cachable = False

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return "/" + path.rpartition("://")[2].strip("/")

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().info(path, **kwargs)
        if found["type"] == "file":
            found["ETag"] = f'"{self.checksum(path)}"'
        return found

    def checksum(self, path: str) -> int:
        return hash(self.store[self._strip_protocol(path)].getvalue())

    def find(self, path: str, **kwargs: Any) -> Any:
        found = super().find(path, **kwargs)
        return {name: self.info(name) for name in found}

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        if mode == "create" and self.exists(path):
            raise FileExistsError(path)
        super().pipe_file(path, value, mode="overwrite", **kwargs)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Does nothing: there are no folders."""

    def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
        names = list(self.find(path)) if recursive else [self._strip_protocol(path)]
        for name in names or [self._strip_protocol(path)]:
            if self.store.pop(name, None) is None:
                raise FileNotFoundError(path)


def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces every store by an empty one."""
    Memory.store, Memory.pseudo_dirs = {}, [""]
    client = Memory()
    monkeypatch.setattr(stores, "_client", lambda scheme: client)
