"""How the settings of `fastmlp.bench.time_to_accuracy` were chosen: in the same way for every program.

All programs do the same arithmetic, so that how many epochs an accuracy takes depends on the settings alone: that is
tried once, over a grid, with seeds that are not measured with. How many seconds an epoch takes depends on program,
batch size and threads: that is timed for each. The setting of a program is the one with the least product of the two,
to 98 %, among those where every seed got there.

``python -m fastmlp.bench.accuracy_tuning`` does it all, and prints both tables and the choice; some ten minutes.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace

from fastmlp.bench import machine
from fastmlp.bench.accuracy_programs import fastmlp
from fastmlp.bench.time_to_accuracy import SETTINGS, TARGETS, Failed, Settings, run, torchvision_folder

__all__ = ["epochs_needed", "main", "seconds_an_epoch"]

BATCH_SIZES = (32, 64, 128, 256)
RATES = (0.8, 1.2, 1.6)  #: learning rates times 1,024 / batch size
EPOCHS = (10, 14)  #: over which the rate falls to zero
SEEDS = (100, 101, 102)
TUNED = ("fastmlp", "jax", "torch-preloaded", "torch-dataloader")


def grid() -> list[Settings]:
    """All settings that are tried."""
    return [
        Settings(batch_size, round(rate * batch_size / 1024, 4), epochs)
        for batch_size, rate, epochs in itertools.product(BATCH_SIZES, RATES, EPOCHS)
    ]


def epochs_needed(settings: Settings, folder: str, seeds: Sequence[int] = SEEDS) -> list[float]:
    """The epoch at which 98 % was first tested, for each seed, up to the first that did not get there: infinite."""
    needed = []
    for seed in seeds:
        tests = enumerate(fastmlp(asdict(settings), seed, folder), 1)
        needed.append(next((float(epoch) for epoch, accuracy in tests if accuracy >= TARGETS[-1]), math.inf))
        if needed[-1] == math.inf:
            break
    return needed


def seconds_an_epoch(name: str, settings: Settings, folder: str) -> float:
    """The seconds of a program's second epoch: the first one may compile. Infinite if it was ended before.

    Raises
    ------
    Failed
        If it can't run here.
    """
    curve = run(name, replace(settings, epochs=2), 0, folder, 2.0)
    return curve[1]["seconds"] - curve[0]["seconds"] if len(curve) == 2 else math.inf


def main() -> None:
    """Print the tables and the choice."""
    with torchvision_folder() as folder:
        needed = {}
        for settings in grid():
            epochs = epochs_needed(settings, folder)
            if max(epochs) < math.inf:
                needed[settings] = statistics.mean(epochs)
            print(f"{settings.title}: 98 % after {epochs} epochs", flush=True)
        if not needed:
            print("no setting reaches 98 % with every seed")
            return
        for name in TUNED:
            try:
                choose(name, needed, folder)
            except Failed as error:
                print(f"{name} is missing: {error}")


def choose(name: str, needed: dict[Settings, float], folder: str) -> None:
    """Time a program at each batch size and number of threads, and print its best setting."""
    threads = (1, machine.cores()) if name.startswith("torch") else (None,)
    costs = {}
    for batch_size, count in itertools.product(sorted({s.batch_size for s in needed}), dict.fromkeys(threads)):
        probe = Settings(batch_size, 0.05, 2, threads=count)
        seconds = seconds_an_epoch(name, probe, folder)
        print(f"{name}, batch {batch_size}, threads {count or 'its own choice'}: {seconds:.2f} s an epoch", flush=True)
        for settings, epochs in needed.items():
            if settings.batch_size == batch_size:
                costs[settings, count] = epochs * seconds
    (best, count), cost = min(costs.items(), key=lambda item: item[1])
    print(f"{name}: {best.title}, threads {count}: {cost:.1f} s of training; so far {SETTINGS[name].title}")


if __name__ == "__main__":
    main()
