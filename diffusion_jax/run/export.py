"""The stage that writes a trained network for other programs."""

from diffusion_jax.from_config.exports import check_export, write_published
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main

FOLDER = "published"


def export(run: Run) -> None:
    """Writes the network, in the average that samples are drawn with, to a folder of the workdir.

    Raises:
        ConfigError: there is no published form of it.
    """
    check_export(run.config)
    model, folder = run.trained(), run.workdir / FOLDER
    if not is_main():
        return
    write_published(folder, run.config, run.parts.task, model.params, run.frozen)
    print(f"step {model.step} is in {folder}, for StableDiffusionPipeline.from_pretrained")
    if skip := run.config.text.clip.skip:
        print(f"there, text.clip.skip={skip} is an argument: clip_skip={skip}")
