"""One way to look a name up in a table, and one message when it is not there."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

#: What others call it -> its name here.
SYNONYMS = {
    "gpu": "cuda",
    "nvidia": "cuda",
    "logistic": "sigmoid",
    "linear": "identity",
    "mse": "mean_squared_error",
    "bce": "binary_cross_entropy",
    "ce": "cross_entropy",
    "single": "float32",
    "double": "float64",
}


def suggestion(given: object, known: Iterable[str]) -> str:
    """The known name nearest to what was given, as the end of a message: ``"; did you mean 'relu'?"``, or empty.

    Parameters
    ----------
    given : object
        What was given; upper case and hyphens don't matter.
    known : iterable of str
        The names that would have been accepted.
    """
    names = list(known)
    text = str(given).lower().replace("-", "_")
    spelled = {name.lower().replace("-", "_"): name for name in names}
    near = [SYNONYMS[text]] if SYNONYMS.get(text) in names else get_close_matches(text, spelled, n=1)
    return f"; did you mean {spelled.get(near[0], near[0])!r}?" if near else ""


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
    expected = ", ".join(names)
    return ValueError(f"{argument}={given!r} is not known; expected one of {expected}{suggestion(given, names)}")


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
        expected = f"expected a name, one of {', '.join(names)}{suggestion(words, names)}"
        raise TypeError(f"{argument}={given!r} is a {type(given).__name__}; {expected}")
    if given not in known:
        raise unknown_name(argument, given, known)
