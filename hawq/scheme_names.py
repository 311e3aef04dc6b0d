"""Read the names of schemes in every spelling that HAWQ uses, and write them in ours: the one place that knows them."""

import re

from hawq.errors import UsageError

__all__ = ["canonical_name", "names_budgets"]

_SPELLINGS = {"modelsize": "size"}
"""Words of HAWQ's code -> the word of its documentation, which is ours."""

_NUMBER = r"\d+(?:\.\d*)?|\.\d+"
_PART = re.compile(rf"(?P<word>uniform|bops|latency|modelsize|size)_?(?P<number>{_NUMBER})", re.IGNORECASE)
_ABSOLUTE = re.compile(r"(?P<word>[A-Za-z]+)=(?P<limit>.*)")
_KEY = re.compile(rf"bit_config_(?P<arch>.+)_(?P<scheme>[A-Za-z]+_?(?:{_NUMBER}))")


def canonical_name(text: str, arch: str | None = None) -> str:
    """Return the name of a scheme or budget in our spelling.

    `bops_0.50` -> `bops0.5`, `modelsize_0.5` -> `size0.5`, `bit_config_resnet18_uniform8` -> `uniform8`; several
    budgets are joined by `+`. Any other text is a name of the user's own and comes back as it is.

    Args:
        text: the name as given.
        arch: the network it is meant for; None where any will do.

    Raises:
        UsageError: the text is a key of HAWQ's `bit_config.py` for another network.
    """
    text = text.strip()
    if match := _KEY.fullmatch(text):
        if arch is not None and match["arch"] != arch:
            raise UsageError(
                f"{text!r} is a scheme of {match['arch']}, the network is {arch}; "
                f"give -a {match['arch']} or the scheme alone, {canonical_name(match['scheme'])}"
            )
        text = match["scheme"]
    return "+".join(_part(part) for part in text.split("+"))


def names_budgets(scheme: str) -> bool:
    """Tell whether a canonical name is made of budgets, so that a search for them writes the scheme of this name."""
    parts = [_PART.fullmatch(part) or _ABSOLUTE.fullmatch(part) for part in scheme.split("+")]
    return all(part is not None and part["word"].lower() != "uniform" for part in parts)


def _part(text: str) -> str:
    if match := _PART.fullmatch(text):
        return f"{_word(match['word'])}{float(match['number']):g}"
    if match := _ABSOLUTE.fullmatch(text):
        return f"{_word(match['word'])}={match['limit']}"
    return text


def _word(text: str) -> str:
    return _SPELLINGS.get(text.lower(), text.lower())
