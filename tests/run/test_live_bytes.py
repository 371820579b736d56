"""Bytes of all arrays on eight devices in a training with checkpoints, held-out loss and grids."""

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.system.progress import Stage
from diffusion_jax.training import parallel
from diffusion_jax.training.checkpoint import Checkpoints
from tests.runs import random_dataset, tiny, with_eight_devices

LAYOUTS = {"replicated": {}, "sharded": {"parallel.strategy": "sharded", "parallel.fsdp": 4}}
NETWORK = {"model.dit.hidden_size": 192, "model.dit.depth": 2, "train.steps": 4}
STAGES = {"train.checkpoint_every": 2, "train.heldout_every": 2, "train.sample_every": 2}


def bytes_of(arrays: Any) -> int:
    """Bytes on all devices; what several arrays share counts once."""
    found: dict[int, int] = {}
    for array in arrays:
        with contextlib.suppress(RuntimeError):  # it was deleted since
            for data in [shard.data for shard in array.addressable_shards]:
                found[data.unsafe_buffer_pointer()] = data.nbytes
    return sum(found.values())


class Watched:
    """The most that was live after each call of a method, and while it ran."""

    def __init__(self, method: Callable[..., Any]) -> None:
        self._method, self.most = method, 0

    def measure(self) -> None:
        self.most = max(self.most, bytes_of(jax.live_arrays()))

    def called(self, *args: Any, **options: Any) -> Any:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1e-3):
                self.measure()

        threading.Thread(target=watch, daemon=True).start()
        try:
            return self._method(*args, **options)
        finally:
            ended.set()
            self.measure()


def stages(out: str) -> None:
    """The bytes of the state, and the most that was live while it was saved and in actions."""
    from_config.data.load_dataset = lambda *a, **k: random_dataset()
    parallel.as_it_is = lambda tree, _: tree  # as on accelerators
    save, advance = Watched(Checkpoints.save), Watched(Stage.advance)
    state: list[int] = []

    def saved(checkpoints: Checkpoints, step: int, tree: Any, *args: Any) -> None:
        save.called(checkpoints, step, tree, *args)
        checkpoints.wait()  # what was read is the arrays themselves, on a CPU
        state.append(bytes_of(jax.tree.leaves(tree)))

    Checkpoints.save = saved
    Stage.advance = lambda *a, **k: advance.called(*a, **k)
    found: dict[str, list[int]] = {}
    for name, layout in LAYOUTS.items():
        save.most = advance.most = 0
        run.run(tiny(**NETWORK, **STAGES, **layout), Path(out).parent / name, "train")
        found[name] = [state[-1], save.most, advance.most]
    np.savez(out, **found)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_no_stage_makes_a_second_copy_of_the_state(name: str, found: dict) -> None:
    state, *most = found[name]
    assert state > 8 * 4e6
    assert state <= min(most) <= max(most) < 1.01 * state, most


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    out = tmp_path_factory.mktemp("live") / "live.npz"
    return with_eight_devices("tests.run.test_live_bytes.stages", out)
