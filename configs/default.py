"""Every setting with its default; the other configs in this folder change only what differs.

Where a part has several implementations, `name` selects one, and the settings of each stand in a
group of that name; groups that are not selected have no effect.
"""

from ml_collections import ConfigDict

DESTROYING = "foxing", "mould", "creases", "scratches", "burns", "tears", "dust"
"""The kinds of decay that cover or destroy a part of a photograph."""


def get_config() -> ConfigDict:
    """The defaults: a small class-conditional UNet on scikit-learn's digits."""
    c = ConfigDict()
    c.seed = 0  # of initialisation, data order, training noise and dropout; in [0, 2**32)

    c.data = ConfigDict()
    # digits | fashion_mnist | emoji | photographs | folder | huggingface (its package datasets) |
    # any TFDS name; points in the plane: spiral | moons | pinwheel | eight_gaussians | swan;
    # tokens: hmm | sotu | text (a file or folder) | digits_tokens | texts of TFDS;
    # sounds: drums | letters | prompts | music | recordings (a folder);
    # none: no data, for networks with published weights
    c.data.name = "digits"
    # folder: its path, also gs://... or s3://...; huggingface: a folder written by save_to_disk, of
    # Parquet files or an imagefolder, or a name on the hub, owner/set[:config]; otherwise TFDS's
    # data_dir ("": TFDS's default)
    c.data.dir = ""
    c.data.manual_dir = ""  # manually downloaded files, for TFDS builders that need them
    # A second folder of the same kind, from which this share of the training items is taken
    # (DreamBooth: pictures of the class of the subject in data.dir)
    c.data.mix = ConfigDict({"dir": "", "share": 0.5})
    c.data.shape = ()  # none: height, width and channels of pictures, such as (512, 512, 3)
    c.data.image_size = 0  # resize the shorter side, then crop; 0: size as stored (emoji: 32)
    # TFDS, huggingface: a split or slice such as train[:90%]. Folder: a sub-folder. With the
    # defaults, folder and huggingface find other usual names too (validation, val, dev, ...).
    c.data.train_split = "train"
    c.data.heldout_split = "test"
    c.data.heldout_fraction = (
        0.1  # share held out of a folder or huggingface set without two splits
    )
    # Metadata field or column with captions; "": the usual names; "none": no captions
    c.data.caption_key = ""
    c.data.image_key = ""  # huggingface: column of the images; "": the usual names
    c.data.label_key = ""  # huggingface: column of the classes; as for captions
    c.data.length = 0  # tokens of a window, or samples of sound; 0: 256, hmm: 64, sounds: 16,384
    c.data.tokenizer = "characters"  # sotu, text, TFDS's texts: characters | bytes | bpe
    c.data.vocabulary = 1024  # tokens of bpe, which is trained on the training texts
    c.data.rate = 0  # resample sounds to so many Hz; 0: as stored, packages: 16,000
    c.data.loudness = 0.0  # bring each recording to this RMS, in dB (-26, peak -1); 0: as recorded
    # Items of recordings: windows, none shorter | padded (shorter ones go on with silence) | shots
    # (the beginning of each, without silence before it); "": prompts padded, drums, letters shots
    c.data.cut = ""
    c.data.flip = False  # mirror training images at random, with probability 1/2
    c.data.in_memory = "auto"  # auto (small data sets) | always | never
    c.data.num_workers = 0  # worker processes that read and decode data not held in memory
    c.data.prefetch = 8  # batches prepared ahead
    c.data.stall_seconds = 60.0  # warn after this time without a new batch
    c.data.allow_changes = False  # resume although the data differ from those trained on

    # Published weights of Stable Diffusion v1: a folder as diffusers saves it, or a single file;
    # files of LoRA (PEFT's or kohya's), merged into them, and of textual inversion
    c.weights = ConfigDict({"source": "", "lora": (), "embeddings": ()})

    # Trained in place of the network, whose published weights then stay as they are: none | lora
    # (low-rank changes of kernels) | textual_inversion (vectors of a new word)
    c.adapter = ConfigDict({"name": "none"})
    # Changes are alpha / rank times a product of rank `rank`. layers: attention (q, k, v, output of
    # all attentions) | all
    c.adapter.lora = ConfigDict({"rank": 4, "alpha": 4.0, "layers": "attention"})
    # The new word, such as <cat>; how many vectors it has; the word that they start from
    c.adapter.textual_inversion = ConfigDict({"token": "", "vectors": 1, "initial": ""})

    c.codec = ConfigDict()  # the space of diffusion
    # identity | autoencoder (latents) | of sound: mdct (orthonormal, a sequence of frames with a
    # channel for each bin) | stft (compressed complex spectrogram, a picture) | mel (log-mel
    # spectrum, a sequence of frames, whose phases are found again: what is decoded sounds alike)
    c.codec.name = "identity"
    # Folder of a run that trained an autoencoder, or of diffusers' AutoencoderKL: its sizes, its
    # weights, and mean and deviation of its latents replace the settings of codec.autoencoder
    c.codec.run = ""
    # Encode the training images once, to the user's cache folder, instead of in every step: 4 bytes
    # for each mean and log-variance, twice as many with data.flip
    c.codec.cache = True
    c.codec.autoencoder = ConfigDict({"channels": 128, "channel_mults": (1, 2, 4, 4)})
    c.codec.autoencoder.num_blocks = 2  # residual blocks per level
    c.codec.autoencoder.latent_channels = 4
    c.codec.autoencoder.norm_groups = 0  # as model.unet.norm_groups
    c.codec.autoencoder.scale = 0.18215  # of latents, to variance 1
    # Large samples are decoded in overlapping tiles of so many latents along each side; 0: at once
    c.codec.autoencoder.tile = 0
    c.codec.autoencoder.weights = ""  # its published file or folder; "": that of weights.source
    c.codec.mdct = ConfigDict({"bins": 256, "window": "sine"})  # sine | kbd
    c.codec.mdct.multiple = 1  # of the number of frames, for networks that halve it
    c.codec.mdct.scale = 1.0  # so that x_0 has about variance 1
    # Root mean square of the data's coefficients by octave, from low to high, by which they are
    # divided (docs/bridges.md has how to measure it); () is 1
    c.codec.mdct.rms = ()
    # Those of SGMSE at 16 kHz: scale |X|^power e^(i phi) of windows of `size` samples
    c.codec.stft = ConfigDict({"size": 510, "hop": 128, "power": 0.5, "scale": 0.15})
    c.codec.stft.multiple = 64  # as of mdct
    # Windows of `size` samples, `bands` up to half the rate; multiple as of mdct
    c.codec.mel = ConfigDict({"size": 1024, "hop": 256, "bands": 128, "multiple": 1})
    c.codec.mel.mean = -10.0  # of the data, in bels (log10 of power), which is taken off
    c.codec.mel.scale = 0.6  # of what is left, so that x_0 has about variance 1
    c.codec.mel.iterations = 32  # of phases, of the fast Griffin-Lim algorithm

    c.schedule = ConfigDict()
    # ddpm | scaled_linear | linear_beta | sub_vp | cosine | sigmoid | flow | edm | ve |
    # linear_logsnr | laplace | cauchy
    c.schedule.name = "cosine"
    c.schedule.shift = 1.0  # factor on sigma / alpha: image size over that of the original recipe
    c.schedule.zero_terminal_snr = False  # rescale to unit variance and alpha_1 = 0
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
    # Between data and the image they are conditioned on, with image_condition.residual
    c.schedule.ouve = ConfigDict({"theta": 1.5, "sigma_min": 0.05, "sigma_max": 0.5})
    c.schedule.bridge = ConfigDict({"k": 2.6, "c": 0.4})
    limits = {"logsnr_max": 13.3, "logsnr_min": -13.3}
    c.schedule.linear_logsnr = ConfigDict(limits)
    c.schedule.laplace = ConfigDict({"mean": 0.0, "scale": 0.5, **limits})
    c.schedule.cauchy = ConfigDict({"mean": 0.0, "scale": 1.0, **limits})

    c.token_schedule = ConfigDict()  # share of tokens lost over time, for objectives of tokens
    c.token_schedule.name = "polynomial"  # polynomial (t^power, power 1 is linear) | cosine
    c.token_schedule.polynomial = ConfigDict({"power": 1.0})

    c.time_sampling = ConfigDict()  # distribution of the training times t
    c.time_sampling.name = "uniform"  # uniform | discrete | logit_normal | log_normal
    c.time_sampling.learned = False  # learn a distribution that minimises the loss variance (VDM)
    c.time_sampling.uniform = ConfigDict({"t_min": 1e-4, "t_max": 1.0})
    c.time_sampling.discrete = ConfigDict({"num_steps": 1000})
    c.time_sampling.logit_normal = ConfigDict({"mean": 0.0, "std": 1.0, "t_min": 1e-4})
    c.time_sampling.log_normal = ConfigDict({"mean": -1.2, "std": 1.2, "t_min": 1e-4})

    c.objective = ConfigDict()
    # gaussian: denoising, with the settings below | contrastive: match images and texts (CLIP), for
    # model.name=dual_encoder; training images are shifted at random by up to max_shift pixels |
    # damage: find the destroyed pixels of decayed images, for restore.mask.detector; the severity
    # is uniform up to `severity`, and decay as large as that of images up to `zoom` times as large
    # | autoencoder: latents for codec.run, with model.name=autoencoder
    # Of tokens (data.name=hmm, sotu, text, ...): masked (unmasking) | masked_by_token (each token
    # with its own, learned power of token_schedule) | block (unmasking, in blocks from left to
    # right) | replaced (uniform noise) | autoregressive (left to right) | classified (the class of
    # a noisy text, for sample.guidance.classifier)
    c.objective.name = "gaussian"
    # Bound that is trained on: by_count (a uniform number of masks) | in_time (a uniform time) |
    # in_steps (that of so many steps). timed: whether the time is an input of the network
    c.objective.masked = ConfigDict({"estimator": "by_count", "steps": 128, "timed": False})
    c.objective.block = ConfigDict({"size": 8, "estimator": "by_count", "steps": 128})
    # leave_one_out: the network predicts a token from all others, instead of from itself too
    c.objective.replaced = ConfigDict({"leave_one_out": True, "timed": True})
    c.objective.classified = ConfigDict({"replaced": False})  # noise: masks; True: uniform noise
    c.objective.contrastive = ConfigDict({"max_shift": 2})
    # Training images of gaussian are changed, each with that probability in each of these ways, and
    # the network is told, so that samples are not (as EDM, whose values these are). scale, stretch:
    # standard deviation of log2; rotation: the largest, in degrees; translation: share of a side
    c.objective.augment = ConfigDict({"probability": 0.0, "flip": True, "scale": 0.2})
    c.objective.augment.rotation = 180.0
    c.objective.augment.stretch = 0.2
    c.objective.augment.translation = 0.125
    c.objective.damage = ConfigDict({"severity": 1.0, "zoom": 8.0})
    # Error of an entry: l1 | squared (minus the log density of a normal law with that `variance`).
    # kl: weight of the latents' divergence per entry of the data, 1 in the evidence lower bound.
    # perceptual: weight of ST-LPIPS, whose file is `weights` ("": the installed package); 0: off
    c.objective.autoencoder = ConfigDict({"reconstruction": "l1", "variance": 1.0, "kl": 1e-6})
    c.objective.autoencoder.perceptual = 0.0
    c.objective.autoencoder.weights = ""
    # Weight of the relativistic loss by model.critic, which has two gradient penalties of weight
    # `penalty` (R3GAN); its optimizer is optimizer.groups.critic. 0: no critic
    c.objective.autoencoder.adversarial = 0.0
    c.objective.autoencoder.penalty = 1.0
    c.objective.prediction = "v"  # network output: eps | x0 | v | velocity | score | edm
    c.objective.loss_space = ""  # prediction type in which the error is squared ("": prediction)
    # uniform | snr | truncated_snr | min_snr | p2 | edm | sigmoid | vlb
    c.objective.weighting = "uniform"
    c.objective.min_snr = ConfigDict({"gamma": 5.0})
    c.objective.p2 = ConfigDict({"k": 1.0, "gamma": 1.0})
    c.objective.sigmoid = ConfigDict({"bias": -1.0})
    c.objective.sigma_data = 0.5  # standard deviation of the data, for prediction or weighting edm
    c.objective.huber = 0.0  # c of the pseudo-Huber loss of the root-mean-square error; 0: off
    c.objective.learned_uncertainty = False  # divide the loss by its learned magnitude at t (EDM2)
    c.objective.cond_dropout = 0.1  # probability of dropping all conditioning, for guidance
    # Further, independent probabilities of dropping one part of the conditioning
    c.objective.part_dropout = ConfigDict({"label": 0.0, "text": 0.0, "vector": 0.0, "image": 0.0})
    c.objective.learned_variance = False  # second output per channel (improved DDPM's L_hybrid)
    c.objective.vlb_weight = 1e-3  # lambda of L_hybrid

    c.model = ConfigDict()
    # unet | dit | mlp (vectors) | dual_encoder (objective.name=contrastive) | autoencoder
    c.model.name = "unet"
    # Time input of the network: thousands (1000 t) | table_index (1000 t - 1) | log_noise
    # (log(sigma / alpha) / 4, EDM)
    c.model.time_input = "thousands"
    c.model.dtype = "float32"  # of activations: float32 | bfloat16; parameters stay float32
    # gaussian: outputs are gains of the inputs (noisy samples and image_condition), and what is
    # added; the network sees the inputs' levels, too. For spectra of sound, which it filters then
    c.model.gains = False
    # Generator of the random bits of dropout: threefry | rbg (a step compiles faster, and is faster
    # on TPUs; bits depend on the devices and on the version of the compiler)
    c.model.dropout_bits = "threefry"
    c.model.unet = ConfigDict()
    c.model.unet.channels = 32
    c.model.unet.channel_mults = (1, 2)
    c.model.unet.num_blocks = 2
    c.model.unet.attention_levels = (1,)  # level 0 has the full size, each next level half of it
    c.model.unet.num_heads = 1
    c.model.unet.head_dim = 0  # channels per attention head; 0: use num_heads
    c.model.unet.scale_shift = True  # adaptive group norm (ADM); False: addition (DDPM)
    c.model.unet.symmetric_padding = False  # of downsampling, as in Stable Diffusion
    c.model.unet.norm_groups = 0  # of all group norms; 0: 32, or fewer in narrow networks
    c.model.unet.resblock_updown = False  # resample in the residual blocks (ADM)
    c.model.unet.dropout = 0.0
    # Rematerialisation of each block in the backward pass, to save memory: none | dots_saveable |
    # dots_with_no_batch_dims_saveable | full
    c.model.unet.remat = "none"
    c.model.unet.patch_size = 1  # side of the patches that level 0 takes as its pixels
    c.model.dit = ConfigDict()
    c.model.dit.patch_size = 2
    c.model.dit.hidden_size = 192
    c.model.dit.depth = 6
    c.model.dit.num_heads = 6
    c.model.dit.mlp_ratio = 4.0
    c.model.dit.rotary = False  # attention by distance, too (RoPE): texts are learned much faster
    c.model.dit.dropout = 0.0
    # Layers per loop iteration; more: longer to compile, faster on CPUs and GPUs. 0: all on GPUs,
    # else 1
    c.model.dit.unroll = 0
    c.model.dit.remat = "none"  # as model.unet.remat
    c.model.mlp = ConfigDict({"features": 64, "depth": 2})
    c.model.dual_encoder = ConfigDict({"width": 256, "channels": 64, "features": 512})
    c.model.dual_encoder.dropout = 0.4  # in the image encoder

    # As codec.autoencoder, trained here: each level but the first halves the size
    c.model.autoencoder = ConfigDict({"channels": 32, "channel_mults": (1, 2, 4)})
    c.model.autoencoder.num_blocks = 1
    c.model.autoencoder.latent_channels = 4
    c.model.autoencoder.norm_groups = 8  # the same for all norms, as in published files
    c.model.autoencoder.remat = "none"  # as model.unet.remat
    # Of adversarial losses; each level but the first halves the size
    c.model.critic = ConfigDict({"channels": 32, "channel_mults": (1, 2, 4), "num_blocks": 1})

    c.text = ConfigDict()  # text encoder, for data with captions
    # none | minilm (all-MiniLM-L6-v2, frozen) | clip (text encoder with published weights, frozen)
    # | bytes (small byte-level transformer, trained with the network)
    c.text.name = "none"
    c.text.pooled = True  # condition on the pooled text embedding too, not on tokens alone
    c.text.unconditional = "zeros"  # no text is: zeros | empty (that text, encoded)
    c.text.length = 32  # longest text in tokens; Stable Diffusion uses 77
    # Path of the published model.safetensors; minilm: "" uses the installed package
    c.text.weights = ""
    c.text.tokenizer = ""  # tokenizer.json, or vocab.json and merges.txt; "": next to the weights
    # activation: quick_gelu (OpenAI) | gelu (OpenCLIP); the sizes are those of ViT-L/14.
    c.text.clip = ConfigDict({"width": 768, "depth": 12, "heads": 12, "activation": "quick_gelu"})
    c.text.clip.skip = 0  # layers left out before the last norm (CLIP skip)
    c.text.bytes = ConfigDict({"width": 128, "depth": 4, "heads": 4, "activation": "gelu"})
    c.text.bytes.causal = False  # True: each byte attends only to earlier ones

    # Image given to the network as a second input, computed from the training image itself
    c.image_condition = ConfigDict()
    # none | low_resolution (for --upscale) | masked | decayed (tears, mould, fading and such) |
    # inpainting (Stable Diffusion's own network for it, of 9 channels). Of sound: masked (gaps) |
    # noisy | clipped | low_band | reverberant
    c.image_condition.name = "none"
    # Predict what the image differs in from that input, which is then copied without being learned
    c.image_condition.residual = False
    # Averaged over factor x factor pixels, with noise of a random time up to max_noise
    c.image_condition.low_resolution = ConfigDict({"factor": 2, "max_noise": 0.3})
    # Number of hidden rectangles; their sides, from least to most, are shares of the image's side
    c.image_condition.masked = ConfigDict({"boxes": 3, "least": 0.2, "most": 0.6})
    c.image_condition.decayed = ConfigDict({"severity": 1.0})  # the largest, in [0, 1]
    c.image_condition.decayed.kinds = ("blur", "fading", "silvering", *DESTROYING)
    # Signal-to-noise ratio over the whole window, drawn from `least` to `most` dB. noises: coloured
    # (from white to brown) | babble (`voices` at once, of `bank` training recordings) | recordings
    # (`bank` windows of those in the folder `dir`)
    c.image_condition.noisy = ConfigDict({"least": -5.0, "most": 20.0, "voices": 4, "bank": 64})
    c.image_condition.noisy.noises = ("coloured", "babble")
    c.image_condition.noisy.dir = ""
    # All are drawn between least and most. Level of clipping, as a share of the largest value
    c.image_condition.clipped = ConfigDict({"least": 0.1, "most": 0.5})
    # Highest frequency in cycles per sample: 0.25 is 4 kHz at a rate of 16 kHz
    c.image_condition.low_band = ConfigDict({"least": 0.1, "most": 0.25})
    # Samples until the reverberation is 60 dB down, 0.2 to 0.8 s at 16 kHz, and the energy of the
    # direct sound over that of the rest, in dB
    c.image_condition.reverberant = ConfigDict({"least": 3200.0, "most": 12800.0, "direct": 0.0})

    c.optimizer = ConfigDict()
    c.optimizer.name = "adamw"  # any of optax or optax.contrib; those without a group: its defaults
    c.optimizer.learning_rate = 1e-3
    c.optimizer.warmup_steps = 100
    c.optimizer.decay = "cosine"  # constant | linear | cosine, to 0 at train.steps
    c.optimizer.clip_norm = 1.0  # largest gradient norm, of each group by itself; 0: no clipping
    c.optimizer.adamw = ConfigDict({"b1": 0.9, "b2": 0.99, "eps": 1e-8, "weight_decay": 0.0})
    c.optimizer.adam = ConfigDict({"b1": 0.9, "b2": 0.999, "eps": 1e-8})
    # of the first moment: float32 | bfloat16
    c.optimizer.adamw.mu_dtype = c.optimizer.adam.mu_dtype = "float32"
    # Overrides for top-level groups of the parameters, such as {"critic": {"learning_rate": 1e-4}}
    c.optimizer.groups = ConfigDict()

    c.ema = ConfigDict()
    c.ema.decay = 0.999  # of the exponential moving average, used for sampling by default
    c.ema.warmup = True  # the decay is at most (1 + step) / (10 + step)
    # Steps between updates of all averages, which then take the parameters for those of all steps
    # since the last: less memory is read and written
    c.ema.every = 1
    # Also keep power-function averages (EDM2) of these lengths: standard deviation of the weights
    # in time, as a share of training, e.g. (0.05, 0.1)
    c.ema.lengths = ()
    c.ema.snapshot_every = 0  # steps between snapshots of these, which yield any other length

    c.train = ConfigDict()
    # A finished run continues if this is raised and optimizer.decay is constant
    c.train.steps = 2000
    # Initialise from another run's parameters (the average named by its sample.ema): FOLDER@STEP,
    # or FOLDER for its newest checkpoint
    c.train.init_from = ""
    c.train.batch_size = 128  # over all devices
    c.train.accumulate = 1  # microbatches per step
    c.train.max_grad_norm = 0.0  # skip steps with a larger gradient; 0: skip non-finite ones only
    c.train.max_skipped = 10  # stop after this many skipped steps in a row
    c.train.log_every = 50
    c.train.heldout_every = 500  # steps between held-out losses by noise level; 0: none
    c.train.sample_every = 500  # steps between sample grids, from the average sample.ema; 0: none
    c.train.checkpoint_every = 1000
    c.train.keep_checkpoints = 3  # keep this many of the newest
    c.train.keep_every = 0  # also keep all checkpoints at multiples of this step; 0: none
    c.train.keep_best = 0  # also keep this many checkpoints with the lowest held-out loss
    # Project of Weights & Biases that metrics, settings and pictures are logged to as well ("":
    # none); it needs `pip install wandb`, and WANDB_MODE=offline keeps all in the run's folder.
    c.train.wandb = ""

    c.parallel = ConfigDict()
    # replicated: all parameters on every device | sharded: a mesh of data x fsdp x model devices
    c.parallel.strategy = "replicated"
    # dtype in which the replicated step averages gradients over devices: "" (float32) | bfloat16; a
    # sharded step sends them in model.dtype
    c.parallel.gradients = ""
    c.parallel.fsdp = 1  # devices that share the state and split the batch
    # parameters that are cut over fsdp are gathered for each use | once a step: more memory, less
    # is sent
    c.parallel.gather = "use"
    c.parallel.model = 1  # devices that share the parameters and process the same part of the batch

    c.plan = ConfigDict()  # --mode plan
    c.plan.shape = ()  # shape of one sample instead of the data's, e.g. (32, 32, 4) for latents

    c.sample = ConfigDict()
    # Deterministic: ddim (euler) | heun | midpoint | rk4 | adaptive | lms | ipndm | pndm | ghvb |
    # dpm_solver | dpmpp_singlestep | dpmpp_multistep | deis | unipc. Stochastic: ancestral | ddim |
    # euler_ancestral | euler_maruyama | churn | dpmpp_sde | dpmpp_sde_multistep |
    # predictor_corrector | cld. With objective.name=masked: unmasking | by_count | remasking |
    # first_hitting; masked_by_token: unmasking; block: unmasking | by_count; replaced:
    # replacement; autoregressive: left_to_right
    c.sample.sampler = "ddim"
    c.sample.ddim = ConfigDict({"eta": 0.0})
    c.sample.ancestral = ConfigDict({"variance": "large"})  # small | large | learned
    # ODE coordinate: "ve" is sigma / alpha, "flow" is sigma / (alpha + sigma)
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
    # Pixels with velocities; gamma: initial variance of the velocities, relative to the final one
    c.sample.cld = ConfigDict({"order": 2, "gamma": 0.04})
    # Do not evaluate the network again while no token has changed; not for timed networks
    c.sample.unmasking = ConfigDict({"cached": True})
    # objective.name=block: keep keys and values of finished blocks. Samples are the same, with less
    # work; guided ones are made without
    c.sample.blocks = ConfigDict({"cached": True})
    # Which masks are filled first: random | left_to_right | entropy | margin | confidence (biased)
    c.sample.by_count = ConfigDict({"order": "random"})
    # Tokens are masked again at times in [low, high], with a probability of at most `strength`
    # (rule "cap"), or with that share of the largest possible one ("rescale")
    c.sample.remasking = ConfigDict({"strength": 0.1, "rule": "cap", "low": 0.0, "high": 1.0})
    # With objective.name=masked: draw `num` texts in each step, and choose one by the likelihood of
    # an autoregressive run on the same data, FOLDER@STEP or FOLDER (EDLM); 0: off
    c.sample.candidates = ConfigDict({"num": 0, "law": ""})
    # Probability of drawing a token's noise anew instead of from its own (Psi-samplers)
    c.sample.replacement = ConfigDict({"renewal": 0.0})
    # Restart: go back up from time low to high this many times, and down again in `steps` steps
    c.sample.restart = ConfigDict({"repeats": 0, "low": 0.1, "high": 0.4, "steps": 5})
    c.sample.steps = 50  # with objective.name=block: in each block
    # Sampling times: uniform | quadratic | karras | uniform_logsnr | trailing | leading | linspace
    # (of a table of num_steps: every n-th entry, shifted by `offset`, without the first `skip`,
    # then `end`; Stable Diffusion: leading, offset 1, end 0.001, for dpmpp_multistep skip 1, end 0)
    # | optimised (searched for the trained network and the sampler). Times whose noise is below the
    # precision of float32, as near 0 with schedule edm, are left out. Of tokens: uniform |
    # quadratic | held (stands still at a time, for remasking, while u, from 1 to 0, is between
    # begin and end)
    c.sample.grid = "uniform"
    c.sample.held = ConfigDict({"at": 0.1, "begin": 0.55, "end": 0.05})
    c.sample.trailing = ConfigDict({"num_steps": 1000, "end": 0.0})
    c.sample.leading = ConfigDict({"num_steps": 1000, "offset": 0, "end": 0.0, "skip": 0})
    c.sample.linspace = ConfigDict({"num_steps": 1000, "end": 0.0, "skip": 0})
    c.sample.karras = ConfigDict({"sigma_min": 0.002, "sigma_max": 80.0, "rho": 7.0})
    c.sample.uniform_logsnr = ConfigDict({"sigma_min": 0.002, "sigma_max": 80.0})
    # Samples compared with the exact solution, and gradient steps; the result is cached
    c.sample.optimised = ConfigDict({"images": 256, "iterations": 60})
    c.sample.t_max = 1.0  # time at which sampling starts; < 1 for eps or score with schedule flow
    # Initial state: normal (noise, as in training) | standard (of variance 1, as Stable Diffusion
    # starts where there is still signal) | uniform (with the mean and variance of normal) | the
    # path of an image, used as if it were noise: shifted and scaled to that mean and variance. No
    # noise is added to it (sample.vary does that): with a deterministic sampler, samples with the
    # same label or prompt are all the same. Of tokens: normal (masks alone), or a text in which _
    # stands for what is filled in, as it does for what is missing at its end.
    c.sample.start = "normal"
    c.sample.guidance_scale = 1.0  # of classifier-free guidance; 1 is off
    c.sample.guidance = ConfigDict()
    c.sample.guidance.interval = (0.0, 1.0)  # times t at which guidance is on
    # Scale over time: constant | linear | cosine (both grow from 1 at pure noise, with the same
    # mean) | plus_plus (CFG++, for DDIM, with a scale in [0, 1])
    c.sample.guidance.schedule = "constant"
    c.sample.guidance.parallel = 1.0  # share kept of the guidance component along x_0_hat (APG)
    c.sample.guidance.max_norm = 0.0  # largest RMS of the guidance difference (APG); 0: no limit
    c.sample.guidance.rescale = 0.0  # 1: restore the unguided standard deviation; 0: off
    # Autoguidance: guide away from a weaker model instead of the unconditional one. FOLDER@STEP: a
    # run ("": this one) and a checkpoint (without @: the newest)
    c.sample.guidance.worse = ""
    # Joint denoising of groups of `size` samples (0: each alone): separation repels them (particle
    # guidance), cohesion attracts the images, alignment the directions in which they move
    c.sample.guidance.flock = ConfigDict(
        {"size": 0, "separation": 0.0, "cohesion": 0.0, "alignment": 0.0}
    )
    # CLIP guidance: gradient of the similarity to the text, by the dual encoder trained in the
    # folder `judge`, through x_0_hat; works without a text-conditional network. scale 0: off;
    # max_norm: largest RMS of the change, 0: no limit
    c.sample.guidance.likeness = ConfigDict({"judge": "", "scale": 1.0, "max_norm": 0.0})
    # Of tokens: texts have the law p(x) exp(scale m(x)), with m(x) the number of places at which
    # one of the words stands, such as ("king", "war"), blanks and all. Nearly so: the naive field
    # leaves out that what is still to be filled feels it, too
    c.sample.guidance.magnet = ConfigDict({"words": (), "scale": 1.0})
    # Of tokens: p(x) p(label | x)^scale, by a run of objective.name=classified, FOLDER@STEP or
    # FOLDER. by: first_order (by the classifier's gradient) | exact (an evaluation for each token
    # and place) | field (as the magnet, with m = log p(label | x))
    c.sample.guidance.classifier = ConfigDict(
        {"judge": "", "label": 0, "scale": 1.0, "by": "first_order"}
    )
    c.sample.clip = -1.0  # limit x_0_hat to [-clip, clip]; 0: no clipping; -1: the data's range
    # Groups of so many samples are weighted particles whose law is the tilted one of the magnet and
    # the classifier, which only propose; resampled where the effective size is below that share of
    # it. 0: off. For objective.name=masked, without sample.unmasking.cached
    c.sample.particles = ConfigDict({"size": 0, "resample_below": 0.5})
    c.sample.prompts = ()  # texts, used in turn, for text-conditional networks
    c.sample.negative = ""  # negative prompt: guide away from this text instead of from no text
    # Texts composed with the prompt, with weights (AND above 0, NOT below): (("a hat", 1.5),)
    c.sample.compose = ()
    # Variants of an image or a sound instead of samples. by="noise": add noise and take the last
    # `strength` of the steps. by="inversion": solve the ODE back to its noise and rotate that
    # towards fresh noise by `strength` of a right angle (0 reproduces it). towards: another file;
    # `frames` samples lie evenly between both: means of the two, with noise, or by inversion
    # noises between theirs (without `strength`)
    c.sample.vary = ConfigDict({"image": "", "towards": "", "strength": 0.5, "by": "noise"})
    # An image that is painted where a mask, an image of the same size, is white: by the last
    # `strength` of the steps. keep: the rest has the image's own pixels, not those of the codec
    c.sample.inpaint = ConfigDict({"image": "", "mask": "", "strength": 1.0, "keep": True})
    # Two texts to interpolate between, instead of samples
    c.sample.interpolate = ()
    c.sample.frames = 8  # images per interpolation, of texts or of files
    # Image file to upscale instead of held-out images, and the noise added to the low-resolution
    # input (of held-out images too): a time of the schedule, up to max_noise
    c.sample.upscale = ConfigDict({"image": "", "noise": 0.0})
    c.sample.num_images = 100
    c.sample.first_index = 0  # image i does not depend on num_images or batch_size
    c.sample.labels = "all"  # all (in turn) | none | a list such as "3" or "3,5"
    c.sample.seed = 0
    c.sample.batch_size = 512
    c.sample.checkpoint = -1  # step of the checkpoint; -1: the newest
    c.sample.ema = ""  # "": exponential average | params: no averaging | a length such as "0.07"
    c.sample.strip = 10  # images per trajectory strip, and frames of the GIF

    c.restore = ConfigDict()  # --mode restore
    # Picture or recording to restore, or a folder of them, of any size: larger ones than the
    # network's are denoised in overlapping tiles
    c.restore.image = ""
    # How the picture was damaged: identity (noise only) | mask | blur | downscale | grey | fading |
    # gamma | clipping | halftone | jpeg | decay (simulated tears, mould and such: a mask); several,
    # in the order in which they happened: fading+blur. For sounds: identity | clipping | band |
    # decimate | gap | beginning (to continue it) | reverberation
    c.restore.operator = "mask"
    # By a denoiser given the observation: dps | pigdm | tmpd | mmps | ddnm | diffpir. By a sampler:
    # ddrm | repaint (with sample.restart) | daps | split_gibbs | twisted (the samples are weighted
    # particles). ddnm, ddrm: operators whose singular values are known. repaint: masks; through
    # codec.name=mdct these three without codec.mdct.rms, or for operator identity. as_trained:
    # networks of image_condition masked (operator mask, gap or beginning), decayed or noisy,
    # clipped, low_band, reverberant (operator identity).
    c.restore.method = "pigdm"
    c.restore.sigma = 0.0  # standard deviation of its noise, on the scale of the data, [-1, 1]
    # The picture is whole: damage it, restore it, and compare with it
    c.restore.simulate = False
    # Find the operator's parameters (of blur, fading, gamma, clipping) and sigma from the picture,
    # beginning with the values set, in so many rounds (0: off), each with so many windows of the
    # network's size. Noise is added to them, at first with the standard deviation `noise`
    c.restore.blind = ConfigDict({"rounds": 0, "windows": 8, "noise": 2.0})
    c.restore.num_samples = 8  # samples of what the picture could have been
    c.restore.overlap = 0.25  # of neighbouring tiles, as a share of a tile's side
    # Picture of the same size that is white where the picture is destroyed. Or instead a run of
    # objective.name=damage that finds it, FOLDER@STEP or FOLDER: pixels that are destroyed with at
    # least the probability `threshold`, and all up to `dilate` pixels away
    c.restore.mask = ConfigDict({"image": "", "detector": "", "threshold": 0.35, "dilate": 1})
    # What is destroyed is known, unless restore.mask.detector is to find it
    c.restore.decay = ConfigDict({"severity": 0.8, "seed": 0})
    c.restore.decay.kinds = DESTROYING
    c.restore.blur = ConfigDict({"width": 1.0})  # standard deviation of the Gaussian, in pixels
    c.restore.downscale = ConfigDict({"factor": 2})
    # A value for each channel, or one for all
    c.restore.fading = ConfigDict({"gain": (0.6,), "offset": (0.2,)})
    c.restore.gamma = ConfigDict({"exponent": 2.0})
    c.restore.clipping = ConfigDict({"low": -0.7, "high": 0.7})
    c.restore.halftone = ConfigDict({"period": 4.0, "softness": 0.2})
    c.restore.jpeg = ConfigDict({"quality": 20.0})
    c.restore.band = ConfigDict({"low": 0.0, "high": 0.25})  # known frequencies, cycles per sample
    c.restore.decimate = ConfigDict({"factor": 2})  # to a lower rate
    c.restore.gap = ConfigDict({"start": 0.45, "length": 0.1})  # shares of the recording
    # The file is this share of a recording, its beginning, and the rest is to be found
    c.restore.beginning = ConfigDict({"share": 0.5})
    # as image_condition.reverberant
    c.restore.reverberation = ConfigDict({"decay": 4800.0, "direct": 0.0, "seed": 0})
    c.restore.dps = ConfigDict({"zeta": 1.0, "steps": 1000})
    # data_std: standard deviation of the data, for the uncertainty that is assumed at each time
    c.restore.pigdm = ConfigDict({"data_std": 0.5, "iterations": 10, "tolerance": 1e-4})
    c.restore.mmps = ConfigDict({"iterations": 10, "tolerance": 1e-3})
    c.restore.diffpir = ConfigDict({"weight": 1.0, "zeta": 0.3})
    c.restore.ddrm = ConfigDict({"eta": 0.85, "eta_b": 1.0})
    c.restore.daps = ConfigDict({"steps": 5, "data_std": 0.5})
    c.restore.split_gibbs = ConfigDict({"steps": 10})
    c.restore.twisted = ConfigDict({"resample_below": 0.5, "data_std": 0.5, "sigma_min": 0.01})

    c.evaluate = ConfigDict()
    # distances (samples to data, in features) | denoising (error by noise level) | likelihood (bits
    # per dimension) | names (match of samples and texts, by the dual encoder evaluate.names.judge)
    # | field (points: error of the learned score) | damage (destroyed pixels found) | bits (tokens:
    # bits per character) | texts (entropy, real words and copies of samples) | sentences
    # (distance of texts to held-out ones in MiniLM's features) | classes (of texts, by
    # objective.name=classified) | reconstruction (by an autoencoder) | restored (recordings beside
    # what was given) | pitch (of sounds, beside held-out ones) | words (that a recogniser hears in
    # speech made of held-out transcripts). Figures that too few images do not define are left out,
    # and the report gives the reason.
    c.evaluate.metrics = "distances,denoising,likelihood"
    c.evaluate.num_samples = 1797  # with labels in the proportions of the training data
    c.evaluate.seed = 1
    c.evaluate.ema_lengths = ()  # evaluate each of these lengths instead of sample.ema
    # Feature extractor: classifier (trained on the data set; needs two classes of at least five
    # images, or sounds) | judge (the dual encoder of evaluate.names) | entries (the raw items) |
    # mel_statistics (of sounds: means, deviations and deltas of log-mel bands) | inception |
    # efflite0 | dinov2_vits14 | dinov2_vitb14 | dinov2_vitl14, the last three also with _reg
    c.evaluate.extractor = "classifier"
    c.evaluate.weights = ""  # its published weights; efflite0: "" uses the installed package
    # Match of images and names, by the dual encoder trained in the folder `judge`: on at most `num`
    # names each of training images, held-out images and these further splits (emoji: combination)
    c.evaluate.names = ConfigDict({"judge": "", "num": 200, "splits": ()})
    c.evaluate.bootstrap = 200  # resamplings for the intervals of distances to training images
    # "": the training images | .npz with mu and sigma (or ref_mu, ref_sigma) of the extractor's
    # features of other images, as pytorch-fid writes it; gives the Frechet distance only
    c.evaluate.reference = ""
    # Training and held-out images (this many each) for the error of x_0_hat by noise level; a
    # memorising network denoises training images better
    c.evaluate.denoising_images = 256
    # Bits per dimension of this many held-out and training images: by the ODE with Hutchinson's
    # estimate from `probes` vectors, and as a bound at this many noise levels
    c.evaluate.likelihood = ConfigDict({"num_images": 128, "probes": 2, "noise_levels": 64})
    # Bits per character of this many held-out and training texts, at this many levels of noise
    c.evaluate.bits = ConfigDict({"num_texts": 512, "levels": 32})
    c.evaluate.classes = ConfigDict({"num_texts": 512})  # held-out, clean and noisy
    c.evaluate.damage = ConfigDict({"num_images": 512})  # held-out, each decayed once
    c.evaluate.reconstruction = ConfigDict({"num_images": 512})  # held-out
    # Speech for so many held-out transcripts, of these classes (those in English; (): all)
    c.evaluate.words = ConfigDict({"num_sounds": 64, "classes": ()})
    # Held-out recordings, each restored so many times by="condition" (what image_condition makes of
    # them) or "restore" (an observation by restore.operator and restore.sigma, by restore.method).
    # measures: si_sdr_uncentred | snr | estoi | lsd | stft | gross_pitch | pesq_wb, pesq_nb (pip
    # install pesq) | speaker_similarity (pip install --no-deps resemblyzer; at 16 kHz) | word_error
    # (pip install pocketsphinx; of captions, at 16 kHz). bands: dB of the input SNR between which
    # gains are told apart
    c.evaluate.restored = ConfigDict({"by": "condition", "num_sounds": 64, "samples": 1})
    c.evaluate.restored.measures = "si_sdr_uncentred,estoi,lsd,stft"
    c.evaluate.restored.bands = (0.0, 10.0)
    return c.lock()  # a config file that sets an unknown key is refused
