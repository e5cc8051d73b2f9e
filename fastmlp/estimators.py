"""scikit-learn's estimators over fastmlp's kernels: `MLPClassifier` and `MLPRegressor`.

Their parameters are those of scikit-learn's classes of the same names, with the same meaning and the same defaults, so
that changing the import is all it takes::

    from fastmlp.estimators import MLPClassifier  # instead of: from sklearn.neural_network import MLPClassifier

What is not in scikit-learn's has parameters of its own: ``class_weight``, ``validation_data``, ``threads``, ``dtype``
and ``backend``. The formulas are scikit-learn's: initial weights are the same numbers from the same ``random_state``,
and without shuffling so are, up to rounding, the weights after each step. But for Adam's, whose ``epsilon`` is added as
in its paper and in PyTorch; and orders of samples are drawn from another generator.
"""

import os
import threading
import warnings
from dataclasses import replace
from multiprocessing import current_process
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from joblib.parallel import get_active_backend
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import Interval, Options, StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from fastmlp import checks
from fastmlp.callbacks import CallbackList
from fastmlp.fitting import LONGEST_ORDERS, Diverged, Fit, TrainingData
from fastmlp.kernels import Network, Rule, State
from fastmlp.kernels.activations import ACTIVATIONS
from fastmlp.mlp import Mlp

__all__ = ["MLPClassifier", "MLPRegressor"]

#: Most bytes that a sparse matrix may take when it is made dense for training; predictions need a small part of it.
DENSE_BYTES = 2 * 1024**3
#: Bytes of dense rows that a sparse matrix is predicted by at a time.
ROW_BYTES = 16 * 1024**2

#: The floats that kernels read as they are; anything else becomes the first.
FLOATS = (np.float32, np.float64)

#: scikit-learn's name -> fastmlp's, where they differ.
NAMES = {"logistic": "sigmoid"}

#: "adaptive" learning rates at or below this end the training instead of becoming smaller.
LEAST_ADAPTIVE_RATE = 1e-6
#: No learning rate falls below this, since float32 would make 0 of it; and no momentum, which the kernels keep before
#: the learning rate multiplies it, is made larger by more than this at once.
LEAST_RATE, MOST_GROWTH = 1e-30, 1e6

#: Multiply-adds of the forward passes of some 20 ms of training, that many epochs at most in one call of the backend;
#: so many more are counted for each sample, and for each step.
LONGEST_WORK, SAMPLE_WORK, STEP_WORK = 200_000_000, 500, 5000

#: Samples times multiply-adds of a forward pass up to which `fit` computes in float64 whatever the dtype: a step then
#: takes some 0.1 ms in either. Equal models come of samples that are weighted, repeated, or in another order.
TINY_WORK = 120_000

NOT_FINITE = (
    "Solver produced non-finite parameter weights. The input data may contain large values and need to be preprocessed."
)


class Views(list):
    """Views of a network's parameters, into which assigned entries are copied."""

    def __setitem__(self, index: Any, value: Any) -> None:
        self[index][...] = value

    def __reduce__(self) -> tuple:
        return list, ([view.copy() for view in self],)  # a copy belongs to no network


class PoissonMlp(Mlp):
    """A network whose outputs are logarithms of expected counts, trained on half the Poisson deviance.

    For outputs z and targets t, the kernels' squared error has the gradient z - t. With t = z - e^z + y it is the
    deviance's own, e^z - y: a step is a prediction, and then the kernels' step with such targets.
    """

    def _placed(self, X: np.ndarray, Y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return X, Y  # batches are gathered on the host

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
        losses = []
        for one in order.reshape(epochs, -1):
            for start in range(0, len(one), batch_size):
                batch = one[start : start + batch_size]
                batch = batch if data.samples is None else data.samples[batch]
                X, weights = data.X[batch], None if data.weights is None else data.weights[batch]
                targets, loss = self.matched(X, data.Y[batch], weights)
                if not np.isfinite(loss):
                    raise Diverged(f"the loss became {loss}")
                losses.append(loss)
                super()._steps(rule, state, TrainingData(X, targets, None, weights), np.arange(len(X)), len(X))
        return np.array(losses)

    def matched(self, X: np.ndarray, y: np.ndarray, weights: np.ndarray | None) -> tuple[np.ndarray, float]:
        """Targets whose squared error has the gradient of the deviance, and the mean deviance, halved."""
        from scipy.special import xlogy

        z = self._predict(X)
        with np.errstate(over="ignore", invalid="ignore"):
            counts = np.exp(z)
            loss = np.average((xlogy(y, y) - y * z - y + counts).sum(1, dtype=np.float64), weights=weights)
            return z - counts + y, float(loss)


class Course:
    """What goes on beside the epochs of one call: the loss curve, the learning rate, whether to stop.

    Parameters
    ----------
    estimator : MultilayerPerceptron
    run : Fit
    mean_weight : float
        Mean of the samples' weights.
    held_out : (X, targets, weights) or None
        To be scored after each epoch.
    """

    def __init__(self, estimator: Any, run: Fit, mean_weight: float, held_out: tuple | None) -> None:
        self.estimator, self.run = estimator, run
        self.held_out: Any = held_out
        self.is_over = False
        self.steps = -(-run.n // run.batch_size)
        # A batch's penalty is alpha / (2 Σ weights) Σ w²: this is the factor of Σ w² in its mean over an epoch.
        self.penalty = estimator.alpha * self.steps / (2 * run.n * mean_weight)
        self.squares = squared_weights(run.mlp) if self.penalty else 0.0
        network = run.mlp.network
        work = run.n * (network.multiply_adds + SAMPLE_WORK) + self.steps * STEP_WORK
        has_several = hasattr(run.mlp._backend, "train_epochs")
        self.most_at_once = max(min(LONGEST_WORK // work, LONGEST_ORDERS // run.n), 1) if has_several else 1

    def ahead(self) -> int:
        """How many epochs are trained before anybody has to look.

        The count, which decides what is told of the loss, must not depend on the time that anything takes.
        """
        one = self.estimator
        if self.held_out is not None or one.verbose or one._is_pace("invscaling"):
            return 1
        return int(max(min(self.most_at_once, one.n_iter_no_change + 1 - one._no_improvement_count), 1))

    def note(self) -> None:
        """Take in the losses of the epochs that have just been trained."""
        one = self.estimator
        losses = self.run.history.loss[one.n_iter_ :]
        penalties = self._penalties(len(losses))
        for loss, penalty in zip(losses, penalties, strict=True):
            one.loss_ = loss / one._loss_divisor + penalty
            one.t_ += self.run.n
            one.loss_curve_.append(one.loss_)
            one.n_iter_ += 1
            if one.verbose:
                print(f"Iteration {one.n_iter_}, loss = {one.loss_:.8f}")
            is_better = self.held_out is not None and self._validate()
            if not one.early_stopping:
                is_better = not one.loss_ > one.best_loss_ - one.tol
                one.best_loss_ = min(one.best_loss_, one.loss_)
            one._no_improvement_count = 0 if is_better else one._no_improvement_count + 1
            if one._is_pace("invscaling"):
                self._set_rate(one.learning_rate_init / (one.t_ + 1) ** one.power_t)
            if one._no_improvement_count > one.n_iter_no_change:
                self._stop_or_slow_down()

    def _set_rate(self, rate: float) -> None:
        """Go on with another learning rate; what has been gathered as momentum is not scaled by it."""
        run, before = self.run, self.estimator._optimizer
        self.estimator._optimizer = run.rule = replace(before, learning_rate=max(rate, LEAST_RATE))
        factor = before.learning_rate / run.rule.learning_rate
        if before.momentum and factor != 1 and factor < MOST_GROWTH:
            numbers = run.mlp._numbers
            state = numbers.host_state(run.state)
            state.slots[:] *= factor
            run.state = numbers.taken_state(state)
            run.mlp._optimizer = run.rule.kind, run.state

    def _penalties(self, epochs: int) -> list[float]:
        """The penalty's mean over each epoch's batches, Σ w² being taken to change evenly from step to step."""
        if not self.penalty:
            return [0.0] * epochs
        before, self.squares = self.squares, squared_weights(self.run.mlp)
        step = (self.squares - before) / max(epochs * self.steps, 1)
        return [self.penalty * (before + step * (epoch * self.steps + (self.steps - 1) / 2)) for epoch in range(epochs)]

    def _validate(self) -> bool:
        """Score the held-out samples, and keep the weights that early stopping restores; whether it is better."""
        one = self.estimator
        score, best = one._score_held_out(self.run.mlp, *self.held_out), one.best_validation_score_
        one.validation_scores_.append(score)
        if one.verbose:
            print(f"Validation score: {score:f}")
        if score > best:
            one.best_validation_score_ = score
            if one.early_stopping:
                one._best_weights = [view.copy() for view in self.run.mlp.weights]
        return not score < best + one.tol

    def _stop_or_slow_down(self) -> None:
        """End the training, or make the learning rate smaller."""
        one = self.estimator
        what = "Validation score" if one.early_stopping else "Training loss"
        told = f"{what} did not improve more than tol={one.tol:f} for {one.n_iter_no_change} consecutive epochs."
        rate = one._optimizer.learning_rate
        if not one._is_pace("adaptive"):
            self.is_over = True
            told += " Stopping."
        elif rate <= LEAST_ADAPTIVE_RATE:
            self.is_over = True
            told += " Learning rate too small. Stopping."
        else:
            self._set_rate(rate / 5)
            one._no_improvement_count = 0
            told += f" Setting learning rate to {rate / 5:f}"
        if one.verbose:
            print(told)


class MultilayerPerceptron(BaseEstimator):
    """What `MLPClassifier` and `MLPRegressor` share."""

    _parameter_constraints: ClassVar[dict] = {
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions({*NAMES, *ACTIVATIONS})],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), Interval(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "power_t": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [Interval(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [Interval(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "beta_1": [Interval(Real, 0, 1, closed="left")],
        "beta_2": [Interval(Real, 0, 1, closed="left")],
        "epsilon": [Interval(Real, 0, None, closed="neither")],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [Interval(Integral, 1, None, closed="left")],
        "validation_data": [tuple, list, None],
        "threads": [Interval(Integral, 1, None, closed="left"), None],
        "dtype": [StrOptions({"float32", "float64"}), Options(type, {np.float32, np.float64}), np.dtype],
        "backend": [str],
    }

    def _take(self, given: dict[str, Any]) -> None:
        """Keep the constructor's parameters, as its ``locals()`` hold them."""
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    # ---- the network inside ----

    @property
    def coefs_(self) -> list[np.ndarray]:
        """Weights of each layer, [inputs, units]: views of those in `mlp_`, so that writing to them changes it."""
        return Views(view[:, 1:].T for view in self._rows())

    @coefs_.setter
    def coefs_(self, given: Any) -> None:
        self._assign(self.coefs_, given)

    @property
    def intercepts_(self) -> list[np.ndarray]:
        """Biases of each layer, [units]: views, as `coefs_`."""
        return Views(view[:, 0] for view in self._rows())

    @intercepts_.setter
    def intercepts_(self, given: Any) -> None:
        self._assign(self.intercepts_, given)

    @staticmethod
    def _assign(views: list[np.ndarray], given: Any) -> None:
        for view, values in zip(views, given, strict=True):
            view[...] = values

    def _rows(self) -> list[np.ndarray]:
        """Biases and weights of each layer, [units, 1 + inputs]; AttributeError before the first fit."""
        return self.mlp_.weights

    def _hidden(self) -> list[int]:
        sizes = self.hidden_layer_sizes
        sizes = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if not all(isinstance(size, Integral) and int(size) > 0 for size in sizes):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return sizes

    def _network(self, n_in: int, n_out: int) -> Network:
        """What the parameters and the data describe."""
        output, loss = self._output_and_loss()
        sizes = [n_in, *self._hidden(), n_out]
        activation = NAMES.get(str(self.activation), str(self.activation))
        return Network.build(sizes, activation, output, loss, dtype=np.dtype(self.dtype).name, l2=float(self.alpha))

    def _mlp_class(self) -> type[Mlp]:
        return Mlp

    def _begin(self, network: Network, random: np.random.RandomState) -> None:
        """A new network, its weights drawn, and nothing learned."""
        mlp = self._mlp_class()(
            network.sizes,
            activation=network.activations[:-1],
            output=network.activations[-1],
            loss=network.loss,
            init="zeros",
            dtype=network.dtype,
            reg_lambda=network.l2,
            backend=self.backend,
        )
        factor = 2 if self.activation in ("logistic", "sigmoid") else 6
        for view, n_in, n_out in zip(mlp.weights, network.sizes, network.sizes[1:], strict=False):
            bound = np.sqrt(factor / (n_in + n_out))
            view[:, 1:] = random.uniform(-bound, bound, (n_in, n_out)).T
            view[:, 0] = random.uniform(-bound, bound, n_out)
        self.mlp_ = mlp
        self.n_layers_ = len(network.sizes)
        self.n_iter_ = self.t_ = 0
        if self.solver != "lbfgs":
            self._begin_curves()

    def _out_activation(self, network: Network) -> str:
        """scikit-learn's name of the output's activation."""
        return {"sigmoid": "logistic"}.get(network.activations[-1], network.activations[-1])

    def _begin_curves(self) -> None:
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.validation_scores_: Any = [] if self._is_validated() else None
        self.best_validation_score_ = -np.inf if self._is_validated() else None
        self.best_loss_ = None if self.early_stopping else np.inf
        self._best_weights: Any = [view.copy() for view in self.mlp_.weights] if self.early_stopping else None

    def _go_on(self, network: Network) -> None:
        """Go on with the network there is, with the parameters as they are now."""
        before = self.mlp_.network
        if type(self.mlp_) is not self._mlp_class():
            raise ValueError(f"warm_start and partial_fit go on with the loss there was; got loss={self.loss!r}")
        if (network.sizes, network.dtype) != (before.sizes, before.dtype):
            raise ValueError(
                f"warm_start and partial_fit go on with the layers {list(before.sizes)} of {before.dtype}; the "
                f"parameters and the data now ask for {list(network.sizes)} of {network.dtype}"
            )
        if network != before:
            self.mlp_.network = network
        if self.solver != "lbfgs":
            there = hasattr(self, "loss_curve_") and (self.validation_scores_ is not None, self.best_loss_ is None)
            if there != (self._is_validated(), bool(self.early_stopping)):
                self._begin_curves()

    def _is_validated(self) -> bool:
        return bool(self.early_stopping) or self.validation_data is not None

    def _threads(self) -> int | None:
        """How many threads: those asked for; otherwise one where joblib runs several tasks in a process.

        In a process of its own a task has the share of the cores that joblib tells it in NUMBA_NUM_THREADS, or that
        others, such as Dask and Ray, tell it in OMP_NUM_THREADS.
        """
        if self.threads is not None:
            return self.threads
        if threading.current_thread() is not threading.main_thread() or current_process().daemon:
            backend, _ = get_active_backend()
            if getattr(backend, "nesting_level", 0) or "dask" in type(backend).__module__:
                return 1
        told = os.environ.get("OMP_NUM_THREADS", "")
        is_limit = told.isdecimal() and 0 < int(told) < (os.cpu_count() or 1) and "NUMBA_NUM_THREADS" not in os.environ
        return int(told) if is_limit else None

    # ---- training ----

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> "MultilayerPerceptron":
        self._hidden()
        self._check_combinations(incremental)
        first = not hasattr(self, "mlp_") or not (self.warm_start or incremental)
        X, y = self._checked_data(X, y, first, incremental)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        weights = self._class_weighted(weights, y)
        if weights is not None and not weights.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        targets = self._targets(y)
        X = self._taken_in(X)
        self.n_outputs_ = self._count_outputs(targets)
        network = self._network(X.shape[1], self.n_outputs_)
        random = check_random_state(self.random_state)
        if first:
            self._begin(network, random)
        else:
            self._go_on(network)
        self.out_activation_ = self._out_activation(network)
        self.mlp_.threads = self._threads()
        if self.solver == "lbfgs":
            self._fit_lbfgs(X, targets, weights)
        else:
            self._fit_stochastic(X, targets, weights, random, incremental)
        return self

    def _check_combinations(self, incremental: bool) -> None:
        """Refuse what can't have been meant."""
        if incremental and self.early_stopping:
            raise ValueError("partial_fit does not support early_stopping=True")
        if self.validation_data is None:
            return
        if self.solver == "lbfgs":
            raise ValueError("validation_data is used by solver='sgd' and solver='adam' only; got solver='lbfgs'")
        if len(self.validation_data) not in (2, 3):
            raise ValueError(
                f"validation_data has {len(self.validation_data)} entries; expected (X, y) or (X, y, sample_weight)"
            )

    def _class_weighted(self, weights: np.ndarray | None, y: np.ndarray) -> np.ndarray | None:
        """The samples' weights, those of their classes included."""
        return weights

    def _taken_in(self, X: Any) -> np.ndarray:
        """Samples as the network computes them: dense, and of its dtype."""
        dtype = np.dtype(self.dtype)
        if issparse(X):
            wanted = X.shape[0] * X.shape[1] * dtype.itemsize
            if wanted > DENSE_BYTES:
                raise ValueError(
                    f"X is sparse, and dense it would take {wanted / 2**30:.1f} GiB, more than "
                    f"{DENSE_BYTES / 2**30:.1f}; give some of its rows at a time to partial_fit"
                )
            X = X.toarray(order="C")
        return finite(X, dtype)

    def _fit_stochastic(
        self,
        X: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
        random: np.random.RandomState,
        incremental: bool,
    ) -> None:
        mlp = self.mlp_
        training, held_out = self._held_out(X, targets, weights, random)
        if not incremental or not mlp.history:
            mlp._rng = np.random.default_rng(random.randint(2**31 - 1))
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = self._rule()
            mlp._optimizer = None  # the state that the last fit left
        n = len(X) if training is None else len(training)
        batch_size = self._batch_size(n)
        is_tiny = not incremental and n * mlp.network.multiply_adds <= TINY_WORK
        working = self._in_double() if is_tiny else mlp
        X, targets = working._data(X, targets)
        samples, weights = working._chosen(training, weights, len(X))
        mean_weight = 1.0 if weights is None else float(weights[slice(None) if samples is None else samples].mean())
        run = Fit(
            working,
            (X, targets, None),
            checks.rule(self._optimizer, mlp.network.dtype),
            CallbackList([]),
            epochs=1 if incremental else self.max_iter,
            batch_size=batch_size,
            shuffle=bool(self.shuffle) and batch_size < n,
            samples=samples,
            weights=weights,
        )
        try:
            self._run(run, Course(self, run, mean_weight, held_out), incremental)
        finally:
            if self.early_stopping:
                working.weights = self._best_weights
            if working is not mlp:
                take_over(mlp, working)

    def _run(self, run: Fit, course: Course, incremental: bool) -> None:
        """Train until there is a reason to end, and tell it."""
        self.n_iter_ = 0
        try:
            run.begin()
            is_open = True
            while is_open and not course.is_over:
                run.at_once = 1 if run.one_by_one else course.ahead()  # which it becomes before it diverges
                is_open = run.go_on()
                course.note()
        except KeyboardInterrupt:
            run.interrupt()
            course.note()
            warnings.warn("Training interrupted by user.", stacklevel=6)
        finally:
            run.end()
        if run.problem:
            if not self.early_stopping:
                raise ValueError(NOT_FINITE)
            self.n_iter_ += 1
            for curve in (self.loss_curve_, self.validation_scores_):
                curve.append(float("nan"))
            self.loss_ = float("nan")
        elif not (incremental or course.is_over or run.history.interrupted):
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                "converged yet.",
                ConvergenceWarning,
                stacklevel=6,
            )

    def _is_pace(self, name: str) -> bool:
        """Whether the learning rate changes in that way."""
        return self.learning_rate == name and self.solver == "sgd"

    def _rule(self) -> Rule:
        """The update rule that the parameters describe."""
        rate = float(self.learning_rate_init)
        if self.solver == "adam":
            return Rule(
                "adam",
                learning_rate=rate,
                beta1=float(self.beta_1),
                beta2=float(self.beta_2),
                epsilon=float(self.epsilon),
            )
        kind = "plain" if not self.momentum else "nesterov" if self.nesterovs_momentum else "momentum"
        return Rule(kind, learning_rate=rate, momentum=float(self.momentum))

    def _batch_size(self, n: int) -> int:
        if self.batch_size == "auto":
            return min(200, n)
        if self.batch_size > n:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        return min(int(self.batch_size), n)

    def _held_out(
        self, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None, random: np.random.RandomState
    ) -> tuple[np.ndarray | None, tuple | None]:
        """Which samples to train on, None for all; and X, targets and weights to validate on, or None."""
        if self.validation_data is not None:
            return None, self._given_validation()
        if not self.early_stopping:
            return None, None
        from sklearn.model_selection import train_test_split  # takes a while to import

        training, validation = train_test_split(
            np.arange(len(X)),
            random_state=random,
            test_size=self.validation_fraction,
            stratify=self._stratified(targets),
        )
        if len(validation) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return training, tuple(None if one is None else one[validation] for one in (X, targets, weights))

    def _given_validation(self) -> tuple:
        """X, targets and weights of ``validation_data``, checked as those of the training."""
        X, y, *rest = self.validation_data
        X, y = self._checked_data(X, y, False, True)
        given = rest[0] if rest else None
        weights = None if given is None else _check_sample_weight(given, X, dtype=np.float64, ensure_non_negative=True)
        return self._taken_in(X), self._targets(y), weights

    def _stratified(self, targets: np.ndarray) -> np.ndarray | None:
        """What the held-out samples should have the shares of."""
        return None

    def _fit_lbfgs(self, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> None:
        """Minimise the loss of all samples at once: by SciPy, and in float64, which its line search needs."""
        from scipy.optimize import OptimizeResult, minimize

        mlp, working = self.mlp_, self._in_double()
        if targets.ndim == 2:
            targets = targets.astype(np.float64)
        total = float(len(X) if weights is None else weights.sum())
        reached = working.parameters.copy()

        def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
            working.parameters[:] = parameters
            gradient, loss = backpropagation(working, X, targets, weights)
            return loss + self.alpha / (2 * total) * squared_weights(working), gradient

        def note(intermediate_result: OptimizeResult) -> None:
            nonlocal reached
            self.n_iter_ += 1
            self.loss_ = float(intermediate_result.fun)
            reached = intermediate_result.x.copy()
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")

        self.n_iter_ = 0
        try:
            found = minimize(
                loss_and_gradient,
                reached.copy(),
                method="L-BFGS-B",
                jac=True,
                callback=note,
                options={"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol},
            )
            reached, self.loss_, self.n_iter_ = found.x, float(found.fun), int(min(found.nit, self.max_iter))
            if found.status:
                warnings.warn(
                    f"lbfgs failed to converge after {self.n_iter_} iteration(s) (status={found.status}):\n"
                    f"{found.message}\n\nMore iterations (max_iter={self.max_iter}, max_fun={self.max_fun}) or scaled "
                    "data (sklearn.preprocessing) may help.",
                    ConvergenceWarning,
                    stacklevel=5,
                )
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=5)
        working.parameters[:] = reached
        if working is not mlp:
            take_over(mlp, working)

    def _in_double(self) -> Mlp:
        """The network in float64; itself if that is what it is."""
        network = self.mlp_.network
        if network.dtype == "float64":
            return self.mlp_
        double = type(self.mlp_)(
            network.sizes,
            activation=network.activations[:-1],
            output=network.activations[-1],
            loss=network.loss,
            init="zeros",
            reg_lambda=network.l2,
            backend=self.backend,
            threads=self.mlp_.threads,
        )
        double.weights = self.mlp_.weights
        double._rng, double.history = self.mlp_._rng, self.mlp_.history
        return double

    # ---- predicting ----

    def _outputs(self, X: Any) -> np.ndarray:
        """The network's outputs [n, n_outputs]."""
        check_is_fitted(self, "mlp_")
        X = validate_data(self, X, accept_sparse=("csr", "csc"), dtype=FLOATS, order="C", reset=False)
        mlp = self.mlp_
        mlp.threads = self._threads()
        if not issparse(X):
            return mlp._predict(X)
        X = X.tocsr()
        rows = max(ROW_BYTES // (X.dtype.itemsize * X.shape[1]), 1)
        parts = [mlp._predict(X[start : start + rows].toarray(order="C")) for start in range(0, X.shape[0], rows)]
        return np.concatenate(parts)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "mlp_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _is_stochastic(self) -> bool:
        if self.solver not in ("sgd", "adam"):
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True


def take_over(mlp: Mlp, other: Mlp) -> None:
    """What another network of another dtype has learned, and the state of its optimizer."""
    mlp.weights = [finite(view, np.dtype(mlp.network.dtype)) for view in other.weights]
    mlp.history = other.history
    if other._optimizer is not None:
        kind, state = other._optimizer
        theirs = other._numbers.host_state(state)
        slots = theirs.slots.reshape(-1, other.network.size)
        ours = mlp.network.state(Rule(kind))
        for flat, slot in zip(ours.slots.reshape(-1, mlp.network.size), slots, strict=True):
            for view, values in zip(mlp.network.rows(flat), other.network.rows(slot), strict=True):
                with np.errstate(over="ignore"):  # of a training that has diverged
                    view[...] = values
        ours.step[:] = theirs.step
        mlp._optimizer = kind, mlp._numbers.taken_state(ours)


def squared_weights(mlp: Mlp) -> float:
    """Σ w² over all weights, biases spared."""
    # Not by `dot`: for long arrays the matrix library would wake its own threads.
    return sum(float(np.einsum("ij,ij", view[:, 1:], view[:, 1:])) for view in mlp.weights)


def backpropagation(
    mlp: Mlp, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None
) -> tuple[np.ndarray, float]:
    """Gradients of all samples as one batch, as flat as the parameters, penalty included; and the loss without it."""
    if isinstance(mlp, PoissonMlp):
        targets, deviance = mlp.matched(X, targets, weights)
    options = {} if weights is None else {"weights": weights}
    with mlp._numbers.at_work(), np.errstate(over="ignore", invalid="ignore"):
        gradient, loss = mlp._backend.backpropagation(
            mlp.network, mlp._numbers.parameters(), X, targets, threads=mlp.threads, **options
        )
    return gradient, deviance if isinstance(mlp, PoissonMlp) else loss


def finite(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """An array of finite numbers in a dtype, C-contiguous, or ValueError where that is too small for them."""
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype)
    if converted.dtype != array.dtype and not checks.is_finite(converted):
        raise ValueError(f"{NOT_FINITE} (Some values are infinite in {dtype}; dtype='float64' holds larger ones.)")
    return converted


class MLPClassifier(ClassifierMixin, MultilayerPerceptron):
    """scikit-learn's multi-layer perceptron classifier, trained by compiled kernels.

    It minimises the cross-entropy of softmax outputs; with two classes, and where a sample may have several labels,
    the binary cross-entropy of logistic ones.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int, default (100,)
        Units of each hidden layer; none for a linear model.
    activation : {"identity", "logistic", "tanh", "relu", "sigmoid", "leaky_relu"}, default "relu"
        Of the hidden layers; "sigmoid" is "logistic" by fastmlp's name.
    solver : {"lbfgs", "sgd", "adam"}, default "adam"
        "lbfgs" is SciPy's quasi-Newton minimiser over all samples at once, computed in float64 whatever ``dtype`` is.
    alpha : float, default 0.0001
        α of the L2 penalty α/(2B) Σ w² for a batch of B samples (of weights that sum to B); biases are spared.
    batch_size : int or "auto", default "auto"
        Samples of a step; "auto" is 200, or all where they are fewer. Not for "lbfgs".
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        How the learning rate of "sgd" changes. "invscaling": after each epoch it is learning_rate_init / (t + 1) **
        power_t with t the samples seen so far. "adaptive": it is divided by 5 when training would stop, until it is
        1e-6 or less.
    learning_rate_init : float, default 0.001
        The first, or only, learning rate of "sgd" and "adam".
    power_t : float, default 0.5
        Exponent of "invscaling".
    max_iter : int, default 200
        Most epochs, or iterations of "lbfgs".
    shuffle : bool, default True
        Whether each epoch has an order of its own.
    random_state : int, RandomState instance or None, default None
        For initial weights, the orders of the samples, and the split of ``early_stopping``.
    tol : float, default 0.0001
        Training stops when the loss (or the validation score) has not improved by this for more than
        ``n_iter_no_change`` epochs; for "lbfgs" the largest entry of the gradient at which it does.
    verbose : bool or int, default False
        Whether to print the loss after each epoch.
    warm_start : bool, default False
        Whether `fit` goes on from the weights of the last one.
    momentum : float, default 0.9
        0 to 1, of "sgd".
    nesterovs_momentum : bool, default True
        Whether the momentum is Nesterov's.
    early_stopping : bool, default False
        Whether to stop by the score on held-out samples, and to end with the weights of the best. Not for "lbfgs".
    validation_fraction : float, default 0.1
        Share of the samples that ``early_stopping`` holds out; drawn by class where there are two.
    beta_1, beta_2 : float, defaults 0.9 and 0.999
        Decay of Adam's moments, from 0 to below 1.
    epsilon : float, default 1e-8
        Added to the root of Adam's second moment.
    n_iter_no_change : int or inf, default 10
        See ``tol``.
    max_fun : int, default 15000
        Most evaluations of the loss by "lbfgs".
    class_weight : dict, "balanced", list of dict or None, default None
        Weights by class, which multiply those of the samples; "balanced" is n / (classes · samples of the class),
        the samples counted by their weights.
    validation_data : (X, y) or (X, y, sample_weight), optional
        Scored after each epoch, see ``validation_scores_``; ``early_stopping`` takes these instead of holding out
        samples.
    threads : int, optional
        At most so many threads. None is one for each core, or as many as the environment's NUMBA_NUM_THREADS or
        OMP_NUM_THREADS say; in joblib's processes their share of the cores, in its threads one each.
    dtype : {"float32", "float64"}, default "float32"
        Of weights, arithmetic and probabilities, whatever that of X is. `fit` computes in float64 for "lbfgs", and
        where the samples are so few that it takes no longer.
    backend : {"auto", "cpu", "cuda", "numpy"}, default "auto"
        Who computes, as for `fastmlp.Mlp`.

    Attributes
    ----------
    classes_ : ndarray
        The class labels; for multi-label targets the numbers of the labels.
    loss_ : float
        The last loss, penalty included.
    loss_curve_ : list of float
        The loss of each epoch, penalty included: the mean over the batches, each before its step. Not for "lbfgs".
    best_loss_ : float or None
        The least of them; None with ``early_stopping``.
    validation_scores_ : list of float or None
        Accuracy after each epoch, with ``early_stopping`` or ``validation_data``.
    best_validation_score_ : float or None
        The highest of them.
    n_iter_ : int
        Epochs, or iterations, of the last fit.
    t_ : int
        Samples trained on, each as often as it was taken.
    coefs_, intercepts_ : list of ndarray
        Weights [inputs, units] and biases [units] of each layer, as views: writing to them changes the network.
    n_layers_, n_outputs_ : int
        Layers, inputs and outputs counted; outputs.
    out_activation_ : str
        "softmax" or "logistic".
    n_features_in_ : int
    feature_names_in_ : ndarray
        Names of the features, where X had some that are strings.
    mlp_ : fastmlp.Mlp
        The network.

    Examples
    --------
    >>> from fastmlp.estimators import MLPClassifier
    >>> model = MLPClassifier((8,), solver="lbfgs", random_state=1)
    >>> xor = [[0, 0], [0, 1], [1, 0], [1, 1]]
    >>> model.fit(xor, ["no", "yes", "yes", "no"]).predict(xor).tolist()
    ['no', 'yes', 'yes', 'no']
    """

    _parameter_constraints: ClassVar[dict] = {
        **MultilayerPerceptron._parameter_constraints,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }
    _loss_divisor = 1

    def __init__(
        self,
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        class_weight=None,
        validation_data=None,
        threads=None,
        dtype="float32",
        backend="auto",
    ):
        self._take(locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPClassifier":
        """Train on some samples, from new weights unless ``warm_start`` is set.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n, n_features)
            A sparse matrix is made dense, where that takes 2 GiB at most.
        y : array-like of shape (n,) or (n, n_labels)
            Class labels of any kind, or a 0 or 1 for each label.
        sample_weight : array-like of shape (n,), optional
            0 or more; those of a batch count relative to each other.

        Returns
        -------
        MLPClassifier
            Itself.

        Raises
        ------
        ValueError
            If an argument or a parameter is not as described, or if weights become nan or infinite.

        Warns
        -----
        ConvergenceWarning
            If ``max_iter`` ends the training.

        Notes
        -----
        Ctrl-C ends the training with a warning; the model is as it was after the last epoch.
        """
        return self._fit(X, y, sample_weight, False)

    @available_if(lambda estimator: estimator._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> "MLPClassifier":
        """Train for one epoch, from the present weights.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array-like of shape (n_classes,), optional
            All labels that will ever come; wanted by the first call.

        Returns
        -------
        MLPClassifier
            Itself.
        """
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit: give the weights of "
                "sklearn.utils.class_weight.compute_class_weight as a dict"
            )
        if _check_partial_fit_first_call(self, classes):
            is_multilabel = type_of_target(y).startswith("multilabel")
            self._learn_labels(y if is_multilabel else classes)
        return self._fit(X, y, sample_weight, True)

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each sample; for multi-label targets a 0 or 1 for each label.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_labels)
        """
        outputs = self._outputs(X)
        return self._label_binarizer.inverse_transform(outputs[:, 0] if self.n_outputs_ == 1 else outputs)

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probability of each class, or of each label.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n, n_classes), of ``dtype``
            In the order of `classes_`. Those of sigmoid outputs are within 0 and 1 even where rounding says so: all
            logarithms are finite.
        """
        outputs = self._outputs(X)
        kind = np.finfo(outputs.dtype)
        most = 1 if self.out_activation_ == "softmax" else 1 - kind.epsneg
        np.clip(outputs, kind.tiny, most, out=outputs)
        return np.hstack([1 - outputs, outputs]) if self.n_outputs_ == 1 else outputs

    def predict_log_proba(self, X: Any) -> np.ndarray:
        """Logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))

    def _output_and_loss(self) -> tuple[str, str]:
        if self._label_binarizer.y_type_ == "multiclass":
            return "softmax", "cross_entropy"
        return "sigmoid", "binary_cross_entropy"

    def _learn_labels(self, y: Any) -> None:
        from sklearn.preprocessing import LabelBinarizer

        self._label_binarizer = LabelBinarizer().fit(y)
        self.classes_ = self._label_binarizer.classes_

    def _checked_data(self, X: Any, y: Any, first: bool, incremental: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(self, X, y, accept_sparse=("csr", "csc"), multi_output=True, dtype=FLOATS, reset=first)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (first and not incremental):
            self._learn_labels(y)
            return X, y
        classes = unique_labels(y)
        if self.warm_start and not incremental:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                    f"Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _class_weighted(self, weights: np.ndarray | None, y: np.ndarray) -> np.ndarray | None:
        if self.class_weight is None:
            return weights
        if weights is None:
            return compute_sample_weight(self.class_weight, y)
        if self.class_weight != "balanced" or y.ndim > 1:
            return weights * compute_sample_weight(self.class_weight, y)
        _, numbers = np.unique(y, return_inverse=True)  # balanced as if each sample were there as often as it weighs
        totals = np.bincount(numbers, weights)
        shares = np.divide(1, totals * np.count_nonzero(totals), out=np.zeros(len(totals)), where=totals > 0)
        return weights * weights.sum() * shares[numbers]

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Numbers of the classes, int32 [n]; for multi-label targets rows of 0 and 1 in ``dtype``."""
        if self._label_binarizer.y_type_.startswith("multilabel"):
            return self._label_binarizer.transform(y).astype(self.dtype)
        return np.searchsorted(self.classes_, y).astype(np.int32)

    def _count_outputs(self, targets: np.ndarray) -> int:
        if targets.ndim == 2:
            return targets.shape[1]
        return len(self.classes_) if len(self.classes_) > 2 else 1

    def _stratified(self, targets: np.ndarray) -> np.ndarray | None:
        return targets.astype(bool)[:, None] if self.n_outputs_ == 1 else None

    def _score_held_out(self, mlp: Mlp, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float:
        """Accuracy; of all labels of a sample together, where it may have several."""
        outputs = mlp._predict(X)
        if targets.ndim == 2:
            right = ((outputs > 0.5) == (targets > 0.5)).all(1)
        else:
            right = targets == (outputs[:, 0] > 0.5 if self.n_outputs_ == 1 else outputs.argmax(1))
        return float(np.average(right, weights=weights))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags


class MLPRegressor(RegressorMixin, MultilayerPerceptron):
    """scikit-learn's multi-layer perceptron regressor, trained by compiled kernels.

    It minimises half the squared error of linear outputs, or half the Poisson deviance of exponentials.

    Parameters
    ----------
    loss : {"squared_error", "poisson"}, default "squared_error"
        "poisson" takes targets of 0 or more. It is slower, a call of the kernels for each batch; and the outputs of
        ``mlp_`` are logarithms of what `predict` gives.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, max_iter, \
    shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun, validation_data, threads, dtype, backend
        As for `MLPClassifier`; the validation score is R².

    Attributes
    ----------
    loss_, loss_curve_, best_loss_, validation_scores_, best_validation_score_, n_iter_, t_, coefs_, intercepts_, \
    n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_, mlp_
        As for `MLPClassifier`; the loss of several outputs is the mean of theirs.

    Examples
    --------
    >>> from fastmlp.estimators import MLPRegressor
    >>> model = MLPRegressor(hidden_layer_sizes=8, solver="lbfgs", tol=1e-3, random_state=0)
    >>> model.fit([[0], [1], [2], [3]], [0, 1, 4, 9]).predict([[2]]).round(1).tolist()
    [4.0]
    """

    _parameter_constraints: ClassVar[dict] = {
        **MultilayerPerceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss="squared_error",
        hidden_layer_sizes=(100,),
        activation="relu",
        *,
        solver="adam",
        alpha=0.0001,
        batch_size="auto",
        learning_rate="constant",
        learning_rate_init=0.001,
        power_t=0.5,
        max_iter=200,
        shuffle=True,
        random_state=None,
        tol=1e-4,
        verbose=False,
        warm_start=False,
        momentum=0.9,
        nesterovs_momentum=True,
        early_stopping=False,
        validation_fraction=0.1,
        beta_1=0.9,
        beta_2=0.999,
        epsilon=1e-8,
        n_iter_no_change=10,
        max_fun=15000,
        validation_data=None,
        threads=None,
        dtype="float32",
        backend="auto",
    ):
        self._take(locals())

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Train on some samples, from new weights unless ``warm_start`` is set.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n, n_features)
            A sparse matrix is made dense, where that takes 2 GiB at most.
        y : array-like of shape (n,) or (n, n_outputs)
            Finite numbers.
        sample_weight : array-like of shape (n,), optional
            0 or more; those of a batch count relative to each other.

        Returns
        -------
        MLPRegressor
            Itself.

        Raises
        ------
        ValueError
            If an argument or a parameter is not as described, or if weights become nan or infinite.

        Warns
        -----
        ConvergenceWarning
            If ``max_iter`` ends the training.

        Notes
        -----
        Ctrl-C ends the training with a warning; the model is as it was after the last epoch.
        """
        return self._fit(X, y, sample_weight, False)

    @available_if(lambda estimator: estimator._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> "MLPRegressor":
        """Train for one epoch, from the present weights.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        MLPRegressor
            Itself.
        """
        return self._fit(X, y, sample_weight, True)

    def predict(self, X: Any) -> np.ndarray:
        """The outputs for each sample.

        Parameters
        ----------
        X : {array-like, sparse matrix, data frame} of shape (n, n_features)

        Returns
        -------
        ndarray of shape (n,) or (n, n_outputs), of ``dtype``
        """
        outputs = self._activated(self._outputs(X))
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _activated(self, outputs: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore"):
            return np.exp(outputs) if self.out_activation_ == "exp" else outputs

    def _mlp_class(self) -> type[Mlp]:
        return PoissonMlp if self.loss == "poisson" else Mlp

    def _out_activation(self, network: Network) -> str:
        return "exp" if self.loss == "poisson" else "identity"

    @property
    def _loss_divisor(self) -> int:
        """Of the loss that is told: the kernels sum over the outputs, and so does scikit-learn for "poisson"."""
        return 1 if self.loss == "poisson" else self.n_outputs_

    def _output_and_loss(self) -> tuple[str, str]:
        return "identity", "mean_squared_error"

    def _checked_data(self, X: Any, y: Any, first: bool, incremental: bool) -> tuple[Any, np.ndarray]:
        X, y = validate_data(
            self,
            X,
            y,
            accept_sparse=("csr", "csc"),
            multi_output=True,
            y_numeric=True,
            dtype=FLOATS,
            reset=first,
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def _targets(self, y: np.ndarray) -> np.ndarray:
        """Rows [n, n_outputs] in ``dtype``."""
        if self.loss == "poisson" and y.min() < 0:
            raise ValueError(f"Some value(s) of y are out of the valid range of loss='poisson': {y.min()} is below 0.")
        return finite(y.reshape(len(y), -1), np.dtype(self.dtype))

    def _count_outputs(self, targets: np.ndarray) -> int:
        return targets.shape[1]

    def _score_held_out(self, mlp: Mlp, X: np.ndarray, targets: np.ndarray, weights: np.ndarray | None) -> float:
        """R²; nan where a prediction is not finite."""
        from sklearn.metrics import r2_score

        outputs = self._activated(mlp._predict(X).astype(np.float64))
        if not np.isfinite(outputs).all():
            return float("nan")
        with np.errstate(over="ignore"):
            return float(r2_score(targets, outputs, sample_weight=weights))
