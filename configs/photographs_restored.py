"""A network that is given decayed photographs and draws clean ones: `restore.method=as_trained`.

The network, data and noise of `configs/photographs.py`, with the decay suite at every severity. It
predicts what the clean photograph differs in from the decayed one, so that what is not destroyed
need not be learned. It is told nothing about the damage. 2,133 steps took 101 minutes on two CPU
cores beside other jobs; it then takes detail for damage, and its pictures are 3 to 4 dB behind what
it is given (experiments/restoration/photographs.md).
"""

from ml_collections import ConfigDict

from configs import default, photographs


def get_config() -> ConfigDict:
    """Fewer steps than the prior, as most of a picture is given."""
    c = photographs.get_config()
    c.image_condition.name = "decayed"
    c.image_condition.residual = True
    c.image_condition.decayed.kinds = default.DESTROYING
    c.schedule.shift = 0.5  # what pictures differ in has half of their standard deviation
    c.model.unet.channels = 32
    c.ema.decay = 0.998
    c.train.steps = 8000
    c.restore.method = "as_trained"
    c.restore.operator = "identity"
    return c
