"""One way to look a name up in a table, and one message when it is not there."""

import re
from collections.abc import Iterable
from difflib import get_close_matches


def unknown_name(argument: str, given: object, known: Iterable[str]) -> ValueError:
    """The exception for a name that is in no table, with the nearest known one.

    Parameters
    ----------
    argument : str
        The argument that was given.
    given : object
        What was given for it.
    known : iterable of str
        The names that would have been accepted.

    Returns
    -------
    ValueError
        To be raised by the caller.
    """
    names = list(known)
    return ValueError(f"{argument}={given!r} is not known; expected one of {', '.join(names)}{hint(str(given), names)}")


def hint(given: str, names: list[str]) -> str:
    """The nearest known name, if one is near."""
    near = get_close_matches(given, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def check_name(argument: str, given: object, known: Iterable[str]) -> None:
    """Refuse what is no name in a table.

    Raises
    ------
    TypeError
        If it is no string: a function such as ``np.tanh``, for instance. The message has the name nearest to its own.
    ValueError
        If the name is not known.
    """
    if not isinstance(given, str):
        names = list(known)
        own = getattr(given, "__name__", type(given).__name__)  # np.tanh, a class, or an object such as torch's ReLU()
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", own).lower()
        expected = f"expected a name, one of {', '.join(names)}{hint(words, names)}"
        raise TypeError(f"{argument}={given!r} is a {type(given).__name__}; {expected}")
    if given not in known:
        raise unknown_name(argument, given, known)
