"""The compile check: every CUDA kernel that the dispatcher can choose, compiled without GPU, driver or toolkit.

``python -m fastmlp.bench.cuda_compile`` compiles all for sm_80, sm_90 and sm_100 as Numba does for a launch, through
NVVM and nvJitLink (which holds ptxas; both are wheels that numba-cuda[cu13] brings), prints a table of registers,
shared memory and instructions, and keeps it with ``--out``. It refuses (exit code 1) what would be slow or could not be
launched, see `faults`. Where a wheel is missing it says which and ends with exit code 2.
"""

import argparse
import hashlib
import importlib
import importlib.util
import inspect
import json
import linecache
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from fastmlp.atomic import write_atomically
from fastmlp.bench import machine, results
from fastmlp.kernels.cuda.variants import Variant

Rows = dict[tuple[str, str], dict[str, Any]]

__all__ = ["CAPABILITIES", "Compiled", "all_variants", "check", "compile_kernel", "faults", "main", "missing", "table"]

#: The modules of `fastmlp.kernels.cuda` that have a path's ``variants()``.
PATHS = ("resident", "large", "inference")


@dataclass(frozen=True)
class Limits:
    """What a device of a compute capability offers (CUDA C++ Programming Guide, technical specifications).

    Parameters
    ----------
    shared : int
        Bytes of shared memory that a block can have.
    shared_in_all : int
        Bytes of shared memory of a multiprocessor.
    registers : int, default 65,536
        Of a multiprocessor, and of a block.
    threads : int, default 2,048
        On a multiprocessor.
    """

    shared: int
    shared_in_all: int
    registers: int = 65_536
    threads: int = 2048


#: compute capability -> what there is
CAPABILITIES = {
    (8, 0): Limits(163 * 1024, 164 * 1024),
    (9, 0): Limits(227 * 1024, 228 * 1024),
    (10, 0): Limits(227 * 1024, 228 * 1024),
}
LONGEST_BLOCK = 1024  #: threads
MOST_REGISTERS = 255  #: of a thread
WARP = 32
REGISTER_UNIT = 8  #: registers of a thread are given out in such steps …
WARP_UNIT = 4  #: … to so many warps at once
RESERVED = 1024  #: bytes of shared memory that the system takes for each block

#: What a kernel of float32 whose samples are float64 may do with them: load and convert.
CONVERSION = ("ld", "mov", "cvt")
#: Groups of the instruction mix: name -> how the SASS opcode begins; the first that fits counts.
GROUPS = {
    "mma": ("HMMA", "DMMA", "IMMA", "HGMMA", "DGMMA", "UTC"),
    "float32": ("FFMA", "FMUL", "FADD", "FMNMX", "FSETP", "FSEL", "FCHK", "FSET", "FSWZADD"),
    "float64": ("DFMA", "DMUL", "DADD", "DSETP", "DMNMX", "DSET"),
    "special": ("MUFU",),
    "copy": ("LDGSTS", "UBLKCP", "UTMA"),
    "global": ("LDG", "STG", "LD.", "ST.", "LDGDEPBAR"),
    "shared": ("LDS", "STS", "LDSM", "STAS"),
    "local": ("LDL", "STL"),
    "atomic": ("ATOM", "RED", "ATOMS", "ATOMG", "REDG", "REDUX"),
    "barrier": ("BAR", "MEMBAR", "UCGABAR", "ERRBAR", "DEPBAR", "SYNCS", "WARPSYNC"),
    "shuffle": ("SHFL", "VOTE", "MATCH"),
    "branch": ("BRA", "BSSY", "BSYNC", "CALL", "RET", "EXIT", "JMP", "BREAK"),
}


@dataclass
class Compiled:
    """What the compiler made of a kernel for one compute capability.

    Parameters
    ----------
    registers : int
        Of a thread.
    stack, spill_stores, spill_loads : int
        Bytes of a thread; local arrays count as stack.
    static_shared : int
        Bytes of a block.
    ptx : dict
        Opcode, with its types -> how often it stands in the PTX that ptxas got.
    sass : dict or None
        Machine opcode -> how often; None where there is no nvdisasm.
    float64_arrays : bool
        Whether it takes such.
    """

    registers: int
    stack: int
    spill_stores: int
    spill_loads: int
    static_shared: int
    ptx: dict[str, int] = field(default_factory=dict)
    sass: dict[str, int] | None = None
    float64_arrays: bool = False


def missing() -> str | None:
    """Why nothing can be compiled here, and what to do; None where it can."""
    how = "pip install 'fastmlp[cuda]'"
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        return "NUMBA_ENABLE_CUDASIM is set: the simulator compiles nothing"
    try:
        if not importlib.util.find_spec("numba_cuda"):
            return f"numba-cuda is not installed; {how}"
        from cuda.bindings import nvjitlink
        from cuda.pathfinder import load_nvidia_dynamic_lib

        importlib.import_module("fastmlp.kernels.cuda.toolkit")
    except Exception as error:  # a broken installation fails in many ways; each is a reason
        return f"numba-cuda or its own packages can't be imported ({type(error).__name__}: {error}); {how}"
    for library, package in (("nvvm", "nvidia-nvvm"), ("nvJitLink", "nvidia-nvjitlink")):
        try:
            load_nvidia_dynamic_lib(library)
        except RuntimeError:  # what pathfinder raises is one
            return f"{package} is not installed; {how}"
    if nvjitlink.version() < (13, 0):
        return f"nvidia-nvjitlink is older than 13, which is the first to know sm_100 as it is; {how}"
    return None


@cache
def all_variants() -> dict[str, Variant]:
    """The kernels of all paths by name.

    Raises
    ------
    ValueError
        If two have the same name.
    """
    found: dict[str, Variant] = {}
    for path in PATHS:
        for variant in importlib.import_module(f"fastmlp.kernels.cuda.{path}").variants():
            if variant.name in found:
                raise ValueError(f"two kernels are named {variant.name!r}; expected each name once")
            found[variant.name] = variant
    return found


# --------------------------------------------------------------------------------------------------------- compiling
def compile_kernel(kernel: Any, signature: tuple, capability: tuple[int, int], bounds: tuple[int, int]) -> Compiled:
    """Compile a kernel as Numba does for a launch on a device of that compute capability.

    Parameters
    ----------
    kernel : callable
        A dispatcher of `numba.cuda.jit`, whose options count, or a Python function.
    signature : tuple of Numba types
    capability : tuple of int
    bounds : tuple of int
        Threads of a block and blocks on a multiprocessor, for a kernel whose options have no launch bounds.
    """
    from fastmlp.kernels.cuda.toolkit import compiling_for, cuda

    options = getattr(kernel, "targetoptions", {})
    with compiling_for(capability):
        code, _ = cuda.compile(
            function_of(kernel),
            signature,
            cc=capability,
            device=False,
            abi="numba",
            output="ltoir",
            fastmath=options.get("fastmath", False),
            opt=options.get("opt", True),
            launch_bounds=options.get("launch_bounds") or bounds,
        )
    limit = options.get("max_registers")
    cubin, log = link(code, capability, limit)
    text, _ = link(code, capability, limit, ptx=True)
    doubles = any("float64" in str(given) for given in signature)
    return Compiled(**resources(log), ptx=opcodes(text.decode()), sass=machine_opcodes(cubin), float64_arrays=doubles)


def link(code: bytes, capability: tuple[int, int], max_registers: int | None, ptx: bool = False) -> tuple[bytes, str]:
    """Machine code, or the PTX that it is made from, and the linker's log."""
    from cuda.bindings import nvjitlink

    options = [f"-arch=sm_{capability[0]}{capability[1]}", "-lto", "-O3", "-verbose"]
    if max_registers:
        options.append(f"-maxrregcount={max_registers}")
    if ptx:
        options.append("-ptx")
    handle = nvjitlink.create(len(options), options)
    try:
        try:
            nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
            nvjitlink.complete(handle)
        except nvjitlink.nvJitLinkError as error:
            raise RuntimeError(f"nvJitLink: {error}: {said(nvjitlink, handle, 'error')}") from None
        kind = "ptx" if ptx else "cubin"
        linked = bytearray(getattr(nvjitlink, f"get_linked_{kind}_size")(handle))
        getattr(nvjitlink, f"get_linked_{kind}")(handle, linked)
        return bytes(linked).rstrip(b"\0") if ptx else bytes(linked), said(nvjitlink, handle, "info")
    finally:
        nvjitlink.destroy(handle)


def said(nvjitlink: Any, handle: Any, kind: str) -> str:
    """The linker's "info" or "error" log."""
    log = bytearray(getattr(nvjitlink, f"get_{kind}_log_size")(handle))
    getattr(nvjitlink, f"get_{kind}_log")(handle, log)
    return log.decode(errors="replace").rstrip("\0").strip()


def resources(log: str) -> dict[str, int]:
    """Registers, stack, spills and static shared memory as ptxas tells them.

    Where functions were not inlined the largest figure of all counts.

    Raises
    ------
    ValueError
        If the log does not tell them.
    """
    frames = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    used = re.findall(r"Used (\d+) registers([^\n]*)", log)
    if not frames or not used:
        raise ValueError(f"the linker's log tells no registers: {log!r}")
    shared = [int(found[1]) for _, rest in used if (found := re.search(r"(\d+) bytes smem", rest))]
    stack, stores, loads = (max(map(int, column)) for column in zip(*frames, strict=True))
    return {
        "registers": max(int(count) for count, _ in used),
        "stack": stack,
        "spill_stores": stores,
        "spill_loads": loads,
        "static_shared": max(shared, default=0),
    }


def opcodes(ptx: str) -> dict[str, int]:
    """The instructions of PTX with their types, comments and directives left out: {"fma.rn.f32": 512, …}."""
    text = re.sub(r"//[^\n]*|/\*.*?\*/", "", ptx, flags=re.S)
    found = re.findall(r"(?:^|[;{}:])\s*(?:@!?%?\w+\s+)?([a-z][a-z0-9_]*(?:\.[\w:]+)*)\s*(?=[^:]*?;)", text, flags=re.M)
    return dict(Counter(found).most_common())


def nvdisasm() -> str | None:
    """NVIDIA's disassembler: on the path, in a toolkit, or in Triton's wheel, which PyTorch brings."""
    spec = importlib.util.find_spec("triton")
    beside = (
        [str(Path(place) / "backends/nvidia/bin") for place in (spec.submodule_search_locations or [])] if spec else []
    )
    return shutil.which("nvdisasm", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/cuda/bin", *beside]))


def machine_opcodes(cubin: bytes) -> dict[str, int] | None:
    """The machine instructions of a kernel; None where there is no disassembler, or it does not know the machine."""
    tool = nvdisasm()
    if tool is None:
        return None
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], capture_output=True, text=True)
    if done.returncode:
        return None
    found = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_]*(?:\.[A-Z0-9_.]+)?)", done.stdout)
    return dict(Counter(found).most_common())


# ---------------------------------------------------------------------------------------------------------- judging
def faults(compiled: Compiled, variant: Variant, capability: tuple[int, int]) -> list[str]:
    """What is wrong with a compiled kernel: each in a few words; empty where nothing is.

    Refused are: a stack, spills, local memory; float64 in a kernel of float32; more registers, threads or
    shared memory than the launch can have.
    """
    limits = CAPABILITIES[capability]
    found = []
    if compiled.stack:
        found.append(f"a stack of {compiled.stack} bytes")
    if compiled.spill_stores or compiled.spill_loads:
        found.append(f"spills {compiled.spill_stores} and {compiled.spill_loads} bytes")
    if grouped(compiled.sass or {}).get("local"):
        found.append("uses local memory")
    if variant.dtype == "float32":
        found += float64_faults(compiled)
    if variant.threads > LONGEST_BLOCK:
        found.append(f"{variant.threads:,} threads in a block; {LONGEST_BLOCK:,} at most")
    if compiled.registers > MOST_REGISTERS:
        found.append(f"{compiled.registers} registers; {MOST_REGISTERS} at most")
    registers = variant.blocks * registers_of_block(compiled.registers, variant.threads)
    if registers > limits.registers:
        found.append(f"{registers:,} registers for {counted(variant.blocks)}; {limits.registers:,} at most")
    if variant.blocks * variant.threads > limits.threads:
        found.append(f"{variant.blocks * variant.threads:,} threads at once; {limits.threads:,} at most")
    shared = compiled.static_shared + variant.shared
    if shared > limits.shared:
        found.append(f"{shared:,} bytes of shared memory; {limits.shared:,} at most")
    if variant.blocks * (shared + RESERVED) > limits.shared_in_all:
        found.append(f"{shared:,} bytes of shared memory for each of {counted(variant.blocks)}")
    return found


def float64_faults(compiled: Compiled) -> list[str]:
    """Instructions on float64, in the PTX or the machine code; but samples of float64 may be loaded and converted."""
    allowed = CONVERSION if compiled.float64_arrays else ()
    found = {name: n for name, n in compiled.ptx.items() if is_float64(name) and name.split(".")[0] not in allowed}
    if found:
        return ["float64: " + ", ".join(f"{n} {name}" for name, n in found.items())]
    machine_code = grouped(compiled.sass or {}).get("float64")
    return [f"float64: {machine_code} machine instructions"] if machine_code else []


def is_float64(opcode: str) -> bool:
    """Whether an instruction of PTX has to do with float64."""
    return "f64" in opcode.split(".")


def registers_of_block(registers: int, threads: int) -> int:
    """Registers that a block takes of its multiprocessor."""
    each = -(-registers // REGISTER_UNIT) * REGISTER_UNIT
    warps = -(-threads // WARP)
    return each * WARP * -(-warps // WARP_UNIT) * WARP_UNIT


def counted(blocks: int) -> str:
    """That many blocks, in words."""
    return "1 block" if blocks == 1 else f"{blocks} blocks"


def grouped(sass: dict[str, int]) -> dict[str, int]:
    """Machine instructions by the groups of `GROUPS`; the rest, mostly of integers, as "other"."""
    mix: Counter[str] = Counter()
    for opcode, count in sass.items():
        group = next((name for name, starts in GROUPS.items() if opcode.startswith(starts)), "other")
        mix[group] += count
    return dict(mix.most_common())


# --------------------------------------------------------------------------------------------------------- the check
def fingerprint(kernel: Any) -> str:
    """A digest of a kernel's text, and of the modules of the backend that it imports."""
    text = "".join(linecache.getlines(function_of(kernel).__code__.co_filename))
    digest = hashlib.sha256(text.encode())
    for name in sorted(set(re.findall(r"from (fastmlp\.kernels\.cuda\.\w+) import", text))):
        digest.update(inspect.getsource(importlib.import_module(name)).encode())
    return digest.hexdigest()[:16]


def function_of(kernel: Any) -> Any:
    """The Python function of a dispatcher, or the function that was given."""
    return getattr(kernel, "py_func", kernel)


def check(name: str, capability: tuple[int, int], known: Rows | None = None) -> dict[str, Any]:
    """Compile one of `all_variants` and judge it: a row of the result.

    Parameters
    ----------
    name : str
    capability : tuple of int
    known : dict, optional
        Rows of an earlier run by kernel and capability; one whose text is the same is taken over, and judged anew.
    """
    variant = all_variants()[name]
    row: dict[str, Any] = {
        "kernel": name,
        "capability": f"sm_{capability[0]}{capability[1]}",
        "dtype": variant.dtype,
        "threads": variant.threads,
        "blocks": variant.blocks,
        "dynamic_shared": variant.shared,
    }
    begin = time.perf_counter()
    try:
        kernel, signature = variant.build()
        row["fingerprint"] = fingerprint(kernel)
        old = (known or {}).get((name, row["capability"]), {})
        if old.get("fingerprint") == row["fingerprint"] and "registers" in old:
            compiled = Compiled(**{part.name: old[part.name] for part in fields(Compiled)})
            row["seconds"] = old["seconds"]
        else:
            compiled = compile_kernel(kernel, signature, capability, (variant.threads, variant.blocks))
            row["seconds"] = round(time.perf_counter() - begin, 2)
    except Exception as error:  # whatever the compiler raises is a fault of this kernel
        row["faults"] = [f"does not compile: {type(error).__name__}: {str(error).strip()}"]
        return row
    row |= asdict(compiled)
    if compiled.sass is not None:
        row["mix"] = grouped(compiled.sass)
    row["faults"] = faults(compiled, variant, capability)
    return row


def check_all(
    names: Sequence[str], capabilities: Sequence[tuple[int, int]], jobs: int, known: Rows
) -> Iterator[dict[str, Any]]:
    """The rows of all, as they are done; each compute capability in processes of its own.

    A device function is compiled once in a process, for the device that it was first needed on.
    """
    variants = all_variants()
    # A forked process knows the variants already; nothing of CUDA has been started that it could not share.
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    for capability in capabilities:
        tasks = [(name, capability, known) for name in names if variants[name].is_for(capability)]
        with context.Pool(min(jobs, max(1, len(tasks)))) as pool:
            yield from pool.imap(_check, tasks)


def _check(task: tuple[str, tuple[int, int], Rows]) -> dict[str, Any]:
    return check(*task)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table in Markdown; below it what is wrong."""
    heads = ["kernel", "for", "threads", "registers", "stack", "spill", "shared", "instructions", "mix", ""]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * 6 + "---|---|"]
    wrong = []
    for row in rows:
        if row["faults"]:
            wrong.append(f"{row['kernel']} for {row['capability']}: {'; '.join(row['faults'])}")
        verdict = "**refused**" if row["faults"] else "ok"
        if "registers" not in row:
            lines.append(f"| {row['kernel']} | {row['capability']} | {row['threads']} |{'  |' * 6} {verdict} |")
            continue
        cells = [row["kernel"], row["capability"], row["threads"], row["registers"], row["stack"]]
        cells += [row["spill_stores"] + row["spill_loads"], row["static_shared"] + row["dynamic_shared"]]
        cells += [*instructions(row), verdict]
        lines.append(f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else cell for cell in cells)} |")
    return "\n".join(lines + ([""] if wrong else []) + wrong)


def instructions(row: dict[str, Any]) -> tuple[int, str]:
    """How many there are, and of which groups; of the PTX where there is no machine code to be read."""
    if row["sass"] is not None:
        mix = ", ".join(f"{name} {count}" for name, count in row["mix"].items())
        return sum(row["sass"].values()), mix
    few = list(row["ptx"].items())[:6]
    return sum(row["ptx"].values()), "PTX: " + ", ".join(f"{name} {count}" for name, count in few)


#: Packages that decide what comes out of a kernel's text.
COMPILER = ("numba", "llvmlite", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")


def earlier(path: Path | None) -> Rows:
    """The rows of a result file by kernel and capability, if it is there and comes from the same compiler."""
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    then, now = found.get("machine", {}).get("versions", {}), machine.versions()
    if any(then.get(package) != now.get(package) for package in COMPILER):
        return {}
    return {(row["kernel"], row["capability"]): row for row in found["kernels"]}


def described(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The result, as it is kept; ``left`` are the kernels that it lacks."""
    done = {(row["kernel"], row["capability"]) for row in rows}
    every = [
        (name, f"sm_{major}{minor}")
        for name, variant in all_variants().items()
        for major, minor in CAPABILITIES
        if variant.is_for((major, minor))
    ]
    return {
        "format": results.FORMAT,
        "what": "compile check",
        "left": [f"{name} for {capability}" for name, capability in every if (name, capability) not in done],
        "machine": machine.describe(),
        "kernels": rows,
    }


def chosen(given: argparse.Namespace) -> list[str]:
    """The kernels that the command line chooses.

    Raises
    ------
    ValueError
        If that is none.
    """
    names = [
        name
        for name, variant in all_variants().items()
        if (variant.quick or not given.quick) and (given.only is None or given.only in name)
    ]
    if not names:
        raise ValueError(f"--only={given.only!r} leaves no kernel; expected a part of a kernel's name")
    return names


def capabilities_of(text: str) -> list[tuple[int, int]]:
    """The compute capabilities in "80,90".

    Raises
    ------
    argparse.ArgumentTypeError
        If one is not known.
    """
    known = {f"{major}{minor}": (major, minor) for major, minor in CAPABILITIES}
    if any(part not in known for part in text.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r}; expected some of {','.join(known)}")
    return [known[part] for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a kernel is refused, 2 where nothing can be compiled."""
    parser = argparse.ArgumentParser(
        prog="python -m fastmlp.bench.cuda_compile", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="only the few that the tests compile")
    parser.add_argument("--only", help="only kernels whose name holds this")
    parser.add_argument(
        "--capabilities", type=capabilities_of, default=list(CAPABILITIES), help="by default 80,90,100", metavar="LIST"
    )
    parser.add_argument("--jobs", type=int, default=machine.cores(), help="compile so many at once")
    parser.add_argument("--out", type=Path, help="the result, JSON; a table is written beside it, .md")
    parser.add_argument("--go-on", action="store_true", help="keep what --out has of kernels whose text is the same")
    given = parser.parse_args(arguments)
    reason = missing()
    if reason is not None:
        print(f"error: nothing can be compiled here: {reason}", file=sys.stderr)
        return 2
    try:
        names = chosen(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    known = earlier(given.out) if given.go_on else {}
    kept = dict(known)
    rows: list[dict[str, Any]] = []
    for row in check_all(names, given.capabilities, given.jobs, known):
        rows.append(row)
        kept[row["kernel"], row["capability"]] = row
        print(f"{row['kernel']}, {row['capability']}: {'; '.join(row['faults']) or 'ok'}", file=sys.stderr, flush=True)
        if given.out is not None:
            results.save(described(list(kept.values())), given.out, compact=True)
    if given.go_on:  # without what the dispatcher has no more
        rows = [row for row in kept.values() if row["kernel"] in all_variants()]
    text = table(rows)
    print(text)
    if given.out is not None:
        results.save(described(rows), given.out, compact=True)
        write_atomically(given.out.with_suffix(".md"), (text + "\n").encode())
    return int(any(row["faults"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
