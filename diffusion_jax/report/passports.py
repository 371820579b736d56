"""Whether figures may stand in one table: what their passports say differently."""

from collections.abc import Collection, Mapping
from typing import Any

NOT_SAID = "not said"


def differences(entries: Mapping[str, Mapping[str, Any]], but: Collection[str] = ()) -> list[str]:
    """What figures that are to be compared do not have in common, a sentence for each field.

    Such as `steps differs: 25 in a, b; 50 in c`. The entries are `{"name": {"n", "passport", ...}}`
    as in `result.json`, by what the table calls them, such as the runs that are its rows. `n`
    counts as a field of the passport; so does one that only some of them have. Fields of `but` are
    meant to differ, such as the `config` in a table of configs.
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
