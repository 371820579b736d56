"""The bytes that a compiled program sends to other devices, and over which links of a torus."""

import math
import re
from collections.abc import Sequence

import numpy as np

from diffusion_jax.plan.hlo import Block, Cost, Instruction, Program, add

COLLECTIVES = {
    # Bytes sent by a device in a ring of n, relative to the size of the result.
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: (n - 1) / n,
    "reduce-scatter": lambda n: n - 1,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}


def is_collective(one: Instruction) -> bool:
    """Whether an instruction sends; of an asynchronous one its start does."""
    return one.kind.removesuffix("-start") in COLLECTIVES


def part_of(block: Block, one: Instruction) -> str:
    """What all parts of an asynchronous collective have in common; '' of one that has no parts.

    They are several instructions with one channel. All reduce-scatters of a TPU have the same.
    """
    channel = one.attribute(r"channel_id=(\d+)")
    if not is_collective(one) or not channel or _is_cut(block, one):
        return ""
    return f"{one.kind} {channel} {one.results}"


def exchanged_bytes(text: str, places: Sequence[Sequence[int]] = ()) -> dict[int, int]:
    """Bytes that each device sends in one run of a compiled program.

    By the number of axes of the torus along which the devices of a collective lie: it has the links
    of these axes only. `places` are the coordinates of the devices in the program's order; without
    them all are on one axis. An all-reduce in a fusion that keeps a slice of the sum is sent as a
    reduce-scatter. Loops count as often as they run, the parts of an asynchronous collective once.
    """
    program, counted = Program(text), set[str]()

    def cost(block: Block, one: Instruction) -> Cost:
        found: Cost = {}
        if one.kind.startswith("fusion"):
            for name in one.called:
                inner = program.blocks[name]
                for each in inner.values():
                    add(found, cost(inner, each))
        part = part_of(block, one)
        if is_collective(one) and (not part or part not in counted):
            counted.add(part)
            group = _group(one, len(places))
            add(found, {str(_axes(group, places)): _sent(block, one, len(group))})
        return found

    return {int(axes): round(sent) for axes, sent in program.total(cost).items()}


def _sent(block: Block, one: Instruction, n: int) -> float:
    """Bytes that a collective of `n` devices sends."""
    kind, size = one.kind.removesuffix("-start"), sum(array.bytes for array in one.results)
    if kind == "all-reduce" and _is_cut(block, one):
        return size * (n - 1) / n
    return size * COLLECTIVES[kind](n)


def _is_cut(block: Block, one: Instruction) -> bool:
    """Whether all that is used of a sum are slices, within a fusion: a reduce-scatter on a TPU."""
    names, used = {one.name}, []
    for user in block.values():
        if names & set(user.operands):
            if user.kind == "get-tuple-element":
                names.add(user.name)
            else:
                used.append(user.kind)
    within = all(other.kind != "fusion" for other in block.values())
    return within and bool(used) and set(used) == {"dynamic-slice"}


def _axes(group: Sequence[int], places: Sequence[Sequence[int]]) -> int:
    """Number of axes of the torus along which a group of devices lies, at least one."""
    if not places:
        return 1
    along = zip(*(places[device] for device in group), strict=True)
    return max(1, sum(len(set(axis)) > 1 for axis in along))


def _group(one: Instruction, devices: int) -> Sequence[int]:
    """Devices of the first group of a collective; all of them, at least two, if none is given.

    Written as a list, as (groups, devices), or as axes of a mesh, possibly parts of axes.
    """
    mesh = re.search(r"replica_groups=mesh\[(.*?)\] \{(.*?)\}", one.attributes)
    if mesh:
        return _of_mesh(*mesh.groups())
    iota = re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", one.attributes
    )
    if iota:
        sizes = list(map(int, iota[3].split(",")))
        order = list(map(int, iota[4].split(","))) if iota[4] else range(len(sizes))
        devices_of = np.arange(math.prod(sizes)).reshape(sizes).transpose(order)
        return list(map(int, devices_of.reshape(int(iota[1]), int(iota[2]))[0]))
    listed = one.attribute(r"(?:replica_groups|source_target_pairs)=\{\{([\d,]+)\}")
    return list(map(int, listed.split(","))) if listed else range(max(devices, 2))


def _of_mesh(axes: str, chosen: str) -> Sequence[int]:
    """The first group along some axes of a mesh, such as "'a'=2,'b'=4" and "'b'" or "'b':(1)2"."""
    parts = {name: (before, size) for name, before, size in _CHOSEN.findall(chosen)}
    sizes: list[int] = []
    index: list[int | slice] = []
    for name, whole in re.findall(r"'([^']+)'=(\d+)", axes):
        before, size = (int(part or 0) for part in parts.get(name, ("1", "1")))
        before, size = before or 1, size or int(whole)
        sizes += [before, size, int(whole) // (before * size)]
        index += [0, slice(None), 0]
    return list(map(int, np.arange(math.prod(sizes)).reshape(sizes)[tuple(index)].ravel()))


_CHOSEN = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")
