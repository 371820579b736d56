"""Images that a config names, and image conditioning, selected by `image_condition`."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.data import Kind, open_image
from diffusion_jax.data.images import MODES
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, keyed, named
from diffusion_jax.restoration.image_conditions import (
    Decayed,
    LowResolution,
    Masked,
    nothing_given,
)
from diffusion_jax.system.arguments import check
from diffusion_jax.system.files import path_of
from diffusion_jax.types import Condition

OF_ITSELF = {"masked": Masked, "decayed": Decayed}
NAMES = ("none", "low_resolution", *OF_ITSELF)


class ImageCondition(NamedTuple):
    """How images become conditioning."""

    train: Condition | None  # in training; None without image conditioning
    sample: Condition | None  # in sampling, at the noise level `sample.upscale.noise`
    none: dict[str, np.ndarray]  # switched-off conditioning of one sample, arrays `[1, ...]`


NOTHING = ImageCondition(None, None, {})


def make_image_condition(
    config: Config, schedule: Schedule, shape: tuple[int, ...]
) -> ImageCondition:
    """Image conditioning for images of a `shape`."""
    name, upscale = config.image_condition.name, config.sample.upscale
    check_known(name, NAMES, "image_condition.name")
    if upscale.image and name != "low_resolution":
        raise ConfigError(
            f"sample.upscale.image={upscale.image!r} needs a network trained for upscaling: "
            f"image_condition.name is {name!r}, not 'low_resolution'"
        )
    if name == "none":
        return NOTHING
    settings = config.image_condition[name]
    train: Condition
    sample: Condition | None = None
    with keyed(f"image_condition.{name}"):
        if name in OF_ITSELF:
            train = sample = OF_ITSELF[name](**settings)
        else:
            check({"factor": "[2, inf)", "max_noise": "[0, 1]"}, **settings)
            train = LowResolution(schedule, settings.factor, 0.0, settings.max_noise)
        none = jax.tree.map(np.asarray, dict(nothing_given(train, shape)))
    if sample is None:
        with keyed("sample.upscale"):
            check({"noise": "[0, max_noise]"}, noise=upscale.noise, max_noise=settings.max_noise)
        sample = LowResolution(schedule, settings.factor, upscale.noise, upscale.noise)
    return ImageCondition(train, sample, none)


def opened(key: str, file: str, kind: Kind, factor: int = 1) -> np.ndarray:
    """The image named by the setting `key`, uint8 [H / factor, W / factor, C] for a kind [H, W, C].

    Raises:
        ConfigError: it cannot be read.
    """
    height, width, channels = kind.shape
    with named(key):
        return open_image(path_of(file), (height // factor, width // factor, channels))


def check_images(key: str, file: str, kind: Kind) -> None:
    """Raises a ConfigError if the setting `key` names an image `file` for data of another kind."""
    if len(kind.shape) != 3 or kind.shape[-1] not in MODES:
        raise ConfigError(
            f"{key}={file!r} goes with images, grey or in colour, and these data are {kind.words}"
        )
