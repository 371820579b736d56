"""Compares what a trained masked network fills into gaps with the law of the source itself.

    PYTHONPATH=. python experiments/text/infilling.py --workdir runs/text/hidden_markov/masked_0

See trained.md.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from diffusion_jax.generation.starts import Start
from diffusion_jax.metrics import intervals
from diffusion_jax.run import Trained, open_run
from diffusion_jax.system.files import write_whole
from diffusion_jax.system.runtime import enable_compilation_cache
from diffusion_jax.types import Denoiser
from experiments.magnet.source import ALPHABET, LAW, LETTER, PROCESS, denoiser
from experiments.restoration.report import table
from experiments.text.trained_report import number

HERE = Path(__file__).parent
RESULTS = "infilling.json"
MASK = len(ALPHABET)


def run_of(size: int) -> Callable[[np.random.Generator, int], np.ndarray]:
    """A gap of so many letters in a row, anywhere: `(rng, L) -> bool [L]`."""

    def hide(rng: np.random.Generator, length: int) -> np.ndarray:
        first = rng.integers(length - size + 1)
        place = np.arange(length)
        return (place >= first) & (place < first + size)

    return hide


GAPS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "1 letter": run_of(1),
    "4 letters in a row": run_of(4),
    "16 letters in a row": run_of(16),
    "half of all, at random": lambda rng, length: rng.permutation(length) < length // 2,
}
"""What is hidden."""


def divergence(exact: Denoiser, ours: Denoiser, x_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of what is hidden in each text `[N, L]`, by letter: entropy, and KL from it to ours, in bits.

    Both are means over the hidden letters, `[N]`, of the law of one letter given all that is known.
    """
    t = jnp.ones(len(x_t))
    log_p, log_q = (
        np.asarray(jax.jit(of)(jnp.asarray(x_t), t, {}).x_0, np.float64) for of in (exact, ours)
    )
    p, hidden = np.exp(log_p), x_t == MASK
    found = [
        np.where(hidden, np.sum(p * each, axis=-1), 0).sum(1) / hidden.sum(1) / np.log(2)
        for each in (-log_p, log_p - log_q)
    ]
    return found[0], found[1]


def filled(trained: Trained, x_t: np.ndarray) -> np.ndarray:
    """Texts `[N, L]` with their gaps filled by the sampler of the run."""
    start = Start(lambda process, keys, shape, t: jnp.asarray(x_t), "texts with gaps")
    return trained.replace(start=start).items(0, np.arange(len(x_t)), {})[0]


def of_gap(trained: Trained, name: str, x: np.ndarray) -> dict[str, Any]:
    """Figures of one kind of gaps in the texts `x` `[N, L]`."""
    rng = np.random.default_rng(0)
    hidden = np.stack([GAPS[name](rng, x.shape[1]) for _ in x])
    x_t = np.where(hidden, MASK, x)
    exact = denoiser(np.zeros((x.shape[1], len(LETTER))))
    entropy, off = divergence(exact, trained.draws.denoiser(trained.params), x_t)
    drawn = filled(trained, x_t)
    possible = np.isfinite(LAW.log_prob(drawn))
    return {
        "entropy": intervals.mean(entropy),
        "kl": intervals.mean(off),
        "possible": intervals.wilson(float(possible.mean()), len(x)),
        "changed": int(np.sum((drawn != x) & ~hidden)),
        "known": int(np.sum(~hidden)),
    }


def report(results: dict[str, Any]) -> list[str]:
    """The table of the results."""
    rows = [
        [
            *(name, number(row["entropy"]), number(row["kl"]), number(row["possible"])),
            f"{row['changed']:,} of {row['known']:,}",
        ]
        for name, row in results["gaps"].items()
    ]
    head = ("hidden", "entropy", "KL to the network", "share of possible texts", "known changed")
    return table(head, rows)


def main() -> None:
    """Writes `infilling.json`, and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of a masked network")
    parser.add_argument("--num", type=int, default=256, help="held-out texts")
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    trained = open_run(asked.workdir, batch_size=asked.num)
    assert trained.draws.process == PROCESS
    x, _ = trained.run.parts.dataset.splits["heldout"].gather(np.arange(asked.num))
    results = {"num": asked.num, "step": trained.step}
    results["gaps"] = {name: of_gap(trained, name, x) for name in GAPS}
    write_whole(asked.out / RESULTS, (json.dumps(results, indent=1) + "\n").encode())
    print("\n".join(report(results)))


if __name__ == "__main__":
    main()
