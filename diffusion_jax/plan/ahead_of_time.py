"""Compiles the train step ahead of time for absent TPUs, by libtpu, and reads its statistics."""

import dataclasses
import importlib.util
import math
import os
import re

import jax
from jax.experimental import topologies

from diffusion_jax.from_config import make_step
from diffusion_jax.models.platform import computing_on
from diffusion_jax.plan.hardware import Topology, TopologyError
from diffusion_jax.plan.program import Program
from diffusion_jax.training.parallel import Sharded
from diffusion_jax.training.writers import silent_stderr

ELSEWHERE = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not query a metadata server for this machine's type
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is in use, so that several processes may plan
}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """The compiler's statistics for each device, in bytes."""

    arguments: int = 0  # state and batch, with padding
    temporary: int = 0  # gradients, activations and workspace
    code: int = 0  # the program itself
    exchanged: int = 0  # sent per step
    refused: str = ""  # the compiler's error message; '' if it succeeded


def has_libtpu() -> bool:
    """Whether libtpu can be imported."""
    return importlib.util.find_spec("libtpu") is not None


def compile_step(program: Program, topology: Topology) -> Compiled:
    """Compiles the train step for `topology` without running it.

    Raises:
        TopologyError: libtpu does not support the topology.
    """
    for name, value in ELSEWHERE.items():
        os.environ.setdefault(name, value)
    # One device per chip, which is not libtpu's default for v4.
    options = {"chip_config_name": "megacore"} if topology.name.startswith("v4:") else {}
    try:
        with silent_stderr():
            devices = topologies.get_topology_desc(topology.name, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        raise TopologyError(f"--topology={topology.name}: {one_line(error)}") from error
    _, fsdp, model = program.cuts
    parallel = Sharded(fsdp, model, devices)
    with computing_on("tpu"), silent_stderr():
        lowered = parallel.compile(make_step(program.config, program.parts)).lower(
            *program.arguments(parallel)
        )
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return Compiled(refused=one_line(error))
        found = compiled.memory_analysis()
        held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        sizes = held, found.temp_size_in_bytes, found.generated_code_size_in_bytes
        return Compiled(*sizes, exchanged_bytes(compiled.as_text()))


def one_line(error: Exception) -> str:
    """The first sentence of a compiler message, without error codes."""
    first = str(error).strip().splitlines()[0]
    return re.sub(r"^(?:[A-Z_]+: |E\d+: |\w+Oom: )+", "", first).split(" HLO module")[0].rstrip(".")


COLLECTIVES = {
    # Bytes sent by a device in a ring of n, relative to the size of the result.
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
BYTES = {"pred": 1, "bf16": 2, "f16": 2, "f64": 8, "s64": 8, "u64": 8}


def exchanged_bytes(hlo: str) -> int:
    """Bytes that each device sends in one run of a compiled program.

    Collectives in a loop body count as often as it runs: the largest number in the loop's
    condition, with which a scan compares its counter. The parts of an asynchronous collective are
    several instructions with one channel, and count once.
    """
    block = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
    computations = {
        "ENTRY" if entry else name: body.splitlines() for entry, name, body in block.findall(hlo)
    }
    counted: set[str] = set()

    def of(name: str) -> float:
        total = 0.0
        for line in computations.get(name, ()):
            channel = re.search(r"channel_id=(\d+)", line)
            if channel is None or channel[1] not in counted:
                total += _sent(line)
            counted.update(channel.groups() if channel else ())
            loop = re.search(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)", line)
            if loop:
                condition = " ".join(computations.get(loop[1], ()))
                trips = max(map(int, re.findall(r"constant\((\d+)\)", condition)), default=1)
                total += trips * of(loop[2])
                continue
            called = re.findall(r"(?:calls|to_apply|computation)=%?([\w.\-]+)", line)
            total += sum(map(of, called))
        return total

    return int(of("ENTRY"))


def _sent(line: str) -> float:
    """Bytes sent by the collective in a line, 0 if there is none."""
    kinds = "|".join(COLLECTIVES)
    match = re.search(rf"= (.*?) ({kinds})(-start)?\(", line)
    if not match:
        return 0.0
    size, n = 0.0, _group_size(line)
    for dtype, dims in re.findall(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]", match[1]):
        size += BYTES.get(dtype, 4) * math.prod(int(d) for d in dims.split(",") if d)
    if match[3]:  # asynchronous starts may list operands before results
        size *= {"all-gather": n / (n + 1), "collective-permute": 0.5}.get(match[2], 1)
    return size * COLLECTIVES[match[2]](n)


def _group_size(line: str) -> int:
    """Number of devices in each group of a collective; at least two if it is not given.

    Written as a list, as (groups, devices), or as axes of a mesh, possibly parts of axes.
    """
    mesh = re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", line)
    if mesh:
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", mesh[1]))
        axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part or sizes[name]) for name, part in axes)
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    if iota:
        return int(iota[2])
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", line)
    return len(listed[1].split(",")) if listed else 2
