"""Photographs whose damage nobody points out: a network given them, and masks that are found."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from configs import default
from diffusion_jax.restoration.detector import Detector, lost
from diffusion_jax.restoration.operators import Identity, Mask, Observation
from diffusion_jax.run import open_run
from experiments.restoration.calibration import of_trained
from experiments.restoration.photographs import (
    CONDITIONAL,
    DECAYED,
    DEFAULT,
    EVALUATIONS,
    FOUND,
    OTHERS,
    Case,
    Method,
    Ours,
)

TASKS = DECAYED, OTHERS
MASKLESS = DEFAULT, "scikit-image biharmonic"
"""Methods that are also given masks as they were found."""


def given_whole(case: Case) -> Case:
    """The decayed picture, and nothing about it."""
    given = Observation(jnp.asarray(case.picture), Identity(), jnp.zeros(len(case.x)))
    return case._replace(given=given)


def with_found_mask(detector: Callable[[np.ndarray], np.ndarray], case: Case) -> Case:
    """Without the pixels that a detector finds destroyed; the noise is as told."""
    settings = default.get_config().restore.mask
    assert case.picture is not None
    hidden = np.stack(
        [lost(detector(x), settings.threshold, settings.dilate) for x in case.picture]
    )
    known = jnp.asarray(~hidden[..., None], jnp.float32)
    given = dataclasses.replace(case.given, y=known * case.picture, operator=Mask(known))
    return case._replace(given=given)


def methods(
    conditional: str | None, detector: str | None, told: dict[str, Method], particles: int, few: int
) -> dict[str, Method]:
    """By name; with a found mask, some of those that are told the right one."""
    found: dict[str, Method] = {}
    if conditional:
        ours = Ours(of_trained(open_run(conditional)), particles, EVALUATIONS)
        found[CONDITIONAL] = Method(
            lambda case: ours.samples(CONDITIONAL, given_whole(case)), [{}], TASKS, few
        )
    if detector:
        trained = open_run(detector)
        run = trained.run.parts
        assert run.task.damage is not None
        find = Detector(run.task.damage, trained.params, run.dataset.kind.shape[0])
        for name in MASKLESS:
            method = told[name]
            run_found = functools.partial(_found, find, method.run)
            found[f"{name}, {FOUND}"] = method._replace(run=run_found, tasks=TASKS)
    return found


def _found(
    find: Callable[[np.ndarray], np.ndarray], run: Callable[..., np.ndarray], case: Case, **own: Any
) -> np.ndarray:
    return run(with_found_mask(find, case), **own)
