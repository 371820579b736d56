"""Import this first in a new process: TensorFlow then appears not to be installed."""

import importlib.machinery

_find = importlib.machinery.PathFinder.find_spec


def _hidden(name, *rest):
    return None if name.split(".")[0] == "tensorflow" else _find(name, *rest)


importlib.machinery.PathFinder.find_spec = _hidden
