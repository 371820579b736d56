"""The endless stream of training batches of a data set."""

import functools
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

import grain
import numpy as np
from absl import flags

from diffusion_jax.data.captions import DRAW_BITS
from diffusion_jax.data.dataset import Dataset, Split
from diffusion_jax.data.errors import DataError
from diffusion_jax.data.kind import Kind
from diffusion_jax.system.arguments import checked
from diffusion_jax.system.signals import SIGNALS
from diffusion_jax.types import Embed


@functools.lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order, coin flips and random numbers of one epoch, a pure function of the arguments.

    Raw Philox bits are used because NumPy guarantees them, unlike its `permutation`.

    Returns:
        A permutation of `size` indices; for each position in it a fair bool, and an independent
        uniform uint64 below 2**32, from other bits of the same word.
    """
    bits = np.random.Philox(np.random.SeedSequence((seed, epoch))).random_raw(2 * size)
    words = bits[size:]
    draws = words & np.uint64(2**DRAW_BITS - 1)
    return np.argsort(bits[:size], kind="stable"), words >> 63 == 1, draws


@dataclass(frozen=True)
class _Batches:
    """Random access to the endless stream of training batches of one process.

    All epochs are concatenated to one sequence of items, split into global batches; each process
    has its own slice of every global batch. So a batch depends on its index alone, and the global
    batch does not depend on the number of processes.
    """

    split: Split
    kind: Kind
    num_classes: int
    batch_size: int
    seed: int
    flip: bool
    process_index: int
    process_count: int
    embed: Embed | None

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, Any]:
        start = (index * self.process_count + self.process_index) * self.batch_size
        indices, coins, draws = self.places(start, start + self.batch_size)
        items, labels = self.split.gather(indices, draws)
        mirrored = self.split.mirrored
        if self.flip and mirrored is None:
            items = self.kind.mirrored(items, coins)
        elif self.flip and mirrored is not None:
            items[coins], _ = mirrored.gather(indices[coins], draws[coins])
        cond: dict[str, Any] = {"label": labels} if self.num_classes else {}
        if self.embed and self.split.captions is not None:
            cond |= self.embed(self.split.captions.draw(indices, draws))
        return {"x": items, "cond": cond}

    def places(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Indices, flips and random numbers of the items `start` to `stop` of the stream."""
        size = len(self.split)
        parts = []
        for epoch in range(start // size, (stop - 1) // size + 1):
            part = slice(max(start - epoch * size, 0), stop - epoch * size)
            parts.append([values[part] for values in epoch_order(self.seed, epoch, size)])
        indices, flips, draws = (np.concatenate(values) for values in zip(*parts, strict=True))
        return indices, flips, draws


class _BatchIterator(grain.DatasetIterator):
    """Iterates over `_Batches` with prefetch; its state is the index of the next batch.

    Grain's own state depends on the number of workers. As a batch is a function of its index,
    this state is exact for any number of workers; prefetched batches are discarded.
    """

    def __init__(self, batches: _Batches, read: grain.ReadOptions, num_workers: int):
        super().__init__()
        self._batches, self._read, self._num_workers = batches, read, num_workers
        self._next_index = 0
        self._inner: grain.DatasetIterator | None = None

    def __next__(self) -> dict[str, Any]:
        try:
            batch = self._next()
        except (RuntimeError, BrokenPipeError) as error:
            pipe = self._num_workers and isinstance(error, BrokenPipeError)  # to its tracker
            if not pipe and "Worker process was terminated" not in str(error):
                raise
            raise DataError(
                "a worker process that reads data (data.num_workers) was killed, as happens when "
                "memory runs out"
            ) from error
        self._next_index += 1
        return batch

    def _next(self) -> dict[str, Any]:
        if self._inner is not None:
            return next(self._inner)
        rest = grain.MapDataset.source(self._batches)[self._next_index :]
        stream = rest.to_iter_dataset(self._read)
        if not self._num_workers:
            self._inner = iter(stream)
            return next(self._inner)
        if not flags.FLAGS.is_parsed():  # Grain reads its flags to start workers
            flags.FLAGS.mark_as_parsed()
        # For shared memory that Python frees at exit, such as the current batch.
        sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
        workers = grain.MultiprocessingOptions(self._num_workers)
        self._inner = iter(stream.mp_prefetch(workers, _end_with_main))
        # Workers start with the first batch and inherit the thread's blocked signals: a Ctrl-C or a
        # scheduler's signal must not end them while the main process saves.
        with ThreadPoolExecutor(1, initializer=_hear_no_signal) as thread:
            return thread.submit(next, self._inner).result()

    def describe(self, index: int) -> str:
        """The items of global batch number `index`, in words."""
        size = self._batches.batch_size * self._batches.process_count
        rows, *_ = self._batches.places(index * size, (index + 1) * size)
        named = ", ".join(map(str, rows[:5])) + (", ..." if size > 5 else "")
        epoch = index * size // len(self._batches.split)
        return f"batch {index} (training {self._batches.kind.noun} {named}; epoch {epoch})"

    def get_state(self) -> dict[str, int]:
        """The index of the next batch; can be written as JSON."""
        return {"next_index": self._next_index}

    def set_state(self, state: dict[str, int]) -> None:
        """Resumes from a state of `get_state`."""
        self._stop()
        self._next_index = int(state["next_index"])

    def close(self) -> None:
        """Ends the threads and processes that prefetch."""
        self._stop()
        super().close()

    def _stop(self) -> None:
        if self._inner is not None:
            self._inner.close()
            self._inner = None


def _hear_no_signal() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    resource_tracker.ensure_running()  # which unblocks some of them
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _end_with_main(worker: int, workers: int) -> None:
    """Ends a worker when the main process has ended, for whatever reason."""

    def watch() -> None:
        main = multiprocessing.parent_process()
        assert main is not None  # in a worker
        multiprocessing.connection.wait([main.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@checked(
    **{"batch_size": "[1, inf)", "seed": "[0, inf)", "process_index": "[0, process_count)"},
    **dict.fromkeys(("num_workers", "prefetch"), "[0, inf)"),
)
def train_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    flip: bool = False,
    num_workers: int = 0,
    prefetch: int = 4,
    embed: Embed | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless training batches; each epoch has every item once, in a new random order.

    Args:
        dataset: from `load_dataset`.
        batch_size: items per batch of this process.
        seed: of the orders and flips, 0 or more. The same for all processes.
        flip: mirror each image left to right with probability 1/2.
        num_workers: processes that decode images; for sets in memory none are started.
        prefetch: batches made ahead, for sets on disk by as many threads; 0 makes each on demand.
        embed: turns caption numbers int32 [B], a random one for each item, into arrays [B, ...] for
            `cond`; it must be picklable for worker processes. The random text depends only on
            seed, epoch and position.
        process_index: of this process, below `process_count`.
        process_count: processes that share the data; in an epoch no two have the same item.

    Returns:
        An iterator of `{'x': float32 [B, *shape], 'cond': {'label': int32 [B]}}`, without `label`
        for sets without classes, and with the output of `embed` in `cond`. Its `get_state()` is
        `{'next_index': int}`.

    Raises:
        ValueError: a number is out of range.
        DataError: `embed` for a set without captions, or `flip` for items that are not images.
    """
    split = dataset.splits["train"]
    if embed and split.captions is None:
        raise DataError(
            f"data.name='{dataset.name}' has no captions, which a text input of the network needs."
        )
    if flip and split.mirrored is None:
        dataset.kind.mirrored(np.empty((0, *dataset.kind.shape)), np.empty(0, bool))
    resident = split.source.resident
    threads = min(prefetch, 1 if resident else (os.cpu_count() or 1))
    read = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    share, classes = (process_index, process_count), dataset.num_classes
    batches = _Batches(split, dataset.kind, classes, batch_size, seed, flip, *share, embed)
    return _BatchIterator(batches, read, 0 if resident else num_workers)
