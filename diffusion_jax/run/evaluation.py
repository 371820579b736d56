"""The stage that measures samples and writes the report."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_jax import report
from diffusion_jax.build import config_hash, evaluated, make_extractor
from diffusion_jax.data import arrays
from diffusion_jax.devices import is_main
from diffusion_jax.evaluate import Evaluation, Result, likelihood
from diffusion_jax.provenance import environment
from diffusion_jax.run.job import Job, command
from diffusion_jax.runtime import cache_dir
from diffusion_jax.sample import proportional_labels


def evaluate(job: Job, again: bool) -> None:
    """Measures `evaluate.num_samples` samples; writes `result.json` and `report.md`."""
    path = job.workdir / "result.json"
    settings, dataset = job.config.evaluate, job.parts.dataset
    lengths = evaluated(job.config)
    passport = {
        **job.made_by(job.step_to_use(), settings.seed),
        "num_samples": settings.num_samples,
        "likelihood": dict(settings.likelihood),
        "measured_by": f"{settings.extractor} {settings.weights}".strip(),
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
    wanted, labels = None, job.labels(index)
    extractor = make_extractor(job.config, dataset, cache_dir() / "extractors", print)
    if labels is not None and job.config.sample.labels != "none":
        _, train_labels = arrays(dataset.train)
        wanted = proportional_labels(train_labels, dataset.num_classes, settings.num_samples)
        labels = wanted
    features = cache_dir() / "features"
    measure = Evaluation(dataset, extractor, settings.bootstrap, features)
    result: Result = {}
    seconds = 0.0
    for name in lengths or [job.ema]:
        params = job.averaged(state, name)
        about = passport
        if lengths:
            print(f"EMA length {name}")
            about = {**passport, **job.snapshots.passport(name, step)}
        began = time.monotonic()
        images, _ = job.draw(params, settings.seed, index, labels)
        seconds += time.monotonic() - began
        found = measure(images, wanted, about)
        if settings.likelihood.num_images:
            found |= _likelihood(job, params, about)
        result |= {key + report.suffix(entry): entry for key, entry in found.items()}
    if not is_main():
        return
    result |= measure.heldout(passport)
    _write_report(job, result, step, seconds)
    report.write_result(path, result)  # last: it says that all is there
    print(report.result_tables(result))
    print(f"report: {job.workdir / 'report.md'}")


def _likelihood(job: Job, params: Any, passport: Mapping[str, Any]) -> Result:
    """Bits per dimension, as `evaluate.likelihood` says."""
    learned, settings = job.config.objective.learned_variance, job.config.evaluate
    return likelihood(
        job.generator,
        params,
        job.parts.dataset,
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
    images, made_by = step * config.train.batch_size, job.made_by(step, 0)
    epochs = images / len(job.parts.dataset.train)
    averages = job.snapshots.describe(job.ema)
    if lengths := evaluated(config):
        averages = f"by length ({', '.join(lengths)}), in the pictures {averages}"
    where = environment()
    facts = {
        "data": f"{config.data.name}, {len(job.parts.dataset.train):,} training images",
        "network": f"{config.model.name}, {job.cost(state)}",
        "process": f"{config.schedule.name} schedule, {config.objective.prediction} prediction",
        "training": f"{step:,} steps of {config.train.batch_size} images, {epochs:,.0f} epochs"
        + (f", {curves:,.0f} s" if curves else ""),
        "sampling": f"{made_by['sampler']}, {config.sample.steps} steps of "
        f"{job.generator.sampler.evaluations} evaluation(s), grid {made_by['grid']}, "
        f"guidance {config.sample.guidance_scale}, EMA {averages}; "
        f"{config.evaluate.num_samples:,} samples in {seconds:.1f} s, compilation included",
        "device": where["device"],
        "versions": ", ".join(f"{name} {v}" for name, v in where["versions"].items()),
        "commit": where["commit"],
        "config": f"`{config_hash(config)}`, resolved in [config.json](config.json)",
    }
    pictures = [
        ("samples/grid.png", "Samples, asked for by class: one column for each, in order"),
        ("samples/trajectory.png", "From noise on the left to the picture on the right"),
        ("samples/denoise.gif", "The same for all, as an animation"),
        ("curves.png", "Loss in training, and on held-out images by noise level"),
    ]
    title = f"{job.workdir.name}: {config.data.name}"
    report.write_report(job.workdir / "report.md", title, result, facts, pictures, [command()])
