"""Functions that are compiled as pieces of one: how they are spared most of what Numba does for each.

Numba takes every compiled function for one that Python may call: it optimises it, with copies of all that it calls, and
makes machine code of it. Here many small functions, six calls deep, end in the one that Python does call, which would
then be optimised six times over. A piece is only ever linked into its callers, so nothing is optimised or translated
but the whole: half the time of a first run. And a piece has no other callers than those that LLVM sees, which may then
leave out arguments that nobody reads, and checks of what is always so: of the seven words by which Numba hands an array
over, one or two stay. Nor does it count references: no piece allocates, keeps or returns an array. With both a step of
the smallest networks at batch 1 takes 0.58 to 0.68 of the time (bench/NOTES.md).

This reaches into Numba's code generator. Where that is built otherwise than known, all works as ever, and takes longer.
"""

import threading

from llvmlite.binding import Linkage
from numba import njit
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.ir import Loc

from fastmlp.kernels import no_compiler

if (reason := no_compiler()) is not None:
    raise ImportError(f"the CPU's kernels do not work here: {reason}")


class _Pieces(threading.local):
    """The pieces that this thread is compiling, each called by the one before."""

    def __init__(self) -> None:
        self.names: list[str] = []


_pieces = _Pieces()

#: How the names of all pieces begin once Numba has written them for the linker.
_PIECES = "_ZN" + "".join(f"{len(part)}{part}" for part in __name__.split(".")[:-1])


def compiled(function):
    """A piece of the one compiled function of `fastmlp.kernels.cpu.drivers`; Python can't call it."""
    piece = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)
    dispatcher = piece(function)
    whole = dispatcher.compile

    def compile_piece(signature):
        _pieces.names.append(function.__qualname__)
        try:
            return whole(signature)
        finally:
            _pieces.names.pop()

    dispatcher.compile = compile_piece
    return dispatcher


def _is_piece(library: CPUCodeLibrary) -> bool:
    return bool(_pieces.names) and library.name == _pieces.names[-1]


def _close_pieces(library: CPUCodeLibrary) -> None:
    """Tell LLVM that the pieces linked into a function are called from there alone."""
    module = getattr(library, "_final_module", None)
    for piece in module.functions if module else ():
        if piece.name.startswith(_PIECES) and piece.linkage == Linkage.linkonce_odr:
            piece.linkage = Linkage.internal


def _spare_pieces() -> None:
    """Have Numba's libraries of code leave pieces as they are until they are linked."""
    names = ("_optimize_final_module", "_finalize_final_module", "_finalize_dynamic_globals")
    if not all(hasattr(CPUCodeLibrary, name) for name in names) or not hasattr(JITCPUCodegen, "set_env"):
        return
    optimise, finish = CPUCodeLibrary._optimize_final_module, CPUCodeLibrary._finalize_final_module
    set_environment = JITCPUCodegen.set_env

    def optimise_whole(self) -> None:
        if not _is_piece(self):
            _close_pieces(self)
            optimise(self)

    def finish_whole(self) -> None:
        if not _is_piece(self):
            finish(self)
            return
        self._finalize_dynamic_globals()
        self._finalized = True

    def set_environment_of_whole(self, name, environment) -> None:
        if self._engine.is_symbol_defined(name):  # of a piece there is nothing that could be set
            set_environment(self, name, environment)

    CPUCodeLibrary._optimize_final_module = optimise_whole
    CPUCodeLibrary._finalize_final_module = finish_whole
    JITCPUCodegen.set_env = set_environment_of_whole


def _spare_current_folder() -> None:
    """Have Numba, which names lines of code as seen from the current folder, compile where that has been removed."""
    relative = getattr(Loc, "_get_path", None)
    if relative is None:
        return

    def path(self) -> str:
        try:
            return relative(self)
        except FileNotFoundError:
            return self.filename

    Loc._get_path = path


_spare_pieces()
_spare_current_folder()
