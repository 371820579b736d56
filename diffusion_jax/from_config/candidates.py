"""The second law of texts of a config, by which candidates are chosen (EDLM)."""

import dataclasses
import functools
from collections.abc import Callable

from diffusion_jax.data import Dataset, Record
from diffusion_jax.evaluation.token_bits import masked
from diffusion_jax.from_config.choices import Config, ConfigError
from diffusion_jax.from_config.identity import Identity, config_hash, folder_and_step, read_config
from diffusion_jax.from_config.token_families import FAMILIES
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.objectives.token_losses import log_likelihood
from diffusion_jax.samplers.candidates import resampled
from diffusion_jax.system.files import path_of
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.types import Array, Sampler

KEY = "sample.candidates"
LAW = "law"
"""The name of the second network's parameters in a request."""
ORDERS = "random", "left_to_right"
"""Orders of `by_count` that do not look at the prediction, which is certain of the chosen text."""


def candidates_of(config: Config) -> int:
    """The number of candidates of a step; 1 if none are chosen from. Older runs have no choice."""
    num: int = config.sample.get("candidates", {}).get("num", 0)
    return max(num, 1)


def check(config: Config) -> None:
    """Raises a ConfigError if there can be no candidates, or no such second law."""
    num, sample = candidates_of(config), config.sample
    if num == 1:
        return
    what, name = f"{KEY}.num={num}", config.objective.name
    if name != "masked":
        raise ConfigError(f"{what} needs objective.name='masked', not {name!r}")
    if size := sample.get("particles", {}).get("size"):
        raise ConfigError(
            f"{what} cannot be combined with sample.particles.size={size}, which weighs tokens by "
            "the network's own law"
        )
    order = sample.by_count.order
    if sample.sampler == "by_count" and order not in ORDERS:
        raise ConfigError(
            f"{what} needs sample.by_count.order={' or '.join(map(repr, ORDERS))}, not {order!r}: "
            "of a candidate all tokens are equally certain"
        )
    if not sample.candidates.law:
        raise ConfigError(
            f"{what} needs {KEY}.law, the folder of a run of objective.name='autoregressive' on "
            "the same data"
        )
    folder, _, what = law_of(config)
    theirs = read_config(path_of(folder), what).objective.name
    if theirs not in FAMILIES or not FAMILIES[theirs].ordered:
        raise ConfigError(f"{what} must be of objective.name='autoregressive', not {theirs!r}")


def check_law(config: Config, dataset: Dataset) -> None:
    """Raises a ConfigError if the second law is not of these data."""
    if candidates_of(config) == 1:
        return
    folder, _, what = law_of(config)
    identity = Identity.read(path_of(folder))
    if identity is None:
        raise ConfigError(f"{what}: there is no record of the data that it was trained on")
    if identity.data.fingerprint == dataset.fingerprint:
        return  # without loading data
    if changes := identity.data.changes(Record.of(dataset)):
        raise ConfigError(
            f"{what}: the data are not those that it was trained on: {'; '.join(changes)}"
        )


def law_of(config: Config) -> tuple[str, int, str]:
    """Folder and step of the second law, and the setting in words."""
    words = config.sample.candidates.law
    return *folder_and_step(words, f"{KEY}.law"), f"{KEY}.law={words!r}"


def described(config: Config) -> dict[str, str]:
    """The field of passports on candidates; none if there are none."""
    if candidates_of(config) == 1:
        return {}
    folder, step, what = law_of(config)
    if step < 0:
        step = Checkpoints(path_of(folder) / "checkpoints").latest() or 0
    law = config_hash(read_config(path_of(folder), what))
    return {"candidates": f"{candidates_of(config)} by {folder}, {law} at step {step}"}


def with_candidates(generator: Generator, apply: Callable[..., Array], num: int) -> Generator:
    """The generator whose steps choose one of `num` texts by a second law.

    It is that of the autoregressive network `apply`, `(params, x, t, cond) -> logits`, with the
    parameters `LAW` of a request, given the request's conditioning.
    """
    own, process = generator.guidance, masked(generator.process)

    def sampler(configured: Sampler, request: Request) -> Sampler:
        network = functools.partial(apply, request.frozen[LAW])
        law = lambda texts: log_likelihood(network, texts, request.cond)  # noqa: E731
        return resampled(process, own.sampler(configured, request), law, num)

    guidance = own._replace(needs=(*own.needs, LAW), sampler=sampler)
    return dataclasses.replace(generator, guidance=guidance)
