"""The suites: which works are measured, with which contenders, for how long."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fastmlp.bench.contenders import THREADS
from fastmlp.bench.work import LAB_SHIFT, MOMENTUM, Work
from fastmlp.kernels import Rule

__all__ = ["SUITES", "Suite", "with_source"]

OURS = "fastmlp-cpu"
IN_ORDER = "fastmlp-cpu-in-order"
TORCH = ("torch-eager", "torch-fused", "torch-compiled")
RIVALS = (*TORCH, "torch-by-hand", "jax", "scikit-learn", "fastmlp-numpy")
FEW = (OURS, *TORCH[:2], "torch-by-hand", "jax")  #: without what PyTorch compiles, which takes its time
PREDICTORS = ("fastmlp-predict", "torch-predict", "torch-predict-compiled", "torch-predict-by-hand")
ON_GPU = ("fastmlp-cuda", "torch-cuda", "torch-cuda-graph", "jax-cuda")
COMPILED_ON_GPU = ("torch-cuda-compiled", "torch-cuda-compiled-graph")
THREADED = (*(f"fastmlp-threads-{count}" for count in THREADS), OURS)
MANY = ("fit-many", "fit-many-1", "fit-pool", "torch-loop", "torch-vmap", "torch-vmap-compiled", "jax-vmap")
LAB = ("fastmlp-lab", "fastmlp-lab-float32", "numpy-lab")

#: The batch sizes of the headline.
BATCHES = (1, 5, 10, 32, 128, 512, 4096, 10_000)
FEW_BATCHES = (5, 128, 10_000)
#: Those of the suites on a GPU, the ones that matter most first: time may run out. So with wider networks there.
GPU_BATCHES = (5, 1, 10, 32, 128, 10_000, 512, 4096, 60_000)
GPU_WIDE_BATCHES = (128, 10_000, 32, 512, 4096, 5, 1, 10, 60_000)
GPU_NETWORKS = ((784, 1000, 1000, 10), (784, 256, 128, 10))
GPU_STEPS, GPU_SAMPLES = 12_000, 1_000_000  #: of a turn there, at most
PLAIN = Rule("plain", learning_rate=0.01)
ADAM = Rule("adam", learning_rate=0.001, beta1=0.9, beta2=0.999, epsilon=1e-8)
#: The epochs of a turn of many networks, and these as (how many, sizes, samples, batch size).
MANY_EPOCHS = 50
MANY_NETWORKS = (
    (100, (20, 64, 64, 2), 1000, 32),
    (100, (4, 32, 16, 3), 200, 32),
    (20, (50, 256, 256, 256, 2), 1000, 250),
)
#: The other networks that must not fall behind, as (sizes, loss); the rest as for the headline.
NETWORKS = (
    ((784, 300, 10), "cross_entropy"),
    ((784, 128, 64, 10), "cross_entropy"),
    ((784, 512, 256, 10), "cross_entropy"),
    ((64, 32, 10), "cross_entropy"),
    ((20, 50, 1), "mean_squared_error"),
    ((100, 1), "binary_cross_entropy"),
    ((784, 1000, 1000, 10), "cross_entropy"),
)


@dataclass(frozen=True)
class Suite:
    """What one run measures.

    Parameters
    ----------
    summary : str
        In one line.
    jobs : tuple of (Work, tuple of str)
        Each work with its contenders; the first is the one whose speed-up is reported.
    rounds : int, default 15
        How often each contender has its turn.
    target : float, default 0.1
        Seconds that the fastest contender's turn should take, so that the clock is no matter …
    longest : float, default 1.0
        … unless the slowest one's would then take more than this.
    patience : float, optional
        Seconds after which no further setting of a rival is tried for a work; by default all are.
    steps : callable, optional
        From a work to the steps of a turn. Then no settings are tried: each contender takes the first of its own, and
        all are set up at once.
    gpu : bool, default False
        Whether it is for a GPU: the result names that, and has no ceilings.
    ceiling : bool, default True
        Whether PyTorch's matrix product is tried for the ceiling, too, and the memory's rate measured.
    whole_epochs : bool, default False
        Whether a turn that would be longer than an epoch is cut to whole ones.
    """

    summary: str
    jobs: tuple[tuple[Work, tuple[str, ...]], ...]
    rounds: int = 15
    target: float = 0.1
    longest: float = 1.0
    patience: float = float("inf")
    steps: Callable[[Work], int] | None = None
    gpu: bool = False
    ceiling: bool = True
    whole_epochs: bool = False


def on_mnist(**changes: Any) -> Work:
    """The headline's work, on MNIST as the lab's PyTorch program takes it, with changes."""
    return Work(**{"shift": LAB_SHIFT, **changes})


def _source(sizes: tuple[int, ...]) -> str:
    return "mnist" if (sizes[0], sizes[-1]) == (784, 10) else "synthetic"


def other_network(sizes: tuple[int, ...], loss: str, **changes: Any) -> Work:
    """The work for another network: on MNIST where it fits, otherwise on made-up vectors."""
    source = _source(sizes)
    shift = LAB_SHIFT if sizes[0] == 784 else 0.0
    return Work(sizes, loss=loss, source=source, shift=shift, **changes)


def _networks() -> list[tuple[Work, tuple[str, ...]]]:
    return [
        (other_network(sizes, loss, batch_size=batch_size), (OURS, IN_ORDER, *TORCH[1:], "torch-by-hand", "jax"))
        for sizes, loss in NETWORKS
        for batch_size in (1, 32, 512, 10_000)
    ]


def _on_gpu(batch_size: int, **changes: Any) -> tuple[Work, tuple[str, ...]]:
    return on_mnist(batch_size=batch_size, **changes), ON_GPU


def gpu_steps(work: Work) -> int:
    """The steps of a turn on a GPU; there is little time, so that none is spent on finding them."""
    return max(2, min(GPU_STEPS, GPU_SAMPLES // work.batch_size))


#: How works on a GPU are measured: in whole epochs. Times repeat to a part in a thousand there.
GPU: dict[str, Any] = {"rounds": 3, "whole_epochs": True, "steps": gpu_steps, "gpu": True}


def _many(networks: int, sizes: tuple[int, ...], samples: int, batch_size: int) -> tuple[Work, tuple[str, ...]]:
    changes: dict[str, Any] = {"samples": samples, "batch_size": batch_size, "rule": ADAM, "networks": networks}
    return Work(sizes, source="synthetic", job="many", **changes), MANY


HEADLINE = tuple((on_mnist(batch_size=batch_size), (OURS, IN_ORDER, *RIVALS)) for batch_size in BATCHES)
LAB_JOB = ((Work.lab(), LAB),)

#: name -> suite
SUITES = {
    "quick": Suite(
        "within a minute: two batch sizes, a third of MNIST, nothing compiled by PyTorch",
        tuple(
            (on_mnist(batch_size=b, samples=20_000), (OURS, "torch-eager", "torch-by-hand", "jax", "fastmlp-numpy"))
            for b in (5, 512)
        ),
        rounds=5,
        target=0.03,
        longest=0.3,
        patience=2.0,
        ceiling=False,
    ),
    "headline": Suite("[784, 100, 10] at eight batch sizes, every contender", HEADLINE),
    "lab": Suite("the lab's full-batch job against its NumPy program", LAB_JOB, rounds=5, target=1.5, longest=5.0),
    "issue2": Suite("batches of 5, as in the lab, and the lab's full-batch job", (HEADLINE[1], *LAB_JOB)),
    "batches": Suite(
        "[784, 100, 10] at fourteen batch sizes, without what PyTorch compiles: for the curve",
        tuple(
            (on_mnist(batch_size=b), (OURS, "torch-eager", "torch-fused", "torch-by-hand", "jax", "fastmlp-numpy"))
            for b in (1, 2, 5, 10, 20, 32, 64, 128, 256, 512, 1024, 2048, 4096, 10_000)
        ),
        rounds=9,
    ),
    "networks": Suite("other networks, from [100, 1] to [784, 1000, 1000, 10]", tuple(_networks()), rounds=9),
    "float64": Suite(
        "the headline's network in float64",
        tuple((replace(work, dtype="float64"), contenders) for work, contenders in HEADLINE),
        rounds=9,
    ),
    "pixels": Suite(
        "training from uint8 pixels against training from float32",
        tuple((on_mnist(batch_size=b), ("fastmlp-cpu-uint8", OURS)) for b in BATCHES),
    ),
    "predict": Suite(
        "the outputs of 10,000 images and of one",
        tuple((on_mnist(batch_size=b, job="predict"), PREDICTORS) for b in (10_000, 1)),
    ),
    "threads": Suite(
        "fastmlp with 1 to 16 threads, as far as there are cores, over batch sizes and networks down to [100, 1]",
        (
            *((on_mnist(batch_size=b), THREADED) for b in BATCHES),
            *(
                (other_network(sizes, loss, batch_size=b), THREADED)
                for sizes, loss in NETWORKS[3:6]
                for b in (1, 32, 512, 10_000)
            ),
        ),
        rounds=9,
    ),
    "bf16": Suite(
        "PyTorch under autocast to bfloat16, which is other arithmetic, beside float32",
        tuple((on_mnist(batch_size=b), (OURS, "torch-fused", "torch-bf16")) for b in (128, 512, 4096, 10_000)),
        rounds=9,
    ),
    "unshifted": Suite(
        "the headline on pixels 0 … 1, four fifths of them zero, as torchvision's ToTensor gives them",
        tuple((replace(work, shift=0.0), names) for work, names in HEADLINE),
    ),
    "dense": Suite(
        "the headline on pixels with noise, so that they hold nothing to save arithmetic by",
        tuple((replace(work, dense=True), names) for work, names in HEADLINE),
    ),
    "gpu": Suite(
        "[784, 100, 10] on a GPU at nine batch sizes, against PyTorch and JAX there",
        tuple(_on_gpu(b) for b in GPU_BATCHES),
        **GPU,
    ),
    "gpu-compiled": Suite(
        "the same against what torch.compile makes of it with max-autotune",
        tuple(
            (on_mnist(batch_size=b), ("fastmlp-cuda", *COMPILED_ON_GPU, *(f"{name}-tf32" for name in COMPILED_ON_GPU)))
            for b in GPU_BATCHES
        ),
        rounds=5,
        longest=1.5,
        patience=20.0,
        whole_epochs=True,
        gpu=True,
    ),
    "gpu-networks": Suite(
        "deeper and wider networks on a GPU",
        tuple(_on_gpu(b, sizes=sizes) for sizes in GPU_NETWORKS for b in GPU_WIDE_BATCHES),
        **GPU,
    ),
    "many": Suite(
        "many networks at once, 50 epochs of Adam each: fit_many, threads over fit, PyTorch and JAX",
        tuple(_many(*one) for one in MANY_NETWORKS),
        rounds=3,
        steps=lambda work: MANY_EPOCHS * work.batches,
        ceiling=False,
    ),
    "activations": Suite(
        "[784, 100, 10] with sigmoid, tanh and relu at three batch sizes",
        tuple(
            (on_mnist(batch_size=b, activation=activation), FEW)
            for activation in ("sigmoid", "tanh", "relu")
            for b in FEW_BATCHES
        ),
        rounds=9,
    ),
    "rules": Suite(
        "[784, 100, 10] with plain SGD and with momentum at three batch sizes",
        tuple((on_mnist(batch_size=b, rule=rule), FEW) for rule in (PLAIN, MOMENTUM) for b in FEW_BATCHES),
        rounds=9,
    ),
}


def with_source(suite: Suite, source: str) -> Suite:
    """The suite with its samples from elsewhere, such as "synthetic" where MNIST is missing."""
    return replace(suite, jobs=tuple((replace(work, source=source), names) for work, names in suite.jobs))
