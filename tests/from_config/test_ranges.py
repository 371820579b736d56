"""Ranges of all numbers in the config: refusals name the key, before any time is spent."""

import math
import re
from fnmatch import fnmatchcase

import pytest
from flax.traverse_util import flatten_dict

from configs import default
from diffusion_jax import from_config, run
from diffusion_jax.from_config import ConfigError, build
from tests.runs import random_dataset, tiny

DEFAULTS = flatten_dict(default.get_config().to_dict(), sep=".")
NUMBERS = [key for key, value in DEFAULTS.items() if type(value) in (int, float)]
BAD = {int: (-1, 0, 2**32, 2**64), float: (math.nan, math.inf, -math.inf, -1.0, 0.0, 1e300)}
ALLOWED = {
    0: """
        seed *.seed data.heldout_fraction data.image_size data.num_workers data.prefetch ema.*
        data.rate data.loudness
        image_condition.low_resolution.max_noise *.dropout model.unet.head_dim objective.*_dropout*
        objective.augment.* objective.autoencoder.kl objective.autoencoder.p*
        objective.autoencoder.adversarial objective.contrastive.max_shift objective.huber
        objective.p2.gamma objective.sigmoid.bias
        restore.sigma restore.clipping.* restore.dps.zeta restore.*.tolerance restore.diffpir.zeta
        restore.ddrm.eta_b restore.twisted.resample_below restore.blind.rounds restore.mask.*
        restore.decay.severity data.length sample.remasking.strength sample.remasking.low
        codec.mel.mean codec.mel.iterations
        sample.replacement.renewal sample.held.* sample.particles.* sample.candidates.num
        objective.vlb_weight optimizer.*.b? optimizer.*.weight_decay optimizer.clip_norm
        optimizer.learning_rate optimizer.warmup_steps sample.adaptive.rtol sample.checkpoint
        sample.churn.s_churn sample.churn.s_min sample.churn.s_noise sample.cld.gamma sample.clip
        *.eta sample.euler_maruyama.noise sample.first_index sample.guidance* *.corrector_steps
        sample.leading.offset sample.*.end *.skip *.norm_groups *.tile
        sample.restart.low sample.restart.repeats sample.upscale.noise sample.*.strength
        schedule.cauchy.mean schedule.laplace.mean schedule.c*y.logsnr_* schedule.l*.logsnr_*
        schedule.*.beta_min schedule.sigmoid.end schedule.sigmoid.start time_sampling.*.mean
        image_condition.noisy.*st image_condition.reverberant.direct restore.band.low
        restore.gap.start restore.reverberation.direct
        model.dit.unroll time_sampling.*.t_min train.*_every train.keep_best train.max_grad_norm
    """,
    -1: """
        image_condition.noisy.*st image_condition.reverberant.direct restore.reverberation.direct
        restore.clipping.low data.loudness codec.mel.mean
        objective.sigmoid.bias sample.checkpoint sample.clip sample.guidance.flock.*n*
        sample.guidance.magnet.scale
        sample.guidance_scale schedule.*.mean schedule.*.logsnr_* schedule.sigmoid.end
        schedule.sigmoid.start time_sampling.*.mean
    """,
    -math.inf: "schedule.cosine.logsnr_min schedule.sigmoid.logsnr_min",
}
"""Patterns of keys for which these values are allowed."""
NOT_ZERO = ("train.log_every", "ema.every")


def with_effect(key: str) -> dict[str, object]:
    """Settings with which the group of a key has an effect."""
    group, name = key.split(".")[:-1], "name"
    if group[:1] == ["sample"] and len(group) == 2:
        if group[1] in ("trailing", "leading", "linspace", "karras", "uniform_logsnr"):
            return {"sample.grid": group[1]}
        if group[1] in from_config.SAMPLERS:
            return {"sample.sampler": group[1]}
        return {"sample.restart.repeats": 1} if key.startswith("sample.restart.") else {}
    if group[:1] in (["schedule"], ["time_sampling"], ["optimizer"], ["image_condition"]):
        return {f"{group[0]}.{name}": group[1]} if len(group) == 2 else {}
    return {}


def is_allowed(key: str, value: float) -> bool:
    patterns = ALLOWED.get(value, "").split()
    return any(fnmatchcase(key, pattern) for pattern in patterns) and not (
        value == 0 and key in NOT_ZERO
    )


@pytest.mark.parametrize("group", sorted({key.partition(".")[0] for key in NUMBERS}))
def test_bad_numbers_are_refused_by_their_key(group):
    for key in (key for key in NUMBERS if key.partition(".")[0] == group):
        for value in BAD[type(DEFAULTS[key])]:
            if is_allowed(key, value):
                continue
            config = default.get_config()
            config.update_from_flattened_dict({**with_effect(key), key: value})
            with pytest.raises(ConfigError) as error:
                build(config, random_dataset())
            name = key.rpartition(".")[2]
            assert f"{name}={value}" in str(error.value), (key, value)
            assert str(error.value).startswith(key.rpartition(".")[0] or "config.seed")
            assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("model.unet.channel_mults", (), "must be whole numbers of 1 or more, one at least"),
        ("image_condition.decayed.kinds", (), "must be names of kinds of decay, one at least"),
        ("model.unet.channel_mults", (1.5, 2), "=(1.5, 2) must be whole numbers"),
        ("model.unet.channel_mults", (1, 0), "=(1, 0) must be whole numbers"),
        ("model.unet.channel_mults", ("1",), "=('1',) must be whole numbers"),
        ("model.unet.channel_mults", (1, 2**40), "must lie in"),
        ("model.unet.attention_levels", (5,), "=(5,) must be some of the 2 levels"),
        ("model.unet.attention_levels", (-1,), "=(-1,) must be whole numbers of 0 or more"),
        ("model.unet.attention_levels", (True,), "=(True,) must be whole numbers"),
        ("plan.shape", (8, 8.5, 1), "=(8, 8.5, 1) must be whole numbers"),
        ("ema.lengths", (0,), "=0.0 must lie in"),
        ("ema.lengths", (math.nan,), "=nan must lie in"),
        ("ema.lengths", ("x",), "='x' is not known"),
        ("evaluate.ema_lengths", (-0.1,), "must lie in"),
        ("evaluate.names.splits", (3,), "=(3,) must be names of splits"),
        ("evaluate.words.classes", (3,), "=(3,) must be names of classes"),
        ("sample.prompts", (1, 2), "=(1, 2) must be texts"),
        ("sample.interpolate", (1, 2), "=(1, 2) must be texts"),
        ("sample.compose", (("a hat", math.nan),), "=nan must lie in"),
        ("sample.guidance.interval", (1.0, 0.0), ".low=1.0 must lie in [0, high)"),
        ("sample.guidance.interval", (0.0, math.inf), "=inf must lie in"),
        ("sample.vary.by", "twist", "='twist' must be 'noise' or 'inversion'"),
        ("sample.first_index", 2**31 - 50, "must be less than 2147483548"),
        ("evaluate.metrics", "", "='' must name one or more of distances"),
        ("evaluate.metrics", " , ", "must name one or more of"),
        ("evaluate.metrics", "denoising,denoising", "each once"),
        ("evaluate.metrics", "distence", "='distence' is not known: did you mean 'distances'"),
        ("model.unet.channels", 1, "=1 must lie in [2, inf)"),
        ("model.unet.num_heads", 3, "cannot be split into heads evenly: change"),
        ("model.unet.patch_size", 3, "halve them 1 time(s) after patches of"),
    ],
)
def test_bad_tuples_and_words_are_refused_by_their_key(key, value, says):
    config = default.get_config()
    config.update_from_flattened_dict({"train.batch_size": 8, key: value})
    with pytest.raises(ConfigError, match=f"{re.escape(key)}.*") as error:
        build(config, random_dataset())
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sample__seed": 2**32}, r"sample\.seed=4294967296 must lie in \[0, 4294967295\]"),
        ({"evaluate__num_samples": 0}, r"evaluate\.num_samples=0 must lie in \[1, inf\)"),
        ({"model__dit__hidden_size": 15}, r"model\.dit\.hidden_size=15 must be a multiple"),
        ({"model__dit__patch_size": 3}, r"patches of model\.dit\.patch_size=3"),
    ],
)
def test_a_run_ends_in_one_line_before_it_begins(changes, says, noise, tmp_path, capsys):
    assert run.run(tiny(**changes), tmp_path / "run", "all") == 2
    assert re.search(f"^error: .*{says}", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
