"""Experiments on texts run small."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.data import (
    Dataset,
    Split,
    Tokens,
)
from diffusion_jax.data.sets.hidden_markov import WindowSource
from diffusion_jax.data.sets.windows import TextWindows
from diffusion_jax.types import Denoised
from tests.experiments.common import experiment, finite
from tests.runs import ROOT
from tests.tilted import Tilted


def kneser_ney(text: list[int], context: list[int], symbol: int, top: bool = True) -> float:
    """Its probability of a symbol of 5 by recursion, for counts that give no discounts."""
    k = len(context) + 1
    grams = [tuple(text[i : i + k]) for i in range(len(text) - k + 1)]
    before = {(text[i - 1], *gram) for i, gram in enumerate(grams) if i > 0}
    lower = kneser_ney(text, context[1:], symbol, top=False) if context else 1 / 5

    def count(gram: tuple[int, ...]) -> int:
        return grams.count(gram) if top else sum(each[1:] == gram for each in before)

    counts = [count((*context, each)) for each in range(5)]
    discounts = [(0, 0.5, 1, 1.5)[min(each, 3)] for each in counts]
    if not sum(counts):
        return lower
    return (counts[symbol] - discounts[symbol] + sum(discounts) * lower) / sum(counts)


def test_kneser_ney_by_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of seen and unseen contexts, and at the beginnings of rows; all sums are one."""
    n_grams, rng = experiment("text/kneser_ney"), np.random.default_rng(0)
    # Modified discounts, by hand: 4, 2, 1 and 1 grams with counts of 1 to 4, and so Y = 1 / 2.
    counts = np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])
    np.testing.assert_allclose(n_grams._discounts(counts), [0, 0.5, 1.25, 1])
    monkeypatch.setattr(n_grams, "_discounts", lambda counts: n_grams.FALLBACK)
    # Of 5 symbols, one of which it has not, and one has nothing after it.
    text = np.append(rng.integers(0, 3, 60), 3)
    model, rows = n_grams.KneserNey(text, 5, 4), rng.integers(0, 5, (9, 5))
    for order in (1, 2, 4):
        found = np.exp(-model.nats(rows, order))
        for row, values in zip(rows.tolist(), found, strict=True):
            expected = [
                kneser_ney(text.tolist(), row[max(i - order + 1, 0) : i], row[i], i >= order - 1)
                for i in range(len(row))
            ]
            np.testing.assert_allclose(values, expected)
        ends = [np.append(rows, np.full((9, 1), each), 1) for each in range(5)]
        total = sum(np.exp(-model.nats(end, order)[:, -1]) for end in ends)
        np.testing.assert_allclose(total, 1)


def test_kneser_ney_of_a_markov_source() -> None:
    """The trigrams of a source whose memory is of two symbols are its law; bigrams are not."""
    n_grams, rng = experiment("text/kneser_ney"), np.random.default_rng(0)
    law = rng.dirichlet(np.full(3, 0.7), (3, 3))
    text, steps = [0, 0], law.cumsum(-1)
    for u in rng.random(60_000):
        text.append(int(np.sum(steps[text[-2], text[-1]][:2] <= u)))
    train, held = np.array(text[:40_000]), np.array(text[40_000:])
    exact = -np.log(law[held[:-2], held[1:-1], held[2:]])
    model = n_grams.KneserNey(train, 3, 4)
    regret = {n: np.mean(model.nats(held[None], n)[0, 2:] - exact) for n in (2, 3, 4)}
    assert regret[2] > 0.05
    # About one half per free parameter and training symbol (asymptotic): 2.25e-4, and noise.
    assert -3e-4 < regret[3] < 1e-3
    assert regret[3] < regret[4] < 5e-3


def test_text_baselines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    baselines = experiment("text/baselines")
    out = tmp_path / "out.json"
    asked = ["baselines.py", "--out", str(out), "--length", "64"]
    monkeypatch.setattr(sys, "argv", [*asked, "--hidden_markov", "--size", "32768"])
    baselines.main()
    found = json.loads(out.read_text())
    for name in ("", "_windows"):
        least = found[f"entropy{name}"]["value"]
        assert least < found[f"kneser_ney{name}"]["value"] < least + 0.2
    assert found["entropy"]["value"] < found["entropy_windows"]["value"]
    assert found["kneser_ney"]["value"] < found["bz2"]["value"] < np.log2(27)
    if importlib.util.find_spec("pyppmd"):
        assert found["entropy"]["value"] < found["ppmd"]["value"] < found["bz2"]["value"]
    for name in ("train", "heldout"):
        (tmp_path / name).write_text(f"caf\u00e9 of {name}. " * 40)
        asked += [f"--{name}", str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", asked)
    baselines.main()
    found = json.loads(out.read_text())
    assert found["kneser_ney"]["alphabet"] == len(set("caf\u00e9 of train. heldout"))
    # Compressors learn the held-out text as they read it, and n-grams do not.
    assert found["bz2"]["value"] < 1 < 2 < found["kneser_ney"]["value"]


def test_intervals_over_seeds_and_windows() -> None:
    """Of sums of an effect of the seed and one of the window: both variances, each by its t."""
    figures, rng = experiment("text/trained_report"), np.random.default_rng(0)
    seeds, texts = rng.normal(size=3), rng.normal(size=50)
    value, low, high = figures.over_both(seeds[:, None] + texts)
    assert value == pytest.approx(seeds.mean() + texts.mean())
    # The 97.5% quantiles of Student's t with 2 and with 49 degrees of freedom.
    parts = 4.302653 * seeds.std(ddof=1) / 3**0.5, 2.009575 * texts.std(ddof=1) / 50**0.5
    assert high - value == pytest.approx(np.hypot(*parts), rel=1e-6)
    assert value - low == pytest.approx(high - value)
    _, low, high = figures.over_both(texts[None])
    assert (high - low) / 2 == pytest.approx(parts[1], rel=1e-6)


def test_a_step_of_a_block_costs_twice_as_much() -> None:
    """Nearly: the first and the last layer see the noisy tokens or all of them."""
    trained, folder = experiment("text/trained"), Path()
    small = {"model.dit.hidden_size": 16, "model.dit.depth": 2, "data.length": 16}
    job = trained.Job("hidden_markov", 400, "", folder, {**small, "objective.block.size": 4})
    assert job.steps_of("masked") == job.steps_of("autoregressive") == 400
    assert 180 < job.steps_of("block") < 240


@pytest.mark.slow
def test_trained_networks_of_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two studies with small networks, what one of them fills in, and one in a field."""
    trained, infilling = experiment("text/trained"), experiment("text/infilling")
    baselines, figures = experiment("text/baselines"), experiment("text/trained_report")
    monkeypatch.setattr(trained, "addresses", lambda *_: letters())
    monkeypatch.setattr(baselines, "ORDERS", (1, 2))
    monkeypatch.setattr(baselines, "PPMD_ORDERS", (2,))
    small = {"model.dit.hidden_size": 16, "model.dit.depth": 1, "train.batch_size": 4}
    small |= {"evaluate.bits.num_texts": 6, "evaluate.bits.levels": 2, "sample.steps": 4}
    small |= {"data.length": 8, "objective.block.size": 2}
    asked = ["trained.py", "--steps", "8", "--workdir", str(tmp_path), "--out", str(tmp_path)]
    asked += ["--set", *(f"{key}={value}" for key, value in small.items())]
    studies = {"hidden_markov": ("masked",), "many_epochs": ("masked", "autoregressive", "block")}
    for study, names in studies.items():
        for name in ("baselines", *(f"{each}_0" for each in names)):
            monkeypatch.setattr(sys, "argv", [*asked, "--only", name, "--study", study])
            trained.main()
        found = figures.summary(tmp_path / study, [*trained.OBJECTIVES])
        trained.add(tmp_path / "trained.json", study, found)
        assert {*found["objectives"]} == {*names}
        # Little but the frequencies of letters can be learned in eight steps.
        bits = [each for entry in found["objectives"].values() for each in entry["bits"]]
        assert finite(bits)
        assert all(3 < value < 6 for value, *_ in bits)
    assert len(found["baselines"]) >= 3
    monkeypatch.setattr(sys, "argv", ["infilling.py", "--out", str(tmp_path), "--num", "3"])
    monkeypatch.setattr(infilling, "GAPS", {"3": infilling.run_of(3)})
    sys.argv += ["--workdir", str(tmp_path / "hidden_markov/masked_0")]
    infilling.main()
    (gap,) = json.loads((tmp_path / "infilling.json").read_text())["gaps"].values()
    assert (gap["changed"], gap["known"]) == (0, 15)
    assert gap["kl"][0] > 1
    magnet = experiment("magnet/trained")
    monkeypatch.setattr(magnet, "load_dataset", lambda *_, **__: letters(("old", "new")))
    monkeypatch.setattr(magnet, "FIELDS", (0.0, 2.0))
    monkeypatch.setattr(magnet, "WORDS", ("a", "b"))
    asked = ["trained.py", "--runs", str(tmp_path / "many_epochs"), "--manual_dir", ""]
    monkeypatch.setattr(sys, "argv", [*asked, "--num", "2", "--out", str(tmp_path)])
    monkeypatch.setattr(magnet, "RESULTS", "magnet.json")
    magnet.main()
    rows = json.loads((tmp_path / "magnet.json").read_text())["rows"]
    assert [(row["magnet"], row["h"], row["particles"]) for row in rows] == [
        (name, *rest)
        for name in ("words", "old", "new")
        for rest in ((0, 1), (2, 1), (2, magnet.PARTICLES))
    ]
    assert finite([[row["m"], row["bits"], row["ess"]] for row in rows])
    monkeypatch.setattr(magnet, "drawn", lambda *_: pytest.fail("a row is repeated"))
    magnet.main()
    sys.argv += ["--num", "3"]
    with pytest.raises(SystemExit, match="or of another --num"):
        magnet.main()


def test_published_figures_of_networks_of_texts() -> None:
    """The page has the tables of the results."""
    figures, folder = experiment("text/trained_report"), ROOT / "experiments/text"
    page = (folder / "trained.md").read_text().splitlines()
    for study in json.loads((folder / "trained.json").read_text()).values():
        assert set(figures.report(study)) <= set(page)


def letters(class_names: tuple[str, ...] = ()) -> Dataset:
    """Random letters and blanks in windows of 8, of a text of each class."""
    rng = np.random.default_rng(0)
    texts = {str(label): rng.integers(0, 20, 8192) for label in range(2)}
    windows = {
        name: Split(TextWindows.of(texts, {"0": 0, "1": 1}, 8, fixed=name == "heldout"))
        for name in ("train", "heldout")
    }
    return Dataset("texts", Tokens((8,), tuple(" abcdefghijklmnopqrs")), windows, class_names)


def test_words_that_tell_an_era() -> None:
    magnet = experiment("magnet/trained")
    texts = ["the ship and the sail of the sea", "the bank and the coin of the bank "]
    assert set(magnet.marks(texts, 0, "abc")[:2]) == {"ship", "sail"}
    assert magnet.marks(texts, 1, "abc")[0] == "bank"
    assert magnet.marks(texts, 0, [" ", " sail", "ship"])[0] == "sail"
    count = magnet.counting(["a", "bc"], tuple(" abc"))
    x = jnp.array([[0, 1, 0, 1, 0, 2, 3, 0], [1, 0, 2, 3, 0, 1, 2, 3]])
    np.testing.assert_allclose(count(jax.nn.one_hot(x, 4)), [3, 1])
    count = magnet.counting(["bc"], [" bc", "a", "b", "c"])
    np.testing.assert_allclose(count(jax.nn.one_hot(x, 4)), [4, 2])


def test_divergence_of_a_uniform_law() -> None:
    """It is log2 V less the entropy, and none of the true law from itself."""
    infilling, source = experiment("text/infilling"), experiment("magnet/source")
    x, _ = WindowSource(source.LAW, 12, 3, seed=0).gather(np.arange(3))
    x_t = np.where(np.arange(12) % 3 == 1, infilling.MASK, x)
    exact = source.denoiser(np.zeros((12, len(source.LETTER))))

    def uniform(x_t: Any, t: Any, cond: Any) -> Denoised:
        return Denoised(jnp.full((*x_t.shape, 27), -np.log(27)))

    entropy, off = infilling.divergence(exact, uniform, x_t)
    np.testing.assert_allclose(entropy + off, np.log2(27), atol=1e-5)
    assert np.all((entropy > 0) & (entropy < 3))
    np.testing.assert_allclose(infilling.divergence(exact, exact, x_t)[1], 0, atol=1e-6)


def test_the_source_in_a_field() -> None:
    """The few transitions of the language give its exact denoiser; fields are those of the text."""
    source, exact = experiment("magnet/source"), experiment("magnet/exact")
    length, rng = 10, np.random.default_rng(0)
    for name, make in source.MAGNETS.items():
        magnet = make(length)
        law = Tilted(source.LAW, 1.5 * magnet.field)
        x = law.sample(400, seed=0)
        texts = ["".join(source.ALPHABET[token] for token in row) for row in x]
        right = {
            "letters": [sum(text.count(letter) for letter in source.LETTERS) for text in texts],
            "words": [len(re.findall(r" (?=(sea|ship|fish) )", text)) for text in texts],
        }[name]
        m = np.asarray(magnet.attribute(jax.nn.one_hot(x, len(source.ALPHABET))))
        np.testing.assert_allclose(m, right)
        (mean,), error = exact.curve(magnet, np.array([1.5]))["m"], m.std() / 20
        assert abs(m.mean() - mean) < 4 * error
        x_t = jnp.asarray(np.where(rng.random((4, length)) < 0.6, source.PROCESS.mask, x[:4]))
        found = source.denoiser(1.5 * magnet.field)(x_t, jnp.ones(4), {}).x_0
        np.testing.assert_allclose(jnp.exp(found), jnp.exp(law.of_masked(x_t, None, {})), atol=1e-5)


@pytest.mark.slow
def test_a_magnet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = experiment("magnet/exact")
    methods = ("correct field", "naive field, t below 0.5", "4 particles")
    monkeypatch.setattr(exact, "METHODS", {name: exact.METHODS[name] for name in methods})
    monkeypatch.setattr(exact, "FIELDS", {"words": (2.0,)})
    asked = ["exact.py", "--length", "8", "--num", "2", "--seeds", "1", "--points", "3"]
    monkeypatch.setattr(sys, "argv", [*asked, "--out", str(tmp_path)])
    exact.main()
    found = json.loads((tmp_path / "results.json").read_text())
    assert [row["method"] for row in found["rows"]] == ["exact", *methods]
    assert finite([[row["m"], row["bits"]] for row in found["rows"]])
    assert (tmp_path / "magnetisation.png").stat().st_size


def test_published_figures_of_the_magnet() -> None:
    """The page has the tables of the results; the correct field has the exact magnetisation."""
    exact, folder = experiment("magnet/exact"), ROOT / "experiments/magnet"
    found = json.loads((folder / "results.json").read_text())
    assert set(exact.tables(found)) <= set((folder / "README.md").read_text().splitlines())
    rows = {(row["magnet"], row["h"], row["method"]): row for row in found["rows"]}
    for (name, h, method), row in rows.items():
        if method == "exact":
            _, low, high = rows[name, h, "correct field"]["m"]
            assert low < row["exact"] < high
    trained = json.loads((folder / "trained.json").read_text())
    lines = experiment("magnet/trained").tables(trained)
    assert set(lines) <= set((folder / "README.md").read_text().splitlines())
