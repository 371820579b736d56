"""Converts a page of Markdown to one self-contained HTML file with embedded images."""

import base64
import contextlib
import itertools
import mimetypes
import re
from pathlib import Path, PurePath, PurePosixPath
from typing import TypeVar
from xml.etree.ElementTree import Element

from diffusion_jax.system.files import write_whole
from diffusion_jax.system.pictures import opened

SMALL = 720  # width in pixels up to which the pixels of an image are shown as squares
TINY = 360  # width in pixels up to which an image is enlarged, by an integer factor
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
P = TypeVar("P", bound=PurePath)
BLOCKS = {"figure": "pictures", "table": "wide"}
"""Classes of the blocks that contain these elements."""
BOUND = "\u00a0"  # a space without line break
STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #59636e; --line: #d8dee4;
  --page: #fff; --card: #f6f8fa; --link: #0969da }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --soft: #9aa5b1; --line: #30363d; --page: #0d1117; --card: #161b22;
    --link: #6cb6ff }
}
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  max-width: 66rem; margin: 2.5rem auto 4rem; padding: 0 1.25rem;
  color: var(--ink); background: var(--page) }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1.5rem; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.5rem 0 1rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line) }
a { color: var(--link) }
.pictures { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.5rem }
figure { margin: 0; max-width: 100% }
img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 6px;
  box-shadow: 0 0 0 1px var(--line) }
figcaption, caption { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere }
figcaption { margin-top: .5rem; width: 0; min-width: 100% }
caption { text-align: left; padding-bottom: .3rem; color: var(--ink); font-weight: 600 }
.wide { overflow-x: auto; margin: 1.25rem 0 }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .4rem .9rem .4rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600; border-bottom-width: 2px }
td:first-child { min-width: 7rem }
tbody tr:hover { background: var(--card) }
thead:not(:has(th:not(:empty))) { display: none }
code, pre { font: .875em/1.5 ui-monospace, "SFMono-Regular", Menlo, "DejaVu Sans Mono", monospace;
  background: var(--card); border-radius: 4px }
code { padding: .1em .3em; overflow-wrap: anywhere }
pre { padding: .8rem 1rem; overflow-x: auto; border: 1px solid var(--line) }
pre code { padding: 0; font-size: 1em; overflow-wrap: normal }
@media (min-width: 48rem) { .pixels { image-rendering: pixelated } }
@media print { body { margin: 0; max-width: none } figure, tr { break-inside: avoid } }
"""


def write_page(page: Path, text: str) -> None:
    """Writes Markdown, and the same as HTML next to it (`html_of`).

    Images and links are relative to the page. Links to other such pages lead to their HTML if it
    exists.
    """
    write_whole(html_of(page), as_html(text, page.parent).encode())
    write_whole(page, text.encode())


def mend_page(page: Path) -> None:
    """Writes the HTML of an existing page if it is missing."""
    if not html_of(page).exists():
        text = page.read_text(encoding="utf-8")
        write_whole(html_of(page), as_html(text, page.parent).encode())


def html_of(page: P) -> P:
    """The path of the HTML of a page of Markdown."""
    return page.with_suffix(".html")


def as_html(text: str, folder: Path) -> str:
    """Converts Markdown to HTML; HTML in it is plain text. Its images are in `folder`.

    A paragraph in italics below an image or above a table is its caption.
    """
    import markdown

    converter = markdown.Markdown(extensions=["tables", "fenced_code"])
    converter.preprocessors.deregister("html_block")
    converter.inlinePatterns.deregister("html")
    # After links, images and italics are parsed, and before escaped characters are restored.
    converter.treeprocessors.register(_Page(folder), "page", 5)
    body = converter.convert(text)
    title = re.search(r"<h1>(.*?)</h1>", body)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{re.sub('<.*?>', '', title[1]) if title else ''}</title>\n"
        f"<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


class _Page:
    """Tree processor: embeds images, sets links and captions, wraps images and tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def run(self, root: Element) -> None:
        for picture in root.iter("img"):
            self._inline(picture)
        for link in root.iter("a"):
            link.set("href", self._linked(link.get("href", "")))
        for first, second in itertools.pairwise([*root, Element("end")]):
            if _holds(first, "img"):
                first.tag = "figure"
                if _holds(second, "em"):
                    first.append(_taken(root, second, "figcaption"))
            elif second.tag == "table" and _holds(first, "em"):
                second.insert(0, _taken(root, first, "caption"))
        for number in root.iterfind(".//td/strong"):  # no line break in its interval
            number.tail = (number.tail or "").replace(" to ", f"{BOUND}to{BOUND}")
            number.tail = number.tail.replace(" = ", f"{BOUND}={BOUND}")
        for element in list(root):
            if element.tag in BLOCKS:
                _enclose(root, element)

    def _inline(self, picture: Element) -> None:
        """Replaces the path of an image by its bytes."""
        path = self._folder / picture.get("src", "")
        if not path.exists():  # removed since the page was written
            return
        data, kind = path.read_bytes(), mimetypes.guess_type(path.name)[0]
        picture.set("src", f"data:{kind};base64,{base64.b64encode(data).decode()}")
        with contextlib.suppress(OSError):  # damaged, as the browser will show
            width, height = opened(path).size
            factor = max(1, TINY // width)
            picture.set("width", str(width * factor))
            picture.set("height", str(height * factor))
            if width <= SMALL:
                picture.set("class", "pixels")

    def _linked(self, target: str) -> str:
        """The target of a link: for another page its HTML, if that exists."""
        if not target.endswith(".md") or ":" in target:
            return target
        page = html_of(PurePosixPath(target))
        return str(page) if (self._folder / page).exists() else target


def _taken(root: Element, paragraph: Element, tag: str) -> Element:
    """The only element of a paragraph, with another tag; the paragraph is removed."""
    root.remove(paragraph)
    paragraph[0].tag = tag
    return paragraph[0]


def _enclose(root: Element, element: Element) -> None:
    """Puts an element into a block: consecutive images into one, each table into its own."""
    at, name = list(root).index(element), BLOCKS[element.tag]
    block = root[at - 1] if at else None
    if block is None or element.tag == "table" or block.get("class") != name:
        block = Element("div", {"class": name})
        root.insert(at, block)
    root.remove(element)
    block.append(element)


def _holds(element: Element, tag: str) -> bool:
    """Whether an element is a paragraph with a single child, of this tag, and no text."""
    inner = list(element)
    alone = element.tag == "p" and len(inner) == 1 and inner[0].tag == tag
    return alone and not ((element.text or "") + (inner[0].tail or "")).strip()
