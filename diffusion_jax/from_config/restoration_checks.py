"""Checks of the settings in `restore`, before a picture is restored."""

from collections.abc import Sequence

from diffusion_jax.data import Kind
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, named
from diffusion_jax.from_config.identity import folder_and_step, read_config
from diffusion_jax.from_config.images import check_files
from diffusion_jax.from_config.restoration import (
    BEGINNING,
    DECAY,
    JOINT,
    OF_PICTURES,
    OPERATORS,
    Method,
    make_method,
)
from diffusion_jax.from_config.sound_damage import OPERATORS as OF_SOUNDS
from diffusion_jax.restoration.decay import KINDS as DECAYS
from diffusion_jax.system.files import path_of

ESTIMATED = {"blur", "fading", "gamma", "clipping"}
"""Operators with parameters that can be found from the picture."""
GRIDS = {"halftone", "jpeg"}
"""Operators with a grid of their own, which a window of the picture cuts elsewhere."""


def check_restoration(config: Config, kind: Kind) -> None:
    """Raises a ConfigError for settings that are impossible, or not for this kind of data."""
    settings = config.restore
    if not settings.image:
        raise ConfigError(
            "--mode restore needs a picture: --restore FILE, or a recording, or a folder of them"
        )
    check_files("restore.image", settings.image, kind)
    if (codec := config.get("codec", {"name": "identity"})["name"]) == "autoencoder":
        raise ConfigError(f"--mode restore needs a network of pixels, not codec.name={codec!r}")
    if codec == "mel" and settings.method != "as_trained":
        raise ConfigError(
            f"restore.method={settings.method!r} compares waveforms, and codec.name='mel' leaves "
            "out their phases: use a network of codec.name='mdct', or restore.method='as_trained'"
        )
    names, pictures = settings.operator.split(JOINT), len(kind.shape) == 3
    for name in names:
        check_known(name, (*OPERATORS, *[DECAY] * (len(names) == 1)), "restore.operator")
        if name in (OF_SOUNDS if pictures else OF_PICTURES):
            whose = "sounds" if name in OF_SOUNDS else "pictures"
            raise ConfigError(
                f"restore.operator={name!r} is for {whose}, and these data are {kind.words}"
            )
    if BEGINNING in names[:-1]:
        raise ConfigError(
            f"restore.operator={settings.operator!r} needs {BEGINNING!r} to be the last: the file "
            "is the beginning of what is seen"
        )
    method, size = make_method(config), config.sample.guidance.flock.size
    if size and method.particles > 1:
        raise ConfigError(
            f"sample.guidance.flock.size={size} and restore.method={settings.method!r} do not go "
            "together: both denoise samples in groups"
        )
    if "grey" in names and kind.shape[-1] == 1:
        raise ConfigError(
            f"restore.operator={settings.operator!r} needs a network of pictures in colour, and "
            f"these data are {kind.words}"
        )
    if settings.blind.rounds:
        if not pictures:
            raise ConfigError(
                f"restore.blind.rounds={settings.blind.rounds} is for pictures, and these data are "
                f"{kind.words}"
            )
        _check_blind(settings, names, method)
    files = {"restore.image": settings.image}
    if settings.operator == DECAY:
        if not settings.simulate:
            raise ConfigError(
                "restore.operator='decay' needs restore.simulate=True: for a picture that is "
                "decayed already restore.operator is 'mask'"
            )
        for kind_of_decay in settings.decay.kinds:
            check_known(kind_of_decay, DECAYS, "restore.decay.kinds")
    if "mask" in names:
        if bool(settings.mask.image) == bool(settings.mask.detector):
            raise ConfigError(
                f"restore.operator={settings.operator!r} needs a picture that is white where the "
                "other is destroyed, --mask FILE, or a network that finds that, "
                "restore.mask.detector, and not both"
            )
        if settings.mask.image:
            files["restore.mask.image"] = settings.mask.image
    if {"mask", DECAY} & {*names} and (words := settings.mask.detector):
        what, (folder, _) = "restore.mask.detector", folder_and_step(words, "restore.mask.detector")
        theirs = read_config(path_of(folder), f"{what}={words!r}").objective.name
        if theirs != "damage":
            raise ConfigError(
                f"{what}={words!r} is a run of objective.name={theirs!r}, not of 'damage', as "
                "configs/photographs_damage.py is"
            )
    for key, file in files.items():
        if not path_of(file).is_dir():
            with named(key):
                kind.check_file(path_of(file))


def _check_blind(settings: Config, names: Sequence[str], method: Method) -> None:
    """Raises a ConfigError if parameters of these operators cannot be estimated."""
    key, written = f"restore.blind.rounds={settings.blind.rounds}", settings.operator
    if not (ESTIMATED & {*names}):
        raise ConfigError(
            f"{key} needs a restore.operator with parameters to estimate "
            f"({', '.join(sorted(ESTIMATED))}), and {written!r} has none"
        )
    if fixed := [name for name in names if name in GRIDS]:
        raise ConfigError(
            f"{key} looks at windows of the picture, and {fixed[0]!r} of restore.operator="
            f"{written!r} depends on where they lie"
        )
    if "mask" in names[:-1] or names.count("mask") > 1:
        raise ConfigError(f"{key} needs 'mask' to be the last of restore.operator={written!r}")
    if len({*names}) < len(names):
        raise ConfigError(f"{key} needs operators that differ, and here it is {written!r}")
    if method.particles > 1:
        raise ConfigError(f"{key} needs samples, and restore.method='twisted' has particles")
    if "fading" in names and min(settings.fading.gain) <= 0:
        raise ConfigError(f"{key} needs restore.fading.gain={settings.fading.gain} above 0")
