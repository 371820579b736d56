"""DDPM on CIFAR-10 (Ho et al. 2020, App. B): unconditional, 35.7 M parameters.

Published: FID 3.17 with 1,000 network evaluations after 800k steps (10.6 hours on a TPU v3-8).
Another implementation of this recipe: FID 9.16, 5.78, 4.08, 3.31 after 47k, 94k, 187k, 421k steps.
Not yet trained to the end with this code. Downloads `cifar10` through TFDS.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The published recipe."""
    c = default.get_config()
    c.data.name = "cifar10"
    c.data.flip = True
    c.schedule.name = "ddpm"
    c.time_sampling.name = "discrete"
    c.objective.prediction = "eps"
    c.objective.cond_dropout = 1.0  # unconditional
    c.model.unet.channels = 128
    c.model.unet.channel_mults = (1, 2, 2, 2)
    c.model.unet.attention_levels = (1,)
    c.model.unet.scale_shift = False
    c.model.unet.dropout = 0.1
    c.optimizer.name = "adam"
    c.optimizer.learning_rate = 2e-4
    c.optimizer.warmup_steps = 5000
    c.optimizer.decay = "constant"
    c.ema.decay = 0.9999
    c.train.steps = 800_000
    c.train.log_every = 200
    c.train.heldout_every = 10_000
    c.train.sample_every = 20_000
    c.train.checkpoint_every = 10_000
    c.sample.sampler = "ancestral"
    c.sample.steps = 1000
    c.sample.labels = "none"
    c.evaluate.num_samples = 50_000
    return c
