"""Whether metrics can be compared in one table: differences between their passports."""

from collections.abc import Collection, Mapping
from typing import Any

NOT_SAID = "not said"


def differences(entries: Mapping[str, Mapping[str, Any]], but: Collection[str] = ()) -> list[str]:
    """A sentence for each field in which the passports of metrics to be compared differ.

    Such as `steps differs: 25 in a, b; 50 in c`. The entries are `{"name": {"n", "passport", ...}}`
    as in `result.json`, by their names in the table, such as the runs that are its rows. `n` counts
    as a field of the passport; a field that only some entries have counts as different. Fields of
    `but` are meant to differ, such as the `config` in a table of configs.
    """
    passports = {name: {"n": e.get("n"), **e["passport"]} for name, e in entries.items()}
    fields = dict.fromkeys(field for passport in passports.values() for field in passport)
    sentences = []
    for field in fields:
        names: dict[str, list[str]] = {}
        for name, passport in passports.items():
            words = str(passport[field]) if field in passport else NOT_SAID
            names.setdefault(words, []).append(name)
        if len(names) > 1 and field not in but:
            each = (f"{words} in {', '.join(those)}" for words, those in names.items())
            sentences.append(f"{field} differs: {'; '.join(each)}")
    return sentences
