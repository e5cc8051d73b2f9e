"""Standard output and error that never end a command: a full disk or a reader that has left must not cost a model."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, TextIO

__all__ = ["Unfailing", "trouble_of", "unfailing_streams"]


class Unfailing(io.FileIO):
    """A file descriptor that is written to until it fails; what comes after that is dropped.

    Attributes
    ----------
    trouble : OSError or None
        The failure: a `BrokenPipeError` where the reader has left.
    """

    trouble: OSError | None = None

    def write(self, data: Any, /) -> Any:
        """Write, or drop; returns how many bytes were taken, as `io.FileIO.write` does."""
        if self.trouble is None:
            try:
                return super().write(data)
            except OSError as error:
                self.trouble = error
        return memoryview(data).nbytes


def in_place_of(stream: TextIO) -> TextIO:
    """A stream to the same place that never fails; one that is not the process' own, as under a test, as it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = getattr(stream.buffer, "raw", stream.buffer)  # python -u has no buffer
    if type(raw) is not io.FileIO or stream not in (sys.__stdout__, sys.__stderr__):
        stream.reconfigure(errors="replace")
        return stream
    return io.TextIOWrapper(
        io.BufferedWriter(Unfailing(raw.fileno(), "w", closefd=False)),
        stream.encoding,
        errors="replace",  # a terminal that lacks × or ½ is no reason to fail
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


@contextmanager
def unfailing_streams() -> Iterator[TextIO]:
    """Put streams that never fail in the place of `sys.stdout` and `sys.stderr`, and the old ones back afterwards.

    A stream that was closed before Python started becomes one to nowhere.

    Yields
    ------
    file
        The new standard output; `trouble_of` tells whether it has failed, once the block has ended.
    """
    before = sys.stdout, sys.stderr
    with ExitStack() as stack:
        # They take the numbers 0 to 2 where those are free: a model's file must not have that of standard output.
        nowhere = [stack.enter_context(open(os.devnull, "w", encoding="utf-8")) for _ in range(3)]
        sys.stdout, sys.stderr = (nowhere[0] if stream is None else in_place_of(stream) for stream in before)
        try:
            yield sys.stdout
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            sys.stdout, sys.stderr = before


def trouble_of(stream: TextIO) -> OSError | None:
    """What has made such a stream fail, if anything has."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw.trouble if isinstance(raw, Unfailing) else None
