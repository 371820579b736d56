"""Lists the files below a folder, following links, without hidden files and outputs of runs."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from diffusion_jax.system.files import files_below, in_store
from diffusion_jax.system.texts import shown

HIDDEN = (".", "__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""Beginnings of the names of hidden and system files and folders."""
OF_A_RUN = (
    *("checkpoints", "samples", "snapshots", "grids", "curves.png"),
    *("config.json", "metrics.jsonl", "result.json"),
    *("results.json", "samples.png", "metric.png", "cost.png"),
)
"""Names of files that runs and sweeps write."""


@dataclass(frozen=True)
class Listing:
    """The content of a folder, by paths relative to it."""

    # In the order of their paths, with the identity of each file: device and inode.
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    folders: list[str] = field(default_factory=list)  # except the folder itself, and runs
    others: dict[str, str] = field(default_factory=dict)  # not files, or with `/` folders: why
    notes: list[str] = field(default_factory=list)  # sentences on what is left out


def list_files(root: Path) -> Listing:
    """All files below a folder, links to files and folders followed.

    A folder that is linked twice, or from within itself, is listed once: at its real place if that
    is below `root`.
    """
    if in_store(root):
        return Listing({name: (0, i) for i, name in enumerate(files_below(root)) if _seen(name)})
    found, again, runs = Listing(), [], []
    known: dict[tuple[int, int], str] = {}

    def relative(path: str) -> str:
        return PurePath(path).relative_to(root).as_posix()

    def unreadable(error: OSError) -> None:
        found.others[relative(error.filename) + "/"] = str(error.strerror)

    waiting = [str(root)]
    for start in waiting:  # grows as links are found
        for folder, inner, names in os.walk(start, onerror=unreadable):
            where, about = relative(folder), os.stat(folder)
            if (first := known.setdefault((about.st_dev, about.st_ino), where)) != where:
                again.append(f"{where} (which is {'the whole' if first == '.' else first})")
                inner.clear()
                continue
            if _is_of_a_run(inner, names):
                runs.append("it" if where == "." else where)
                inner[:] = [name for name in inner if name not in OF_A_RUN]
                names = [name for name in names if name not in OF_A_RUN]
            elif where != ".":
                found.folders.append(where)
            inner[:] = sorted(name for name in inner if not name.startswith(HIDDEN))
            paths = [os.path.join(folder, name) for name in inner]
            waiting += [path for path in paths if os.path.islink(path)]
            for name in names:
                if not name.startswith(HIDDEN):
                    within = name if where == "." else f"{where}/{name}"
                    _add(found, within, os.path.join(folder, name))
    if again:
        found.notes.append(f"linked folders that are there already are left out: {some(again)}")
    if runs:
        found.notes.append(f"the samples of runs are no data and left out, those in {some(runs)}")
    files = dict(sorted(found.files.items()))
    return Listing(files, sorted(found.folders), found.others, found.notes)


def _seen(name: str) -> bool:
    """Whether neither a file of a store nor a folder above it is hidden."""
    return not any(part.startswith(HIDDEN) for part in name.split("/"))


def _is_of_a_run(folders: Sequence[str], files: Sequence[str]) -> bool:
    """Whether the folder with these is that of a run or a sweep."""
    beside = {"checkpoints", "metrics.jsonl", "result.json"}
    run = "config.json" in files and not beside.isdisjoint([*folders, *files])
    return run or {"results.json", "report.html"} <= set(files)


def _add(found: Listing, name: str, path: str) -> None:
    try:
        about = os.stat(path)
    except OSError as error:
        broken = os.path.islink(path)
        found.others[name] = "its link leads nowhere" if broken else str(error.strerror)
        return
    if stat.S_ISREG(about.st_mode):
        found.files[name] = about.st_dev, about.st_ino
    else:
        found.others[name] = "it is not a file"


def some(names: Sequence[str], most: int = 5) -> str:
    """Up to `most` of the names, and the number of others, in words."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shown, names[:most])) + more
