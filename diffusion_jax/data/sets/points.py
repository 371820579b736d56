"""Points in the plane: distributions in closed form, and any number of samples from them.

Each distribution is a mixture of equally likely round Gaussians along a drawing, so that its exact
score is known at every noise level. All are centred with a standard deviation of 0.5 per axis, in
the mean of both, and so within about [-1, 1]^2.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Dataset, Options, Split
from diffusion_jax.data.kind import Kind
from diffusion_jax.data.sources import Items, content_hash
from diffusion_jax.system.pictures import tile

SIDE, HALF = 240, 2.0  # pixels of an image, and half the side of the square that it shows
SWAN = (
    # (part, open curve through these points): wide as the picture, y upwards
    ("beak", ((-0.70, 0.62), (-0.80, 0.57), (-1.02, 0.44), (-1.02, 0.44), (-0.84, 0.45),
              (-0.68, 0.47))),
    ("neck", ((-0.70, 0.62), (-0.60, 0.71), (-0.47, 0.70), (-0.38, 0.57), (-0.40, 0.38),
              (-0.49, 0.18), (-0.50, 0.00), (-0.38, -0.12), (-0.20, -0.09))),
    ("neck", ((-0.68, 0.47), (-0.60, 0.46), (-0.58, 0.36), (-0.66, 0.18), (-0.74, -0.02),
              (-0.74, -0.20), (-0.66, -0.33))),
    ("body", ((-0.66, -0.33), (-0.48, -0.46), (-0.20, -0.52), (0.15, -0.52), (0.45, -0.44),
              (0.70, -0.26), (0.86, -0.02), (1.00, 0.26))),
    ("wing", ((-0.20, -0.09), (0.00, 0.10), (0.25, 0.24), (0.55, 0.33), (0.88, 0.47), (0.88, 0.47),
              (0.80, 0.30), (0.90, 0.30), (1.00, 0.26), (1.00, 0.26), (0.80, 0.10), (0.62, -0.08),
              (0.40, -0.22), (0.10, -0.27), (-0.12, -0.20), (-0.20, -0.09))),
)  # fmt: skip


class Points(Kind):
    """Points float32 `[2]`, stored unchanged, continuous and unbounded."""

    noun: ClassVar[str] = "points"
    shown: ClassVar[int] = 2000
    placed: ClassVar[bool] = False

    def save(
        self, folder: Path, index: np.ndarray, items: np.ndarray, made_by: Sequence[Mapping]
    ) -> None:
        """Writes all points to one `points.csv`: number, label and coordinates."""
        rows = [
            f"{number},{about.get('label')},{x:.6g},{y:.6g}"
            for number, (x, y), about in zip(index, items, made_by, strict=True)
        ]
        (folder / "points.csv").write_text("\n".join(["index,label,x,y", *rows]) + "\n")

    def sheet(self, items: np.ndarray, columns: int, *_: Any, **__: Any) -> np.ndarray:
        """All points in one square."""
        picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
        near = np.clip(items, -2 * HALF, 2 * HALF)  # so that they fit into integers
        x, y = np.rint((SIDE - 1) / 2 * (1 + near / HALF * [1, -1])).astype(int).T
        for down, right in np.ndindex(2, 2):
            inside = (np.minimum(x, y) >= 0) & (np.maximum(x, y) < SIDE - 1)
            picture[y[inside] + down, x[inside] + right] = (0, 114, 178)
        return picture

    def strip(self, states: np.ndarray, columns: int) -> np.ndarray:
        """All points at each of the states, noise on the left."""
        return tile(np.stack([self.sheet(state, columns) for state in states]), len(states))


class Law(NamedTuple):
    """A mixture of equally likely Gaussians `N(means_k, std^2 I)`."""

    means: np.ndarray  # float64 `[K, D]`
    labels: np.ndarray  # int32 `[K]`, the part that each belongs to
    std: float  # standard deviation of each, per axis
    parts: tuple[str, ...]  # a name for each label


@dataclass(frozen=True, eq=False)
class PointSource:
    """Random access to `size` samples of `law`: each a pure function of seed, row and draw."""

    law: Law
    size: int
    seed: int
    resident: ClassVar[bool] = True
    varies: ClassVar[bool] = True

    def __len__(self) -> int:
        return self.size

    def gather(self, rows: np.ndarray, draws: np.ndarray | None = None) -> Items:
        """Samples for `rows` [B]: points float32 `[B, D]` and labels int32 `[B]`.

        A different number in `draws`, uint64 `[B]` (None: 0), gives an independent sample.
        """
        state = np.full(len(rows), self.seed, np.uint64)
        for number in (rows, np.zeros_like(rows) if draws is None else draws):
            state = hashed(state) ^ hashed(np.asarray(number).astype(np.uint64))
        dims = self.law.means.shape[1]
        words = hashed(hashed(state)[:, None] + np.arange(1 + 2 * dims, dtype=np.uint64))
        picked = (words[:, 0] % np.uint64(len(self.law.means))).astype(np.int64)
        radius, angle = np.split(uniform(words[:, 1:]), 2, axis=1)
        noise = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)  # Box & Muller 1958
        points = self.law.means[picked] + self.law.std * noise
        return points.astype(np.float32), self.law.labels[picked]


def hashed(words: np.ndarray) -> np.ndarray:
    """SplitMix64's output (Steele et al. 2014) for states uint64, any shape."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(words: np.ndarray) -> np.ndarray:
    """Floats in [0, 1) of uint64 words, by their upper 53 bits."""
    return (words >> np.uint64(11)) * 2.0**-53


def spiral(std: float = 0.02) -> Law:
    """Two arms of Archimedes' spiral, one turn and a half each."""
    angle = np.linspace(0.25 * np.pi, 3.25 * np.pi, 4096)
    arm = evenly(np.stack([angle * np.cos(angle), angle * np.sin(angle)], axis=1), 512)
    return _law({"first arm": arm, "second arm": -arm}, std)


def moons(std: float = 0.04) -> Law:
    """Two interleaved half circles."""
    angle = np.linspace(0, np.pi, 512)
    upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return _law({"upper": upper, "lower": np.array([1.0, 0.5]) - upper}, std)


def pinwheel(std: float = 0.03) -> Law:
    """Five blades that are bent more the farther out they are (Johnson et al. 2016, Fig. 1)."""
    from scipy.special import ndtri

    along, across = (ndtri((np.arange(n) + 0.5) / n) for n in (64, 6))
    radius, offset = (a.ravel() for a in np.meshgrid(1 + 0.3 * along, 0.05 * across))
    blades = {}
    for k in range(5):
        turn = 2 * np.pi * k / 5 + 0.25 * np.exp(radius)
        x = radius * np.cos(turn) - offset * np.sin(turn)
        y = radius * np.sin(turn) + offset * np.cos(turn)
        blades[f"blade {k}"] = np.stack([x, y], axis=1)
    return _law(blades, std)


def eight_gaussians(std: float = 0.05) -> Law:
    """Eight Gaussians around a circle."""
    angles = 2 * np.pi * np.arange(8) / 8
    return _law(
        {f"{45 * k} degrees": np.array([[np.cos(a), np.sin(a)]]) for k, a in enumerate(angles)}, std
    )


def swan(std: float = 0.012) -> Law:
    """The outline of a swan that swims to the left."""
    parts: dict[str, np.ndarray] = {}
    for part, control in SWAN:
        curve = catmull_rom(np.array(control))
        length = np.linalg.norm(np.diff(curve, axis=0), axis=1).sum()
        nodes = evenly(curve, int(length * 160))
        parts[part] = np.concatenate([parts[part], nodes]) if part in parts else nodes
    return _law(parts, std)


POINTS: dict[str, Callable[[], Law]] = {
    law.__name__: functools.cache(law) for law in (spiral, moons, pinwheel, eight_gaussians, swan)
}
"""Distributions by name of the data set."""


def load_points(options: Options) -> Dataset:
    """A set of `POINTS`: each read of a training row is a new point; held-out ones are fixed."""
    law = POINTS[options.name]()
    splits = {
        name: Split(PointSource(law, size, seed))
        for seed, (name, size) in enumerate({"train": 2**16, "heldout": 2**12}.items())
    }
    kind = Points((law.means.shape[1],))
    fingerprint = content_hash(law.means, law.labels, law.std)
    return Dataset(options.name, kind, splits, law.parts, (), fingerprint)


def catmull_rom(control: np.ndarray, steps: int = 32) -> np.ndarray:
    """The open Catmull-Rom spline (1974) through points `[N, 2]`: `[(N - 1) steps, 2]`."""
    padded = np.concatenate([control[:1], control, control[-1:]])
    u = np.linspace(0, 1, steps)[:, None]
    basis = np.concatenate([np.ones_like(u), u, u**2, u**3], axis=1) @ (
        np.array([[0, 2, 0, 0], [-1, 0, 1, 0], [2, -5, 4, -1], [-1, 3, -3, 1]]) / 2
    )
    return np.concatenate([basis @ padded[i : i + 4] for i in range(len(control) - 1)])


def evenly(curve: np.ndarray, num: int) -> np.ndarray:
    """`num` points `[num, 2]` at equal distances along a fine curve `[N, 2]`."""
    place = np.append(0.0, np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1)))
    at = (np.arange(num) + 0.5) / num * place[-1]
    return np.stack([np.interp(at, place, axis) for axis in curve.T], axis=1)


def _law(parts: dict[str, np.ndarray], std: float) -> Law:
    """A centred and scaled `Law`: its variance, with that of the Gaussians, is 1/4 per axis."""
    means = np.concatenate(list(parts.values()))
    means = means - means.mean(axis=0)
    means *= np.sqrt((0.25 - std**2) / means.var())
    labels = np.repeat(np.arange(len(parts), dtype=np.int32), [len(p) for p in parts.values()])
    return Law(means, labels, std, tuple(parts))
