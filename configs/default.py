"""Every key with its default. A config in this folder changes only what differs.

A part with a choice has a `name`; the settings of each choice stand in a group of that name, and
those of choices that were not taken have no effect.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The defaults: a small class-conditional UNet on scikit-learn's digits."""
    c = ConfigDict()
    c.seed = 0  # of initialisation, data order, training noise and dropout; seeds are below 2**32

    c.data = ConfigDict()
    # digits | fashion_mnist | emoji | folder | any TFDS name; points in the plane: spiral | moons |
    # pinwheel | eight_gaussians | swan
    c.data.name = "digits"
    # folder: its path, also gs://... or s3://...; others: TFDS's data_dir ("": TFDS's own default)
    c.data.dir = ""
    c.data.manual_dir = ""  # files fetched by hand, for the builders that need them
    c.data.image_size = 0  # resize (shorter side) and crop to this; 0: as stored (emoji: 32)
    # Of TFDS a name or a slice, train[:90%]; of a folder a sub-folder, or one with another of the
    # usual names where these are left as they are (training, validation, val, dev, ...).
    c.data.train_split = "train"
    c.data.heldout_split = "test"
    c.data.heldout_fraction = 0.1  # folder without two splits: share of the images held out
    # Where metadata of a folder or a TFDS set has captions; "": the usual names; "none": nowhere
    c.data.caption_key = ""
    c.data.flip = False  # random mirroring in training, where both are as likely
    c.data.in_memory = "auto"  # auto (if it is small) | always | never
    c.data.num_workers = 0  # worker processes that read and decode, for data not in memory
    c.data.prefetch = 8  # batches made ahead
    c.data.stall_seconds = 60.0  # without a batch, until that is said
    c.data.allow_changes = False  # goes on although the data are not those that were trained on

    c.schedule = ConfigDict()
    # ddpm | scaled_linear | linear_beta | sub_vp | cosine | sigmoid | flow | edm | ve |
    # linear_logsnr | laplace | cauchy
    c.schedule.name = "cosine"
    c.schedule.shift = 1.0  # noise over signal times this: resolution over that of the recipe
    c.schedule.zero_terminal_snr = False  # rescaled to variance 1 and alpha_1 = 0
    c.schedule.ddpm = ConfigDict({"beta_start": 1e-4, "beta_end": 0.02, "num_steps": 1000})
    c.schedule.scaled_linear = ConfigDict(
        {"beta_start": 0.00085, "beta_end": 0.012, "num_steps": 1000}
    )
    c.schedule.linear_beta = ConfigDict({"beta_min": 0.1, "beta_max": 20.0})
    c.schedule.sub_vp = ConfigDict({"beta_min": 0.1, "beta_max": 20.0})
    c.schedule.cosine = ConfigDict({"logsnr_min": -20.0})
    c.schedule.sigmoid = ConfigDict({"start": -3.0, "end": 3.0, "tau": 1.0, "logsnr_min": -20.0})
    c.schedule.edm = ConfigDict({"sigma_max": 80.0, "rho": 7.0})
    c.schedule.ve = ConfigDict({"sigma_min": 0.01, "sigma_max": 50.0})
    limits = {"logsnr_max": 13.3, "logsnr_min": -13.3}
    c.schedule.linear_logsnr = ConfigDict(limits)
    c.schedule.laplace = ConfigDict({"mean": 0.0, "scale": 0.5, **limits})
    c.schedule.cauchy = ConfigDict({"mean": 0.0, "scale": 1.0, **limits})

    c.time_sampling = ConfigDict()  # which t to train on
    c.time_sampling.name = "uniform"  # uniform | discrete | logit_normal | log_normal
    c.time_sampling.learned = False  # drawn most where the loss varies most, and reweighted (VDM)
    c.time_sampling.uniform = ConfigDict({"t_min": 1e-4, "t_max": 1.0})
    c.time_sampling.discrete = ConfigDict({"num_steps": 1000})
    c.time_sampling.logit_normal = ConfigDict({"mean": 0.0, "std": 1.0, "t_min": 1e-4})
    c.time_sampling.log_normal = ConfigDict({"mean": -1.2, "std": 1.2, "t_min": 1e-4})

    c.objective = ConfigDict()
    # gaussian: denoising, as the keys below say | contrastive: which text belongs to which picture
    # (CLIP), for model.name=dual_encoder, with pictures moved by up to so many pixels
    c.objective.name = "gaussian"
    c.objective.contrastive = ConfigDict({"max_shift": 2})
    c.objective.prediction = "v"  # eps | x0 | v | velocity | score | edm: what the network gives
    c.objective.loss_space = ""  # prediction type whose squared error is taken ("": the same)
    # uniform | snr | truncated_snr | min_snr | p2 | edm | sigmoid | vlb
    c.objective.weighting = "uniform"
    c.objective.min_snr = ConfigDict({"gamma": 5.0})
    c.objective.p2 = ConfigDict({"k": 1.0, "gamma": 1.0})
    c.objective.sigmoid = ConfigDict({"bias": -1.0})
    c.objective.sigma_data = 0.5  # of the data: for prediction edm and weighting edm
    c.objective.huber = 0.0  # c of the pseudo-Huber error, in the root of the mean square; 0: off
    c.objective.learned_uncertainty = False  # the loss over its learned size at t (EDM2)
    c.objective.cond_dropout = 0.1  # share of samples trained without conditioning, for guidance
    # Further shares that are trained without a part of it, independent of each other.
    c.objective.part_dropout = ConfigDict({"label": 0.0, "text": 0.0, "vector": 0.0, "image": 0.0})
    c.objective.learned_variance = False  # two outputs per channel (improved DDPM's L_hybrid)
    c.objective.vlb_weight = 1e-3  # lambda of L_hybrid

    c.model = ConfigDict()
    c.model.name = (
        "unet"  # unet | dit | mlp (of vectors) | dual_encoder (of objective.name=contrastive)
    )
    # How the network is told the time: thousands (1000 t) | table_index (1000 t - 1) | log_noise
    # (log(sigma / alpha) / 4, EDM)
    c.model.time_input = "thousands"
    c.model.dtype = "float32"  # of the computation: float32 | bfloat16; parameters are float32
    c.model.unet = ConfigDict()
    c.model.unet.channels = 32
    c.model.unet.channel_mults = (1, 2)
    c.model.unet.num_blocks = 2
    c.model.unet.attention_levels = (1,)  # 0 is of full size, each next level of half of it
    c.model.unet.num_heads = 1
    c.model.unet.head_dim = 0  # channels per attention head; 0: num_heads heads
    c.model.unet.scale_shift = True  # adaptive group norm (ADM); False: addition (DDPM)
    c.model.unet.resblock_updown = False  # resample in the residual blocks (ADM)
    c.model.unet.dropout = 0.0
    # What each block computes again in the backward pass, to save memory: none | dots_saveable |
    # dots_with_no_batch_dims_saveable | full
    c.model.unet.remat = "none"
    c.model.unet.patch_size = 1  # side of the patches that the first level has as its pixels
    c.model.dit = ConfigDict()
    c.model.dit.patch_size = 2
    c.model.dit.hidden_size = 192
    c.model.dit.depth = 6
    c.model.dit.num_heads = 6
    c.model.dit.mlp_ratio = 4.0
    c.model.dit.unroll = 1  # layers per loop iteration: all compile longer, train faster on a CPU
    c.model.dit.remat = "none"  # as model.unet.remat
    c.model.mlp = ConfigDict({"features": 64, "depth": 2})
    c.model.dual_encoder = ConfigDict({"width": 256, "channels": 64, "features": 512})
    c.model.dual_encoder.dropout = 0.4  # in the part that looks at pictures

    c.text = ConfigDict()  # what reads the texts of data that has some
    # none | minilm (all-MiniLM-L6-v2, frozen) | clip (a text tower with published weights, frozen)
    # | bytes (a small transformer over bytes, trained with the rest)
    c.text.name = "none"
    c.text.pooled = True  # the network is told one vector of the text, beside its tokens
    c.text.length = 32  # tokens of a text, at most; Stable Diffusion's networks were given 77
    # model.safetensors as published; minilm: "" is that of the package, if installed
    c.text.weights = ""
    c.text.tokenizer = ""  # tokenizer.json, or vocab.json and merges.txt; "": beside the weights
    # quick_gelu is OpenAI's activation, gelu OpenCLIP's; the sizes are those of ViT-L/14.
    c.text.clip = ConfigDict({"width": 768, "depth": 12, "heads": 12, "activation": "quick_gelu"})
    c.text.bytes = ConfigDict({"width": 128, "depth": 4, "heads": 4, "activation": "gelu"})
    c.text.bytes.causal = False  # True: a byte sees only those before it

    # A picture that the network is given beside the noisy one, made from the image itself.
    c.image_condition = ConfigDict()
    c.image_condition.name = "none"  # none | low_resolution (for --upscale) | masked
    # Means over factor x factor pixels, with noise up to that of time max_noise of the schedule.
    c.image_condition.low_resolution = ConfigDict({"factor": 2, "max_noise": 0.3})
    # So many rectangles are hidden, with sides from least to most of the image's.
    c.image_condition.masked = ConfigDict({"boxes": 3, "least": 0.2, "most": 0.6})

    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # any of optax or optax.contrib; without a group: its own defaults
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 100
    c.optimizer.decay = "cosine"  # constant | linear | cosine, to 0 at train.steps
    c.optimizer.clip_norm = 1.0  # of the whole gradient; 0: no clipping
    c.optimizer.adamw = ConfigDict({"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.0})
    c.optimizer.adam = ConfigDict({"b1": 0.9, "b2": 0.999, "eps": 1e-8})
    # Settings of groups of the parameters' top level, where these differ from the ones above, such
    # as {"critic": {"learning_rate": 1e-4}}
    c.optimizer.groups = ConfigDict()

    c.ema = ConfigDict()
    c.ema.decay = 0.999  # of the exponential average, which is used where nothing else is asked for
    c.ema.warmup = True  # the decay is at most (1 + step) / (10 + step)
    # Power-function averages beside it (EDM2), by their length: the standard deviation of the
    # weights in time, as a share of training, e.g. (0.05, 0.1).
    c.ema.lengths = ()
    c.ema.snapshot_every = 0  # steps between stored snapshots of these; they give any other length

    c.train = ConfigDict()
    # Where optimizer.decay is constant a finished run goes on if this is raised.
    c.train.steps = 2000
    # Start from the parameters of another run, by the average that its sample.ema names:
    # FOLDER@STEP, or FOLDER for its newest checkpoint
    c.train.init_from = ""
    c.train.batch_size = 128  # over all devices
    c.train.accumulate = 1  # microbatches per step
    c.train.max_grad_norm = 0.0  # steps with a larger gradient are skipped; 0: only if not finite
    c.train.max_skipped = 10  # so many skipped steps in a row end the run
    c.train.log_every = 50
    c.train.heldout_every = 500  # held-out loss by noise level
    c.train.sample_every = 500  # a grid from the average that sample.ema names
    c.train.checkpoint_every = 1000
    c.train.keep_checkpoints = 3  # the newest
    c.train.keep_every = 0  # those of steps divisible by this stay for ever; 0: none
    c.train.keep_best = 0  # so many besides, with the least held-out loss

    c.parallel = ConfigDict()
    # replicated: every device has all parameters | sharded: a mesh of data x fsdp x model devices
    c.parallel.strategy = "replicated"
    c.parallel.fsdp = 1  # devices that share the parameters, each with a part of the batch
    c.parallel.model = 1  # devices that share parameters and work on the same part of the batch

    c.plan = ConfigDict()  # --mode plan
    c.plan.shape = ()  # of one sample in place of the data's, e.g. (32, 32, 4) for latents

    c.sample = ConfigDict()
    # Deterministic: ddim (euler) | heun | midpoint | rk4 | adaptive | lms | ipndm | pndm | ghvb |
    # dpm_solver | dpmpp_singlestep | dpmpp_multistep | deis | unipc. Stochastic: ancestral | ddim |
    # euler_ancestral | euler_maruyama | churn | dpmpp_sde | dpmpp_sde_multistep |
    # predictor_corrector | cld
    c.sample.sampler = "ddim"
    c.sample.ddim = ConfigDict({"eta": 0.0})
    c.sample.ancestral = ConfigDict({"variance": "large"})  # small | large | learned
    # Coordinate of the ODE: "ve" is sigma / alpha, "flow" sigma / (alpha + sigma).
    c.sample.heun = ConfigDict({"scaling": "flow"})
    c.sample.midpoint = ConfigDict({"scaling": "flow"})
    c.sample.rk4 = ConfigDict({"scaling": "flow"})
    c.sample.adaptive = ConfigDict({"rtol": 1e-4, "atol": 1e-4})
    c.sample.lms = ConfigDict({"order": 4, "scaling": "ve"})
    c.sample.ipndm = ConfigDict({"order": 4})
    c.sample.ghvb = ConfigDict({"order": 2, "beta": 0.8, "scaling": "ve"})
    c.sample.dpm_solver = ConfigDict({"order": 2})
    c.sample.dpmpp_singlestep = ConfigDict({"order": 2})
    c.sample.dpmpp_multistep = ConfigDict({"order": 2, "exact": False})
    c.sample.deis = ConfigDict({"order": 3, "polynomial": "log_rho"})  # log_rho | t
    c.sample.unipc = ConfigDict({"order": 2, "variant": "bh2"})  # bh1 | bh2
    c.sample.euler_ancestral = ConfigDict({"eta": 1.0})
    c.sample.euler_maruyama = ConfigDict({"noise": 1.0})  # 0: the ODE, 1: the reverse SDE
    c.sample.churn = ConfigDict({"s_churn": 40.0, "s_min": 0.05, "s_max": 50.0, "s_noise": 1.003})
    c.sample.dpmpp_sde = ConfigDict({"eta": 1.0})
    c.sample.dpmpp_sde_multistep = ConfigDict({"order": 2})
    c.sample.predictor_corrector = ConfigDict({"corrector_steps": 1, "snr": 0.16})
    # Pixels with velocities; gamma: variance of the velocities of data, 1 is that of noise.
    c.sample.cld = ConfigDict({"order": 2, "gamma": 0.04})
    # Restart: from time low back up to high, so many times, each down again in so many steps.
    c.sample.restart = ConfigDict({"repeats": 0, "low": 0.1, "high": 0.4, "steps": 5})
    c.sample.steps = 50
    # The times of the steps: uniform | quadratic | trailing | leading | karras | uniform_logsnr |
    # optimised, which searches those that are best for the trained network and the sampler. Times
    # with noise that float32 cannot hold, as edm has near 0, are left out.
    c.sample.grid = "uniform"
    c.sample.trailing = ConfigDict({"num_steps": 1000})
    c.sample.leading = ConfigDict({"num_steps": 1000})
    c.sample.karras = ConfigDict({"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0})
    c.sample.uniform_logsnr = ConfigDict({"sigma_min": 0.002, "sigma_max": 80.0})
    # Samples that are compared with the exact ones, and gradients taken; the result is kept.
    c.sample.optimised = ConfigDict({"images": 256, "iterations": 60})
    c.sample.t_max = 1.0  # where sampling starts; < 1 for eps or score with schedule flow
    # What sampling starts from: normal (noise, as in training) | uniform (noise with that mean and
    # variance) | the path of a picture, taken for noise as it is, shifted and scaled to that mean
    # and variance. No noise is added to it (sample.vary does that): with a deterministic sampler,
    # samples with the same label or prompt are all the same.
    c.sample.start = "normal"
    c.sample.guidance_scale = 1.0  # classifier-free; 1 is off
    c.sample.guidance = ConfigDict()
    c.sample.guidance.interval = (0.0, 1.0)  # times t at which guidance is on
    # Course of the scale over time: constant | linear | cosine (these two grow from 1 at the noise,
    # with the same mean) | plus_plus (CFG++, for DDIM, with a scale in [0, 1])
    c.sample.guidance.schedule = "constant"
    c.sample.guidance.parallel = 1.0  # share that is kept of the part along x_0_hat (APG); 1: all
    c.sample.guidance.max_norm = 0.0  # of the difference per root of its dimensions (APG); 0: none
    c.sample.guidance.rescale = 0.0  # share of the way back to the unguided standard deviation
    # Autoguidance, away from a worse model in place of the unconditional one: FOLDER@STEP, the
    # folder of a run ("": this one) and one of its checkpoints (without @: the newest)
    c.sample.guidance.worse = ""
    # Samples denoised together in groups of this size (0: each alone), that repel each other
    # (particle guidance), or draw together their pictures or the directions in which they move.
    c.sample.guidance.flock = ConfigDict(
        {"size": 0, "separation": 0.0, "cohesion": 0.0, "alignment": 0.0}
    )
    # Away from pictures that do not look like the text, by the gradient of a dual encoder that was
    # trained in the folder `judge`, through x_0_hat (CLIP guidance): also for networks that read no
    # text. scale 0 is off; max_norm: of what is added, per root of its dimensions, 0: no limit
    c.sample.guidance.likeness = ConfigDict({"judge": "", "scale": 1.0, "max_norm": 0.0})
    c.sample.clip = -1.0  # x_0_hat is kept within +-clip; 0: no clipping; -1: the data's limit
    c.sample.prompts = ()  # of a network with a text input: texts, in turn
    c.sample.negative = ""  # what guidance leads away from, in place of no text
    # Texts composed with the prompt, with a weight each (AND above 0, NOT below): (("a hat", 1.5),)
    c.sample.compose = ()
    # Variants of a picture in place of samples: noise is added up to this part of the way and taken
    # away again (by="noise"), or what noise it came from is found and turned by this part of a
    # quarter circle towards other noise (by="inversion"; 0 gives the picture back).
    c.sample.vary = ConfigDict({"image": "", "strength": 0.5, "by": "noise"})
    # Two texts in place of samples: pictures on the way from one to the other.
    c.sample.interpolate = ()
    c.sample.frames = 8  # of each such way
    # A picture to be enlarged in place of samples of held-out ones, and the noise that is added to
    # what is enlarged (held-out pictures too): a time of the schedule, up to max_noise.
    c.sample.upscale = ConfigDict({"image": "", "noise": 0.0})
    c.sample.num_images = 100
    c.sample.first_index = 0  # image i is the same whatever the number of images
    c.sample.labels = "all"  # all (in turn) | none | a list such as "3" or "3,5"
    c.sample.seed = 0
    c.sample.batch_size = 512
    c.sample.checkpoint = -1  # step of the checkpoint to use; -1: the newest
    c.sample.ema = ""  # "": the exponential average | params: none | a length such as "0.07"
    c.sample.strip = 10  # pictures in the trajectory strip and frames of the GIF per image

    c.evaluate = ConfigDict()
    # distances (of samples to the data, in features) | denoising (errors by noise level) |
    # likelihood (bits per dimension) | names (how well samples fit their texts, as
    # evaluate.names.judge says) | field (of points: the learned score beside the exact one).
    # Figures that are not defined of so few images are left out, and the report says why.
    c.evaluate.metrics = "distances,denoising,likelihood"
    c.evaluate.num_samples = 1797  # labels in the proportions of the training data
    c.evaluate.seed = 1
    c.evaluate.ema_lengths = ()  # measures each of these lengths, in place of sample.ema
    # In whose features: classifier (trained on the data set, where two classes have five images or
    # more) | judge (the one of evaluate.names) | entries (the items themselves) | inception |
    # efflite0 | dinov2_vits14 | dinov2_vitb14 | dinov2_vitl14, these three also with _reg
    c.evaluate.extractor = "classifier"
    c.evaluate.weights = ""  # its published file; efflite0: "" is that of the package, if installed
    # How well pictures fit their names, of data with captions, as a dual encoder judges that was
    # trained in the folder `judge`: of so many names of training images, of held-out ones, and of
    # those of other splits (emoji: combination), at most.
    c.evaluate.names = ConfigDict({"judge": "", "num": 200, "splits": ()})
    c.evaluate.bootstrap = 200  # resamplings for intervals of distances to training images
    # "": the training images | an .npz with mu and sigma (or ref_mu, ref_sigma) of the extractor's
    # features of other images, as pytorch-fid writes them: gives the Frechet distance only
    c.evaluate.reference = ""
    # Error of x_0_hat by noise level, of so many training and so many held-out images: a
    # network that learned its training images by heart denoises these better.
    c.evaluate.denoising_images = 256
    # Bits per dimension, of so many held-out and so many training images: by the ODE with
    # Hutchinson's estimate, and as a bound at so many noise levels.
    c.evaluate.likelihood = ConfigDict({"num_images": 128, "probes": 2, "noise_levels": 64})
    return c.lock()  # a config file that sets an unknown key is refused
