"""Multi-process runs: how processes connect, and how all end when one is lost."""

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from diffusion_jax.system.runtime import tune_cpu_allocator
from diffusion_jax.system.signals import STATUSES

LOST = 75  # exit status if another process was lost: EX_TEMPFAIL, to be restarted
HEARTBEAT_SECONDS = 30  # time of silence after which JAX itself gives up a machine
CONNECT_SECONDS = 60
GRACE_SECONDS = 2
_GOODBYE = b"."


class ProcessesError(ValueError):
    """The processes cannot be connected."""


@contextlib.contextmanager
def joined(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    multihost: bool = False,
) -> Iterator[None]:
    """Connects the processes of a run; a no-op for a single process.

    From the arguments if given, else from the environment variables of SLURM, GKE or Open MPI. Only
    process 0 prints. If another process ends early, this one ends too, with a message and the
    status `LOST`.

    Args:
        coordinator: `host:port` of process 0, which listens there.
        num_processes: number of processes.
        process_id: number of this process, from 0.
        multihost: let JAX find out all this, as on the hosts of a TPU slice.

    Raises:
        ProcessesError: the arguments are incomplete, or the others were not found.
    """
    given = (coordinator, num_processes, process_id)
    if any(value is not None for value in given):
        if None in given:
            raise ProcessesError(
                "--coordinator, --num_processes and --process_id must be given together"
            )
        if not 0 <= (process_id or 0) < (num_processes or 0):
            raise ProcessesError(
                f"--process_id={process_id} must be in [0, num_processes) with "
                f"--num_processes={num_processes}"
            )
    elif not (multihost or in_a_cluster(os.environ)):
        yield
        return
    logging.set_verbosity(logging.WARNING)
    try:
        jax.distributed.initialize(*given, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ProcessesError(f"the processes could not be connected: {error}") from error
    tune_cpu_allocator()  # before JAX starts its threads
    if jax.process_count() == 1:
        yield
        return
    watch = _Watch()
    try:
        with contextlib.ExitStack() as stack:
            if watch.number:
                nowhere = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nowhere))
            yield
    except SystemExit as end:
        if end.code not in (None, *STATUSES):
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 1)  # without waiting for others
        watch.goodbye()
        raise
    except Exception:
        time.sleep(GRACE_SECONDS)  # if a process was lost, the watch ends this one meanwhile
        raise
    watch.goodbye()


def in_a_cluster(environment: Mapping[str, str]) -> bool:
    """Whether SLURM (`srun`), GKE or Open MPI started this process with others."""
    counts = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "")
    return "," in hosts or any(int(environment.get(name, 1)) > 1 for name in counts)


class _Watch:
    """A connection from every process to process 0, which breaks at once if one of them dies.

    JAX itself notices only after `HEARTBEAT_SECONDS`, with a stack trace; collectives hang until
    then.
    """

    def __init__(self) -> None:
        self.number, self._count = jax.process_index(), jax.process_count()
        self._ended = False
        self._peers: list[socket.socket] = []
        with socket.create_server(("", 0)) as server:
            mine = f"{_own_address()} {server.getsockname()[1]}".encode().ljust(64)
            told = multihost_utils.broadcast_one_to_all(np.frombuffer(mine, np.uint8))
            host, port = bytes(told).decode().split()
            try:
                self._connect(server, host, int(port))
            except OSError as error:
                print(
                    f"warning: process {self.number}: {error}; a lost process is noticed after "
                    f"{HEARTBEAT_SECONDS} s",
                    file=sys.stderr,
                )

    def _connect(self, server: socket.socket, host: str, port: int) -> None:
        if self.number:
            peer = socket.create_connection((host, port), CONNECT_SECONDS)
            peer.sendall(self.number.to_bytes(4, "big"))
            self._add(peer, 0)
            return
        server.settimeout(CONNECT_SECONDS)
        for _ in range(self._count - 1):
            peer, _ = server.accept()
            self._add(peer, int.from_bytes(peer.recv(4), "big"))

    def _add(self, peer: socket.socket, number: int) -> None:
        peer.settimeout(None)
        self._peers.append(peer)
        threading.Thread(target=self._listen, args=(peer, number), daemon=True).start()

    def _listen(self, peer: socket.socket, number: int) -> None:
        try:
            said = peer.recv(1)
        except OSError:
            said = b""
        if not said and not self._ended:
            self.lost(f"process {number} is gone")

    def lost(self, why: str) -> None:
        """Ends this process, and thereby all others, without waiting for any."""
        print(
            f"error: process {self.number} of {self._count}: {why}; all end. Start "
            "them again with the same commands to go on from the newest checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(LOST)

    def goodbye(self) -> None:
        """Announces that this process ends normally."""
        self._ended = True
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sendall(_GOODBYE)


def _own_address() -> str:
    """The address of this machine for others; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation: the default route
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
