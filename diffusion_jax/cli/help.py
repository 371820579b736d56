"""The text of `--help`."""

from absl import flags

from diffusion_jax.cli.flags import GROUPS
from diffusion_jax.system.command_line import program

HEAD = """\
Trains a diffusion model, draws samples and evaluates them, as a file of settings describes.

  {program} --config configs/digits.py
  {program} --config configs/digits.py --mode sample --config.sample.num_images=16
"""
OVERRIDE = "--config.GROUP.KEY=VALUE", "Change a setting; configs/default.py explains them all."
FOOT = "The same command goes on where it was stopped. --helpfull lists the flags of libraries too."


def help_text() -> str:
    """The flags in their groups, one per line."""
    parts = [HEAD.format(program=" ".join(["python", *program()]))]
    for heading, group in GROUPS.items():
        rows = [(f"--{name} {form}", _words(name)) for name, form in group.items()]
        rows[1:1] = [OVERRIDE] * ("config" in group)
        lines = [f"  {flag:<30}{words}" for flag, words in rows]
        parts.append("\n".join([heading, *lines, ""]))
    return "\n".join([*parts, FOOT])


def _words(name: str) -> str:
    """The help of a flag, without absl's additions: `<choices>: ` or `; repeat this option`."""
    return (flags.FLAGS[name].help or "").rpartition(">: ")[2].partition(";\n")[0]
