"""Claims 1 and 3: where sampling may start, and what surrounds a picture."""

import jax.numpy as jnp
import numpy as np

from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.evaluation.extractor import Extractor
from diffusion_jax.generation.labels import proportional_labels
from diffusion_jax.generation.starts import UNIFORM, picture
from diffusion_jax.metrics.frechet import frechet_distance, moments
from diffusion_jax.metrics.intervals import Estimate, bootstrap
from diffusion_jax.metrics.neighbours import nearest_distances
from experiments.essays.bench import Bench, share

STEPS = 12
STEP = 0.05
"""Standard deviation of a random step of each pixel, whose range is 2."""
WALK = (0, 10, 30, 100, 200, 400, 700, 1000, 2000, 4000, 10000)


def frechet(look: Extractor, images: np.ndarray, to: np.ndarray, labels: np.ndarray) -> Estimate:
    """Frechet distance of pictures to those of `to`, by a bootstrap within the labels asked for."""
    reference = moments(look(to)[1])

    def distance(rows: np.ndarray) -> float:
        return frechet_distance(moments(rows), reference)

    return bootstrap(distance, look(images)[1], 50, labels)


def states(bench: Bench, num: int, raw: bool = True) -> dict[str, np.ndarray]:
    """`x_T` `[num, ...]` of each start, by its name: of pictures, a held-out one for each."""
    images, _ = bench.arrays("heldout", num)
    x_0 = to_float(np.resize(images, (num, *bench.shape)))
    found = {
        "normal": bench.start(num),
        "uniform": bench.start(num, UNIFORM),
        "a picture": np.concatenate([bench.start(1, picture(x, "")) for x in x_0]),
    }
    return {**found, "a picture as it is": x_0} if raw else found


def start(bench: Bench, num: int) -> tuple[dict, dict[str, np.ndarray]]:
    """Law and quality at 12 steps from each start, without and with noise on the way."""
    train, known = bench.arrays("train")
    classes = bench.model.run.parts.dataset.num_classes
    labels = proportional_labels(known, classes, num)
    labels = np.random.default_rng(0).permutation(labels)
    found: dict = {"n": num, "steps": STEPS}
    shown = []
    for name, x_T in states(bench, num).items():
        for sampler in ("ddim", "ancestral"):
            images = bench.down(x_T, labels, steps=STEPS, sampler=sampler)
            found[f"{name}, {sampler}"] = {
                "frechet": frechet(bench.look, images, train, labels),
                "of the class asked for": share(bench.classes(images) == labels),
            }
            if sampler == "ddim":
                shown += [images[:10]]
    noises = {name: x.reshape(num, -1) for name, x in states(bench, num, raw=False).items()}
    found["|x_T|^2 / D, mean and standard deviation"] = {
        name: [float((x**2).mean()), float((x**2).mean(1).std())] for name, x in noises.items()
    }
    heldout, own = bench.arrays("heldout", num)
    found["held-out pictures, frechet"] = frechet(bench.look, heldout, train, own)
    return found, {"start": np.concatenate(shown)}


def walk(bench: Bench, num: int) -> tuple[dict, dict[str, np.ndarray]]:
    """Random steps away from held-out pictures, and the way back; random pictures."""
    images, labels = bench.arrays("heldout", num)
    num = len(images)
    x_0 = to_float(images)
    eps = np.random.default_rng(1).normal(size=x_0.shape)
    train, _ = bench.arrays("train")
    flat = lambda x: to_float(x).reshape(len(x), -1)  # noqa: E731
    near = np.quantile(nearest_distances(flat(images), flat(train)), 0.95)

    def like_data(found: np.ndarray) -> Estimate:
        """Share as near to a training picture as 95% of the held-out ones are."""
        return share(nearest_distances(flat(found), flat(train)) <= near)

    rows, shown = [], []
    for steps in WALK:
        sigma = STEP * steps**0.5
        noisy = x_0 + sigma * eps
        scaled = noisy / np.sqrt(1 + sigma**2)
        logsnr = -2 * np.log(max(sigma, 1e-3))
        t = float(bench.schedule.time_at(jnp.array(logsnr)))
        alpha = float(bench.schedule.alpha(jnp.array(t)))
        back = bench.down(alpha * noisy, t=t) if steps else images
        seen = to_uint8(scaled / max(np.abs(scaled).max(), 1))
        rows.append(
            {
                "steps": steps,
                "sigma": sigma,
                "t": t,
                "seen by the classifier": share(bench.classes(to_uint8(noisy)) == labels),
                "seen after one look of the network": share(
                    bench.classes(to_uint8(bench.denoised(alpha * noisy, t))) == labels
                ),
                "way back ends in the class": share(bench.classes(back) == labels),
                "way back ends among pictures": like_data(back),
            }
        )
        shown += [seen[:1], back[:1]]
    rng = np.random.default_rng(2)
    random = rng.integers(0, 256, (10_000, *bench.shape), np.uint8)
    anywhere: dict = {
        "random pictures": like_data(random),
        "held-out pictures": like_data(images),
        "from normal noise": like_data(bench.down(bench.start(num))),
        "from uniform noise": like_data(bench.down(bench.start(num, UNIFORM))),
        "from other pictures": like_data(bench.down(states(bench, num)["a picture"])),
        "from twice the noise": like_data(bench.down(2 * bench.start(num))),
        "from half the noise": like_data(bench.down(bench.start(num) / 2)),
    }
    anywhere["mean nearest distance of random pictures over that of held-out ones"] = float(
        nearest_distances(flat(random[:1000]), flat(train)).mean()
        / nearest_distances(flat(images), flat(train)).mean()
    )
    found = {"n": num, "step": STEP, "walk": rows, "among pictures": anywhere}
    return found, {"walk": np.concatenate([*shown[:20:2], *shown[1:20:2]])}
