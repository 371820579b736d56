"""The bytes that a compiled program reads from a device's memory and writes to it, by kind."""

import collections
import dataclasses
from collections.abc import Mapping

from diffusion_jax.plan.collectives import is_collective, part_of
from diffusion_jax.plan.hlo import (
    LIBRARY_ATTENTION,
    LIBRARY_PRODUCTS,
    NOTHING_MOVES,
    PRODUCTS,
    Array,
    Block,
    Cost,
    Instruction,
    Program,
)

KINDS = (
    "products",  # matrix products and convolutions, with what is fused to them
    "attention",  # fused kernels; else its products, and all that is done to the weights
    "optimizer and averages",  # all behind the gradient: its norm, the update, moving averages
    "stacks of the scan",  # filling them, writing and reading what the backward pass needs
    "casts",  # from one number format to another, with nothing else
    "copies",  # also transposed, cut and joined
    "exchange",  # collectives reading and writing this device's memory
    "rest",  # norms, activations, biases, noise
)
KERNELS, FUSED = "kernels", "kernels of fused attention"  # counted beside the bytes
# They name memory and move nothing, or are counted where they start.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "domain"),
    *("add-dependency", "partition-id", "replica-id", "opt-barrier", "optimization-barrier"),
}
# Nothing is computed by these.
MOVES = {
    *(*FREE, "reshape", "copy", "copy-start", "transpose", "slice", "slice-start", "concatenate"),
    *("pad", "broadcast", "reverse", "convert", "dynamic-slice", "dynamic-update-slice"),
}
FILLS = {"broadcast", "constant", "tuple", "bitcast", "convert"}
NAMES = ("bitcast", "get-tuple-element")  # the same memory under another name
SAME = ("parameter", "bitcast", "reshape")  # within a fusion
FETCHES = ("copy-start", "slice-start", "copy-done", "slice-done")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes by kind in one run of a program, and the number of kernels that it starts."""

    bytes: Mapping[str, int]
    kernels: int
    fused_attention: int  # of these

    @property
    def whole(self) -> int:
        """Bytes of all kinds."""
        return sum(self.bytes.values())


def read_traffic(text: str) -> Traffic:
    """Traffic of a program by its optimised HLO (`compiled.as_text()`).

    An instruction reads its operands and writes its results, a fusion only those of the whole: what
    is within it stays in registers. What is sliced counts as the slice, and what is updated in
    place as the update. Buffers of a TPU in VMEM are not counted, but bringing them there and back
    is, as the kind of what uses them. Loops count as often as they run. Caches keep nothing from
    one instruction to the next.
    """
    reader = _Reader(Program(text))

    def cost(block: Block, one: Instruction) -> Cost:
        later = one.kind.endswith(("-done", "-update"))
        if one.kind in FREE or one.target in NOTHING_MOVES or later:
            return {}
        moved = reader.moved(block, one)
        reader.count_collectives(block, one)
        fused = any(LIBRARY_ATTENTION.search(o.target) for o in reader.program.inside(one))
        return {reader.kind(block, one): moved, KERNELS: 1, FUSED: fused}

    found = reader.program.total(cost)
    sizes = {kind: round(found.get(kind, 0)) for kind in KINDS}
    return Traffic(sizes, *(round(found.get(name, 0)) for name in (KERNELS, FUSED)))


class _Reader:
    """Bytes and kinds of single instructions of a program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.counted: set[str] = set()  # parts of collectives
        blocks = program.blocks
        self.users: dict[int, dict[str, list[Instruction]]] = {
            id(block): _users(block) for block in blocks.values()
        }
        self.entry = blocks.get(program.entry, {})
        scopes = (one.scope for block in blocks.values() for one in block.values())
        self.has_gradient = any("transpose(jvp(" in scope for scope in scopes)

    # Bytes

    def moved(self, block: Block, one: Instruction) -> float:
        """Bytes that an instruction reads and writes."""
        read = 0.0
        for position, name in enumerate(one.operands):
            arrays = block[name].results if name in block else ()
            outside = sum(array.bytes for array in arrays if not array.space)
            read += min(outside, self._read(block, one, position, outside))
        written = self._written(block, one)
        results = zip(one.results, written, strict=True)
        return read + sum(size for array, size in results if not array.space)

    def _read(self, block: Block, one: Instruction, position: int, whole: float) -> float:
        """Bytes of one of its operands, of which all are `whole`, that an instruction reads."""
        if one.kind in ("dynamic-slice", "slice", "slice-start", "gather") and not position:
            return sum(array.bytes for array in one.results)
        if one.kind in ("dynamic-update-slice", "scatter") and not position:
            return 0.0  # in place
        if part_of(block, one) in self.counted:
            return 0.0
        if one.kind.startswith("fusion"):
            return sum(self._used(self.program.blocks[n], position, whole) for n in one.called)
        return whole

    def _used(self, block: Block, position: int, whole: float) -> float:
        """Bytes of a fusion's parameter that are read inside."""
        found = 0.0
        parameters = [o for o in block.values() if o.kind == "parameter" and o.position == position]
        while parameters:
            one = parameters.pop()
            for user in self.users[id(block)].get(one.name, ()):
                if all(inner.kind in SAME for inner in self.program.inside(user)):
                    parameters.append(user)
                elif user.kind != "tuple":
                    places = [i for i, name in enumerate(user.operands) if name == one.name]
                    found += sum(self._read(block, user, place, whole) for place in places)
        return min(found, whole)

    def _written(self, block: Block, one: Instruction) -> list[float]:
        """Bytes of each result that an instruction writes."""
        if part_of(block, one) in self.counted:
            return [0.0] * len(one.results)
        if one.kind in ("dynamic-update-slice", "scatter"):
            update = block.get(one.operands[1 if one.kind == "dynamic-update-slice" else -1])
            return [sum(array.bytes for array in update.results) if update else 0.0]
        if one.kind.startswith("fusion") and one.called:
            inner = self.program.blocks[one.called[0]]
            found = self._of_root(inner, next(o for o in inner.values() if o.root))
            if len(found) == len(one.results):
                return found
        sizes = [array.bytes for array in one.results]
        if one.target.startswith("__cu") and len(sizes) > 1:
            return [*sizes[:-1], 0.0]  # the last is the library's working space
        return sizes

    def _of_root(self, block: Block, root: Instruction) -> list[float]:
        if root.kind == "tuple":
            return [size for name in root.operands for size in self._of_root(block, block[name])]
        if root.kind in SAME and root.operands and root.operands[0] in block:
            return self._of_root(block, block[root.operands[0]])
        if root.kind == "parameter":
            return [0.0] * len(root.results)  # passed on
        return self._written(block, root)

    def count_collectives(self, block: Block, one: Instruction) -> None:
        """Notes the collectives in an instruction; later parts of them move nothing more."""
        self.counted |= {part_of(block, one)} - {""}
        if one.kind.startswith("fusion"):
            for name in one.called:
                for inner in self.program.blocks[name].values():
                    self.count_collectives(self.program.blocks[name], inner)

    # Kinds

    def kind(self, block: Block, one: Instruction) -> str:
        """The kind of traffic that an instruction is."""
        inside = self.program.inside(one)
        products = [inner for inner in inside if _is_product(inner)]
        if any(LIBRARY_ATTENTION.search(inner.target) for inner in inside):
            return "attention"
        if products:
            return "attention" if all(map(_in_attention, products)) else "products"
        if any(map(is_collective, inside)):
            return "exchange"
        if one.kind in FETCHES and (other := self._beside(block, one)):
            return self.kind(block, other)
        if block is self.entry and self._updates(block, one, inside):
            return "optimizer and averages"
        if _fills(inside) or (block is not self.entry and _stacks(inside)):
            return "stacks of the scan"
        if _in_attention(one) and not all(map(_only_moves, inside)):
            return "attention"
        if all(map(_only_moves, inside)):
            return "casts" if any(_is_cast(inner) for inner in inside) else "copies"
        return "rest"

    def _beside(self, block: Block, one: Instruction) -> Instruction | None:
        """For what is copied to or from VMEM: the instruction that uses it, or that made it."""
        done = self._users(block, one)[0] if one.kind.endswith("-start") else one
        if any(array.space for array in done.results):
            around = self._users(block, done)
        else:
            source = block.get(one.operands[0]) if one.operands else None
            while source and source.kind in NAMES:
                source = block.get(source.operands[0])
            around = [source] if source and any(array.space for array in source.results) else []
        return next((o for o in around if o.kind not in FREE and o.kind not in FETCHES), None)

    def _users(self, block: Block, one: Instruction) -> list[Instruction]:
        """Instructions that use a value, under this name or another."""
        users = self.users[id(block)].get(one.name, [])
        return [
            last
            for user in users
            for last in (self._users(block, user) if user.kind in NAMES else [user])
        ]

    def _updates(self, block: Block, one: Instruction, inside: list[Instruction]) -> bool:
        """Whether an instruction is behind the gradient of a train step."""
        if not self.has_gradient or "jvp(" in one.scope:
            return False
        if one.scope:
            return True
        donated = {self._argument(block, name) for name in one.operands} & self.program.donated
        return len(donated) > 1 and not all(map(_only_moves, inside))

    def _argument(self, block: Block, name: str) -> int:
        """Position of the program's argument that a value is, copied or not; -1 if it is none."""
        while name in block and block[name].kind in (*FETCHES, *NAMES, "copy"):
            name = block[name].operands[0]
        one = block.get(name)
        return one.position if one and one.kind == "parameter" else -1


def _users(block: Block) -> dict[str, list[Instruction]]:
    found = collections.defaultdict(list)
    for one in block.values():
        for name in dict.fromkeys(one.operands):
            found[name].append(one)
    return found


def _is_product(one: Instruction) -> bool:
    return one.kind in PRODUCTS or bool(LIBRARY_PRODUCTS.search(one.target))


def _in_attention(one: Instruction) -> bool:
    return "dot_product_attention" in one.scope  # the name that `models.attention` gives


def _is_index(array: Array) -> bool:
    return not array.shape and not array.dtype.startswith(("f", "bf"))


def _only_moves(one: Instruction) -> bool:
    return one.kind in MOVES or all(map(_is_index, one.results))


def _is_cast(one: Instruction) -> bool:
    return one.kind == "convert" and not all(map(_is_index, one.results))


def _fills(inside: list[Instruction]) -> bool:
    """Whether nothing is read: arrays are filled with constants."""
    kinds = {one.kind for one in inside}
    return "broadcast" in kinds and kinds <= FILLS


def _stacks(inside: list[Instruction]) -> bool:
    """Whether an instruction of a loop's body writes into a stack, or only reads from one."""
    kinds = [one.kind for one in inside]
    read = "dynamic-slice" in kinds and all(map(_only_moves, inside))
    return "dynamic-update-slice" in kinds or read
