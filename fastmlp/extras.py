"""Packages that are not part of the core install: imported when first needed, with a clear word where they lack."""

import importlib
from types import ModuleType

__all__ = ["ExtraMissing", "load"]


class ExtraMissing(ImportError):
    """A package of an extra is not installed; the message says how to install it."""


def load(package: str, extra: str) -> ModuleType:
    """Import a package that an extra of this one brings.

    Parameters
    ----------
    package : str
        As it is imported, submodules included: "torch", "torchvision.datasets".
    extra : str
        The extra that installs it.

    Raises
    ------
    ExtraMissing
        If it is not installed. An error within an installed one propagates as it is.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        top = package.partition(".")[0]
        if error.name != top:
            raise
        raise ExtraMissing(
            f"{top} is not installed, and this needs it: pip install 'fastmlp[{extra}]'", name=top
        ) from None
