"""README and docs: short, linked, and of commands and settings that exist."""

import re
from pathlib import Path

import pytest

from configs import default
from docs.check import NOT_RUN, PAGES, ROOT, RUN, SHORT, blocks, shortened

PLAIN = ("text", "bibtex", "diff")
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def test_the_first_page_is_short() -> None:
    text = re.sub(r"```.*?```", "", PAGES[0].read_text(), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    assert len([word for word in text.split() if re.search(r"\w", word)]) <= 900


@every_page
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks(page):
        assert block.language in (*RUN, *PLAIN), f"{page}:{block.line}"
        why = block.text.partition("\n")[0].removeprefix(NOT_RUN)
        assert block.run or block.language in PLAIN or why, f"{page}:{block.line}"


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@every_page
def test_settings_are_those_of_the_configs(page: Path) -> None:
    for block in blocks(page):
        for key in re.findall(r"--config\.([\w.]+)=", block.text):
            if key.startswith("sample.overshoot"):  # added by the block before
                continue
            group = default.get_config()
            for name in key.split("."):
                assert name in group, f"{page}:{block.line}: {key}"
                group = group[name]
        for name in re.findall(r"--config (\S+)", block.text):
            assert (ROOT / name).exists(), f"{page}:{block.line}: {name}"


def test_commands_are_shortened_behind_their_config() -> None:
    found = shortened("python launch.py --config configs/points.py --mode train")
    flags = " ".join(f'--config.{key}="{value}"' for key, value in SHORT["points"].items())
    assert found == f"python launch.py --config configs/points.py {flags} --mode train"
    assert shortened("ls configs/points.py") == "ls configs/points.py"


@pytest.mark.slow
def test_the_parts_put_together_by_hand_train_and_draw(tmp_path: Path, monkeypatch) -> None:
    by_hand = next(block.text for block in blocks(PAGES[0]) if "GaussianLoss" in block.text)
    monkeypatch.chdir(tmp_path)
    exec(by_hand.replace("range(600)", "range(1)").replace("depth=3", "depth=1"), {})
    assert (tmp_path / "digits.png").stat().st_size
