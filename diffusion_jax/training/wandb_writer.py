"""Optional writer of metrics and images to Weights & Biases."""

import json
import secrets
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from diffusion_jax.system.files import in_store, read_json, write_whole
from diffusion_jax.system.runtime import cache_dir
from diffusion_jax.training.writers import NoWriter

IDENTITY = "wandb.json"
SETTINGS = {
    "console": "off",  # it would capture stdout and stderr, including the bar
    "silent": True,
    "finish_timeout": 60,  # seconds to send the rest; no limit by default
}


class WandbWriter(NoWriter):
    """A `MetricWriter` to a run of Weights & Biases, whose failures do not end the training.

    Args:
        run: from `wandb.init`.
        image: makes its images from uint8 `[H, W, C]`.
    """

    def __init__(self, run: Any, image: Callable[[Any], Any]) -> None:
        self._run, self._image = run, image
        # Steps repeated after a kill are logged again, but W&B's own step can only increase.
        self._try(lambda run: run.define_metric("step"))
        self._try(lambda run: run.define_metric("*", step_metric="step"))

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        values = {name: float(value) for name, value in scalars.items()}
        self._try(lambda run: run.log({"step": step, **values}))

    def write_images(self, step: int, images: Mapping[str, Any]) -> None:
        """Logs the first of `[N, H, W, C]` of each name."""
        self._try(
            lambda run: run.log(
                {"step": step, **{name: self._image(x[0]) for name, x in images.items()}}
            )
        )

    def close(self) -> None:
        self._try(lambda run: run.finish())

    def _try(self, action: Callable[[Any], Any]) -> None:
        """Calls `action` with the run; the first failure prints a warning and ends the logging."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # any error of a remote service
            self._run = None
            _warn(error)


def wandb_writer(
    project: str, workdir: Path, config: Mapping[str, Any], say: Callable[[str], None]
) -> Any:
    """Begins a run of a project, or resumes that of `workdir`.

    Args:
        project: of Weights & Biases.
        workdir: folder of the run, which has its name; W&B's id is stored there.
        config: the settings.
        say: prints a line.

    Raises:
        ValueError: the package is not installed, or a new run could not be begun.
    """
    try:
        import wandb
    except ImportError as error:
        raise ValueError(f"wandb={project!r} needs its package: pip install wandb") from error
    path = workdir / IDENTITY
    known = read_json(path, lambda saved: str(saved["id"]), "another run of W&B is begun")
    try:
        run = wandb.init(
            project=project,
            id=known or secrets.token_hex(4),
            resume="allow",
            name=workdir.name,
            dir=cache_dir() if in_store(workdir) else workdir,
            config=dict(config),
            allow_val_change=True,  # settings may change between two commands
            reinit="create_new",  # a process may train several runs together
            settings=SETTINGS,
        )
    except Exception as error:  # no network, no key, or no such project
        if known:
            _warn(error)
            return NoWriter()
        line = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"wandb={project!r}: {line}. Log in by `wandb login`, or keep it on this disk by "
            "WANDB_MODE=offline"
        ) from error
    if not known:
        write_whole(path, (json.dumps({"id": run.id}) + "\n").encode())
    say(f"W&B: {run.url or f'`wandb sync {Path(run.dir).parent}` uploads it'}")
    return WandbWriter(run, wandb.Image)


def _warn(error: Exception) -> None:
    line = " ".join(str(error).split())
    print(f"warning: Weights & Biases: {line}; the training goes on without it", file=sys.stderr)
