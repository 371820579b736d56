"""The manifest of a folder: sizes and checksums of all files, and the manifest's own SHA-256."""

import hashlib
from pathlib import Path

from diffusion_jax.system.files import checksums, files_below, sync, write_whole

MANIFEST = "manifest.txt"


def write_manifest(folder: Path) -> None:
    """Writes the manifest of all files in `folder`, after syncing them to disk."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        sync(path)
    names = files_below(folder)
    found = zip(checksums(folder, names), names, strict=True)
    body = "\n".join(f"{of_it} {name}" for of_it, name in found).encode()
    write_whole(folder / MANIFEST, _digest(body) + b"\n" + body)


def find_damage(folder: Path) -> str | None:
    """Name of the first file that differs from the manifest; None if there is none.

    Files that are not in the manifest are ignored.
    """
    try:
        head, _, body = (folder / MANIFEST).read_bytes().partition(b"\n")
    except OSError:
        return MANIFEST
    if head != _digest(body):
        return MANIFEST
    said = [entry.split(" ", 2) for entry in body.decode().split("\n")]
    names = [name for _, _, name in said]
    found = zip(said, checksums(folder, names), strict=True)
    return next((name for (*of_it, name), now in found if " ".join(of_it) != now), None)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()
