"""Restores windows of held-out photographs with a trained prior. See photographs.md.

First `--choose` settings on training photographs, then measure on those that are held out.
"""

import argparse
import functools
import importlib
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from configs import default
from diffusion_jax.data import to_float
from diffusion_jax.data.sets.photographs import Patches
from diffusion_jax.diffusion.corruption import fold_in, sample_keys
from diffusion_jax.evaluation.perceptual import load_stlpips, packaged
from diffusion_jax.metrics import intervals
from diffusion_jax.metrics.fidelity import psnr, ssim
from diffusion_jax.restoration.decay import Decay, DecayedImage, random_fading
from diffusion_jax.restoration.linear import Composed, Downscale, GaussianBlur
from diffusion_jax.restoration.operators import Identity, Mask, Observation
from diffusion_jax.restoration.projections import with_known
from diffusion_jax.run import open_run
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.runtime import enable_compilation_cache
from experiments.restoration.calibration import Model, Setting, of_trained, rounded, sampler_of

HERE = Path(__file__).parent
EVALUATIONS = 30
"""Of each sample: a forward pass is one, a backward pass another."""
TOGETHER = 8
"""Samples in one batch."""
BINS = 10
"""Of the spread per pixel, with as many pixels each."""
SEEN_LEVEL = 12
"""Of 255: where a picture of the other simulator differs by more in a channel, it is masked."""
TRIES = 12
"""Masks of decay that are drawn for each window, until one hides neither nothing nor all."""
METRICS = "PSNR", "SSIM", "ST-LPIPS"
BOXES, SCRATCHES, DECAYED, OTHERS = "boxes", "scratches", "decay", "augraphy"
DEBLURRING, UPSCALING, DENOISING, MIXED = "deblurring", "4x", "denoising", "mixed decay"
MASKED = BOXES, SCRATCHES, DECAYED, OTHERS
CHOSEN_ON = BOXES, DEBLURRING, DENOISING
"""Tasks on whose mean PSNR a setting of a method is chosen."""
DEFAULT, CONDITIONAL, FOUND = "PiGDM", "conditional network", "found mask"


class Case(NamedTuple):
    """Windows of photographs, `[N, H, W, 3]` in [-1, 1], and what is seen of them."""

    task: str
    x: np.ndarray
    given: Observation
    photograph: np.ndarray  # int `[N]`
    picture: np.ndarray | None = None  # decayed, with what `given` leaves out; `[N, H, W, 3]`

    def part(self, rows: Any) -> "Case":
        """Some of the windows."""
        some = jax.tree.map(lambda a: np.asarray(a)[rows], self[1:])
        return Case(self.task, *some)


class Method(NamedTuple):
    """A way to restore: `run(case, **setting) -> [N, K, H, W, 3]`, K samples of each window."""

    run: Callable[..., np.ndarray]
    settings: list[dict[str, Any]]  # the first is the default; the best one is chosen
    tasks: tuple[str, ...]
    windows: int = 10**6  # of each photograph, at most


def windows(source: Patches, num: int, photographs: int = 0) -> tuple[np.ndarray, ...]:
    """Windows uint8 of each photograph, its number and the rows: `[N, ...]`, photograph by turn."""
    of = source.cells[:, 0]
    each = [np.flatnonzero(of == i)[:num] for i in range(len(source.names))]
    rows = np.stack(each[: photographs or None], axis=1).ravel()
    return source.gather(rows)[0], of[rows], rows


def boxes(rng: np.random.Generator, side: int) -> np.ndarray:
    """A mask `[H, W, 1]` that is 0 in two boxes of a sixth to a third of the side."""
    known = np.ones((side, side, 1), np.float32)
    for _ in range(2):
        sizes = rng.integers(side // 6, side // 3 + 1, 2)
        top, left = rng.integers(0, side - sizes + 1)
        known[top : top + sizes[0], left : left + sizes[1]] = 0
    return known


def observed(operator: Any, x: Any, sigma: float, seed: int) -> Observation:
    """`y = A(x) + sigma eps`."""
    y = operator(jnp.asarray(x))
    noise = np.random.default_rng(seed).normal(size=y.shape)
    return Observation(y + sigma * jnp.float32(noise), operator, jnp.full(len(x), sigma))


def cases(pixels: np.ndarray, photograph: np.ndarray, seed: int) -> dict[str, Case]:
    """Every task on windows uint8 `[N, H, W, 3]`, but for decay that others made."""
    x, num = to_float(pixels), len(pixels)
    keys, ones = sample_keys(make_key(seed), jnp.arange(num)), jnp.ones(num)
    rng = np.random.default_rng(seed)
    hidden = jnp.stack([boxes(rng, x.shape[1]) for _ in x])
    scratches = _decayed(x, keys, 1.0, ("scratches",)).destroyed
    lost = _decayed(x, keys, 1.0, ("scratches", "dust", "tears", "creases")).destroyed
    old = default.get_config().restore.decay
    print_ = Composed(GaussianBlur(ones), random_fading(keys, 0.7 * ones, 3))
    seen = {
        BOXES: (Mask(hidden), 0.0),
        SCRATCHES: (Mask(1 - scratches), 0.0),
        DEBLURRING: (GaussianBlur(1.5 * ones), 0.02),
        UPSCALING: (Downscale(4), 0.02),
        DENOISING: (Identity(), 0.2),
        MIXED: (Composed(Mask(1 - lost), print_), 0.05),
    }
    found = {
        task: Case(task, x, observed(operator, x, sigma, seed + i), photograph)
        for i, (task, (operator, sigma)) in enumerate(seen.items())
    }
    image, destroyed = _decayed(x, keys, old.severity, tuple(old.kinds))
    return found | {DECAYED: masked(DECAYED, x, image, 1 - destroyed, 0.0, photograph)}


def _decayed(x: np.ndarray, keys: Any, severity: float, kinds: tuple[str, ...]) -> DecayedImage:
    """By the first key that destroys at least 2% and at most 40% of a window.

    Each kind is there in half of the samples only.
    """
    decay = jax.jit(Decay(jnp.full(len(x), severity), kinds).__call__)
    made = [decay(jnp.asarray(x), fold_in(keys, i)) for i in range(TRIES)]
    image, destroyed = (np.stack(arrays) for arrays in zip(*made, strict=True))
    share = destroyed.mean((2, 3, 4))
    first = np.argmax((share >= 0.02) & (share <= 0.4), axis=0), np.arange(len(x))
    return DecayedImage(jnp.asarray(image[first]), jnp.asarray(destroyed[first]))


def masked(
    task: str, x: np.ndarray, image: Any, known: Any, sigma: float, photograph: np.ndarray
) -> Case:
    """A decayed picture of `x`, both in [-1, 1], of which so much is known, 0 or 1."""
    known = jnp.asarray(known, jnp.float32)
    given = Observation(known * image, Mask(known), jnp.full(len(x), sigma))
    return Case(task, x, given, photograph, np.asarray(image))


def differs(image: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Whether uint8 pictures `[..., C]` differ by more than `SEEN_LEVEL`: bool `[..., 1]`."""
    return np.asarray(np.abs(image.astype(int) - x).max(-1, keepdims=True) > SEEN_LEVEL)


def decayed_by(task: str, x: np.ndarray, image: np.ndarray, photograph: np.ndarray) -> Case:
    """Pictures uint8 that another simulator made of `x` uint8, masked where they differ."""
    known = ~differs(image, x)
    return masked(task, to_float(x), to_float(image), known, 0.02, photograph)


SETTINGS = {
    DEFAULT: Setting("pigdm", 2, sampler="dpmpp_sde"),
    "MMPS": Setting("mmps", 4, {"iterations": 2}, "dpmpp_sde"),
    "DiffPIR": Setting("diffpir", 1),
    "DDRM": Setting("ddrm", 1),
    "DAPS": Setting("daps", 5),
    CONDITIONAL: Setting("as_trained", 1, sampler="dpmpp_sde"),
}


class Ours:
    """Samples by the methods of the package, of a trained model."""

    def __init__(self, model: Model, particles: int, evaluations: int) -> None:
        self._model, self._particles, self._evaluations = model, particles, evaluations
        self._programs: dict[Any, Callable] = {}

    def methods(self, few: int) -> dict[str, Method]:
        """By name; all but the default on at most `few` windows of each photograph."""
        linear = (*MASKED, DEBLURRING, UPSCALING, DENOISING)
        tried = {
            DEFAULT: [{"data_std": std} for std in (0.5, 0.2)],
        }
        return {
            name: Method(
                functools.partial(self.samples, name),
                tried.get(name, [{}]),
                linear if name == "DDRM" else (*linear, MIXED),
                10**6 if name == DEFAULT else few,
            )
            for name in SETTINGS
            if name != CONDITIONAL
        }

    def samples(self, name: str, case: Case, **own: Any) -> np.ndarray:
        """`[N, K, H, W, 3]`; what is known exactly stays as it is."""
        setting, key = SETTINGS[name], (name, *own.items())
        if key not in self._programs:
            setting = setting._replace(own={**setting.own, **own}, particles=self._particles)
            self._programs[key] = sampler_of(self._model, setting, self._evaluations, 1.0)
        found, num, size = [], len(case.x), TOGETHER // self._particles
        for start in range(0, num, size):
            index = np.arange(start, start + size)
            given = case.part(index % num).given
            every = (index[:, None] * self._particles + np.arange(self._particles)).ravel()
            x = self._programs[key](given, sample_keys(make_key(1), jnp.asarray(every)))
            repeated = jax.tree.map(lambda a: np.repeat(a, self._particles, 0), given)
            kept = with_known(x.reshape(-1, *x.shape[2:]), repeated)
            found.append(np.clip(np.asarray(kept).reshape(x.shape), -1, 1))
        return np.concatenate(found)[:num]


def scores(x: np.ndarray, found: np.ndarray, distance: Callable | None) -> np.ndarray:
    """`[N, metrics]` of pictures in [-1, 1]; PSNR and SSIM with black at 0."""
    unit = (found + 1) / 2, (x + 1) / 2
    columns = [psnr(*unit, 1.0), ssim(*unit, 1.0)]
    if distance:
        columns.append(np.asarray(distance(found.astype(np.float32), x)))
    return np.stack(columns, axis=1)


def first_of(photograph: np.ndarray, num: int) -> np.ndarray:
    """Rows of the first `num` windows of each photograph."""
    each = [np.flatnonzero(photograph == i)[:num] for i in np.unique(photograph)]
    return np.sort(np.concatenate(each))


def by_photograph(values: np.ndarray, photograph: np.ndarray) -> np.ndarray:
    """Means over the windows of each photograph, `[P, ...]`."""
    return np.stack([values[photograph == i].mean(0) for i in np.unique(photograph)])


def reliability(case: Case, samples: np.ndarray) -> dict[str, Any]:
    """Spread per pixel against the true error of the samples' mean.

    The truth, a further draw of the same law, would be off the mean of K draws by `1 + 1 / K` times
    their variance; errors are divided by the root of that. Pixels that are known exactly are left
    out. The ratio of all is the root of a ratio of sums; its interval is over photographs.
    """
    num = samples.shape[1]
    variance = samples.var(1, ddof=1)
    square = (case.x - samples.mean(1)) ** 2 / (1 + 1 / num)
    hidden = np.broadcast_to(_unknown(case), case.x.shape)
    pairs = np.stack([variance, square], -1)
    order = np.argsort(variance[hidden])
    bins = [np.sqrt(part.mean(0)).tolist() for part in np.array_split(pairs[hidden][order], BINS)]
    each = [
        pairs[rows][hidden[rows]].sum(0)
        for rows in (case.photograph == i for i in np.unique(case.photograph))
    ]

    def ratio(rows: np.ndarray) -> float:
        own, error = rows.sum(0)
        return float(np.log(error / own) / 2)

    found = intervals.bootstrap(ratio, np.stack(each), 400)
    return {"bins": bins, "ratio": np.exp(found).tolist()}


def _unknown(case: Case) -> np.ndarray:
    """Bool `[N, H, W, 1]`: pixels that are not known exactly."""
    operator, exact = case.given.operator, np.asarray(case.given.sigma == 0).reshape(-1, 1, 1, 1)
    known = np.asarray(operator.known) if isinstance(operator, Mask) else np.zeros((1, 1, 1, 1))
    return np.broadcast_to(~(exact & (known == 1)), (*case.x.shape[:3], 1))


def words(setting: dict[str, Any]) -> str:
    """A setting as a key."""
    return ", ".join(f"{key}={value}" for key, value in setting.items())


def choose(cases: dict[str, Case], methods: dict[str, Method], results: dict[str, Any]) -> None:
    """Adds the mean PSNR over tasks of each method's settings, on photographs of the training."""
    for name, method in methods.items():
        if len(method.settings) == 1:
            continue
        tasks = [task for task in CHOSEN_ON if task in method.tasks] or list(method.tasks[:1])
        found = {}
        for setting in method.settings:
            means = [
                scores(case.x, method.run(case, **setting).mean(1), None)[:, 0].mean()
                for case in (cases[task] for task in tasks)
            ]
            found[words(setting)] = float(f"{np.mean(means):.4g}")
            print(name, words(setting), found[words(setting)], flush=True)
        results["settings"][name] = found


def chosen(name: str, method: Method, results: dict[str, Any]) -> dict[str, Any]:
    """The setting with the highest PSNR on photographs of the training, or the default."""
    tried = results["settings"].get(name, {})
    return max(method.settings, key=lambda setting: tried.get(words(setting), -np.inf))


def measure(
    case: Case, name: str, method: Method, setting: dict[str, Any], distance: Callable | None,
    few: int, keep: Path | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Scores by photograph of the samples' mean, and of the first sample.

    And the same on the `few` first windows of each photograph, which all methods have.
    """
    case = case.part(first_of(case.photograph, method.windows))
    start = time.monotonic()
    samples = method.run(case, **setting)
    found: dict[str, Any] = {"seconds": time.monotonic() - start, "setting": words(setting)}
    found |= {"windows": len(case.x), "samples": samples.shape[1]}
    for what, one in {"mean": samples.mean(1), "sample": samples[:, 0]}.items():
        if what == "mean" or samples.shape[1] > 1:
            each, first = scores(case.x, one, distance), first_of(case.photograph, few)
            found[what] = by_photograph(each, case.photograph)
            found[f"{what}, few"] = by_photograph(each[first], case.photograph[first])
    if samples.shape[1] > 1:
        found["reliability"] = reliability(case, samples)
    if keep:
        np.save(keep / f"{case.task} {name}.npy", samples.astype(np.float16))
    print(f"{case.task:12} {name:28} {found['seconds']:6.1f} s", end="  ")
    print(np.array2string(found["mean"].mean(0), precision=3), flush=True)
    return rounded(found)


def save(cases: Iterable[Case], folder: Path) -> None:
    """What is given and the truth, for the sheet."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        y = np.asarray(case.given.y if case.picture is None else case.picture)
        factor = case.x.shape[1] // y.shape[1]
        np.save(folder / f"{case.task} given.npy", y.repeat(factor, 1).repeat(factor, 2))
        np.save(folder / f"{case.task} truth.npy", case.x)


def main() -> None:
    """Adds to `photographs.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True, help="of the trained prior")
    parser.add_argument("--conditional", help="workdir of a network that is given decayed pictures")
    parser.add_argument("--detector", help="workdir of a network that finds damage")
    parser.add_argument("--choose", action="store_true", help="settings, on training photographs")
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--tasks", nargs="+", help="only these")
    parser.add_argument("--windows", type=int, default=2, help="of each photograph")
    parser.add_argument("--few", type=int, default=1, help="the same for methods but the default")
    parser.add_argument("--samples", type=int, default=8, help="of each window")
    parser.add_argument("--step", type=int, default=-1, help="of the checkpoint")
    parser.add_argument("--keep", type=Path, help="folder for the samples, for photographs_report")
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    logging.set_verbosity(logging.FATAL)
    enable_compilation_cache()
    trained = open_run(args.workdir, step=args.step)
    model = of_trained(trained)
    ours = Ours(model, args.samples, EVALUATIONS)
    theirs, unseen = (
        importlib.import_module(f"experiments.restoration.photographs_{part}")
        for part in ("theirs", "unseen")
    )
    methods = ours.methods(args.few) | theirs.methods(model, args.samples, EVALUATIONS, args.few)
    methods |= unseen.methods(args.conditional, args.detector, methods, args.samples, args.few)
    methods = {
        name: method for name, method in methods.items() if name in (args.methods or methods)
    }
    splits = trained.run.parts.dataset.splits
    source: Any = splits["train" if args.choose else "heldout"].source
    pixels, photograph, rows = windows(source, 1 if args.choose else args.windows, args.choose * 4)
    every = cases(pixels, photograph, seed=0)
    path = args.out / "photographs.json"
    results = json.loads(path.read_text()) if path.exists() else {"settings": {}, "tasks": {}}
    if args.choose:
        choose(every, methods, results)
    else:
        if OTHERS in (args.tasks or MASKED):
            every |= {OTHERS: theirs.decayed(source, rows)}
        file = packaged()
        distance = load_stlpips(file) if file else None
        results["step"] = trained.step
        if args.keep:
            save(every.values(), args.keep)
        for name, method in methods.items():
            for task in args.tasks or method.tasks:
                if task in method.tasks:
                    setting = chosen(name, method, results)
                    found = measure(
                        every[task], name, method, setting, distance, args.few, args.keep
                    )
                    results["tasks"].setdefault(task, {})[name] = found
                    path.write_text(json.dumps(results, indent=1) + "\n")
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
