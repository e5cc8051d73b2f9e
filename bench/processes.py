"""The contenders' processes, seen from the one that measures."""

import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

__all__ = ["Crew", "Worker", "WorkerDied", "environment", "python"]

CAN_STOP = hasattr(signal, "SIGSTOP")


class WorkerDied(RuntimeError):
    """A contender's process ended instead of answering; the message holds the end of what it wrote."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a contender's process: this one's, with this one's path for imports.

    So it finds the fastmlp that this process has found, be it installed or a checkout.
    """
    paths = [os.path.abspath(path) for path in sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this package; what lies in the current folder does not get in its way."""
    return [sys.executable, "-P", "-m", f"fastmlp.bench.{module}", *arguments]


class Worker:
    """A process of `fastmlp.bench.worker`, stopped whenever it has nothing to do.

    Libraries' idle threads go on looking for work for up to 0.2 s, on cores that belong to the next contender by then;
    a stopped process does not. (Where the system can't stop a process, nothing is done about it.)

    Parameters
    ----------
    cores : int, optional
        On how many cores it may run; by default on all that this process has.
    limit : float, optional
        Seconds that an answer may take, after which it is ended; by default any.
    """

    def __init__(self, cores: int | None = None, limit: float | None = None) -> None:
        self._limit = limit
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `close`)
        command = python("worker", *([] if cores is None else [str(cores)]))
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment(),
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for the answer.

        Raises
        ------
        WorkerDied
            If there is none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._signal("SIGCONT")
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
            self._wait()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerDied(self._last_words())
        self._signal("SIGSTOP")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _wait(self) -> None:
        """Until there is an answer, or the process has ended; or end it, if that takes too long."""
        answers = self._process.stdout
        assert answers is not None
        if self._limit is not None and not select.select([answers], [], [], self._limit)[0]:
            self._process.kill()
            raise WorkerDied(f"no answer within {self._limit:g} s")

    def _signal(self, name: str) -> None:
        if CAN_STOP and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        logging.getLogger(__name__).info("a contender's process ended, exit code %s:\n%s", code, text)
        lines = text.splitlines()
        return f"exit code {code}: " + ("\n".join(lines[-12:]) or "no message")


class Crew:
    """The processes of one run, a context that ends them all. They are reused from work to work.

    Parameters
    ----------
    limit : float, optional
        Seconds that an answer may take; by default any.

    Attributes
    ----------
    pool : ThreadPoolExecutor
        For asking several at once. Its threads stay until the end: a process ends with the thread that started it.
    """

    def __init__(self, limit: float | None = None) -> None:
        self._limit = limit
        self.pool = ThreadPoolExecutor()
        self._workers: dict[tuple[str, int | None], Worker] = {}

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *error: object) -> None:
        for name, _ in list(self._workers):
            self.dismiss(name)
        self.pool.shutdown()

    def worker(self, name: str, cores: int | None = None) -> Worker:
        """The contender's process; one for each number of cores that is asked for."""
        if (name, cores) not in self._workers:
            self._workers[name, cores] = Worker(cores, self._limit)
        return self._workers[name, cores]

    def dismiss(self, name: str) -> None:
        """End the contender's processes, if there are any."""
        for key in [key for key in self._workers if key[0] == name]:
            self._workers.pop(key).close()
