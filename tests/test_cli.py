"""The command line: its help, its flags, and inputs that are read before a run begins."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from diffusion_jax.cli import main
from diffusion_jax.cli.flags import GROUPS
from diffusion_jax.run.trained import command
from diffusion_jax.sweep.execute import _command

ROOT = Path(__file__).parents[1]
HELP = """
import runpy, sys
sys.argv = ["launch.py", "--help"]
try:
    runpy.run_path("launch.py", run_name="__main__")
finally:
    assert not {"jax", "numpy", "grain", "tensorflow_datasets"} & set(sys.modules)
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_prompts_are_read_as_people_save_them(tmp_path, monkeypatch, encoding):
    (tmp_path / "prompts.txt").write_bytes("a cat\r\n\r\n  ein Bär \r\n".encode(encoding))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main._prompts_in("~/prompts.txt") == ["a cat", "ein Bär"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "No such file or directory"),
        ("Bär".encode("latin-1"), "it is not text in UTF-8 at byte 1; save it as UTF-8"),
        (b" \r\n", "there is no text in it"),
    ],
)
def test_prompts_that_cannot_be_read_are_one_line(tmp_path, data, words):
    path = tmp_path / "prompts.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(SystemExit) as found:
        main._prompts_in(str(path))
    assert found.value.code == f"error: --prompts={path}: {words}"


def test_texts_in_another_encoding_are_one_line():
    with pytest.raises(SystemExit, match=r"error: 'B\\udce4r' is not UTF-8"):
        main._check_texts(["a cat", os.fsdecode("Bär".encode("latin-1"))])


REFUSED = ("--mode=sample", "--profile=2")


def test_help_is_instant_and_fits_a_terminal():
    done = subprocess.run(
        [sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert "python launch.py --config configs/digits.py" in lines[2]
    assert max(map(len, lines)) <= 100
    assert not done.stderr
    for heading, group in GROUPS.items():
        assert heading in lines
        for name in group:
            assert len([line for line in lines if re.match(rf"  --{name}( |$)", line)]) == 1
    assert not re.search("repeat this option|<", done.stdout)  # absl's own additions


def test_every_flag_has_its_group():
    defined = {f.name for f in flags.FLAGS.flags_by_module_dict()["diffusion_jax.cli.flags"]}
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted({*defined, "config"} - {"unit"})


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("launch.py", ["launch.py"]),
        ("/clone/launch.py", ["/clone/launch.py"]),
        ("/site/diffusion_jax/__main__.py", ["-m", "diffusion_jax"]),
        ("/venv/bin/diffusion_jax", ["-m", "diffusion_jax"]),
    ],
)
def test_the_same_command_is_started_again_however_it_was_started(monkeypatch, script, words):
    monkeypatch.setattr(sys, "argv", [script, "--prompt=a cat"])
    assert command() == " ".join(["python", *words, "'--prompt=a cat'"])
    assert _command(3) == [sys.executable, *words, "--prompt=a cat", "--unit=3"]


def test_as_a_module_from_elsewhere_with_a_config_by_its_path(tmp_path):
    """A mistake that is found only once the config, which imports another, is loaded."""
    done = subprocess.run(
        [sys.executable, "-m", "diffusion_jax", f"--config={ROOT}/configs/digits.py", *REFUSED],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(_installed(tmp_path))},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "error: --profile=2 goes with --mode all or train, not sample\n"


def _installed(folder: Path) -> Path:
    """A folder with nothing but the package, as `pip install -e .` makes it found."""
    (folder / "site").mkdir()
    (folder / "site" / "diffusion_jax").symlink_to(ROOT / "diffusion_jax")
    return folder / "site"
