"""The start of sampling, selected by `sample.start`."""

import hashlib

import jax.numpy as jnp

from diffusion_jax.data import Kind
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.images import check_images, opened
from diffusion_jax.generation.starts import NORMAL, STANDARD, UNIFORM, Start, picture
from diffusion_jax.system.files import path_of

STARTS = {"normal": NORMAL, "standard": STANDARD, "uniform": UNIFORM}
"""By name; other values are the path of an image."""


def make_start(config: Config, kind: Kind) -> Start:
    """The start of samples of a kind of data.

    Raises:
        ConfigError: there is no such image, or variants or interpolations have their own start.
    """
    sample = config.sample
    name = sample.get("start", "normal")  # older runs have no choice
    for key, value in (("vary.image", sample.vary.image), ("interpolate", sample.interpolate)):
        if value and name not in ("normal", "standard"):
            raise ConfigError(
                f"sample.start={name!r} does not go with sample.{key}, which starts from a "
                "picture or from two noises of its own"
            )
    if name in STARTS:
        return STARTS[name]
    if not path_of(name).is_file():
        raise ConfigError(
            f"sample.start={name!r} must be normal, standard, uniform or the path of a picture, "
            "and there is no such file"
        )
    check_images("sample.start", name, kind)
    items = opened("sample.start", name, kind)
    digest = hashlib.sha256(items.tobytes()).hexdigest()[:12]
    try:
        return picture(jnp.asarray(kind.decode(items)), f"{name} ({digest})")
    except ValueError as error:
        raise ConfigError(f"sample.start={name!r}: {error}") from error
