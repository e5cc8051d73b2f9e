"""The programs whose time to an accuracy is measured, each run in a process of its own from its very start.

``python -m fastmlp.bench.accuracy_programs`` reads what to do from a JSON line on standard input: the program, its
settings, a seed, the folder with MNIST as torchvision lays it out, and the accuracy to end at. After each epoch it
tests, and prints a JSON line with the epoch, the accuracy, and the seconds of all training so far: calls that train
alone, without imports, data, what fastmlp compiles, and tests.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

__all__ = ["PROGRAMS", "main"]

SIZES = (784, 100, 10)
Settings = dict[str, Any]


class Stopwatch:
    """Seconds that a program has trained."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """It runs within the block."""
        begin = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - begin


TRAINING = Stopwatch()


def rates(settings: Settings) -> list[float]:
    """The learning rate of each epoch: the same for all, or falling linearly, to reach zero after the last."""
    rate, epochs = settings["learning_rate"], settings["epochs"]
    return [rate * (1 - epoch / epochs) if settings["decline"] else rate for epoch in range(epochs)]


def fastmlp(settings: Settings, seed: int, folder: str, backend: str = "cpu") -> Iterator[float]:
    """fastmlp, from uint8 pixels."""
    from fastmlp import Mlp, Sgd, data

    mnist = data.mnist(folder)
    train, test = (mnist.train_images, mnist.train_labels), (mnist.test_images, mnist.test_labels)
    mlp = Mlp(
        SIZES,
        activation="relu",
        loss="cross_entropy",
        init="torch",
        dtype="float32",
        seed=seed,
        backend=backend,
        input_scale=1 / 255,
        input_shift=settings["shift"],
    )
    for rate in rates(settings):
        optimizer = Sgd(rate, settings["momentum"])
        with TRAINING.running():
            mlp.fit(*train, epochs=1, batch_size=settings["batch_size"], optimizer=optimizer, progress=False)
        TRAINING.seconds -= mlp.compile_seconds
        yield mlp.evaluate(*test).accuracy


def torch_parts(settings: Settings, seed: int, fused: bool, device: str = "cpu") -> tuple:
    """PyTorch, the lab's network, its loss and its optimiser."""
    import torch

    torch.set_flush_denormal(True)
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    torch.manual_seed(seed)
    n_in, hidden, n_out = SIZES
    model = torch.nn.Sequential(torch.nn.Linear(n_in, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, n_out))
    model.to(device)
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), settings["learning_rate"], momentum=settings["momentum"], fused=fused or None
    )
    return torch, model, criterion, optimizer


def torch_dataloader(settings: Settings, seed: int, folder: str) -> Iterator[float]:
    """The lab's program: torchvision's MNIST, transforms and DataLoader, image by image."""
    torch, model, criterion, optimizer = torch_parts(settings, seed, fused=False)
    from torchvision import datasets, transforms

    steps: list[Any] = [transforms.ToTensor()]
    if settings["shift"]:
        steps.append(transforms.Normalize((-settings["shift"],), (1.0,)))
    transform = transforms.Compose(steps)
    train, test = (datasets.MNIST(folder, train=train, transform=transform) for train in (True, False))
    batches = torch.utils.data.DataLoader(train, batch_size=settings["batch_size"], shuffle=True)
    tests = torch.utils.data.DataLoader(test, batch_size=max(settings["batch_size"], 100))
    for rate in rates(settings):
        optimizer.param_groups[0]["lr"] = rate
        with TRAINING.running():
            for images, labels in batches:
                optimizer.zero_grad()
                criterion(model(images.flatten(1)), labels).backward()
                optimizer.step()
        right = 0
        with torch.no_grad():
            for images, labels in tests:
                right += int((model(images.flatten(1)).argmax(1) == labels).sum())
        yield right / len(test)


def torch_preloaded(settings: Settings, seed: int, folder: str, device: str = "cpu") -> Iterator[float]:
    """PyTorch with all images as one tensor, gathered by a random order, and the fused optimiser."""
    torch, model, criterion, optimizer = torch_parts(settings, seed, True, device)
    from torchvision import datasets

    wait: Callable[[], Any] = torch.cuda.synchronize if device == "cuda" else lambda: None
    (X, y), (test_X, test_y) = (
        (found.data.flatten(1).float().div_(255).add_(settings["shift"]).to(device), found.targets.to(device))
        for found in (datasets.MNIST(folder, train=train) for train in (True, False))
    )
    for rate in rates(settings):
        optimizer.param_groups[0]["lr"] = rate
        with TRAINING.running():
            for batch in torch.randperm(len(X), device=device).split(settings["batch_size"]):
                optimizer.zero_grad()
                criterion(model(X[batch]), y[batch]).backward()
                optimizer.step()
            wait()
        with torch.inference_mode():
            yield (model(test_X).argmax(1) == test_y).float().mean().item()


def jax_scan(settings: Settings, seed: int, folder: str, platform: str = "cpu") -> Iterator[float]:
    """JAX, an epoch a call: one compiled scan over a random order of the images."""
    import jax
    import numpy as np

    from fastmlp import data

    jax.config.update("jax_platforms", platform)
    jax.config.update("jax_default_matmul_precision", "float32")
    mnist = data.mnist(folder)
    X, test_X = (
        jax.numpy.asarray(images.astype(np.float32) * np.float32(1 / 255) + np.float32(settings["shift"]))
        for images in (mnist.train_images, mnist.test_images)
    )
    y, test_y = (jax.numpy.asarray(labels.astype(np.int32)) for labels in (mnist.train_labels, mnist.test_labels))
    rng = np.random.default_rng(seed)
    parameters = []
    for n_in, n_out in pairwise(SIZES):
        bound = n_in**-0.5  # as PyTorch's Linear
        W, b = rng.uniform(-bound, bound, (n_in, n_out)), rng.uniform(-bound, bound, n_out)
        parameters.append((jax.numpy.asarray(W, np.float32), jax.numpy.asarray(b, np.float32)))
    velocity = jax.tree.map(jax.numpy.zeros_like, parameters)
    momentum, B = settings["momentum"], settings["batch_size"]
    steps = len(X) // B  # what is left over belongs to another epoch's order

    def logits(parameters: Any, x: Any) -> Any:
        (W, b), (V, c) = parameters
        return jax.nn.relu(x @ W + b) @ V + c

    def loss(parameters: Any, x: Any, y: Any) -> Any:
        return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits(parameters, x)), y[:, None], 1).mean()

    # Images come as arguments: as constants of the program they would have XLA compile for seconds.
    def epoch(parameters: Any, velocity: Any, X: Any, y: Any, order: Any, rate: Any) -> Any:
        def step(carry: Any, batch: Any) -> Any:
            p, v = carry
            g = jax.grad(loss)(p, X[batch], y[batch])
            v = jax.tree.map(lambda v, g: momentum * v + g, v, g)
            return (jax.tree.map(lambda p, v: p - rate * v, p, v), v), None

        return jax.lax.scan(step, (parameters, velocity), order)[0]

    epoch = jax.jit(epoch, donate_argnums=(0, 1))
    test = jax.jit(lambda parameters, X, y: (logits(parameters, X).argmax(1) == y).mean())
    for rate in rates(settings):
        order = rng.permutation(len(X))[: steps * B].reshape(steps, B)
        with TRAINING.running():
            trained = epoch(parameters, velocity, X, y, jax.numpy.asarray(order), np.float32(rate))
            parameters, velocity = jax.block_until_ready(trained)
        yield float(test(parameters, test_X, test_y))


#: name -> (label, the package whose version counts, program)
PROGRAMS: dict[str, tuple[str, str, Callable[[Settings, int, str], Iterator[float]]]] = {
    "fastmlp": ("fastmlp", "fastmlp", fastmlp),
    "jax": ("JAX, one scan an epoch", "jax", jax_scan),
    "torch-preloaded": ("PyTorch, data in memory", "torch", torch_preloaded),
    "torch-dataloader": ("PyTorch, DataLoader", "torch", torch_dataloader),
    "lab": ("the lab's PyTorch program as it stands", "torch", torch_dataloader),
    "fastmlp-cuda": ("fastmlp CUDA", "fastmlp", partial(fastmlp, backend="cuda")),
    "jax-cuda": ("JAX CUDA, one scan an epoch", "jax", partial(jax_scan, platform="cuda")),
    "torch-cuda": ("PyTorch CUDA, data on the device", "torch", partial(torch_preloaded, device="cuda")),
}


def main() -> None:
    """Run the program that standard input asks for."""
    asked = json.loads(sys.stdin.readline())
    program = PROGRAMS[asked["program"]][2]
    for epoch, accuracy in enumerate(program(asked["settings"], asked["seed"], asked["folder"]), 1):
        told = {"epoch": epoch, "accuracy": accuracy, "training": round(TRAINING.seconds, 4)}
        print(json.dumps(told), flush=True)
        if accuracy >= asked["enough"]:
            break


if __name__ == "__main__":
    main()
