"""Images that a config names, and image conditioning, selected by `image_condition`."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.codecs.codec import Codec, Identity
from diffusion_jax.data import Dataset, Kind, open_image
from diffusion_jax.data.images import MODES, read_image
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, check_known, keyed, named
from diffusion_jax.from_config.sound_damage import CONDITIONS, condition_of_sounds
from diffusion_jax.restoration.image_conditions import (
    Decayed,
    Encoded,
    LowResolution,
    Masked,
    nothing_given,
)
from diffusion_jax.system.arguments import check
from diffusion_jax.system.files import path_of
from diffusion_jax.types import Condition

INPAINTING = "inpainting"
OF_ITSELF = {"masked": Masked, "decayed": Decayed}
NAMES = ("none", "low_resolution", *OF_ITSELF, *CONDITIONS, INPAINTING)


class ImageCondition(NamedTuple):
    """How images become conditioning."""

    train: Condition | None  # in training; None without image conditioning
    sample: Condition | None  # in sampling, at the noise level `sample.upscale.noise`
    none: dict[str, np.ndarray]  # switched-off conditioning of one sample, arrays `[1, ...]`

    @property
    def beside(self) -> list[str]:
        """Names of the arrays that the network takes beside a sample."""
        return [name for name in self.none if name != "level"]


NOTHING = ImageCondition(None, None, {})


def make_image_condition(
    config: Config, schedule: Schedule, dataset: Dataset, codec: Codec
) -> ImageCondition:
    """Image conditioning for the items of a data set, in the space of the codec.

    Raises:
        ConfigError: it is unknown, or not for these.
    """
    name, upscale = config.image_condition.name, config.sample.upscale
    check_known(name, NAMES, "image_condition.name")
    if upscale.image and name != "low_resolution":
        raise ConfigError(
            f"sample.upscale.image={upscale.image!r} needs a network trained for upscaling: "
            f"image_condition.name is {name!r}, not 'low_resolution'"
        )
    if name == "none":
        return NOTHING
    if name == INPAINTING:
        if len(dataset.splits["train"]):
            raise ConfigError(
                "image_condition.name='inpainting' draws with a published network, and is not "
                f"trained: data.name={config.data.name!r} must be 'none'"
            )
        sides, channels = codec.shape[:-1], 1 + codec.shape[-1]
        return ImageCondition(None, None, {name: np.zeros((1, *sides, channels), np.float32)})
    shape = dataset.kind.shape
    settings = config.image_condition[name]
    train: Condition
    sample: Condition | None = None
    with keyed(f"image_condition.{name}"):
        if name in OF_ITSELF:
            train = sample = OF_ITSELF[name](**settings)
        elif name in CONDITIONS:
            train = sample = condition_of_sounds(name, settings, dataset)
        else:
            check({"factor": "[2, inf)", "max_noise": "[0, 1]"}, **settings)
            train = LowResolution(schedule, settings.factor, 0.0, settings.max_noise)
        if not isinstance(codec, Identity):
            train = Encoded(train, codec)
            sample = sample and train
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


def opened_mask(key: str, file: str, of: str, sides: tuple[int, ...]) -> np.ndarray:
    """The mask named by the setting `key`, bool [H, W, 1]: true where the picture is white.

    Raises:
        ConfigError: it cannot be read, or its `sides` are not those of the picture it goes with,
            `of` in words.
    """
    with named(key):
        found = read_image(path_of(file), 0, 1)
    if found.shape[:2] != sides:
        raise ConfigError(
            f"{key}={file!r} is {size_of(found.shape)} pixels and {of} {size_of(sides)}: they must "
            "be of one size"
        )
    return found >= 128


def size_of(shape: tuple[int, ...]) -> str:
    """Width and height of a picture [H, W, ...] in words."""
    return f"{shape[1]} x {shape[0]}"


def check_files(key: str, file: str, kind: Kind) -> None:
    """Raises a ConfigError if the setting `key` names a `file`, and data of a kind have none."""
    if not kind.suffixes:
        raise ConfigError(
            f"{key}={file!r} goes with images and sounds, and these data are {kind.words}"
        )


def check_images(key: str, file: str, kind: Kind, instead: str = "") -> None:
    """Raises a ConfigError if the setting `key` names an image `file` for data of another kind.

    `instead` is what there is for other data that have files.
    """
    if len(kind.shape) != 3 or kind.shape[-1] not in MODES:
        more = f": {instead}" if instead and kind.suffixes else ""
        raise ConfigError(
            f"{key}={file!r} goes with images, grey or in colour, and these data are {kind.words}"
            f"{more}"
        )
