"""Compares posterior sampling of the package, azula and deepinv where the posterior is known.

See README.md. Adds to `results.json` next to this file as it goes.
"""

import argparse
import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from diffusion_jax.metrics.intervals import bootstrap
from diffusion_jax.system.runtime import enable_compilation_cache
from experiments.restoration import ours, theirs
from experiments.restoration.problems import (
    DIMS,
    MEASURES,
    SIGMAS,
    Case,
    case,
    draw,
    measured,
    operators,
)

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results.json"
FEW, MANY = 100, 400
"""Evaluations per sample: of all methods, and of the best on each side."""
BEST = 3
NUM, SIZE = 8, 100
"""Observations of each case, and samples for each of them."""
SEARCHED = 2
"""Other observations, on which settings are chosen."""
FLOORS = 3
"""Sets of exact samples for each observation, to which samples are compared."""
Row = dict[str, Any]
Run = Callable[[Case, str, int, int, dict[str, Any]], np.ndarray]
"""`(case, method, evaluations, size, setting) -> samples [N size, D]`."""


def run_theirs(
    seen: Case, name: str, evaluations: int, size: int, setting: dict[str, Any]
) -> np.ndarray:
    """As `ours.run`."""
    tensor = functools.partial(torch.tensor, dtype=torch.float32)
    law = seen.prior
    mean, cov = law.moments()
    task = theirs.Task(
        theirs.mixture_denoiser(law.weights, law.means, law.covs),
        tensor(seen.matrix), seen.sigma, tensor(seen.y), size, tensor(mean), tensor(cov),
    )  # fmt: skip
    return theirs.run(task, name, evaluations, setting)


SIDES: dict[str, tuple[Run, dict[str, Any]]] = {
    "ours": (ours.run, ours.METHODS),
    "theirs": (run_theirs, theirs.METHODS),
}


def floors(seen: Case, size: int) -> np.ndarray:
    """The measures of exact samples, in the mean over some sets: `[N, 4]`."""
    rng = np.random.default_rng(2)
    sets = [measured(seen, lambda i: draw(seen.posteriors[i], size, rng)) for _ in range(FLOORS)]
    return np.mean(sets, axis=0)


def row_of(seen: Case, name: str, found: np.ndarray, floor: np.ndarray, **more: Any) -> Row:
    """The means of measures `[N, 4]` over observations.

    The distance is that above the floor, `sqrt(W^2 - floor^2)`, and negative where it is below.
    """
    found = found.copy()
    found[:, 0] = np.sign(excess := found[:, 0] - floor[:, 0]) * np.sqrt(np.abs(excess))
    figures: dict[str, list[float] | None] = {}
    for measure, values in zip(MEASURES, found.T, strict=True):
        if np.isfinite(values).all():
            figures[measure] = [float(f"{v:.4g}") for v in bootstrap(np.mean, values, 500)]
        else:
            figures[measure] = None
    return {"case": seen.name, "method": name, **more, **figures}


def bounds(seen: Case, size: int, floor: np.ndarray) -> list[Row]:
    """Exact samples of the posterior, and of the prior."""
    rng = np.random.default_rng(3)
    blind = measured(seen, lambda _: draw(seen.prior, size, rng))
    again = measured(seen, lambda i: draw(seen.posteriors[i], size, rng))
    exact = row_of(seen, "exact samples", again, floor, of_exact=float(np.sqrt(floor[:, 0]).mean()))
    return [exact, row_of(seen, "prior", blind, floor)]


def compare(
    side: str, seen: Case, other: Case, floor: np.ndarray, size: int, few: int, many: int
) -> list[Row]:
    """All methods of a side on `seen`, with settings chosen on `other`."""
    run, methods = SIDES[side]
    rows: list[Row] = []
    chosen: list[tuple[float, str, int]] = []

    def add(name: str, evaluations: int, setting: dict[str, Any], **more: Any) -> None:
        began = time.monotonic()
        x = run(seen, name, evaluations, size, setting).reshape(len(seen.y), size, -1)
        more["seconds"] = round(time.monotonic() - began, 2)
        found = measured(seen, x.__getitem__)
        words = ", ".join(f"{key}={value}" for key, value in setting.items())
        at = {"side": side, "setting": words, "evaluations": evaluations}
        rows.append(row_of(seen, name, found, floor, **at, **more))

    for name, method in methods.items():
        if method.masks_only and seen.operator != "mask":
            continue
        errors = []
        for setting in method.settings:
            x = run(other, name, few, size, setting).reshape(len(other.y), size, -1)
            errors.append(float(measured(other, x.__getitem__)[:, 0].mean()))
        best = int(np.argmin(errors))
        add(name, few, method.settings[0], default=True, chosen=best == 0)
        if best:
            add(name, few, method.settings[best], default=False, chosen=True)
        chosen.append((errors[best], name, best))
    for _, name, best in sorted(chosen)[:BEST]:
        add(name, many, methods[name].settings[best], default=best == 0, chosen=True)
    return rows


def add_to(path: pathlib.Path, rows: list[Row]) -> None:
    """Writes rows in place of those of the same case and side."""
    result = json.loads(path.read_text()) if path.exists() else {}
    new = {(row["case"], row.get("side")) for row in rows}
    before = [r for r in result.get("rows", []) if (r["case"], r.get("side")) not in new]
    result["rows"] = before + rows
    path.write_text(lines(result))


def main() -> None:
    """Runs the comparison case by case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    parser.add_argument("--dims", type=int, nargs="*", default=DIMS)
    parser.add_argument("--num", type=int, default=NUM)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--few", type=int, default=FEW)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--out", type=pathlib.Path, default=RESULTS)
    args = parser.parse_args()
    enable_compilation_cache()
    torch.set_num_threads(1)
    for dim in args.dims:
        for operator in operators(dim):
            for sigma in SIGMAS:
                began = time.monotonic()
                seen = case(dim, operator, sigma, args.num, seed=0)
                other = case(dim, operator, sigma, min(args.num, SEARCHED), seed=1)
                floor = floors(seen, args.size)
                rows = bounds(seen, args.size, floor)
                for side in args.sides:
                    rows += compare(side, seen, other, floor, args.size, args.few, args.many)
                add_to(args.out, rows)
                print(f"{seen.name}: {time.monotonic() - began:.0f} s", flush=True)


def lines(result: dict[str, Any]) -> str:
    """JSON with a line for each row."""
    rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
    rest = {key: value for key, value in result.items() if key != "rows"}
    return f'{json.dumps(rest)[:-1]}{", " if rest else ""}"rows": [\n  {rows}\n]}}\n'


if __name__ == "__main__":
    main()
