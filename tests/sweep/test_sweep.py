"""Sweeps: their expressions, complete runs that are not repeated, and the report."""

import dataclasses
import importlib
import json
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from diffusion_jax import from_config, run
from diffusion_jax.data import ArraySource, Split
from diffusion_jax.data.dataset import Options
from diffusion_jax.data.sets.points import load_points
from diffusion_jax.from_config import ConfigError
from diffusion_jax.metrics.paired import mean_interval, paired_difference
from diffusion_jax.sweep import Sweep, command, execute, report
from diffusion_jax.sweep.design import check, load, make_runs
from diffusion_jax.sweep.expression import expand
from diffusion_jax.sweep.metric import expected, foretold
from diffusion_jax.sweep.results import headline
from diffusion_jax.sweep.work import finished, seconds, units, work
from diffusion_jax.system.signals import SIGNALS
from tests.runs import final_state, random_dataset, tiny

WHOLE = {"train__heldout_every": 3, "evaluate__num_samples": 20}

pytestmark = pytest.mark.usefixtures("noise")


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("a=1,2", [{"a": 1}, {"a": 2}]),
        ("a=1,x; b=0.5,True", [{"a": a, "b": b} for a in (1, "x") for b in (0.5, True)]),
        ("a=1,2 & b=x,y", [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}]),
        ("a=1 | b=2,3; c=4", [{"a": 1, "c": 4}, {"b": 2, "c": 4}, {"b": 3, "c": 4}]),
        ("a=(1,2),(3,); b='x;y,z'", [{"a": (1, 2), "b": "x;y,z"}, {"a": (3,), "b": "x;y,z"}]),
        (" a = -1 ;", [{"a": -1}]),
    ],
)
def test_what_words_mean(words, runs):
    assert expand(words, 200) == runs


def test_random_values_are_those_of_their_words():
    words = "rate=log_uniform(1e-4, 1e-2, 500) & width=integers(1, 3, 500) & p=uniform(0, 1, 500)"
    runs = expand(words, 500)
    assert runs == expand(words.replace(" ", ""), 500)
    logs = np.log10([r["rate"] for r in runs])
    assert scipy.stats.kstest(logs, "uniform", (-4, 2)).pvalue > 1e-3
    assert scipy.stats.kstest([r["p"] for r in runs], "uniform").pvalue > 1e-3
    assert {r["width"] for r in runs} == {1, 2, 3}
    assert expand("a=uniform(0,1,3)", 9) != expand("b=uniform(0,1,3)", 9)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("objective.predicton=eps", "has no key 'predicton': did you mean 'prediction'"),
        ("seed.x=1", "has no key 'x'"),
        ("seed=", "grid is empty"),
        (";", "grid is empty"),
        ("seed", "'seed' is not key=value"),
        ("seed=0,0", "two runs are the same"),
        ("seed=0; seed=1", "seed is set twice"),
        ("seed=0 & train.steps=1,2", "seed has 1, train.steps has 2"),
        ("train.steps=many", "train.steps='many' is not of the type of its default, 6"),
        ("optimizer.learning_rate=log_uniform(0,1,3)", "above 0 for log_uniform"),
        ("seed=integers(0,99999,10000)", "10,000 runs are more than 200.*--max_runs=10000"),
        (";".join(f"a{i}=1,2,3" for i in range(40)), "runs are more than 200"),
        ("nowhere/sweep.py", "there is no such file"),
        ("sample.sampler=ddim,dimm; seed=0", "run sampler=dimm,seed=0: sample.sampler='dimm'"),
        ("train.batch_size=0", r"train.batch_size=0 must lie in \[1, inf\)"),
        ("seed=-1,0", r"run seed=-1: config.seed=-1 must lie in \[0, 4294967295\]"),
        ("seed=0,4294967296", r"run seed=4294967296: config.seed=4294967296 must lie in"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(words, why, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "execute", None)
    began = time.monotonic()
    assert command.run_sweep(words, tiny(), tmp_path / "sweep", command.Options()) == 2
    assert time.monotonic() - began < 20
    assert re.search(why, capsys.readouterr().err)
    assert not (tmp_path / "sweep").exists()


def test_many_runs_may_be_asked_for(monkeypatch):
    assert len(make_runs(load("seed=integers(0,99999999,300)"), tiny(), 300)) == 300


def test_names_and_settings():
    runs = make_runs(load("model.unet.channel_mults=(1,),(1,2); seed=3"), tiny())
    assert [r.name for r in runs] == ["channel_mults=1,seed=3", "channel_mults=1x2,seed=3"]
    assert [r.setting for r in runs] == ["channel_mults=1", "channel_mults=1x2"]
    assert [r.config.model.unet.channel_mults for r in runs] == [(1,), (1, 2)]
    both = make_runs(load("sample.seed=1,2; seed=0"), tiny())[0]
    assert both.name == "sample.seed=1,seed=0"
    long = make_runs(Sweep([{"data.dir": "x" * 200 + str(i)} for i in range(2)]), tiny())
    assert [r.name[:3] for r in long] == ["0,d", "1,d"]
    fixed = make_runs(Sweep("seed=0,1", fixed={"train.steps": 3}), tiny())
    assert {r.config.train.steps for r in fixed} == {3}
    assert [r.setting for r in fixed] == ["as configured"] * 2


def test_a_file(tmp_path):
    path = tmp_path / "sweep.py"
    path.write_text("def get_sweep():\n    return 3\n")
    with pytest.raises(ConfigError, match="must return a diffusion_jax Sweep"):
        load(str(path))
    lines = (
        "from diffusion_jax.sweep import Sweep",
        "def get_sweep():",
        "    return Sweep('seed=0')",
    )
    path.write_text("\n".join(lines))
    assert load(str(path)).runs == "seed=0"


def test_every_sweep_of_the_experiments_is_sound():
    for path in sorted(Path("experiments").glob("*/sweep*.py")):
        config = __import__("configs.digits", fromlist=["get_config"]).get_config()
        check(make_runs(load(str(path)), config)[::7], 1)


class Fake:
    """A process that ends after some looks at it."""

    def __init__(self, status: int, looks: int) -> None:
        self.status, self.looks, self.asked = status, looks, False

    def poll(self) -> int | None:
        self.looks -= 1
        return 143 if self.asked else None if self.looks > 0 else self.status

    def terminate(self) -> None:
        self.asked = True


def run_fakes(fakes, places, tell, monkeypatch):
    monkeypatch.setattr(execute, "POLL_SECONDS", 0.0)
    started = []

    def start(unit, place, log):
        started.append((unit, place))
        return fakes[unit]

    return started, lambda: execute.execute(list(fakes), start, places, lambda u: Path(), tell)


def test_units_share_the_places_and_one_that_fails_stops_none(monkeypatch):
    fakes = {i: Fake(status=int(i == 1), looks=3 - i % 2) for i in range(5)}
    most = []
    places = [{"p": "0"}, {"p": "1"}]
    started, go = run_fakes(
        fakes, places, lambda s: most.append(sum(v is None for v in s.values())), monkeypatch
    )
    assert go() == {0: 0, 1: 1, 2: 0, 3: 0, 4: 0}
    assert max(most) <= 2
    assert [unit for unit, _ in started] == [0, 1, 2, 3, 4]
    assert {place["p"] for _, place in started} == {"0", "1"}


@pytest.mark.parametrize("signum", SIGNALS)
def test_a_signal_is_passed_on_and_all_are_waited_for(signum, monkeypatch):
    fakes = {i: Fake(0, looks=1000) for i in range(3)}
    started, go = run_fakes(fakes, [{}, {}], lambda s: signal.raise_signal(signum), monkeypatch)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            go()
    finally:
        signal.signal(signal.SIGINT, before)
    assert [fakes[i].asked for i in range(3)] == [True, True, False]
    assert len(started) == 2


def test_a_terminal_reaches_the_processes_of_a_sweep_once(monkeypatch, tmp_path):
    """They hear of Ctrl-C from the sweep alone: a second signal would end them while they save."""
    says = [sys.executable, "-c", "import os; print(os.getsid(0))"]
    monkeypatch.setattr(execute, "_command", lambda unit: says)
    process = execute.start_here(0, {}, tmp_path / "log")
    assert process.wait() == 0
    assert int((tmp_path / "log").read_text()) == process.pid


def test_places(monkeypatch):
    monkeypatch.setattr(execute.os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(execute.os, "sysconf", lambda _: 10**6)
    assert execute.places(0, units=3) == [
        {execute.CORES: "0,1"}, {execute.CORES: "2,3,4"}, {execute.CORES: "5,6,7"},
    ]  # fmt: skip
    assert len(execute.places(0, units=99)) == 8
    assert execute.places(1, units=99) == [{execute.CORES: "0,1,2,3,4,5,6,7"}]
    monkeypatch.setattr(execute, "visible_gpus", lambda: ["0", "3"])
    assert execute.places(0, units=9) == [{"CUDA_VISIBLE_DEVICES": g} for g in "03"]
    assert execute.places(4, units=9) == [{"CUDA_VISIBLE_DEVICES": g} for g in "0303"]
    assert execute.places(1, units=9) == [{}]


@pytest.mark.slow
def test_seeds_abreast_train_the_networks_of_single_runs(tmp_path):
    runs = make_runs(
        load("seed=0,1,2,3,4,5,6,7"), tiny(train__heldout_every=3, ema__lengths=(0.1,))
    )
    assert list(map(len, units(runs, together=True))) == [8]
    folders = [tmp_path / r.name for r in runs]
    assert run.run_abreast([r.config for r in runs], folders) == 0
    for r, folder in list(zip(runs, folders, strict=True))[::3]:
        alone = tmp_path / "alone" / r.name
        assert run.run(r.config, alone, "train") == 0
        for a, b in zip(final_state(r.config, folder), final_state(r.config, alone), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        rows = [
            [json.loads(line) for line in (where / "metrics.jsonl").open()]
            for where in (folder, alone)
        ]
        assert [set(row) for row in rows[0]] == [set(row) for row in rows[1]]
        for a, b in zip(*rows, strict=True):
            for key in a.keys() - {"time", "items_per_second", "train_seconds"}:
                assert a[key] == pytest.approx(b[key], rel=1e-4, abs=1e-5), key


def in_process(monkeypatch, folder, runs, bad=()):
    """Units run in this process; the names of the runs that were done, in order."""
    done = []

    def start(unit, place, log):
        done.append(runs[unit].name)
        if runs[unit].name in bad:
            log.write_text("error: so it is\n")
            return Fake(2, 0)
        return Fake(work([runs[unit]], folder), 0)

    monkeypatch.setattr(command, "start_here", start)
    return done


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped_and_ends_in_a_report(tmp_path, monkeypatch, capsys):
    folder, words, config = (
        tmp_path / "ablation",
        "sample.seed=1,2; seed=0,1",  # whose programs need compiling once
        tiny(**WHOLE),
    )
    runs = make_runs(load(words), config)
    done = in_process(monkeypatch, folder, runs, bad=[runs[1].name])
    assert command.run_sweep(words, config, folder, command.Options()) == 1
    assert done == [r.name for r in runs]
    assert f"{runs[1].name} failed: error: so it is" in capsys.readouterr().out
    text = (folder / "report.md").read_text()
    assert f"**Not done: 1 of 4 runs**: {runs[1].name}" in text
    assert "not resolved: one seed" in text  # of those that both have

    done = in_process(monkeypatch, folder, runs)
    assert command.run_sweep(words, config, folder, command.Options()) == 0
    assert done == [runs[1].name]
    text = (folder / "report.md").read_text()
    assert "Not done" not in text
    assert "paired by seed" in text
    for name in ("metric.png", "cost.png", "curves.png", "samples.png"):
        assert f"]({name})" in text
    assert "their passports differ in the config alone" in text
    html = (folder / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(https?:|//)', html)
    assert all(f'href="{r.name}/report.html"' in html for r in runs)
    results = json.loads((folder / "results.json").read_text())
    assert [r["overrides"] for r in results["runs"]] == [
        {"sample.seed": a, "seed": b} for a in (1, 2) for b in (0, 1)
    ]

    before = {p: p.stat().st_mtime_ns for r in runs for p in (folder / r.name).rglob("*")}
    done = in_process(monkeypatch, folder, runs)
    assert command.run_sweep(words, config, folder, command.Options()) == 0
    assert done == []
    assert before == {p: p.stat().st_mtime_ns for r in runs for p in (folder / r.name).rglob("*")}

    # Other settings of the evaluation: all are measured again, none is trained again.
    more = tiny(**WHOLE | {"evaluate__num_samples": 24})
    runs = make_runs(load(words), more)
    assert not any(finished(folder, r) for r in runs)
    # Another training in the same folder is refused before anything runs.
    monkeypatch.setattr(command, "execute", None)
    assert command.run_sweep(words, tiny(train__steps=7), folder, command.Options()) == 2
    assert "belongs to a run of train.steps=6" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["finished.json", "result.json"])
@pytest.mark.parametrize("damaged", ["", "{", "[]", "null", '{"config": 3}', "\0"])
def test_a_run_whose_files_are_damaged_is_not_finished(name, damaged, tmp_path, capsys):
    (only,) = make_runs(load("seed=0"), tiny())
    where = tmp_path / only.name
    where.mkdir()
    done = {"seconds": 3.5, "config": json.loads(json.dumps(only.config.to_dict()))}
    entry = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 3, "passport": {}}
    (where / "finished.json").write_text(json.dumps(done))
    assert not finished(tmp_path, only)
    (where / "result.json").write_text(json.dumps({"frechet": entry}))
    assert finished(tmp_path, only)
    assert (seconds(tmp_path, only), headline(where, "frechet")) == (3.5, "frechet 1")
    capsys.readouterr()
    (where / name).write_text(damaged)
    for _ in range(2):  # as the screen looks each second
        assert not finished(tmp_path, only)
    assert capsys.readouterr().err.startswith(f"warning: {where / name} is damaged: ")


def test_a_report_without_the_config_of_a_run(tmp_path, capsys):
    (only,) = make_runs(load("seed=0"), tiny())
    entry = {"value": 1.0, "low": 0.5, "high": 1.5, "n": 3, "passport": {}}
    where = tmp_path / only.name
    where.mkdir()
    (where / "result.json").write_text(json.dumps({"frechet": entry}))
    (where / "config.json").write_text("{")
    report.write_reports(load("seed=0"), [only], [only], tmp_path)
    assert "**1**" in (tmp_path / "report.md").read_text()
    assert "<caption>Settings, the best first</caption>" in (tmp_path / "report.html").read_text()
    assert "config.json is damaged: its versions are not known" in capsys.readouterr().err


def test_parts_are_disjoint_and_whole(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(command, "_run_units", lambda mine, *a: asked.append(sorted(mine)))
    for part in ("0/3", "1/3", "2/3"):
        how = command.Options(part=part)
        command.run_sweep("seed=integers(0,9999,7)", tiny(), tmp_path, how)
    assert asked == [[0, 3, 6], [1, 4], [2, 5]]
    for part in ("3/3", "1", "a/b"):
        how = command.Options(part=part)
        assert command.run_sweep("seed=0", tiny(), tmp_path, how) == 2


def test_without_submitit_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "submitit", None)
    how = command.Options(submit="timeout_min=5")
    assert command.run_sweep("seed=0,1", tiny(), tmp_path, how) == 2
    assert "pip install submitit" in capsys.readouterr().err


def test_paired_differences_are_those_of_a_paired_t_test():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=7), rng.normal(0.5, 1, 7)
    found = paired_difference(a, b)
    theirs = scipy.stats.ttest_rel(a, b)
    low, high = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(found[:3], (np.mean(a - b), low, high))
    assert found.resolved == (theirs.pvalue < 0.05)
    assert np.isnan(paired_difference(a[:1], b[:1]).low)
    assert not paired_difference(a[:1], b[:1]).resolved
    assert paired_difference(a, a).needed == 0


def test_intervals_over_seeds_cover_and_enough_seeds_resolve():
    rng = np.random.default_rng(0)
    hits = [low <= 1 <= high for _, low, high in map(mean_interval, rng.normal(1, 2, (2000, 3)))]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)
    # A difference of 1 with a spread of 2: as many seeds as are asked for resolve it.
    pilot = rng.normal(size=5)
    pilot = 1 + 2 * (pilot - pilot.mean()) / pilot.std(ddof=1)
    needed = paired_difference(pilot, np.zeros(5)).needed
    resolved = [
        paired_difference(rng.normal(1, 2, needed), np.zeros(needed)).resolved for _ in range(1000)
    ]
    assert np.mean(resolved) == pytest.approx(0.8, abs=0.04)


def without_classes(monkeypatch, heldout=20):
    """Data for whose distances there are no features."""
    data = random_dataset()
    items = data.splits["heldout"].source
    few = Split(ArraySource(items.items[:heldout], items.labels[:heldout]))
    splits = {"train": data.splits["train"], "heldout": few}
    data = dataclasses.replace(data, class_names=(), splits=splits)
    monkeypatch.setattr(from_config.data, "load_dataset", lambda *a, **k: data)


def left_by(folder, run, heldout, frechet=None):
    """A finished run as its process leaves it."""
    where = folder / run.name
    where.mkdir(parents=True)
    passport = {"extractor": "x", "preprocessing": "none", "reference": "some"}
    left_out = {} if frechet else {"left_out": "noise has no classes"}
    entry = dict.fromkeys(("value", "low", "high"), frechet) | {"n": 5, "passport": passport}
    (where / "result.json").write_text(json.dumps({"frechet": entry | left_out}))
    rows = [{"step": 2, "loss": 1.0, "train_seconds": 1.0}, {"step": 6, "heldout/loss": heldout}]
    (where / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done = {"seconds": 1.0, "config": json.loads(json.dumps(run.config.to_dict()))}
    (where / "finished.json").write_text(json.dumps(done))
    about = {"versions": {}, "device": "none", "commit": "none"}
    (where / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "heldout", "metric", "says"),
    [
        ({}, 20, "frechet", "'frechet' is left out: noise has no classes.* by 'heldout/loss'"),
        ({}, 20, "accuracy", "'accuracy' is left out: .* by 'heldout/loss'"),
        ({}, 0, "frechet", "ranked by 'loss'"),
        ({"train__heldout_every": 0}, 20, "frechet", "ranked by 'loss'"),
        ({"train__heldout_every": 50}, 20, "frechet", "ranked by 'loss'"),
        (
            {"evaluate__metrics": "denoising"},
            20,
            "frechet",
            "evaluate.metrics lacks 'distances'",
        ),
        ({"evaluate__extractor": "entries"}, 20, "frechet", ""),
        ({"evaluate__extractor": "entries", "evaluate__num_samples": 3}, 9, "frechet", "4 samples"),
        ({}, 20, "denoising_gap", ""),
        ({}, 20, "denoising_gap_t0.10", ""),
        (
            {},
            1,
            "denoising_gap",
            "2 held-out images are needed, and there are 1.* by 'heldout/loss'",
        ),
        ({}, 20, "loss", ""),
        ({"evaluate__extractor": "entries"}, 20, "fd_infinite_entries", ""),
        ({}, 20, "fd", "'fd' is left out: noise has no classes"),
    ],
)
def test_a_metric_that_the_data_do_not_have_is_told_of_before_anything_is_trained(
    changes, heldout, metric, says, monkeypatch
):
    without_classes(monkeypatch, heldout)
    runs = make_runs(load("seed=0,1"), tiny(**{"train__heldout_every": 3} | changes))
    told = foretold(metric, check(runs[:1], 1))
    assert re.search(says, told)
    assert bool(says) == bool(told)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"workers": -1}, "workers=-1 must lie in [0, inf)"),
        ({"max_runs": 0}, "max_runs=0 must lie in [1, inf)"),
        ({"workers": 1.5}, "workers=1.5 must be a whole number"),
        ({"together": "often"}, "together='often' must be"),
    ],
)
def test_options_that_cannot_be(given, says):
    with pytest.raises(ValueError, match=f"^{re.escape(says)}"):
        command.Options(**given)


@pytest.mark.parametrize("unit", [-1, 2])
def test_a_unit_that_is_not_there(unit, tmp_path, capsys):
    how = command.Options(unit=unit)
    assert command.run_sweep("seed=0,1", tiny(), tmp_path, how) == 2
    assert f"--unit={unit} must be one of 0 to 1" in capsys.readouterr().err


def test_a_metric_that_no_run_has_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "execute", None)
    monkeypatch.setattr(command, "load", lambda words: Sweep("seed=0,1", metric="frechte"))
    assert command.run_sweep("", tiny(), tmp_path / "sweep", command.Options()) == 2
    assert re.search(
        "metric='frechte' is not a figure: did you mean 'frechet'", capsys.readouterr().err
    )
    assert not (tmp_path / "sweep").exists()


def test_settings_are_ranked_by_the_held_out_loss_where_the_metric_is_left_out(
    tmp_path, monkeypatch, capsys
):
    without_classes(monkeypatch)
    config = tiny(**WHOLE)
    runs = make_runs(load("sample.steps=4,5; seed=0,1"), config)

    def start(unit, place, log):
        left_by(tmp_path / "sweep", runs[unit], heldout=0.5 - 0.1 * unit)
        return Fake(0, 0)

    monkeypatch.setattr(command, "start_here", start)
    words = "sample.steps=4,5; seed=0,1"
    assert command.run_sweep(words, config, tmp_path / "sweep", command.Options()) == 0
    said = capsys.readouterr().out
    assert said.index("ranked by 'heldout/loss'") < said.index("done in")
    assert "heldout/loss 0.5" in said
    text = (tmp_path / "sweep" / "report.md").read_text()
    assert "**frechet is left out**: noise has no classes. Settings are ranked by the last" in text
    assert "By `heldout/loss` the best is **steps=5**: **0.25**" in text
    assert "](metric.png)" in text
    results = json.loads((tmp_path / "sweep" / "results.json").read_text())
    assert results["runs"][0]["result"] == {"heldout/loss": [0.5, None, None, None]}
    # Where only some of the runs are measured, it is of all.
    left_by(tmp_path / "other", runs[0], 0.5, frechet=3.0)
    left_by(tmp_path / "other", runs[2], 0.3)
    report.write_reports(Sweep(words), runs, [runs[0], runs[2]], tmp_path / "other")
    text = (tmp_path / "other" / "report.md").read_text()
    assert "**frechet is left out**: noise has no classes." in text


def test_what_points_are_expected_to_have():
    """No classifier can look at them, and none is asked for."""
    config = importlib.import_module("configs.points").get_config()
    data = load_points(Options("spiral"))
    assert not expected(config, data)["frechet"]
    config.evaluate.extractor, config.evaluate.metrics = "classifier", "field"
    assert expected(config, data)["frechet"] == "evaluate.metrics lacks 'distances'"
    assert not expected(config, data)["field_error"]
