"""A UNet of 0.7 M parameters that finds the destroyed pixels of decayed photographs.

For `restore.mask.detector`. A step of 16 windows took 0.3 to 2 s on two CPU cores beside other
jobs. After 1,700 steps in two parts the average precision on held-out photographs was 0.64 (95%
interval 0.51 to 0.76), thin scratches and dust were mostly missed, and the loss was still falling:
experiments/restoration/damage.md.
"""

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
    c.train.steps = 5000
    c.train.sample_every = 0
    c.evaluate.metrics = "damage"
    return c
