"""A page as one HTML file."""

import base64
import html
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusion_jax import report
from diffusion_jax.report.figures import code, plain, table
from diffusion_jax.report.html import as_html, write_page
from diffusion_jax.system.files import path_of
from diffusion_jax.system.pictures import save_gif
from tests.stores import in_memory

STRANGE = (
    '<script>alert(1)</script> a*b* _c_ d_e `f` [g](javascript:1) | & &amp; "h" {i} \\ src="j" '
    "http://k.l <http://m.n> ![o](p.png) ** # 1."
)


def picture(path: Path, width: int, height: int) -> Path:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def test_what_people_give_is_shown_as_it_is(tmp_path: Path) -> None:
    picture(tmp_path / "p.png", 8, 8)
    report.write_report(
        tmp_path / "report.md",
        STRANGE,
        {},
        {"data": plain(STRANGE), "set": code("a=`|")},
        [("p.png", STRANGE)],
        [STRANGE],
    )
    page = (tmp_path / "report.html").read_text()
    for tag in ("title", "h1", "figcaption", "td", "code"):
        inner = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        assert STRANGE in [html.unescape(text).rstrip("\n") for text in inner], tag
    (alt,) = re.findall('alt="(.*?)"', page)
    assert html.unescape(alt) == STRANGE
    assert "<script" not in page
    assert "<a " not in page
    assert "<td>a=`|</td>" in page
    assert plain("of two\nlines") == "of two lines"
    assert code("seed=0") == "`seed=0`"


def test_html_that_stands_in_a_page_is_text(tmp_path: Path) -> None:
    page = as_html("# One\n\n<b>two</b>\n\n<div>\nthree\n</div>\n\nfour <i>five</i>", tmp_path)
    for text in ("<b>two</b>", "<div>", "four <i>five</i>"):
        assert html.escape(text) in page
    assert "<title>One</title>" in page


def test_pictures_are_in_the_page(tmp_path: Path) -> None:
    sizes = {"tiny.png": (100, 60), "wide.png": (1000, 10)}
    for name, size in sizes.items():
        picture(tmp_path / name, *size)
    save_gif(tmp_path / "film.gif", [np.full((8, 400, 1), i, np.uint8) for i in (0, 255)])
    (tmp_path / "cut.png").write_bytes(b"\x89PNG")
    names = ["tiny.png", "film.gif", "wide.png", "cut.png", "none.png"]
    page = as_html("\n\n".join(f"![{n}]({n})\n\n*{n}*" for n in names), tmp_path)
    tags = re.findall("<img .*?>", page)
    assert {'width="300"', 'height="180"'} <= set(tags[0].split())  # by a whole factor
    assert 'width="1000"' in tags[2]
    for name, tag, crisp in zip(names, tags, [True, True, False, False, False], strict=True):
        assert ('class="pixels"' in tag) == crisp, name
        found = re.search('src="data:image/(.*?);base64,(.*?)"', tag)
        assert (found is None) == (name == "none.png")  # removed since
        if found:
            assert name.endswith(found[1])
            assert base64.b64decode(found[2]) == (tmp_path / name).read_bytes()
        assert f"><figcaption>{name}</figcaption></figure>" in page
    assert page.count('<div class="pictures">') == 1


def test_tables_have_their_captions(tmp_path: Path) -> None:
    cells = ["a", "**1** (0 to 2), n = 3"]
    lines = [*table(["x", "y"], [cells], "One"), "", *table(["x", "y"], [cells])]
    page = as_html("\n".join(lines), tmp_path)
    assert page.count('<div class="wide">') == page.count("<table>") == 2
    assert page.count("<table>\n<caption>One</caption>") == page.count("<caption>") == 1
    assert page.count("(0\xa0to\xa02), n\xa0=\xa03") == 2
    assert table(["x"], [], "One") == []


def test_a_link_to_another_page_leads_to_its_html_if_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new/report.html").touch()
    targets = ["new/report.md", "old/report.md", "config.json", "https://a.b/new/report.md"]
    page = as_html(" ".join(f"[x]({target})" for target in targets), tmp_path)
    assert re.findall('href="(.*?)"', page) == ["new/report.html", *targets[1:]]


def test_html_that_is_missing_is_made_again(tmp_path: Path) -> None:
    page = tmp_path / "report.md"
    write_page(page, "# Ø\n\n![x](gone.png)")
    before = page.stat().st_mtime_ns, (tmp_path / "report.html").read_bytes()
    report.mend_page(page)
    (tmp_path / "report.html").unlink()
    report.mend_page(page)
    assert (page.stat().st_mtime_ns, (tmp_path / "report.html").read_bytes()) == before


def test_a_report_in_an_object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_memory(monkeypatch)
    place, here = path_of("s3://bucket/run"), picture(tmp_path / "p.png", 8, 8)
    (place / "p.png").write_bytes(here.read_bytes())
    for folder in (tmp_path, place):
        report.write_report(folder / "report.md", "run", {}, {}, [("p.png", "zero")], ["again"])
    for name in ("report.md", "report.html"):
        assert (place / name).read_bytes() == (tmp_path / name).read_bytes()
    assert report.html_of(place / "report.md") == place / "report.html"
