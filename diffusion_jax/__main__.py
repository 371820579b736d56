"""`python -m diffusion_jax`: trains, samples and evaluates."""

from diffusion_jax.cli.main import start

if __name__ == "__main__":
    start()
