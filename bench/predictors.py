"""Contenders for the job "predict": the outputs of a batch, after softmax or sigmoid.

fastmlp is asked as its users ask it, through `Mlp.predict`, which takes and returns NumPy arrays. PyTorch gets its
batch as a tensor that is a view of the samples, and may leave its outputs as a tensor.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastmlp.bench.contender import Contender, Missing, Settings, thread_counts
from fastmlp.bench.with_torch import compiled, import_torch, torch_model
from fastmlp.bench.work import Work

__all__ = ["FastmlpPredict", "TorchPredictByHand", "TorchPredictCompiled", "TorchPredictEager"]


class Predictor(Contender):
    """What predictors share: batches of samples, round and round."""

    batches: list[Any]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        if work.job != "predict":
            raise Missing(f"does the job 'predict' alone, not {work.job!r}")

    def prepare(self, steps: int) -> None:
        """Choose the batches."""
        self.chosen = [self.batches[number] for number in self.next_batches(steps)]

    def told(self, result: Any) -> list[float]:
        """The outputs, row by row."""
        return np.asarray(result).ravel().tolist()


class FastmlpPredict(Predictor):
    """`Mlp.predict`, with the number of threads that it chooses itself."""

    label = "fastmlp"
    family = "fastmlp"

    def __init__(self, work: Work, settings: Settings) -> None:
        from fastmlp import Mlp

        super().__init__(work, settings)
        self.mlp = Mlp(
            work.sizes,
            activation=work.activation,
            loss=work.loss,
            init="zeros",
            dtype=work.dtype,
            backend="cpu",
            threads=settings["threads"],
        )
        for own, initial in zip(self.mlp.weights, work.matrices(), strict=True):
            own[:] = initial
        X, _ = work.load(shuffled=True)
        self.batches = list(X.reshape(work.batches, work.batch_size, -1))

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Its own choice: what users get."""
        return [{"threads": None}]

    def run(self, steps: int) -> np.ndarray:
        """A call for each batch; returns the outputs of the last."""
        predict = self.mlp.predict
        for x in self.chosen:
            outputs = predict(x)
        return outputs


class TorchPredictEager(Predictor):
    """PyTorch as people write it, in inference mode."""

    label = "PyTorch eager"
    family = "PyTorch"
    package = "torch"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        self.torch = torch = import_torch(settings["threads"])
        self.batches = list(torch.from_numpy(work.load(shuffled=True)[0]).split(work.batch_size))
        self.model = torch_model(torch, work).eval()
        self.activate = output_activation(torch, work)

    def outputs(self, x: Any) -> Any:
        """Of one batch."""
        return self.activate(self.model(x))

    def run(self, steps: int) -> Any:
        """A call for each batch; returns the outputs of the last."""
        with self.torch.inference_mode():
            for x in self.chosen:
                outputs = self.outputs(x)
            return outputs


class TorchPredictCompiled(TorchPredictEager):
    """The same through torch.compile, for this very shape."""

    label = "PyTorch compiled"

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        with self.torch.inference_mode():
            self.compiled = compiled(self.torch, super().outputs, lambda call: call(self.batches[0]))

    def outputs(self, x: Any) -> Any:
        """Of one batch, compiled."""
        return self.compiled(x)


class TorchPredictByHand(Predictor):
    """PyTorch's operations called by hand, into preallocated tensors; weights stored [in, out] or [out, in]."""

    label = "PyTorch by hand"
    family = "PyTorch by hand"
    package = "torch"

    #: name -> the operation in place
    ACTIVATIONS: ClassVar[dict[str, str]] = {"relu": "relu_", "sigmoid": "sigmoid_", "tanh": "tanh_"}

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Threads, and both layouts of the weights."""
        return [
            {"threads": threads, "weights": weights}
            for threads in thread_counts(cores)
            for weights in ("in_out", "out_in")
        ]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        if work.activation not in self.ACTIVATIONS:
            raise Missing(f"not written by hand for the activation {work.activation!r}")
        self.torch = torch = import_torch(settings["threads"])
        dtype, B = getattr(torch, work.dtype), work.batch_size
        self.batches = list(torch.from_numpy(work.load(shuffled=True)[0]).split(B))
        activate = getattr(torch, self.ACTIVATIONS[work.activation])
        self.layers: list[tuple[Any, Any, Any, Callable]] = []
        for number, matrix in enumerate(work.matrices()):
            bias, weights = torch.from_numpy(matrix[:, 0].copy()), torch.from_numpy(matrix[:, 1:].copy()).t()
            if settings["weights"] == "in_out":
                weights = weights.contiguous()
            last = number == len(work.sizes) - 2
            out = torch.zeros(B, len(matrix), dtype=dtype)
            self.layers.append((bias, weights, out, self._output(out) if last else activate))

    def _output(self, z: Any) -> Callable:
        """The output's activation, in place."""
        if self.work.loss == "cross_entropy":
            return lambda _: self.torch.softmax(z, 1, out=z)
        return self.torch.sigmoid_ if self.work.loss == "binary_cross_entropy" else lambda _: None

    def run(self, steps: int) -> Any:
        """A call for each batch; returns the outputs of the last."""
        addmm, layers = self.torch.addmm, self.layers
        with self.torch.inference_mode():
            for x in self.chosen:
                a = x
                for bias, weights, out, activate in layers:
                    addmm(bias, a, weights, out=out)
                    activate(out)
                    a = out
        return a


def output_activation(torch: Any, work: Work) -> Callable:
    """What makes outputs of the last layer's sums."""
    if work.loss == "cross_entropy":
        return lambda z: torch.softmax(z, 1)
    return torch.sigmoid if work.loss == "binary_cross_entropy" else lambda z: z
