"""What every backend does: six functions over flat arrays, their arguments and their shapes.

Legend: n samples; B a batch; n_in, n_out the network's inputs and outputs; T its dtype.

=========== ==================================================================================================
network     `fastmlp.kernels.network.Network`
parameters  T [network.size], as `Network.zeros` lays it out; gradients likewise
X           uint8, float32 or float64 [n, n_in], C-contiguous; used as X * input_scale + input_shift
Y           targets T [n, n_out], C-contiguous (rows that sum to 1 for cross-entropy); or labels int32 [n] in
            0 … n_out - 1 (0 or 1 where n_out is 1)
rule, state `fastmlp.kernels.updates.Rule` and `State`
order       int64 [m] indices into X, in the order in which they are to be used
samples     int64 [k] indices into X, repeats allowed; None for all of X. With them ``order`` counts in `samples`: what
            comes out is to the bit what it is for X[samples] and Y[samples], which nobody copies
weights     float64 [n], finite, 0 or more, one for each sample of X; None for none
threads     how many threads at most; None for the backend's own choice
=========== ==================================================================================================

With weights the mean over a batch is Σ wᵢ · / Σ wᵢ, for its loss and its gradient, to which the penalty adds λ / Σ wᵢ
times the parameters. A sample of weight 0 has no part in it, not even if its loss is nan. A batch without any weight
has the loss 0 and the gradient 0, penalty included; it counts as a step all the same.

The sentence that all backends are tested by: `train_epoch` equals `backpropagation` and `update_weights` taken in
turn over the batches of ``order``, within the rounding of T, the shorter last batch included.
"""

from typing import NamedTuple, Protocol

import numpy as np

from fastmlp.kernels.network import Network
from fastmlp.kernels.updates import Rule, State

INPUT_DTYPES = ("uint8", "float32", "float64")
_INPUTS = frozenset(map(np.dtype, INPUT_DTYPES))
_DTYPES = {name: np.dtype(name) for name in (*INPUT_DTYPES, "int64")}


#: Decorates functions that compute as compiled code does, whatever `numpy.seterr` says. Overflow and underflow are no
#: errors there: e^-z is infinite where the sigmoid is zero.
quiet = np.errstate(all="ignore")


class Backend(Protocol):
    """The functions of a backend. A backend is a module that has them."""

    def feedforward(
        self, network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None
    ) -> list[np.ndarray]:
        """Activations T [n, units] of every layer after the input; the last are the outputs."""

    def predict(
        self, network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None
    ) -> np.ndarray:
        """Outputs T [n, n_out] alone."""

    def evaluate(
        self,
        network: Network,
        parameters: np.ndarray,
        X: np.ndarray,
        Y: np.ndarray,
        *,
        threads: int | None = None,
        weights: np.ndarray | None = None,
    ) -> tuple[float, float]:
        """Mean loss over all samples, and how many of them are right: an int; with weights n times their share of them.

        With several outputs, a sample is right if its largest output is at its label, or where its row of Y is
        largest. With a single output, and with several sigmoid outputs whose targets are rows, every output is a yes
        or no of its own: a sample is right if all its outputs are on their targets' side of ½ (`counts_sides`).
        """

    def backpropagation(
        self,
        network: Network,
        parameters: np.ndarray,
        X: np.ndarray,
        Y: np.ndarray,
        *,
        threads: int | None = None,
        weights: np.ndarray | None = None,
    ) -> tuple[np.ndarray, float]:
        """Gradients T [network.size] of loss and penalty, and the mean loss, with X and Y as one batch."""

    def update_weights(
        self, rule: Rule, parameters: np.ndarray, gradients: np.ndarray, state: State, *, threads: int | None = None
    ) -> None:
        """One step of the rule, in place."""

    def train_epoch(
        self,
        network: Network,
        rule: Rule,
        parameters: np.ndarray,
        state: State,
        X: np.ndarray,
        Y: np.ndarray,
        order: np.ndarray,
        batch_size: int,
        *,
        threads: int | None = None,
        errors: np.ndarray | None = None,
        samples: np.ndarray | None = None,
        weights: np.ndarray | None = None,
    ) -> np.ndarray:
        """One step of the rule for each batch of ``order``, in place.

        Returns float64 [ceil(m / batch_size)]: the mean loss of each batch before its step. ``errors``, as long, is
        filled with ½ the mean squared error over all entries of each batch's outputs before its step: what the lab
        draws, whatever it descends. It is not to be had with weights.
        """


def counts_sides(network: Network, labels: bool) -> bool:
    """Whether `Backend.evaluate` counts samples whose outputs are all on their targets' side of ½.

    Otherwise it counts those whose largest output is where the target's is. Backends ask this, so that all agree.

    Parameters
    ----------
    network : Network
    labels : bool
        Whether the targets are labels rather than rows.
    """
    return network.sizes[-1] == 1 or (not labels and network.activations[-1] == "sigmoid")


def check_flat(name: str, array: np.ndarray, size: int, dtype: str) -> None:
    """Refuse an array that is not flat, contiguous, of this size and dtype.

    Raises
    ------
    ValueError
        Saying what was given and what was expected. Compiled code indexes without looking, so this is where a wrong
        array stops.
    """
    expected = _DTYPES.get(dtype, dtype)  # to compare with a dtype's name takes half a microsecond
    if array.shape != (size,) or array.dtype != expected or not array.flags.c_contiguous:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}; expected contiguous {dtype} [{size}]")


def check_writable(**arrays: np.ndarray) -> None:
    """Refuse arrays that are to be changed in place but can't be written.

    Raises
    ------
    ValueError
        Naming the argument.
    """
    for name, array in arrays.items():
        if not array.flags.writeable:
            raise ValueError(f"{name} can't be written; expected an array that can, for it is changed in place")


def check_inputs(network: Network, parameters: np.ndarray, X: np.ndarray, Y: np.ndarray | None = None) -> None:
    """Refuse arrays that break the contract.

    Raises
    ------
    ValueError
        Naming the argument, what was given and what was expected.
    """
    check_flat("parameters", parameters, network.size, network.dtype)
    n_in, n_out = network.sizes[0], network.sizes[-1]
    shape, n = X.shape, len(X)
    if not n:
        raise ValueError(f"X is empty: {list(shape)}; expected at least one sample")
    if shape != (n, n_in) or X.dtype not in _INPUTS or not X.flags.c_contiguous:
        expected = f"C-contiguous {', '.join(INPUT_DTYPES)} [n, {n_in}]"
        raise ValueError(f"X is {X.dtype} {list(shape)}; expected {expected}")
    if Y is None:
        return
    if Y.ndim == 1 and Y.shape == (n,) and Y.dtype == np.int32 and Y.flags.c_contiguous:
        top = max(n_out - 1, 1)
        if Y.min() < 0 or Y.max() > top:
            raise ValueError(f"Y holds labels {Y.min()} to {Y.max()}; expected 0 to {top}")
    elif Y.shape != (n, n_out) or Y.dtype != network.dtype or not Y.flags.c_contiguous:
        expected = f"C-contiguous {network.dtype} [{n}, {n_out}] or int32 [{n}]"
        raise ValueError(f"Y is {Y.dtype} {list(Y.shape)}; expected {expected}")


def check_state(rule: Rule, state: State, parameters: np.ndarray) -> None:
    """Refuse a state that is not this rule's for these parameters.

    Raises
    ------
    ValueError
        Naming what was given and what was expected.
    """
    check_flat("state.slots", state.slots, rule.slots * len(parameters), str(parameters.dtype))
    check_flat("state.step", state.step, 1, "int64")


def check_order(order: np.ndarray, n: int, batch_size: int, name: str = "order") -> None:
    """Refuse an order that points outside the samples, or a batch size below one.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was given and what was expected.
    """
    if order.ndim != 1 or order.dtype != np.int64 or not order.flags.c_contiguous:
        raise ValueError(f"{name} is {order.dtype} {list(order.shape)}; expected contiguous int64 [m]")
    if not len(order):
        raise ValueError(f"{name} is empty; expected at least one index")
    if order.min() < 0 or order.max() >= n:
        raise ValueError(f"{name} holds {order.min()} to {order.max()}; expected 0 to {n - 1}")
    if isinstance(batch_size, bool) or not isinstance(batch_size, (int, np.integer)):
        raise TypeError(f"batch_size={batch_size!r}; expected a whole number, 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected 1 or more")


def composed(order: np.ndarray, samples: np.ndarray | None, n: int, batch_size: int) -> np.ndarray:
    """Indices into X [n] in the order of their use, from an order that may count in samples.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, if an index is none, or the batch size is below one.
    """
    if samples is None:
        check_order(order, n, batch_size)
        return order
    check_order(samples, n, 1, "samples")
    check_order(order, len(samples), batch_size)
    return samples[order]


def check_weights(weights: np.ndarray | None, n: int, errors: np.ndarray | None = None) -> None:
    """Refuse weights that are not float64 [n], finite and 0 or more, or that come with errors to be filled.

    Raises
    ------
    ValueError
        Saying what was given and what was expected.
    """
    if weights is None:
        return
    check_flat("weights", weights, n, "float64")
    if not (weights.min() >= 0 and np.isfinite(weights.sum())):
        raise ValueError(f"weights are {weights.min()} to {weights.max()}; expected 0 or more, with a finite sum")
    if errors is not None:
        raise ValueError("errors are given with weights; expected one of the two, as the errors have no weights")


class Shares(NamedTuple):
    """What weights come to in the batches of an order.

    Attributes
    ----------
    order : ndarray of int64, [m]
        The order, with another sample in the place of each that has no share: what is nan or infinite there would be
        so times 0, too.
    shares : ndarray, T [m]
        Of its batch's weight, for each entry of the order; they sum to 1, or to 0 where there is no weight.
    decays : ndarray of float64, [steps]
        λ / Σ wᵢ for each batch, 0 where there is no weight.
    """

    order: np.ndarray
    shares: np.ndarray
    decays: np.ndarray


@quiet
def shares_of(network: Network, weights: np.ndarray, order: np.ndarray, batch_size: int, epochs: int = 1) -> Shares:
    """Weights of all samples as shares of the batches of an order, or of equally long orders of several epochs."""
    own, used = weights[order], len(order) // epochs
    starts = np.add.outer(np.arange(epochs) * used, np.arange(0, used, batch_size)).ravel()
    totals = np.add.reduceat(own, starts)
    of_batch = np.repeat(totals, np.diff(starts, append=len(order)))
    shares = np.divide(own, of_batch, out=np.zeros(len(own)), where=of_batch > 0).astype(network.dtype)
    decays = np.divide(network.l2, totals, out=np.zeros(len(totals)), where=totals > 0)
    return Shares(np.where(shares > 0, order, order[shares.argmax()]), shares, decays)
