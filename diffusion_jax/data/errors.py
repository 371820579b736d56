"""The one error that bad data settings and bad data end in."""


class DataError(ValueError):
    """One sentence: which setting (`data.*`), its value, and what is allowed."""
