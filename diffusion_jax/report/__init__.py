"""What a run found: `result.json`, and `report.md`, a page that a person reads."""

from diffusion_jax.report.curves import plot_curves
from diffusion_jax.report.figures import suffix
from diffusion_jax.report.page import (
    has_passport,
    memorises,
    read_result,
    write_report,
    write_result,
)
from diffusion_jax.report.tables import result_tables
