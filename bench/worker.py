"""A contender's process: reads a command a line, writes an answer a line, both JSON.

Its commands: ``start`` sets a contender up, ``losses`` takes steps and tells their losses (or outputs), ``time`` takes
steps by the clock. Whatever a library prints goes to standard error, so that the answers stay alone.
"""

import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["Host", "main"]


class Host:
    """What a process keeps between commands: its contender."""

    def __init__(self) -> None:
        self.contender: Any = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a command says.

        Parameters
        ----------
        request : dict
            ``do``, and what that command takes.

        Returns
        -------
        dict
            Its answer; {"missing": reason} for a contender that can't run.
        """
        commands: dict[str, Callable[..., dict[str, Any]]] = {
            "start": self.start,
            "losses": self.losses,
            "time": self.time,
        }
        return commands[request.pop("do")](**request)

    def start(self, contender: str, work: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        """Set a contender up, in place of the last one: the seconds that it took, and its package's version."""
        from fastmlp.bench.contender import Missing
        from fastmlp.bench.contenders import contender as class_of
        from fastmlp.bench.work import Work

        self.contender = None
        gc.collect()
        begin = time.perf_counter()
        kind = class_of(contender)
        try:
            self.contender = kind(Work.from_dict(work), settings)
        except Missing as reason:
            return {"missing": str(reason)}
        return {"seconds": time.perf_counter() - begin, "version": package_version(kind.package)}

    def losses(self, chunks: list[int]) -> dict[str, Any]:
        """Take steps in several calls of so many each: the losses of each call."""
        told = []
        for steps in chunks:
            self.contender.prepare(steps)
            told.append(self.contender.told(self.contender.run(steps)))
        return {"losses": told}

    def time(self, steps: int, warm: int, run_in: float = 0.0) -> dict[str, Any]:
        """Take ``warm`` steps, again and again for ``run_in`` seconds, then so many by the clock: the latter's seconds.

        ``device_seconds`` beside them are those by the clock of the contender's device, where it has one. Where the
        contender takes no more than its ``most_steps``, both are multiplied, to be those of all steps.
        """
        asked, most = steps, getattr(self.contender, "most_steps", None) or steps
        steps, warm = min(steps, most), min(warm, most)
        begin = time.perf_counter()
        while warm:
            self.contender.prepare(warm)
            self.contender.run(warm)
            if time.perf_counter() - begin >= run_in:
                break
        self.contender.prepare(steps)
        gc.collect()
        gc.disable()
        try:
            begin = time.perf_counter()
            self.contender.run(steps)
            seconds = time.perf_counter() - begin
        finally:
            gc.enable()
        on_device = self.contender.device_seconds
        told = {"seconds": seconds, **({} if on_device is None else {"device_seconds": on_device})}
        return {clock: seconds * asked / steps for clock, seconds in told.items()}


def package_version(package: str) -> str:
    """A package's version; fastmlp's own also where it is not installed."""
    if package == "fastmlp":
        from fastmlp import __version__

        return __version__
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def die_with_parent() -> None:
    """Have the system end this process when the one that started it ends, however that happens (Linux only).

    While another contender has its turn this process is stopped, and could not see to it itself.
    """
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)


def use_cores(count: int) -> None:
    """Let this process run on so many cores only: some libraries start a thread for each core that they may use."""
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[:count])


def main() -> None:
    """Answer until the commands end; an argument is the number of cores to use."""
    die_with_parent()
    if len(sys.argv) > 1:
        use_cores(int(sys.argv[1]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it ends its workers
    host = Host()
    for line in sys.stdin:
        answer = host.answer(json.loads(line))
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
