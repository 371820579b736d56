"""The stage that writes a trained network for other programs."""

from diffusion_jax.from_config.exports import check_export, write_published
from diffusion_jax.from_config.task import BASE
from diffusion_jax.run.trained import Run
from diffusion_jax.system.devices import is_main

FOLDER = "published"


def export(run: Run) -> None:
    """Writes what was trained, in the average that samples are drawn with, to the workdir.

    Raises:
        ConfigError: there is no published form of it.
    """
    task, folder = run.parts.task, run.workdir / FOLDER
    if not task.adapter:
        check_export(run.config)
    params, step = run.learned()
    if not is_main():
        return
    if task.adapter:
        files = task.adapter.write(folder, run.frozen[BASE], params)
        print(f"step {step} is in {' and '.join(map(str, files))}")
        return
    write_published(folder, run.config, task, params, run.frozen)
    print(f"step {step} is in {folder}, for StableDiffusionPipeline.from_pretrained")
    if skip := run.config.text.clip.skip:
        print(f"there, text.clip.skip={skip} is an argument: clip_skip={skip}")
