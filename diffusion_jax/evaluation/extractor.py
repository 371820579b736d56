"""Feature extractors of images, and a classifier trained on the data set itself as one."""

import contextlib
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from diffusion_jax.data import Dataset, Kind, train_batches
from diffusion_jax.models.classifier import Classifier
from diffusion_jax.objectives.contrastive import moved
from diffusion_jax.system.cache import cached
from diffusion_jax.system.devices import in_batches
from diffusion_jax.system.keys import make_key
from diffusion_jax.system.progress import stage
from diffusion_jax.training.ema import EXPONENTIAL, Exponential
from diffusion_jax.training.optimizer import learning_rate_schedule
from diffusion_jax.training.state import create_state
from diffusion_jax.training.step import make_train_step, of_stored
from diffusion_jax.types import Array, Batch, Context, Metrics, Params

STEPS, BATCH_SIZE, LEARNING_RATE, MAX_SHIFT = 1500, 128, 2e-3, 1
CHUNK = 1024
FEATURES = "features"  # name of a stage
CLASSES, EXAMPLES = 2, 5  # classes, and training images of each, that a classifier needs
LOOKED_AT = 1024  # labels that are read if reading one decodes an image


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A frozen network that computes features, and maybe class logits, of images."""

    name: str  # suffix of its metrics' names, `<data set>_cnn` for the data set's own classifier
    digest: str  # short hash of its weights, for passports
    preprocessing: str  # of images, in words, with the type, for passports
    forward: Callable[[Array], tuple[Array | None, Array]]  # as `__call__`, of a batch
    own_classes: bool = True  # whether its classes are those of the data set
    batch_size: int = CHUNK  # images at a time

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Logits `[N, K]`, or None, and features `[N, D]` of uint8 images `[N, H, W, C]`."""
        program = lambda _, images: self.forward(images)  # noqa: E731
        return in_batches(program, (), images, self.batch_size, FEATURES)


def entries(kind: Kind) -> Extractor:
    """The entries of items themselves, in the units of `x`, as features: for few dimensions."""
    forward = lambda items: (None, jnp.reshape(kind.decode(items), (len(items), -1)))  # noqa: E731
    return Extractor("entries", "none", "none, float32", forward, own_classes=False)


def unlearnable(dataset: Dataset) -> str:
    """Why a classifier cannot learn the classes of a data set; '' if it can.

    Sets that are only described, or large and on disk, are assumed to be learnable if they have
    classes.
    """
    if not dataset.num_classes:
        return f"{dataset.name} has no classes, on which a classifier would be trained"
    train = dataset.splits["train"]
    if not len(train) or (not train.source.resident and len(train) > LOOKED_AT):
        return ""
    labels = dataset.arrays("train")[1]
    known = int(np.sum(np.bincount(labels, minlength=CLASSES) >= EXAMPLES))
    if known >= CLASSES:
        return ""
    return (
        f"a classifier learns from {CLASSES} classes of {EXAMPLES} training images or more, and "
        f"{dataset.name} has {known or 'none'} of that size"
    )


def get_extractor(dataset: Dataset, cache: Path, say: Callable[[str], None]) -> Extractor:
    """Loads the data set's classifier from `cache`, or trains it (minutes) and saves it."""
    net, kind = Classifier(dataset.num_classes), dataset.kind
    view = kind.view
    template = jax.eval_shape(net.init, make_key(0), jnp.zeros((1, *view.shape)))
    recipe = repr((net, STEPS, BATCH_SIZE, LEARNING_RATE, MAX_SHIFT, dataset.fingerprint))
    recipe += view.words

    def read(path: Path) -> tuple[Params, str]:
        data = path.read_bytes()
        return serialization.from_bytes(template, data), hashlib.sha256(data).hexdigest()[:12]

    def write(path: Path) -> None:
        say(f"training a classifier on {dataset.name} to measure samples with, once")
        path.write_bytes(serialization.to_bytes(fit(net, dataset)))

    params, digest = cached(cache, recipe, ".msgpack", read, write)
    name = f"{dataset.name.replace('/', '_')}_cnn"
    forward = jax.jit(lambda items: net.apply(params, view.of(kind.decode(items))))
    return Extractor(name, digest, view.words or "pixels as stored, float32", forward)


def fit(net: Classifier, dataset: Dataset) -> Params:
    """Trains by cross-entropy on shifted views, with the train step of all models."""
    kind = dataset.kind
    view = kind.view
    variables = net.init(make_key(0), jnp.zeros((1, *view.shape)))
    optimizer = optax.adam(learning_rate_schedule(LEARNING_RATE, STEPS, decay="cosine"))
    averages = {EXPONENTIAL: Exponential(0.99)}
    state = create_state(variables, optimizer, averages)
    loss_fn = of_stored(
        lambda items: view.of(kind.decode(items)), functools.partial(cross_entropy, net)
    )
    step_fn = jax.jit(make_train_step(loss_fn, optimizer, averages), donate_argnums=0)
    batches = train_batches(dataset, batch_size=BATCH_SIZE, seed=0)
    metrics: Metrics = {}
    with stage("training a classifier", STEPS) as progress:
        for step in range(STEPS):
            before, first = (
                metrics,
                contextlib.nullcontext() if step else progress.apart("compiling"),
            )
            with first:
                state, metrics = step_fn(state, next(batches), make_key(1), {})
            jax.block_until_ready(before)  # counted steps are finished, except the last
            progress.advance()
    batches.close()
    return jax.device_get(state.ema[EXPONENTIAL])


def cross_entropy(
    net: Classifier, params: Params, batch: Batch, context: Context
) -> tuple[Array, Metrics]:
    """A `LossFn`: cross-entropy of the label, of images shifted by up to `MAX_SHIFT` pixels."""
    shift_key, dropout_key = jax.random.split(context.key)
    shifts = jax.random.randint(shift_key, (len(batch["x"]), 2), -MAX_SHIFT, MAX_SHIFT + 1)
    x = moved(batch["x"], shifts)
    logits, _ = net.apply(params, x, train=True, rngs={"dropout": dropout_key})
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["cond"]["label"])
    return loss, {}
