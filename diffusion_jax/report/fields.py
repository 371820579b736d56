"""Plots of vector fields in the plane, of their basins, and of particles that follow them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from diffusion_jax.system.files import written_whole
from diffusion_jax.system.pictures import save_gif, tile

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#7f6a00", "#666666")
"""Of the parts of the data, in turn: distinct for the colour-blind, too (Okabe & Ito 2008)."""
ARROWS = 20  # per axis
HALF_LENGTH = 0.2  # norm of an arrow of half the full length
POINTS = 1500  # of a cloud, at most
SIDE = 320  # pixels of a frame of the animation


class Panel(NamedTuple):
    """One panel of a sheet: the plane from `-half` to `half` on both axes."""

    title: str
    # on a grid of R x R points, rows upwards: vectors `[R^2, 2]`, numbers `[R^2]`, parts of the
    # data int `[R^2]`; or None
    values: np.ndarray | None = None
    half: float = 1.0  # half of the side
    # for numbers: the name of the colour map and the values at its ends
    heat: tuple[str, float, float] = ("viridis", 0.0, 1.0)
    cloud: np.ndarray | None = None  # points `[N, 2]` or None
    labels: np.ndarray | None = None  # int `[N]`, the part of each


def draw(path: Path, rows: Mapping[str, Sequence[Panel]], parts: Sequence[str] = ()) -> None:
    """Writes a PNG with a row of panels for each title, and a legend of the `parts`."""
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows.values())
    size = (3.6 * columns, 3.5 * len(rows))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for line, (title, row) in zip(axes, rows.items(), strict=True):
        for axis, panel in zip(line, row, strict=True):
            _draw(figure, axis, panel)
        line[0].set_ylabel(title)
    for label, part in enumerate(parts):
        axes[0, 0].plot([], [], "o", color=_colour(label), label=part)
    if parts:
        figure.legend(loc="outside lower center", ncols=8, frameon=False)
    with written_whole(path) as whole:
        figure.savefig(whole, format="png", dpi=80)


def _draw(figure: Any, axis: Any, panel: Panel) -> None:
    from matplotlib import colors

    half, values = panel.half, panel.values
    side = 0 if values is None else round(len(values) ** 0.5)
    extent = (-half, half, -half, half)
    if panel.cloud is not None and panel.labels is not None:
        of_each = [_colour(label) for label in panel.labels[:POINTS]]
        axis.scatter(*panel.cloud[:POINTS].T, s=4, lw=0, alpha=0.6, color=of_each)
    if values is not None and values.ndim == 2:
        every = max(side // ARROWS, 1)
        some = slice(every // 2, None, every)
        places, vectors = np.linspace(-half, half, side)[some], values.reshape(side, side, 2)
        vectors = vectors[some, some]
        norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
        full = 1.2 * (places[1] - places[0])
        u, v = np.moveaxis(full * vectors / (norms + HALF_LENGTH), -1, 0)
        style = {"width": 0.005, "headwidth": 3.5, "headlength": 4, "headaxislength": 3.5}
        axis.quiver(
            places, places, u, v, angles="xy", scale_units="xy", scale=1, pivot="middle", **style
        )
    elif values is not None and np.issubdtype(values.dtype, np.integer):
        rgb = np.array([colors.to_rgb(_colour(label)) for label in range(values.max() + 1)])
        axis.imshow(rgb[values].reshape(side, side, 3), origin="lower", extent=extent)
    elif values is not None:
        name, low, high = panel.heat
        image = axis.imshow(
            values.reshape(side, side), name, vmin=low, vmax=high, origin="lower", extent=extent
        )
        figure.colorbar(image, ax=axis, shrink=0.8)
    axis.locator_params(nbins=5)
    axis.set(title=panel.title, xlim=extent[:2], ylim=extent[2:], aspect="equal")


def animate(
    path: Path,
    paths: Mapping[str, np.ndarray],
    ends: Mapping[str, np.ndarray],
    x_0: np.ndarray,
    times: np.ndarray,
) -> None:
    """Writes a GIF of particles on their way from noise to data, one panel per field.

    `paths` are their positions `[K, N, 2]` at `times` `[K]`, by name of the field, coloured by the
    part of the data that each reaches (`ends`). The data `x_0` `[M, 2]` are grey.
    """
    reach = 1.05 * max(
        float(np.abs(x_0).max()), *(np.quantile(np.abs(p), 0.99) for p in paths.values())
    )
    frames = []
    for k, t in enumerate(times):
        row = []
        for name, places in paths.items():
            picture = Image.new("RGB", (SIDE, SIDE), "white")
            pen = ImageDraw.Draw(picture)
            pen.point(_pixels(x_0, reach).ravel().tolist(), "#c0c0c0")
            for (x, y), label in zip(_pixels(places[k], reach).tolist(), ends[name], strict=False):
                pen.rectangle((x - 1, y - 1, x + 1, y + 1), _colour(label))
            pen.text((6, 4), f"{name}, t = {t:.2f}", "black")
            row.append(np.asarray(picture))
        frames.append(tile(np.stack(row), len(row)))
    save_gif(path, frames)


def _pixels(places: np.ndarray, half: float) -> np.ndarray:
    return np.rint((SIDE - 1) / 2 * (1 + np.clip(places / half, -9, 9) * [1, -1])).astype(int)


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]
