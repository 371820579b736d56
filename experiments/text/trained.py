"""Trains networks of texts by every objective at equal compute, and measures bits per character.

    PYTHONPATH=. python experiments/text/trained.py --study hidden_markov --steps 2000

Finished runs are not repeated, and interrupted ones go on. See trained.md.
"""

import argparse
import dataclasses
import functools
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from configs import hmm
from diffusion_jax.data import Dataset, Split, load_dataset
from diffusion_jax.data.sets.windows import TextWindows
from diffusion_jax.from_config import Config, build
from diffusion_jax.from_config.evaluators import Means, make_evaluators
from diffusion_jax.from_config.task import Task
from diffusion_jax.models.flops import count_flops
from diffusion_jax.run import Run, training
from diffusion_jax.run.evaluation import model_of
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import cache_dir, enable_compilation_cache, tune_cpu_allocator
from diffusion_jax.types import Context
from experiments.text.baselines import best_order, compressors
from experiments.text.kneser_ney import KneserNey
from experiments.text.trained_report import (
    ABOUT,
    BASELINES,
    FIRST,
    NATS,
    SOURCE,
    report,
    summary,
)

HERE = Path(__file__).parent
RESULTS = "trained.json"
OBJECTIVES: dict[str, dict[str, Any]] = {
    FIRST: {},
    "autoregressive": {"sample.sampler": "left_to_right"},
    "block": {},
    "replaced": {"sample.sampler": "replacement"},
    "masked_by_token": {"sample.unmasking.cached": False},
}
"""Settings by `objective.name`; at equal compute the others have other numbers of steps."""
STRETCHES, STRETCH = 32, 4096
"""Number and characters of the stretches of training text that are seen many times."""


def language(data: Config) -> Dataset:
    """The small language of known entropy."""
    return load_dataset("hmm", length=data.length)


def addresses(data: Config) -> Dataset:
    """The addresses of the presidents, without their eras."""
    names = "manual_dir", "length", "tokenizer", "vocabulary"
    found = load_dataset("sotu", **{name: data[name] for name in names})
    return dataclasses.replace(found, class_names=())


def few_addresses(data: Config) -> Dataset:
    """The same with stretches of the training text only, and all that is held out."""
    found = addresses(data)
    source: Any = found.splits["train"].source
    begins = np.linspace(0, len(source.tokens) - STRETCH, STRETCHES).astype(int)
    texts = {str(begin): source.tokens[begin : begin + STRETCH] for begin in begins}
    some = TextWindows.of(texts, dict.fromkeys(texts, 0), data.length, fixed=False)
    splits = {**found.splits, "train": Split(some)}
    fingerprint = f"{found.fingerprint} {STRETCHES}x{STRETCH}"
    return dataclasses.replace(found, splits=splits, fingerprint=fingerprint)


class Study(NamedTuple):
    """Data, and how networks are trained on them."""

    data: Callable[[Config], Dataset]
    settings: Mapping[str, Any]
    points: int  # checkpoints that are measured, evenly in steps


SOTU = {"data.name": "sotu", "data.length": 64}
PIECES = {
    **{"data.tokenizer": "bpe", "data.vocabulary": 2048},
    **{"model.dit.hidden_size": 192, "model.dit.depth": 4},
}
STUDIES = {
    "hidden_markov": Study(language, {"data.length": 64}, points=4),
    "equal_compute": Study(addresses, SOTU, points=2),
    "many_epochs": Study(few_addresses, SOTU, points=4),
    "pieces": Study(addresses, {**SOTU, **PIECES}, points=2),
}
"""By name; the network and its training are those of configs/hmm.py, of pieces with more width."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A study as it was asked for, and the folder of its runs."""

    study: str
    steps: int  # of the objective `FIRST`
    manual_dir: str
    workdir: Path
    changes: Mapping[str, Any]  # of settings

    @property
    def folder(self) -> Path:
        return self.workdir / self.study

    @functools.cached_property
    def dataset(self) -> Dataset:
        return STUDIES[self.study].data(self.config(FIRST, 0, 1).data)

    def config(self, objective: str, seed: int, steps: int) -> Config:
        """Of a run with so many steps."""
        config = hmm.get_config()
        study = STUDIES[self.study]
        config.update_from_flattened_dict(
            {
                **{"train.sample_every": 0, "train.heldout_every": 0, "sample.labels": "none"},
                **{"evaluate.metrics": "bits", "evaluate.bits.levels": 16},
                **{"data.manual_dir": self.manual_dir, **study.settings, **self.changes},
                **{"objective.name": objective, "seed": seed, "train.steps": steps},
                **OBJECTIVES[objective],
            }
        )
        if objective == "autoregressive":
            config.sample.steps = config.data.length
        config.train.checkpoint_every = steps // study.points
        config.train.keep_checkpoints = study.points
        return config

    def steps_of(self, objective: str) -> int:
        """Steps that cost as much as `steps` of `FIRST`: a multiple of the study's points."""
        first, own = (
            step_flops(build(self.config(name, 0, 100), self.dataset).task, self.batch_size)
            for name in (FIRST, objective)
        )
        points = STUDIES[self.study].points
        return max(round(self.steps * first / own / points), 1) * points

    @functools.cached_property
    def windows(self) -> np.ndarray:
        """Held-out windows that are measured, int32 `[N, L]`."""
        settings, source = self.config(FIRST, 0, 1).evaluate, self.dataset.splits["heldout"].source
        rows = np.random.default_rng(settings.seed).permutation(len(source))
        return source.gather(rows[: settings.bits.num_texts])[0]

    @property
    def batch_size(self) -> int:
        return int(self.config(FIRST, 0, 1).train.batch_size)


def step_flops(task: Task, batch_size: int) -> int:
    """Floating-point operations in the products of a training step, forwards and backwards."""
    x = jnp.zeros((batch_size, *task.inputs[0].shape[1:]), jnp.int32)
    batch = {"x": x, "cond": {}, "index": jnp.arange(batch_size)}
    context = Context(make_key(0), jnp.zeros((), jnp.int32), {}, {})
    loss = lambda params: jnp.mean(task.loss(params, batch, context)[0])  # noqa: E731
    return count_flops(jax.grad(loss), jax.eval_shape(task.init, make_key(0)))


def measured(job: Job, objective: str, seed: int) -> None:
    """Trains one run, and measures the held-out windows at its checkpoints."""
    study = STUDIES[job.study]
    config = job.config(objective, seed, job.steps_of(objective))
    run = Run(config, job.folder / f"{objective}_{seed}", build(config, job.dataset))
    started = time.monotonic()
    if signal := training.train(run):
        raise SystemExit(128 + signal)
    seconds = time.monotonic() - started
    bits: Any
    (bits,) = make_evaluators(config, Means(job.dataset, run.parts.task, None, cache_dir(), print))
    steps = [config.train.checkpoint_every * (i + 1) for i in range(study.points)]
    nats = []
    for step in steps:
        state, _ = run.checkpoints.restore(run.abstract_state(), step)
        x, found = bits.nats(model_of(run.trained(state), {}, []), ["heldout"])["heldout"]
        assert np.array_equal(x, job.windows)
        nats.append(found["exact" if "exact" in found else "bound"])
    about = {
        "steps": steps,
        "flops": step_flops(run.parts.task, config.train.batch_size),
        "tokens": config.train.batch_size * config.data.length,
        "seconds": seconds,
    }
    write(run.workdir, {"bits": np.stack(nats)}, {**about, "length": config.data.length})


def classical(job: Job) -> None:
    """Measures the windows by the true law, or by n-grams; and held-out texts by compressors."""
    kind: Any = job.dataset.kind
    sources: list[Any] = [job.dataset.splits[name].source for name in ("train", "heldout")]
    train, x, running = sources[0], job.windows, {}
    if hasattr(train, "law"):
        nats = {SOURCE: -train.law.log_prob(x)}
    else:
        texts = [kind.text(source.tokens.astype(int)[None])[0] for source in sources]
        order = best_order(texts[0], "".join(kind.pieces))
        model = KneserNey(train.tokens.astype(int), kind.vocabulary, order)
        nats = {f"Kneser-Ney, order {order}": model.nats(x, order).sum(1)}
        for name, entry in compressors(*texts).items():
            running[f"{name}, running text"] = [entry["value"]]
    write(job.folder / BASELINES, nats, {"length": x.shape[1], "running": running})


def write(folder: Path, nats: dict[str, Any], about: Mapping[str, Any]) -> None:
    """Writes what `trained_report.loaded` reads; the last file marks the job as finished."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / NATS, **nats)
    write_whole(folder / ABOUT, json.dumps(about).encode())


def run_all(job: Job, names: Sequence[str], asked: argparse.Namespace) -> None:
    """Runs the unfinished jobs, `--jobs` at a time, each in a process of its own cores."""
    cores: queue.Queue[list[int]] = queue.Queue()
    one_by_one = threading.Lock()
    allowed = sorted(os.sched_getaffinity(0))
    for i in range(asked.jobs):
        cores.put(allowed[i :: asked.jobs] or allowed)

    def take_cores() -> None:  # of this thread and of the processes that it starts
        os.sched_setaffinity(0, cores.get())

    def start(name: str) -> None:
        folder = job.folder / name
        if (folder / ABOUT).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("a") as log:
            command = [sys.executable, *sys.argv, "--only", name]
            status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        if status:
            print(f"{name} failed with status {status}: see {folder / 'log'}", flush=True)
            return
        with one_by_one:
            add(asked.out / RESULTS, asked.study, summary(job.folder, [*OBJECTIVES]))

    with ThreadPoolExecutor(asked.jobs, initializer=take_cores) as pool:
        list(pool.map(start, names))


def add(path: Path, study: str, found: Mapping[str, Any]) -> None:
    """Adds the figures of a study to the results, and prints its table."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[study] = found
    write_whole(path, (json.dumps(results, indent=1) + "\n").encode())
    print("\n".join(report(results[study])), "\n", flush=True)


def main() -> None:
    """Runs a study; its results are added to `trained.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", choices=STUDIES, required=True)
    parser.add_argument("--steps", type=int, required=True, help="of the masked network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, default=[*OBJECTIVES])
    parser.add_argument(
        "--manual_dir", default="", help="package of the addresses, for two studies"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/text"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each with its cores")
    parser.add_argument("--only", help="one job, such as masked_0 or baselines, in this process")
    parser.add_argument("--set", nargs="*", default=[], help="further settings, KEY=JSON")
    asked = parser.parse_args()
    changes = {key: json.loads(value) for key, _, value in (s.partition("=") for s in asked.set)}
    job = Job(asked.study, asked.steps, asked.manual_dir, asked.workdir, changes)
    if not asked.only:
        runs = [f"{name}_{seed}" for seed in asked.seeds for name in asked.objectives]
        run_all(job, [BASELINES, *runs], asked)
        return
    logging.set_verbosity(logging.FATAL)
    tune_cpu_allocator()
    enable_compilation_cache()
    if asked.only == BASELINES:
        classical(job)
    else:
        objective, _, seed = asked.only.rpartition("_")
        measured(job, objective, int(seed))


if __name__ == "__main__":
    main()
