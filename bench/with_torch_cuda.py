"""PyTorch on a CUDA device, as contenders: as people write it, the whole step in a CUDA graph, and compiled.

Samples lie on the device beforehand, in the order of their use. Float32 products are those of float32, or, where a
contender says so, of TF32: other arithmetic, in families of its own.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

from fastmlp.bench.contender import Missing, Settings
from fastmlp.bench.with_torch import TorchFused, compiled, import_torch, torch_model
from fastmlp.bench.work import Work

__all__ = ["TorchCuda", "TorchCudaCompiled", "TorchCudaCompiledGraph", "TorchCudaGraph", "with_tf32"]

COMPILE_PROCESSES = 8  #: that PyTorch's compiler may start; they idle while the clock runs
GRAPHS = 512  #: batches of an epoch up to which each gets a graph of its own, which reads it where it lies
STEPS = (16, 1)  #: numbers of steps in one graph that are tried, where one graph serves all batches
WARM = 3  #: steps before a graph is captured
LONGEST = 1 << 18  #: steps of one call


class TorchCuda(TorchFused):
    """PyTorch as people write it, with the fused optimiser."""

    label = "PyTorch CUDA eager"
    family = "PyTorch CUDA"
    device = "cuda"
    most_steps: ClassVar[int | None] = 100
    tf32: ClassVar[bool] = False

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """One thread feeds the device."""
        return [{"threads": 1}]

    def library(self):
        """PyTorch, made ready, if it has a device.

        Raises
        ------
        Missing
            If it is not installed, or has none; or if TF32 is wanted for float64.
        """
        torch = import_torch(self.settings["threads"])
        if not torch.cuda.is_available():
            raise Missing("no CUDA device")
        if self.tf32 and self.work.dtype != "float32":
            raise Missing(f"TF32 is for float32, not {self.work.dtype}")
        torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
        return torch

    def run(self, steps: int) -> Any:
        """All steps, waited for."""
        with self.watched():
            return self.take(steps)

    def take(self, steps: int) -> Any:
        """The usual loop."""
        return super().run(steps)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Waits for the device at the end, and has its own clock tell the time."""
        cuda = self.torch.cuda
        begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
        begin.record()
        yield
        end.record()
        cuda.synchronize()
        self.device_seconds = begin.elapsed_time(end) / 1e3


class TorchCudaGraph(TorchCuda):
    """The whole step, optimiser included, in a CUDA graph.

    With few batches in an epoch each has a graph of its own, which reads the samples where they lie. With many, one
    graph serves them all: it gathers the batch whose number is in the device's memory, and adds one to that. Then
    several steps in one graph are tried, too. Either keeps the loss of every step.
    """

    label = "PyTorch CUDA graph"
    most_steps = None

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """How many steps a graph has; the first is the fastest on an H200."""
        return [{"threads": 1, "unroll": unroll} for unroll in (STEPS if work.batches > GRAPHS else STEPS[-1:])]

    def __init__(self, work: Work, settings: Settings) -> None:
        if work.rule.kind == "adam":
            raise Missing("not written for the rule 'adam'")
        super().__init__(work, settings)
        torch = self.torch
        self.place = torch.zeros(2, dtype=torch.int64, device=self.device)
        self.number, self.taken = self.place[:1], self.place[1:]  # of the next batch; of steps in this call
        self.losses = torch.zeros(LONGEST, dtype=getattr(torch, work.dtype), device=self.device)
        self.warm_up()
        if work.batches <= GRAPHS:
            self.graphs = [self.capture(partial(self.one, x, y)) for x, y in self.batches]
        else:
            self.gathered = tuple(torch.stack(parts) for parts in zip(*self.batches, strict=True))
            self.batches = self.batches[:1]  # views of a copy no longer needed
            self.single = self.capture(self.next)
            self.several = self.capture(partial(self.next, settings["unroll"]))
        self.start_anew()

    def warm_up(self) -> None:
        """Some steps on a stream apart, as PyTorch's notes on graphs ask for."""
        cuda = self.torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(cuda.current_stream())
        with cuda.stream(stream):
            for _ in range(WARM):
                self.one(*self.batches[0])
        cuda.current_stream().wait_stream(stream)
        self.pool = cuda.graph_pool_handle()

    def capture(self, steps: Callable[[], Any]) -> Callable[[], Any]:
        """A graph of these steps: what plays it."""
        graph = self.torch.cuda.CUDAGraph()
        with self.torch.cuda.graph(graph, pool=self.pool):
            steps()
        return graph.replay

    def start_anew(self) -> None:
        """The initial weights and no velocity, in the memory that the graphs know."""
        initial = torch_model(self.torch, self.work).parameters()
        with self.torch.no_grad():
            for parameter, value in zip(self.model.parameters(), initial, strict=True):
                parameter.copy_(value)
                for kept in self.optimizer.state[parameter].values():
                    kept.zero_()
            self.place.zero_()

    def one(self, x: Any, y: Any) -> None:
        """A step with this batch."""
        self.optimizer.zero_grad()
        loss = self.loss(x, y)
        loss.backward()
        self.optimizer.step()
        self.losses.index_copy_(0, self.taken, loss.detach().reshape(1))
        self.place.add_(1)

    def next(self, steps: int = 1) -> None:
        """Steps with the batch whose number is in memory, and those after it."""
        for _ in range(steps):
            self.one(*(part.index_select(0, self.number)[0] for part in self.gathered))

    def prepare(self, steps: int) -> None:
        """Choose the graphs to be played.

        Raises
        ------
        ValueError
            If there are more steps than places for their losses.
        """
        if steps > LONGEST:
            raise ValueError(f"steps={steps}; expected {LONGEST} at most")
        numbers = self.next_batches(steps)
        self.place.copy_(self.torch.tensor([numbers[0], 0]))
        if self.work.batches <= GRAPHS:
            self.plays = [self.graphs[number] for number in numbers]
            return
        self.plays = []
        number = numbers[0]
        while steps:
            count = min(steps, self.work.batches - number)
            several, rest = divmod(count, self.settings["unroll"])
            self.plays += [self.several] * several + [self.single] * rest
            steps, number = steps - count, 0
            if steps:
                self.plays.append(self.number.zero_)

    def take(self, steps: int) -> Any:
        """A graph after the other."""
        for play in self.plays:
            play()
        return self.losses[:steps]

    def told(self, result: Any) -> list[float]:
        """The losses."""
        return result.tolist()


class TorchCudaCompiled(TorchCuda):
    """Forward, loss and backward through torch.compile in the mode "max-autotune", with the fused optimiser."""

    label = "PyTorch CUDA compiled"
    most_steps = None

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.compiled = autotuned(self.torch, super().loss, self.batches[0], "max-autotune")
        self.optimizer.zero_grad()

    def loss(self, x, y):
        """Forward, up to the loss, compiled."""
        # Its own CUDA graphs give every step's loss the same memory.
        return self.compiled(x, y).clone()


class TorchCudaCompiledGraph(TorchCudaGraph):
    """What torch.compile makes of forward, loss and backward, tuned as in "max-autotune", and the optimiser, all of it
    in one CUDA graph.
    """

    label = "PyTorch CUDA compiled, in a graph"

    def warm_up(self) -> None:
        """Compile first."""
        self.compiled = autotuned(self.torch, super().loss, self.batches[0], "max-autotune-no-cudagraphs")
        super().warm_up()

    def loss(self, x, y):
        """Forward, up to the loss, compiled."""
        return self.compiled(x, y)


def autotuned(torch: Any, function: Callable, batch: tuple, mode: str) -> Callable:
    """A function of samples and targets through torch.compile, its backward included.

    Raises
    ------
    Missing
        If its compiler does not work here.
    """
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(COMPILE_PROCESSES))
    return compiled(torch, function, lambda loss: loss(*batch).backward(), mode)


def with_tf32(kind: type[TorchCuda]) -> type[TorchCuda]:
    """The same contender with products in TF32."""

    class Tf32(kind):  # type: ignore[misc, valid-type]
        label = f"{kind.label}, TF32"
        family = f"{kind.family} TF32"
        arithmetic = "tf32"
        tf32 = True

    Tf32.__name__ = f"{kind.__name__}Tf32"
    Tf32.__doc__ = f"{kind.__doc__} In TF32: other arithmetic."
    return Tf32
