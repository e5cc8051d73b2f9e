"""One way to look a name up in a table, and one message when it is not there."""

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
    near = get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return ValueError(f"{argument}={given!r} is not known; expected one of {', '.join(names)}{hint}")
