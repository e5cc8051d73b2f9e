"""The tables of README.md and bench/RESULTS.md, generated from the committed result files.

``python -m fastmlp.bench.tables``, in the checkout's root, rewrites in both what stands between the two marks; with
``--check`` it only says whether that is current.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastmlp.atomic import write_atomically
from fastmlp.bench.contenders import CONTENDERS
from fastmlp.bench.fits import OURS as OUR_PROGRAM
from fastmlp.bench.fits import fastest_rival, seconds_of
from fastmlp.bench.results import ONE_THREAD, Figures, SpeedUp, fastest_of_family, figures, load, speed_up
from fastmlp.bench.time_to_accuracy import median_seconds, seconds_to
from fastmlp.bench.work import Work

__all__ = ["BEGIN", "END", "PAGES", "main", "markdown", "replace_block"]

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

RESULTS = Path("bench/results")  #: the folder of the committed result files
#: page -> the names of the result files that it shows, as far as they are there
PAGES = {
    "README.md": ("headline", "gpu"),
    "bench/RESULTS.md": (
        "gpu-accuracy",
        "gpu-compiled",
        "gpu-networks",
        "gpu-steps",
        "accuracy",
        "sklearn",
        "many",
        "predict",
        "networks",
        "products",
        "lab",
        "threads",
        "unshifted",
        "dense",
        "pixels",
        "float64",
        "activations",
        "rules",
        "bf16",
        "batches",
    ),
}

OURS = "fastmlp"  #: the family whose first contender is set against the others
IN_ORDER = "fastmlp, samples in order"  #: the family that has its samples as the rivals have theirs
#: Families in the order of the columns.
FAMILIES = (
    *("PyTorch", "PyTorch by hand", "JAX", "scikit-learn", "NumPy", "PyTorch bf16"),
    *("PyTorch CUDA", "JAX CUDA", "PyTorch CUDA TF32", "JAX CUDA TF32"),
    *("fit_many, 1 thread", "pool over fit"),
)

#: What a speed-up is, in every table: the higher, the faster.
SPEED_UP = "Speed-up over a rival: the rival's time divided by fastmlp's; below 1 the rival is faster."

#: What the names of columns don't say.
EXPLAINED = {
    "PyTorch": "the fastest of {labels}",
    "PyTorch by hand": "its operations called for this very network, without autograd, into preallocated tensors",
    "JAX": "all steps in one compiled scan",
    "PyTorch bf16": "under autocast to bfloat16, whose products keep 8 bits of 24: other arithmetic",
    "PyTorch CUDA": "the fastest of {labels}, with samples on the device and products in float32",
    "JAX CUDA": "all steps in one compiled scan, with samples on the device and products in float32",
    "PyTorch CUDA TF32": "the same with products in TF32, which keep 11 bits of 24: other arithmetic",
    "JAX CUDA TF32": "likewise",
}


def number(value: float) -> str:
    """Three significant digits, thousands set apart, no exponent: 0.0123, 1.23, 12.3, 12,345."""
    if value >= 100:
        return f"{value:,.0f}"
    text = f"{value:.3g}"
    return text if "e" not in text else f"{value:.6f}"


def ratio(value: SpeedUp, remark: str = "") -> str:
    """A speed-up, see `SPEED_UP`; marked where the rival wins, with a remark."""
    text = f"{number(value.ratio)} ×"
    return f"**{text}** (rival faster{remark})" if value.ratio < 1 else text


def ours_of(measurement: dict[str, Any]) -> str | None:
    """Our contender: the first of the family in the order of the suite."""
    contenders = measurement["contenders"]
    return next((name for name in contenders if contenders[name]["family"] == OURS), None)


def families_of(measurements: Sequence[dict[str, Any]]) -> list[str]:
    """The rivals' families that took part in any of them."""
    present = {c["family"] for m in measurements for c in m["contenders"].values()}
    return [family for family in FAMILIES if family in present]


def baseline_of(measurement: dict[str, Any]) -> str | None:
    """Over whom a table of contenders gives speed-ups: the fastest of the first family of rivals that is there.

    Where numbers of threads are compared it is the one thread; without a rival it is our own contender.
    """
    if ONE_THREAD in measurement["contenders"]:
        return ONE_THREAD
    rivals = (fastest_of_family(measurement, family) for family in families_of([measurement]))
    return next(rivals, ours_of(measurement))


def row_title(work: Work, single_network: bool) -> str:
    """The first cell of a row."""
    return f"{work.batch_size:,}" if single_network else f"{list(work.sizes)}, {work.batch_size:,}"


def training_table(result: dict[str, Any], measurements: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table of works of one kind: a row a work, a column a family."""
    works = [Work.from_dict(m["work"]) for m in measurements]
    single = len({work.sizes for work in works}) == 1
    families = families_of(measurements)
    in_order = [fastest_of_family(m, IN_ORDER) for m in measurements]
    title = "batch" if single else "network, batch"
    own = ["µs a call" if works[0].job == "predict" else "µs a step", "samples a second"]
    own += ["of ceiling"] * bool(result["ceilings"])
    own += ["µs with samples in order"] * any(in_order)
    lines = [
        f"| {' | '.join([title, *own, *(f'speed-up over {f}' for f in families)])} |",
        "|" + "---|" + "---:|" * (len(own) + len(families)),
    ]
    for work, measurement, ordered in zip(works, measurements, in_order, strict=True):
        cells = [row_title(work, single)]
        ours = ours_of(measurement)
        if ours is None:
            cells += ["not measured"] + [""] * (len(own) - 1 + len(families))
        else:
            cells += own_cells(figures(result, measurement, ours))[: len(own) - any(in_order)]
            if any(in_order):
                cells.append("–" if ordered is None else number(figures(result, measurement, ordered).microseconds))
            cells += [rival_cell(measurement, ours, family) for family in families]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def own_cells(own: Figures) -> list[str]:
    """Time, throughput and share of the ceiling."""
    share = "" if own.share is None else f"{own.share:.0%}"
    return [number(own.microseconds), number(own.samples_per_second), share]


def rival_cell(measurement: dict[str, Any], ours: str, family: str) -> str:
    """Our speed-up over the fastest of a family."""
    rival = fastest_of_family(measurement, family)
    if rival is None:
        return "–"
    seconds = {name: each["seconds"] for name, each in measurement["contenders"].items()}
    ordered, remark = fastest_of_family(measurement, IN_ORDER), ""
    if ordered is not None:
        remark = f"; in order {number(speed_up(seconds[ordered], seconds[rival]).ratio)} ×"
    return ratio(speed_up(seconds[ours], seconds[rival]), remark)


def lab_table(result: dict[str, Any], measurement: dict[str, Any]) -> list[str]:
    """The lines of the table of the lab's job: a row a contender, set against the NumPy program."""
    contenders = measurement["contenders"]
    lines = ["| lab's full-batch job | ms an iteration | speed-up over NumPy |", "|---|---:|---:|"]
    program = fastest_of_family(measurement, "NumPy")
    for name, raw in contenders.items():
        own = figures(result, measurement, name)
        times = ""
        if program is not None and name != program:
            times = ratio(speed_up(raw["seconds"], contenders[program]["seconds"]))
        lines.append(f"| {raw['label']} ({raw['dtype']}) | {number(own.microseconds / 1000)} | {times} |")
    return lines


def threads_table(measurements: Sequence[dict[str, Any]]) -> list[str]:
    """The lines of the table of numbers of threads: a row a work, the speed-up over one thread."""
    works = [Work.from_dict(m["work"]) for m in measurements]
    given = [name for name in CONTENDERS if name.startswith("fastmlp-threads-") and name != ONE_THREAD]
    counts = [name for name in given if any(name in m["contenders"] for m in measurements)]
    headings = [f"{name.rpartition('-')[2]} threads" for name in counts]
    lines = [
        f"| {' | '.join(['network, batch', 'µs a step, 1 thread', *headings, 'its own choice'])} |",
        "|" + "---|" + "---:|" * (2 + len(counts)),
    ]
    for work, measurement in zip(works, measurements, strict=True):
        contenders = measurement["contenders"]
        cells = [row_title(work, single_network=False)]
        one = contenders.get(ONE_THREAD)
        cells.append("–" if one is None else number(statistics.median(one["seconds"]) / measurement["steps"] * 1e6))
        for name in [*counts, ours_of(measurement)]:
            both = one is not None and name in contenders
            times = speed_up(contenders[name]["seconds"], one["seconds"]).ratio if both else None
            cells.append("–" if times is None else f"{number(times)} ×")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def seconds_text(program: dict[str, Any], target: float, clock: str = "seconds") -> str:
    """A program's median seconds to an accuracy, with the range over its seeds; or that it did not get there."""
    seconds = [seconds_to(run, target, clock) for run in program["runs"]]
    reached = [value for value in seconds if value < float("inf")]
    median = median_seconds(program, target, clock)
    if len(reached) < len(seconds):
        some = f"not by {len(seconds) - len(reached)} of {len(seconds)} seeds"
        return some if median == float("inf") else f"{number(median)} ({some})"
    return f"{number(median)} ({number(min(reached))}–{number(max(reached))})"


def accuracy_table(accuracy: dict[str, Any]) -> list[str]:
    """The lines of the table of times to accuracy: a row a program."""
    targets = accuracy["targets"]
    points = [point for program in accuracy["programs"].values() for run in program["runs"] for point in run["curve"]]
    clocks = ["seconds"] + ["training"] * all("training" in point for point in points)
    said = {"seconds": "seconds to", "training": "of training to"}
    columns = [(clock, target) for clock in clocks for target in targets]
    lines = [
        f"| program | {' | '.join(f'{said[clock]} {target:.0%}' for clock, target in columns)} | settings |",
        "|---|" + "---:|" * len(columns) + "---|",
    ]
    for program in accuracy["programs"].values():
        cells = [program["label"], *(seconds_text(program, target, clock) for clock, target in columns)]
        cells.append(program["title"])
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def accuracy_notes(result: dict[str, Any]) -> str:
    """What is inside the clock, and where it was measured."""
    accuracy = result["accuracy"]
    seeds = {len(program["runs"]) for program in accuracy["programs"].values()}
    parts = [
        machine_line(result),
        f"Network {accuracy['sizes']}, ReLU, cross-entropy, momentum SGD. Median of {' or '.join(map(str, seeds))} "
        "seeds, their range in brackets. From the start of each process, imports, reading the data and compiling what "
        "is not kept on disk included, with a test on the 10,000 test images after each epoch; the first at or above "
        "the accuracy counts. Settings are tuned in the same way for all but the lab's program, which is as it stands.",
    ]
    parts += [f"Not measured: {name}: {why}." for name, why in accuracy["missing"].items()]
    return " ".join(parts)


def fits_table(result: dict[str, Any]) -> list[str]:
    """The lines of the table of whole fits: a row a job, a column a program, then speed-up, aim and scores."""
    names = list(dict.fromkeys(name for job in result["fits"] for name in (*job["programs"], *job["missing"])))
    lines = [
        f"| fit | {' | '.join(f'{name}, s' for name in names)} | speed-up over the fastest rival | wanted | score |",
        "|---|" + "---:|" * (len(names) + 1) + "---|---|",
    ]
    for job in result["fits"]:
        programs, rival = job["programs"], fastest_rival(job["programs"])
        told = [name for name in (OUR_PROGRAM, rival) if name in programs]
        seconds = [seconds_of(programs[name]) for name in told]
        cells = [spread_text(programs[name]["seconds"]) if name in programs else "" for name in names]
        cells.append(number(seconds[1] / seconds[0]) if len(told) == 2 else "")
        cells.append("" if job["aim"] is None else wanted(job["aim"]))
        cells.append("; ".join(f"{name} {number(statistics.mean(programs[name]['scores']))}" for name in told))
        lines.append(f"| {job['what']} | {' | '.join(cells)} |")
    return lines


def fits_notes(result: dict[str, Any]) -> str:
    """How whole fits were measured, where, and who is left out."""
    parts = [machine_line(result), "Seconds of a fit: the median over seeds, in brackets their range."]
    parts.append("Each fit is a process of its own; programs take turns; scores must be ours within the seeds' noise.")
    for job in result["fits"]:
        for kind in ("missing", "refused"):
            parts += [f"{kind.capitalize()}: {job['what']}: {name}: {why}." for name, why in job[kind].items()]
    return " ".join(parts)


def spread_text(seconds: Sequence[float]) -> str:
    """Seconds: their median, and in brackets their range."""
    return f"{number(statistics.median(seconds))} ({number(min(seconds))}–{number(max(seconds))})"


def steps_table(result: dict[str, Any]) -> list[str]:
    """The lines of the table of `fastmlp.bench.gpu`'s steps: how many processes ended how, and what pytest counted."""
    lines = ["| step | processes well | failed | cut off | tests | seconds |", "|---|---:|---:|---:|---|---:|"]
    for step in result["steps"]:
        counts = ", ".join(f"{count:,} {word}" for word, count in step["tests"].items())
        ends = step["well"], len(step["failed"]), step["cut off"]
        lines.append(f"| {step['what']} | {' | '.join(map(str, ends))} | {counts} | {step['seconds']:.0f} |")
    machine = result["machine"]
    gpu = (machine["gpu"] or {}).get("name", "no GPU")
    return [*lines, "", f"{gpu}; {machine['date'][:10]}, commit {machine['commit']}."]


def products_table(result: dict[str, Any]) -> list[str]:
    """The lines of the table of single products: a row each, our rate and its share of the faster library's."""
    lines = ["| product | GFLOP/s | of the faster library's | NumPy | PyTorch |", "|---|---:|---:|---:|---:|"]
    for row in result["products"]:
        rates = row["gflops"]
        share = rates["ours"] / max(rate for who, rate in rates.items() if who != "ours")
        cells = [f"{row['product']}, {row['samples']} samples, {row['dtype']}", f"{rates['ours']:.0f}", f"{share:.0%}"]
        cells += [f"{rates[who]:.0f}" if who in rates else "–" for who in ("numpy", "torch")]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def products_notes(result: dict[str, Any]) -> str:
    """Which samples, and where it was measured."""
    return (
        f"{machine_line(result)} Medians of {result['rounds']} alternating rounds in one process. An epoch takes the "
        "smaller number of samples at a time. Ours adds a bias forward, multiplies a delta by slopes, and adds a "
        "gradient to what is there where it says so; the libraries' product is the bare one."
    )


def machine_line(result: dict[str, Any]) -> str:
    """Machine, versions, date and commit in a sentence."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"{machine['gpu']['name']}, driver {machine['gpu']['driver']}; " if "gpu" in machine else ""
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors; {versions}; "
        f"{machine['date'][:10]}, commit {machine['commit']}."
    )


def notes(result: dict[str, Any]) -> str:
    """Where and how it was measured, and what is missing."""
    measurements = result["measurements"]
    rounds = sorted({m["rounds"] for m in measurements})
    shown = "outputs" if all(m["work"]["job"] == "predict" for m in measurements) else "losses"
    parts = [
        machine_line(result),
        f"Medians of {' or '.join(map(str, rounds))} alternating rounds, each contender in its own process, with the "
        f"threads that suit it best, after all have shown the same {shown} from the same weights and batches.",
    ]
    if result["interrupted"]:
        parts.append("The run was interrupted before all works were measured.")
    for dtype, ceiling in result["ceilings"].items():
        size = f"{ceiling['size']:,} × {ceiling['size']:,} matrices"
        if "threads" in ceiling:
            what = f"the better of NumPy's and PyTorch's product of {size} on {ceiling['threads']} threads"
        else:
            what = f"the product of {size} by {ceiling['library']}"
        parts.append(f"Ceiling, {dtype}: {number(ceiling['gflops'])} GFLOP/s, {what}.")
    if result["ceilings"] and any(m["work"]["job"] == "train" for m in measurements):
        parts.append(
            "Its share counts the operations of dense products; where most inputs are one background, fastmlp does "
            "fewer, and can be above the ceiling."
        )
    if any(fastest_of_family(m, IN_ORDER) for m in measurements):
        parts.append(
            "The rivals' samples lie in memory in the order of their use; fastmlp gathers its own from anywhere, as an "
            "epoch of shuffled samples does. Only where a table says in order does fastmlp have them as the rivals do."
        )
    if families_of(measurements):
        parts.append(SPEED_UP)
    if any(ONE_THREAD in m["contenders"] for m in measurements):
        parts.append("With several threads: the speed-up over one, its time divided by theirs.")
    present = families_of([m for m in measurements if m["work"]["job"] != "lab"])
    for family, text in EXPLAINED.items():
        if family in present:
            contenders = [c for m in measurements for c in m["contenders"].values()]
            labels = sorted({c["label"] for c in contenders if c["family"] == family})
            parts.append(f"{family}: {text.format(labels=', '.join(labels))}.")
    parts += [f"{one['what']}: {number(one['reached'])}; wanted {wanted(one)}." for one in result.get("aims", [])]
    for kind, word in (("missing", "Not measured"), ("refused", "Refused")):
        reasons = sorted({f"{name}: {why}" for m in measurements for name, why in m[kind].items()})
        parts += [f"{word}: {' '.join(reason.split())}." for reason in reasons]
    return " ".join(parts)


def wanted(aim: dict[str, Any]) -> str:
    """What an aim asks for, and whether it is missed."""
    text = f"{'at most' if aim['below'] else 'at least'} {number(aim['wanted'])}"
    return text if aim["enough"] else f"**{text}** (missed)"


def markdown(results: Sequence[dict[str, Any]], headings: bool = False) -> str:
    """The tables of several results, each with its notes.

    Parameters
    ----------
    results : sequence of dict
        As `fastmlp.bench.results.load` reads them.
    headings : bool, default False
        Whether each result gets one.

    Returns
    -------
    str
        Markdown, without the marks.
    """
    blocks = []
    for result in results:
        if headings:
            blocks.append(f"## {result['summary'][0].upper()}{result['summary'][1:]}")
        if "accuracy" in result:
            blocks += ["\n".join(accuracy_table(result["accuracy"])), accuracy_notes(result)]
            continue
        if "fits" in result:
            blocks += ["\n".join(fits_table(result)), fits_notes(result)]
            continue
        if "products" in result:
            blocks += ["\n".join(products_table(result)), products_notes(result)]
            continue
        if "steps" in result:
            blocks.append("\n".join(steps_table(result)))
            continue
        groups: dict[tuple, list[dict[str, Any]]] = {}
        for measurement in result["measurements"]:
            if measurement["work"]["job"] != "lab":
                groups.setdefault(kind_of(measurement), []).append(measurement)
        for group in groups.values():
            device = f", on the GPU {result['machine']['gpu']['name']}" if "gpu" in result["machine"] else ""
            blocks.append(f"{caption(group)}{device}:")
            threads = any(ONE_THREAD in m["contenders"] for m in group)
            blocks.append("\n".join(threads_table(group) if threads else training_table(result, group)))
        blocks += ["\n".join(lab_table(result, m)) for m in result["measurements"] if m["work"]["job"] == "lab"]
        blocks.append(notes(result))
    return "\n\n".join(blocks)


def kind_of(measurement: dict[str, Any]) -> tuple:
    """What works in one table share. The data of other networks may differ: a row names its network."""
    work = Work.from_dict(measurement["work"])
    return work.job, work.dtype, work.activation, work.rule, work.dense, work.shift if work.has_pixels else None


def caption(group: Sequence[dict[str, Any]]) -> str:
    """What a table shows."""
    works = [Work.from_dict(m["work"]) for m in group]
    first = works[0]
    network = f"{list(first.sizes)}, " if len({work.sizes for work in works}) == 1 else ""
    rule = "" if first.job == "predict" else f"{first.rule.kind}, "
    job = "Prediction" if first.job == "predict" else "Training"
    data = f"{first.data}, {first.samples:,} samples"
    return f"{job}, {network}{first.activation}, {rule}{first.dtype}, {data}"


def replace_block(text: str, block: str) -> str:
    """The text with the block between the marks.

    Raises
    ------
    ValueError
        If it does not have each mark once, in their order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"the file to be rewritten has no place for the table; expected one {BEGIN} and after it one {END}"
        )
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def current_page(root: Path, page: str) -> tuple[str, str]:
    """A page's text as it is, and as it should be.

    Raises
    ------
    OSError, ValueError
        If it, or a result file, can't be read or is not as expected.
    """
    text = (root / page).read_text(encoding="utf-8")
    files = [root / RESULTS / f"{name}.json" for name in PAGES[page]]
    found = [load(file) for file in files if file.is_file()]
    return text, replace_block(text, markdown(found, headings=page != "README.md"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: 0, 1 where a table is not current, 2 for a mistake."""
    parser = argparse.ArgumentParser(prog="python -m fastmlp.bench.tables", description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(), help="the checkout's root; by default the current folder")
    parser.add_argument("--check", action="store_true", help="change nothing, say whether all is current")
    given = parser.parse_args(arguments)
    stale = False
    try:
        for page in PAGES:
            text, new = current_page(given.root, page)
            if given.check and new != text:
                print(f"{page}: the tables are not those of the files in {RESULTS}", file=sys.stderr)
                stale = True
            elif new != text:
                write_atomically(given.root / page, new.encode())
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
