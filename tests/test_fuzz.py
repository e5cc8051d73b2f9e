"""Random cases: damaged files, hostile arrays and arguments, interrupts at any step.

Each ends in the right result, or in a documented exception with the object as it was. FASTMLP_FUZZ says how many cases
there are (`make fuzz` runs 20,000), FASTMLP_FUZZ_SEED which; a case that fails says how to repeat it alone.
"""

import faulthandler
import gzip
import hashlib
import io
import json
import math
import os
import pickle
import re
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from threading import Timer
from typing import Any

import hostile
import numpy as np
import pytest
from problems import forced

from fastmlp import Adam, Callback, Mlp, Sgd, data, kernels
from fastmlp.images import read_images
from fastmlp.initializers import INITIALIZERS
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.kernels.losses import OUTPUTS

CASES = int(os.environ.get("FASTMLP_FUZZ", "1000"))
SEED = int(os.environ.get("FASTMLP_FUZZ_SEED", "0"))
FIRST = int(os.environ.get("FASTMLP_FUZZ_FIRST", "0"))
MOST_FAILURES = 10  #: of one kind, before the rest is left
SECONDS = 120  #: for one case; it takes milliseconds


def one_of(rng: np.random.Generator, choices: Any) -> Any:
    """Any of them, as it is."""
    choices = list(choices)
    return choices[rng.integers(len(choices))]


# ---- networks, and what is known of them ----


@dataclass
class Problem:
    """A network, samples and targets that suit it, and how to train it."""

    mlp: Mlp
    X: np.ndarray  #: float64, quarters or eighths
    y: np.ndarray  #: labels, int64, or rows, float64
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def tolerance(self) -> dict[str, float]:
        eps = float(np.finfo(self.mlp.network.dtype).eps)
        return {"rtol": 2000 * eps, "atol": 2000 * eps}


def random_mlp(rng: np.random.Generator, backend: str, **options: Any) -> Mlp:
    """A small network of any kind."""
    loss = one_of(rng, OUTPUTS)
    sizes = [*rng.integers(1, 7, rng.integers(1, 4)).tolist(), int(rng.integers(1 + (loss == "cross_entropy"), 5))]
    return Mlp(
        sizes,
        activation=one_of(rng, ACTIVATIONS),
        loss=loss,
        dtype=one_of(rng, ["float32", "float64"]),
        init=one_of(rng, ["torch", "lab", "glorot_normal"]),
        seed=int(rng.integers(1000)),
        backend=backend,
        bias=bool(rng.random() < 0.8),
        reg_lambda=one_of(rng, [0.0, 0.1]),
        input_scale=one_of(rng, [1.0, 0.5]),
        input_shift=one_of(rng, [0.0, -0.25]),
        **options,
    )


def random_problem(rng: np.random.Generator, backend: str = "numpy", most: int = 9, **options: Any) -> Problem:
    """A network with four samples or more, and with a few epochs behind it now and then."""
    mlp = random_mlp(rng, backend, **options)
    n, n_out = int(rng.integers(4, most + 1)), mlp.network.sizes[-1]
    X = rng.integers(-20, 20, (n, mlp.network.sizes[0])) / one_of(rng, [4, 8])
    if rng.random() < 0.3:
        X = abs(np.round(X))
    if n_out > 1 and rng.random() < 0.6:
        y = rng.integers(0, n_out, n)
    elif mlp.network.loss == "cross_entropy":
        y = np.full((n, n_out), 0.0)
        y[np.arange(n), rng.integers(0, n_out, n)] = 1
    else:
        y = rng.integers(0, 9, (n, n_out)) / 8
    optimizer = one_of(
        rng, [Sgd(0.02), Sgd(0.02, momentum=0.9), Sgd(0.02, momentum=0.5, nesterov=True), Adam(0.01, epsilon=1e-3)]
    )
    training = {"batch_size": int(rng.integers(1, n + 1)), "optimizer": optimizer, "progress": False}
    if rng.random() < 0.3:
        quietly(lambda: mlp.fit(X, y, epochs=2, **training))
    return Problem(mlp, X, y, training)


def quietly(call: Callable[[], Any]) -> Any:
    """What a call gives; its warnings must be meant for the caller, not come from somewhere within."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = call()
    for warning in caught:
        assert warning.filename == __file__, f"{warning.filename}:{warning.lineno}: {warning.message}"
    return result


def twin(mlp: Mlp) -> Mlp:
    """A copy that shares nothing."""
    return pickle.loads(pickle.dumps(mlp))


def refusal(
    call: Callable[[], Any], names: str, mlp: Mlp | None = None, other: type[Exception] = ValueError
) -> tuple[Any, Exception | None]:
    """What a call gives, or how it was refused: in words that name the argument, with the object as it was."""
    before = pickle.dumps(mlp)
    try:
        return quietly(call), None
    except (TypeError, ValueError, other) as error:
        refused = error
    if not re.search(rf"(?<!\w)({names})(?!\w)", str(refused)) and not isinstance(refused, OSError):
        raise AssertionError(f"it does not name {names}") from refused
    if pickle.dumps(mlp) != before:
        raise AssertionError("it has changed something before it was refused") from refused
    return None, refused


# ---- arrays ----

CALLS: dict[str, Callable[[Problem, Mlp, Any, Any], Any]] = {
    "predict": lambda p, mlp, X, y: mlp.predict(X),
    "classify": lambda p, mlp, X, y: mlp.classify(X),
    "evaluate": lambda p, mlp, X, y: mlp.evaluate(X, y),
    "score": lambda p, mlp, X, y: mlp.score(X, y),
    "fit": lambda p, mlp, X, y: np.append(mlp.fit(X, y, epochs=2, **p.options).loss, mlp.parameters),
    "validation": lambda p, mlp, X, y: mlp.fit(p.X, p.y, epochs=1, validation=(X, y), **p.options).val_loss,
    "train": lambda p, mlp, X, y: mlp.train(X, y, 2) or mlp.parameters,
    "backpropagation": lambda p, mlp, X, y: np.concatenate([g.ravel() for g in mlp.backpropagation(X, y)]),
    "feedforward": lambda p, mlp, X, y: np.concatenate([a.ravel() for a in mlp.feedforward(X)[0]]),
}
#: Those that take targets, too.
WITH_TARGETS = ("evaluate", "score", "fit", "validation", "train", "backpropagation")


def arrays(rng: np.random.Generator, folder: Path) -> None:
    """Samples and targets in any form: as the plain ones, computed by NumPy, or refused."""
    seed = int(rng.integers(2**32))
    reference = random_problem(np.random.default_rng(seed), "numpy")
    problem = random_problem(np.random.default_rng(seed), one_of(rng, ["numpy", "cpu", "cpu"]))
    mlp, clean = problem.mlp, {"X": problem.X, "y": problem.y}
    name = one_of(rng, CALLS)
    if name in ("classify", "score") and not mlp.classifies:
        name = "predict"
    given, wrong = dict(clean), False
    part = one_of(rng, ["X", "y"]) if name in WITH_TARGETS else "X"
    if rng.random() < 0.5:
        given[part] = one_of(rng, hostile.DISGUISES)(rng, clean[part])
    else:
        kinds = [hostile.NO_NUMBERS, hostile.WRONG_SHAPES]
        looks = name not in ("predict", "feedforward")
        kinds += [hostile.NOT_FINITE] if looks or part == "y" else []
        given[part], wrong = one_of(rng, one_of(rng, kinds))(rng, clean[part]), True
    told = {"X": "X", "y": "[yY]"}[part]
    contents = [np.array(a).tobytes() for a in given.values() if isinstance(a, np.ndarray) and not a.dtype.hasobject]
    result, error = refusal(lambda: CALLS[name](problem, mlp, given["X"], given["y"]), told, mlp)
    assert contents == [
        np.array(a).tobytes() for a in given.values() if isinstance(a, np.ndarray) and not a.dtype.hasobject
    ]
    if wrong:
        assert error is not None, f"{name} takes {part} = {given[part]!r} and gives {result!r}"
        return
    assert error is None, f"{name} refuses {part} = {given[part]!r}: {error!r}"
    expected = quietly(lambda: CALLS[name](reference, reference.mlp, reference.X, reference.y))
    if np.max(np.abs(expected), initial=0) < 100:  # one that diverges multiplies its rounding; nan is not below
        np.testing.assert_allclose(result, expected, **problem.tolerance)


# ---- arguments ----


def whole(least: int, most: float = math.inf) -> Callable[[Any], bool | None]:
    """Whole numbers of a range, as far as a fuzzer can wait for them."""

    def allowed(value: Any) -> bool | None:
        if isinstance(value, bool | np.bool_ | np.timedelta64) or not isinstance(value, Integral):
            return False
        return least <= value <= most

    return allowed


def real(least: float = -math.inf, below: float = math.inf) -> Callable[[Any], bool | None]:
    """Finite real numbers of a range."""

    def allowed(value: Any) -> bool | None:
        if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
            return False
        try:
            number = float(value)
        except (TypeError, OverflowError):
            return False
        return math.isfinite(number) and least <= number < below

    return allowed


def flag(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def name_in(names: Any) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and str(value) in names


def or_none(allowed: Callable[[Any], bool | None]) -> Callable[[Any], bool | None]:
    return lambda value: value is None or allowed(value)


def nothing(value: Any) -> bool:
    return False


def array_perhaps(value: Any) -> bool | None:
    return None if hasattr(value, "__len__") or hasattr(value, "__array__") else False


def sizes_allowed(value: Any) -> bool | None:
    if isinstance(value, list | tuple) and len(value) > 1:
        return all(whole(1)(size) for size in value)
    return None if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else False


def dtype_allowed(value: Any) -> bool | None:
    """NumPy takes many things for a dtype."""
    if value is None:
        return True
    try:
        return np.dtype(value).name in ("float32", "float64")
    except Exception:
        return False


POSITIVE = real(5e-324)
DECAY = real(0, 1)

#: Which values each argument takes: True, False, or None for either.
ARGUMENTS: dict[str, dict[str, Callable[[Any], bool | None]]] = {
    "Mlp": {
        "size_layers": sizes_allowed,
        "activation": lambda value: (
            name_in(ACTIVATIONS)(value) or (None if isinstance(value, list | dict) and "relu" in value else False)
        ),
        "loss": or_none(name_in(OUTPUTS)),
        "output": or_none(lambda value: None if isinstance(value, str) and value in ACTIVATIONS else False),
        "init": or_none(lambda value: name_in([*INITIALIZERS, "auto"])(value) or (None if callable(value) else False)),
        "dtype": dtype_allowed,
        "seed": or_none(whole(0, 2**32 - 1)),
        "backend": name_in(["cpu", "numpy", "auto"]),
        "threads": or_none(whole(1)),
        "bias": flag,
        "reg_lambda": real(0),
        "bias_flag": or_none(flag),
        "input_scale": real(),
        "input_shift": real(),
    },
    "Sgd": {"learning_rate": POSITIVE, "momentum": DECAY, "nesterov": flag},
    "Adam": {"learning_rate": POSITIVE, "beta1": DECAY, "beta2": DECAY, "epsilon": real(1e-30)},
    "fit": {
        "epochs": whole(1),
        "batch_size": or_none(whole(1)),
        "optimizer": name_in(["sgd", "adam"]),
        "validation": or_none(nothing),
        "shuffle": flag,
        "callbacks": lambda value: None if isinstance(value, np.generic) or hasattr(value, "__iter__") else False,
        "progress": or_none(lambda value: isinstance(value, bool | Callback)),
        "sample_weight": or_none(array_perhaps),
        "samples": or_none(array_perhaps),
    },
    "train": {"iterations": whole(0), "errors": or_none(lambda value: isinstance(value, list))},
    "load": {
        "path": nothing,
        "backend": name_in(["cpu", "numpy", "auto"]),
        "threads": or_none(whole(1)),
        "seed": or_none(whole(0, 2**32 - 1)),
    },
    "two_gaussians": {
        "n": whole(1),
        "means": lambda value: isinstance(value, np.ndarray) and value.shape == (2, 2),
        "seed": whole(0, 2**32 - 1),
    },
    "digits": {"test_size": lambda value: None if real(0, 1)(value) else False, "seed": whole(0, 2**32 - 1)},
    "roll_weights": {"unrolled_data": lambda value: None if isinstance(value, list | np.ndarray) else False},
    "unroll_weights": {"rolled_data": nothing},
    "set_weights": {"weights": nothing},
    "set_weight": {"weights": nothing},
    "initializer": {"init": nothing},
    "load_state_dict": {"state": nothing},
}


def takes_too_long(argument: str, value: Any) -> bool:
    """Whether a fuzzer can't wait for the end of what would be right."""
    if argument in ("callbacks", "init"):
        return callable(value)  # and may well raise something
    return argument in ("epochs", "iterations", "n") and bool(whole(5)(value))


def arguments(rng: np.random.Generator, folder: Path) -> None:
    """Any value for any argument: it is allowed and works, or is refused."""
    called = one_of(rng, ARGUMENTS)
    argument, allowed = one_of(rng, ARGUMENTS[called].items())
    value = one_of(rng, hostile.VALUES)
    value = value.copy() if type(value) is list else value  # one may be added to
    if takes_too_long(argument, value):
        return
    problem = random_problem(rng, one_of(rng, ["numpy", "cpu"]))
    mlp, X, y = problem.mlp, problem.X, problem.y
    fitting = {"epochs": 1, **problem.options, argument: value}

    def initialized() -> Mlp:
        return Mlp([3, 2], init=lambda rng, n_out, n_in, bias: value, backend="numpy")

    def fitted() -> Any:
        with redirect_stderr(io.StringIO()):  # a progress bar
            return mlp.fit(X, y, **fitting)

    calls: dict[str, Callable[[], Any]] = {
        "Mlp": lambda: Mlp(**{"size_layers": [3, 4, 2], "backend": "numpy", argument: value}),
        "Sgd": lambda: Sgd(**{"momentum": 0.5, argument: value}),
        "Adam": lambda: Adam(**{argument: value}),
        "fit": fitted,
        "train": lambda: mlp.train(X, y, **{"iterations": 2, argument: value}),
        "load": lambda: Mlp.load(**{"path": model_file(0)[2], argument: value}),
        "two_gaussians": lambda: data.two_gaussians(**{argument: value}),
        "digits": lambda: data.digits(**{argument: value}),
        "roll_weights": lambda: mlp.roll_weights(value),
        "unroll_weights": lambda: mlp.unroll_weights(value),
        "set_weights": lambda: setattr(mlp, "weights", value) or mlp.predict(X),
        "set_weight": lambda: mlp.weights.__setitem__(0, value) or mlp.predict(X),
        "initializer": initialized,
        "load_state_dict": lambda: mlp.load_state_dict(value),
    }
    names = "path|PathLike|codec|null byte" if argument == "path" else f"{argument}s?(\\[.*\\])?"
    others = {"path": OSError, "backend": RuntimeError}  # not there; does not work here
    kept, outputs = [matrix.copy() for matrix in mlp.weights], mlp.predict(X)
    late = called in ("set_weights", "set_weight")  # where a list of weights may be refused when it is used
    result, error = refusal(calls[called], names, None if late else mlp, others.get(argument, ValueError))
    if late:
        mlp.weights = kept
        np.testing.assert_array_equal(mlp.predict(X), outputs)
    expected = allowed(value)
    what = f"{called}({argument}={value!r:.200})"
    if expected is not None:
        assert (error is None) == expected, (
            f"{what} {'is refused: ' + repr(error) if error else f'gives {result!r:.200}'}"
        )
    if error is None and called in ("Mlp", "load"):
        n_in, n_out = result.network.sizes[0], result.network.sizes[-1]
        assert quietly(lambda: result.predict(np.zeros((2, n_in)))).shape == (2, n_out), what


# ---- state dicts ----


def state_dicts(rng: np.random.Generator, folder: Path) -> None:
    """Names in any order, as PyTorch or a file has them: each tensor comes to its layer, or all are refused."""
    problem = random_problem(rng)
    mlp = problem.mlp
    start, bias = twin(mlp), mlp.network.bias
    step, prefix = int(rng.integers(1, 6)), one_of(rng, ["layers.", "", "model.net."])
    own = one_of(rng, [True, False])
    state, expected = {}, []
    for layer, rows in enumerate(mlp.weights):
        new = rng.normal(size=rows.shape).astype(mlp.network.dtype)
        expected.append(new)
        where = f"layers.{layer}" if own else f"{prefix}{step * layer + 9}"
        state[f"{where}.weight"] = new[:, int(bias) :]
        if bias:
            state[f"{where}.bias"] = new[:, 0]
    names = list(state)
    how = one_of(rng, ["sorted", "shuffled", "as they are", "harmed"])
    if how in ("sorted", "shuffled"):
        names = sorted(names) if how == "sorted" else rng.permutation(names).tolist()
    given: dict[Any, Any] = {name: state[name] for name in names}
    harmed = how == "harmed"
    if harmed:
        name = one_of(rng, names)
        kind = one_of(rng, ["missing", "extra", "shape", "value", "renamed"])
        if kind == "missing":
            del given[name]
        elif kind == "extra":
            given[f"{name}.more"] = given[name]
        elif kind == "shape":
            given[name] = one_of(rng, hostile.WRONG_SHAPES)(rng, given[name])
        elif kind == "value":
            given[name] = one_of(rng, [*hostile.NO_NUMBERS, *hostile.NOT_FINITE])(rng, given[name])
        else:
            given[one_of(rng, ["", "more", 3, None, f"{name}s", "layers.0"])] = given.pop(name)
    _, error = refusal(lambda: mlp.load_state_dict(given), "state", mlp)
    if harmed:
        assert error is not None, f"{kind} of {name}: taken"
    elif error is None:
        assert all((one == other).all() for one, other in zip(mlp.weights, expected, strict=True)), f"{names} mixed up"
    else:
        assert how == "shuffled", f"{names} refused: {error!r}"
    if error is not None:
        assert pickle.dumps(mlp.parameters) == pickle.dumps(start.parameters)


# ---- model files ----


@cache
def model_file(number: int) -> tuple[bytes, Mlp, Path]:
    """A model file, its network, and where it lies: writing one waits for the disk."""
    import tempfile

    rng = np.random.default_rng([SEED, number])
    mlp = random_problem(rng).mlp
    mlp.metadata = one_of(rng, [{}, {"names": ["a", "é"], "nested": {"x": [1, None, 0.5]}}])
    path = Path(tempfile.mkdtemp(prefix="fastmlp-fuzz")) / "model.safetensors"
    mlp.save(path)
    return path.read_bytes(), mlp, path


def sealed(content: bytes) -> bytes:
    """A model file with the checksum of what it holds."""
    key = b'"sha256":"'
    at = content.find(key) + len(key)
    if at < len(key):
        return content
    blank = content[:at] + b"0" * 64 + content[at + 64 :]
    return content[:at] + hashlib.sha256(blank).hexdigest().encode() + content[at + 64 :]


def rewritten(rng: np.random.Generator, content: bytes) -> bytes:
    """A model file with one thing in its header changed, and with the right length and checksum."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if rng.random() < 0.6:
        header["__metadata__"]["fastmlp"] = hostile.changed_json(rng, json.loads(header["__metadata__"]["fastmlp"]))
        text = json.dumps(header, separators=(",", ":"))
    else:
        text = hostile.changed_json(rng, header)
    raw = text.encode("utf-8", "surrogatepass")
    return sealed(len(raw).to_bytes(8, "little") + raw + content[end:])


def model_files(rng: np.random.Generator, folder: Path) -> None:
    """A damaged model file is refused by name; so is one written anew with other content, or it is as it says."""
    content, mlp, _ = model_file(int(rng.integers(40)))
    path = folder / "a model.safetensors"
    anew = rng.random() < 0.5
    given = rewritten(rng, content) if anew else one_of(rng, hostile.DAMAGES)(rng, content)
    path.write_bytes(given)
    loaded = read_within_bounds(lambda: Mlp.load(path, backend="numpy"), path)
    if loaded is None:
        assert given != content, "a sound file is refused"
        return
    rows = zip(loaded.weights, mlp.weights, strict=True)
    assert all((one == other).all() for one, other in rows), "other weights"
    if not anew:
        assert (loaded.network, loaded.init, loaded.metadata) == (mlp.network, mlp.init, mlp.metadata)
        assert (loaded.history and loaded.history.loss) == (mlp.history and mlp.history.loss)
    X = np.zeros((2, mlp.network.sizes[0]))
    assert quietly(lambda: loaded.predict(X)).shape == (2, mlp.network.sizes[-1])


def read_within_bounds(read: Callable[[], Any], path: Path, most: float = 4e6) -> Any:
    """What is read from a file in memory like its size; None where it is refused, in one line that names it."""
    refused = None
    tracemalloc.start()
    try:
        return quietly(read)
    except (ValueError, OSError) as error:
        refused = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100 * path.stat().st_size + most, f"{peak:,} bytes for a file of {path.stat().st_size:,}"
    words = str(refused)
    if str(path) not in words or "\n" in words or len(words) > 1000 + len(str(path)):
        raise AssertionError(f"it does not name the file, in one line: {words:.1200}") from refused
    return None


# ---- images ----


def idx_bytes(a: np.ndarray) -> bytes:
    codes = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}
    code = codes[a.dtype.str[1:]]
    return (
        bytes([0, 0, code, a.ndim, *np.array(a.shape, ">u4").tobytes()]) + a.astype(a.dtype.newbyteorder(">")).tobytes()
    )


def idx_files(rng: np.random.Generator, folder: Path) -> None:
    """IDX files, raw or gzipped."""
    shape = tuple(rng.integers(1, 6, rng.integers(1, 4)).tolist())
    a = rng.integers(0, 100, shape).astype(one_of(rng, ["u1", "i1", "i2", "i4", "f4", "f8"]))
    content = idx_bytes(a)
    zipped = rng.random() < 0.5
    content = gzip.compress(content, mtime=0) if zipped else content
    given = one_of(rng, hostile.DAMAGES)(rng, content)
    path = folder / "some-idx"
    path.write_bytes(given)
    found = read_within_bounds(lambda: data.read_idx(path), path)
    if found is None:
        assert given != content, "a sound file is refused"
    elif zipped:
        assert found.dtype == a.dtype
        np.testing.assert_array_equal(found, a)
    else:  # nothing in the file tells a flipped bit of a value
        assert found.dtype.newbyteorder(">").itemsize * found.size + 4 + 4 * found.ndim == len(given)
        assert idx_bytes(found) == given


def image_files(rng: np.random.Generator, folder: Path) -> None:
    """Pictures and .npy files of images."""
    from PIL import Image

    side, levels = int(rng.integers(2, 9)), one_of(rng, [255, 16])
    grey = rng.integers(0, 256, (side, side)).astype(np.uint8)
    suffix = one_of(rng, ["png", "jpg", "bmp", "gif", "tif", "pgm", "webp", "npy"])
    path = folder / f"some image.{suffix}"
    buffer = io.BytesIO()
    if suffix == "npy":
        np.save(
            buffer,
            one_of(rng, [grey, grey[None], grey.ravel(), grey / 255, grey.astype("i4"), np.asfortranarray(grey)]),
        )
    else:
        picture = Image.fromarray(grey).convert(one_of(rng, ["L", "L", "RGB"] + ["P"] * (suffix in ("png", "gif"))))
        picture.save(buffer, {"jpg": "jpeg", "tif": "tiff", "pgm": "ppm"}.get(suffix, suffix))
    content = buffer.getvalue()
    given = one_of(rng, hostile.DAMAGES)(rng, content)
    path.write_bytes(given)
    most = math.inf if suffix == "png" else 4e6  # Pillow asks for what a chunk announces, but leaves it untouched
    result = read_within_bounds(lambda: read_images([path], side * side, levels), path, most)
    if result is None:
        assert given != content, "a sound file is refused"
        return
    names, images = result
    assert images.shape == (len(names), side * side)
    assert images.dtype in (np.uint8, np.float64)
    if suffix == "npy":
        np.testing.assert_array_equal(images, np.load(io.BytesIO(given)).reshape(images.shape))
    elif given == content or suffix == "png":  # whose checksums tell
        with Image.open(io.BytesIO(given)) as image:
            plain = np.asarray(image.convert("L")).reshape(1, -1)
        np.testing.assert_allclose(images, plain * (levels / 255))


# ---- interrupts ----


class Alarm(Exception):
    """What some signal handler raises."""


def stopped_at(step: int, call: Callable[[], Any], stop: type[BaseException]) -> tuple[int, Any, BaseException | None]:
    """Call, with an exception at some bytecode of it; how many there were, what it gave, what got out."""
    count = 0

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == step:
                raise stop("now")
        return trace

    def traced() -> Any:  # whose frame is the first that is traced
        return call()

    before = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # Python 3.12 asks for it before
    sys.settrace(trace)
    try:
        result = traced()
        return count, result, None
    except BaseException as error:
        if not isinstance(error, stop) and not isinstance(error.__context__, stop):  # nor in other words
            raise
        return count, None, error
    finally:
        sys.settrace(before)


def interrupts(rng: np.random.Generator, folder: Path) -> None:
    """An exception at any step leaves what some number of whole epochs left, and a further fit goes on to the bit."""
    threads = int(rng.integers(1, 3))
    with forced(always_threads=threads > 1):
        problem = random_problem(rng, one_of(rng, ["numpy", "cpu", "cpu"]), most=20, threads=threads)
        mlp, X, y, epochs = problem.mlp, problem.X, problem.y, int(rng.integers(1, 4))
        options = {**problem.options, "validation": one_of(rng, [None, (X, y)])}
        stop = one_of(rng, [KeyboardInterrupt, Alarm])
        calls: dict[str, Callable[[Mlp], Any]] = {
            "fit": lambda mlp: mlp.fit(X, y, epochs=epochs, **options),
            "train": lambda mlp: mlp.train(X, y, epochs),
            "predict": lambda mlp: mlp.predict(X),
            "evaluate": lambda mlp: mlp.evaluate(X, y),
            "backpropagation": lambda mlp: mlp.backpropagation(X, y),
        }
        name = one_of(rng, ["fit"] * 4 + list(calls))
        expected, other, after = twin(mlp), twin(mlp), [state_of(mlp)]
        steps, _, _ = quietly(lambda: stopped_at(0, lambda: calls[name](other), stop))
        for _ in range(epochs + 1):
            if name == "fit":
                quietly(lambda: expected.fit(X, y, epochs=1, **options))
            elif name == "train":
                quietly(lambda: expected.train(X, y, 1))
            after.append(state_of(expected))
        step = int(rng.integers(1, steps + 1))
        count, result, error = quietly(lambda: stopped_at(step, lambda: calls[name](mlp), stop))
        found = state_of(mlp)
        where = f"{name}, {stop.__name__} at bytecode {step} of {steps}"
        if error is None and count >= step:
            assert stop is KeyboardInterrupt, f"{where}: lost"
            assert getattr(result, "interrupted", False), f"{where}: lost"
        assert found in after[: epochs + 1], f"{where}: not as after any epoch"
        done = len(found[1]) - len(after[0][1]) if name == "fit" else after.index(found)
        if name == "fit":
            assert found == after[done], f"{where}: {done} epochs in the history, but not in the weights"
            quietly(lambda: mlp.fit(X, y, epochs=epochs + 1 - done, **options))
        elif name == "train":
            for _ in range(epochs + 1 - done):
                quietly(lambda: mlp.train(X, y, 1))
        assert state_of(mlp) == after[-1], f"{where}: going on after {done} epochs gives something else"
        np.testing.assert_array_equal(mlp.predict(X), expected.predict(X))


def state_of(mlp: Mlp) -> tuple[bytes, list[float], list[float]]:
    """Parameters and history without its times."""
    history = mlp.history.to_dict() if mlp.history else {}
    return mlp.parameters.tobytes(), history.get("loss", []), history.get("val_loss", [])


# ---- running them ----


@contextmanager
def patience(case: str) -> Iterator[None]:
    """End the process where a case hangs, saying which and where: what hangs may well not hear anything else."""

    def give_up() -> None:
        print(f"hangs: {case}", file=sys.stderr, flush=True)
        faulthandler.dump_traceback(sys.stderr)
        os._exit(3)

    timer = Timer(SECONDS, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


KINDS: list[Callable[[np.random.Generator, Path], None]] = [
    arrays, arguments, state_dicts, model_files, idx_files, image_files, interrupts,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    kernels.warmup()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_right_or_refused(kind, tmp_path, capfd):
    failures: list[Exception] = []
    for number in range(FIRST, FIRST + max(1, CASES // len(KINDS))):
        settings = f"FASTMLP_FUZZ_SEED={SEED} FASTMLP_FUZZ_FIRST={number} FASTMLP_FUZZ=1"
        case = f"{settings} pytest tests/{Path(__file__).name} -k {kind.__name__}"
        try:
            with capfd.disabled(), patience(case):
                kind(np.random.default_rng([SEED, number]), tmp_path)
        except Exception as error:
            error.add_note(f"to repeat this case alone: {case}")
            failures.append(error)
            if len(failures) == MOST_FAILURES:
                break
    if failures:
        raise ExceptionGroup(f"{len(failures)} cases of {kind.__name__}", failures)


SECOND, HUGE, RUDE = np.timedelta64(1, "s"), 10**400, hostile.Rude()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda mlp, X: Mlp([2, 1], input_scale=HUGE), "input_scale is a int too large"),
        (lambda mlp, X: Adam(epsilon=Fraction(HUGE, 3)), "epsilon is a Fraction too large"),
        (lambda mlp, X: Sgd(SECOND), "learning_rate=.* is a timedelta64"),
        (lambda mlp, X: mlp.fit(X, X, epochs=SECOND), "epochs=.* is a timedelta64"),
        (lambda mlp, X: mlp.fit(X, X, callbacks=RUDE), "callbacks="),
        (lambda mlp, X: mlp.train(X, X, errors=()), "errors is a tuple"),
        (lambda mlp, X: mlp.train(X, X, errors=np.array(2)), "errors is a ndarray"),
        (lambda mlp, X: mlp.unroll_weights(None), "rolled_data is a NoneType"),
        (lambda mlp, X: setattr(mlp, "weights", np.array(2)), "weights is a ndarray"),
        (lambda mlp, X: mlp.weights.__setitem__(0, memoryview(b"2")), r"weights\[0\] is a memoryview"),
        (lambda mlp, X: mlp.load_state_dict({"0.weight": np.full((2, 2), np.nan), "0.bias": np.ones(2)}), "state.*nan"),
        (lambda mlp, X: Mlp(np.array(3)), "size_layers="),
        (lambda mlp, X: Mlp([2, 1], dtype="\ud800"), "dtype="),
        (lambda mlp, X: Mlp([2, 2, 1], activation=RUDE), "activation="),
        (lambda mlp, X: Mlp([2, 1], init=lambda *_: [[1, 2], [3]]), "init gave a list"),
        (lambda mlp, X: data.two_gaussians(SECOND), "n=.* is a timedelta64"),
        (lambda mlp, X: data.two_gaussians(means=RUDE), "means="),
        (lambda mlp, X: data.digits(seed=SECOND), "seed=.* is a timedelta64"),
    ],
)
def test_what_was_found(call, words):
    """Each got an exception that names nothing, some after a change."""
    mlp = Mlp([2, 2], seed=1, backend="numpy")
    before = pickle.dumps(mlp)
    with pytest.raises((TypeError, ValueError), match=words):
        call(mlp, np.ones((4, 2)))
    assert pickle.dumps(mlp) == before


def test_a_numpy_true_is_true():
    assert Sgd(momentum=0.5, nesterov=np.True_).rule.kind == "nesterov"


def test_ctrl_c_is_not_lost_where_a_diverged_epoch_is_undone():
    """It ends the call, or is in the history."""
    X = np.full((4, 1), 1e15)

    def fit() -> Any:
        mlp = Mlp([1, 1], output="identity", seed=1, backend="numpy")
        return mlp.fit(X, X[:, 0], epochs=1, batch_size=1, optimizer=Sgd(1e300), progress=False)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        steps, history, _ = stopped_at(0, fit, KeyboardInterrupt)
        assert not len(history)
        for step in range(steps - 1200, steps - 50, 3):  # where it is undone
            _, history, error = stopped_at(step, fit, KeyboardInterrupt)
            assert error is not None or history.interrupted, f"lost at bytecode {step} of {steps}"
