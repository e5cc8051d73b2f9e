"""Model files: a network's parameters, description and history in one safetensors file.

Tensors: ``layers.0.weight`` [n_out, n_in] and ``layers.0.bias`` [n_out] for each layer, named and shaped as PyTorch's
Linear has them. Metadata: one JSON object under the key ``fastmlp``, and ``format`` = "fastmlp".
"""

import json
import os
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from fastmlp.history import History
from fastmlp.kernels import Network

FORMAT = "fastmlp"
FORMAT_VERSION = 1


@dataclass
class Model:
    """What a model file holds.

    Attributes
    ----------
    network : Network
    parameters : ndarray, [network.size]
        Flat, as `Network.zeros` lays them out.
    init : str
        Name of the initializer; "custom" for a function.
    history : History or None
    metadata : dict
        The user's own, anything that JSON can hold.
    """

    network: Network
    parameters: np.ndarray
    init: str
    history: History | None
    metadata: dict[str, Any]


def write(path: str | os.PathLike, model: Model) -> None:
    """Write a model file: to a temporary name in the same folder first, then renamed.

    Parameters
    ----------
    path : path-like
        An existing file is replaced, in one step and only once the new one is complete on disk.
    model : Model

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    TypeError, ValueError
        If ``model.metadata`` does not fit into JSON.
    """
    import safetensors.numpy

    tensors = {name: np.ascontiguousarray(view) for name, view in named_views(model.network, model.parameters).items()}
    try:
        own = json.dumps(model.metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata does not fit into JSON: {error}") from None
    description = {
        "format_version": FORMAT_VERSION,
        "network": asdict(model.network),
        "init": model.init,
        "history": None if model.history is None else model.history.to_dict(),
        "metadata": json.loads(own),
        "crc32": checksum(tensors),
    }
    metadata = {"format": FORMAT, FORMAT: json.dumps(description, allow_nan=False)}
    write_then_rename(Path(path), safetensors.numpy.save(tensors, metadata))


def read(path: str | os.PathLike) -> Model:
    """Read a model file and check all of it.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    OSError
        If the file is not there or can't be read.
    ValueError
        If it is damaged or no model file of this package, or was written by a newer version; the file is named.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        return parse(content)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def parse(content: bytes) -> Model:
    """The model in the bytes of a file, or else ValueError."""
    tensors, metadata = parse_safetensors(content)
    if FORMAT not in metadata:
        raise ValueError("not a fastmlp model file: its metadata has no 'fastmlp' entry")
    try:
        description = json.loads(metadata[FORMAT])
    except ValueError as error:
        raise ValueError(f"damaged: its description is no JSON ({error})") from None
    if not isinstance(description, dict):
        raise ValueError("damaged: its description is no JSON object")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version!r}; this fastmlp reads {FORMAT_VERSION}")
    network = parse_network(description.get("network"))
    history, init, own = (description.get(name) for name in ("history", "init", "metadata"))
    if not isinstance(init, str) or not isinstance(own, dict) or not isinstance(history, dict | None):
        raise ValueError("damaged: its description lacks init, metadata or history")
    return Model(
        network,
        parse_parameters(network, tensors, description.get("crc32")),
        init,
        None if history is None else History.from_dict(history),
        own,
    )


def parse_safetensors(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata in the bytes of a safetensors file, or else ValueError."""
    import safetensors
    import safetensors.numpy

    try:
        tensors = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"damaged, or not a safetensors file ({error})") from None
    # The header is JSON of the length that the first eight bytes give; the loader has checked it, but keeps the
    # metadata to itself.
    length = int.from_bytes(content[:8], "little")
    return tensors, json.loads(content[8 : 8 + length]).get("__metadata__") or {}


def parse_network(description: object) -> Network:
    """The network of its description, or else ValueError."""
    names = {field.name for field in fields(Network)}
    if not isinstance(description, dict) or not {"sizes", "activations", "loss"} <= set(description) <= names:
        raise ValueError(f"damaged: its network is described as {description!r}; expected {', '.join(sorted(names))}")
    try:
        sizes, activations = tuple(description["sizes"]), tuple(description["activations"])
        return Network(**{**description, "sizes": sizes, "activations": activations})
    except (TypeError, ValueError) as error:
        raise ValueError(f"damaged: {error}") from None


def parse_parameters(network: Network, tensors: Mapping[str, np.ndarray], crc32: object) -> np.ndarray:
    """The tensors laid out as the network's flat array, or else ValueError."""
    parameters = network.zeros()
    views = named_views(network, parameters)
    if set(views) != set(tensors):
        raise ValueError(f"damaged: holds tensors {sorted(tensors)}; expected {sorted(views)}")
    for name, view in views.items():
        tensor = tensors[name]
        if tensor.shape != view.shape or tensor.dtype != view.dtype:
            given, expected = f"{tensor.dtype} {list(tensor.shape)}", f"{view.dtype} {list(view.shape)}"
            raise ValueError(f"damaged: tensor {name} is {given}; expected {expected}")
    if checksum(tensors) != crc32:
        raise ValueError(f"damaged: the tensors' checksum is {checksum(tensors)}, its description says {crc32!r}")
    for name, view in views.items():
        view[...] = tensors[name]
    return parameters


def named_views(network: Network, parameters: np.ndarray) -> dict[str, np.ndarray]:
    """Views of the flat array under the names of their tensors."""
    views = {}
    for layer, rows in enumerate(network.rows(parameters)):
        views[f"layers.{layer}.weight"] = rows[:, int(network.bias) :]
        if network.bias:
            views[f"layers.{layer}.bias"] = rows[:, 0]
    return views


def checksum(tensors: Mapping[str, np.ndarray]) -> int:
    """CRC-32 over the bytes of all tensors, by name; safetensors itself would not notice a flipped bit."""
    crc = 0
    for name in sorted(tensors):
        crc = zlib.crc32(tensors[name].tobytes(), crc)
    return crc


def write_then_rename(path: Path, content: bytes) -> None:
    """Write a file in full under a temporary name beside it, then give it its name.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    """
    path = path.resolve()  # so that a symbolic link stays one, and its target is replaced
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} can't be written: there is no folder {path.parent}")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
