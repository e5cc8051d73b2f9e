"""A notebook made of `fastmlp.lab`, and executed: ``python -m fastmlp.lab_notebook FILE`` (``make notebook``).

The module is cut at its top level. Its docstring and the headings in its comments become text; a part's docstring
becomes text above the part's code, and a cell that calls the part follows. Everything else is code as it stands. It
needs the extra ``notebook``.
"""

import argparse
import ast
import inspect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fastmlp import lab
from fastmlp.atomic import write_atomically

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: The first cell of code: how a figure is shown, and whether the long parts are made short.
SETUP = """\
%matplotlib inline
%config InlineBackend.print_figure_kwargs = {{"bbox_inches": None}}
from IPython.display import display

from fastmlp.lab_run import code_of

quick = {quick}  # True: the long parts are made short, to see that they work


def show(figure, name):
    display(figure)"""

HEADING = re.compile(r"^# ---- (.*) ----\n", flags=re.MULTILINE)

#: What the last lines of the module are for the command line, and no part of the notebook.
LEFT_OUT = ("Part", "PARTS", "CODE")


def cells(source: str, parts: dict[str, str], quick: bool) -> Iterator[tuple[str, str]]:
    """The notebook's cells in order, as pairs of "markdown" or "code" and their text.

    Parameters
    ----------
    source : str
        Of the module.
    parts : dict
        name of a function -> name of the part that it is.
    quick : bool
    """
    tree = ast.parse(source)
    title, _, text = (ast.get_docstring(tree) or "").partition("\n")
    yield "markdown", f"# {title}\n{text}"
    yield "code", SETUP.format(quick=quick)
    lines = source.splitlines(keepends=True)
    end = tree.body[0].end_lineno or 0
    imports = ""
    for node in tree.body[1:]:
        start, end = end, node.end_lineno or 0
        code = "".join(lines[start:end])
        if heading := HEADING.search(code):
            if imports:
                yield "code", imports.strip()
            imports = ""
            yield "markdown", f"# {heading[1]}"
            code = HEADING.sub("", code)
        elif imports or node is tree.body[1]:  # all that stands before the first heading
            imports += code
            continue
        if isinstance(node, ast.FunctionDef) and node.name in parts:
            yield from part_cells(node, code, parts[node.name])
        elif not any(name in LEFT_OUT for name in assigned(node)):
            yield "code", code.strip()


def assigned(node: ast.stmt) -> list[str]:
    """The names that a statement assigns to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def part_cells(node: ast.FunctionDef, code: str, part: str) -> Iterator[tuple[str, str]]:
    """The cells of one part: its docstring, its code without that, and its call."""
    title, _, text = inspect.cleandoc(ast.get_docstring(node) or "").partition("\n")
    yield "markdown", f"## {title.rstrip('.')}\n{text}\n\nOn the command line: `fastmlp lab {part}`"
    docstring = ast.get_source_segment("\n" * (node.lineno - 1) + code.strip(), node.body[0])
    assert docstring is not None
    yield "code", re.sub(r"\n *" + re.escape(docstring), "", code.strip())
    for name in lab.CODE.get(part, []):
        if not name.startswith(f"{lab.__name__}:"):  # what is in the lab itself has its own cell
            yield "code", f'print(code_of("{name}"))'
    yield "code", f"{node.name}(show, quick);"


def notebook(quick: bool = False) -> "NotebookNode":
    """The notebook, not yet executed; the same one every time."""
    from nbformat import v4

    source = inspect.getsource(lab)
    parts = {part.__name__: name for name, part in lab.PARTS.items()}
    new = {"markdown": v4.new_markdown_cell, "code": v4.new_code_cell}
    all_cells = [
        new[kind](text, id=f"cell-{number}") for number, (kind, text) in enumerate(cells(source, parts, quick), start=1)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return v4.new_notebook(cells=all_cells, metadata={"kernelspec": kernel})


def execute(given: "NotebookNode") -> None:
    """Run all cells, in the current folder; their outputs are then in them.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails; its traceback is in the message.
    """
    from nbclient import NotebookClient

    NotebookClient(given, timeout=None, record_timing=False, resources={"metadata": {"path": os.getcwd()}}).execute()


def write(given: "NotebookNode", path: Path) -> None:
    """Write it, whole or not at all."""
    import nbformat

    write_atomically(path, f"{nbformat.writes(given)}\n".encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the notebook; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.lab_notebook", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path, nargs="?", default=Path("lab.ipynb"), help="[default: %(default)s]")
    parser.add_argument("--quick", action="store_true", help="make the long parts short")
    given = parser.parse_args(arguments)
    if not given.file.absolute().parent.is_dir():
        parser.error(f"there is no folder {given.file.absolute().parent}")
    try:
        made = notebook(given.quick)
        execute(made)
    except ModuleNotFoundError as error:
        parser.error(f"{error}; pip install '.[notebook]' brings what notebooks need")
    write(made, given.file)
    print(f"notebook  {given.file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
