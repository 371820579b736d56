"""The stage that measures a model and writes the report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from diffusion_jax import report
from diffusion_jax.evaluation import sentences
from diffusion_jax.evaluation.model import Chunk, Evaluator, Model, Result
from diffusion_jax.from_config import config_hash, evaluated
from diffusion_jax.from_config.choices import metrics_of
from diffusion_jax.from_config.evaluators import Means, make_evaluators
from diffusion_jax.from_config.extractors import statistics_of
from diffusion_jax.from_config.identity import Identity
from diffusion_jax.run.sampling import caption
from diffusion_jax.run.trained import Run, Trained, command, open_judge
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.progress import stage
from diffusion_jax.system.runtime import cache_dir, environment
from diffusion_jax.text.encoder import MINILM_PACKAGE

LISTED = 10
"""Classes named in a report, at most."""
CHUNK_BYTES = 256 * 2**20
"""Entries of samples that are in memory at a time."""


def evaluate(run: Run, again: bool) -> None:
    """Measures the model by `evaluate.metrics`; writes `result.json` and the report."""
    path, page = run.workdir / "result.json", run.workdir / "report.md"
    lengths = evaluated(run.config)
    passport = _passport(run, lengths)
    if not again and page.exists() and report.has_passport(path, passport):
        if is_main():
            report.mend_page(page)
        print(f"evaluated already: {page}")
        return
    state = run.restored_state()
    models = [run.trained(state, name) for name in lengths or [run.average]]
    judge = open_judge("evaluate.names", run.config, run.parts)
    if judge is None and run.parts.task.likeness:
        judge = models[0].as_judge()
    means = Means(run.parts.dataset, run.parts.task, judge, cache_dir(), print)
    evaluators = make_evaluators(run.config, means)
    result: Result = {}
    spent: list[float] = []
    for trained in models:
        about = passport
        if lengths:
            print(f"EMA length {trained.average}")
            about = {**passport, **run.snapshots.passport(trained.average, trained.step)}
        model = model_of(trained, about, spent)
        for evaluator in evaluators:
            found = evaluator(model)
            result |= {name + report.suffix(entry): entry for name, entry in found.items()}
    if not is_main():
        return
    for evaluator in evaluators:
        result |= evaluator.of_data(passport)
    _write_report(models[0], result, evaluators, sum(spent))
    report.write_result(path, result)  # last: it marks the evaluation as complete
    print(report.result_tables(result))
    print(f"report: {page} and {report.html_of(page).name}")


def _passport(run: Run, lengths: Sequence[str]) -> dict[str, Any]:
    """How samples are made, and with which settings they are measured."""
    settings = run.config.evaluate
    statistics = statistics_of(run.config)
    extractor = f"{settings.extractor} {settings.weights}".strip()
    asked: dict[str, dict[str, Any]] = {
        "distances": {
            "num_samples": settings.num_samples,
            "measured_by": extractor,
            "statistics": statistics.words if statistics else "of the training images",
        },
        "denoising": {"denoising_images": settings.denoising_images},
        "likelihood": {"likelihood": dict(settings.likelihood)},
        "damage": {"damage": dict(settings.damage)},
        "reconstruction": {"reconstruction": dict(settings.reconstruction)},
        "restored": {"restored": {**settings.restored, "bands": list(settings.restored.bands)}},
        "classes": {"classes": dict(settings.classes)},
        "bits": {"bits": dict(settings.bits)},
        "texts": {"num_samples": settings.num_samples},
        "pitch": {"num_samples": settings.num_samples},
        "sentences": {
            "num_samples": settings.num_samples,
            "sentences_by": "none" if sentences.without() else MINILM_PACKAGE,
        },
        "names": {"names": {**settings.names.to_dict(), "splits": list(settings.names.splits)}},
    }
    passport = run.made_by(run.step_to_use(), settings.seed)
    for name in metrics_of(run.config):
        passport |= asked.get(name, {})
    if lengths:  # each metric has its own
        del passport["ema"]
        passport["ema_lengths"] = [float(length) for length in lengths]
    return passport


def model_of(trained: Trained, passport: Mapping[str, Any], spent: list[float]) -> Model:
    """The model for evaluators; seconds of sampling are appended to `spent`."""
    run, seed = trained.run, trained.run.config.evaluate.seed
    return Model(
        run.parts.dataset,
        trained.generator,
        trained.params,
        trained.frozen,
        run.conditions.cond_of,
        run.conditions.read,
        draw=lambda index, cond: trained.items(seed, index, cond)[0],
        samples=lambda: samples(trained, spent),
        passport=passport,
        seed=seed,
        batch_size=run.config.sample.batch_size,
        folder=run.workdir / "samples",
    )


def samples(trained: Trained, spent: list[float]) -> Iterator[Chunk]:
    """`evaluate.num_samples` samples in chunks, with their requested labels."""
    run, settings = trained.run, trained.run.config.evaluate
    index = np.arange(settings.num_samples)
    cond, labels = run.conditions.as_trained(len(index), settings.seed)
    size = run.config.sample.batch_size  # a chunk is one or more whole batches
    item = int(np.prod(run.parts.dataset.kind.shape))
    chunk = max(CHUNK_BYTES // (item * size), 1) * size
    starts = [start for start in range(0, len(index), chunk) if len(index) - start >= size] or [0]
    for start, end in zip(starts, [*starts[1:], len(index)], strict=True):
        began, part = time.monotonic(), slice(start, end)
        of = {name: value[part] for name, value in cond.items()}
        with stage("sampling", len(index), start):
            items, _ = trained.items(settings.seed, index[part], of)
        spent.append(time.monotonic() - began)
        yield items, None if labels is None else labels[part]


def _listed(names: Sequence[str]) -> str:
    """The first names in brackets."""
    some = [*names[:LISTED], *["..."] * (len(names) > LISTED)]
    return f" ({', '.join(some)})" * bool(names)


def _write_report(
    model: Trained, result: Result, evaluators: Sequence[Evaluator], seconds: float
) -> None:
    """Writes `report.md` and `report.html` to the workdir, which has their images."""
    run, config, dataset = model.run, model.run.config, model.run.parts.dataset
    curves = report.plot_curves(run.workdir / "metrics.jsonl", run.workdir / "curves.png")
    noun, num = dataset.kind.noun, len(dataset.splits["train"])
    epochs = model.step * config.train.batch_size / num
    averages = run.snapshots.describe(run.average)
    if lengths := evaluated(config):
        averages = f"by length ({', '.join(lengths)}), in the pictures {averages}"
    where = environment()
    identity = Identity.read(run.workdir)
    about_data = [
        f"{config.data.name}, {num:,} training {dataset.kind.words}",
        f"{dataset.num_classes} classes" + _listed(dataset.class_names),
        f"fingerprint {dataset.fingerprint}",
        *(identity.changes if identity else ()),
        *(f"not as it was trained: {change}" for change in run.changes),
    ]
    facts = {
        "data": report.plain("; ".join(about_data)),
        "remarks on the data": report.plain("; ".join(dataset.notes)),
        "network": f"{config.model.name}, {run.cost(run.abstract_state())}",
        "training": f"{model.step:,} steps of {config.train.batch_size} {noun}, "
        f"{epochs:,.0f} epochs" + (f", {curves:,.0f} s" if curves else "") + f", EMA {averages}",
    }
    if model.generator:
        made_by, sampler = model.made_by(0), model.generator.sampler
        steps = len(model.generator.times) - 1
        words = run.parts.task.noise, run.parts.task.learned(model.params)
        facts["process"] = report.plain("; ".join(filter(None, words)))
        facts["sampling"] = (
            f"{made_by['sampler']}, {steps} steps with {sampler.total(steps)} evaluations, grid "
            f"{made_by['grid']}, guidance {config.sample.guidance_scale}"
        )
        if "candidates" in made_by:
            each = f"in each step one of {made_by['candidates']}, which is evaluated as often"
            facts["sampling"] += f"; {each}"
        if seconds:
            drawn = f"{config.evaluate.num_samples:,} samples in {seconds:.1f} s"
            facts["sampling"] += f"; {drawn}, compilation included"
    facts["pages"] = ", ".join(
        f"[{page.name}](samples/{page.name})"
        for page in sorted((run.workdir / "samples").glob("*.html"))
    )
    facts |= {
        "device": where["device"],
        "versions": ", ".join(f"{name} {v}" for name, v in where["versions"].items()),
        "commit": where["commit"],
        "config": f"`{config_hash(config)}`, resolved in [config.json](config.json)",
    }
    pictures = []
    if model.generator:
        pictures = [
            ("samples/grid.png", caption(run, model.step)),
            ("samples/trajectory.png", "From noise to the result"),
            ("samples/denoise.gif", "The same as an animation"),
        ]
    pictures += [(f"samples/{file}", words) for each in evaluators for file, words in each.pictures]
    pictures.append(("curves.png", f"Loss in training, and on held-out {noun}"))
    title = f"{run.workdir.name}: {config.data.name}"
    facts = {name: fact for name, fact in facts.items() if fact}
    report.write_report(run.workdir / "report.md", title, result, facts, pictures, [command()])
