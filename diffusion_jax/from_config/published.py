"""Published weights that a config names: Stable Diffusion's folders and single files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Sharding

from diffusion_jax.diffusion import scheduler_configs
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.from_config.choices import Config, ConfigError, lookup
from diffusion_jax.from_config.process import make_schedule
from diffusion_jax.models.published import autoencoder_configs
from diffusion_jax.models.published.autoencoder_configs import SCALE, AutoencoderConfig
from diffusion_jax.models.published.dit import read_dit
from diffusion_jax.models.published.files import ANOTHER, PARTS, digests, read_part
from diffusion_jax.models.published.lora import with_lora
from diffusion_jax.models.weights import WeightsError, sha256
from diffusion_jax.system.files import path_of
from diffusion_jax.types import Params

SCHEDULER = "scheduler/scheduler_config.json"
SECOND_ENCODER = "text_encoder_2"
"""A folder that version 1 does not have."""
OF_AUTOENCODER = ("vae/config.json", "config.json")
"""Places of an autoencoder's settings: in a folder of several parts, or of one alone."""


def weights_source(config: Config) -> str:
    """`weights.source`, which configs of older runs do not have."""
    found: str = config.get("weights", {}).get("source", "")
    return found


def files_beside(config: Config, name: str) -> tuple[Path, ...]:
    """The files of `weights.lora` or `weights.embeddings`, which older runs do not have.

    Raises:
        ConfigError: one is not there, or there is no `weights.source` that they belong to.
    """
    asked = config.get("weights", {}).get(name, ())
    if asked and not weights_source(config):
        raise ConfigError(f"weights.{name}={asked} belongs to weights.source, and that is ''")
    paths = tuple(map(path_of, asked))
    for path in paths:
        if not path.is_file():
            raise ConfigError(f"weights.{name}: there is no file {path}")
    return paths


class Published(NamedTuple):
    """A folder of diffusers, a part of one, or a single file."""

    source: Path
    setting: str  # that names it, such as `weights.source`
    lora: tuple[Path, ...] = ()  # files of changes that are merged into what is read

    @classmethod
    def of(cls, config: Config, what: str, own: str = "") -> "Published":
        """The files named by `own`, a setting beside `what`, or else by `weights.source`.

        Raises:
            ConfigError: neither is set, or there is no such file, or it is Stable Diffusion XL.
        """
        group, source = what.rpartition(".")[0], own or weights_source(config)
        setting = f"{group}.{config[group].name}.weights" if own else "weights.source"
        if not source:
            raise ConfigError(
                f"{what}={config[group].name!r} needs published weights: weights.source=FOLDER, as "
                "diffusers saves it, or a single .safetensors file"
            )
        lora = () if own else files_beside(config, "lora")
        published = cls.at(source, setting)._replace(lora=lora)
        folders = (published.source / PARTS["unet"].folder, published.source / SECOND_ENCODER)
        if not own and all(folder.is_dir() for folder in folders):
            raise ConfigError(
                f"{setting}={source!r}: by its {SECOND_ENCODER} this is Stable Diffusion XL, "
                f"{ANOTHER}"
            )
        return published

    @classmethod
    def at(cls, source: str, setting: str) -> "Published":
        """The files that `setting` names by their path; a ConfigError if there are none."""
        path = path_of(source)
        if not path.exists():
            raise ConfigError(f"{setting}={source!r}: there is no such file or folder")
        return cls(path, setting)

    def read(self, part: str, template: Any) -> Any:
        """The variables of a part, of the shapes of `template`; else a WeightsError."""
        found = read_part(self.source, part, template)
        for path in self.lora:
            found = with_lora(path, part, found)
        return found

    def json(self, *places: str) -> dict[str, Any]:
        """The first of these files that is in the folder, such as `vae/config.json`; {} if none.

        Raises:
            WeightsError: it cannot be read.
        """
        for place in places:
            path = self.source / place
            if self.source.is_dir() and path.is_file():
                try:
                    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise WeightsError(f"{path}: not readable as JSON ({error})") from error
                return found
        return {}

    def check_scheduler(self, schedule: Schedule, prediction: str) -> None:
        """Raises a ConfigError if the network was trained with another schedule or prediction."""
        settings = self.json(SCHEDULER)
        if not settings:
            return
        try:
            found = scheduler_configs.read(settings, f"{self.source}/{SCHEDULER}")
        except ValueError as error:
            raise ConfigError(f"{self.setting}: {error}") from error
        for key, ours, theirs in (
            ("schedule", schedule, found.schedule),
            ("objective.prediction", prediction, found.prediction),
        ):
            if ours != theirs:
                raise ConfigError(
                    f"{self.setting}={str(self.source)!r}: by its {SCHEDULER} the network was "
                    f"trained with {theirs}: {key} is {ours}"
                )

    def check_scale(self, scale: float) -> None:
        """Raises a ConfigError if the autoencoder's latents have another scale."""
        theirs = self.json(*OF_AUTOENCODER).get("scaling_factor", SCALE)
        if theirs != scale:
            raise ConfigError(
                f"{self.setting}={str(self.source)!r}: the latents of its autoencoder are scaled "
                f"by {theirs}: codec.autoencoder.scale={scale} is another one's"
            )

    def autoencoder(self) -> AutoencoderConfig:
        """The autoencoder of the folder, by its `config.json`.

        Raises:
            ConfigError: there is none, or not of our kind.
        """
        settings = self.json(*OF_AUTOENCODER)
        if not settings.get("block_out_channels"):
            raise ConfigError(
                f"{self.setting}={str(self.source)!r}: there is no {OF_AUTOENCODER[0]}, which "
                "a run with objective.name='autoencoder' writes when its training ends"
            )
        try:
            return autoencoder_configs.read(settings, f"{self.source}/{OF_AUTOENCODER[0]}")
        except ValueError as error:
            raise ConfigError(f"{self.setting}: {error}") from error


NETWORKS: dict[str, Callable[[Published, Any, Sequence[int]], Any]] = {
    "unet": lambda published, template, sizes: published.read("unet", template),
    "dit": lambda published, template, sizes: read_dit(published.source, template, sizes),
}
"""By `model.name`: reads the variables of a published network, of the shapes of a template and for
`x_t` of these sizes."""


def network_digests(config: Config) -> dict[str, str]:
    """SHA-256 of the files of `weights.source`, by part, and of those beside; {} if not set."""
    if not (source := weights_source(config)):
        return {}
    path = path_of(source)
    found = {"dit": sha256(path)} if config.model.name == "dit" else digests(path)
    for name in ("lora", "embeddings"):
        found |= {f"{name} {file.name}": sha256(file) for file in files_beside(config, name)}
    return found


def network_params(
    config: Config, shapes: Any, sizes: Sequence[int], sharding: Sharding | None = None
) -> Params:
    """The network's published weights, in place of initial parameters with these shapes.

    With a `sharding` each is put there when it is read, so that the host never has them all.

    `sizes` are the axes of `x_t` between batch and channels.

    Raises:
        ConfigError: `weights.source` names none, or none for this network.
        WeightsError: its tensors are not those of the network.
    """
    shapes = jax.tree.map(lambda a: a.update(sharding=sharding), shapes)
    read = lookup(
        NETWORKS, config.model.name, "weights.source is for networks that are published: model.name"
    )
    published = Published.of(config, "model.name")
    published.check_scheduler(make_schedule(config), config.objective.prediction)
    params: Params = read(published, {"params": shapes}, sizes)["params"]
    return params
