"""The stage that restores pictures and recordings."""

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.codecs.codec import Identity
from diffusion_jax.data import DataError, Kind
from diffusion_jax.from_config import ConfigError
from diffusion_jax.from_config.restoration import (
    Seen,
    make_method,
    make_restoration,
    observe,
    requested,
    within,
)
from diffusion_jax.generation.generator import Generator, Request
from diffusion_jax.restoration.posterior_mean import Conditioned
from diffusion_jax.restoration.projections import with_known
from diffusion_jax.run.blind import described, estimated, values_of, with_estimate
from diffusion_jax.run.detector import open_detector
from diffusion_jax.run.restored import Restored, save
from diffusion_jax.run.trained import Run, Trained
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import path_of
from diffusion_jax.system.texts import shown
from diffusion_jax.types import Array, Params

PROBES = 5
"""Times at which the residual of linear systems is computed."""


def restore(run: Run) -> None:
    """Restores the file `restore.image`, or each of a folder: into `samples/restored/NAME`.

    Writes `restore.num_samples` samples, their mean and a sheet of all of them; of pictures their
    spread, and of recordings a page to listen to.
    """
    settings, kind = run.config.restore, run.parts.dataset.kind
    files = _files(settings.image, kind)
    model = run.trained()
    masked = open_detector(run.config, kind.shape[-1])
    folder = run.workdir / "samples" / "restored"
    done = 0
    for path in files:
        try:
            seen = masked(observe(run.config, kind, path))
        except DataError as error:
            if len(files) == 1:
                raise
            print(f"warning: skipped: {error}", file=sys.stderr)
            continue
        about: dict[str, Any] = {}
        if settings.blind.rounds:
            estimate = estimated(model, seen)
            seen, about = with_estimate(seen, estimate), values_of(estimate)
            if is_main():
                print(f"{shown(path)}: {described(estimate)}")
        found = restored(model, seen)
        done += 1
        if is_main():
            save(model, folder / path.name, path, seen, found, about)
    if not done:
        raise DataError(f"restore.image={settings.image!r}: none of its {kind.noun} can be read")


def restored(model: Trained, seen: Seen) -> Restored:
    """Samples from the posterior of one picture or recording.

    Raises:
        SamplingError: some are not finite.
    """
    config, own = model.run.config, model.run.parts.dataset.kind.shape
    num = config.restore.num_samples
    index = config.sample.first_index + np.arange(num)
    # An item smaller than the network's is a part of one that is not.
    whole = *map(max, seen.shape[:-1], own[:-1]), own[-1]
    each = jax.tree.map(lambda array: np.repeat(np.asarray(array), num, 0), seen.observation)
    # As many entries at once as in other samples.
    size = config.sample.batch_size * np.prod(own) // np.prod(whole)
    generator = make_restoration(config, model.draws, whole)
    request = model.request(index, model.run.conditions.explicit(index))
    request = requested(config, generator, request, within(each, seen.shape, whole))
    job = model.params, config.sample.seed, request
    weights = np.full(num, 1 / num)
    if make_method(config).particles > 1:
        x, _, particles = generator.with_state(*job, batch_size=num)
        weights = np.exp(particles.log_weights)
    else:
        every = max(len(generator.times) // PROBES, 1)
        x, states = generator(*job, batch_size=max(int(size), 1), keep_every=every)
        if states is not None and isinstance(generator.codec, Identity):  # states are decoded
            _report_residual(generator, model.params, request, states[:-1], every)
    model.encoded(x, index)  # raises if they are not finite
    x = x[:, *map(slice, seen.shape[:-1])]
    x = np.asarray(with_known(np.clip(x, -1, 1), each))
    mean = np.tensordot(weights, x, 1)
    return Restored(x, weights, mean, np.sqrt(np.tensordot(weights, (x - mean) ** 2, 1)))


def _report_residual(
    generator: Generator, params: Params, request: Request, states: np.ndarray, every: int
) -> None:
    """Prints how well the linear systems of a method were solved, if it has any.

    For the first sample at `states` `[P, K, H, W, C]`, those of every `every`-th time.
    """

    @jax.jit
    def residual(params: Params, request: Request, x_t: Array, t: Array) -> Array | None:
        denoise = generator.guidance.guide(generator.denoiser(params), request, generator.times)
        if not isinstance(denoise, Conditioned):
            return None
        return denoise.residual(x_t, t[None], request.cond)[0]

    first = request._replace(
        **jax.tree.map(
            lambda array: np.asarray(array)[:1],
            {"index": request.index, "cond": request.cond, "given": request.given},
        )
    )
    times = generator.times[::every][: len(states)]
    found = [residual(params, first, x[:1], t) for x, t in zip(states, times, strict=True)]
    if is_main() and found and found[0] is not None and max(found) > 0:  # 0 is exact
        print(f"linear systems were solved to a relative residual of at most {max(found):.1e}")


def _files(image: str, kind: Kind) -> list[Path]:
    """The files to restore."""
    path = path_of(image)
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.lower().endswith(kind.suffixes))
    if not found:
        raise ConfigError(f"restore.image={shown(path)}: there are no {kind.noun} in this folder")
    return found
