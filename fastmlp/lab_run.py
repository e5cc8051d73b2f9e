"""Parts of the lab, run from the command line: their pictures go to a folder."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp.data import DataDamaged, DataNotFound
from fastmlp.kernels.names import unknown_name
from fastmlp.lab import PARTS
from fastmlp.plots import save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"

TORCH = ("torch", "torchvision")

#: What is raised where a part lacks what the user can mend: a data set, or a package.
LACKS = (DataNotFound, DataDamaged, ImportError)


def titles() -> dict[str, str]:
    """The parts in order, name -> title."""
    return {name: (part.__doc__ or "").split("\n")[0].rstrip(".") for name, part in PARTS.items()}


def chosen(part: str) -> list[str]:
    """The part of that name, or all of them.

    Raises
    ------
    ValueError
        If there is none.
    """
    if part == ALL:
        return list(PARTS)
    if part not in PARTS:
        raise unknown_name("part", part, [*PARTS, ALL])
    return [part]


def make_folder(folder: Path) -> None:
    """Make the folder, before any time is spent on what is to go there.

    Raises
    ------
    OSError
        If it can't be made, or not written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"out={str(folder)!r} can't be written to")


def run(parts: Sequence[str], folder: Path, quick: bool, say: Callable[[str], None]) -> list[str]:
    """Run parts one after another.

    Parameters
    ----------
    parts : sequence of str
    folder : Path
        Where the pictures go; it exists.
    quick : bool
        As in `fastmlp.lab`.
    say : function
        Told each part's title before it, and the pictures and the seconds after it.

    Returns
    -------
    list of str
        A line for each part that lacked data or a package; the others have run.
    """
    names = titles()
    lacking = []
    for name in parts:
        pictures: list[Path] = []

        def show(figure: "Figure", picture: str, saved: list[Path] = pictures) -> None:
            saved.append(folder / f"{picture}.png")
            save_figure(figure, saved[-1])

        say(f"\n== {name}: {names[name]}\n")
        start = time.perf_counter()
        try:
            PARTS[name](show, quick)
        except LACKS as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            # The parts import PyTorch as anybody would, and so without a word about the extra.
            why = f"{missing} is not installed: pip install 'fastmlp[torch]'" if missing in TORCH else str(error)
            lacking.append(f"{name}: {why}")
            say(f"not run: {why}")
            continue
        say("")
        for path in pictures:
            say(f"picture  {path}")
        say(f"{name} took {time.perf_counter() - start:.1f} s")
    return lacking
