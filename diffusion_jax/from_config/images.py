"""What pictures the network is given, from the group `image_condition`."""

import dataclasses
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.diffusion.image_conditions import LowResolution, Masked, nothing_given
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import ConfigError, check_known
from diffusion_jax.types import Condition

NAMES = ("none", "low_resolution", "masked")


class ImageCondition(NamedTuple):
    """How pictures become conditioning.

    Attributes:
        train: in training; None where the network is given none.
        sample: later, at the one noise level that `sample.upscale.noise` names.
        none: conditioning of one sample, arrays `[1, ...]`, off.
    """

    train: Condition | None
    sample: Condition | None
    none: dict[str, np.ndarray]


NOTHING = ImageCondition(None, None, {})


def make_image_condition(
    config: ConfigDict, schedule: Schedule, shape: tuple[int, ...]
) -> ImageCondition:
    """What the network is given of images of a `shape`.

    Raises:
        ConfigError: a setting is not possible.
    """
    name, upscale = config.image_condition.name, config.sample.upscale
    check_known(name, NAMES, "image_condition.name")
    if upscale.image and name != "low_resolution":
        raise ConfigError(
            f"sample.upscale.image={upscale.image!r} needs a network that was trained on pictures "
            f"of low resolution: image_condition.name is {name!r}, not 'low_resolution'"
        )
    if name == "none":
        return NOTHING
    train: LowResolution | Masked
    sample: LowResolution | Masked
    if name == "low_resolution":
        train = _low_resolution(config, schedule, shape)
        if not 0 <= upscale.noise <= train.most:
            raise ConfigError(
                f"sample.upscale.noise={upscale.noise} must lie in [0, "
                f"image_condition.low_resolution.max_noise={train.most}], as in training"
            )
        sample = dataclasses.replace(train, least=upscale.noise, most=upscale.noise)
    else:
        train = sample = _masked(config)
    none = jax.tree.map(np.asarray, nothing_given(train, shape))
    return ImageCondition(train, sample, dict(none))


def _low_resolution(
    config: ConfigDict, schedule: Schedule, shape: tuple[int, ...]
) -> LowResolution:
    what, settings = "image_condition.low_resolution", config.image_condition.low_resolution
    factor, max_noise = settings.factor, settings.max_noise
    if factor < 2 or any(side % factor for side in shape[:2]):
        raise ConfigError(
            f"{what}.factor={factor} must be 2 or more and divide the sides of the images, "
            f"{shape[0]} x {shape[1]}"
        )
    if not 0 <= max_noise <= 1:
        raise ConfigError(f"{what}.max_noise={max_noise} must lie in [0, 1]")
    return LowResolution(schedule, factor, 0.0, max_noise)


def _masked(config: ConfigDict) -> Masked:
    made = Masked(**config.image_condition.masked)
    if made.boxes < 1 or not 0 < made.least <= made.most <= 1:
        raise ConfigError(
            f"image_condition.masked: boxes={made.boxes} must be at least 1, and "
            f"0 < least={made.least} <= most={made.most} <= 1"
        )
    return made
