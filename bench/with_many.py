"""Many networks at once: `fit_many`, and how others train as many.

The works have the job "many": each network has initial weights of its own, all take the same batches, and a step is one
of every network. A contender tells the mean of the networks' losses.
"""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from fastmlp import Adam, Mlp
from fastmlp.bench.contender import Contender, Missing, Settings
from fastmlp.bench.with_jax import Jax
from fastmlp.bench.with_torch import compiled, import_torch, torch_loss, torch_model, torch_optimizer
from fastmlp.bench.work import Work
from fastmlp.many import fit_many

#: Steps of a turn that contenders take at most which are slow: whole epochs of the suite's works.
FEW_STEPS = 93


def expect_many(work: Work) -> None:
    """Refuse any other job.

    Raises
    ------
    Missing
    """
    if work.job != "many" or work.rule.kind != "adam":
        raise Missing(f"does the job 'many' with Adam alone, not {work.job!r} with {work.rule.kind!r}")


class FitMany(Contender):
    """`fit_many` with the threads that it chooses itself."""

    label = "fit_many"
    family = "fastmlp"
    threads: int | None = None

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_many(work)
        self.X, self.Y = work.load(shuffled=True)
        rule = work.rule
        self.optimizer = Adam(rule.learning_rate, rule.beta1, rule.beta2, rule.epsilon)
        self.networks = [self.network(number) for number in range(work.networks)]

    def network(self, number: int) -> Mlp:
        """One of the networks, with its initial weights."""
        work = self.work
        mlp = Mlp(work.sizes, activation=work.activation, loss=work.loss, init="zeros", dtype=work.dtype, threads=1)
        for own, initial in zip(mlp.weights, work.matrices(number=number), strict=True):
            own[:] = initial
        return mlp

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice, or the one that its name tells."""
        return [{"threads": cls.threads}]

    def prepare(self, steps: int) -> None:
        """Whole epochs where the steps are some; otherwise the samples of the batches, one after another."""
        work, (first, *_), numbers = self.work, *[self.next_batches(steps)] * 2
        whole = first == 0 and steps % work.batches == 0
        places = (np.array(numbers)[:, None] * work.batch_size + np.arange(work.batch_size)).ravel()
        self.options: dict[str, Any] = {
            "epochs": steps // work.batches if whole else 1,
            "samples": None if whole else [places] * work.networks,
            "batch_size": work.batch_size,
            "optimizer": self.optimizer,
            "shuffle": False,
        }

    def run(self, steps: int) -> list[float]:
        """One call; it tells the mean loss of all epochs."""
        histories = self.fit_all()
        return [float(np.mean([history.loss for history in histories]))]

    def fit_all(self) -> list:
        """Train all, and return their histories."""
        return fit_many(self.networks, self.X, self.Y, threads=self.settings["threads"], progress=False, **self.options)


class FitManyOneThread(FitMany):
    """`fit_many` in one thread."""

    label = "fit_many, 1 thread"
    family = "fit_many, 1 thread"
    threads = 1


class FitInPool(FitMany):
    """A pool of as many threads as there are cores, over `Mlp.fit`."""

    label = "pool of threads over fit"
    family = "pool over fit"

    def fit_all(self) -> list:
        """As one would write it."""
        options = {**self.options, "samples": (self.options["samples"] or [None])[0], "progress": False}
        with ThreadPoolExecutor() as pool:
            return list(pool.map(lambda mlp: mlp.fit(self.X, self.Y, **options), self.networks))


# ------------------------------------------------------------------------------------------------------------- PyTorch
class Loop:
    """Some of the networks in PyTorch, one after another, in one thread."""

    def __init__(self, work: Work, numbers: range) -> None:
        self.torch = torch = import_torch(1)
        X, Y = (torch.from_numpy(array) for array in work.load(shuffled=True))
        self.batches = list(zip(X.split(work.batch_size), Y.long().split(work.batch_size), strict=True))
        self.models = [torch_model(torch, work, number) for number in numbers]
        self.criterion = torch_loss(torch, work)
        self.make_optimizers(work)

    def make_optimizers(self, work: Work) -> None:
        """What is left to be set up."""
        self.optimizers = [torch_optimizer(self.torch, work, model.parameters(), True) for model in self.models]

    def run(self, numbers: list[int]) -> list[float]:
        """The losses over these batches, summed over the networks."""
        total = self.torch.zeros(len(numbers))
        for model, optimizer in zip(self.models, self.optimizers, strict=True):
            for i, number in enumerate(numbers):
                x, y = self.batches[number]
                optimizer.zero_grad()
                loss = self.criterion(model(x), y)
                loss.backward()
                optimizer.step()
                total[i] += loss.detach()
        return total.tolist()


class Vmapped(Loop):
    """The networks as one function of stacked weights, by `torch.vmap`."""

    def make_optimizers(self, work: Work) -> None:
        """What is left to be set up."""
        torch = self.torch
        stacked, _ = torch.func.stack_module_state(self.models)
        names, model = list(stacked), self.models[0]

        def loss(values, x, y):
            named = dict(zip(names, values, strict=True))
            return self.criterion(torch.func.functional_call(model, named, (x,)), y)

        self.values = list(stacked.values())
        together = torch.vmap(loss, in_dims=(0, None, None))
        self.losses = lambda x, y, *values: together(values, x, y)
        self.optimizer = torch_optimizer(torch, work, self.values, True)

    def run(self, numbers: list[int]) -> list[float]:
        """The usual loop, over all networks at once."""
        told = []
        for number in numbers:
            self.optimizer.zero_grad()
            losses = self.losses(*self.batches[number], *self.values)
            losses.sum().backward()
            self.optimizer.step()
            told.append(losses.detach().sum())
        return self.torch.stack(told).tolist()


class VmappedCompiled(Vmapped):
    """The same, forward and backward through torch.compile."""

    def make_optimizers(self, work: Work) -> None:
        """What is left to be set up."""
        super().make_optimizers(work)
        first = *self.batches[0], *self.values
        self.losses = compiled(self.torch, self.losses, lambda losses: losses(*first).sum().backward())


def serve(pipe: Any, kind: type[Loop], work: dict[str, Any], numbers: range) -> None:
    """Have some of the networks in this process, and answer until the pipe is closed."""
    part = kind(Work.from_dict(work), numbers)
    try:
        while True:
            pipe.send(part.run(pipe.recv()))
    except EOFError:
        return


class TorchLoop(Contender):
    """PyTorch as people write it, the networks shared out to as many processes as there are cores, a thread each."""

    label = "PyTorch, a loop in each process"
    family = "PyTorch"
    package = "torch"
    most_steps = FEW_STEPS
    part: ClassVar[type[Loop]] = Loop

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_many(work)
        count = settings["threads"]
        own, *others = [range(first, work.networks, count) for first in range(min(count, work.networks))]
        import_torch(1)
        self.own, context = self.part(work, own), multiprocessing.get_context("spawn")
        self.pipes = []
        for numbers in others:
            here, there = context.Pipe()
            arguments = there, self.part, work.to_dict(), numbers
            context.Process(target=serve, args=arguments, daemon=True).start()
            there.close()
            self.pipes.append(here)

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """A process for each core."""
        return [{"threads": cores}]

    def prepare(self, steps: int) -> None:
        """Choose the batches."""
        self.chosen = self.next_batches(steps)

    def run(self, steps: int) -> np.ndarray:
        """All at once, and wait for all."""
        for pipe in self.pipes:
            pipe.send(self.chosen)
        told = [self.own.run(self.chosen), *(pipe.recv() for pipe in self.pipes)]
        return np.sum(told, 0) / self.work.networks


class TorchVmap(TorchLoop):
    """The same with the networks of a process at once, by `torch.vmap`."""

    label = "PyTorch, vmap in each process"
    part = Vmapped


class TorchVmapCompiled(TorchLoop):
    """That through torch.compile."""

    label = "PyTorch, vmap compiled in each process"
    part = VmappedCompiled


# ----------------------------------------------------------------------------------------------------------------- JAX
class JaxVmap(Jax):
    """JAX: all steps of a call in one compiled `lax.scan`, each over all networks by `jax.vmap`."""

    label = "JAX, vmap in one scan"

    def __init__(self, work: Work, settings: Settings) -> None:
        Contender.__init__(self, work, settings)
        expect_many(work)
        self.jax = jax = self.library()
        X, Y = work.load(shuffled=True)
        self.X = jax.numpy.asarray(X.reshape(work.batches, work.batch_size, -1))
        self.Y = jax.numpy.asarray(Y.reshape(work.batches, work.batch_size))
        layers = zip(*(work.matrices(number=number) for number in range(work.networks)), strict=True)
        stacked = [np.stack(matrices) for matrices in layers]
        self.parameters = [
            (jax.numpy.asarray(W[:, :, 1:].transpose(0, 2, 1).copy()), jax.numpy.asarray(W[:, :, 0].copy()))
            for W in stacked
        ]
        zeros = jax.tree.map(jax.numpy.zeros_like, self.parameters)
        self.velocity = zeros, jax.tree.map(jax.numpy.zeros_like, self.parameters), jax.numpy.zeros((), "int32")
        if Jax.compiled_for != work:
            Jax.compiled_for = work
            Jax.compiled.clear()

    def _epoch(self, parameters, velocity, X, Y, numbers):
        """All steps of Adam: the batches of these numbers."""
        jax, np, rule = self.jax, self.jax.numpy, self.work.rule

        def step(carry, number):
            p, (m, v, taken) = carry
            x = jax.lax.dynamic_index_in_dim(X, number, keepdims=False)
            y = jax.lax.dynamic_index_in_dim(Y, number, keepdims=False)
            losses, g = jax.vmap(jax.value_and_grad(self._loss), (0, None, None))(p, x, y)
            taken = taken + 1
            m = jax.tree.map(lambda m, g: rule.beta1 * m + (1 - rule.beta1) * g, m, g)
            v = jax.tree.map(lambda v, g: rule.beta2 * v + (1 - rule.beta2) * g * g, v, g)
            first, second = 1 - rule.beta1**taken, 1 - rule.beta2**taken

            def updated(p, m, v):
                return p - rule.learning_rate * (m / first) / (np.sqrt(v / second) + rule.epsilon)

            return (jax.tree.map(updated, p, m, v), (m, v, taken)), losses.mean()

        unroll = min(self.settings["unroll"], len(numbers))
        (parameters, velocity), losses = jax.lax.scan(step, (parameters, velocity), numbers, unroll=unroll)
        return parameters, velocity, losses

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """All cores, and one step in the loop's body."""
        return [{"threads": cores, "unroll": 1}]
