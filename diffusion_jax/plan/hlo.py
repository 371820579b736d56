"""The optimised HLO text of a compiled program: its instructions, and how often each of them runs.

`compiled.as_text()` of a program for a CPU, a GPU or a TPU. XLA's own cost analysis counts the body
of a loop once, and that of a program for an absent GPU is empty.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence

Cost = dict[str, float]
PRODUCTS = ("dot", "convolution")
# Custom calls that are products, and those that are attention as a whole.
LIBRARY_PRODUCTS = re.compile(r"gemm|matmul|conv|dot", re.IGNORECASE)
LIBRARY_ATTENTION = re.compile(r"fmha|flash_attention|splash", re.IGNORECASE)
NOTHING_MOVES = ("AllocateBuffer", "ConcatBitcast")  # custom calls of TPUs that name memory only


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of an instruction's result, with the memory it is in: 0 is the device's own."""

    dtype: str
    shape: tuple[int, ...]
    space: int  # of a TPU 1 is VMEM, others scalars and semaphores

    @property
    def bytes(self) -> float:
        """Its size; padding left out."""
        bits = re.search(r"\d+", self.dtype)
        width = int(bits[0]) / 8 if bits else float(self.dtype == "pred")  # tokens have none
        return width * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    kind: str  # such as "fusion" or "all-reduce-start"
    results: tuple[Array, ...]  # of an asynchronous start without its operands and flags
    operands: tuple[str, ...]
    position: int  # of a parameter
    attributes: str  # everything behind the operands
    root: bool

    def attribute(self, pattern: str) -> str:
        """The first group of a pattern in the attributes; '' if it is not there."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    @functools.cached_property
    def scope(self) -> str:
        """The name that JAX gave it: transformations, modules and the operation."""
        return self.attribute(r'op_name="([^"]*)"')

    @functools.cached_property
    def target(self) -> str:
        """What a custom call calls."""
        return self.attribute(r'custom_call_target="([^"]*)"')

    @functools.cached_property
    def called(self) -> tuple[str, ...]:
        """Computations that it runs, of a conditional its branches; of a loop the body."""
        listed = self.attribute(r"branch_computations=\{([^}]*)\}")
        if listed:
            return tuple(re.findall(r"[\w.\-]+", listed))
        names = r"(?:calls|to_apply|body|true_computation|false_computation)=%?([\w.\-]+)"
        return tuple(re.findall(names, self.attributes))


Block = Mapping[str, Instruction]  # a computation, in the order in which it runs


class Program:
    """A compiled program.

    Attributes:
        blocks: its computations by name.
        entry: the name of that which runs first.
        donated: positions of the arguments in whose memory results are written.
    """

    def __init__(self, text: str) -> None:
        self.blocks: dict[str, Block] = {}
        self.entry = ""
        block = re.compile(r"^(ENTRY )?%?([\w.\-]+) \([^\n]*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
        for entry, name, body in block.findall(text):
            instructions = map(parse, body.splitlines())
            self.blocks[name] = {one.name: one for one in instructions if one}
            self.entry = name if entry else self.entry
        header = text[: text.find("\n\n")]
        aliases = re.findall(r"\{[\d, ]*\}: \((\d+), \{", header)
        self.donated = frozenset(map(int, aliases))

    def inside(self, instruction: Instruction) -> list[Instruction]:
        """The instructions that a fusion has inside, at any depth; else the instruction itself."""
        if not instruction.kind.startswith("fusion"):
            return [instruction]
        return [
            inner
            for name in instruction.called
            for one in self.blocks[name].values()
            for inner in self.inside(one)
        ]

    def total(self, cost: Callable[[Block, Instruction], Cost]) -> Cost:
        """The sum of a cost of each instruction times how often it runs; fusions are one each.

        Of the branches of a conditional the most expensive counts.
        """
        known: dict[str, Cost] = {}

        def of(name: str) -> Cost:
            if name not in known:
                known[name] = sum_of(self.blocks.get(name, {}))
            return known[name]

        def sum_of(block: Block) -> Cost:
            found: Cost = {}
            for one in block.values():
                if one.kind == "while":
                    add(found, of(one.called[-1]), self._trips(one))
                elif one.kind == "conditional":
                    add(found, max(map(of, one.called), key=lambda cost: sum(cost.values())))
                elif one.kind in ("call", "async-start"):
                    for name in one.called:
                        add(found, of(name))
                else:
                    add(found, cost(block, one))
            return found

        return of(self.entry)

    def _trips(self, loop: Instruction) -> int:
        """How often a loop runs: as the compiler knows, or the number in its condition.

        It is the largest there, with which a scan compares its counter.
        """
        known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
        if known:
            return int(known)
        condition = self.blocks.get(loop.attribute(r"condition=%?([\w.\-]+)"), {})
        inside = (inner for one in condition.values() for inner in self.inside(one))
        numbers = (one.attributes for one in inside if one.kind == "constant")
        return max((int(one) for one in numbers if one.isdigit()), default=1)


def add(found: Cost, other: Cost, times: float = 1) -> None:
    """Adds another cost to `found`."""
    for key, value in other.items():
        found[key] = found.get(key, 0) + times * value


def parse(line: str) -> Instruction | None:
    """The instruction of a line; None if it has none."""
    found = re.match(r"\s*(ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(", line)
    if not found:
        return None
    root, name, shape, kind = found.groups()
    end = _closing(line, found.end() - 1)
    between, attributes = line[found.end() : end], line[end + 1 :]
    if kind == "constant":
        # Its value takes the place of attributes: nothing else of a constant is asked for.
        return Instruction(name, kind, _arrays(shape), (), 0, between, bool(root))
    operands = tuple(re.findall(r"%([\w.\-]+)", between))
    position = int(between) if kind == "parameter" else 0
    results = _arrays(_results(shape, kind))
    return Instruction(name, kind, results, operands, position, attributes, bool(root))


def _closing(line: str, start: int) -> int:
    """The place of the bracket that closes that at `start`."""
    depth = 0
    for place in range(start, len(line)):
        depth += {"(": 1, ")": -1}.get(line[place], 0)
        if not depth:
            return place
    return len(line)


def _results(shape: str, kind: str) -> str:
    """The part of a shape that an asynchronous start writes: it lists operands and flags too."""
    if not kind.endswith("-start"):
        return shape
    parts = split(shape)
    if kind == "copy-start":  # (result, operand, flag)
        return parts[0]
    if kind in ("all-reduce-start", "collective-broadcast-start"):
        return shape
    return parts[1] if len(parts) > 1 else shape  # (operands, results, ...)


def split(shape: str) -> Sequence[str]:
    """The parts of a tuple's shape."""
    if not shape.startswith("("):
        return [shape]
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [re.sub(r"/\*.*?\*/", "", part).strip() for part in parts]


def _arrays(shape: str) -> tuple[Array, ...]:
    found = re.findall(r"\b([a-z]+\d*[a-z\d]*)\[([\d,<=]*)\](?:\{([^}]*)\})?", shape)
    spaces = (re.search(r"S\((\d+)\)", layout) for _, _, layout in found)
    return tuple(
        Array(dtype, tuple(map(int, re.findall(r"\d+", sizes))), int(space[1]) if space else 0)
        for (dtype, sizes, _), space in zip(found, spaces, strict=True)
    )
