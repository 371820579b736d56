"""Writers of metrics: `metrics.jsonl`, and TensorBoard (by clu) if TensorFlow is installed."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.system.devices import is_main
from diffusion_jax.system.files import appending, in_store
from diffusion_jax.training.each import Each


class NoWriter:
    """A `MetricWriter` that writes nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *args, **kwargs: None


class JsonlWriter(NoWriter):
    """Writes one line of JSON for every `write_scalars`, and no images."""

    def __init__(self, path: Path) -> None:
        self._file = appending(path)

    def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
        """Writes `{"step", "time", ...scalars}`."""
        values = {name: float(value) for name, value in scalars.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), **values}) + "\n")

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class OSErrorWriter:
    """A writer whose failures are raised as OSErrors, like those of other files."""

    def __init__(self, writer: Any, failure: type[Exception]) -> None:
        self._writer, self._failure = writer, failure

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._writer, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except self._failure as error:
                line = str(error).partition("\n")[0].rpartition("}} ")[2]  # without the operation
                raise OSError(f"TensorBoard's events: {line}") from error

        return call


def hide_accelerators_from_tensorflow() -> bool:
    """Imports TensorFlow for the CPU only; returns False if it is not installed."""
    try:
        with silent_stderr():  # it prints CPU features there at every log level
            import tensorflow as tf
            from clu import metric_writers  # noqa: F401
    except ImportError:
        return False
    for kind in ("GPU", "TPU"):
        tf.config.set_visible_devices([], kind)
    return True


@contextlib.contextmanager
def silent_stderr() -> Iterator[None]:
    """Drops all output to the file descriptor of stderr, including that of compiled code."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def make_writer(
    workdir: Path,
    say: Callable[[str], None],
    others: Sequence[Callable[[], Any]] = (),
) -> Any:
    """A clu `MetricWriter` to `metrics.jsonl`, to TensorBoard if possible, and to `others`.

    Only the main process writes, and makes the others.
    """
    has_tensorflow = hide_accelerators_from_tensorflow()  # in all processes, if it is imported
    if not is_main():
        return NoWriter()
    writers = [make() for make in others]
    writers.append(JsonlWriter(workdir / "metrics.jsonl"))
    why = "" if has_tensorflow else "TensorFlow is not installed"
    if in_store(workdir):
        why = "the workdir is in an object store"
    if why:
        say(f"{why}: metrics go to metrics.jsonl only, not to TensorBoard")
        return Each(writers)
    from clu import metric_writers
    from tensorflow import errors

    events = metric_writers.SummaryWriter(str(workdir))
    return Each([*writers, OSErrorWriter(events, errors.OpError)])
