"""A diffusion transformer on ImageNet 256x256 in pixels: patches of 16, 460 M parameters.

After JiT-L/16 (Li & He 2025): the network predicts x_0, the loss is the squared error of the
velocity, times are logit-normal; DiT's plain blocks are kept. Not yet trained to the end with this
code. Needs `imagenet2012`, which TFDS prepares from the archives in `data.manual_dir`.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """600 epochs of 1,024 images per step."""
    c = default.get_config()
    c.data.name = "imagenet2012"
    c.data.image_size = 256
    c.data.heldout_split = "validation"
    c.data.flip = True
    c.data.in_memory = "never"
    c.data.num_workers = 32
    c.schedule.name = "flow"
    c.time_sampling.name = "logit_normal"
    c.time_sampling.logit_normal = ConfigDict({"mean": 0.8, "std": 0.8, "t_min": 0.05})
    c.objective.prediction = "x0"
    c.objective.loss_space = "velocity"
    c.model.name = "dit"
    c.model.dtype = "bfloat16"
    c.model.dit.patch_size = 16
    c.model.dit.hidden_size = 1024
    c.model.dit.depth = 24
    c.model.dit.num_heads = 16
    c.model.dit.remat = "full"
    c.optimizer.name = "adamw"
    c.optimizer.adamw.b2 = 0.95
    c.optimizer.learning_rate = 2e-4
    c.optimizer.warmup_steps = 6250
    c.optimizer.decay = "constant"
    c.ema.decay = 0.9999
    c.train.steps = 750_000
    c.train.batch_size = 1024
    c.train.log_every = 100
    c.train.heldout_every = 10_000
    c.train.sample_every = 10_000
    c.train.checkpoint_every = 5000
    c.sample.guidance_scale = 2.0
    c.sample.clip = 0.0
    c.evaluate.num_samples = 50_000
    return c
