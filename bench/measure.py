"""Measuring: the same losses first, then the clock, everybody in turn.

For each work the contenders are set up from the same initial weights, each in a process of its own. Of a rival's
settings (threads, layouts) the fastest is found by a short trial. Then each takes some steps whose losses must be
those of the oracle, computed in float64, within the rounding of the contender's dtype: who differs is refused and
never timed. Then come the rounds: in each, in a new order, every contender takes the same number of steps over the
same batches by the clock.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastmlp.bench import machine, results
from fastmlp.bench.ceiling import LIBRARIES, measure_ceiling, measure_memory
from fastmlp.bench.contender import Contender, Missing, lab_loss
from fastmlp.bench.contenders import contender
from fastmlp.bench.processes import Crew, Worker, WorkerDied
from fastmlp.bench.suites import Suite
from fastmlp.bench.work import Work
from fastmlp.kernels import reference

__all__ = [
    "TOLERANCE",
    "check_chunks",
    "largest_difference",
    "measure_suite",
    "measure_work",
    "oracle_losses",
    "ticks",
]

#: By how much a loss may differ from the oracle's, which computes in float64: of its size, or of 1 where it is smaller.
#: Autocast to bfloat16 rounds a logit, of order 1, by 2⁻⁹; the loss moves by twice that at most, and the roundings of
#: inputs and weights, of either sign, average out in the sums before. (A contender that learns nothing is off by 1e-2.)
#: TF32 cuts each factor of a product by up to 2⁻¹⁰ of it, always towards zero, so that the sums before are no help.
TOLERANCE = {"float32": 2e-5, "float64": 1e-10, "bfloat16": 2**-8, "tf32": 2**-9}

TRIAL_SAMPLES = 10_000  #: what a trial of settings trains on, …
TRIAL_STEPS = (2, 100)  #: … in steps of at least and at most so many
TRIALS = 3  #: of each setting, of which the fastest counts
HOPELESS = 5.0  #: times the best's time, beyond which a setting is not tried further

#: Seconds that a contender runs at the beginning of a turn, or of a setting's trial, before the clock. Its process was
#: stopped while others ran: caches hold what is theirs, and the system may at first have all its threads on one core.
RUN_IN = 0.1

GPU_ANSWER = 45.0  #: seconds of an answer, after which a contender on a GPU is given up

Progress = Callable[[str], None]


def _silent(text: str) -> None:
    pass


@dataclass
class Entrant:
    """A contender in the course of one work's measurement."""

    name: str
    kind: type[Contender]
    settings: dict[str, Any] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)
    seconds_a_step: float = float("inf")

    def dtype(self, work: Work) -> str:
        """In which it computes."""
        return self.kind.arithmetic or self.kind.dtype or work.dtype

    def worker(self, crew: Crew, settings: dict[str, Any]) -> Worker:
        """Its process, with the cores that these settings ask for."""
        return crew.worker(self.name, settings["threads"] if self.kind.threads_by_process else None)


class Absent(Exception):
    """A contender that does not take part: missing, or (refused) wrong."""

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


# ------------------------------------------------------------------------------------------------------- equal losses
def check_chunks(work: Work) -> list[int]:
    """The steps whose losses are checked, in two calls: state must survive from one to the next.

    Two calls alike: JAX compiles for the number of steps.

    Two iterations of the lab's job: with raw pixels its course is chaotic. One unit in the last place of the initial
    weights grows tenfold or more an iteration, to 1e-3 in the loss after ten.
    """
    if work.job in ("lab", "predict"):
        return [1, 1]
    if work.job == "many":  # whole epochs, at which contenders are quickest
        return [work.batches, work.batches]
    return [10, 10] if work.batch_size <= 512 else [3, 3]


def oracle_losses(work: Work, steps: int) -> np.ndarray:
    """The losses of the first steps, by the NumPy oracle in float64 from the work's own rounded numbers.

    Parameters
    ----------
    work : Work
    steps : int

    Returns
    -------
    ndarray of float64 [steps]
    """
    return np.mean([_losses_of(work, steps, number) for number in range(work.networks)], 0)


def _losses_of(work: Work, steps: int, number: int) -> np.ndarray:
    """Those of the network of that number."""
    network, parameters = work.network("float64"), work.parameters("float64", number)
    state = network.state(work.rule)
    X, Y = work.load()
    if Y.ndim == 2:
        Y = Y.astype(np.float64)
    order, B = work.order(), work.batch_size
    losses = []
    for step in range(steps):
        start = step % work.batches * B
        batch = order[start : start + B]
        gradients, loss = reference.backpropagation(network, parameters, X[batch], Y[batch])
        reference.update_weights(work.rule, parameters, gradients, state)
        if work.job == "lab":
            loss = lab_loss(reference.predict(network, parameters, X), Y)
        losses.append(loss)
    return np.array(losses)


def oracle_outputs(work: Work, steps: int) -> np.ndarray:
    """The outputs of the first batches, by the NumPy oracle in float64, flat, row by row."""
    network, parameters = work.network("float64"), work.parameters("float64")
    X, _ = work.load()
    return reference.predict(network, parameters, X[work.order()[: steps * work.batch_size]]).ravel()


def expected_of(work: Work) -> np.ndarray:
    """What a contender must tell over the chunks of `check_chunks`: losses, or outputs."""
    steps = sum(check_chunks(work))
    return oracle_outputs(work, steps) if work.job == "predict" else oracle_losses(work, steps)


def largest_difference(told: Sequence[Sequence[float]], chunks: Sequence[int], expected: np.ndarray) -> float:
    """By how much losses differ from the expected ones at most, relative to these or to 1, whichever is larger.

    Parameters
    ----------
    told : sequence of sequence of float
        What each call returned: the loss of every step, or their mean alone.
    chunks : sequence of int
        The steps of each call.
    expected : ndarray [sum(chunks)]
        The losses of all steps.

    Returns
    -------
    float
        Infinite where a loss is not finite.
    """
    worst = 0.0
    for losses, end, steps in zip(told, np.cumsum(chunks), chunks, strict=True):
        part = expected[end - steps : end]
        if len(losses) != steps:
            part = part.mean(keepdims=True)
        difference = np.abs(np.asarray(losses) - part) / np.maximum(1, np.abs(part))
        worst = max(worst, float(np.where(np.isfinite(difference), difference, np.inf).max()))
    return worst


def check_losses(entrant: Entrant, work: Work, crew: Crew, expected: np.ndarray) -> None:
    """Have a contender, just set up, take its first steps, and compare its losses with the oracle's.

    Raises
    ------
    Absent
        If they differ by more than rounding.
    """
    chunks = check_chunks(work)
    told = entrant.worker(crew, entrant.settings).ask("losses", chunks=chunks)["losses"]
    what, values = "losses", 1
    if work.job == "predict":
        what, values = "outputs", work.batch_size * work.sizes[-1]
    difference = largest_difference(told, [steps * values for steps in chunks], expected)
    tolerance = TOLERANCE[entrant.dtype(work)]
    entrant.record["loss_difference"] = difference
    if not difference <= tolerance:
        steps = sum(chunks)
        raise Absent(
            f"its {what} over the first {steps} steps differ from the oracle's by {difference:.1e}; "
            f"expected {tolerance:.0e} at most",
            refused=True,
        )


# --------------------------------------------------------------------------------------------------- before the clock
def trial_steps(work: Work) -> int:
    """The steps of a trial of settings."""
    low, high = TRIAL_STEPS
    return max(low, min(high, TRIAL_SAMPLES // work.batch_size))


def start(entrant: Entrant, work: Work, crew: Crew, settings: dict[str, Any]) -> None:
    """Set a contender up with these settings.

    Raises
    ------
    Absent
        If it can't run here.
    """
    answer = entrant.worker(crew, settings).ask("start", contender=entrant.name, work=work.to_dict(), settings=settings)
    if "missing" in answer:
        raise Absent(answer["missing"])
    entrant.settings = settings
    entrant.record.update(setup_seconds=round(answer["seconds"], 3), version=answer["version"])


def choose_settings(entrant: Entrant, work: Work, crew: Crew, patience: float) -> None:
    """Try a contender's settings until patience (in seconds) is over, and set it up anew with the fastest.

    Raises
    ------
    Absent
        If it can't run here.
    """
    steps = trial_steps(work)
    best = float("inf")
    forms = settings_of(entrant, work)
    begin = time.perf_counter()
    for settings in forms:
        if entrant.trials and time.perf_counter() - begin > patience:
            entrant.record["untried"] = len(forms) - len(entrant.trials)
            break
        start(entrant, work, crew, settings)
        seconds = try_steps(entrant.worker(crew, settings), steps, best)
        entrant.trials.append({"settings": settings, "microseconds_a_step": round(seconds * 1e6, 3)})
        best = min(best, seconds)
    entrant.seconds_a_step = best
    fastest = min(entrant.trials, key=lambda trial: trial["microseconds_a_step"])
    start(entrant, work, crew, fastest["settings"])


def settings_of(entrant: Entrant, work: Work) -> list[dict[str, Any]]:
    """The settings that a contender can have.

    Raises
    ------
    Absent
        If it can't run here.
    """
    try:
        return entrant.kind.settings_for(work, machine.cores())
    except Missing as reason:
        raise Absent(str(reason)) from None


def try_steps(worker: Worker, steps: int, best: float) -> float:
    """Seconds a step in a trial: the least of some, or of two short ones where these are hopeless beside the best.

    On a busy machine two threads can be a thousand times slower than one; a whole trial of them would take minutes.
    """
    few = max(2, steps // 10)
    short = min(worker.ask("time", steps=few, warm=few, run_in=run_in)["seconds"] for run_in in (RUN_IN, 0.0)) / few
    if short > HOPELESS * best:
        return short
    return min(worker.ask("time", steps=steps, warm=few)["seconds"] for _ in range(TRIALS)) / steps


def admit(entrant: Entrant, work: Work, crew: Crew, expected: np.ndarray, patience: float | None) -> Absent | None:
    """All that comes before the clock, without trials if patience is None; None for who takes part, or else why not."""
    try:
        if patience is None:
            start(entrant, work, crew, settings_of(entrant, work)[0])
        else:
            choose_settings(entrant, work, crew, patience)
        check_losses(entrant, work, crew, expected)
    except Absent as absent:
        return absent
    except WorkerDied as error:
        crew.dismiss(entrant.name)
        return Absent(f"its process ended: {error}", refused=True)
    return None


def choose_steps(entrants: Sequence[Entrant], target: float, longest: float) -> int:
    """The number of steps of a turn, the same for all: enough for the fastest's clock, not too many for the slowest.

    Parameters
    ----------
    entrants : sequence of Entrant
    target : float
        Seconds that the fastest contender's turn should take.
    longest : float
        Seconds that the slowest contender's turn may take.

    Returns
    -------
    int
        2 or more.
    """
    fastest = min(entrant.seconds_a_step for entrant in entrants)
    slowest = max(entrant.seconds_a_step for entrant in entrants)
    return max(2, min(round(target / fastest), round(longest / slowest)))


# ---------------------------------------------------------------------------------------------------------- the clock
def measure_work(
    work: Work,
    names: Sequence[str],
    crew: Crew,
    *,
    rounds: int = 15,
    target: float = 0.1,
    longest: float = 1.0,
    steps: int | None = None,
    whole_epochs: bool = False,
    patience: float | None = float("inf"),
    progress: Progress = _silent,
) -> dict[str, Any]:
    """Measure one work.

    Parameters
    ----------
    work : Work
    names : sequence of str
        The contenders, by the names of `fastmlp.bench.contenders.CONTENDERS` or as "module:Class".
    crew : Crew
        Their processes.
    rounds : int, default 15
    target, longest : float, defaults 0.1 and 1.0
        As for `choose_steps`.
    steps : int, optional
        Of a turn, in place of that choice. A contender that takes fewer (`Contender.most_steps`) has its times
        multiplied, to be those of a whole turn.
    whole_epochs : bool, default False
        Whether a turn that would be longer than an epoch is cut to whole ones.
    patience : float, optional
        Seconds after which no further setting of a contender is tried; by default all are. With None none is: each
        takes the first, all are set up at once, and ``steps`` must be given.
    progress : callable, optional
        Called with a line of text before each contender is set up, and before each round:
        ``len(names) + rounds`` times.

    Returns
    -------
    dict
        ``work``, ``steps`` of a turn, ``warm`` and ``run_in`` (so many untimed ones before them, again and again for so
        many seconds; without trials, a whole turn), ``rounds``; ``contenders``: for each its label, family, version,
        chosen settings, trials and the number of settings untried (if any), ``most_steps`` (where it takes fewer than a
        turn has), loss_difference, and raw ``seconds`` of each round, with ``device_seconds`` beside them where a
        device's own clock told them;
        ``missing`` and ``refused``: reasons.
    """
    expected = expected_of(work)
    entrants = [Entrant(name, contender(name)) for name in names]
    present: list[Entrant] = []
    absent: dict[bool, dict[str, str]] = {False: {}, True: {}}

    def admitted(entrant: Entrant) -> Absent | None:
        progress(f"{entrant.name}: setting up")
        return admit(entrant, work, crew, expected, patience)

    reasons = list((map if patience is not None else crew.pool.map)(admitted, entrants))
    for entrant, reason in zip(entrants, reasons, strict=True):
        name = entrant.name
        if reason is None:
            present.append(entrant)
        else:
            absent[reason.refused][name] = str(reason)
    result: dict[str, Any] = {"work": work.to_dict(), "rounds": rounds, "contenders": {}}
    result |= {"missing": absent[False], "refused": absent[True]}
    if not present:
        return result
    steps = steps or choose_steps(present, target, longest)
    if whole_epochs and steps > work.batches:
        steps -= steps % work.batches
    warm = steps if patience is None else max(1, steps // 10)
    times, died = run_rounds(present, crew, rounds, steps, warm, progress)
    result["refused"] |= died
    for entrant in (entrant for entrant in present if entrant.name not in died):
        result["contenders"][entrant.name] = {
            "label": entrant.kind.label or entrant.name,
            "family": entrant.kind.family or entrant.name,
            "dtype": entrant.dtype(work),
            "settings": entrant.settings,
            "trials": entrant.trials,
            **({"most_steps": entrant.kind.most_steps} if (entrant.kind.most_steps or steps) < steps else {}),
            **entrant.record,
            **times[entrant.name],
        }
    return {**result, "steps": steps, "warm": warm, "run_in": RUN_IN}


def run_rounds(
    entrants: Sequence[Entrant], crew: Crew, rounds: int, steps: int, warm: int, progress: Progress
) -> tuple[dict[str, dict[str, list[float]]], dict[str, str]]:
    """Everybody in turn, round after round: the seconds of each, of its device too where that tells them.

    The order changes from round to round, so that nobody always runs on caches and clock rates left by the same one.
    Beside the times: who died, and how; the others go on.
    """
    died: dict[str, str] = {}
    times: dict[str, dict[str, list[float]]] = {entrant.name: {"seconds": []} for entrant in entrants}
    shuffle = random.Random(0).shuffle
    for number in range(rounds):
        progress(f"round {number + 1} of {rounds}, {steps:,} steps each")
        turns = [entrant for entrant in entrants if entrant.name not in died]
        shuffle(turns)
        for entrant in turns:
            try:
                answer = entrant.worker(crew, entrant.settings).ask("time", steps=steps, warm=warm, run_in=RUN_IN)
            except WorkerDied as error:
                crew.dismiss(entrant.name)
                died[entrant.name] = f"its process ended: {error}"
                continue
            for clock, seconds in answer.items():
                times[entrant.name].setdefault(clock, []).append(seconds)
    return times, died


def measure_suite(
    name: str,
    suite: Suite,
    progress: Progress = _silent,
    keep: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    """Measure all works of a suite, and the machine's ceiling for each of their dtypes.

    Parameters
    ----------
    name : str
    suite : Suite
    progress : callable, optional
        Called with a line of text `ticks` times.
    keep : callable, optional
        Called with the result so far, as one that was interrupted, whenever a work is finished, so that it can be
        written down.

    Returns
    -------
    dict
        What `fastmlp.bench.results.save` writes: ``format``, ``suite``, ``machine``, ``ceilings`` (dtype -> see
        `fastmlp.bench.ceiling`) and ``memory`` (likewise, or None), ``measurements`` (see `measure_work`), and whether
        Ctrl-C
        has ``interrupted`` it after some of them.

    Raises
    ------
    KeyboardInterrupt
        If it comes before the first work is finished.
    """
    described = machine.describe()
    if suite.gpu:
        described["gpu"] = machine.graphics_card() or {"name": "a GPU", "driver": "unknown"}
    ceilings = {}
    for dtype in dtypes(suite):
        progress(f"ceiling, {dtype}")
        libraries = LIBRARIES if suite.ceiling else LIBRARIES[:1]
        ceilings[dtype] = measure_ceiling(dtype, machine.cores(), libraries=libraries)
    memory = None
    if suite.ceiling and not suite.gpu:
        progress("memory")
        memory = measure_memory(machine.cores())
    result: dict[str, Any] = {
        "format": results.FORMAT,
        "suite": name,
        "summary": suite.summary,
        "interrupted": True,
        "machine": described,
        "ceilings": ceilings,
        "memory": memory,
        "measurements": [],
    }
    with Crew(GPU_ANSWER if suite.gpu else None) as crew:
        try:
            for work, names in suite.jobs:
                result["measurements"].append(measure_job(work, names, crew, suite, progress))
                described["load_after"] = machine.load()
                if keep is not None and result["measurements"][-1]["contenders"]:
                    keep(result)
            result["interrupted"] = False
        except KeyboardInterrupt:
            if not result["measurements"]:
                raise
    return result


def measure_job(work: Work, names: Sequence[str], crew: Crew, suite: Suite, progress: Progress) -> dict[str, Any]:
    """Measure one work of a suite."""

    def tell(text: str) -> None:
        progress(f"{work.title}: {text}")

    return measure_work(
        work,
        names,
        crew,
        rounds=suite.rounds,
        target=suite.target,
        longest=suite.longest,
        steps=None if suite.steps is None else suite.steps(work),
        whole_epochs=suite.whole_epochs,
        patience=suite.patience if suite.steps is None else None,
        progress=tell,
    )


def dtypes(suite: Suite) -> list[str]:
    """The dtypes that a suite's contenders compute in, whose ceilings are measured; none on a GPU."""
    if suite.gpu:
        return []
    return sorted({contender(name).dtype or work.dtype for work, names in suite.jobs for name in names})


def ticks(suite: Suite) -> int:
    """How often `measure_suite` calls ``progress``."""
    return (
        len(dtypes(suite))
        + (suite.ceiling and not suite.gpu)
        + sum(len(names) + suite.rounds for _, names in suite.jobs)
    )
