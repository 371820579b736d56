"""Runs the command and code blocks of README.md and docs/*.md, shortened, in a clone.

    python docs/check.py [PAGE ...]

Blocks of `bash` and `python` are run, blocks of `diff` are applied, in the order of the pages; one
that begins with the comment `# Not run: ...` is left out. Training is shortened by `SHORT`: flags
that stand in front of those of the command itself. The status is 1 if a block has failed.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = "# Not run: "
TESTS = ".venv/bin/pytest"  # the tests themselves are left to .ci/run
RUN = {"bash": ["bash", "-euo", "pipefail", "-c"], "python": [".venv/bin/python", "-c"]}
LIMIT = 1200  # seconds for a block

SMALL_DIT = {"hidden_size": 16, "depth": 1, "num_heads": 2}
SMALL = {f"model.dit.{name}": value for name, value in SMALL_DIT.items()}
EVALUATED = {
    "evaluate.num_samples": 64,
    "evaluate.bootstrap": 8,
    "evaluate.denoising_images": 16,
    "evaluate.likelihood.num_images": 4,
    "evaluate.likelihood.noise_levels": 4,
}
FEW_STEPS = {
    **dict.fromkeys(("train.steps", "train.sample_every", "train.checkpoint_every"), 10),
    **{"train.batch_size": 8, "sample.steps": 3, "sample.batch_size": 16},
}
TRAINED_SHORT = {**FEW_STEPS, **EVALUATED}
SHORT = {
    # As many steps as ever, so that checkpoints of certain steps are there.
    "digits": {
        **{**SMALL, **EVALUATED, "train.batch_size": 16, "sample.num_images": 20},
        **{"sample.optimised.images": 8, "sample.optimised.iterations": 2},
        **{"train.sample_every": 0, "train.heldout_every": 0},
    },
    "emoji_text": {**SMALL, **TRAINED_SHORT},
    "emoji_clip": {**TRAINED_SHORT, "model.dual_encoder.width": 16},
    "emoji_upscale": {**TRAINED_SHORT, "model.unet.channels": 8, "model.unet.num_blocks": 1},
    "fashion_mnist": {**TRAINED_SHORT, "model.unet.channels": 8, "model.unet.num_blocks": 1},
    "points": {"train.steps": 100, "sample.num_images": 50, "evaluate.num_samples": 64},
}
"""By config: settings that make its runs short."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int  # of the page, from 1
    language: str
    text: str

    @property
    def run(self) -> bool:
        """Whether it is something to be run that is not marked otherwise."""
        runnable = self.language in (*RUN, "diff")
        return runnable and not self.text.startswith(NOT_RUN) and TESTS not in self.text


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield Block(page, text.count("\n", 0, match.start()) + 1, match[1], match[2])


def shortened(text: str) -> str:
    """A command with the flags of `SHORT` after the config that it names."""

    def with_flags(match: re.Match[str]) -> str:
        flags = (f'--config.{key}="{value}"' for key, value in SHORT.get(match[1], {}).items())
        return " ".join([match[0], *flags])

    return re.sub(r"--config configs/(\w+)\.py", with_flags, text)


def run(block: Block, clone: Path) -> bool:
    """Runs a block in the clone; whether it went well."""
    start = time.monotonic()
    if block.language == "diff":
        command, given = ["git", "apply", "-"], block.text
    else:
        text = shortened(block.text) if block.language == "bash" else block.text
        command, given = [*RUN[block.language], text], None
    env = {**os.environ, "PATH": f"{clone}/.venv/bin:{os.environ['PATH']}"}
    try:
        done = subprocess.run(
            command, cwd=clone, env=env, input=given, text=True, capture_output=True, timeout=LIMIT
        )
        status, said = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, said = 124, str(error)
    place = f"{block.page.relative_to(ROOT)}:{block.line}"
    first = block.text.partition("\n")[0][:80]
    print(f"{'ok' if not status else 'FAILED'} {place} {time.monotonic() - start:.0f} s: {first}")
    if status:
        print(said[-3000:])
    sys.stdout.flush()
    return not status


def main() -> int:
    """Runs the blocks of the pages that are named, of all of them by default."""
    pages = [Path(page).resolve() for page in sys.argv[1:]] or PAGES
    quick_start = next(blocks(PAGES[0]))  # makes the environment of the others
    found = [quick_start, *(b for page in pages for b in blocks(page) if b != quick_start)]
    start, failed = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "diffusion_jax"
        subprocess.run(["git", "clone", "-q", ROOT, clone], check=True)
        for block in found:
            failed += block.run and not run(block, clone)
    num, minutes = sum(block.run for block in found), (time.monotonic() - start) / 60
    print(f"{num} blocks run in {minutes:.1f} minutes, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
