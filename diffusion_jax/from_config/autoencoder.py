"""The task of training an autoencoder, whose latents other runs diffuse."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from diffusion_jax.data import Dataset, Kind
from diffusion_jax.evaluation.perceptual import (
    FILE,
    PACKAGE,
    packaged,
    stlpips,
    stlpips_shapes,
    stlpips_variables,
)
from diffusion_jax.evaluation.reconstruction import (
    latent_statistics,
    reconstruct,
    reconstruction_sheet,
)
from diffusion_jax.from_config.choices import Config, ConfigError, keyed, lookup, need_none
from diffusion_jax.from_config.choices import weights_path as find_weights
from diffusion_jax.from_config.codecs import PART, shapes_of
from diffusion_jax.from_config.network import DTYPES, check_network, nothing
from diffusion_jax.from_config.task import Frozen, Task
from diffusion_jax.models.autoencoder import Autoencoder
from diffusion_jax.models.critic import Critic
from diffusion_jax.models.published import autoencoder_configs
from diffusion_jax.models.published.files import write_part
from diffusion_jax.models.stlpips import SMALLEST
from diffusion_jax.objectives.adversarial import Relativistic
from diffusion_jax.objectives.autoencoder import (
    CRITIC,
    Adversarial,
    AutoencoderLoss,
    Coder,
    Perceptual,
    Squared,
)
from diffusion_jax.system.files import write_whole
from diffusion_jax.types import Array, Key, Params

ERRORS: dict[str, Callable[[float], Callable[[Array], Array]]] = {
    "l1": lambda _: jnp.abs,
    "squared": Squared,
}
PERCEPTUAL = "perceptual"
"""Name of the parameters of ST-LPIPS among those that are not trained."""


def autoencoder(config: Config) -> Callable[[Dataset], Task]:
    """Checks the config without a data set, and returns the function that makes its task."""
    check_network(config)
    need_none(config, "text", "image_condition")
    if (codec := config.codec.name) != "identity":
        raise ConfigError(
            f"objective.name='autoencoder' trains on data as they are: codec.name is {codec!r}, "
            "not 'identity'"
        )
    settings = config.objective.autoencoder
    error = lookup(ERRORS, settings.reconstruction, "objective.autoencoder.reconstruction")
    dtype = DTYPES[config.model.dtype]

    def make(dataset: Dataset) -> Task:
        kind = dataset.kind
        check_kind(config, kind)
        network = Autoencoder(**config.model.autoencoder, out_channels=kind.shape[-1], dtype=dtype)
        template, _ = shapes_of(network, kind, "model.name='autoencoder'")
        with keyed("model.autoencoder"):
            autoencoder_configs.groups_of(network)  # raises early if it cannot be written
        coder = coder_of(network)
        heldout = AutoencoderLoss(coder, error(settings.variance), settings.kl)
        frozen: dict[str, Frozen] = {}
        if settings.perceptual:
            frozen[PERCEPTUAL] = Frozen(stlpips_shapes(), lambda: _weights(config))
            heldout = replace(heldout, perceptual=Perceptual(_perceptual, settings.perceptual))
        loss, x = heldout, jnp.zeros((1, *kind.shape))
        critic = Critic(**config.model.critic, dtype=dtype)
        rivals = (CRITIC,) if settings.adversarial else ()
        if settings.adversarial:
            judge: Any = lambda params, x: critic.apply({"params": params}, x)  # noqa: E731
            pairs = Relativistic(judge, settings.penalty)
            loss = replace(loss, adversarial=Adversarial(pairs, settings.adversarial))

        def init(key: Key) -> Params:
            params = network.init(key, x)["params"]
            if settings.adversarial:
                with keyed("model.critic"):
                    params = {**params, CRITIC: critic.init(key, x)["params"]}
            return params

        def publish(params: Params, folder: Path) -> str:
            params = {name: params[name] for name in template["params"]}
            size = config.sample.batch_size
            mean, std = (list(a) for a in latent_statistics(coder, params, dataset, size))
            path = write_part(folder, PART, {"params": params}).parent
            written = autoencoder_configs.write(network, mean, std, max(kind.shape[:-1]))
            text = json.dumps(written, indent=2) + "\n"
            write_whole(path / "config.json", text.encode())
            return f"the autoencoder, with mean and deviation of its latents, is in {path}"

        return Task(
            init,
            lambda params, x, cond: reconstruct(coder, params, x),
            (x, nothing(dataset, None)),
            loss,
            heldout,
            draws_nothing=(
                "objective.name='autoencoder' trains an autoencoder and draws no samples: use "
                "--mode train, evaluate or plan, and codec.run in a run that draws its latents"
            ),
            coder=coder,
            groups=(*template["params"], *rivals),
            rivals=rivals,
            sheet=lambda params: reconstruction_sheet(coder, params, dataset),
            publish=publish,
            frozen=frozen,
        )

    return make


def coder_of(network: Autoencoder) -> Coder:
    """The network as functions of its parameters, beside which there may be others."""

    def encode(params: Params, x: Array) -> tuple[Array, Array]:
        found: Any = network.apply({"params": params}, x, method="encode")
        return found

    def decode(params: Params, z: Array) -> Array:
        found: Any = network.apply({"params": params}, z, method="decode")
        return found

    return Coder(encode, decode)


def check_kind(config: Config, kind: Kind) -> None:
    """Raises a ConfigError if data of a kind cannot be encoded, or not be compared as asked."""
    if len(kind.shape) < 2 or kind.vocabulary:
        raise ConfigError(
            "objective.name='autoencoder' needs images or the like, and these data are "
            f"{kind.words}"
        )
    if config.objective.autoencoder.perceptual and (why := unlike_photographs(kind)):
        raise ConfigError(
            f"objective.autoencoder.perceptual={config.objective.autoencoder.perceptual}: {why}"
        )


def unlike_photographs(kind: Kind) -> str:
    """Why ST-LPIPS does not apply to data of a kind, or ''."""
    if len(kind.shape) == 3 and kind.shape[-1] in (1, 3) and min(kind.shape[:2]) >= SMALLEST:
        return ""
    return (
        f"ST-LPIPS is for images of 1 or 3 channels and at least {SMALLEST} pixels a side, and "
        f"these data are {kind.words}"
    )


def stlpips_file(config: Config) -> Path | None:
    """The file of ST-LPIPS' weights that is given or installed; None if neither."""
    given = config.objective.autoencoder.weights
    return find_weights(config, _KEY, None, FILE, PACKAGE) if given else packaged()


_KEY = "objective.autoencoder.perceptual"


def _weights(config: Config) -> Params:
    return stlpips_variables(find_weights(config, _KEY, packaged(), FILE, PACKAGE))


def _perceptual(frozen: Mapping[str, Params], x: Array, x_hat: Array) -> Array:
    return stlpips(frozen[PERCEPTUAL], x, x_hat)
