"""Claims of the essays, measured on the model of a run. See README.md."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import logging

from diffusion_jax.system.pictures import save_png, tile
from diffusion_jax.system.runtime import enable_compilation_cache
from experiments.essays import starts, states
from experiments.essays.bench import Bench, opened, rounded

Measure = Callable[[Bench, int], tuple[dict, dict[str, np.ndarray]]]
CLAIMS: dict[str, Measure] = {
    "start": starts.start,
    "sorites": states.sorites,
    "walk": starts.walk,
    "destination": states.destination,
    "decided": states.decided,
    "inversion": states.inversion,
    "completions": states.completions,
}
RESULTS = "results.json"


def add(out: Path, claim: str, name: str, found: dict) -> None:
    """Puts what was found of a claim with a model into the results beside the others."""
    path = out / RESULTS
    results = json.loads(path.read_text()) if path.exists() else {}
    results.setdefault(claim, {})[name] = rounded(found)
    path.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    """Measure claims; write results and pictures beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("claims", nargs="+", choices=CLAIMS)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--name", required=True, help="of the model in the results")
    parser.add_argument("--num", type=int, default=1000, help="pictures, at most")
    parser.add_argument("--pictures", action="store_true", help="also write them")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    bench = opened(args.workdir)
    for claim in args.claims:
        found, pictures = CLAIMS[claim](bench, args.num)
        add(args.out, claim, args.name, found)
        print(claim, json.dumps(rounded(found)), flush=True)
        for name, images in pictures.items() if args.pictures else ():
            path = args.out / f"{name}_{args.name}.png"
            save_png(path, tile(images, 10), {**bench.model.made_by(0), "claim": claim})


if __name__ == "__main__":
    main()
