"""A page to listen to sounds: players of equal loudness, each under its spectrogram."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.data.spectrograms import spectrograms
from diffusion_jax.data.unmasking import escaped, passport_rows
from diffusion_jax.system.pictures import as_image
from diffusion_jax.system.sounds import FULL, wav

LEVEL = -23.0  # dB below full scale, the root mean square of what players play
PEAK = -1.0  # dB, which no sample exceeds
BYTES = 24 * 2**20  # of sounds on a page: later rows are left out


class Column(NamedTuple):
    """Sounds below one heading, such as given, restored, original."""

    heading: str
    items: np.ndarray  # int16 [N, T, C]


def level_gain(x: np.ndarray, level: float, peak: float = PEAK) -> float:
    """The gain that brings floats in [-1, 1] to a root mean square of `level` dB.

    It is less where the largest sample would exceed `peak` dB, and 0 for silence.
    """
    power = float(np.mean(np.square(x, dtype=np.float64)))
    if not power:
        return 0.0
    return min(10 ** (level / 20) / power**0.5, 10 ** (peak / 20) / float(np.abs(x).max()))


def listening_page(
    columns: Sequence[Column],
    rate: int,
    texts: Sequence[str] = (),
    made_by: Mapping[str, Any] | None = None,
) -> str:
    """The page, HTML in one file that needs no network.

    All players are brought to one root mean square, so that a louder one does not seem better; the
    gain stands below each.

    Args:
        columns: sounds to compare, `[N, T, C]` each; T may differ between columns.
        rate: of all of them, in Hz.
        texts: of the rows `[N]`, or none.
        made_by: passport of the sounds.
    """
    size = sum(column.items[0].nbytes for column in columns)
    total = len(columns[0].items)
    num = min(total, max(BYTES // size, 1))
    headings = "".join(f"<th>{escaped(column.heading)}</th>" for column in columns)
    rows = []
    for row in range(num):
        cells = "".join(_cell(column.items[row], rate) for column in columns)
        text = escaped(texts[row]) if len(texts) else ""
        rows.append(f"<tr><th>{row}<br>{text}</th>{cells}</tr>")
    left = f" The page has the first {num} of {total}." if num < total else ""
    return TEMPLATE.format(
        style=STYLE,
        level=LEVEL,
        rate=f"{rate:,}",
        left=left,
        headings=headings,
        rows="\n".join(rows),
        passport=passport_rows(made_by or {}),
    )


def _cell(item: np.ndarray, rate: int) -> str:
    """A picture and a player of one sound int16 `[T, C]`."""
    x = item / FULL
    gain = level_gain(x, LEVEL)
    picture = io.BytesIO()
    as_image(spectrograms((x * gain)[None], rate)[0]).save(picture, "png")
    words = f"{20 * np.log10(gain):+.1f} dB" if gain else "silence"
    sound = wav(np.rint(x * gain * FULL).astype(np.int16), rate)
    return (
        f'<td><img alt="spectrogram" src="data:image/png;base64,{_base64(picture.getvalue())}">'
        f'<audio controls preload="metadata" src="data:audio/wav;base64,{_base64(sound)}"></audio>'
        f"<small>{words}</small></td>"
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4; --page: #fff }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #30363d; --page: #0d1117 }
}
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  max-width: 72rem; margin: 2rem auto 4rem; padding: 0 1.25rem; color: var(--ink);
  background: var(--page) }
h1 { font-size: 1.5rem; margin: 0 0 .5rem }
p, small, summary { color: var(--soft) }
.wide { overflow-x: auto }
table { border-collapse: collapse }
th, td { text-align: left; vertical-align: top; padding: .5rem 1rem .5rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
th { font-weight: 600; max-width: 16rem }
tbody th { min-width: 6rem }
thead:not(:has(th:not(:empty))) { display: none }
img { display: block; width: 16rem; height: 8rem; image-rendering: pixelated; border-radius: 4px }
audio { display: block; width: 16rem; height: 2.2rem; margin: .3rem 0 }
details { margin-top: 2rem; font-size: .85rem }
summary { cursor: pointer }
"""

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
media-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Sounds</title>
<style>{style}</style></head>
<body>
<h1>Sounds</h1>
<p>Players are of equal loudness ({level:g} dB, root mean square); the gain is below each. \
{rate} Hz.{left}</p>
<div class="wide"><table><thead><tr><th></th>{headings}</tr></thead><tbody>
{rows}
</tbody></table></div>
<details><summary>How they were made</summary><table><tbody>
{passport}</tbody></table></details>
<script>
// One at a time.
document.addEventListener("play", event => document.querySelectorAll("audio").forEach(
  player => player === event.target || player.pause()), true);
</script>
</body></html>
"""
