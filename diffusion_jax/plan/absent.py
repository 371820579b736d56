"""Devices that are not there, for the compilers that know them: libtpu's, and XLA's for NVIDIA."""

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import jax
from jax.experimental import topologies

from diffusion_jax.models.platform import computing_on
from diffusion_jax.plan import absent_gpu, gpu_targets
from diffusion_jax.plan.hardware import Topology, TopologyError
from diffusion_jax.training.writers import silent_stderr

# What `pip` installs for each platform, and a module of it.
PACKAGES = {
    "tpu": ("libtpu", "libtpu"),
    "gpu": ("jax-cuda13-plugin jax-cuda13-pjrt", "jax_plugins.xla_cuda13"),
}
ELSEWHERE = {
    "TPU_SKIP_MDS_QUERY": "1",  # do not query a metadata server for this machine's type
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no TPU is in use, so that several processes may plan
}


def has_compiler(topology: Topology) -> bool:
    """Whether the compiler for a topology can be imported, and knows it."""
    if topology.hardware.platform == "gpu" and not gpu_targets.is_known(topology):
        return False
    package, _, module = PACKAGES[topology.hardware.platform][1].rpartition(".")
    try:
        return importlib.util.find_spec(f"{package}.{module}" if package else module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def absent_devices(topology: Topology) -> Any:
    """Devices of a topology, to compile for.

    Raises:
        TopologyError: the compiler does not support the topology.
    """
    for name, value in ELSEWHERE.items():
        os.environ.setdefault(name, value)
    # One device per chip, which is not libtpu's default for v4.
    options = {"chip_config_name": "megacore"} if topology.name.startswith("v4:") else {}
    try:
        with silent_stderr():
            if topology.hardware.platform == "gpu":
                return absent_gpu.devices(topology)
            return topologies.get_topology_desc(topology.name, "tpu", **options).devices
    except (jax.errors.JaxRuntimeError, NotImplementedError) as error:
        raise TopologyError(f"--topology={topology.name}: {one_line(error)}") from error


@contextlib.contextmanager
def compiling_for(topology: Topology) -> Iterator[None]:
    """Context: functions traced, lowered and compiled inside are for a topology's devices."""
    around: AbstractContextManager[None] = contextlib.nullcontext()
    capability = 0.0
    if topology.hardware.platform == "gpu":
        around, capability = absent_gpu.as_if_present(topology), gpu_targets.capability(topology)
    with around, computing_on(topology.hardware.platform, capability), silent_stderr():
        yield


def one_line(error: Exception) -> str:
    """The first sentence of a compiler message, without error codes."""
    first = str(error).strip().splitlines()[0]
    return re.sub(r"^(?:[A-Z_]+: |E\d+: |\w+Oom: )+", "", first).split(" HLO module")[0].rstrip(".")
