"""fastmlp as a contender."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from fastmlp import kernels
from fastmlp.bench.contender import Contender, Missing, Settings, expect_training, limit_blas
from fastmlp.bench.work import LEVELS, Work


class Fastmlp(Contender):
    """A backend of fastmlp, through the kernel contract's `train_epoch`."""

    family = "fastmlp"
    backend: ClassVar[str]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_training(work)
        try:
            self.kernels = kernels.backend(self.backend)
        except RuntimeError as error:
            raise Missing(str(error)) from None
        self.network = work.network()
        self.X, self.Y = work.load()
        self.order = work.order()
        self.parameters = work.parameters()
        self.state = self.network.state(work.rule)

    def prepare(self, steps: int) -> None:
        """Lay out the order of the next samples."""
        B = self.work.batch_size
        first = self.step % self.work.batches * B
        rounds = -(-(first + steps * B) // len(self.order))
        self.next_order = np.tile(self.order, rounds)[first : first + steps * B]
        self.step += steps

    def run(self, steps: int) -> np.ndarray:
        """One call, as for an epoch."""
        return self.kernels.train_epoch(
            self.network,
            self.work.rule,
            self.parameters,
            self.state,
            self.X,
            self.Y,
            self.next_order,
            self.work.batch_size,
            threads=self.settings["threads"],
        )


class FastmlpCpu(Fastmlp):
    """The compiled backend, with the number of threads that it chooses itself."""

    label = "fastmlp"
    backend = "cpu"

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice: what users get."""
        return [{"threads": None}]


def with_threads(count: int) -> type[FastmlpCpu]:
    """The compiled backend with at most so many threads, as a contender."""

    class FastmlpThreads(FastmlpCpu):
        label = "1 thread" if count == 1 else f"{count} threads"
        family = "fastmlp, threads given"

        @classmethod
        def settings_for(cls, work: Work, cores: int) -> list[Settings]:
            if count > cores:
                raise Missing(f"this machine has {cores} core{'s' * (cores > 1)}")
            return [{"threads": count}]

    FastmlpThreads.__doc__ = f"The compiled backend with {count} at most."
    return FastmlpThreads


class FastmlpCpuInOrder(FastmlpCpu):
    """The compiled backend on samples that lie in the order of their use, as the rivals' do."""

    label = "fastmlp, samples in order"
    family = "fastmlp, samples in order"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.X, self.Y = work.load(shuffled=True)
        self.order = np.arange(len(self.X))


class FastmlpCuda(FastmlpCpu):
    """The CUDA backend, with samples, weights and state on the device as in the epochs of `Mlp.fit`."""

    label = "fastmlp CUDA"
    backend = "cuda"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.place()

    def place(self) -> None:
        """Everything to the device, but the order: it is new in each epoch, and goes there inside the clock."""
        from fastmlp.kernels.cuda import memory

        self.X, self.Y, self.parameters = map(memory.place, (self.X, self.Y, self.parameters))
        if self.state.slots.size:
            self.state = replace(self.state, slots=memory.place(self.state.slots))


class FastmlpCpuPixels(FastmlpCpu):
    """The compiled backend on the images as they are, uint8."""

    label = "fastmlp from uint8"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        use_pixels(self)


def use_pixels(contender: Fastmlp) -> None:
    """Give a contender the images as they are.

    Raises
    ------
    Missing
        If the work has none.
    """
    work = contender.work
    if not work.has_pixels or work.dense:
        raise Missing("the samples are no bytes")
    contender.X = work.pixels()
    contender.network = replace(contender.network, input_scale=1 / LEVELS, input_shift=work.shift)


class FastmlpCudaPixels(FastmlpCuda):
    """The CUDA backend on the images as they are, uint8."""

    label = "fastmlp CUDA from uint8"

    def place(self) -> None:
        """The pixels in place of the samples."""
        use_pixels(self)
        super().place()


class FastmlpNumpy(Fastmlp):
    """The oracle: plain NumPy."""

    label = "NumPy oracle"
    family = "NumPy"
    package = "numpy"
    backend = "numpy"

    def __init__(self, work: Work, settings: Settings) -> None:
        limit_blas(settings["threads"])
        super().__init__(work, settings)


class FastmlpLab(Contender):
    """The lab's job through the lab's class: iterations, and the loss of the prediction after each."""

    label = "fastmlp"
    family = "fastmlp"

    def __init__(self, work: Work, settings: Settings) -> None:
        from fastmlp import Mlp

        super().__init__(work, settings)
        if work.job != "lab":
            raise Missing("does the lab's job alone")
        self.X, self.Y = work.load()
        self.mlp = Mlp(
            work.sizes,
            activation=work.activation,
            loss=work.loss,
            init="zeros",
            dtype=self.dtype or work.dtype,
            backend="cpu",
            threads=settings["threads"],
        )
        for own, initial in zip(self.mlp.weights, work.matrices(), strict=True):
            own[:] = initial

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice: what users get."""
        return [{"threads": None}]

    def run(self, steps: int) -> list[float]:
        """As one would write it."""
        losses: list[float] = []
        self.mlp.train(self.X, self.Y, iterations=steps, errors=losses)
        return losses


class FastmlpLabFloat32(FastmlpLab):
    """The same in single precision."""

    label = "fastmlp, float32"
    dtype = "float32"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.Y = self.Y.astype(np.float32)
