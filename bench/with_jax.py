"""JAX as a contender."""

import os
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from fastmlp.bench.contender import EXTRA, Contender, Missing, Settings, expect_training, thread_counts
from fastmlp.bench.work import Work


class Jax(Contender):
    """JAX with all steps of a call in one compiled `lax.scan`."""

    label = "JAX, one scan"
    family = "JAX"
    package = "jax"
    threads_by_process = True
    platform: ClassVar[str] = "cpu"
    #: What this process has compiled for the last work: (settings, steps) -> epoch.
    compiled: ClassVar[dict[Any, Callable]] = {}
    compiled_for: ClassVar[Work | None] = None

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """Threads, and how many steps the loop's body holds."""
        unrolled = (1, 4) if work.batch_size <= 32 else (1,)
        return [{"threads": threads, "unroll": unroll} for unroll in unrolled for threads in thread_counts(cores)]

    def __init__(self, work: Work, settings: Settings) -> None:
        super().__init__(work, settings)
        expect_training(work)
        if work.rule.kind not in ("plain", "momentum"):
            raise Missing(f"not written for the rule {work.rule.kind!r}")
        self.jax = jax = self.library()
        X, Y = work.load(shuffled=True)
        shape = (work.batches, work.batch_size)
        self.X = jax.numpy.asarray(X.reshape(*shape, -1))
        self.Y = jax.numpy.asarray(Y.reshape(shape if Y.ndim == 1 else (*shape, -1)))
        matrices = work.matrices()
        self.parameters = [(jax.numpy.asarray(W[:, 1:].T.copy()), jax.numpy.asarray(W[:, 0].copy())) for W in matrices]
        self.velocity = jax.tree.map(jax.numpy.zeros_like, self.parameters)
        if Jax.compiled_for != work:
            Jax.compiled_for = work
            Jax.compiled.clear()

    def library(self):
        """JAX, made ready.

        Raises
        ------
        Missing
            If it is not installed.
        """
        try:
            import jax
        except ImportError as error:
            raise Missing(f"JAX is not installed ({error}); {EXTRA}") from None
        jax.config.update("jax_platforms", self.platform)
        jax.config.update("jax_enable_x64", self.work.dtype == "float64")
        return jax

    def _loss(self, parameters, x, y):
        jax, work = self.jax, self.work
        a = x
        for layer, (W, b) in enumerate(parameters):
            z = a @ W + b
            if layer < len(parameters) - 1:
                a = getattr(jax.nn, work.activation)(z)
        if work.loss == "cross_entropy":
            return -(jax.nn.log_softmax(z) * jax.nn.one_hot(y, z.shape[-1], dtype=z.dtype)).sum(-1).mean()
        if work.loss == "binary_cross_entropy":
            return (jax.numpy.maximum(z, 0) - z * y + jax.numpy.log1p(jax.numpy.exp(-abs(z)))).sum(-1).mean()
        return 0.5 * ((z - y) ** 2).sum(-1).mean()

    def _epoch(self, parameters, velocity, X, Y, numbers):
        """All steps: the batches of these numbers."""
        jax, rule = self.jax, self.work.rule

        def step(carry, number):
            p, v = carry
            x = jax.lax.dynamic_index_in_dim(X, number, keepdims=False)
            y = jax.lax.dynamic_index_in_dim(Y, number, keepdims=False)
            loss, g = jax.value_and_grad(self._loss)(p, x, y)
            v = g if rule.kind == "plain" else jax.tree.map(lambda v, g: rule.momentum * v + g, v, g)
            p = jax.tree.map(lambda p, v: p - rule.learning_rate * v, p, v)
            return (p, v), loss

        unroll = min(self.settings["unroll"], len(numbers))
        (parameters, velocity), losses = jax.lax.scan(step, (parameters, velocity), numbers, unroll=unroll)
        return parameters, velocity, losses

    def prepare(self, steps: int) -> None:
        """Choose the batches; compile for this number of steps."""
        self.numbers = self.jax.numpy.asarray(np.array(self.next_batches(steps), np.int32))
        key = type(self), *self.settings.values(), steps
        if key not in self.compiled:
            epoch = self.jax.jit(self._epoch, donate_argnums=(0, 1))
            arguments = (self.parameters, self.velocity, self.X, self.Y, self.numbers)
            self.compiled[key] = epoch.lower(*arguments).compile()
        self.epoch = self.compiled[key]

    def run(self, steps: int) -> np.ndarray:
        """One call, waited for."""
        arguments = (self.parameters, self.velocity, self.X, self.Y, self.numbers)
        self.parameters, self.velocity, losses = self.epoch(*arguments)
        self.jax.block_until_ready((self.parameters, losses))
        return np.asarray(losses)


class JaxCuda(Jax):
    """The same on a CUDA device, samples and all."""

    label = "JAX CUDA, one scan"
    family = "JAX CUDA"
    threads_by_process = False
    platform = "cuda"
    precision: ClassVar[str] = "float32"  #: of products of float32 matrices

    @classmethod
    def settings_for(cls, work: Work, cores: int) -> list[Settings]:
        """How many steps the loop's body holds, the fastest on an H200 first; one thread feeds the device."""
        return [{"threads": 1, "unroll": unroll} for unroll in ((8, 1) if work.batch_size <= 128 else (1,))]

    def library(self):
        """JAX, made ready, if it has a device.

        Raises
        ------
        Missing
            If it is not installed, or has none.
        """
        # Or else it takes three quarters of the device's memory, which others need meanwhile.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        jax = super().library()
        try:
            jax.devices(self.platform)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise Missing(f"JAX has no CUDA device: {reason}") from None
        jax.config.update("jax_default_matmul_precision", self.precision)
        return jax


class JaxCudaTf32(JaxCuda):
    """The same, its products in TF32: other arithmetic."""

    label = "JAX CUDA, TF32"
    family = "JAX CUDA TF32"
    arithmetic = "tf32"
    precision = "tensorfloat32"

    def __init__(self, work: Work, settings: Settings) -> None:
        if work.dtype != "float32":
            raise Missing(f"TF32 is for float32, not {work.dtype}")
        super().__init__(work, settings)
