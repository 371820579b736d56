"""The flags of the command line, and their groups in `--help`."""

from absl import flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "The run: a file of settings.")
MODE = flags.DEFINE_enum(
    "mode",
    "all",
    ["all", "train", "sample", "restore", "evaluate", "export", "plan"],
    "all (default), train, sample, restore, evaluate, export or plan.",
)
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder; default: runs/NAME.")
PROFILE = flags.DEFINE_integer(
    "profile", None, "Trace this many training steps, for Perfetto and TensorBoard.", lower_bound=1
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    "",
    "With --mode plan: for other devices, e.g. h100:8 or v5p:4x4x4.",
)

PROMPT = flags.DEFINE_multi_string(
    "prompt", None, "Draw four pictures of this text; may be repeated."
)
PROMPTS = flags.DEFINE_string("prompts", None, "The same for each line of a text file.")
flags.DEFINE_string("negative", None, "A text to guide away from.")
flags.DEFINE_string("vary", None, "Draw variants of this picture or recording.")
flags.DEFINE_string("towards", None, "Draw the way from that one to this one.")
INPAINT = flags.DEFINE_string("inpaint", None, "Paint this picture where --mask is white.")
flags.DEFINE_float("strength", None, "How far from the picture, in [0, 1]: the share of steps.")
UPSCALE = flags.DEFINE_string(
    "upscale", None, "Enlarge this picture, by a model conditioned on low resolution."
)
flags.DEFINE_string(
    "restore", None, "A damaged picture or recording, or a folder, for --mode restore."
)
flags.DEFINE_string("mask", None, "Picture that is white where that one is painted or restored.")
INTERPOLATE = flags.DEFINE_string(
    "interpolate", None, "Draw the pictures on the way from one text to another."
)
flags.DEFINE_integer("strip", None, "Pictures from noise to result, per sample.")

SWEEP = flags.DEFINE_string(
    "sweep", None, "What varies: a file, or 'seed=0,1; objective.prediction=eps,v'."
)
WORKERS = flags.DEFINE_integer(
    "workers", 0, "Runs at a time; default: one per GPU, or one per CPU core."
)
TOGETHER = flags.DEFINE_enum(
    "together",
    "auto",
    ["auto", "always", "never"],
    "Train runs that differ only in seed by one program; auto: on GPUs.",
)
PART = flags.DEFINE_string("part", "0/1", "On several hosts: do part I of N, counted from 0.")
SUBMIT = flags.DEFINE_string(
    "submit", "", "As jobs of a cluster: slurm_partition=gpu,timeout_min=240"
)
MAX_RUNS = flags.DEFINE_integer("max_runs", 200, "Refuse a larger sweep; default: 200.")
UNIT = flags.DEFINE_integer("unit", None, "Set by a sweep for the processes that it starts.")

COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "Address at which process 0 listens, the same for all."
)
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run together.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this one is, from 0.")
MULTIHOST = flags.DEFINE_bool(
    "multihost", False, "On each host of a TPU slice (SLURM, GKE, Open MPI: not needed)."
)

GROUPS = {
    "What to do": {
        "config": "FILE",
        "mode": "STAGE",
        "workdir": "FOLDER",
        "profile": "STEPS",
        "topology": "DEVICES",
    },
    "What to draw": {
        "prompt": "TEXT",
        "prompts": "FILE",
        "negative": "TEXT",
        "vary": "IMAGE",
        "towards": "IMAGE",
        "inpaint": "IMAGE",
        "strength": "X",
        "upscale": "IMAGE",
        "restore": "IMAGE",
        "mask": "IMAGE",
        "interpolate": "TEXT TEXT",
        "strip": "N",
    },
    "Sweeps: one config with many settings": {
        "sweep": "RUNS",
        "workers": "N",
        "together": "auto|always|never",
        "part": "I/N",
        "submit": "SETTINGS",
        "max_runs": "N",
    },
    "Several processes as one run (GPUs of one process need no flag)": {
        "coordinator": "HOST:PORT",
        "num_processes": "N",
        "process_id": "I",
        "multihost": "",
    },
}
"""Flags with the form of their values, by heading of `--help`."""
SETTINGS = {
    "inpaint": ("sample.inpaint.image",),
    "mask": ("restore.mask.image", "sample.inpaint.mask"),
    "negative": ("sample.negative",),
    "restore": ("restore.image",),
    "strip": ("sample.strip",),
    "strength": ("sample.vary.strength", "sample.inpaint.strength"),
    "towards": ("sample.vary.towards",),
    "upscale": ("sample.upscale.image",),
    "vary": ("sample.vary.image",),
}
"""Flags that stand for settings of the config, one for each stage that they are for."""
NOT_OF_A_SWEEP = (
    *("mode", "profile", "topology", "coordinator", "num_processes", "process_id", "multihost"),
    *("prompt", "prompts", "interpolate", *SETTINGS),
)
