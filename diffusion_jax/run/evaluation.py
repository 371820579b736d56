"""The stage that measures samples and writes the report."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax import report
from diffusion_jax.data import arrays
from diffusion_jax.evaluation.denoising import denoising_errors
from diffusion_jax.evaluation.evaluate import Chunk, Evaluation, Result, likelihood
from diffusion_jax.evaluation.references import read_statistics
from diffusion_jax.from_config import config_hash, evaluated, make_extractor
from diffusion_jax.generation.generator import proportional_labels
from diffusion_jax.report.pictures import save_png, tile
from diffusion_jax.run.job import Job, command
from diffusion_jax.run.names import measure_names, names_asked, names_of
from diffusion_jax.run.provenance import environment
from diffusion_jax.system.devices import is_main
from diffusion_jax.system.runtime import cache_dir

CHUNK_BYTES = 256 * 2**20
"""Pixels of samples that are drawn, looked at and dropped at once."""


def evaluate(job: Job, again: bool) -> None:
    """Measures `evaluate.num_samples` samples; writes `result.json` and `report.md`.

    A network that draws none is measured as a judge of real pictures.
    """
    if job.parts.draws is None:
        _evaluate_judge(job, again)
        return
    path = job.workdir / "result.json"
    settings, dataset = job.config.evaluate, job.parts.dataset
    lengths = evaluated(job.config)
    file = settings.reference
    statistics = read_statistics(Path(file).expanduser()) if file else None
    passport = {
        **job.made_by(job.step_to_use(), settings.seed),
        "num_samples": settings.num_samples,
        "likelihood": dict(settings.likelihood),
        "denoising_images": settings.denoising_images,
        "measured_by": f"{settings.extractor} {settings.weights}".strip(),
        **(names_asked(settings.names) if settings.names.judge else {}),
        "statistics": statistics.words if statistics else "of the training images",
    }
    if lengths:  # each figure says its own
        del passport["ema"]
        passport["ema_lengths"] = [float(length) for length in lengths]
    if not again and report.has_passport(path, passport):
        print(f"evaluated already: {job.workdir / 'report.md'}")
        return
    state = job.restored_state()
    step = int(state.step)
    index = np.arange(settings.num_samples)
    wanted, cond = None, job.conditions.cond(index)
    own = job.conditions.given is not None  # then labels and names are of the pictures given
    if job.conditions.texts and not own and not job.config.sample.prompts:
        rows = np.random.default_rng(settings.seed).integers(len(dataset.train), size=len(index))
        cond |= job.conditions.read(job.conditions.names("train", rows))
    judge, names = None, []
    if folder := settings.names.judge:
        judge, names = job.load_judge(folder, f"evaluate.names.judge={folder!r}"), names_of(job)
    extractor = make_extractor(job.config, dataset, cache_dir() / "extractors", print, judge)
    if "label" in cond and job.config.sample.labels != "none":
        _, train_labels = arrays(dataset.train)
        proportional = proportional_labels(train_labels, dataset.num_classes, len(index))
        wanted = cond["label"] = cond["label"] if own else proportional
    features = cache_dir() / "features"
    measure = Evaluation(dataset, extractor, settings.bootstrap, features, statistics)
    result: Result = {}
    spent: list[float] = []
    for name in lengths or [job.ema]:
        params = job.averaged(state, name)
        about = passport
        if lengths:
            print(f"EMA length {name}")
            about = {**passport, **job.snapshots.passport(name, step)}
        drawn = _drawn(job, params, index, cond, wanted, spent)
        found, closest = measure(drawn, about)
        if is_main():
            path_of_pairs = job.workdir / "samples" / f"closest{f'_{name}' if lengths else ''}.png"
            path_of_pairs.parent.mkdir(parents=True, exist_ok=True)
            save_png(path_of_pairs, tile(closest, len(closest) // 2), about)
        if settings.denoising_images and len(dataset.heldout):
            found |= denoising_errors(
                job.generator,
                params,
                dataset,
                job.conditions.cond_of,
                num_images=settings.denoising_images,
                seed=settings.seed,
                batch_size=job.config.sample.batch_size,
                passport=about,
            )
        if settings.likelihood.num_images:
            found |= _likelihood(job, params, about)
        if judge:
            found |= measure_names(job, judge, names, params, about)
        result |= {key + report.suffix(entry): entry for key, entry in found.items()}
    if not is_main():
        return
    result |= measure.heldout(passport)
    _write_report(job, result, step, sum(spent))
    report.write_result(path, result)  # last: it says that all is there
    print(report.result_tables(result))
    print(f"report: {job.workdir / 'report.md'}")


def _evaluate_judge(job: Job, again: bool) -> None:
    """Measures how well a dual encoder finds the names of real pictures."""
    path, settings = job.workdir / "result.json", job.config.evaluate
    passport = {
        "config": config_hash(job.config),
        "checkpoint": job.step_to_use(),
        "ema": job.snapshots.describe(job.ema),
        **names_asked(settings.names),
    }
    if not again and report.has_passport(path, passport):
        print(f"evaluated already: {job.workdir / 'report.md'}")
        return
    params, step = job.restore()
    result = measure_names(job, job.as_judge(), names_of(job), params, passport)
    if is_main():
        _write_report(job, result, step, 0.0)
        report.write_result(path, result)
        print(report.result_tables(result))
        print(f"report: {job.workdir / 'report.md'}")


def _drawn(
    job: Job, params: Any, index: np.ndarray, cond: Any, wanted: Any, spent: list[float]
) -> Iterator[Chunk]:
    """Samples in chunks, with the labels that they were `wanted` of; seconds go to `spent`."""
    size = job.config.sample.batch_size  # a chunk is of whole batches, and none is smaller
    per_image = int(np.prod(job.parts.dataset.image_shape))
    chunk = max(CHUNK_BYTES // (per_image * size), 1) * size
    starts = [start for start in range(0, len(index), chunk) if len(index) - start >= size] or [0]
    for start, end in zip(starts, [*starts[1:], len(index)], strict=True):
        began, rows = time.monotonic(), slice(start, end)
        of = {name: value[rows] for name, value in cond.items()}
        images, _ = job.draw(params, job.config.evaluate.seed, index[rows], of)
        spent.append(time.monotonic() - began)
        yield images, None if wanted is None else wanted[rows]


def _likelihood(job: Job, params: Any, passport: Mapping[str, Any]) -> Result:
    """Bits per dimension, as `evaluate.likelihood` says."""
    learned, settings = job.config.objective.learned_variance, job.config.evaluate
    return likelihood(
        job.generator,
        params,
        job.parts.dataset,
        job.conditions.cond_of,
        **settings.likelihood,
        variance="learned" if learned else job.config.sample.ancestral.variance,
        seed=settings.seed,
        batch_size=job.config.sample.batch_size,
        passport=passport,
    )


def _write_report(job: Job, result: Mapping[str, Any], step: int, seconds: float) -> None:
    """Writes `report.md` beside the pictures."""
    config = job.config
    curves = report.plot_curves(job.workdir / "metrics.jsonl", job.workdir / "curves.png")
    state = job.abstract_state()
    images = step * config.train.batch_size
    epochs = images / len(job.parts.dataset.train)
    averages = job.snapshots.describe(job.ema)
    if lengths := evaluated(config):
        averages = f"by length ({', '.join(lengths)}), in the pictures {averages}"
    where = environment()
    facts = {
        "data": f"{config.data.name}, {len(job.parts.dataset.train):,} training images",
        "network": f"{config.model.name}, {job.cost(state)}",
        "training": f"{step:,} steps of {config.train.batch_size} images, {epochs:,.0f} epochs"
        + (f", {curves:,.0f} s" if curves else "")
        + f", EMA {averages}",
    }
    if job.parts.draws:
        made_by = job.made_by(step, 0)
        facts["process"] = (
            f"{config.schedule.name} schedule, {config.objective.prediction} prediction"
        )
        facts["sampling"] = (
            f"{made_by['sampler']}, {config.sample.steps} steps of "
            f"{job.generator.sampler.evaluations} evaluation(s), grid {made_by['grid']}, "
            f"guidance {config.sample.guidance_scale}; "
            f"{config.evaluate.num_samples:,} samples in {seconds:.1f} s, compilation included"
        )
    facts |= {
        "device": where["device"],
        "versions": ", ".join(f"{name} {v}" for name, v in where["versions"].items()),
        "commit": where["commit"],
        "config": f"`{config_hash(config)}`, resolved in [config.json](config.json)",
    }
    asked = "asked for by class: one column for each, in order"
    if job.conditions.given is not None:
        asked = "each between what it was given and the original"
    elif job.conditions.texts:
        asked = "asked for in words, which stand beside each row"
    passports = [entry["passport"] for entry in result.values() if "kind" in entry["passport"]]
    kinds = {passport["split"]: passport["kind"] for passport in passports}
    pictures = [
        ("samples/grid.png", f"Samples, {asked}"),
        ("samples/trajectory.png", "From noise on the left to the picture on the right"),
        ("samples/denoise.gif", "The same for all, as an animation"),
        (
            "samples/closest.png",
            "The samples nearest to a training image (above), and those training images (below)",
        ),
        *(
            (
                f"samples/names_{split}.png",
                f"Names from split {split} ({kind}): the real picture, then a sample",
            )
            for split, kind in kinds.items()
        ),
        ("curves.png", "Loss in training, and on held-out images"),
    ]
    title = f"{job.workdir.name}: {config.data.name}"
    report.write_report(job.workdir / "report.md", title, result, facts, pictures, [command()])
