"""The codec of a config: the space in which diffusion takes place."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from diffusion_jax.codecs.codec import Codec, Identity
from diffusion_jax.codecs.latents import CODEC, FromMoments, Latents, OneByOne
from diffusion_jax.codecs.mdct import MDCT
from diffusion_jax.codecs.mel import Mel
from diffusion_jax.codecs.stft import STFT
from diffusion_jax.data import Kind
from diffusion_jax.evaluation.sound_measures import Sounds
from diffusion_jax.from_config.choices import Config, ConfigError, group_of, keyed, lookup
from diffusion_jax.from_config.images import INPAINTING
from diffusion_jax.from_config.published import Published, network_digests
from diffusion_jax.from_config.task import Frozen
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.published.files import digests
from diffusion_jax.system.files import path_of
from diffusion_jax.types import Params

PART = "vae"
"""Name of the autoencoder in published folders and in the folder of a run that trained one."""


Made = tuple[Codec, dict[str, Frozen]]
"""A codec, and its parameters by name, which are not trained."""


def make_codec(config: Config, kind: Kind) -> Made:
    """The codec of data of a kind, and its parameters, which are not trained.

    Raises:
        ConfigError: it is unknown, or not for data of this shape.
        WeightsError: its `config.json` cannot be read.
    """
    name = config.codec.name if "codec" in config else "identity"  # older runs have no choice
    return lookup(CODECS, name, "codec.name")(config, kind)


def _identity(config: Config, kind: Kind) -> Made:
    return Identity(kind.shape, kind.limit, kind.levels), {}


def _of_sound(make: Callable[..., Codec], config: Config, kind: Kind) -> Made:
    """A transform of sound, without parameters."""
    name = config.codec.name
    if len(kind.shape) != 2:
        raise ConfigError(f"codec.name={name!r} is of sound, and these data are {kind.words}")
    _check_space(config)
    with keyed(f"codec.{name}"):
        return make(*kind.shape, **config.codec[name]), {}


def _log_mel(config: Config, kind: Kind) -> Made:
    """A log-mel spectrum, which is of a rate."""

    def make(length: int, channels: int, **settings: Any) -> Mel:
        assert isinstance(kind, Sounds)
        return Mel(length, channels, kind.rate, **settings)

    return _of_sound(make, config, kind)


def _latents(config: Config, kind: Kind) -> Made:
    """The latents of an autoencoder."""
    if config.image_condition.name not in ("none", INPAINTING):
        raise _refused(config, "image_condition.name", "gives pixels")
    _check_space(config)
    settings = config.codec
    of_run, own = _of_run(config), settings.autoencoder
    scale: float | tuple[float, ...] = own.scale
    center: float | tuple[float, ...] = 0.0
    if of_run:
        network, center, scale = of_run.autoencoder()
        if network.out_channels != kind.shape[-1]:
            raise ConfigError(
                f"codec.run={settings.run!r} is of data of {network.out_channels} channels, and "
                f"these are {kind.words}"
            )
    else:
        sizes = {key: own[key] for key in own if key not in ("scale", "weights", "tile")}
        network = Autoencoder(**sizes, out_channels=kind.shape[-1])
    template, shape = shapes_of(network, kind, "codec.name='autoencoder'")

    def load() -> Params:
        published = of_run or Published.of(config, "codec.name", own.weights)
        if not of_run:
            published.check_scale(own.scale)
        params: Params = published.read(PART, template)["params"]
        return params

    codec = Latents(network, shape, scale, center, tile=own.get("tile", 0))
    return codec, {CODEC: Frozen(template["params"], load)}


def shapes_of(network: Autoencoder, kind: Kind, what: str) -> tuple[Any, tuple[int, ...]]:
    """Shapes of the variables of an autoencoder of data of a kind, and the shape of its latents.

    Raises:
        ConfigError: it is not for data of this shape; `what` names it.
    """
    x = jax.ShapeDtypeStruct((1, *kind.shape), kind.dtype)
    key = jax.eval_shape(jax.random.key, 0)
    try:
        template = jax.eval_shape(network.init, key, x)
    except ValueError as error:
        raise ConfigError(f"{what} for {kind.words}: {error}") from error
    mean, _ = jax.eval_shape(lambda v, x: network.apply(v, x, method="encode"), template, x)
    return template, mean.shape[1:]


def _of_run(config: Config) -> Published | None:
    """The files that `codec.run` names, if it does."""
    folder = config.codec.get("run", "")
    return Published.at(folder, "codec.run") if folder else None


def weights_digests(config: Config) -> dict[str, str]:
    """SHA-256 of the files of published weights by part, and of the codec if it has its own."""
    found, codec = network_digests(config), config.get("codec", {"name": "identity"})
    own = codec["name"] == "autoencoder" and (
        codec.get("run", "") or codec.get("autoencoder", {}).get("weights", "")
    )
    return found | ({CODEC: digests(path_of(own), [PART])[PART]} if own else {})


def training_codec(config: Config, codec: Codec) -> Codec:
    """The codec of a training: of moments of latents, if they are computed once before it."""
    if not isinstance(codec, Latents):
        return codec
    fields = {field.name: getattr(codec, field.name) for field in dataclasses.fields(codec)}
    make = FromMoments if config.codec.get("cache", False) else OneByOne
    return make(**fields)


def _check_space(config: Config) -> None:
    """Raises a ConfigError for a setting that is of the data as they are only."""
    sample = config.sample
    if sample.guidance.likeness.judge:
        raise _refused(config, "sample.guidance.likeness.judge", "judges pixels")
    if sample.clip > 0:
        why = "is a limit of the data, and here there is none: set 0"
        raise _refused(config, "sample.clip", why)


def _refused(config: Config, key: str, why: str) -> ConfigError:
    return ConfigError(
        f"{key}={group_of(config, key)!r} does not go with codec.name={config.codec.name!r}: it "
        f"{why}"
    )


CODECS: dict[str, Callable[[Config, Kind], Made]] = {
    "identity": _identity,
    "autoencoder": _latents,
    "mdct": functools.partial(_of_sound, MDCT),
    "stft": functools.partial(_of_sound, STFT),
    "mel": _log_mel,
}
