"""The command ``fastmlp``: train, predict, evaluate, compare, lab, bench, info.

What a command needs is imported inside it, so that ``--help`` comes at once.

Exit codes: 0; 2 for a wrong option, file or value; 1 for what fails while a command runs, such as a full disk; 130
after Ctrl-C. Each comes with its reason on standard error. A traceback means a bug of ours. Standard output that is
closed, or whose reader has left, changes nothing; one that can't be written to (a full disk) is told at the end, with
exit code 1, after the command has done its work.
"""

import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastmlp._version import __version__
from fastmlp.data import DataNotFound
from fastmlp.extras import ExtraMissing
from fastmlp.images import one_line
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import OUTPUTS
from fastmlp.kernels.names import unknown_name
from fastmlp.kernels.network import DTYPES
from fastmlp.optimizers import OPTIMIZERS
from fastmlp.presets import PRESETS
from fastmlp.streams import trouble_of, unfailing_streams

if TYPE_CHECKING:
    import numpy as np

OK, FAILED, MISTAKE, INTERRUPTED = 0, 1, 2, 130

#: The common base of what typer raises for a wrong command line. It has no public name that all its versions share.
UsageError: Any = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name="fastmlp",
    help="Train multilayer perceptrons fast.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: How predictions are printed.
FORMATS = ("text", "csv", "json")


#: What the machine lacks, or what is broken in it, whatever file it is that shows it.
MACHINE_S = (errno.ENOSPC, errno.EIO, errno.EDQUOT)


class Mistake(Exception):
    """Something that the user can mend; the message becomes the error on standard error."""


@contextmanager
def users_mistakes(*more: type[Exception]) -> Iterator[None]:
    """Within it, what the package raises for wrong values and files is the user's mistake, and ``more`` is, too."""
    mistakes: tuple[type[Exception], ...] = (OSError, TypeError, ValueError, RuntimeError, OverflowError, EOFError)
    mistakes += (ExtraMissing, *more)
    try:
        yield
    except mistakes as error:
        if isinstance(error, OSError) and error.errno in MACHINE_S:
            raise
        raise Mistake(in_words(error)) from error


@contextmanager
def about(X: str, y: str = "", invert: bool = False) -> Iterator[None]:
    """Within it, what the package says of X and y names the files, and what it advises are the command's options.

    Parameters
    ----------
    X, y : str
        What samples and labels come from.
    invert : bool, default False
        Whether --invert was given.
    """
    advice = "; leave --invert out" if invert else r"\1, give --invert"

    def reworded(message: object) -> str:
        text = re.sub("(; if these are [^,]*), give .* or --invert at the command line", advice, str(message))
        return re.sub(r"\b[Xy]\b", lambda found: {"X": X, "y": y}[found[0]], text)

    with warnings.catch_warnings():
        show = warnings.showwarning
        warnings.showwarning = lambda message, *rest, **more: show(reworded(message), *rest, **more)
        try:
            yield
        except ValueError as error:
            raise ValueError(reworded(error)) from error


def in_words(error: Exception) -> str:
    """An exception's message in one line; that of a missing data set, which is a list, in short ones."""
    if isinstance(error, DataNotFound) and "\n" in str(error):
        lay_out = TextWrapper(100, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
        return "\n".join(lay_out.fill(line) for line in str(error).splitlines())
    if isinstance(error, FileNotFoundError) and error.errno and not error.filename:  # what os.getcwd raises
        return "the current folder no longer exists; change to another"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f": {os.fsdecode(error.filename)}" if error.filename else "")
    if isinstance(error, MemoryError):
        return "there is not enough memory" + (f": {one_line(error)}" if str(error) else "")
    return one_line(error)


def with_home(text: str) -> str:
    """A path with the home folder in the place of a leading ``~``: shells leave that in ``--out=~/x`` as it is."""
    if not text:
        raise typer.BadParameter("it is empty; expected a path")
    return os.path.expanduser(text)


def a_path(text: str) -> Path:
    """The value of an option or argument that names a file or a folder."""
    return Path(with_home(text))


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def show_version(wanted: bool) -> None:
    """Print the version, if it is wanted, and end."""
    if wanted:
        say(f"fastmlp {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Train multilayer perceptrons fast.

    Begin with: fastmlp train
    """
    if context.invoked_subcommand is None:
        say(context.get_help())


def names(table: Sequence[str] | dict) -> str:
    """The names in a table, for a help text."""
    return ", ".join(table)


PRESET_HELP = "Settings to begin with; other options override them. " + " ".join(
    f"{name}: {preset.summary}." for name, preset in PRESETS.items()
)


DATA_HELP = "mnist, digits, or a folder with MNIST's IDX files (./digits is the folder of that name)"


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Option(
            parser=with_home,
            metavar="NAME",
            help=f"{DATA_HELP}. [default: mnist, or else digits]",
        ),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="UNITS",
            help="Units of the hidden layers: 100, or 128,64; none for no hidden layer. Inputs and outputs come from "
            "the data; a list that begins and ends with those is the whole network: 784,100,10.",
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Of the hidden layers: {names(ACTIVATIONS)}.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"{names(OUTPUTS)}. The output is softmax with cross_entropy, sigmoid with the others.",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="How often each image is used.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Images a step.")] = None,
    optimizer: Annotated[str | None, typer.Option(metavar="NAME", help=f"{names(OPTIMIZERS)}.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="With the default preset the last epoch takes a tenth of it.")
    ] = None,
    momentum: Annotated[float | None, typer.Option(metavar="PART", help="Of sgd; 0 for none.")] = None,
    dtype: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"Of weights and arithmetic: {names(DTYPES)}.")
    ] = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, numpy; see fastmlp info.")] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most so many threads. [default: one for each core]")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, metavar="N", help="Of weights and shuffling.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="The folder for the model and the picture of its curves; an earlier run's in it are replaced. "
            "[default: a new one in runs/]",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(metavar="NAME", help=PRESET_HELP)] = "default",
) -> None:
    """Train on handwritten digits; report how good the network became and how long it took.

    What is not given comes from the preset.
    """
    from fastmlp import training_run
    from fastmlp.presets import preset as preset_named

    with users_mistakes(MemoryError):  # of layers that no memory holds
        training_run.check_folder(out)
        preset_named(preset, "")
        dataset = training_run.load_data(data, say)
        settings = preset_named(preset, dataset.name).override(
            activation=activation,
            loss=loss,
            epochs=epochs,
            batch_size=batch_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            momentum=momentum,
            dtype=dtype,
            seed=seed,
        )
        settings = training_run.with_layers(settings, layers, dataset)
        run = training_run.prepare(dataset, settings, backend=backend, threads=threads)
    say(f"Training {list(run.mlp.network.sizes)} on {training_run.data_name(dataset)}, {len(run.X):,} images")
    if run.compiles:
        say(f"Compiling the {settings.dtype} kernels; where they can be kept, this happens once")
    try:
        training_run.train(run)
    except training_run.NothingTrained as error:
        raise Mistake(str(error)) from error
    if not len(run.history):
        raise KeyboardInterrupt
    if run.history.interrupted:
        say(f"Interrupted after epoch {len(run.history)} of {settings.epochs}; this is what it reached:")
    console().print(training_run.report(run))
    folder = training_run.make_folder(run, out)
    say(f"model   {training_run.save_model(run, folder)}")
    say(f"curves  {training_run.save_curves(run, folder)}")
    if run.history.interrupted:
        raise typer.Exit(INTERRUPTED)


def console() -> Any:
    """Where tables go: as wide as the terminal, or wide enough for most paths."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 100, highlight=False, markup=False)


ModelArgument = Annotated[
    Path,
    typer.Argument(
        parser=a_path, metavar="MODEL", help="A model file, or a run's folder with one in it.", show_default=False
    ),
]


InvertOption = Annotated[
    bool, typer.Option("--invert", help="For dark digits on a light ground: MNIST's are light on dark.")
]


@app.command()
def predict(
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(
            parser=a_path,
            metavar="IMAGES...",
            help="IDX files (raw or gzipped), .npy files, pictures of the network's size, or folders of pictures.",
            show_default=False,
        ),
    ],
    format: Annotated[
        str, typer.Option(metavar="NAME", help=f"{', '.join(FORMATS)}; text is label, probability, name.")
    ] = "text",
    invert: InvertOption = False,
    backend: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, numpy; see fastmlp info.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many threads.")] = None,
) -> None:
    """Print the label of each image, with its probability.

    For a network trained on the mean squared error, the probability is its output for that label.
    """
    from fastmlp.evaluation_run import load_model
    from fastmlp.images import inverted, read_images

    with users_mistakes():
        if format not in FORMATS:
            raise unknown_name("format", format, FORMATS)
        mlp = load_model(model, backend, threads)
        levels = mlp.metadata.get("levels", 255)
        if not mlp.classifies:
            raise ValueError(f"{model} does not classify: it was trained for regression")
        image_names, X = read_images(images, mlp.network.sizes[0], levels)
        if invert:
            X = inverted(X, levels)
        others = f" and {len(images) - 1} more" if len(images) > 1 else ""
        with about(f"{images[0]}{others}", invert=invert):
            outputs = mlp.predict(X)
            labels = mlp.classify(X)
    print_predictions(format, image_names, labels.tolist(), probabilities(outputs, labels))


@app.command()
def evaluate(
    model: ModelArgument,
    data: Annotated[
        str,
        typer.Argument(
            parser=with_home,
            metavar="DATA",
            help=f"{DATA_HELP}, of which the test images are taken; an .npz file with "
            "arrays X and y; a folder with a folder of pictures for each label, named 0, 1 …; or, with --labels, "
            "whatever predict takes.",
            show_default=False,
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(parser=a_path, metavar="FILE", help="The labels of DATA: an IDX file (raw or gzipped) or .npy."),
    ] = None,
    invert: InvertOption = False,
    backend: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda, numpy; see fastmlp info.")] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most so many threads.")] = None,
) -> None:
    """Measure how good a network is on some data: loss, accuracy, and what each label is taken for."""
    from fastmlp import evaluation_run
    from fastmlp.images import inverted

    with users_mistakes():
        mlp = evaluation_run.load_model(model, backend, threads)
        found = evaluation_run.labelled(data, labels, mlp)
        X = inverted(found.X, mlp.metadata.get("levels", 255)) if invert else found.X
        with about(found.X_from, found.y_from, invert):
            tables = evaluation_run.report(mlp, found.name, X, found.y)
    for table in tables:
        console().print(table)


def probabilities(outputs: "np.ndarray", labels: "np.ndarray") -> list[float]:
    """The probability of each label; a single output is that of label 1."""
    if outputs.shape[1] == 1:
        return [float(p) if label else 1 - float(p) for p, label in zip(outputs[:, 0], labels, strict=True)]
    return outputs[range(len(labels)), labels].tolist()


def print_predictions(format: str, image_names: list[str], labels: list[int], chances: list[float]) -> None:
    """Print one line an image; JSON is one list."""
    rows = list(zip(image_names, labels, chances, strict=True))
    if format == "json":
        import json

        say(json.dumps([{"image": name, "label": label, "probability": p} for name, label, p in rows], indent=2))
    elif format == "csv":
        import csv

        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "label", "probability"])
        writer.writerows(rows)
    else:
        for name, label, p in rows:
            print(f"{label} {p:.4f} {name}")
    sys.stdout.flush()


@app.command()
def lab(
    part: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="A part's name, or all.", show_default=False)
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            parser=a_path, metavar="FOLDER", help="The folder for the pictures; those of the same name are replaced."
        ),
    ] = Path("runs/lab"),
    quick: Annotated[bool, typer.Option("--quick", help="Make the long parts short, to see that they work.")] = False,
) -> None:
    """Run a part of the lab: print what it finds, save its pictures. Without a part, list all.

    MNIST, and for some parts PyTorch, have to be there; with all, parts that lack something are told at the end.
    """
    from fastmlp import lab_run

    if part is None:
        for name, title in lab_run.titles().items():
            say(f"{name:<18} {title}")
        return
    with users_mistakes():
        parts = lab_run.chosen(part)
        lab_run.make_folder(out)
    lacking = lab_run.run(parts, out, quick, say)
    if lacking:
        raise Mistake("; ".join(lacking))


@app.command()
def compare(
    models: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Which, with commas: mlp (fastmlp, each backend), torch-mlp (PyTorch, both pipelines), cnn, mixer "
            "(in PyTorch).",
        ),
    ] = "mlp,torch-mlp,cnn,mixer",
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How often each image is used. [default: 5]")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, metavar="N", help="From how many seeds. [default: 3]")] = None,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images a step.")] = 5,
    learning_rate: Annotated[float, typer.Option(metavar="RATE", help="Of SGD with momentum 0.9.")] = 0.001,
    quick: Annotated[
        bool, typer.Option("--quick", help="3,000 images, one epoch, two seeds, where not given otherwise.")
    ] = False,
    data: Annotated[
        str | None,
        typer.Option(
            parser=with_home,
            metavar="NAME",
            help=f"{DATA_HELP}. [default: mnist, or else digits]",
        ),
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where PyTorch trains: cpu, cuda.")] = "cpu",
    out: Annotated[
        Path | None,
        typer.Option(
            parser=a_path,
            metavar="FOLDER",
            help="The folder for compare.json and the pictures; an earlier comparison's in it are replaced. "
            "[default: a new one in runs/]",
        ),
    ] = None,
) -> None:
    """Compare with PyTorch: are losses and weights the same, how good does each become, and how fast.

    The defaults are the lab's: batches of 5, learning rate 0.001. Needs PyTorch: pip install 'fastmlp[torch]'
    """
    from fastmlp import compare as comparing
    from fastmlp import compare_plots, comparison, training_run

    with users_mistakes():
        training_run.check_folder(out, (comparison.RESULT_FILE, *compare_plots.FIGURES), comparison.is_comparison)
        settings = comparison.settings_for(models, epochs, seeds, batch_size, learning_rate, device, quick)
        comparing.check_works(settings)
        dataset = training_run.load_data(data, say)
        folder = out if out is not None else training_run.new_folder(dataset, "compare")
    say(f"Comparing on {training_run.data_name(dataset)}: {comparison.in_words(settings, dataset)}")
    try:
        result = comparing.compare(dataset, settings, say, lambda so_far: comparison.save(so_far, folder))
    except comparing.NothingCompared as error:
        raise Mistake(str(error)) from error
    path = comparison.save(result, folder)
    pictures = compare_plots.save_figures(result, folder)
    for table in comparison.report(result):
        console().print(table)
    say(f"result    {path}")
    for picture in pictures:
        say(f"picture   {picture}")
    if result.interrupted:
        raise typer.Exit(INTERRUPTED)


@app.command()
def info() -> None:
    """Show versions, this machine, and which backends work here."""
    from rich import box
    from rich.table import Table

    from fastmlp import system

    with_section = {"versions": system.versions(), "machine": system.machine(), "backends": system.backends()}
    table = Table(box=box.ROUNDED, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for rows in with_section.values():
        for name, value in rows.items():
            table.add_row(name, value)
        table.add_section()
    console().print(table)


@app.command()
def bench(
    suite: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is measured; --list shows the suites. [default: headline]"),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The suite quick: within a minute.")] = False,
    contenders: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Only these, separated by commas: names or module:Class for one's own."),
    ] = None,
    batch_sizes: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Only works with these batch sizes, separated by commas.")
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="How often each contender has its turn, seeds of accuracy.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(parser=a_path, metavar="FILE", help="The result file (JSON) to write.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(parser=a_path, metavar="FOLDER", help="The folder for pictures.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show the suites and contenders, and end.")] = False,
) -> None:
    """Measure fastmlp and its rivals on the same work.

    Rivals that are not installed are named and left out; pip install 'fastmlp[bench]' brings PyTorch and JAX. Ends
    with 1 where a contender's losses are not those of the work.
    """
    from fastmlp.bench import command

    if show_list:
        say(command.listing())
        return
    with users_mistakes():
        if quick and suite not in (None, "quick"):
            raise ValueError(f"--quick is the suite quick; it does not go with --suite={suite}")
        name = "quick" if quick else suite or "headline"
        command.check_places(out, plots)
        if name == command.ACCURACY:
            programs = command.chosen_programs(contenders, batch_sizes)
        elif name in command.FITS:
            command.check_fits(name, contenders=contenders, batch_sizes=batch_sizes, rounds=rounds, plots=plots)
        else:
            chosen = command.chosen_suite(name, contenders, batch_sizes, rounds)
    try:
        if name == command.ACCURACY:
            code = command.bench_accuracy(programs, rounds, out, plots)
        elif name in command.FITS:
            code = command.bench_fits(name, out)
        else:
            code = command.bench(name, chosen, out, plots)
    except (command.NothingMeasured, FileNotFoundError) as error:
        raise Mistake(str(error)) from error
    if code:
        raise typer.Exit(code)


#: Arguments of the package that a parameter of another name sets.
SET_BY = {"path": "data", "sizes": "layers", "size_layers": "layers", "contender": "contenders"}


#: Advice of the package that no option follows, and what the command line has in its place.
ADVICE = {
    r", or a smaller input_scale": "",
    r"input_scale=[^ ]+ may help": "the default preset, which brings the pixels there, may help",
}


def option_names(command: Any, words: Sequence[str]) -> dict[str, str]:
    """The package's name of each parameter -> that on this command line: batch_size -> --batch-size, data -> DATA."""
    chosen = command.commands.get(next((word for word in words if not word.startswith("-")), None))
    names = {}
    for parameter in chosen.params if chosen is not None else []:
        named = parameter.param_type_name == "option"
        names[parameter.name] = max(parameter.opts, key=len) if named else parameter.metavar.strip("[].")
    return names | {name: names[other] for name, other in SET_BY.items() if other in names}


def translator(options: Mapping[str, str], words: Sequence[str]) -> Callable[[str], str]:
    """A function that puts options for parameters into a message of the package: ``seed=-1`` becomes ``--seed=-1``.

    Parameters
    ----------
    options : mapping
        As `option_names` gives it.
    words : sequence of str
        The command line. What it holds is quoted as it is, be it a folder of the name ``seed=1``.
    """
    if not options:
        return str
    plain = "".join(rf"|{name}\b" for name in options if "_" in name)  # a word that is none of English
    parameter = rf"(?<![\w/.-])((?:{'|'.join(options)})(?==){plain})"
    values = (word.partition("=")[2] if word.startswith("--") else word for word in words)
    own = [os.path.normpath(os.path.expanduser(value)) for value in values if re.search(parameter, value)]
    pattern = re.compile("|".join([*map(re.escape, sorted(own, key=len, reverse=True)), parameter]))

    def translated(message: str) -> str:
        for advice, ours in ADVICE.items():
            message = re.sub(advice, ours, message)
        return pattern.sub(lambda found: options.get(found[1], found[0]), message)

    return translated


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.
    """
    with unfailing_streams() as output:
        code = run(arguments)
    trouble = trouble_of(output)
    if trouble is None or isinstance(trouble, BrokenPipeError):
        return code
    print(f"error: standard output: {in_words(trouble)}", file=sys.stderr, flush=True)
    return code or FAILED


def run(arguments: Sequence[str] | None) -> int:
    """Run the command with warnings and errors as messages on standard error; returns the exit code."""
    command: Any = typer.main.get_command(app)
    words = sys.argv[1:] if arguments is None else list(arguments)
    translated = translator(option_names(command, words), words)

    told: set[str] = set()  # what several steps of a command find is said once

    def show_warning(message: Warning | str, *_: object) -> None:
        line = f"warning: {translated(one_line(message))}"
        if line not in told:
            told.add(line)
            print(line, file=sys.stderr, flush=True)

    def fail(message: str, code: int) -> int:
        print(f"error: {translated(message)}", file=sys.stderr, flush=True)
        return code

    with warnings.catch_warnings():
        warnings.showwarning = show_warning  # type: ignore[assignment]
        try:
            code = command.main(arguments and words, prog_name="fastmlp", standalone_mode=False)
        except UsageError as error:
            return fail(one_line(error.format_message()), MISTAKE)
        except Mistake as error:
            return fail(str(error), MISTAKE)
        except (OSError, MemoryError) as error:
            return fail(in_words(error), FAILED)
        except (KeyboardInterrupt, typer.Abort) as stop:
            if isinstance(stop.__cause__, EOFError):  # typer takes it for the user's Ctrl-D
                return fail(in_words(stop.__cause__), FAILED)
            code = INTERRUPTED
    if code == INTERRUPTED:
        print("interrupted", file=sys.stderr, flush=True)
    return code or OK
