"""Import this first in a process of its own: TensorFlow is then as if it were not installed."""

import importlib.machinery

_find = importlib.machinery.PathFinder.find_spec


def _hidden(name, *rest):
    return None if name.split(".")[0] == "tensorflow" else _find(name, *rest)


importlib.machinery.PathFinder.find_spec = _hidden
