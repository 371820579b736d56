"""ADM on ImageNet 64x64 (Dhariwal & Nichol 2021, Table 11): class-conditional, 296 M parameters.

Published: FID 2.07 with 250 network evaluations after 540k steps of 2,048 images. Not yet trained
to the end with this code. Downloads `imagenet_resized/64x64` through TFDS. A batch of 2,048 needs
about 32 accelerators of 32 GB; on fewer, raise `train.accumulate`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The published recipe, in bfloat16."""
    c = default.get_config()
    c.data.name = "imagenet_resized/64x64"
    c.data.heldout_split = "validation"
    c.data.in_memory = "never"
    c.data.num_workers = 16
    c.schedule.name = "cosine"
    c.time_sampling.name = "discrete"
    c.objective.prediction = "eps"
    c.objective.learned_variance = True
    c.objective.cond_dropout = 0.0
    c.model.dtype = "bfloat16"
    c.model.unet.channels = 192
    c.model.unet.channel_mults = (1, 2, 3, 4)
    c.model.unet.num_blocks = 3
    c.model.unet.attention_levels = (1, 2, 3)
    c.model.unet.head_dim = 64
    c.model.unet.resblock_updown = True
    c.model.unet.dropout = 0.1
    c.optimizer.learning_rate = 3e-4
    c.optimizer.warmup_steps = 1000
    c.optimizer.decay = "constant"
    c.optimizer.adamw.b2 = 0.999
    c.ema.decay = 0.9999
    c.train.steps = 540_000
    c.train.batch_size = 2048
    c.train.log_every = 100
    c.train.heldout_every = 10_000
    c.train.sample_every = 10_000
    c.train.checkpoint_every = 5000
    c.sample.sampler = "ancestral"
    c.sample.ancestral.variance = "learned"
    c.sample.steps = 250
    c.evaluate.num_samples = 50_000
    return c
