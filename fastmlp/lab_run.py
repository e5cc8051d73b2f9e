"""Parts of the lab, run from the command line: their pictures go to a folder."""

import ast
import inspect
import pkgutil
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp.data import DataDamaged, DataNotFound
from fastmlp.extras import ExtraMissing
from fastmlp.kernels.names import unknown_name
from fastmlp.lab import CODE, PARTS
from fastmlp.plots import save_figure
from fastmlp.training_run import try_to_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ALL = "all"

#: The packages of the extra torch. The parts import them as anybody would, and so without a word about the extra.
TORCH = ("torch", "torchvision")

#: What is raised where a part lacks what the user can mend: a data set, or a package.
LACKS = (DataNotFound, DataDamaged, ImportError)


def titles() -> dict[str, str]:
    """The parts in order, name -> title."""
    return {name: (part.__doc__ or "").split("\n")[0].rstrip(".") for name, part in PARTS.items()}


def explanation(name: str) -> str:
    """What a part's docstring says below its title."""
    return inspect.cleandoc(PARTS[name].__doc__ or "").partition("\n")[2].strip()


def code_of(name: str) -> str:
    """The source of a function, given as "module:name", without its docstring.

    Raises
    ------
    ImportError
        If its module, or what that needs, is not installed.
    """
    source = textwrap.dedent(inspect.getsource(pkgutil.resolve_name(name)))
    lines, (function,) = source.splitlines(), ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    if ast.get_docstring(function) is not None:
        del lines[function.body[0].lineno - 1 : function.body[0].end_lineno]
    return "\n".join(lines)


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
    try_to_write(folder)
    folder.mkdir(parents=True, exist_ok=True)


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
        Told each part's title, its explanation and the code that matters before it, and the pictures and the seconds
        after it.

    Returns
    -------
    list of str
        A line for each thing that parts lacked, data or a package, with their names; the others have run.
    """
    names = titles()
    lacking: dict[str, list[str]] = {}
    for name in parts:
        pictures: list[Path] = []

        def show(figure: "Figure", picture: str, saved: list[Path] = pictures) -> None:
            saved.append(folder / f"{picture}.png")
            save_figure(figure, saved[-1])

        say(f"\n== {name}: {names[name]}\n")
        if text := explanation(name):
            say(f"{text}\n")
        start = time.perf_counter()
        try:
            if code := "\n\n".join(map(code_of, CODE.get(name, []))):
                say(f"The code that matters:\n\n{textwrap.indent(code, '    ')}\n")
            PARTS[name](show, quick)
        except LACKS as error:
            why, short = what_is_lacking(error)
            others = lacking.setdefault(why, [])
            say(f"not run, for the same reason as {others[0]}" if others else f"not run: {short}")
            others.append(name)
            continue
        say("")
        for path in pictures:
            say(f"picture  {path}")
        say(f"{name} took {time.perf_counter() - start:.1f} s")
    return [f"{', '.join(names)}: {why}" for why, names in lacking.items()]


def what_is_lacking(error: Exception) -> tuple[str, str]:
    """What a part lacks and how to get it; and the same in short, where the rest is told at the end."""
    missing = error.name if isinstance(error, (ModuleNotFoundError, ExtraMissing)) else None
    if missing in TORCH:
        return f"{missing} is not installed: pip install 'fastmlp[torch]'", f"it needs {missing}"
    return str(error), str(error)
