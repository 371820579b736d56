"""Curves of a training, from its `metrics.jsonl`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffusion_jax.system.files import written_whole


def plot_curves(metrics: Path, out: Path) -> float:
    """Plots the loss over steps and the held-out error by noise level; returns training seconds.

    No PNG `out` is written if nothing was logged; `metrics`, a run's `metrics.jsonl`, may be
    missing, e.g. if only checkpoints were copied.
    """
    rows = read_rows(metrics) if metrics.is_file() else []
    rows = list({(row["step"], tuple(sorted(row))): row for row in rows}.values())
    losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    heldout = [row for row in rows if "heldout/loss" in row]
    if losses:
        _draw(losses, heldout, out)
    return sum(row.get("train_seconds", 0.0) for row in rows)


def read_rows(metrics: Path) -> list[dict[str, float]]:
    """The logged rows in order; damaged lines are left out with a warning."""
    rows, damaged = [], 0
    for line in metrics.read_bytes().splitlines():
        try:
            row = json.loads(line)
            rows.append({"step": row["step"], **{name: float(row[name]) for name in row}})
        except (KeyError, TypeError, ValueError):
            damaged += 1
    if damaged:
        print(f"warning: {metrics}: {damaged} damaged lines are left out", file=sys.stderr)
    return rows


def _draw(
    losses: Sequence[tuple[float, float]], heldout: Sequence[Mapping[str, float]], out: Path
) -> None:
    from matplotlib.figure import Figure

    prefix = "heldout/error_t"
    by_level = any(key.startswith(prefix) for row in heldout for key in row)
    figure = Figure(figsize=(5 + 5 * by_level, 3.5), layout="constrained")
    axes = figure.subplots(1, 1 + by_level, squeeze=False)[0]
    left, right = axes[0], axes[-1]
    left.plot(*zip(*losses, strict=True), label="training")
    left.plot(
        [row["step"] for row in heldout], [row["heldout/loss"] for row in heldout], "o-",
        label="held-out, EMA",
    )  # fmt: skip
    scale = "log" if any(loss > 0 for _, loss in losses) else "linear"
    left.set(xlabel="step", ylabel="loss", yscale=scale)
    left.legend()
    if by_level:
        for row in heldout[:: -max(1, len(heldout) // 4)][::-1]:  # about 4, including the last
            levels = [
                (float(k.removeprefix(prefix)), v) for k, v in row.items() if k.startswith(prefix)
            ]
            right.plot(*zip(*sorted(levels), strict=True), "o-", label=f"step {row['step']:.0f}")
        right.set(xlabel="t (0 clean, 1 noise)", ylabel="held-out error", yscale="log")
        right.legend()
    with written_whole(out) as part:
        figure.savefig(part, format="png", dpi=110)
