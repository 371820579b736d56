"""Results of a run: `result.json`, and the pages `report.md` and `report.html`."""

from diffusion_jax.report.curves import plot_curves
from diffusion_jax.report.figures import plain, suffix
from diffusion_jax.report.html import html_of, mend_page
from diffusion_jax.report.page import (
    has_passport,
    memorises,
    read_result,
    write_report,
    write_result,
)
from diffusion_jax.report.tables import result_tables
