"""Several processes form one run, through `jax.distributed` on loopback."""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from diffusion_jax import from_config, run
from diffusion_jax.system import processes
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.parallel import Replicated, Sharded
from tests.forked import Forked
from tests.runs import final_state, random_dataset, tiny

pytestmark = pytest.mark.slow

SETTINGS = {"train.steps": 8}
SECONDS = 1.5  # a step of processes that are to be stopped; JAX looks for signals every second


def config(**changes: object) -> from_config.Config:
    return tiny(**SETTINGS, **changes)


def child(number: int, count: int, port: int, workdir: Path, strategy: str, slow: bool) -> None:
    """What each process does."""
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    jax.config.update("jax_compilation_cache_dir", str(workdir.parent / "cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    run.command.enable_compilation_cache = lambda: None
    from_config.data.load_dataset = lambda *a, **k: random_dataset()
    if slow:
        for layout in (Replicated, Sharded):

            def split(self, batch, plain=layout.split):
                time.sleep(SECONDS)
                return plain(self, batch)

            layout.split = split
    settings = {"parallel.strategy": strategy, "parallel.fsdp": 2}
    with processes.joined(f"localhost:{port}", count, number):
        sys.exit(run.run(config(**settings), workdir, "train"))


def start(count: int, workdir: Path, strategy: str, slow: bool) -> list[Forked]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    return [
        Forked(workdir / f"{number}.log", child, number, count, port, workdir, strategy, slow)
        for number in range(count)
    ]


def test_killed_and_started_again_they_train_the_network_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Four over a mesh, of which one is killed; two with pmap, stopped by SIGTERM; then one.

    And four to the end.
    """
    folder = tmp_path / "run"
    folder.mkdir()
    four = start(4, folder, "sharded", slow=True)
    saved = Checkpoints(folder / "checkpoints")
    while not saved.steps():
        assert all(p.poll() is None for p in four), (folder / "0.log").read_text()
        time.sleep(0.1)
    four[2].send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert [p.wait() for p in four] == [processes.LOST] * 2 + [-signal.SIGKILL, processes.LOST]
    assert time.monotonic() - began < 60
    assert "process 2 is gone; all end" in (folder / "0.log").read_text()
    assert saved.steps() == [3]

    two = start(2, folder, "replicated", slow=True)
    while "\nstep 4/8" not in (folder / "0.log").read_text():
        assert all(p.poll() is None for p in two), (folder / "0.log").read_text()
        time.sleep(0.1)
    two[1].send_signal(signal.SIGTERM)
    assert [p.wait() for p in two] == [128 + signal.SIGTERM] * 2, (folder / "0.log").read_text()
    stopped = max(saved.steps())

    assert "step" not in (folder / "1.log").read_text()  # one speaks

    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: random_dataset())
    assert run.run(config(), folder, "train") == 0
    assert f"going on from step {stopped}" in capsys.readouterr().out
    undisturbed = tmp_path / "four"
    undisturbed.mkdir()
    assert [p.wait() for p in start(4, undisturbed, "sharded", slow=False)] == [0] * 4
    assert run.run(config(), tmp_path / "one", "train") == 0
    one = final_state(config(), tmp_path / "one")
    for several in (folder, undisturbed):
        for a, b in zip(final_state(config(), several), one, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_whose_cluster_it_is() -> None:
    assert not processes.in_a_cluster({})
    assert not processes.in_a_cluster({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "a"})
    assert processes.in_a_cluster({"SLURM_STEP_NUM_TASKS": "8"})
    assert processes.in_a_cluster({"OMPI_COMM_WORLD_SIZE": "2"})
    assert processes.in_a_cluster({"TPU_WORKER_HOSTNAMES": "a,b"})


def test_flags_that_belong_together() -> None:
    with (
        pytest.raises(processes.ProcessesError, match="must be given together"),
        processes.joined(num_processes=2),
    ):
        pass
