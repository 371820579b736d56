"""A page that shows how texts are sampled: their masks are filled step by step."""

import html
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def unmasking_page(
    pieces: Sequence[str | None],
    states: np.ndarray,
    texts: Sequence[str],
    mask: str,
    made_by: Mapping[str, Any],
) -> str:
    """The page, HTML in one file without links.

    Args:
        pieces: text of each token `[V + 1]`, bytes that are no UTF-8 as surrogates; None is a mask.
        states: tokens int `[K, N, L]`, from noise to texts.
        texts: the last state `[N]`, shown where scripts do not run.
        mask: sign of a mask.
        made_by: passport of the texts.
    """
    used, numbers = np.unique(states, return_inverse=True)
    numbers = numbers.reshape(states.shape)
    data = {
        "last": len(states) - 1,
        "mask": mask,
        "pieces": [pieces[token] for token in used],
        "texts": [[changes(column) for column in text.T] for text in numbers.swapaxes(0, 1)],
    }
    return TEMPLATE.format(
        style=STYLE,
        script=SCRIPT,
        last=len(states) - 1,
        texts="\n".join(f"<pre>{escaped(text)}</pre>" for text in texts),
        rows=passport_rows(made_by),
        # No tag or comment can begin or end in it.
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
    )


def changes(column: np.ndarray) -> list[int]:
    """Of one place at all states `[K]`: each state with a new token, followed by that token."""
    at = np.flatnonzero(np.diff(column, prepend=-1))
    found: list[int] = np.stack([at, column[at]], axis=1).ravel().tolist()
    return found


def passport_rows(made_by: Mapping[str, Any]) -> str:
    """Rows of a table of HTML, one for each field of a passport."""
    return "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(json.dumps(value))}</td></tr>\n"
        for name, value in made_by.items()
    )


def escaped(text: object) -> str:
    """Any text in HTML; characters that HTML forbids become the replacement character."""
    forbidden = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
    return html.escape(forbidden.sub("\ufffd", str(text)))


STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4;
  --page: #fff; --card: #f6f8fa; --early: rgb(40 110 220 / .42); --late: rgb(240 150 20 / .5) }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #30363d; --page: #0d1117; --card: #161b22;
    --early: rgb(60 130 255 / .5); --late: rgb(250 160 40 / .5) }
}
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  max-width: 66rem; margin: 2rem auto 4rem; padding: 0 1.25rem; color: var(--ink);
  background: var(--page) }
h1 { font-size: 1.5rem; margin: 0 0 .5rem }
p { color: var(--soft); margin: .5rem 0 }
#bar { position: sticky; top: 0; display: flex; flex-wrap: wrap; gap: .4rem 1rem;
  align-items: center; padding: .7rem 0; background: var(--page);
  border-bottom: 1px solid var(--line) }
#bar[hidden] { display: none }
#step { flex: 1 1 14rem; min-width: 8rem }
#told { min-width: 15rem; font-variant-numeric: tabular-nums; color: var(--soft) }
button { font: inherit; padding: .2rem 1rem; min-width: 5.5rem }
#order { display: inline-block; width: 9rem; height: .9em; vertical-align: -.1em;
  border-radius: 3px; background: linear-gradient(90deg, var(--early), var(--late)) }
pre { font: .95rem/1.6 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; margin: 1rem 0; padding: .8rem 1rem;
  background: var(--card); border: 1px solid var(--line); border-radius: 4px }
.mask { color: var(--soft); opacity: .45 }
.set { background: color-mix(in oklab, var(--late) calc(100% * var(--at)), var(--early)) }
.new { outline: 2px solid var(--ink); outline-offset: -1px }
table { border-collapse: collapse; font-size: .85rem }
th, td { text-align: left; vertical-align: top; padding: .2rem 1rem .2rem 0;
  border-bottom: 1px solid var(--line); overflow-wrap: anywhere }
summary { cursor: pointer; color: var(--soft) }
"""

SCRIPT = """
const data = JSON.parse(document.getElementById("data").textContent);
const step = document.getElementById("step"), told = document.getElementById("told");
const play = document.getElementById("play"), encoder = new TextEncoder();
const bytes = data.pieces.map(piece => piece === null ? null : Uint8Array.from(
  [...piece].flatMap(c => c >= "\\udc80" && c <= "\\udcff" && c.length === 1
    ? [c.charCodeAt(0) - 0xdc00] : [...encoder.encode(c)])));
const all = [...document.querySelectorAll("#texts pre")].map((pre, row) => {
  pre.textContent = "";
  return data.texts[row].map(changes => {
    const span = pre.appendChild(document.createElement("span"));
    return { span, changes };
  });
});
function draw() {
  const now = Number(step.value);
  let known = 0, places = 0;
  for (const text of all) {
    const decoder = new TextDecoder();  // of characters whose bytes are several tokens
    for (const { span, changes } of text) {
      let last = 0;
      while (last + 2 < changes.length && changes[last + 2] <= now) last += 2;
      const since = changes[last], piece = bytes[changes[last + 1]];
      places += 1;
      known += piece !== null;
      span.textContent = piece === null ? decoder.decode() + data.mask
        : decoder.decode(piece, { stream: true });
      span.className = piece === null ? "mask" : since === 0 ? ""
        : since === now ? "set new" : "set";
      span.style.setProperty("--at", since / data.last);
      span.title = piece === null ? "" : since === 0 ? "from the beginning" : "step " + since;
    }
    const rest = decoder.decode();
    if (text.length) text[text.length - 1].span.textContent += rest;
  }
  told.textContent = `step ${now} of ${data.last}, ${Math.round(100 * known / places)}% known`;
}
let timer = null;
function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }
function advance() {
  if (Number(step.value) >= data.last) return stop();
  step.value = Number(step.value) + 1;
  draw();
}
play.addEventListener("click", () => {
  if (timer) return stop();
  if (Number(step.value) >= data.last) step.value = 0;
  draw();
  play.textContent = "Pause";
  timer = setInterval(advance, Math.max(60, Math.min(400, 8000 / data.last)));
});
step.addEventListener("input", () => { stop(); draw(); });
document.getElementById("bar").hidden = false;
draw();
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>How these texts were sampled</title>
<style>{style}</style>
</head>
<body>
<h1>How these texts were sampled</h1>
<p>The colour of a token is the step at which it was last set:
first <span id="order"></span> last. Tokens without colour were there from the beginning.</p>
<div id="bar" hidden>
<button id="play" type="button">Play</button>
<input id="step" type="range" min="0" max="{last}" value="{last}" aria-label="step">
<output id="told" for="step"></output>
</div>
<div id="texts">
{texts}
</div>
<details><summary>Settings</summary>
<table>
{rows}</table>
</details>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
