"""Published specifications of accelerators, and topologies by name."""

import dataclasses
import math
import re
from collections.abc import Mapping

from diffusion_jax.system.command_line import suggest

GIB = 2**30


class TopologyError(ValueError):
    """An unknown topology; the message names it and what is allowed."""


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Specifications of one kind of device."""

    platform: str  # "tpu", "gpu" or "cpu"
    kind: str  # part of its name in JAX (`jax.Device.device_kind`)
    flops: float  # peak of dense bfloat16 products, FLOP/s
    memory: float  # bytes
    bandwidth: float  # of the memory, bytes/s
    interconnect: float  # to its neighbours, bytes/s in one direction, over all links
    network: float  # the same beyond `node` devices
    node: int  # largest number of devices joined by the interconnect


def _tpu(kind: str, flops: float, gib: int, bandwidth: float, gbit: float, most: int) -> Hardware:
    """Interconnect in Gbit/s; `most` is the number of chips in the largest slice."""
    return Hardware("tpu", kind, flops, gib * GIB, bandwidth, gbit / 8 * 1e9, 0.0, most)


def _gpu(kind: str, flops: float, gb: int, bandwidth: float, nvlink: float) -> Hardware:
    """NVLink as published, for both directions together; a network adapter of 400 Gbit/s each."""
    return Hardware("gpu", kind, flops, gb * 1e9, bandwidth, nvlink / 2, 50e9, 8)


HARDWARE: Mapping[str, Hardware] = {
    # cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e}: peak compute (bf16), HBM capacity and bandwidth,
    # interchip interconnect bandwidth, chips of a pod; all per chip.
    "v4": _tpu("TPU v4", 275e12, 32, 1.2e12, 2400, 4096),
    "v5e": _tpu("TPU v5 lite", 197e12, 16, 0.819e12, 1600, 256),
    "v5p": _tpu("TPU v5", 459e12, 95, 2.765e12, 4800, 8960),
    "v6e": _tpu("TPU v6 lite", 918e12, 32, 1.64e12, 3584, 256),
    # NVIDIA's data sheets of the SXM modules: tensor cores without sparsity, memory, NVLink.
    "a100-40": _gpu("A100-SXM4-40GB", 312e12, 40, 1.555e12, 600e9),
    "a100-80": _gpu("A100-SXM4-80GB", 312e12, 80, 2.039e12, 600e9),
    "h100": _gpu("H100", 989.4e12, 80, 3.35e12, 900e9),
    "h200": _gpu("H200", 989.4e12, 141, 4.8e12, 900e9),
    "b200": _gpu("B200", 2250e12, 180, 7.7e12, 1800e9),
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A number of devices of one kind."""

    name: str  # as given, such as "v5e:16x16" or "h100:8"
    hardware: Hardware
    count: int

    @property
    def link(self) -> float:
        """Bytes/s that a device can send to the others."""
        whole = self.count <= self.hardware.node
        return self.hardware.interconnect if whole else self.hardware.network

    def along(self, axes: int) -> float:
        """Bytes/s that a device can send to others along some of the axes of its torus.

        Each axis has an equal share of the links. GPUs have one axis.
        """
        if self.hardware.platform != "tpu":
            return self.link
        return self.link * axes / (self.name.count("x") + 1)


def parse_topology(name: str) -> Topology:
    """Parses a topology name: a kind, a colon, and a number or a grid of devices.

    Raises:
        TopologyError: it is unknown; one sentence suggests the nearest match.
    """
    kind, _, size = name.lower().partition(":")
    hardware = HARDWARE.get(kind)
    if not hardware:
        raise _refusal(name, f"no device is called {kind!r}{suggest(kind, HARDWARE)}")
    most, number = hardware.node, r"[1-9]\d*"
    pattern, example = number, "1, 8, 16"
    if hardware.platform == "tpu":
        cube = kind in ("v4", "v5p")
        pattern = "x".join([number] * (3 if cube else 2))
        example = "2x2x1, 4x4x4" if cube else "1x1, 4x4, 16x16"
    if not re.fullmatch(pattern, size):
        raise _refusal(name, f"{size!r} is not a size of {kind}; use e.g. {example}")
    count = math.prod(map(int, size.split("x")))
    if count > most and hardware.platform == "tpu":
        raise _refusal(name, f"a slice of {kind} has at most {most} chips")
    if count > most and count % most:
        raise _refusal(name, f"more than {most} of {kind} must be a multiple of {most}")
    return Topology(f"{kind}:{size}", hardware, count)


def _refusal(name: str, why: str) -> TopologyError:
    return TopologyError(f"--topology={name}: {why}")


def find_hardware(device_kind: str) -> Hardware | None:
    """The device with this name in JAX; None if it is not in the table."""
    found = [h for h in HARDWARE.values() if h.kind.lower() in device_kind.lower()]
    return max(found, key=lambda h: len(h.kind), default=None)
