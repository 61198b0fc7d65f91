"""Checks of arguments and the wording of their errors, in one place.

Every message names the argument, the value received and the remedy. This
module imports neither torch nor numpy, so that light commands stay light.

Authors
 * The iusp_plugin authors 2026
"""

import difflib
from collections.abc import Iterable, Mapping

# Where the time axis of a feature is: (batch, time, ...), or
# (batch, channel, time[, freq]).
LAYOUTS = ("time_first", "channel_first")


def near_names(name: str, known: Iterable[str]) -> str:
    """Words "Did you mean ...?" and "Known: ..." for an unknown name.

    Arguments
    ---------
    name : str
        The unknown name.
    known : iterable of str
        The names that exist.

    Returns
    -------
    str
        One or two sentences.

    Example
    -------
    >>> near_names("blok4", ["block3", "block4", "head"])
    "Did you mean 'block4' or 'block3'? Known: block3, block4, head."
    """
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=2)
    text = f"Known: {', '.join(known) or '(none)'}."
    if close:
        guess = " or ".join(repr(c) for c in close)
        text = f"Did you mean {guess}? {text}"
    return text


def check_choice(argument: str, value: object, choices: Iterable[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``.

    Arguments
    ---------
    argument : str
        Name of the argument, for the message.
    value : object
        Value received.
    choices : iterable of str
        Allowed values.

    Raises
    ------
    ValueError
        If the value is not among the choices.

    Example
    -------
    >>> check_choice("ties", "stabel", ["official", "stable"])
    Traceback (most recent call last):
    ...
    ValueError: ties='stabel' is unknown. Did you mean 'stable'? Known: official, stable.
    """
    choices = list(choices)
    if value not in choices:
        raise ValueError(
            f"{argument}={value!r} is unknown. {near_names(str(value), choices)}"
        )


def check_range(
    argument: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    *,
    low_open: bool = False,
) -> None:
    """Raise ValueError unless ``low <= value <= high`` (``<`` if low_open).

    Arguments
    ---------
    argument : str
        Name of the argument, for the message.
    value : float
        Value received.
    low, high : float, optional
        Bounds; None is unbounded.
    low_open : bool
        Exclude ``low`` itself.

    Raises
    ------
    ValueError
        If the value is outside, or not a number.

    Example
    -------
    >>> check_range("temperature", 0.0, low=0.0, low_open=True)
    Traceback (most recent call last):
    ...
    ValueError: temperature=0.0 must be > 0.0.
    """
    rules = []
    if low is not None:
        rules.append(f"{'>' if low_open else '>='} {low}")
    if high is not None:
        rules.append(f"<= {high}")
    ok = value == value
    if low is not None:
        ok = ok and (value > low if low_open else value >= low)
    if high is not None:
        ok = ok and value <= high
    if not ok:
        raise ValueError(f"{argument}={value!r} must be {' and '.join(rules)}.")


def first_five(names: Iterable[str]) -> str:
    """Up to five names and the number of the others, for messages.

    Arguments
    ---------
    names : iterable of str
        Names to list.

    Returns
    -------
    str
        Comma separated.

    Example
    -------
    >>> first_five("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def differences(
    known: Mapping[str, object], now: Mapping[str, object]
) -> list[str]:
    """Lines that say what differs between two sets of facts.

    Arguments
    ---------
    known, now : mapping
        Facts by name, earlier and now.

    Returns
    -------
    list of str
        One a differing fact, sorted by name; empty if there is none.

    Example
    -------
    >>> differences({"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1})
    ['  lr: 0.1 there, 0.2 now']
    """
    return [
        f"  {key}: {known.get(key, '(absent)')!r} there, "
        f"{now.get(key, '(absent)')!r} now"
        for key in sorted(known.keys() | now.keys())
        if key not in known or key not in now or known[key] != now[key]
    ]
