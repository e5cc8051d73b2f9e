"""The contract on CPU cores: `fastmlp.kernels.cpu.drivers`, from Python."""

import time
from typing import Any

import numpy as np

from fastmlp.kernels.contract import (
    Shares,
    check_flat,
    check_inputs,
    check_state,
    check_weights,
    check_writable,
    composed,
    counts_sides,
    quiet,
    shares_of,
)
from fastmlp.kernels.cpu import cache, drivers, entries, plan, team
from fastmlp.kernels.cpu.config import (
    BRIEF_SAMPLE,
    BRIEF_STEP,
    BRIEF_WORK,
    LEAST_SHARE,
    WORK_PER_RESTING_STEP,
    WORK_PER_STEP,
    WORK_PER_THREAD,
)
from fastmlp.kernels.cpu.rows import INPUT_CODES
from fastmlp.kernels.cpu.target import cpu_name, vector_bits, vector_registers
from fastmlp.kernels.network import DTYPES, Network
from fastmlp.kernels.updates import Rule, State

#: Dtypes whose kernels this process has compiled or loaded.
_compiled: set[str] = set()


def _threads(threads: int | None) -> int:
    """How many threads at most; a single one in a member of a team, whose cores are taken."""
    if team.is_member():
        return 1
    return team.most_threads() if threads is None else threads


def _writable(array: np.ndarray) -> np.ndarray:
    """The array, or a copy of one that can't be written: Numba would compile everything anew for it."""
    if array.flags.writeable:
        return array
    copy = plan.aligned_zeros(len(array), array.dtype)
    copy[:] = array
    return copy


def _run(
    job: int,
    network: Network,
    p: plan.Plan,
    parameters: np.ndarray,
    arrays: dict[int, np.ndarray],
    rule: Rule | None = None,
) -> None:
    """Run a job on the plan's team, with arrays by their entry in the plan; what its members found is then in it.

    Compiling is left to the calling thread: what a member does is waited for, a compilation ends at Ctrl-C.
    """
    if network.dtype not in _compiled:
        warmup((network.dtype,))
    parameters = _writable(parameters)
    plan.aligned("parameters", parameters)
    p.plan[entries.SLOTS] = 0
    if rule is not None:
        p.plan[[entries.RULE, entries.SLOTS]] = rule.code, rule.slots
        p.settings[[entries.BETA1, entries.BETA2]] = rule.beta1, rule.beta2
        arrays[entries.HYPERPARAMETERS_ARRAY] = plan.hyperparameters(rule, network.dtype, p.members)
    p.find(arrays)
    samples, batch = p.plan.item(entries.SAMPLES), max(p.plan.item(entries.BATCH), 1)
    if entries.ORDER_ARRAY in arrays:  # it may be that of several epochs
        samples = len(arrays[entries.ORDER_ARRAY])
    brief = samples * (network.multiply_adds + BRIEF_SAMPLE) + samples // batch * BRIEF_STEP < BRIEF_WORK
    team.run(p.members, lambda t: drivers.run(t, job, p.plan, parameters), p.stop, brief)


def _targets(Y: np.ndarray) -> dict[int, np.ndarray]:
    """Labels or dense targets, by their entry in the plan."""
    return {entries.LABELS_ARRAY if Y.ndim == 1 else entries.DENSE_ARRAY: Y}


def _plan_by_samples(
    network: Network, found: plan.Background | None, samples: int, members: int, batch: int
) -> plan.Plan:
    """The plan for so many samples in all, so many at a time, split by samples."""
    if found:
        make = plan.by_samples_sparse
    else:
        make = plan.by_samples_narrow if plan.has_few_inputs(network, samples // members) else plan.by_samples
    rows = 1 if samples == 1 else min(plan.chunk_samples(network), batch)
    p = plan.plans.get(make, network, rows, members)
    if found:
        plan.set_background(p.settings, network, found.value)
    return p


def _shares(network: Network, weights: np.ndarray | None) -> Shares | None:
    """The weights of all samples as one batch of those that have weight; None without weights."""
    if weights is None:
        return None
    return shares_of(network, weights, np.flatnonzero(weights), len(weights))


def _weighted(shares: Shares | None) -> dict[int, np.ndarray]:
    """What weights come to, by its entry in the plan."""
    if shares is None:
        return {}
    return {
        entries.ORDER_ARRAY: shares.order,
        entries.SHARES_ARRAY: shares.shares,
        entries.DECAYS_ARRAY: shares.decays,
    }


def _plan_for_one_pass(network: Network, X: np.ndarray, threads: int | None, n: int) -> plan.Plan:
    """The plan for n samples, each taken once; a lone sample is one member's, however large the network."""
    members = 1 if n == 1 else plan.members_for(network, n, _threads(threads), WORK_PER_THREAD)
    members = team.at_hand(plan.most_by_samples(network, members))
    p = _plan_by_samples(network, plan.background(network, X, n // members), n, members, n)
    plan.set_batch(p.plan, X, n, n)
    return p


def _plan_by_units(network: Network, found: plan.Background | None, batch: int, members: int) -> plan.Plan:
    """The plan for batches of so many samples, split by units; with a background, for rows that rest."""
    p = plan.plans.get(plan.by_units_lazy if found else plan.by_units, network, batch, members)
    if found:
        plan.set_background(p.settings, network, found.value)
    return p


def _infer(
    job: int,
    network: Network,
    parameters: np.ndarray,
    X: np.ndarray,
    threads: int | None,
) -> tuple[plan.Plan, np.ndarray]:
    """Run a prediction; returns the plan and the array of results."""
    check_inputs(network, parameters, X)
    p = _plan_for_one_pass(network, X, threads, len(X))
    size = plan.results(p.table, len(X), every_layer=job == entries.FEEDFORWARD)
    out = np.empty(size, parameters.dtype)
    _run(job, network, p, parameters, {entries.OUT_ARRAY: out})
    return p, out


def feedforward(
    network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None
) -> list[np.ndarray]:
    """Activations T [n, units] of every layer after the input."""
    p, out = _infer(entries.FEEDFORWARD, network, parameters, X, threads)
    sizes = network.sizes[1:]
    starts = p.table[:, entries.RESULT].tolist()
    plan.plans.keep(p)
    return [out[start : start + len(X) * size].reshape(len(X), size) for start, size in zip(starts, sizes, strict=True)]


def _predict_one(network: Network, parameters: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Outputs T [1, n_out] of a lone sample, which take microseconds: by a plan that only wants to know where it is."""
    check_inputs(network, parameters, X)
    parameters = _writable(parameters)
    plan.aligned("parameters", parameters)
    one = plan.plans.for_one(network)
    _, p, out = one
    p.plan[entries.ADDRESS], p.plan[entries.INPUT_CODE] = plan.address(X), INPUT_CODES[X.dtype]
    drivers.run(0, entries.PREDICT, p.plan, parameters)
    outputs = out.copy()
    plan.plans.ones.append(one)
    return outputs


def predict(network: Network, parameters: np.ndarray, X: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Outputs T [n, n_out]."""
    if len(X) == 1 and network.multiply_adds < BRIEF_WORK:
        return _predict_one(network, parameters, X)
    p, out = _infer(entries.PREDICT, network, parameters, X, threads)
    plan.plans.keep(p)
    return out.reshape(len(X), network.sizes[-1])


@quiet
def evaluate(
    network: Network,
    parameters: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    *,
    threads: int | None = None,
    weights: np.ndarray | None = None,
) -> tuple[float, float]:
    """Mean loss, and how many of the samples are right: see `fastmlp.kernels.contract.counts_sides`."""
    check_inputs(network, parameters, X, Y)
    check_weights(weights, len(X))
    if weights is not None and not weights.any():
        return 0.0, 0.0
    shares = _shares(network, weights)
    p = _plan_for_one_pass(network, X, threads, len(X) if shares is None else len(shares.order))
    p.plan[entries.SIDES] = counts_sides(network, labels=Y.ndim == 1)
    _run(entries.EVALUATE, network, p, parameters, _targets(Y) | _weighted(shares))
    loss, hits, total = p.partial.reshape(-1, 8).sum(0)[:3]
    plan.plans.keep(p)
    if shares is None:
        return float(loss / len(X)), int(hits)
    return float(loss), float(hits / total * len(X))


@quiet
def backpropagation(
    network: Network,
    parameters: np.ndarray,
    X: np.ndarray,
    Y: np.ndarray,
    *,
    threads: int | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, float]:
    """Gradients T [network.size] and the mean loss of X and Y as one batch."""
    check_inputs(network, parameters, X, Y)
    check_weights(weights, len(X))
    total = network.zeros()
    if weights is not None and not weights.any():
        return total, 0.0
    shares = _shares(network, weights)
    n = len(X) if shares is None else len(shares.order)
    p = _plan_for_one_pass(network, X, threads, n)
    gradients = plan.aligned_zeros(p.members * network.size, network.dtype)
    arrays = {**_targets(Y), **_weighted(shares), entries.GRADIENTS_ARRAY: gradients}
    _run(entries.GRADIENT, network, p, parameters, arrays)
    gradients.reshape(p.members, network.size).sum(0, out=total)
    if network.l2:
        penalty = parameters.dtype.type(network.l2 / n if shares is None else shares.decays[0])
        for gradient, matrix in zip(network.rows(total), network.rows(parameters), strict=True):
            gradient[:, int(network.bias) :] += penalty * matrix[:, int(network.bias) :]
    loss = p.partial[::8].sum()
    plan.plans.keep(p)
    return total, float(loss / n if shares is None else loss)


@quiet
def update_weights(
    rule: Rule, parameters: np.ndarray, gradients: np.ndarray, state: State, *, threads: int | None = None
) -> None:
    """One step of the rule, in place."""
    check_flat("parameters", parameters, parameters.size, str(parameters.dtype))
    check_flat("gradients", gradients, len(parameters), str(parameters.dtype))
    check_state(rule, state, parameters)
    check_writable(parameters=parameters)
    network = Network.build([1, 1], loss="mean_squared_error", dtype=str(parameters.dtype))
    p = plan.by_samples(network, 1, 1)
    p.plan[[entries.SIZE, entries.STEP]] = len(parameters), state.step[0]
    arrays = {entries.SLOTS_ARRAY: state.slots, entries.GRADIENTS_ARRAY: gradients}
    _run(entries.UPDATE, network, p, parameters, arrays, rule)
    state.step += 1


@quiet
def train_epoch(
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
    """One step for each batch of ``order``, in place; the mean loss of each, float64."""
    options: dict[str, Any] = {"threads": threads, "errors": errors, "samples": samples, "weights": weights}
    return train_epochs(network, rule, parameters, state, X, Y, order, batch_size, 1, **options)


@quiet
def train_epochs(
    network: Network,
    rule: Rule,
    parameters: np.ndarray,
    state: State,
    X: np.ndarray,
    Y: np.ndarray,
    order: np.ndarray,
    batch_size: int,
    epochs: int,
    *,
    threads: int | None = None,
    errors: np.ndarray | None = None,
    samples: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """To the bit what calls of `train_epoch` give for so many parts of ``order``, equally long: for short epochs."""
    check_inputs(network, parameters, X, Y)
    check_state(rule, state, parameters)
    check_writable(parameters=parameters)
    check_weights(weights, len(X), errors)
    order = composed(order, samples, len(X), batch_size)
    if epochs < 1 or len(order) % epochs:
        raise ValueError(f"epochs={epochs}; expected a divisor of the order's length, {len(order)}")
    used = len(order) // epochs
    batch_size = min(batch_size, used)
    shares = None if weights is None else shares_of(network, weights, order, batch_size, epochs)
    found = plan.background(network, X, used, samples)
    can_rest = plan.can_rest(network, rule, batch_size)
    resting = found is not None and can_rest
    least = WORK_PER_RESTING_STEP / max(found.share, LEAST_SHARE) if found and resting else WORK_PER_STEP
    members = plan.members_for(network, batch_size, _threads(threads), least)
    fewest = plan.has_fewest_inputs(network, used)
    small = plan.is_small(batch_size, members, found is not None, resting, fewest)
    small = small and plan.has_room(network, batch_size, members)
    if not small:
        members = max(members, plan.members_by_samples(network, batch_size, _threads(threads)))
        members = plan.most_by_samples(network, members)
    members = team.at_hand(members)
    losses = np.zeros(epochs * -(-used // batch_size))
    arrays = {
        **_targets(Y),
        entries.SLOTS_ARRAY: state.slots,
        entries.ORDER_ARRAY: order,
        entries.LOSSES_ARRAY: losses,
        **_weighted(shares),
    }
    if errors is not None:
        check_flat("errors", errors, len(losses), "float64")
        arrays[entries.ERRORS_ARRAY] = errors
    if small:
        if found is None and can_rest and plan.is_narrow(network, batch_size, used):
            found, resting = plan.NO_BACKGROUND, True
        job, p = entries.TRAIN_SMALL, _plan_by_units(network, found if resting else None, batch_size, members)
    else:
        job, p = entries.TRAIN_LARGE, _plan_by_samples(network, found, used, members, batch_size)
        arrays[entries.GRADIENTS_ARRAY] = plan.aligned_zeros(members * network.size, network.dtype)
    plan.set_batch(p.plan, X, used, batch_size, int(state.step[0]))
    _run(job, network, p, parameters, arrays, rule)
    plan.plans.keep(p)
    state.step += len(losses)
    return losses


def warmup(dtypes: tuple[str, ...] = ("float32", "float64")) -> float:
    """Compile the kernels of these dtypes, or load them from the cache; returns the seconds it took."""
    start = time.perf_counter()
    for dtype in dtypes:
        network = Network.build([1, 1], loss="mean_squared_error", dtype=dtype)
        _predict_one(network, network.zeros(), np.zeros((1, 1), dtype))
        _compiled.add(dtype)
    return time.perf_counter() - start


def is_compiled(dtype: str) -> bool:
    """Whether the kernels of this dtype are loaded or in the cache, so that nothing has to be compiled."""
    return cache.holds(drivers.run, dtype)


def prepare(network: Network, rule: Rule) -> None:
    """Compile or load what training this network needs; all networks and rules of a dtype share it."""
    if network.dtype not in _compiled:
        warmup((network.dtype,))


def describe() -> dict[str, str]:
    """What the kernels run on here, for people to read."""
    return {
        "cpu": cpu_name(),
        "vector width": f"{vector_bits()} bits, {vector_registers()} registers",
        "threads": f"{team.most_threads()} (NUMBA_NUM_THREADS or the threads option set it)",
        "threading": "a team of threads of its own (no OpenMP, TBB or workqueue needed)",
        "cache folder": cache.describe(),
        "compiled": ", ".join(dtype for dtype in DTYPES if is_compiled(dtype)) or "nothing yet",
    }
