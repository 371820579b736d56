"""The codec of a config: the space in which diffusion takes place."""

import jax

from diffusion_jax.codecs.codec import Codec, Identity
from diffusion_jax.codecs.latents import CODEC, Latents
from diffusion_jax.data import Kind
from diffusion_jax.from_config.choices import Config, ConfigError, check_known
from diffusion_jax.from_config.published import Published
from diffusion_jax.from_config.task import Frozen
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.types import Params

NAMES = ("identity", "autoencoder")


def make_codec(config: Config, kind: Kind) -> tuple[Codec, dict[str, Frozen]]:
    """The codec of data of a kind, and its parameters, which are not trained.

    Raises:
        ConfigError: it is unknown, or not for data of this shape.
    """
    settings = config.get("codec", Config({"name": "identity"}))  # older runs have no choice
    check_known(settings.name, NAMES, "codec.name")
    if settings.name == "identity":
        return Identity(kind.shape, kind.limit, kind.levels), {}
    own = settings.autoencoder
    sizes = {key: own[key] for key in own if key not in ("scale", "weights", "tile")}
    network = Autoencoder(**sizes, out_channels=kind.shape[-1])
    x = jax.ShapeDtypeStruct((1, *kind.shape), kind.dtype)
    key = jax.eval_shape(jax.random.key, 0)
    try:
        template = jax.eval_shape(network.init, key, x)
    except ValueError as error:
        raise ConfigError(f"codec.name='autoencoder' for {kind.words}: {error}") from error
    mean, _ = jax.eval_shape(lambda v, x: network.apply(v, x, method="encode"), template, x)
    codec = Latents(network, mean.shape[1:], own.scale, tile=own.get("tile", 0))

    def load() -> Params:
        published = Published.of(config, "codec.name", own.weights)
        published.check_scale(own.scale)
        params: Params = published.read("vae", template)["params"]
        return params

    return codec, {CODEC: Frozen(template["params"], load)}
