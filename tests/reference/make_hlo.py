"""Writes `hlo/`: texts of the programs in `tests/plan/programs.py`, compiled for absent devices.

For an H100 with `python -m tests.reference.make_hlo gpu`, which needs `jax-cuda13-plugin` and
`jax-cuda13-pjrt`, and for a TPU v5e with `tpu`, which needs `libtpu`. Source positions and the
compiler's notes are left out, but for how often a loop runs.
"""

import re
import sys
from pathlib import Path

import jax
from jax.sharding import SingleDeviceSharding

from diffusion_jax.plan.absent import absent_devices, compiling_for
from diffusion_jax.plan.hardware import parse_topology
from tests.plan.programs import PROGRAMS

TOPOLOGIES = {"gpu": "h100:1", "tpu": "v5e:2x2"}


def short(text: str) -> str:
    text = re.sub(r"\nFileNames\n.*?\n\n\n", "\n\n", text, flags=re.DOTALL)
    text = re.sub(r", (metadata=\{)[^}]*?(op_name=\"[^\"]*\")?[^}]*\}", _only_name, text)
    trips = r", backend_config=\{.*?(\"known_trip_count\":\{\"n\":\"\d+\"\}).*"
    text = re.sub(trips, r", backend_config={\1}", text)
    return re.sub(r", backend_config=\{(?!\"known).*", "", text)


def _only_name(found: re.Match[str]) -> str:
    name = re.search(r"op_name=\"[^\"]*\"", found[0])
    return f", metadata={{{name[0]}}}" if name else ""


def main(platform: str) -> None:
    jax.config.update("jax_platforms", "cpu")
    folder = Path(__file__).parent / "hlo"
    folder.mkdir(exist_ok=True)
    topology = parse_topology(TOPOLOGIES[platform])
    devices = absent_devices(topology)
    with compiling_for(topology):
        for made in PROGRAMS:
            function, args = made()
            target = SingleDeviceSharding(devices[0])
            args = jax.tree.map(lambda a: a.update(sharding=target), args)  # noqa: B023
            donated = 0 if made.__name__ == "step" else ()
            compiled = jax.jit(function, donate_argnums=donated).lower(*args).compile()
            (folder / f"{platform}_{made.__name__}.txt").write_text(short(compiled.as_text()))


if __name__ == "__main__":
    main(sys.argv[1])
