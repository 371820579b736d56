"""The trained network that `restore.mask.detector` names."""

from collections.abc import Callable

import numpy as np

from diffusion_jax.from_config import Config, ConfigError
from diffusion_jax.from_config.identity import folder_and_step
from diffusion_jax.from_config.restoration import DECAY, JOINT, Seen
from diffusion_jax.restoration.detector import Detector, lost, without
from diffusion_jax.run.trained import open_run


def open_detector(config: Config, channels: int) -> Callable[[Seen], Seen]:
    """Takes the pixels from a picture of so many `channels` that the detector finds destroyed.

    It changes nothing without a detector, or with an operator that has no mask.

    Raises:
        ConfigError: there is no such run, or it is for other pictures.
    """
    settings = config.restore.mask
    if not settings.detector or not {"mask", DECAY} & {*config.restore.operator.split(JOINT)}:
        return lambda seen: seen
    what = f"restore.mask.detector={settings.detector!r}"
    folder, step = folder_and_step(settings.detector, "restore.mask.detector")
    model = open_run(folder, step=step, what=what)
    task, kind = model.run.parts.task, model.run.parts.dataset.kind
    assert task.damage is not None  # by `check_restoration`
    if kind.shape[-1] != channels:
        raise ConfigError(
            f"{what} is for {kind.words}, and the network that restores for {channels} channel(s)"
        )
    detector = Detector(task.damage, model.params, kind.shape[0])

    def masked(seen: Seen) -> Seen:
        probability = detector(np.asarray(seen.observation.y[0]))
        found = lost(probability, settings.threshold, settings.dilate)
        return seen._replace(observation=without(seen.observation, found))

    return masked
