"""The compile check: the CUDA kernels that the suites ask for, compiled without GPU, driver or toolkit, and judged.

``python -m fastmlp.bench.cuda_compile`` has the backend choose its kernels as on an A100, an H200 and a B200, compiles
them as Numba does for a launch, through NVVM and nvJitLink (which holds ptxas; both are wheels that numba-cuda[cu13]
brings), and refuses (exit code 1) what would be slow or could not be launched, see `faults`. Where a wheel is missing
it says so and ends with exit code 2.
"""

import argparse
import hashlib
import importlib
import json
import multiprocessing
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from fastmlp.atomic import write_atomically
from fastmlp.bench import machine, results
from fastmlp.bench.gpu_steps import ACCURACY, NETWORK, to_compile
from fastmlp.bench.suites import SUITES
from fastmlp.bench.work import LEVELS, MOMENTUM
from fastmlp.kernels import Network, Rule
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.contract import Shares
from fastmlp.kernels.cuda.plans import Gpu
from fastmlp.kernels.losses import CROSS_ENTROPY, OUTPUTS
from fastmlp.kernels.updates import UPDATES

__all__ = ["GPUS", "Case", "cases", "check", "faults", "main", "missing"]

Row = dict[str, Any]  #: what is known of a kernel for a compute capability

#: Compute capability -> what plans depend on of such a GPU: A100, H200, B200.
GPUS = {"sm_80": Gpu(108, 166_912), "sm_90": Gpu(132, 232_448), "sm_100": Gpu(148, 232_448)}
EVERYTHING = "sm_90"  #: all cases are for this one; the others get some, so that the whole takes a few minutes
ABOUT = f"For {EVERYTHING} all that the suites can ask for; for the others what training {list(NETWORK)} asks for.\n"
REGISTERS = 65_536  #: of a multiprocessor
COMPILER = ("numba", "llvmlite", "numba-cuda", "nvidia-nvvm", "nvidia-nvjitlink")


class Case(NamedTuple):
    """What is asked of the backend."""

    title: str
    network: Network
    job: str = "train"  #: or "predict", "evaluate", "feedforward", "gradient", "look", "update", "count"
    samples: int = 1  #: of a batch, or in all
    inputs: str = "float32"  #: dtype of the samples
    rule: Rule = MOMENTUM
    weighted: bool = False  #: whether samples have weights


class Launch(NamedTuple):
    """A kernel as it would be launched."""

    kernel: Any
    threads: int
    arguments: Sequence[Any]
    shared: int

    @property
    def file(self) -> str:
        """Its own, without ".py"."""
        return self.kernel.py_func.__module__.split("_")[2]

    @property
    def constants(self) -> Row:
        """What stands in its module for the compiler, given and worked out: sizes, names, shapes of tiles."""
        found = self.kernel.py_func.__globals__.items()
        constants = {k: v for k, v in found if k.isupper() and isinstance(v, (int, str, tuple))}
        return {"FUNCTION": self.kernel.py_func.__name__, **constants}


def cases() -> list[Case]:
    """All that is asked."""
    found = []
    for suite in ("gpu", "gpu-networks"):
        for work, _ in SUITES[suite].jobs:
            title = f"{list(work.sizes)}, batch {work.batch_size:,}"
            found.append(Case(title, work.network(), samples=work.batch_size, rule=work.rule))
    (work,) = to_compile(ACCURACY)
    plain, bytes_ = work.network(), replace(work.network(), input_scale=1 / LEVELS)
    found.append(Case(f"{list(NETWORK)} from bytes", bytes_, "train", work.batch_size, "uint8", work.rule))
    for samples in (5, 128):  # every loss and output, and all else in turn, with each of the two kernels
        for n, (loss, output) in enumerate((loss, output) for loss, outputs in OUTPUTS.items() for output in outputs):
            kind, activation = list(UPDATES)[n % len(UPDATES)], list(ACTIVATIONS)[n % len(ACTIVATIONS)]
            dtype = ("float32", "float32", "float64")[n % 3]
            inputs, l2, scale = (dtype, 0.1, 1.0) if n % 2 else ("uint8", 0.0, 1 / LEVELS)
            network = Network.build(NETWORK, activation, output, loss, dtype=dtype, l2=l2, input_scale=scale)
            title = f"{kind}, {activation}, {output}, {loss}, {dtype} from {inputs}, batch {samples}"
            found.append(Case(title, network, "train", samples, inputs, Rule(kind)))
    lab = Network.build(NETWORK, "sigmoid", None, "binary_cross_entropy", dtype="float64")
    found += [Case(f"{job} 10,000", plain, job, 10_000) for job in ("predict", "feedforward", "gradient")]
    found += [Case("predict 1 from bytes", bytes_, "predict", 1, "uint8")]
    found += [Case("evaluate 10,000 from bytes", bytes_, "evaluate", 10_000, "uint8")]
    found += [Case("evaluate 10,000 in float64", lab, "evaluate", 10_000, "float64"), Case("count up", plain, "count")]
    fined = replace(plain, l2=0.1)
    for job, samples in (("train", 5), ("train", 128), ("evaluate", 10_000), ("gradient", 10_000)):
        found.append(Case(f"{job} {samples:,} with weights", fined, job, samples, weighted=True))
    for network in (plain, lab):
        found.append(Case(f"look for infinity in {network.dtype}", network, "look"))
        found += [Case(f"{kind} update in {network.dtype}", network, "update", rule=Rule(kind)) for kind in UPDATES]
    return found


class Recorder:
    """In the place of a device: keeps what is to be launched last."""

    def __init__(self, gpu: Gpu) -> None:
        self.multiprocessors, self.shared_memory = gpu

    def launch(
        self, kernel: Any, blocks: int, threads: int, given: Any, stream: Any, shared: int = 0, **_: Any
    ) -> None:
        self.last = Launch(kernel, threads, given, shared)


def launched(case: Case, gpu: Gpu) -> Launch:
    """What the backend would launch for a case."""
    from fastmlp.kernels.cuda import launch, memory
    from fastmlp.kernels.cuda.device import Queue
    from fastmlp.kernels.cuda.records import Arrays

    network, job, recorder = case.network, case.job, Recorder(gpu)
    queue = Queue(recorder, None)  # type: ignore[arg-type]
    one, order = np.empty(1, network.dtype), np.empty(case.samples, np.int32)
    X = np.empty(case.samples * network.sizes[0], case.inputs)
    Y = order if network.loss == CROSS_ENTROPY else one
    of_memory: dict[str, Any] = {
        "empty": lambda size, dtype, *what: np.empty(1, dtype),
        "scratch": lambda device, stream, key, size, dtype: np.empty(1, dtype),
        "clear": lambda array, stream: None,
        "fetch": lambda array, stream: array,
        "place": lambda array, what: array,
        "staged": lambda values, dtype, what: np.asarray(values, dtype),
    }
    with mock.patch.multiple(memory, **of_memory):
        if job == "train":
            arrays = Arrays(one, one, X, Y, order, one, one, one, one, one)
            launch.train(network, case.rule, arrays, case.samples, queue, case.weighted)
        elif job == "look":
            launch.is_finite(one, queue)
        elif job == "update":
            launch.update_weights(case.rule, one, one, one, 0, queue)
        elif job == "count":
            launch.count_up(order, queue)
        else:
            shares = Shares(np.arange(case.samples), one, one) if case.weighted else None
            launch.all_samples(network, job, one, X, Y if job in ("evaluate", "gradient") else None, queue, shares)
    return recorder.last


# --------------------------------------------------------------------------------------------- compiling and judging
def missing() -> str | None:
    """Why nothing can be compiled here, and what to do; None where it can."""
    if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0"):
        return "NUMBA_ENABLE_CUDASIM is set: the simulator compiles nothing"
    try:
        importlib.import_module("fastmlp.kernels.cuda.toolkit")
        from cuda.bindings import nvjitlink
        from cuda.pathfinder import load_nvidia_dynamic_lib

        for library in ("nvvm", "nvJitLink"):
            load_nvidia_dynamic_lib(library)
        if nvjitlink.version() < (13, 0):
            raise ImportError("nvidia-nvjitlink is older than 13, the first that knows sm_100")
    except Exception as error:  # a broken installation fails in many ways; each is a reason
        return (
            f"numba-cuda or its own packages are missing ({type(error).__name__}: {error}); pip install 'fastmlp[cuda]'"
        )
    return None


def compiled(launch: Launch, capability: str) -> Row:
    """What the compiler makes of a kernel: registers and bytes of a thread, bytes of a block, what handles float64."""
    from fastmlp.kernels.cuda.toolkit import compiling_for, cuda

    # As numba-cuda does for a launch: for this very architecture, by code that the linker still optimizes.
    major, minor = int(capability[3:-1]), int(capability[-1])
    exact = (major, minor, "a" if major >= 9 else "")
    signature = tuple(map(launch.kernel.typeof_pyval, launch.arguments))
    options = {name: launch.kernel.targetoptions[name] for name in ("fastmath", "opt", "launch_bounds")}
    with compiling_for((major, minor)):
        code, _ = cuda.compile(
            launch.kernel.py_func, signature, cc=exact, device=False, abi="numba", output="ltoir", **options
        )
    link_for = "-arch=sm_{}{}{}".format(*exact)
    log, ptx = link(code, "info_log", link_for), link(code, "linked_ptx", link_for, "-ptx")
    patterns = {"registers": "Used N registers", "stack": "N bytes stack frame", "spills": "N bytes spill loads"}
    patterns["shared"] = "N bytes smem"
    numbers = {name: re.findall(pattern.replace("N", r"(\d+)"), log) for name, pattern in patterns.items()}
    if not numbers["registers"]:
        raise ValueError(f"the linker's log tells no registers: {log!r}")
    most = {name: max(map(int, found), default=0) for name, found in numbers.items()}  # if a function is called, of all
    doubles = Counter(re.findall(r"(?<![\w.])[a-z]\w*(?:\.\w+)*\.f64(?:\.\w+)*", ptx))
    return {**most, "shared": most["shared"] + launch.shared, "float64": dict(doubles)}


def link(code: bytes, what: str, *options: str) -> str:
    """Link code; returns nvJitLink's "info_log" or "linked_ptx"."""
    from cuda.bindings import nvjitlink

    handle = nvjitlink.create(len(options) + 2, [*options, "-lto", "-verbose"])
    try:
        nvjitlink.add_data(handle, nvjitlink.InputType.LTOIR, code, len(code), "kernel")
        nvjitlink.complete(handle)
        text = bytearray(getattr(nvjitlink, f"get_{what}_size")(handle))
        getattr(nvjitlink, f"get_{what}")(handle, text)
        return text.decode(errors="replace")
    finally:
        nvjitlink.destroy(handle)


def faults(row: Row) -> list[str]:
    """What is wrong with a compiled kernel, each in a few words; ``row["fewest"]``: the registers that it once had."""
    found = [f"a stack of {row['stack']} bytes"] * bool(row["stack"])
    found += [f"spills of {row['spills']} bytes"] * bool(row["spills"])
    if row["dtype"] == "float32" and row["float64"]:
        found.append("float64: " + ", ".join(f"{count} {name}" for name, count in row["float64"].items()))
    if row["registers"] > row["fewest"]:
        found.append(f"{row['registers']} registers, {row['fewest']} before")
    # They are given out to four warps at once, eight of a thread at a time.
    registers = -(-row["registers"] // 8) * 8 * -(-row["threads"] // 128) * 128
    for amount, most, what in (
        (registers, REGISTERS, "registers of a block"),
        (row["shared"], GPUS[row["capability"]].shared_memory, "bytes of shared memory"),
    ):
        found += [f"{amount:,} {what}; {most:,} at most"] * (amount > most)
    return found


def digest(file: str) -> str:
    """Of a kernel's file and those that it calls."""
    from fastmlp.kernels.cuda.specialise import CALLED, HERE

    texts = ((HERE / name).read_bytes() for name in (*CALLED, f"{file}.py"))
    return hashlib.sha256(b"".join(texts)).hexdigest()[:16]


def described(case: Case, capability: str) -> tuple[Row, Launch]:
    """The part of a row that is known before compiling, and what is to be compiled for it."""
    launch = launched(case, GPUS[capability])
    row: Row = {"kernel": f"{launch.file}: {case.title}", "capability": capability, "digest": digest(launch.file)}
    row |= {"dtype": case.network.dtype, "threads": launch.threads, "constants": launch.constants}
    return json.loads(json.dumps(row)), launch


def check(case: Case, capability: str, old: dict[str, Row]) -> Row:
    """Compile and judge a case's kernel, or take its row from ``old`` if it is the same kernel."""
    row, launch = described(case, capability)
    before = old.get(f"{row['kernel']}, {capability}", {})
    if row.items() <= before.items() and "registers" in before:
        return before
    try:
        made = compiled(launch, capability)
    except Exception as error:  # whatever the compiler raises is a fault of this kernel
        return row | {"faults": [f"does not compile: {type(error).__name__}: {str(error).strip()}"]}
    comparable = before.get("constants") == row["constants"] and "fewest" in before
    row |= made | {"fewest": min(made["registers"], before["fewest"]) if comparable else made["registers"]}
    return row | {"faults": faults(row)}


# ------------------------------------------------------------------------------------------------------- the command
def wanted(capability: str, quick: bool = False, only: str = "") -> list[Case]:
    """The cases for a compute capability; of several with the same kernel the first."""
    few = {f"{list(NETWORK)}, batch {samples}" for samples in (5, 128)} | {"count up"}
    found: dict[str, Case] = {}
    for case in cases():
        here = capability == EVERYTHING or case.title.startswith(str(list(NETWORK)))
        if only in case.title and (case.title in few if quick else here):
            row, _ = described(case, capability)
            found.setdefault(json.dumps([row["dtype"], row["constants"]]), case)
    return list(found.values())


def check_all(tasks: list[tuple[Case, str]], old: dict[str, Row], jobs: int) -> Iterator[Row]:
    """The rows of all as they are done, so many at once."""
    if jobs == 1:
        yield from (check(*task, old) for task in tasks)
    else:
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            yield from pool.map(check, *zip(*tasks, strict=True), [old] * len(tasks))


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown; below it what is wrong."""
    heads = ("kernel", "for", "shared out as", "threads", "registers", "stack", "spills", "shared", "")
    lines = [ABOUT, f"| {' | '.join(heads)} |", "|---|---|---|" + "---:|" * 5 + "---|"]
    for row in rows:
        names = ("UNITS", "GROUPS", "SPAN", "BLOCKS", "FORWARD", "DELTA", "GRADIENT", "SPLITS")
        shapes = [(name.lower(), row["constants"].get(name)) for name in names if name in row["constants"]]
        shape = ", ".join(f"{k} {'×'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in shapes)
        numbers = (f"{row[name]:,}" if name in row else "" for name in heads[3:-1])
        cells = (row["kernel"], row["capability"], shape, *numbers, "**refused**" if row["faults"] else "ok")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(f"\n{told(row)}" for row in rows if row["faults"])]) + "\n"


def told(row: Row) -> str:
    """A row in a line."""
    return f"{row['kernel']}, {row['capability']}: {'; '.join(row['faults']) or 'ok'}"


def save(rows: Sequence[Row], out: Path) -> None:
    """Write the result, and the table beside it."""
    result = {"format": results.FORMAT, "what": "compile check", "machine": machine.describe(), "kernels": rows}
    results.save(result, out, compact=True)
    write_atomically(out.with_suffix(".md"), table(rows).encode())


def earlier(out: Path) -> dict[str, Row]:
    """The rows of a result, if it is there and comes from the same compiler."""
    try:
        found = results.load(out)
    except (OSError, ValueError):
        return {}
    then, now = found["machine"]["versions"], machine.versions()
    same = all(then.get(package) == now.get(package) for package in COMPILER)
    return {f"{row['kernel']}, {row['capability']}": row for row in found["kernels"] if same}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a kernel is refused, 2 where nothing can be compiled."""
    about = __doc__.partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.cuda_compile", description=about)
    parser.add_argument("--quick", action="store_true", help="only the few that the tests compile")
    parser.add_argument("--only", default="", help="only cases whose title holds this")
    parser.add_argument("--capabilities", default="80,90,100", help="by default 80,90,100", metavar="LIST")
    parser.add_argument("--jobs", type=int, default=machine.cores(), help="compile so many at once")
    parser.add_argument("--out", type=Path, help="the result, JSON; a table is written beside it, .md")
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="take what --out has of kernels that are the same; the others may not have more registers than there",
    )
    given = parser.parse_args(arguments)
    capabilities = [f"sm_{part}" for part in given.capabilities.split(",")]
    if not set(capabilities) <= set(GPUS):
        parser.error(f"--capabilities={given.capabilities}; expected some of 80,90,100")
    reason = missing()
    if reason is not None:
        print(f"error: nothing can be compiled here: {reason}", file=sys.stderr)
        return 2
    tasks = [(case, which) for which in capabilities for case in wanted(which, given.quick, given.only)]
    if not tasks:
        parser.error(f"--only={given.only!r} leaves no kernel; expected a part of a case's title")
    old = earlier(given.out) if given.out is not None and given.go_on else {}
    rows: dict[str, Row] = {}
    for row in check_all(tasks, old, given.jobs):
        rows[f"{row['kernel']}, {row['capability']}"] = row
        print(told(row), flush=True)
        if given.out is not None:  # with what is still to be judged, should this be the last
            save(list((rows if len(rows) == len(tasks) else old | rows).values()), given.out)
    return int(any(row["faults"] for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
