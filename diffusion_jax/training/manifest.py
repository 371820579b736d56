"""The manifest of a folder: size and SHA-256 of every file, and of the manifest itself."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffusion_jax.system.files import sync, write_whole

MANIFEST = "manifest.txt"


def write_manifest(folder: Path) -> None:
    """Writes the manifest of all files in `folder`, after they have reached the disk."""
    paths = sorted(folder.rglob("*"))
    for path in [*paths, folder, folder.parent]:
        sync(path)
    names = [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
    body = "\n".join(_entries(folder, names)).encode()
    write_whole(folder / MANIFEST, _digest(body) + b"\n" + body)


def find_damage(folder: Path) -> str | None:
    """Name of the first file that is not what the manifest says; None if all are sound.

    Files that the manifest does not name are not looked at.
    """
    try:
        head, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    except OSError:
        return MANIFEST
    if head != _digest(body):
        return MANIFEST
    said = body.decode().split("\n")
    names = [entry.split(" ", 2)[2] for entry in said]
    found = zip(names, said, _entries(folder, names), strict=True)
    return next((name for name, is_said, is_found in found if is_said != is_found), None)


def _entries(folder: Path, names: list[str]) -> list[str]:
    """For each file a line: digest, bytes, name; an empty one if it cannot be read."""

    def entry(name: str) -> str:
        try:
            with (folder / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                return f"{digest} {file.tell()} {name}"
        except OSError:
            return ""

    with ThreadPoolExecutor() as pool:  # hashing leaves Python's lock to the others
        return list(pool.map(entry, names))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
