"""Trains diffusion of emoji in pixels and in latents with equal seconds in total. See README.md.

    PYTHONPATH=. taskset -c 0 python experiments/latents/equal.py --seconds 600

Seconds per step, of one CPU core, are measured first, in turns; then all train by steps. Finished
runs are not repeated, and interrupted ones go on.
"""

import argparse
import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from configs import emoji_clip, emoji_text, emoji_vae
from diffusion_jax.codecs.latents import CODEC
from diffusion_jax.data import ArraySource, Captions, Dataset, Images, Split
from diffusion_jax.from_config import Config, build, planned_dataset
from diffusion_jax.plan.measured import Steps
from diffusion_jax.plan.program import Program
from diffusion_jax.run import open_run, run
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.runtime import enable_compilation_cache, tune_cpu_allocator
from experiments.restoration.report import table
from experiments.text.trained_report import number

HERE = Path(__file__).parent
RESULTS = "results.json"
Result = dict[str, Any]
JUDGE, ENCODING = "judge", "encoding"
AUTOENCODERS: dict[str, dict[str, Any]] = {
    "autoencoder": {},
    "autoencoder_no_kl": {"objective.autoencoder.kl": 0.0},
    "autoencoder_no_perceptual": {"objective.autoencoder.perceptual": 0.0},
    "autoencoder_no_critic": {"objective.autoencoder.adversarial": 0.0},
}
"""What differs from configs/emoji_vae.py, by name of the run."""
PIXELS = {"pixels": {"model.dit.patch_size": 4}, "coarse_pixels": {"model.dit.patch_size": 8}}
LATENTS = {name.replace("autoencoder", "latents"): name for name in AUTOENCODERS}
"""The autoencoder of each run in latents."""
ORDER = (
    *(JUDGE, "autoencoder", "pixels", "latents"),
    *[*AUTOENCODERS][1:],
    *("coarse_pixels", *[*LATENTS][1:]),
)
SHARE = 0.5  # of the seconds, for the autoencoder
SIDES = 64, 128, 256
"""Of the pictures that are trained on, then of those whose steps are measured only."""
DIFFUSION = {
    "data.image_size": SIDES[0],
    "model.dit.hidden_size": 192,
    "model.dit.depth": 4,
    "model.dit.unroll": 4,
    "ema.decay": 0.995,
    "optimizer.warmup_steps": 100,
    "train.batch_size": 16,
    "sample.steps": 20,
    "sample.batch_size": 32,
    "evaluate.num_samples": 320,
    "evaluate.metrics": "distances,names",
    "evaluate.extractor": "judge",
    "evaluate.names.num": 100,
    "evaluate.names.splits": (),
}
"""What differs from configs/emoji_text.py."""
JUDGED = {
    "data.image_size": SIDES[0],
    "model.dual_encoder.channels": 16,
    "train.batch_size": 128,
    "train.steps": 300,
    "evaluate.names.splits": (),
}
"""What differs from configs/emoji_clip.py."""
QUIET = {"train.heldout_every": 0, "train.sample_every": 0, "train.checkpoint_every": 100}
ROUNDS, SHOWN = 5, 10
METRICS = {
    "autoencoder": ("psnr", "stlpips", "kl_bits"),
    "": (
        "kernel_emoji_clip",
        "fd_emoji_clip",
        "coverage_emoji_clip",
        "top1_train",
        "clip_score_train",
    ),
}
"""Figures in the tables, of autoencoders and of diffusion."""


@dataclasses.dataclass(frozen=True)
class Study:
    """The comparison as it was asked for, and the folder of its runs."""

    seconds: float  # of one core, in total of each arm
    runs: Path
    # of settings; those of texts are not for autoencoders
    changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def folder(self, name: str, seed: int) -> Path:
        """Of a run; all seeds have the same judge."""
        return self.runs / (JUDGE if name == JUDGE else f"{name}_{seed}")

    def config(self, name: str, seed: int = 0, steps: int = 1) -> Config:
        """Of a run; a run in latents reads its autoencoder's folder, which must be there."""
        if name in AUTOENCODERS:
            config, own = emoji_vae.get_config(), {**QUIET, **AUTOENCODERS[name]}
        elif name == JUDGE:
            config, own = emoji_clip.get_config(), {**JUDGED}
        else:
            config, own = emoji_text.get_config(), {**DIFFUSION, **QUIET}
            own["evaluate.names.judge"] = str(self.folder(JUDGE, 0))
            if name in LATENTS:
                own["model.dit.patch_size"] = 2
                own |= {"codec.name": "autoencoder", "sample.clip": 0.0}
                own["codec.run"] = str(self.folder(LATENTS[name], seed))
            own |= PIXELS.get(name, {})
        reads = name not in AUTOENCODERS
        more = {key: v for key, v in self.changes.items() if reads or not key.startswith("text.")}
        config.update_from_flattened_dict({**own, **more})
        config.seed = seed
        if name != JUDGE:
            config.train.steps = steps
        return config

    def untrained(self, name: str, batch_size: int) -> Config:
        """The same without autoencoder and judge, which need not be there."""
        config = self.config(name)
        if name not in AUTOENCODERS:
            config.evaluate.metrics, config.evaluate.names.judge = "denoising", ""
            config.evaluate.extractor = "classifier"
        if name in LATENTS:
            config.codec.run = ""
            sizes = emoji_vae.get_config().model.autoencoder
            own = config.codec.autoencoder
            own.update({key: sizes[key] for key in own if key in sizes})
        config.train.batch_size = batch_size
        return config

    def steps_of(self, name: str, costs: Mapping[str, float], num: int) -> int:
        """Steps of a run, so that each arm takes `seconds`: `num` items are encoded for latents.

        `costs` are seconds per picture.
        """
        seconds, cost = self.seconds, costs["latents" if name in LATENTS else name]
        if name in AUTOENCODERS:
            seconds *= SHARE
        if name in LATENTS:
            seconds = seconds * (1 - SHARE) - num * costs[ENCODING]
        return max(int(seconds / cost / self.config(name).train.batch_size), 1)


def in_turns(jobs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median of the CPU seconds of each job, all jobs in each round."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.process_time()
            job()
            found[name].append(time.process_time() - began)
    return {name: statistics.median(each) for name, each in found.items()}


def black(side: int) -> Dataset:
    """Two pictures with names, for steps whose time does not depend on what is seen."""
    source = ArraySource(np.zeros((2, side, side, 3), np.uint8), np.zeros(2, np.int32))
    split = Split(source, Captions.of([["one"], ["two"]]))
    return Dataset("black", Images((side, side, 3)), {"train": split, "heldout": split})


def stepper(config: Config, dataset: Dataset) -> Callable[[], Any]:
    """Takes a compiled training step."""
    steps = Steps(Program(config, dataset, 1, jax.default_backend()))
    steps.compile()
    return steps.take


def encoder(config: Config, dataset: Dataset) -> Callable[[], Any]:
    """Encodes the items of one batch, as it is done before a training in latents."""
    task = build(config, dataset).task
    frozen = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), task.frozen[CODEC].shapes)
    items = np.zeros((config.train.batch_size, *dataset.kind.shape), np.float32)
    assert task.cached is not None
    program = jax.jit(task.cached.moments)
    encode = lambda: jax.block_until_ready(program({CODEC: frozen}, items))  # noqa: E731
    encode()
    return encode


def step_costs(study: Study, names: Iterable[str], side: int) -> dict[str, float]:
    """CPU seconds per picture in a step of each run, and for encoding one."""
    dataset, shrunk = black(side), (side // SIDES[0]) ** 2
    jobs: dict[str, Callable[[], Any]] = {}
    size: dict[str, int] = {}
    for name in names:
        run_of, make = ("latents", encoder) if name == ENCODING else (name, stepper)
        size[name] = max(study.config(run_of).train.batch_size // shrunk, 1)
        jobs[name] = make(study.untrained(run_of, size[name]), dataset)
    return {name: cost / size[name] for name, cost in in_turns(jobs, ROUNDS).items()}


def trained(study: Study, name: str, seed: int, steps: int) -> Result:
    """Trains and measures a run, if that is not done yet: `[value, low, high]` of each figure."""
    folder = study.folder(name, seed)
    if not (folder / "result.json").exists():
        config = study.config(name, seed, steps)
        for mode in ("train", "evaluate"):
            if status := run(config, folder, mode):
                raise SystemExit(status)
    entries = json.loads((folder / "result.json").read_text())
    found = {
        key: [entry[part] for part in ("value", "low", "high")]
        for key, entry in entries.items()
        if isinstance(entry, dict) and isinstance(entry.get("value"), float)
    }
    return {"steps": open_run(folder).step, **found}


def break_even(seconds: float, items: int, costs: Mapping[str, float], other: str) -> float:
    """Pictures that a run `other` sees in the time in which latents, with all they need, do so too.

    The autoencoder has `seconds`, and `items` are encoded; infinite if a step in latents costs no
    less.
    """
    saved = costs[other] - costs["latents"]
    return (seconds + items * costs[ENCODING]) / saved if saved > 0 else float("inf")


def tables(results: Result) -> list[str]:
    """The tables of the README."""
    costs = results["costs"]
    each_cost = [(name, f"{cost:.4f}") for name, cost in costs.items()]
    found = table(("run", "CPU seconds per picture"), each_cost)
    for of, metrics in METRICS.items():
        rows = [
            [name, f"{each['steps']:,}", *(number(each[m]) if m in each else "" for m in metrics)]
            for name, each in results["runs"].items()
            if name.startswith("autoencoder") == bool(of) and name != JUDGE
        ]
        found += ["", *table(("run", "steps", *metrics), rows)] if rows else []
    rows = []
    for side, own in {str(SIDES[0]): costs, **results.get("sizes", {})}.items():
        larger = (int(side) / SIDES[0]) ** 2  # the autoencoder and its encoder are convolutions
        work = {**own, ENCODING: larger * costs[ENCODING]}
        coder = larger * SHARE * results["seconds"]
        even = [break_even(coder, results["items"], work, name) for name in PIXELS]
        spent = (f"{own[name]:.4f}" for name in (*PIXELS, "latents"))
        rows.append([side, *spent, *(f"{num:,.0f}" for num in even)])
    head = ("side", *PIXELS, "latents", *(f"break even with {name}" for name in PIXELS))
    return [*found, "", *table(head, rows)]


def sheets(study: Study, seed: int, out: Path) -> None:
    """Pictures of all finished runs: of the same held-out items, and of the same names."""
    done = [name for name in ORDER if (study.folder(name, seed) / "result.json").exists()]
    shown: dict[str, list[np.ndarray]] = {"reconstructions": [], "samples": []}
    for name in done:
        if name == JUDGE:
            continue
        model = open_run(study.folder(name, seed))
        dataset: Dataset = model.run.parts.dataset
        split = "heldout" if name in AUTOENCODERS else "train"
        rows = np.random.default_rng(0).permutation(len(dataset.splits[split]))[:SHOWN]
        items, labels = dataset.splits[split].gather(rows)
        if name in AUTOENCODERS:
            task = model.run.parts.task
            x_hat = task.apply(model.params, dataset.kind.decode(items), {})
            to, made = shown["reconstructions"], dataset.kind.encode(x_hat)
        else:
            cond = model.run.conditions.cond_of(split, rows, labels)
            to, made = shown["samples"], model.items(0, np.arange(len(rows)), cond)[0]
        to += [made] if to else [items, made]
    for sheet, parts in shown.items():
        if parts:
            save_png(out / f"{sheet}.png", tile(np.concatenate(parts), SHOWN), {})


def main() -> None:
    """Adds what is not yet in `results.json`, and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True, help="of one core, for each arm")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", choices=ORDER, default=ORDER)
    parser.add_argument("--sizes", action="store_true", help="measure steps of larger pictures")
    parser.add_argument("--workdir", type=Path, default=Path("runs/latents"))
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--set", nargs="*", default=[], help="further settings, KEY=JSON")
    asked = parser.parse_args()
    changes = {key: json.loads(value) for key, _, value in (s.partition("=") for s in asked.set)}
    study = Study(asked.seconds, asked.workdir, changes)
    tune_cpu_allocator()
    enable_compilation_cache()
    path = asked.out / RESULTS
    results: Result = json.loads(path.read_text()) if path.exists() else {}
    results = {"seconds": study.seconds, "costs": {}, "runs": {}, **results}
    if results["seconds"] != study.seconds:
        raise SystemExit(f"{path} is of --seconds={results['seconds']}: choose another --out")

    def keep() -> None:
        write_whole(path, (json.dumps(results, indent=1) + "\n").encode())
        print("\n".join(tables(results)), "\n", flush=True)

    num = results["items"] = len(planned_dataset(study.config("autoencoder")).splits["train"])
    if not results["costs"]:
        names = [*AUTOENCODERS, *PIXELS, "latents", ENCODING]
        results["costs"] = step_costs(study, names, SIDES[0])
        keep()
    if asked.sizes and "sizes" not in results:
        names = [*PIXELS, "latents"]
        results["sizes"] = {str(side): step_costs(study, names, side) for side in SIDES[1:]}
        keep()
    for seed in asked.seeds:
        for name in asked.only:
            steps = study.steps_of(name, results["costs"], num) if name != JUDGE else 0
            results["runs"][study.folder(name, seed).name] = trained(study, name, seed, steps)
            keep()
        sheets(study, seed, asked.out)


if __name__ == "__main__":
    main()
