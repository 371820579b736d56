"""A small CLIP that matches emoji with their names.

3 min on two CPU cores. Picks the name of a real image among 122 in 74% of the cases (95% interval
65 to 81) for training images, in 28% (21 to 36) for unseen concepts.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """Convolutions over the image, and a linear map of MiniLM's embedding of the name."""
    c = default.get_config()
    c.data.name = "emoji"
    c.data.image_size = 32
    c.text.name = "minilm"
    c.text.length = 32
    c.objective.name = "contrastive"
    c.model.name = "dual_encoder"
    c.model.dual_encoder.channels = 32
    c.optimizer.learning_rate = 1e-3
    c.optimizer.adamw.weight_decay = 0.1
    c.train.steps = 400
    c.train.batch_size = 256
    c.train.log_every = 50
    c.train.heldout_every = 100
    c.train.checkpoint_every = 400
    c.evaluate.metrics = "names"
    c.evaluate.names.splits = ("combination",)
    return c
