"""Orchestral music of the game Battle for Wesnoth, from the Debian package wesnoth-1.16-music.

The licence is the GPL-2.
"""

from diffusion_jax.data.dataset import Dataset, Options
from diffusion_jax.data.sets.debian import not_installed, package_root
from diffusion_jax.data.sets.recordings import Recording, split_recordings, windows_of_recordings

PACKAGE = "wesnoth-1.16-music"
FOLDER = "usr/share/games/wesnoth/1.16/data/core/music"
SILENCE = "silence.ogg"


def load_music(options: Options) -> Dataset:
    """Windows of 40 tracks, mixed to mono at `rate` (0: 16,000) Hz; whole tracks are held out.

    Raises:
        DataError: the package is missing, or as `windows_of_recordings`.
    """
    root = package_root(options)
    found = [
        Recording(path.relative_to(root).as_posix())
        for path in sorted((root / FOLDER).glob("*.ogg"))
        if path.name != SILENCE
    ]
    if not found:
        raise not_installed(options, FOLDER, [PACKAGE])
    splits = split_recordings(found, options.heldout_fraction)
    return windows_of_recordings(options, root, splits, "windows")
