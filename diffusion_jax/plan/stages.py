"""Memory of the stages of a training: steps, checkpoints, held-out losses and grids of samples."""

import jax

from diffusion_jax.models.flops import count_peak_memory
from diffusion_jax.models.platform import computing_on
from diffusion_jax.plan.memory import size_in_words
from diffusion_jax.plan.program import FROZEN, PARTS, REST, Program
from diffusion_jax.plan.sampling import drawing
from diffusion_jax.types import Context

STEP = "training step"


def stages(program: Program, step: int) -> dict[str, int]:
    """Bytes on each device in every stage, of which a step needs `step`.

    Checkpoints are written from where the state is; on a CPU from a copy of it. Held-out losses and
    grids need one average beside it, and what they compute, estimated from lifetimes.
    """
    config, task, memory = program.config, program.parts.task, program.memory
    state = sum(memory[name] for name in (*PARTS.values(), REST))
    held = state + memory.get(FROZEN, 0)
    copied = state if program.platform == "cpu" else 0
    beside = held + copied + memory[PARTS["params"]] + memory["parameters as computed with"]
    found = {STEP: step, "checkpoint": held + copied}
    if config.train.heldout_every:
        found["held-out loss"] = beside + _heldout(program)
    if config.train.sample_every and task.generator is not None:
        shown = min(config.sample.num_images, program.dataset.kind.shown, config.sample.batch_size)
        rows = max(1, -(-shown // program.devices))
        drawn = drawing(config, program.parts, program.platform, rows)
        found["grid of samples"] = beside + drawn
    return found


def _heldout(program: Program) -> int:
    """Bytes of the held-out loss of a batch, which is not accumulated."""
    rows = max(1, -(-program.config.train.batch_size // program.devices))
    key = jax.eval_shape(jax.random.key, 0)
    context = Context(key, program.state.step, program.state.ema, program.frozen)
    kind = program.dataset.kind  # they are not encoded before, unlike the items trained on
    x = jax.ShapeDtypeStruct((rows, *kind.shape), kind.dtype)
    batch = {**program.batch(rows), "x": x}
    with computing_on(program.platform):
        loss = program.parts.task.heldout_loss
        return count_peak_memory(loss, program.state.params, batch, context)


def about_stages(program: Program, step: int, limit: float) -> list[str]:
    """A line about the memory of each stage, and which one is the largest."""
    found = stages(program, step)
    largest = max(found, key=found.__getitem__)
    words = ", ".join(f"{size_in_words(size)} {name}" for name, size in found.items())
    lines = [f"largest of the stages of a training: the {largest} ({words})"]
    if largest != STEP and found[largest] > limit:
        lines.append(f"the {largest} does not fit: its size is estimated")
    return lines
