"""Notices groups of parameters that are trained and do not move."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

UPDATE_NORM = "update_norm_"
"""Prefix of the metrics of `make_train_step` with the norm of each group's update."""
PATIENCE = 10
"""Steps in a row without movement that end a run; the first of a warm-up moves nothing."""


class Movement:
    """Counts the steps in a row in which a group has not moved."""

    def __init__(self) -> None:
        self._still: dict[str, int] = {}

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """Why training cannot go on after steps with these metrics, or ''."""
        for name in (name for name in (rows[0] if rows else ()) if name.startswith(UPDATE_NORM)):
            for row in rows:
                moved = np.all(row[name])  # of several runs, each
                self._still[name] = 0 if moved else self._still.get(name, 0) + 1
            if self._still[name] >= PATIENCE:
                group = name.removeprefix(UPDATE_NORM)
                return (
                    f"the parameters of {group!r} have not moved in the last {self._still[name]} "
                    "steps: look at its learning rate (optimizer.learning_rate, "
                    f"optimizer.groups.{group}), and at the weight of its terms in the loss"
                )
        return ""
