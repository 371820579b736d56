"""A UNet of 0.7 M parameters that finds the destroyed pixels of decayed photographs."""

from ml_collections import ConfigDict

from configs import photographs


def get_config() -> ConfigDict:
    """A small UNet with its time fixed, and the decay suite at every severity and scale."""
    c = photographs.get_config()
    c.objective.name = "damage"
    c.model.unet.channels = 20
    c.model.unet.attention_levels = ()
    c.optimizer.learning_rate = 2e-3
    c.optimizer.warmup_steps = 100
    c.optimizer.decay = "cosine"
    c.ema.decay = 0.995
    c.train.steps = 800
    c.train.batch_size = 16
    c.train.heldout_every = 500
    c.train.sample_every = 0
    c.train.checkpoint_every = 250
    c.evaluate.metrics = "damage"
    return c
