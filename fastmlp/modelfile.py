"""Model files: a network's parameters, description and history in one safetensors file.

Tensors: ``layers.0.weight`` [n_out, n_in] and ``layers.0.bias`` [n_out] for each layer, named and shaped as PyTorch's
Linear has them. Metadata: ``format`` = "fastmlp"; one JSON object under the key ``fastmlp``; and ``sha256``, the
SHA-256 of the whole file with zeros in the place of its own 64 digits.

The package safetensors reads these files, but does not write them: it puts metadata in an order that differs from run
to run. Nor does it read them here, where a header may ask for no more memory than a network of that many bytes needs.
Files of version 1, which it wrote, have a CRC-32 of the tensors alone.
"""

import hashlib
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, BinaryIO

import numpy as np

from fastmlp import checks
from fastmlp.atomic import write_atomically
from fastmlp.history import TIMINGS, History
from fastmlp.initializers import AUTO, CUSTOM, INITIALIZERS
from fastmlp.kernels import Network
from fastmlp.seen import Seen

__all__ = ["Model", "ModelFileError", "named_views", "read", "write"]

FORMAT = "fastmlp"
FORMAT_VERSION = 2

DTYPES = {"float32": "F32", "float64": "F64"}  #: NumPy's names -> the format's
LENGTH_BYTES = 8  #: of the header's length, at the beginning of a file, little-endian
LONGEST_HEADER = 100_000_000  #: bytes; other readers of safetensors refuse more
LONGEST_ENTRY = 256  #: bytes of the header for one tensor
MOST_CONTAINERS = 1_000_000  #: opening brackets in a header: lists and objects take far more memory than those
LONGEST_TROUBLE = 300  #: characters
CHUNK = 1 << 20  #: bytes read at once

#: How a header begins; the checksum follows.
BEGINNING = f'{{"__metadata__":{{"format":"{FORMAT}","sha256":"'.encode()
METADATA = b'{"__metadata__":'
NO_CHECKSUM = b"0" * (2 * hashlib.sha256().digest_size)


class ModelFileError(ValueError):
    """A file is damaged or no model file; the message names it and says in one line what is wrong."""


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
        The times of its epochs are not in the file, so that equal runs write equal files.
    metadata : dict
        The user's own, anything that JSON can hold.
    """

    network: Network
    parameters: np.ndarray
    init: str
    history: History | None
    metadata: dict[str, Any]
    seen: Seen | None = None  #: what the inputs of the training were like, where that is known


# ---- writing ----


def write(path: str | os.PathLike[str], model: Model) -> None:
    """Write a model file, whole or not at all (`fastmlp.atomic.write_atomically`). Equal models give equal bytes.

    Parameters
    ----------
    path : path-like
    model : Model

    Raises
    ------
    OSError
        If it can't be written there.
    TypeError, ValueError
        If ``model.metadata`` is no dict that fits into JSON, or with the history takes more than 100 MB; if a weight is
        nan or infinite, which `read` would refuse.
    """
    checks.finite("weights", model.parameters)
    beginning = header_of(model.network, described(model))
    views = named_views(model.network, model.parameters).values()
    tensors = [view.astype(view.dtype.newbyteorder("<")).tobytes() for view in views]
    checksum = hashlib.sha256(b"".join([beginning, *tensors])).hexdigest().encode()
    at = LENGTH_BYTES + len(BEGINNING)
    write_atomically(path, b"".join([beginning[:at], checksum, beginning[at + len(NO_CHECKSUM) :], *tensors]))


def described(model: Model) -> str:
    """The description as JSON."""
    if not isinstance(model.metadata, dict):
        raise TypeError(f"metadata is a {type(model.metadata).__name__}; expected a dict")
    try:
        own = json.loads(json.dumps(model.metadata, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise type(error)(f"metadata does not fit into JSON: {error}") from None
    except RecursionError:
        raise ValueError("metadata does not fit into JSON: it is nested too deep") from None
    history = None
    if model.history is not None:
        history = {name: values for name, values in model.history.to_dict().items() if name not in TIMINGS}
    description = {
        "format_version": FORMAT_VERSION,
        "network": asdict(model.network),
        "init": model.init,
        "history": history,
        "metadata": own,
        "seen": None if model.seen is None else model.seen.to_dict(),
    }
    return json.dumps(description, allow_nan=False)


def header_of(network: Network, description: str) -> bytes:
    """What comes before the tensors' values, with zeros for the checksum."""
    entries, at = {}, 0
    for name, shape in shapes_of(network).items():
        entries[name] = entry_of(shape, network.dtype, at)
        at = entries[name]["data_offsets"][1]
    tensors = json.dumps(entries, separators=(",", ":"))
    text = f'","{FORMAT}":{json.dumps(description)}}},{tensors[1:]}'
    header = BEGINNING + NO_CHECKSUM + text.encode()
    header += b" " * (-len(header) % LENGTH_BYTES)
    try:
        check_containers(header.decode())
    except ValueError as error:
        raise ValueError(f"metadata does not fit into a model file: {error}") from None
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"history and metadata take {len(header):,} bytes; a model file holds {LONGEST_HEADER:,}")
    return len(header).to_bytes(LENGTH_BYTES, "little") + header


def entry_of(shape: list[int], dtype: str, at: int) -> dict[str, Any]:
    """A tensor's entry in the header, if its values begin so many bytes after it."""
    end = at + math.prod(shape) * np.dtype(dtype).itemsize
    return {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [at, end]}


def shapes_of(network: Network) -> dict[str, list[int]]:
    """The shapes of the tensors under their names."""
    shapes = {}
    for layer, (n_in, n_out) in enumerate(pairwise(network.sizes)):
        shapes[f"layers.{layer}.weight"] = [n_out, n_in]
        if network.bias:
            shapes[f"layers.{layer}.bias"] = [n_out]
    return shapes


def named_views(network: Network, parameters: np.ndarray) -> dict[str, np.ndarray]:
    """Views of the flat array under the names of their tensors."""
    views = {}
    for layer, rows in enumerate(network.rows(parameters)):
        views[f"layers.{layer}.weight"] = rows[:, int(network.bias) :]
        if network.bias:
            views[f"layers.{layer}.bias"] = rows[:, 0]
    return views


# ---- reading ----


def read(path: str | os.PathLike[str]) -> Model:
    """Read a model file and check all of it, in little more memory than the model takes.

    Parameters
    ----------
    path : path-like
        A file of this version of the format or of an older one.

    Raises
    ------
    OSError
        If the file is not there or can't be read.
    ModelFileError
        If it is damaged or no model file of this package, holds weights that are nan or infinite, or was written by a
        newer version; the file is named.
    """
    name = os.fsdecode(path)
    try:
        kind = os.stat(name).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # opening a pipe could wait for ever
            raise ValueError("not a regular file; a model file is read more than once")
        with open(name, "rb") as file:
            return parse(file)
    except ValueError as error:
        trouble = " ".join(str(error).split())
        if len(trouble) > LONGEST_TROUBLE:
            trouble = f"{trouble[: LONGEST_TROUBLE - 4]} ..."
        raise ModelFileError(f"{name}: {trouble}") from None


def parse(file: BinaryIO) -> Model:
    """The model in an open file, or else ValueError."""
    size = os.fstat(file.fileno()).st_size
    header = read_header(file, size)
    metadata, rest = split_header(header)
    description = parse_description(metadata)
    network = parse_network(description["network"], size - LENGTH_BYTES - len(header))
    history, init, own = (description[name] for name in ("history", "init", "metadata"))
    if not isinstance(init, str) or not isinstance(own, dict) or not isinstance(history, dict | None):
        raise ValueError("damaged: its description lacks init, metadata or history")
    if init not in (*INITIALIZERS, AUTO, CUSTOM):
        raise ValueError(f"damaged: init={init!r}; expected {', '.join([*INITIALIZERS, AUTO, CUSTOM])}")
    start = LENGTH_BYTES + len(header)
    offsets = parse_entries(network, rest, size - start)
    if description["format_version"] == 1:
        check_crc32(file, start, size - start, description["crc32"])
    else:
        check_sha256(file, header, size - start)
    return Model(
        network,
        read_parameters(file, network, start, offsets),
        init,
        None if history is None else parse_history(history),
        own,
        parse_seen(description.get("seen")),
    )


def read_header(file: BinaryIO, size: int) -> bytes:
    """The header, without its length."""
    length = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size < LENGTH_BYTES or not len(METADATA) <= length <= LONGEST_HEADER:
        raise ValueError("not a safetensors file, or damaged: it does not begin with the length of a header")
    if length > size - LENGTH_BYTES:
        raise ValueError(f"damaged, or not a safetensors file: it ends within its header of {length:,} bytes")
    return b"".join(chunks(file, LENGTH_BYTES, length))


def split_header(header: bytes) -> tuple[dict[str, Any], str]:
    """The metadata, which come first, and the JSON that follows them."""
    if not header.startswith(METADATA):
        kind = "safetensors file of something else" if header[:1] == b"{" else "safetensors file"
        raise ValueError(f"not a fastmlp model file, but perhaps a {kind}: its header does not begin with metadata")
    try:
        text = header.decode()
        check_containers(text)
        metadata, end = json.JSONDecoder().raw_decode(text, len(METADATA))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged: its metadata are no JSON ({error})") from None
    if not isinstance(metadata, dict) or not isinstance(metadata.get(FORMAT), str):
        raise ValueError("not a fastmlp model file: its metadata has no 'fastmlp' entry")
    return metadata, text[end:]


def parse_description(metadata: dict[str, Any]) -> dict[str, Any]:
    """The description in a file's metadata, of a version that is known and with nothing missing."""
    description = parse_json("description", metadata[FORMAT])
    if not isinstance(description, dict):
        raise ValueError("damaged: its description is no JSON object")
    version = description.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"format version {version!r}; this fastmlp reads 1 to {FORMAT_VERSION}, and a newer one may read others"
        )
    expected = {"format_version", "network", "init", "history", "metadata"} | ({"crc32"} if version == 1 else set())
    if set(description) - {"seen"} != expected:
        raise ValueError(f"damaged: its description holds {sorted(description)}; expected {sorted(expected)}")
    return description


def parse_json(name: str, text: str) -> Any:
    """JSON as the standard has it, of finite numbers, in bounded memory."""

    def refuse(constant: str) -> float:
        raise ValueError(f"it holds {constant}")

    def finite(digits: str) -> float:
        return value if math.isfinite(value := float(digits)) else refuse(digits)

    try:
        check_containers(text)
        return json.loads(text, parse_constant=refuse, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"damaged: its {name} is no JSON ({error})") from None


def check_containers(text: str) -> None:
    """Refuse JSON that would take far more memory than its text."""
    if text.count("[") + text.count("{") >= MOST_CONTAINERS:
        raise ValueError(f"it holds more than {MOST_CONTAINERS:,} opening brackets")


def parse_network(description: object, n_bytes: int) -> Network:
    """The network of its description, every part of its own type; ``n_bytes`` is what the file has after the header."""
    names = {field.name for field in fields(Network)}
    if not isinstance(description, dict) or not {"sizes", "activations", "loss"} <= set(description) <= names:
        raise ValueError(f"damaged: its network is described as {description!r}; expected {', '.join(sorted(names))}")
    given = dict(description)
    entries: dict[str, type] = {"sizes": int, "activations": str}
    for name, kind in entries.items():
        if not isinstance(given[name], list) or any(type(entry) is not kind for entry in given[name]):
            raise ValueError(f"damaged: {name}={given[name]!r}; expected a list, each entry of type {kind.__name__}")
        if len(given[name]) > n_bytes:  # every layer has a value
            raise ValueError(f"damaged: {len(given[name]):,} {name}, but {n_bytes:,} bytes of values")
        given[name] = tuple(given[name])
    values: dict[str, type] = {"loss": str, "dtype": str, "bias": bool}
    for name, kind in values.items():
        if name in given and type(given[name]) is not kind:
            raise ValueError(f"damaged: {name}={given[name]!r}; expected a {kind.__name__}")
    largest = float(np.finfo("float64" if given.get("dtype") == "float64" else "float32").max)
    for name in ("input_scale", "input_shift", "l2"):
        value = given.get(name, 0)
        if type(value) not in (int, float) or not abs(value) <= largest:
            raise ValueError(f"damaged: {name}={value!r}; expected a number within the network's dtype")
        given[name] = float(given.get(name, getattr(Network, name)))
    try:
        return Network(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(f"damaged: {error}") from None


def parse_seen(plain: object) -> Seen | None:
    """What the inputs of the training were like, of its description."""
    try:
        return None if plain is None else Seen.from_dict(plain)
    except ValueError as error:
        raise ValueError(f"damaged: {error}") from None


def parse_history(plain: dict[str, Any]) -> History:
    """The history of its description."""
    try:
        return History.from_dict(plain)
    except ValueError as error:
        raise ValueError(f"damaged: {error}") from None


def parse_entries(network: Network, rest: str, n_bytes: int) -> dict[str, int]:
    """For each tensor where its values begin, in bytes after the header: one after the other, without gap or overlap.

    ``rest`` is the header after the metadata, ``n_bytes`` what the file has after the header.
    """
    shapes = shapes_of(network)
    if len(rest) > LONGEST_ENTRY * (len(shapes) + 1) or len(shapes) > n_bytes:  # every tensor has a value
        raise ValueError(f"damaged: its header and its length do not fit {sizes_of(network)}")
    entries = parse_json("list of tensors", "{" + rest.removeprefix(","))
    if not isinstance(entries, dict) or set(entries) != set(shapes):
        raise ValueError(f"damaged: holds tensors {sorted(entries)}; expected {sorted(shapes)}")
    offsets, at = {}, 0
    for name, entry in entries.items():
        expected = entry_of(shapes[name], network.dtype, at)
        if entry != expected:
            raise ValueError(f"damaged: tensor {name} is {in_words(entry)}; expected {in_words(expected)}")
        offsets[name], at = at, expected["data_offsets"][1]
    if at != n_bytes:
        raise ValueError(f"damaged: it has {n_bytes:,} bytes of values; expected {at:,} for {sizes_of(network)}")
    return offsets


def sizes_of(network: Network) -> str:
    """Sizes and dtype in words."""
    return f"{list(network.sizes)} in {network.dtype}"


def in_words(entry: Any) -> str:
    """A tensor's entry in the header."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        return repr(entry)
    names = {code: name for name, code in DTYPES.items()}
    dtype = names.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    return f"{dtype or entry['dtype']} {entry['shape']} at bytes {entry['data_offsets']}"


def chunks(file: BinaryIO, start: int, n_bytes: int) -> Iterator[bytes]:
    """Some bytes of a file, piece by piece, or else ValueError."""
    file.seek(start)
    while n_bytes:
        chunk = file.read(min(n_bytes, CHUNK))
        if not chunk:
            raise ValueError("damaged: it was cut while it was read")
        n_bytes -= len(chunk)
        yield chunk


def check_crc32(file: BinaryIO, start: int, n_bytes: int, expected: object) -> None:
    """Compare the checksum of version 1: over the tensors' values, which lie in the order of their names."""
    crc = 0
    for chunk in chunks(file, start, n_bytes):
        crc = zlib.crc32(chunk, crc)
    if type(expected) is not int or crc != expected:
        raise ValueError(f"damaged: the tensors' checksum is {crc}, its description says {expected!r}")


def check_sha256(file: BinaryIO, header: bytes, n_bytes: int) -> None:
    """Compare the checksum over all of the file."""
    end = len(BEGINNING) + len(NO_CHECKSUM)
    digest = hashlib.sha256(len(header).to_bytes(LENGTH_BYTES, "little"))
    digest.update(header[: len(BEGINNING)] + NO_CHECKSUM + header[end:])
    for chunk in chunks(file, LENGTH_BYTES + len(header), n_bytes):
        digest.update(chunk)
    if not header.startswith(BEGINNING) or header[len(BEGINNING) : end] != digest.hexdigest().encode():
        raise ValueError("damaged: its checksum is not that of its content")


def read_parameters(file: BinaryIO, network: Network, start: int, offsets: Mapping[str, int]) -> np.ndarray:
    """The values of the tensors as the network's flat array, or else ValueError."""
    parameters = network.zeros()
    dtype = parameters.dtype.newbyteorder("<")
    for name, view in named_views(network, parameters).items():
        file.seek(start + offsets[name])
        row_bytes = view[0].nbytes
        rows = max(1, CHUNK // row_bytes)
        for first in range(0, len(view), rows):
            block = view[first : first + rows]
            block[...] = np.frombuffer(file.read(len(block) * row_bytes), dtype).reshape(block.shape)
    if not checks.is_finite(parameters):
        raise ValueError("holds weights that are nan or infinite")
    return parameters
