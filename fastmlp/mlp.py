"""Mlp: the multilayer perceptron that people use, at once the lab's class and a trainer.

It checks what it is given, hands arrays to a backend of `fastmlp.kernels`, and keeps weights, optimizer state and
history. There is no loop over samples here.
"""

import copy
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from operator import is_
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from fastmlp import checks, kernels, lab_mlp, seen
from fastmlp.callbacks import Callback, CallbackLike, callback_list
from fastmlp.fitting import Diverged, Fit, TrainingData, checked
from fastmlp.history import History
from fastmlp.initializers import AUTO, Initializer, by_layer, draw, generator, initializer, suitable
from fastmlp.kernels import Network, Rule, State
from fastmlp.kernels.activations import SOFTMAX
from fastmlp.kernels.contract import quiet
from fastmlp.kernels.losses import output_and_loss
from fastmlp.kernels.network import check_sizes
from fastmlp.kernels.reference import activate, forward, targets
from fastmlp.kernels.residence import OnHost, Residence, aligned_copy
from fastmlp.optimizers import Optimizer
from fastmlp.seen import Seen

if TYPE_CHECKING:
    import torch
    from torch import nn

    from fastmlp.torch_models import TorchMlp

#: Most samples that `Mlp.train` gives to one call of the backend. Ctrl-C undoes the steps of the call that it ends.
LONGEST_ORDER = 1_000_000


class Evaluation(NamedTuple):
    """What `Mlp.evaluate` returns.

    Attributes
    ----------
    loss : float
        Mean over the samples.
    accuracy : float
        Share of samples classified rightly, 0 to 1; nan for a network that does not classify.
    """

    loss: float
    accuracy: float


class Weights(list):
    """The weight matrices as a list of views; `Mlp` sees what has been replaced when it uses them next.

    So ``weights[0] -= step``, ``weights[0] = new`` and ``weights[0][:, 0] = 0`` all do what they say.
    """

    def __reduce__(self) -> tuple:
        return list, ([view.copy() for view in self],)  # a copy belongs to no network

    def __setitem__(self, index: Any, value: Any) -> None:
        if not isinstance(index, slice) and value is not self[index]:
            if has_shapes([value], [self[index]]):
                checks.matrix(f"weights[{index}]", value, self[index])
            # A copy, so that it makes no difference what becomes of the array between now and its use.
            try:
                value = copy.deepcopy(value)
            except Exception:  # whatever an object's own copying raises
                raise TypeError(f"weights[{index}] is a {type(value).__name__}; expected a matrix") from None
        super().__setitem__(index, value)


class Mlp:
    """A multilayer perceptron.

    ``Mlp(size_layers=[784, 100, 10])`` is the class of the neural-learning lab: sigmoid in every layer, the output
    too, binary cross-entropy, float64, and weights drawn from NumPy's global generator (``np.random.seed``) as the lab
    draws them. Each keyword changes what it names, and what plainly follows from that: the loss follows the output
    and the output the loss, the initializer follows the hidden activation. Nothing else changes.

    A subclass or an object may have its own ``initialize_weights``, which costs nothing, and its own ``sigmoid``,
    ``sigmoid_derivative``, ``feedforward`` and ``backpropagation``. With one of those four everything, `fit` and
    `evaluate` too, is computed by these methods and NumPy, as the lab composes them, and a RuntimeWarning says once
    that this is slow. An own sigmoid is that of all layers, the output's too, whatever ``activation`` and ``output``
    say; its derivative is σ(z) (1 - σ(z)) unless that is overridden as well. The methods get samples as the user gave
    them, before ``input_scale``, and targets as rows.

    Parameters
    ----------
    size_layers : sequence of int
        Inputs, units of each hidden layer, outputs; ``[2, 1]`` is a linear unit.
    activation : str or sequence of str, default "sigmoid"
        Of the hidden layers, one for all or one for each: "sigmoid", "relu", "leaky_relu", "tanh", "identity".
    output : str, optional
        Activation of the output; the default goes with the loss: "sigmoid", "softmax", "identity".
        "mean_squared_error" takes any but softmax.
    loss : {"binary_cross_entropy", "cross_entropy", "mean_squared_error"}, optional
        For a sigmoid and values within [0, 1]; for softmax and class labels; half the squared error. The default goes
        with the output, "mean_squared_error" with all but sigmoid and softmax; with neither given it is
        "binary_cross_entropy".
    bias : bool, default True
        Whether units have a bias.
    init : str or callable, optional
        "lab", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal", "torch" (the default of PyTorch's Linear),
        "cassani", "zeros", or a function ``f(rng, n_out, n_in, bias)`` (`fastmlp.initializers`). The default, "auto",
        goes with the hidden activation: "lab" for sigmoid, "glorot_uniform" for tanh and identity, "he_uniform" for
        relu and leaky_relu. Where hidden layers differ in that, each is drawn by its own activation, and the output
        layer by that of the last hidden one.
    dtype : {"float64", "float32"} or NumPy dtype, default "float64"
        Of weights and arithmetic.
    seed : int, optional
        0 to 2³² - 1, for weights and shuffling. Without it, weights are drawn from NumPy's global generator and follow
        ``np.random.seed``, and the order of the samples in `fit` differs from run to run. With it, weights are the
        numbers that come after ``np.random.seed(seed)``, and the global generator is left alone.
    backend : {"auto", "cpu", "cuda", "numpy"}, default "auto"
        Who computes: "cpu" is compiled, "cuda" an NVIDIA GPU, "numpy" slow and plain; "auto" is the fastest that works
        here for this network. "cuda:1" is the second GPU. On a GPU, parameters, optimizer state and the data of a
        `fit` stay there from epoch to epoch.
    threads : int, optional
        How many threads at most; None leaves it to the backend. May be set later, too.
    reg_lambda : float, default 0.0
        λ of the L2 penalty λ/(2B) Σ w², biases spared, for batches of B samples (Cassani's name), or of samples whose
        weights sum to B.
    bias_flag : bool, optional
        Cassani's name for ``bias``; takes precedence where given.
    input_scale, input_shift : float, defaults 1.0 and 0.0
        A sample x enters as x * input_scale + input_shift, computed on the way in: pixels can stay uint8.

    Attributes
    ----------
    size_layers : list of int
    n_layers : int
        Length of `size_layers`.
    network : fastmlp.kernels.Network
        The description, and the layout of the parameters.
    parameters : ndarray, [network.size]
        All weights and biases in one flat array, padding (zeros) included; change it in place.
    backend_name : str
        "cpu", "cuda" or "numpy".
    device : int or None
        Number of the GPU that was asked for as "cuda:1"; None otherwise.
    threads : int or None
    init : str
        Name of the initializer, "custom" for a function, "auto" where the hidden layers' own ones differ.
    history : History or None
        Of all calls of `fit` together; None before the first.
    compile_seconds : float
        What compiling, or loading compiled code, took at the last `fit`.
    metadata : dict
        Yours; anything JSON can hold. Saved with the model.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message says which, what was given and what was expected.
    RuntimeError
        If the backend does not work here.

    Examples
    --------
    >>> from fastmlp import Mlp, Sgd
    >>> xor = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> mlp = Mlp([2, 8, 2], activation="tanh", output="softmax", seed=1, backend="numpy")
    >>> history = mlp.fit(xor, [0, 1, 1, 0], epochs=300, batch_size=4, optimizer=Sgd(0.5))
    >>> mlp.classify(xor).tolist()
    [0, 1, 1, 0]
    """

    def __init__(
        self,
        size_layers: Sequence[int],
        *,
        activation: str | Sequence[str] = "sigmoid",
        output: str | None = None,
        loss: str | None = None,
        bias: bool = True,
        init: str | Initializer | None = None,
        dtype: DTypeLike = "float64",
        seed: int | None = None,
        backend: str = "auto",
        threads: int | None = None,
        reg_lambda: float = 0.0,
        bias_flag: bool | None = None,
        input_scale: float = 1.0,
        input_shift: float = 0.0,
    ) -> None:
        output, loss = output_and_loss(output, loss)
        network = Network.build(
            checked_sizes(size_layers, output == SOFTMAX),
            activation,
            output,
            loss,
            dtype=dtype_name(dtype),
            bias=checks.flag("bias", bias) if bias_flag is None else checks.flag("bias_flag", bias_flag),
            l2=checked_penalty(reg_lambda),
            input_scale=checks.number("input_scale", input_scale),
            input_shift=checks.number("input_shift", input_shift),
        )
        name, function = initializer(AUTO if init is None else init)
        if name == AUTO:
            hidden = network.activations[:-1]
            name = suitable(hidden or ([activation] if isinstance(activation, str) else ["sigmoid"]))
        self._set_up(network, name, function, seed, backend, threads)
        made = self.initialize_weights()
        if made is not None and made is not self._weights:  # a subclass' own that returns them and leaves it at that
            self.weights = made

    def _set_up(
        self,
        network: Network,
        init: str,
        function: Initializer | None,
        seed: int | None,
        backend: str,
        threads: int | None,
    ) -> None:
        """Everything but the weights, which are zero."""
        self.threads = checks.threads(threads)
        self._rng = np.random.default_rng(checks.seed(seed))
        self._weights_rng = None if seed is None else generator(seed)
        self._module: Any = kernels.backend(backend, network)
        _, self.device = kernels.split(backend)
        self.network = network
        self.init = init
        self._initializer = function
        self.history: History | None = None
        self.compile_seconds = 0.0
        self.metadata: dict[str, Any] = {}
        self._seen: Seen | None = None  # what the inputs of the training were like
        self._optimizer: tuple[str, State] | None = None  # the kind of the last rule that `fit` used, and its state
        self._prepared: set[tuple] = set()
        self._last_step: tuple[np.ndarray, np.ndarray] | None = None  # of `train`: gradients, and parameters after it
        self._told_slow = False
        self._steps_seen, self._next_look = 0, seen.ENOUGH_STEPS
        self._adopt(network.zeros())

    def _adopt(self, parameters: np.ndarray) -> None:
        """Make a flat array the parameters, and ``weights`` views of it."""
        reside: Callable[..., Residence] = getattr(self._module, "reside", OnHost)
        self._storage = reside(self.network, parameters, self.device)
        self._views = self.network.rows(parameters)
        self._list = Weights(self._views)
        self._weights: list = self._list  # or a list that has been assigned and does not fit (yet)

    @property
    def _numbers(self) -> Residence:
        """Where the parameters are, with `weights` as it is now.

        Raises
        ------
        ValueError
            If that list does not fit.
        """
        if len(self._weights) != len(self._views) or not all(map(is_, self._weights, self._views)):
            self._take_in(self._weights)
        if self._storage.__class__ is not OnHost and self._overridden:
            self._leave_device()
        return self._storage

    def _take_in(self, given: Sequence[ArrayLike]) -> None:
        """Copy matrices into the parameters, of which `weights` are views then; ValueError if they do not fit."""
        matrices = [matrix.copy() for matrix in checks.matrices("weights", given, self._views)]
        self._storage.host()
        for view, matrix in zip(self._views, matrices, strict=True):
            view[...] = checks.converted(matrix, view.dtype)
        self._storage.changed()
        self._list[:] = self._views
        self._weights = self._list

    def _leave_device(self) -> None:
        """Go on in the host's memory, since overridden methods are NumPy's."""
        kind, state = self._optimizer or (None, None)
        kept = None if kind is None or state is None else (kind, self._storage.host_state(state))
        self._storage, self._optimizer = OnHost(self.network, self._storage.host()), kept
        self._module, self.device = kernels.backend("numpy", self.network), None

    @property
    def _overridden(self) -> tuple[str, ...]:
        """Which of the lab's methods a subclass, or this object, has of its own."""
        cls, own = type(self), self.__dict__
        return tuple([name for name, written in AS_WRITTEN if name in own or getattr(cls, name) is not written])

    @property
    def _backend(self) -> Any:
        """The functions that compute: of a module, or of the methods that are overridden."""
        return lab_mlp.by_hand(self) if self._overridden else self._module

    @_backend.setter
    def _backend(self, module: Any) -> None:
        self._module = module

    def __repr__(self) -> str:
        net = self.network
        parts = f"activations={list(net.activations)}, loss={net.loss!r}, dtype={net.dtype!r}"
        return f"Mlp({list(net.sizes)}, {parts}, backend={self.backend_name!r})"

    def __getstate__(self) -> dict[str, Any]:
        # Modules can't be pickled, and copies of views would be views no longer.
        optimizer = (
            None if self._optimizer is None else (self._optimizer[0], self._numbers.host_state(self._optimizer[1]))
        )
        gone: dict[str, Any] = {"_weights": None, "_list": None, "_views": None, "_storage": None, "_prepared": set()}
        kept = {"_module": self.backend_name, "_parameters": self._numbers.host(), "_optimizer": optimizer}
        return {**self.__dict__, **gone, **kept}

    def _become(self, trained: "Mlp") -> None:
        """Take on all that training changes in a copy of this network; `parameters` stays the same array."""
        state = trained.__getstate__()
        self._numbers.host()[:] = state["_parameters"]
        self._storage.changed()
        kept = ("_rng", "history", "compile_seconds", "_seen", "_steps_seen", "_next_look", "_told_slow")
        self.__dict__.update({name: state[name] for name in kept})
        if state["_optimizer"] is None:
            self._optimizer = None
        else:
            kind, slots = state["_optimizer"]
            self._optimizer = kind, self._storage.taken_state(slots)

    def __copy__(self) -> "Mlp":
        """A copy that shares nothing, as `copy.deepcopy` makes it: a network that shares its history is none."""
        return copy.deepcopy(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        parameters = state.pop("_parameters")
        self.__dict__.update(state)
        self._module = kernels.backend(state["_module"], self.network)
        self._adopt(aligned_copy(parameters))
        if self._optimizer is not None:
            kind, kept = self._optimizer
            self._optimizer = kind, self._numbers.taken_state(kept)

    @property
    def backend_name(self) -> str:
        """Name of the backend that computes."""
        return next(name for name, path in kernels.BACKENDS.items() if path == self._module.__name__)

    @property
    def parameters(self) -> np.ndarray:
        """All parameters, flat."""
        return self._numbers.host(lend=True)

    # ---- the lab's class ----

    @property
    def size_layers(self) -> list[int]:
        """Inputs, units of each hidden layer, outputs."""
        return list(self.network.sizes)

    @property
    def n_layers(self) -> int:
        """How many there are, the inputs counted."""
        return len(self.network.sizes)

    @property
    def weights(self) -> list[np.ndarray]:
        """Views of the weights, one [next, current + 1] array a layer with the bias in column 0.

        Without bias [next, current]. Writing to them changes the network. The list can be assigned whole and entry by
        entry, and built with ``append`` and the like; the matrices are copied into the network. A list that does not
        fit is refused by a ValueError when the network is used next, and the network works again once it fits; what is
        of the right shape but not finite in the network's dtype is refused at once.

        On a GPU they are brought up to date when they are asked for here. Once asked for, they may be kept: they are
        then up to date after each epoch, when callbacks run, and changes to them go through to the GPU.
        """
        with suppress(ValueError):  # a list that does not fit may be about to be completed
            self._numbers.host(lend=True)
        return self._weights

    @weights.setter
    def weights(self, given: Sequence[ArrayLike]) -> None:
        matrices = checks.entries(given, checks.no_matrices("weights", given))
        if has_shapes(matrices, self._views):
            self._take_in(matrices)
        else:
            self._weights = matrices  # it may be about to be completed; `_numbers` refuses it until it is

    @property
    def gradients(self) -> list[np.ndarray] | None:
        """Gradients of the last step that `train` took, shaped like `weights`; None before."""
        return None if self._last_step is None else self.network.rows(self._last_step[0])

    @property
    def gradients_vector(self) -> np.ndarray | None:
        """`gradients` as one vector, see `unroll_weights`; None before `train`."""
        return None if self._last_step is None else self.unroll_weights(self.network.rows(self._last_step[0]))

    @property
    def weight_vector(self) -> np.ndarray | None:
        """The weights after the last step that `train` took as one vector, see `unroll_weights`; None before."""
        return None if self._last_step is None else self.unroll_weights(self.network.rows(self._last_step[1]))

    def _note_step(self, gradients: np.ndarray) -> None:
        """Keep the flat gradients of the last step of `train`, and the parameters, which are those after it."""
        self._last_step = gradients, self._numbers.host().copy()

    def initialize_weights(self) -> list[np.ndarray]:
        """Draw all weights anew, and forget the history and the optimizer's state.

        Returns
        -------
        list of ndarray
            `weights`.

        Raises
        ------
        RuntimeError
            If the network was loaded from a file, and its initializer was a function: a file can't hold that.
        """
        net = self.network
        layers = zip(by_layer(self.init, self._initializer, net.activations), net.sizes, net.sizes[1:], strict=False)
        rng = self._weights_rng or generator(None)
        self._take_in([draw(function, rng, n_out, n_in, net.bias) for function, n_in, n_out in layers])
        self.history = self._optimizer = self._last_step = self._seen = None
        self._steps_seen, self._next_look = 0, seen.ENOUGH_STEPS
        return self.weights

    def feedforward(self, X: ArrayLike) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
        """Activations and pre-activations of every layer, computed by NumPy whatever the backend.

        Parameters
        ----------
        X : array-like, [n, n_in]

        Returns
        -------
        A : list of ndarray
            A[0] = [1 X], A[l] = [1 σ(Z[l])], and the outputs A[-1] without the column of ones (a network without
            bias has none at all).
        Z : list
            Z[l] = A[l - 1] Wᵀ; Z[0] is None.
        """
        parameters, X = self._numbers.host(), self._inputs(X)
        if self._overridden:
            lab_mlp.by_hand(self)  # which tells that this is slow
            return lab_mlp.feedforward(self, X)
        values, zs, _ = forward(self.network, parameters, X)
        return values, zs

    @quiet
    def backpropagation(self, X: ArrayLike, Y: ArrayLike) -> list[np.ndarray]:
        """Gradients of the mean loss of X and Y as one batch (and of the penalty), shaped like `weights`.

        Parameters
        ----------
        X : array-like, [n, n_in]
        Y : array-like
            As ``y`` of `fit`.
        """
        X, Y = self._data(X, Y, "Y")
        with self._numbers.at_work():
            parameters = self._numbers.parameters()
            gradients, _ = self._backend.backpropagation(self.network, parameters, X, Y, threads=self.threads)
        return self.network.rows(gradients)

    def train(self, X: ArrayLike, Y: ArrayLike, iterations: int = 100, *, errors: list[float] | None = None) -> None:
        """So many full-batch steps W ← W - gradient, going on from the present weights.

        The last step's gradients are in `gradients` and `gradients_vector` then, the weights in `weight_vector`; after
        a call that did not come to its end all three are None. Ctrl-C raises KeyboardInterrupt; the weights are then
        as they were after one of the steps.

        Parameters
        ----------
        X : array-like, [n, n_in]
            uint8, float32 and float64 are read as they are.
        Y : array-like
            As ``y`` of `fit`; the lab's is one-hot [n, n_out].
        iterations : int, default 100
            0 or more.
        errors : list, optional
            Gets, for each iteration, what the lab draws: ½ mean((predict(X) - Y)²) over all entries, after its step.
            That forward pass is the next step's own, so the list costs one prediction in all.

        Warns
        -----
        RuntimeWarning
            If the weights diverge; they are then as they were at the last finite loss that was looked at. Also if the
            network has learned hardly anything from inputs far from unit scale.
        """
        iterations = checks.whole("iterations", iterations, 0)
        if not isinstance(errors, list | None):
            raise TypeError(f"errors is a {type(errors).__name__}; expected a list to be added to, or None")
        given = self._data(X, Y, "Y")
        if not iterations:
            return
        self._last_step = None
        if self._overridden:
            lab_mlp.train(self, given[0], targets(self.network, given[1]), iterations, errors)
            return
        X, Y = self._placed(*given)
        data, n, before_last = TrainingData(X, Y), len(X), iterations - 1
        at_once = max(min(before_last, LONGEST_ORDER // n), 1)
        order = np.tile(np.arange(n), at_once)
        plain = Rule("plain", learning_rate=1.0)
        remembering = Rule("momentum", learning_rate=1.0)  # the same step: with momentum 0 its state is the gradient
        calls = [(plain, min(at_once, before_last - done)) for done in range(0, before_last, at_once)]
        before: list[float] = []  # the error before each step is that after the one before
        try:
            for rule, steps in [*calls, (remembering, 1)]:
                state = self._numbers.new_state(rule)
                noted = np.zeros(0 if errors is None else steps)

                def go_on(
                    rule: Rule = rule, state: State = state, steps: int = steps, noted: np.ndarray = noted
                ) -> None:
                    self._steps(rule, state, data, order[: n * steps], n, noted if len(noted) else None)
                    before.extend(noted.tolist())

                self._all_or_nothing(go_on, state, [before])
            self._note_step(self._numbers.host_state(state).slots)
        except Diverged as diverged:
            warnings.warn(f"training stopped: {diverged}", RuntimeWarning, stacklevel=2)
        else:
            self._note_inputs(TrainingData(*given), steps=iterations)
        finally:
            if errors is not None and before:
                errors += [*before[1:], self._squared_error(X, Y)]

    @quiet
    def _squared_error(self, X: np.ndarray, Y: np.ndarray) -> float:
        """½ the mean squared error over all entries."""
        Y = Y if isinstance(Y, np.ndarray) else self._numbers.foreign_targets(Y)
        difference = (self._predict(X) - targets(self.network, Y)).ravel()
        return float(difference @ difference / (2 * difference.size))

    def unroll_weights(self, rolled_data: Sequence[ArrayLike]) -> np.ndarray:
        """Matrices shaped like `weights` as one vector, each matrix column-major."""
        return np.concatenate([w.ravel(order="F") for w in checks.matrices("rolled_data", rolled_data, self._views)])

    def roll_weights(self, unrolled_data: ArrayLike) -> list[np.ndarray]:
        """Matrices shaped like `weights` from one vector; the inverse of `unroll_weights`."""
        flat = checks.numeric("unrolled_data", unrolled_data)
        ends = np.cumsum([view.size for view in self._views])
        if flat.shape != (ends[-1],):
            raise ValueError(f"unrolled_data has shape {list(flat.shape)}; expected [{ends[-1]}]")
        parts = np.split(flat, ends[:-1])
        return [part.reshape(view.shape, order="F") for part, view in zip(parts, self._views, strict=True)]

    @staticmethod
    def sigmoid(z: ArrayLike) -> np.ndarray:
        """Logistic sigmoid 1 / (1 + e^-z), elementwise."""
        array = checks.numeric("z", z)
        return activate("sigmoid", array if array.dtype.kind == "f" else array.astype(np.float64))[0]

    @lab_mlp.on_class_too
    def sigmoid_derivative(self, z: ArrayLike) -> np.ndarray:
        """Derivative of the sigmoid, σ(z) (1 - σ(z)) with σ of the object it is called on, elementwise."""
        value = Mlp.sigmoid(z) if self is None else np.asarray(lab_mlp.elementwise(self, "sigmoid")(z))
        return value * (1 - value)

    # ---- the trainer ----

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 5,
        batch_size: int | None = 32,
        optimizer: str | Optimizer = "sgd",
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
        callbacks: Iterable[CallbackLike] | CallbackLike = (),
        progress: bool | Callback | None = None,
        sample_weight: ArrayLike | None = None,
        samples: ArrayLike | None = None,
    ) -> History:
        """Train for some epochs, going on from the present weights.

        A second call goes on where the first has ended: with the same kind of optimizer (plain SGD, momentum,
        Nesterov, Adam) its state is kept, whatever the new learning rate; another kind starts afresh, and so does
        `initialize_weights`.

        Parameters
        ----------
        X : array-like, [n, n_in]
            uint8, float32 and float64 are read as they are, other dtypes converted to the network's.
        y : array-like
            "cross_entropy": class labels [n] of an integer dtype, or rows [n, n_out] that are one-hot or
            probabilities. "binary_cross_entropy": values within [0, 1], [n] or [n, 1] for one output, [n, n_out] or
            labels [n] for more. "mean_squared_error": any numbers, [n] or [n, 1] for one output, [n, n_out] or labels
            (taken as one-hot) for more.
        epochs : int, default 5
        batch_size : int or None, default 32
            The last batch of an epoch may be smaller; None, or a size beyond that of the data, means all samples at
            once.
        optimizer : {"sgd", "adam"} or Optimizer, default "sgd"
            Such as ``Sgd(learning_rate=0.1, momentum=0.9)``.
        validation : (X, y), optional
            Evaluated after each epoch.
        shuffle : bool, default True
            Whether each epoch draws a new order of the samples.
        callbacks : sequence of Callback or function, default ()
            Told after each epoch; one that returns True ends the run (`fastmlp.callbacks`). An error in one
            propagates; the epoch before it is kept.
        progress : bool or Callback, optional
            A progress bar: None for one on a terminal or in a notebook, True always, False never; or a callback of
            your own in its place.
        sample_weight : array-like, [n], optional
            Finite, 0 or more, one at least above 0. The loss of a batch and its gradient are then the means with these
            weights, Σ wᵢ · / Σ wᵢ; the penalty's part is ``reg_lambda`` / Σ wᵢ (as in scikit-learn), and the history
            has the mean over all samples. Samples of weight 0 are left out, as by ``samples``. Weights of 1 change
            nothing. Not to be had where one of the lab's methods is overridden.
        samples : array-like of int, [k], or of bool, [n], optional
            Which samples train, by their indices in X, repeats allowed, or by a mask; all by default. The result is to
            the bit that of X[samples] and y[samples] (and sample_weight[samples]), but nothing is copied.

        Returns
        -------
        History
            Of this call; `history` holds that of all.

        Raises
        ------
        TypeError, ValueError
            If an argument is not as described, before anything has changed.

        Warns
        -----
        RuntimeWarning
            If the loss or a weight becomes nan or infinite. That epoch is undone and training stops: the model and
            the history end with the last good epoch. Also if the network has learned hardly anything from inputs far
            from unit scale, such as pixels of 0 to 255 without ``input_scale``; and if the validation's samples are of
            another scale than those of the training.

        Notes
        -----
        Ctrl-C ends the run: the epoch under way is undone, the history is returned with ``interrupted`` True. Any
        error in an epoch undoes that epoch as well, and propagates. Where nobody watches the epochs (no callback, no
        progress bar, no validation), those that take some milliseconds are trained several at a time by the backend
        "cpu", 20 ms together or so, and undone together; each has their mean time as its seconds. Undone are weights,
        the optimizer's state and the drawn order, so that a further `fit` goes on as if nothing had happened.
        """
        options = checked(self.network, epochs=epochs, batch_size=batch_size, optimizer=optimizer, shuffle=shuffle)
        watchers = callback_list(callbacks, progress)
        X, Y = self._data(X, y)
        held_out = None if validation is None else self._validation(validation)
        chosen, weights = self._chosen(samples, sample_weight, len(X))
        run = Fit(self, (X, Y, held_out), watchers=watchers, samples=chosen, weights=weights, **options)
        try:
            run.begin()
            while run.go_on():
                pass
            run.note_inputs()
        except KeyboardInterrupt:
            run.interrupt()
        finally:
            run.end()
        run.warn()
        return run.history

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Outputs, [n, n_out]: probabilities after softmax or sigmoid.

        Parameters
        ----------
        X : array-like, [n, n_in]
            As for `fit`, except that nan and infinity are not looked for, but passed on (as is what becomes infinite
            in the network's dtype): a call on one sample takes microseconds, and checking would be a good part of them.

        Warns
        -----
        RuntimeWarning
            If all of two or more samples are of another scale than those of the training, or look like inverted images
            of such (dark on light).
        """
        if not checks.is_ready(X, self.network.sizes[0]):
            if is_foreign(X):
                X = self._numbers.foreign_inputs(X, "X", False)
            else:
                X = checks.inputs(X, self.network, look_for_nan=False)
        if len(cast(np.ndarray, X)) > 1:
            self._compare(X)
        return self._predict(cast(np.ndarray, X))

    def _compare(self, X: Any, name: str = "X", stacklevel: int = 3) -> None:
        """Warn of samples that are unlike those of the training."""
        told = seen.difference(self._seen, X, name) if isinstance(X, np.ndarray) else ""
        if told:
            warnings.warn(told, RuntimeWarning, stacklevel=stacklevel)

    def _predict(self, X: np.ndarray) -> np.ndarray:
        numbers = self._numbers
        with numbers.at_work():
            return self._backend.predict(self.network, numbers.parameters(), X, threads=self.threads)

    def classify(self, X: ArrayLike) -> np.ndarray:
        """Labels, int64 [n]: the largest output's index; with one output, 1 where it is above ½.

        Where each of several sigmoid outputs is a yes or no of its own, ``predict(X) > 0.5`` has the answers.

        Parameters
        ----------
        X : array-like, [n, n_in]
            As for `fit`: finite numbers.

        Raises
        ------
        ValueError
            If this network does not classify, see `classifies`; or if X or an output is nan or infinite.

        Warns
        -----
        RuntimeWarning
            If all samples are of another scale than those of the training, or look like inverted images of such.
        """
        self._check_classifies("classify")
        X = self._inputs(X)
        self._compare(X)
        outputs = self._predict(X)
        if not checks.is_finite(outputs):
            row = int(np.flatnonzero(~np.isfinite(outputs).all(1))[0])
            raise ValueError(f"the outputs for X[{row}] are {outputs[row].tolist()}: weights are nan or too large")
        if outputs.shape[1] == 1:
            return (outputs[:, 0] > 0.5).astype(np.int64)
        return outputs.argmax(1)

    def evaluate(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> Evaluation:
        """Mean loss and accuracy on some data.

        Parameters
        ----------
        X, y : array-like
            As for `fit`.
        sample_weight : array-like, [n], optional
            Finite, 0 or more, one at least above 0. The mean is then Σ wᵢ lossᵢ / Σ wᵢ, and the accuracy the share that
            the samples classified rightly have of all weights.

        Returns
        -------
        Evaluation
            (loss, accuracy). With labels, and with rows that are one-hot throughout, a sample is right if its largest
            output is that of its class; with probabilities, if it is where they are largest. With other rows for
            sigmoid outputs, each output is a yes or no of its own, and a sample is right only if all its outputs are
            on their targets' side of ½ (scikit-learn's subset accuracy). Nan weights give nan for both.

        Warns
        -----
        RuntimeWarning
            If all samples are of another scale than those of the training, or look like inverted images of such.
        """
        X, Y = self._data(X, y)
        weights = self._weights_of(sample_weight, len(X))
        self._compare(X)
        return self._evaluate(X, Y, weights)

    def score(self, X: ArrayLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None) -> float:
        """Accuracy on some data, 0 to 1; what counts as right stands with `evaluate`, whose warnings it gives.

        Parameters
        ----------
        X, y : array-like
            As for `fit`.
        sample_weight : array-like, [n], optional
            As for `evaluate`.

        Raises
        ------
        ValueError
            If this network does not classify, see `classifies`; or if its outputs are nan.
        """
        self._check_classifies("score")
        X, Y = self._data(X, y)
        weights = self._weights_of(sample_weight, len(X))
        self._compare(X)
        loss, accuracy = self._evaluate(X, Y, weights)
        if math.isnan(loss):
            raise ValueError("the outputs for X are nan: weights are nan or too large")
        return accuracy

    @property
    def classifies(self) -> bool:
        """Whether outputs stand for classes.

        So it is after either cross-entropy, and after the squared error if the output is a sigmoid; any other output
        under the squared error is a regression.
        """
        return self.network.loss != "mean_squared_error" or self.network.activations[-1] == "sigmoid"

    def save(self, path: str | os.PathLike) -> None:
        """Write weights, description, history and ``metadata`` to a safetensors file (`fastmlp.modelfile`).

        Parameters
        ----------
        path : path-like
            A file there is replaced, once the new one is complete, and keeps its permissions. A device or a pipe is
            written into (`fastmlp.atomic.write_atomically`).

        Raises
        ------
        OSError
            If it can't be written there.
        TypeError, ValueError
            If ``metadata`` is no dict or does not fit into JSON, or if a weight is nan or infinite.

        Notes
        -----
        Equal runs write equal files: the history's ``seconds`` and ``samples_per_second`` are left out, and are nan
        once the file is loaded.
        """
        from fastmlp import modelfile

        numbers = self._numbers.host()
        model = modelfile.Model(self.network, numbers, self.init, self.history, self.metadata, self._seen)
        modelfile.write(path, model)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        backend: str = "auto",
        threads: int | None = None,
        seed: int | None = None,
    ) -> "Mlp":
        """The network that `save` wrote.

        Parameters
        ----------
        path : path-like
        backend, threads, seed
            As for the class. The optimizer's state and the generators are not in the file and start afresh.

        Raises
        ------
        OSError
            If the file is not there or can't be read.
        fastmlp.ModelFileError
            If it is damaged or no model file, or holds weights that are nan or infinite; it is named. A ValueError.
        """
        from fastmlp import modelfile

        model = modelfile.read(path)
        mlp = cls.__new__(cls)
        mlp._set_up(model.network, model.init, None, seed, backend, threads)
        mlp._adopt(model.parameters)
        mlp.history, mlp.metadata, mlp._seen = model.history, model.metadata, model.seen
        return mlp

    # ---- PyTorch and ONNX ----

    def to_torch(self) -> "TorchMlp":
        """The network as a PyTorch module, with copies of the weights in the same dtype.

        Returns
        -------
        fastmlp.torch_models.TorchMlp
            Its ``predict`` gives what `predict` does; called, it gives what PyTorch's loss takes (logits for the
            cross-entropies). ``input_scale`` and ``input_shift`` come along; ``reg_lambda`` is none of a module's.

        Raises
        ------
        fastmlp.extras.ExtraMissing
            If PyTorch is not installed.
        """
        from fastmlp.torch_conversion import to_torch

        return to_torch(self)

    @classmethod
    def from_torch(
        cls,
        module: "nn.Module",
        loss: str | None = None,
        *,
        seed: int | None = None,
        backend: str = "auto",
        threads: int | None = None,
        reg_lambda: float = 0.0,
        input_scale: float | None = None,
        input_shift: float | None = None,
    ) -> "Mlp":
        """The network of a PyTorch module, with copies of its weights in the same dtype.

        Parameters
        ----------
        module : torch.nn.Module
            A `fastmlp.torch_models.TorchMlp`, a Linear, or a Sequential of Linear, ReLU, LeakyReLU(0.01), Sigmoid, Tanh
            and Identity, with a Softmax or LogSoftmax at its end or none, a Flatten at its beginning or none. Two
            Linear in a row have the activation "identity" between them.
        loss : str, optional
            By default a TorchMlp's own. Otherwise it follows from the end: "cross_entropy" after a softmax and after a
            Linear of several units, whose outputs are taken as logits; "binary_cross_entropy" after a Sigmoid;
            "mean_squared_error" after another activation. A Linear of one unit leaves it open, and asks for it. With
            "binary_cross_entropy", too, the outputs of a Linear are logits.
        seed, backend, threads, reg_lambda
            As for the class.
        input_scale, input_shift : float, optional
            As for the class; by default a TorchMlp's own, or 1 and 0.

        Raises
        ------
        TypeError
            If module is none.
        ValueError
            If it has something that this class can't express; it is named.
        fastmlp.extras.ExtraMissing
            If PyTorch is not installed.
        """
        from fastmlp.torch_conversion import from_torch

        options = {"seed": seed, "backend": backend, "threads": threads, "reg_lambda": reg_lambda}
        inputs = {"input_scale": input_scale, "input_shift": input_shift}
        given = {name: value for name, value in inputs.items() if value is not None}
        return from_torch(cls, module, loss, {**options, **given})

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """Copies of the weights as PyTorch's tensors, for `TorchMlp.load_state_dict` among others.

        Returns
        -------
        dict
            ``layers.0.weight`` [n_out, n_in] and ``layers.0.bias`` [n_out] for each layer, as in a model file.

        Raises
        ------
        fastmlp.extras.ExtraMissing
            If PyTorch is not installed.
        """
        from fastmlp.torch_conversion import state_dict

        return state_dict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the weights of a state dict; the history and the optimizer's state stay.

        Parameters
        ----------
        state : dict
            From names to tensors or arrays: those of `state_dict`, or of any module whose only parameters are its
            layers' ``weight`` and ``bias`` and which keeps the layers in their order, such as a Sequential. Names that
            differ in numbers alone are taken in the order of these: a file read back may list "10" before "2". Others
            are taken in the order of the dict if that is the module's own, or else as their shapes tell.

        Raises
        ------
        TypeError
            If it is no dict.
        ValueError
            If an entry is missing, too many, of another shape, of a dtype that does not fit into the network's, or not
            finite, or if the order of the layers is left open; nothing has changed then.
        """
        from fastmlp.torch_conversion import load_state_dict

        load_state_dict(self, state)

    def to_onnx(self, path: str | os.PathLike) -> None:
        """Write the network as an ONNX model, which computes what `predict` does.

        Parameters
        ----------
        path : path-like
            A file there is replaced, once the new one is complete.

        Raises
        ------
        OSError
            If it can't be written there.
        fastmlp.extras.ExtraMissing
            If the package onnx is not installed.

        Notes
        -----
        Its input ``X`` [n, n_in] and its output ``outputs`` [n, n_out] are of the network's dtype, with any n;
        ``input_scale`` and ``input_shift`` are part of the model.
        """
        from fastmlp.onnx_export import write

        lab_mlp.refuse_overridden(self, "an ONNX model")
        write(self.network, self._numbers.host(), path)

    # ---- what these share ----

    def _inputs(self, X: ArrayLike, name: str = "X") -> np.ndarray:
        if is_foreign(X):
            return self._numbers.foreign_inputs(X, name)
        return checks.inputs(X, self.network, name)

    def _targets(self, y: ArrayLike, n: int, name: str = "y", samples: str = "X") -> np.ndarray:
        """Targets as the kernels read them; those in a GPU's memory stay there if they need no conversion."""
        if not is_foreign(y):
            return checks.targets(y, self.network, n, name, samples)
        given = self._numbers.foreign_targets(y)
        taken = checks.targets(given, self.network, n, name, samples)
        same = taken.dtype == given.dtype and taken.shape == given.shape and given.flags.c_contiguous
        return cast(np.ndarray, y) if same else taken

    def _data(self, X: ArrayLike, y: ArrayLike, y_name: str = "y") -> tuple[np.ndarray, np.ndarray]:
        samples = self._inputs(X)
        return samples, self._targets(y, len(samples), y_name)

    def _placed(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Samples and targets where the backend reads them, for as long as the caller keeps them."""
        return self._numbers.data(X, "X"), self._numbers.data(Y, "y")

    def _validation(self, pair: tuple[ArrayLike, ArrayLike]) -> tuple[np.ndarray, np.ndarray]:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError(f"validation is a {type(pair).__name__}; expected a pair (X, y)")
        X = self._inputs(pair[0], "validation X")
        return X, self._targets(pair[1], len(X), "validation y", "validation X")

    def _on_host(self, given: ArrayLike, name: str) -> ArrayLike:
        """What was given, from a GPU's memory if it is there."""
        return self._numbers.foreign_targets(given, name) if is_foreign(given) else given

    def _weights_of(self, given: ArrayLike | None, n: int, used: np.ndarray | None = None) -> np.ndarray | None:
        """Weights for n samples, float64; None without."""
        if given is None:
            return None
        if self._overridden:
            names = ", ".join(self._overridden)
            raise ValueError(f"sample_weight is given, but {type(self).__name__} overrides {names}; expected None")
        return checks.sample_weight(self._on_host(given, "sample_weight"), n, used)

    def _chosen(
        self, samples: ArrayLike | None, sample_weight: ArrayLike | None, n: int
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Which of n samples train, those of weight 0 left out; and the weights, None where all that train have 1."""
        chosen = None if samples is None else checks.samples(self._on_host(samples, "samples"), n)
        weights = self._weights_of(sample_weight, n, chosen)
        if weights is None:
            return chosen, None
        own = weights if chosen is None else weights[chosen]
        if not own.all():
            chosen = np.flatnonzero(own) if chosen is None else chosen[own > 0]
        return chosen, None if (own[own > 0] == 1).all() else weights

    def _state(self, rule: Rule) -> State:
        """The state kept from the last `fit` if its rule was of the same kind, or else a new one."""
        kind, state = self._optimizer or (None, None)
        return state if state is not None and kind == rule.kind else self._numbers.new_state(rule)

    def _prepare(self, rule: Rule, data: TrainingData, batch_size: int) -> None:
        """Have the backend compile what is needed, if it compiles; time it apart from the training."""
        self.compile_seconds = 0.0
        weighted = data.weights is not None
        jobs: list[tuple[str, tuple]] = [
            ("prepare", (self.network, rule)),
            ("prepare_for", (self.network, rule, data.X, data.Y, batch_size, weighted)),
        ]
        kind = str(data.X.dtype), data.Y.ndim, batch_size, weighted
        for name, arguments in jobs:
            function: Callable[..., Any] | None = getattr(self._backend, name, None)
            job = rule, *(kind if name == "prepare_for" else ())
            if function is not None and job not in self._prepared:
                start = time.perf_counter()
                with self._numbers.at_work():
                    function(*arguments)
                self.compile_seconds += time.perf_counter() - start
                self._prepared.add(job)

    @quiet
    def _epochs(
        self,
        rule: Rule,
        state: State,
        data: TrainingData,
        batch_size: int,
        shuffle: bool,
        held_out: tuple[np.ndarray, np.ndarray] | None,
        count: int = 1,
    ) -> list[dict[str, float]]:
        """Train for so many epochs, and evaluate after the last; returns the arguments of `History.append` for each."""
        n = data.n
        start = time.perf_counter()
        order = np.empty((count, n), np.int64)
        for one in order:
            one[:] = self._rng.permutation(n) if shuffle else np.arange(n)
        losses = self._steps(rule, state, data, order.reshape(-1), batch_size, epochs=count).reshape(count, -1)
        seconds = (time.perf_counter() - start) / count
        weights = data.batch_weights(order, batch_size)
        means = ((losses * weights).sum(1) / weights.sum(-1)).tolist()  # `numpy.average` takes 20 µs more
        figures = [{"loss": mean, "seconds": seconds, "samples_per_second": n / max(seconds, 1e-9)} for mean in means]
        if held_out is not None:
            figures[-1]["val_loss"], figures[-1]["val_accuracy"] = self._evaluate(*held_out)
        return figures

    def _steps(
        self,
        rule: Rule,
        state: State,
        data: TrainingData,
        order: np.ndarray,
        batch_size: int,
        errors: np.ndarray | None = None,
        epochs: int = 1,
    ) -> np.ndarray:
        """One call of the backend's `train_epoch`; Diverged if anything in it became nan or infinite.

        Of its `train_epochs`, which not every backend has, if the order is that of several epochs.
        """
        numbers, backend = self._numbers, self._backend
        train = backend.train_epoch if epochs == 1 else partial(backend.train_epochs, epochs=epochs)
        with (
            np.errstate(over="ignore", invalid="ignore"),  # the numpy backend's warnings: told by Diverged instead
            numbers.at_work(),
        ):
            losses = train(
                self.network,
                rule,
                numbers.parameters(),
                state,
                data.X,
                data.Y,
                order,
                batch_size,
                threads=self.threads,
                errors=errors,
                samples=data.samples,
                weights=data.weights,
            )
        numbers.trained()
        if not checks.is_finite(losses):
            raise Diverged(f"the loss became {losses[~np.isfinite(losses)][0]}")
        if not numbers.is_finite():
            raise Diverged("a weight became nan or infinite")
        return losses

    def _all_or_nothing(self, work: Callable[[], None], state: State, lists: Iterable[list]) -> None:
        """Do some training, which is undone if an exception ends it.

        Undone are changes of the parameters, the optimizer's state and the generator, and entries added to the lists.
        The exception may come from a signal handler, after any bytecode. So may another one while the work is undone;
        undoing then begins again.
        """
        copies, shuffling, optimizer = self._numbers.copies(state), self._rng.bit_generator.state, self._optimizer
        lengths = [(one, len(one)) for one in lists]

        def put_back() -> None:
            self._numbers.put_back(copies, state)
            self._rng.bit_generator.state = shuffling
            self._optimizer = optimizer
            for one, length in lengths:
                del one[length:]
            undone.append(True)

        undone: list[bool] = []
        try:
            work()
        except BaseException:
            try:
                repeat_until_done(put_back)
            finally:  # where an exception has come before the first repetition
                if not undone:
                    repeat_until_done(put_back)
            raise

    def _evaluate(self, X: np.ndarray, Y: np.ndarray, weights: np.ndarray | None = None) -> Evaluation:
        numbers, options = self._numbers, {"threads": self.threads, "weights": weights}
        with numbers.at_work():
            loss, hits = self._backend.evaluate(self.network, numbers.parameters(), X, Y, **options)
        is_known = self.classifies and not math.isnan(loss)  # where outputs are nan, no class is the right one
        return Evaluation(loss, hits / len(X) if is_known else math.nan)

    def _note_inputs(
        self, data: TrainingData, held_out: tuple[Any, Any] | None = None, *, steps: int, stacklevel: int = 3
    ) -> None:
        """Remember what the inputs of a training were like, and warn of those that can't have been meant.

        Those are inputs far from unit scale of which the network has learned hardly anything, and validation samples
        unlike them. Samples in a GPU's memory are not looked at.
        """
        if not steps or not isinstance(data.X, np.ndarray) or not isinstance(data.Y, np.ndarray):
            return
        some = data.some(seen.TRAINING_ROWS)
        self._seen = seen.look(some.X, self._seen)
        self._steps_seen += steps
        if self._steps_seen >= self._next_look:  # many short calls are looked at after 50, 100, 200 … steps
            self._next_look = 2 * self._steps_seen
            advice = seen.scale_advice(self._seen, self.network)
            if advice and self._has_learned_little(some):
                warnings.warn(f"hardly anything was learned; {advice}", RuntimeWarning, stacklevel=stacklevel)
        if held_out is not None:
            self._compare(held_out[0], "validation X", stacklevel + 1)

    @quiet
    def _has_learned_little(self, some: TrainingData) -> bool:
        """Whether constant outputs would do nearly as well on these samples of the training."""
        X, Y = np.ascontiguousarray(some.X), np.ascontiguousarray(some.Y)
        weights = None if some.weights is None else np.ascontiguousarray(some.weights)
        loss, accuracy = self._evaluate(*self._placed(X, Y), weights)
        least_loss, share = seen.constant_loss(self.network, targets(self.network, Y), weights)
        is_right = self.classifies and accuracy > share + seen.LITTLE_ACCURACY * (1 - share)
        return not is_right and loss > (1 - seen.LITTLE_LOSS) * least_loss

    def _check_classifies(self, what: str) -> None:
        if not self.classifies:
            given = f"loss='mean_squared_error' with output={self.network.activations[-1]!r}"
            raise ValueError(f"{what} needs a network that classifies; this one has {given}. See predict and evaluate")


def repeat_until_done(action: Callable[[], None], most: int = 1000) -> None:
    """Do something from its beginning until it has come to its end, so many times at most.

    What kept it from that is raised afterwards: a Ctrl-C that comes meanwhile is not lost.
    """
    late = None
    for _ in range(most):
        try:
            action()
            break
        except BaseException as error:
            late = error
    if late is not None:
        raise late


def checked_sizes(size_layers: Sequence[int], softmax: bool) -> tuple[int, ...]:
    """The sizes as a tuple, checked; ``softmax`` says what the output is."""
    expected = "expected a sequence of whole numbers, such as [784, 100, 10]"
    sizes = tuple(checks.entries(size_layers, f"size_layers={size_layers!r}; {expected}"))
    check_sizes("size_layers", sizes, softmax)
    return sizes


def dtype_name(dtype: DTypeLike) -> str:
    """Name of a NumPy dtype; what is none is passed on for `Network` to refuse."""
    try:
        return np.dtype(dtype).name
    except Exception:  # whatever an object's own conversion raises
        return str(dtype)


def checked_penalty(reg_lambda: float) -> float:
    """The penalty under the name that the user knows it by."""
    if checks.number("reg_lambda", reg_lambda) < 0:
        raise ValueError(f"reg_lambda={reg_lambda}; expected 0 or more")
    return float(reg_lambda)


def has_shapes(given: Sequence[ArrayLike], expected: Sequence[np.ndarray]) -> bool:
    """Whether there is one array for each of the expected ones and of its shape."""
    try:
        return [np.shape(one) for one in given] == [np.shape(one) for one in expected]
    except Exception:  # no shape at all: rows of unequal length, or whatever an object's own conversion raises
        return False


def is_foreign(array: object) -> bool:
    """Whether an array is in a GPU's memory: PyTorch's, CuPy's, Numba's."""
    return not isinstance(array, np.ndarray) and hasattr(array, "__cuda_array_interface__")


#: What `Mlp` itself has under the names that a student may give another meaning.
AS_WRITTEN = [(name, getattr(Mlp, name)) for name in lab_mlp.METHODS]
