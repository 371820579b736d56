"""Claims 2, 5, 6, 8 and 9: what a noisy state holds of the pictures at its two ends."""

import jax.numpy as jnp
import numpy as np
from scipy import special

from diffusion_jax.data import to_float, to_uint8
from diffusion_jax.generation.variations import FIRST, INVERSION_STEPS
from diffusion_jax.metrics.intervals import Estimate, Z, bootstrap, mean
from diffusion_jax.metrics.similarity import cosines
from experiments.essays.bench import Bench, entropy, share

Found = tuple[dict, dict[str, np.ndarray]]
LEVELS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHOWN = (0.1, 0.3, 0.5, 0.7, 0.9)
AGAIN = 8  # samples from one state
SCALES = (1.0, 3.0)
STEPS = 20  # of the trajectory that is looked at
COMPLETIONS = 19  # with the truth 20: 90% are the ranks 1 to 18 of 0 to 19
HALVES = (0.3, 0.5, 0.7)


def sorites(bench: Bench, num: int) -> Found:
    """At which noise a picture stops being of its class, for whom."""
    images, labels = bench.arrays("heldout", num)
    num = len(images)
    classes, rows, shown = bench.model.run.parts.dataset.num_classes, [], []
    chance = 1 / classes
    hits = []
    for t in LEVELS:
        x_t = bench.noisy(images, t)
        seen = bench.probabilities(to_uint8(x_t))
        once = bench.probabilities(to_uint8(bench.denoised(x_t, t)))
        again = np.repeat(x_t, AGAIN, axis=0)
        drawn = bench.classes(bench.down(again, t=t, steps=20, sampler="sde"))
        drawn = drawn.reshape(num, AGAIN)
        counts = np.stack([(drawn == k).mean(1) for k in range(classes)], 1)
        same = (drawn == labels[:, None]).mean(1)
        hits.append(same)
        rows.append(
            {
                "t": t,
                "signal over noise, dB": float(
                    10 / np.log(10) * bench.schedule.logsnr(jnp.array(t))
                ),
                "classifier on the noisy picture": share(seen.argmax(1) == labels),
                "its uncertainty, bits": mean(entropy(seen)),
                "classifier on x_0_hat": share(once.argmax(1) == labels),
                "pictures it goes to, same class": mean(same),
                "their uncertainty, bits": mean(entropy(counts)),
                "all of one class": share(counts.max(1) == 1),
            }
        )
        if t in SHOWN:
            shown += [to_uint8(np.clip(x_t[:10], -1, 1)), bench.down(x_t[:10], t=t, steps=20)]
    table = np.stack(hits, 1)

    def crossing(level: float) -> Estimate:
        """The time at which the mean of `same` falls below, between levels by a straight line."""

        def of(rows: np.ndarray) -> float:
            means = np.minimum.accumulate(rows.mean(0))
            return float(np.interp(-level, -means, LEVELS))

        return bootstrap(of, table, 200)

    found = {
        "n": num,
        "levels": rows,
        "half way to chance at t": crossing((1 + chance) / 2),
        "nine tenths at t": crossing(0.9),
        "one quarter at t": crossing(0.25),
    }
    return found, {"sorites": np.concatenate(shown)}


def spread(images: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Root mean square difference per pixel, of 2, of each picture to the next one of its group."""
    found = []
    for group in np.unique(groups):
        x = to_float(images[groups == group])
        found.append(np.sqrt(((x - np.roll(x, 1, 0)) ** 2).reshape(len(x), -1).mean(1)))
    return np.concatenate(found)


def destination(bench: Bench, num: int) -> Found:
    """Variants of one label from different noise, and their spread against that of none."""
    classes = bench.model.run.parts.dataset.num_classes
    labels = np.sort(np.arange(num) % classes)
    x_T = bench.start(num)
    free = bench.down(x_T, steps=25)
    base = spread(free, np.zeros(num))
    found: dict = {"n": num, "spread of unguided samples": mean(base)}
    real, known = bench.arrays("train")
    found["spread of training pictures"] = mean(spread(real, np.zeros(len(real))))
    found["spread of training pictures of one class"] = mean(spread(real, known))
    shown = [free[:: max(num // 10, 1)][:10]]
    for scale in SCALES:
        images = bench.down(x_T, labels, scale=scale, steps=25)
        own = spread(images, labels)
        ratio = own / base.mean()
        found[f"label, scale {scale:g}"] = {
            "spread": mean(own),
            "over that of unguided samples": mean(ratio),
            "of the class asked for": share(bench.classes(images) == labels),
        }
        shown.append(images[labels == 0][:10])
    return found, {"destination": np.concatenate(shown)}


def decided(bench: Bench, num: int) -> Found:
    """How much of the result is in `x_0_hat` at each step, and in the noise."""
    steps, x_T = STEPS, bench.start(num)
    x_0, states = bench.go_on(x_T, np.linspace(1, 0, steps + 1), keep=1)
    assert states is not None
    own = bench.classes(to_uint8(x_0))
    spread_of = ((x_0 - x_0.mean(0)) ** 2).mean()
    rows, shown = [], []
    for i in range(steps):
        t = 1 - i / steps
        hat = bench.denoised(states[i], t)
        left = ((hat - x_0) ** 2).reshape(num, -1).mean(1) / spread_of
        rows.append(
            {
                "t": t,
                "share of the variance that is decided": mean(1 - left),
                "cosine of x_0_hat and the result": mean(cosines(hat, x_0)),
                "class as in the result": share(bench.classes(to_uint8(hat)) == own),
            }
        )
        if i % 4 == 0:
            shown += [states[i][:10], hat[:10]]
    noise = cosines(x_T, x_0)
    found = {
        "n": num,
        "steps": rows,
        "cosine of noise and result": mean(noise),
        "of noise and another result": mean(cosines(x_T, np.roll(x_0, 1, axis=0))),
    }
    return found, {"decided": to_uint8(np.clip(np.concatenate([*shown, x_0[:10]]), -1, 1))}


def inversion(bench: Bench, num: int) -> Found:
    """The noise that held-out pictures, and strangers, come from; what comes back of it."""
    images, _ = bench.arrays("heldout", num)
    num = len(images)
    rng = np.random.default_rng(0)
    kinds = {
        "held-out": images,
        "upside down": images[:, ::-1],
        "negative": 255 - images,
        "pixels in disorder": rng.permuted(images.reshape(num, -1), axis=1).reshape(images.shape),
        "random": rng.integers(0, 256, images.shape, np.uint8),
    }
    size, shown = float(np.prod(bench.shape)), []
    found: dict = {"n": num, "steps up and down": INVERSION_STEPS}
    times = np.linspace(FIRST, 1, INVERSION_STEPS + 1)
    alpha = float(bench.schedule.alpha(jnp.array(FIRST)))
    for name, pictures in kinds.items():
        x_T, _ = bench.go_on(alpha * to_float(pictures), times, sampler="heun")
        back, _ = bench.go_on(x_T, times[::-1], sampler="heun")
        error = 127.5 * np.sqrt(((back / alpha - to_float(pictures)) ** 2).reshape(num, -1).mean(1))
        square = (x_T**2).reshape(num, -1).sum(1)
        found[name] = {
            "error, grey levels of 255": mean(error),
            "back within 5 grey levels": share(error < 5),
            "|x_T|^2 / D": mean(square / size),
            "noise of a size that 95% of noise has": share(
                np.abs(special.ndtri(special.chdtr(size, square).clip(1e-300, 1 - 1e-16))) < Z
            ),
        }
        noise = to_uint8(np.clip(x_T[:10] / 3, -1, 1))
        shown += [pictures[:10], noise, to_uint8(np.clip(back[:10], -1, 1))]
    return found, {"inversion": np.concatenate(shown)}


def completions(bench: Bench, num: int) -> Found:
    """Many completions of one half-destroyed picture, and where the truth is among them.

    By rectangles, if the network was trained to be given what these leave, or else by noise.
    """
    images, labels = bench.arrays("heldout", num)
    num = len(images)
    found: dict = {"n": num, "completions": COMPLETIONS}
    if bench.model.run.conditions.given:
        half, drawn, hidden = completed(bench, num)
        found["hidden pixels"] = float(hidden.mean())
        found["rectangles"] = among(bench, images, labels, drawn, hidden)
        each = np.concatenate([half[:, None], drawn[:, :8], images[:, None]], axis=1)
        return found, {"completions": each[:6].reshape(-1, *bench.shape)}
    shown = []
    for t in HALVES:
        x_t = bench.noisy(images, t)
        drawn = bench.down(np.repeat(x_t, COMPLETIONS, axis=0), t=t, steps=40, sampler="sde")
        drawn = drawn.reshape(num, COMPLETIONS, *bench.shape)
        everywhere = np.ones(images.shape, bool)
        found[f"noise of t = {t}"] = among(bench, images, labels, drawn, everywhere)
        shown.append(np.concatenate([to_uint8(np.clip(x_t[:1], -1, 1)), drawn[0, :8], images[:1]]))
    return found, {"completions": np.concatenate(shown)}


def completed(bench: Bench, num: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Held-out pictures with rectangles hidden, as `arrays` has them, and completions of no label.

    Both uint8 `[N, ...]` and `[N, K, ...]`, and which pixels were hidden, bool `[N, ...]`.
    """
    split = bench.model.run.parts.dataset.splits["heldout"]
    rows = np.random.default_rng(0).permutation(len(split))[:num]
    cond = bench.model.run.conditions.cond_of("heldout", rows, np.full(num, -1))
    each = {name: np.repeat(array, COMPLETIONS, axis=0) for name, array in cond.items()}
    drawn, _ = bench.model.items(0, np.arange(num * COMPLETIONS), each)
    known = cond["image"][..., -1:] > 0
    half = to_uint8(cond["image"][..., : bench.shape[-1]])
    return half, drawn.reshape(num, COMPLETIONS, *bench.shape), ~known & np.ones(bench.shape, bool)


def among(
    bench: Bench, images: np.ndarray, labels: np.ndarray, drawn: np.ndarray, hidden: np.ndarray
) -> dict:
    """How often the truth lies among its completions `[N, K, ...]`, in the `hidden` pixels."""
    num = len(images)
    truth = images[:, None].astype(float)
    # Ties, as of black pixels, at random.
    jitter = np.random.default_rng(0).uniform(0, 0.5, (2, *drawn.shape))
    below = (drawn + jitter[0] < truth + jitter[1][:, :1]).sum(1)
    inside = (below > 0) & (below < drawn.shape[1])
    ends = below[hidden]
    some = hidden.any((1, 2, 3))
    pairs = zip(inside[some], hidden[some], strict=True)
    by_picture = np.array([one[own].mean() for one, own in pairs])
    classes = bench.classes(drawn.reshape(-1, *bench.shape)).reshape(num, -1)
    far = lambda a, b: np.sqrt((((a - b) ** 2) * hidden).reshape(num, -1).mean(1))  # noqa: E731
    one, other = drawn[:, 0].astype(float), drawn[:, 1].astype(float)
    return {
        "truth within the completions, pixels": mean(by_picture),
        "as it were for one more completion": (drawn.shape[1] - 1) / (drawn.shape[1] + 1),
        "truth below all": float((ends == 0).mean()),
        "truth above all": float((ends == drawn.shape[1]).mean()),
        "most frequent class is the true one": share(
            np.array([int(np.argmax(np.bincount(row))) for row in classes]) == labels
        ),
        "completions of the true class": mean((classes == labels[:, None]).mean(1)),
        "true class is among them": share((classes == labels[:, None]).any(1)),
        "distance to the truth over that of two completions": mean(
            far(one, images) / max(far(one, other).mean(), 1e-6)
        ),
    }
