"""Files that are there whole or not at all."""

from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Writes `data` beside `path` first, so that whoever stops it leaves no half of it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)
