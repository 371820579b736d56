"""Files of Debian packages, installed or unpacked."""

from collections.abc import Iterable
from pathlib import Path

from diffusion_jax.data.dataset import Options
from diffusion_jax.data.errors import DataError
from diffusion_jax.system.files import path_of
from diffusion_jax.system.texts import shown


def package_root(options: Options) -> Path:
    """The folder to which paths of packages are relative: `manual_dir`, or the system's root."""
    return path_of(options.manual_dir) if options.manual_dir else Path("/")


def not_installed(options: Options, lacks: str, packages: Iterable[str]) -> DataError:
    """The error for files that are not there, with how to install their packages."""
    where = f"data.manual_dir='{shown(options.manual_dir)}'" if options.manual_dir else "the system"
    names = " ".join(dict.fromkeys(packages))
    return DataError(
        f"data.name='{options.name}': {where} lacks {lacks}; "
        f"`apt-get install --no-install-recommends {names}` of Debian 12 installs them, or unpack "
        "each package into a folder (`apt-get download PACKAGE && dpkg -x PACKAGE*.deb FOLDER`) "
        "and name it in data.manual_dir."
    )
