"""What surrounds the kernels: the device, its memory, and an Mlp whose numbers stay there."""

import copy
import pickle
import threading

import cuda_simulator
import numpy as np
import pytest
from numba import cuda
from paths import set_gpu
from problems import RULES, random_parameters, random_problem

from fastmlp import Adam, Mlp, Sgd, kernels
from fastmlp.kernels import Network, State
from fastmlp.kernels import cuda as backend
from fastmlp.kernels.cuda import calls, config, device, memory, missing
from fastmlp.training_run import backend_line

SIZES = (5, 4, 3)


@pytest.fixture(autouse=True)
def quickly(schedule):
    """Races are hunted for elsewhere."""
    cuda_simulator.settings.races, cuda_simulator.settings.preempt = False, 0.0


def data(n=10, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, SIZES[0])).astype(dtype), rng.integers(0, SIZES[-1], n)


class Foreign:
    """Another library's device array: it has the interface, and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self.memory = array

    @property
    def __cuda_array_interface__(self):
        strides = None if self.memory.flags.c_contiguous else self.memory.strides
        place = (self.memory.ctypes.data, False)
        return {
            "shape": self.memory.shape,
            "typestr": self.memory.dtype.str,
            "data": place,
            "strides": strides,
            "version": 2,
        }


class Owner:
    """Somebody to own a stream."""


def pair(**options):
    """The same network on the GPU and in NumPy."""
    return [
        Mlp(SIZES, activation="tanh", loss="cross_entropy", dtype="float64", seed=3, backend=name, **options)
        for name in ("cuda", "numpy")
    ]


def assert_same(ours: Mlp, theirs: Mlp) -> None:
    for a, b in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


# ------------------------------------------------------------------------------------------------ what is missing
def test_the_backend_works_where_the_simulator_is_concurrent(monkeypatch):
    assert missing.reason() is None
    assert kernels.available()["cuda"] is None
    monkeypatch.delattr(cuda, "concurrent")
    assert "runs one block after another" in missing.reason()
    with pytest.raises(RuntimeError, match="backend='cuda' does not work here: NUMBA_ENABLE_CUDASIM is set"):
        kernels.backend("cuda")


@pytest.mark.parametrize("chosen", ["1", "-1", "first", "0.0"])
def test_a_gpu_that_is_not_there(chosen, monkeypatch):
    with pytest.raises(ValueError, match="expected 0 to 0, as 1 are here"):
        device.device(chosen)
    monkeypatch.setenv("FASTMLP_CUDA_DEVICE", chosen)
    with pytest.raises(ValueError, match=f"GPU '{chosen}' was asked for"):
        device.device()


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cpu:0", "cuda:-1", "gpu"])
def test_backend_names(name):
    with pytest.raises(ValueError, match="is not known"):
        kernels.backend(name)
    with pytest.raises(ValueError, match="is not known"):
        Mlp(SIZES, backend=name)


def test_auto_takes_the_gpu_for_large_networks_by_the_rule(monkeypatch):
    small, large = Network.build((9, 5, 3)), Network.build((90, 50, 3))
    assert kernels.backend("auto", large) is kernels.backend("cpu")  # nothing has been measured
    monkeypatch.setattr(config, "AUTO_LEAST_MULTIPLY_ADDS", large.multiply_adds)
    assert kernels.backend("auto", large) is backend
    assert kernels.backend("auto", small) is kernels.backend("cpu")
    assert kernels.backend("auto") is kernels.backend("cpu")
    assert Mlp((90, 50, 3), activation="relu", loss="cross_entropy", dtype="float32").backend_name == "cuda"
    monkeypatch.setattr(missing, "reason", lambda: "no GPU")
    assert kernels.backend("auto", large) is kernels.backend("cpu")


def test_what_info_tells():
    set_gpu(multiprocessors=4)
    told = backend.describe()
    assert told["gpu"] == "concurrent simulator, number 0"
    assert "4 multiprocessors, compute capability 9.0, 227.0 KiB of shared memory a block" in told["gpu has"]
    assert "of 16.0 GiB" in told["gpu memory"]


# ------------------------------------------------------------------------------------------------------- memory
def test_arrays_there_and_back():
    for dtype in (np.uint8, np.int32, np.float32, np.float64):
        array = np.arange(12).astype(dtype).reshape(3, 4)
        placed = memory.place(array)
        assert memory.is_on_device(placed)
        assert memory.address(placed) % 256 == 0
        back = memory.fetch(placed)
        assert back.dtype == dtype
        np.testing.assert_array_equal(back, array)
        array[:] = 0
        assert memory.fetch(placed).any()  # a copy
    zeros = memory.zeros(5, np.float32)
    assert not memory.fetch(zeros).any()
    assert memory.zeros(0, np.float32).size == 0


def test_read_only_arrays_can_be_placed():
    array = np.arange(4.0)
    array.setflags(write=False)
    np.testing.assert_array_equal(memory.fetch(memory.place(array)), array)


def test_device_arrays_are_not_copied():
    foreign = Foreign(np.arange(6, dtype=np.float32))
    placed = memory.place(foreign)
    assert memory.address(placed) == foreign.memory.ctypes.data
    foreign.memory[2] = 9
    assert memory.fetch(placed)[2] == 9
    assert memory.place(placed) is placed


def test_scratch_is_kept_by_key_and_stream():
    here, stream = device.current()
    other = device.stream(here, owner := Owner())
    assert owner
    one = memory.scratch(here, stream, ("a", 1), 5, np.float32)
    assert not memory.fetch(one).any()
    assert memory.scratch(here, stream, ("a", 1), 5, np.float32) is one
    assert memory.scratch(here, stream, ("a", 2), 5, np.float32) is not one
    assert memory.scratch(here, other, ("a", 1), 5, np.float32) is not one
    assert memory.scratch(here, stream, ("a", 1), 5, np.float64).dtype == np.float64


def test_memory_that_runs_out_says_what_was_needed_and_what_is_free():
    cuda_simulator.settings.total_memory = 1 << 20
    X, y = np.zeros((100_000, SIZES[0]), np.float32), np.zeros(100_000, int)
    mlp = Mlp(SIZES, activation="relu", loss="cross_entropy", dtype="float32", backend="cuda", seed=0)
    before = [w.copy() for w in mlp.weights]
    with pytest.raises(
        MemoryError, match=r"X needs 1.9 MiB on GPU 0 \(concurrent simulator\), and .* of its 1.0 MiB are free"
    ):
        mlp.fit(X, y, epochs=1, progress=False)
    assert mlp.history is None
    for a, b in zip(mlp.weights, before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 255, 600])
def test_nan_and_infinity_are_found_wherever_they_are(size, dtype):
    cuda_simulator.settings.multiprocessors = 1
    values = np.random.default_rng(0).normal(size=size).astype(dtype) * (np.finfo(dtype).max / 8)
    assert calls.is_finite(memory.place(values))
    for place in {0, size // 2, size - 1}:
        for bad in (np.nan, np.inf, -np.inf):
            spoilt = values.copy()
            spoilt[place] = bad
            assert not calls.is_finite(memory.place(spoilt)), (place, bad)
    assert calls.is_finite(memory.place(np.zeros(size, np.uint8)))


def test_adams_corrections():
    rule = RULES[3]
    ours = memory.corrections(rule, 4, 3, np.float32).reshape(3, 2)
    for t, pair in zip((5, 6, 7), ours, strict=True):
        np.testing.assert_array_equal(pair, np.float32([1 - rule.beta1**t, 1 - rule.beta2**t]))


# -------------------------------------------------------------------------------------------------------- launches
def test_blocks_that_wait_for_one_another_must_all_fit():
    here, stream = device.current()
    cuda_simulator.settings.multiprocessors = 4

    @cuda.jit
    def meet(counter):
        cuda.concurrent.release_add(counter, 0, 1)
        while cuda.concurrent.load_acquire(counter, 0) < 8:
            pass

    here.launch(meet, 4, 2, (memory.zeros(1, np.uint32),), stream, together=True)
    with pytest.raises(
        RuntimeError, match=r"5 blocks of 2 threads that wait for one another .*: 4 run at the same time"
    ):
        here.launch(meet, 5, 2, (), stream, together=True)
    assert here.blocks_at_once(meet, 2, ()) == 4


def test_a_rehearsal_launches_nothing():
    here, stream = device.current()

    @cuda.jit
    def mark(array):
        array[0] = 1

    array = memory.zeros(1, np.float32)
    with device.rehearsal():
        here.launch(mark, 1, 1, (array,), stream)
    assert memory.fetch(array)[0] == 0
    here.launch(mark, 1, 1, (array,), stream)
    assert memory.fetch(array)[0] == 1


def test_queues_are_the_threads_own():
    seen = {}

    def look(name):
        seen[name] = device.current().stream, device.current().stream

    threads = [threading.Thread(target=look, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen["a"][0] is seen["a"][1]
    assert seen["a"][0] is not seen["b"][0]
    owner = Owner()
    queue = device.Queue(device.device(), device.stream(device.device(), owner))
    with device.on(queue):
        assert device.current() is queue
    assert device.current() is not queue


def test_a_stream_goes_to_the_next_owner():
    here, owners = device.device(), [Owner(), Owner()]
    streams = [device.stream(here, owner) for owner in owners]
    assert streams[0] is not streams[1]
    owners.pop(0)
    assert device.stream(here, owners[0]) is streams[0]


def test_an_array_is_staged():
    for n in (5, 3, 9):
        values = np.random.default_rng(n).permutation(n)
        staged = memory.staged(values, np.int32)
        np.testing.assert_array_equal(memory.fetch(staged), values)


def test_a_job_is_compiled_once_apart_from_training():
    X, y = data()
    mlp, asked = Mlp(SIZES, activation="relu", loss="cross_entropy", dtype="float32", backend="cuda", seed=0), []
    launch = device.Device.launch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            device.Device,
            "launch",
            lambda self, *a, **k: asked.append(getattr(device._here, "rehearses", False)) or launch(self, *a, **k),
        )
        for _ in range(2):
            mlp.fit(X, y, epochs=1, batch_size=5, progress=False)
        assert asked.count(True) == 1
        mlp.fit(X, y, epochs=1, batch_size=3, progress=False)
        assert asked.count(True) == 2
    assert mlp.compile_seconds > 0


# ------------------------------------------------------------------------------------- the contract on device arrays
def test_device_arrays_are_trained_where_they_are():
    network, rule = Network.build(SIZES), RULES[1]
    problem, order = random_problem(network, 12, labels=True), np.arange(12)
    host, state = problem.parameters.copy(), network.state(rule)
    losses = backend.train_epoch(network, rule, host, state, problem.X, problem.Y, order, 5)
    placed = [memory.place(array) for array in (problem.parameters, problem.X, problem.Y)]
    slots = memory.zeros(network.size, "float32")
    there = State(slots, np.zeros(1, np.int64))
    again = backend.train_epoch(network, rule, placed[0], there, placed[1], placed[2], order, 5)
    np.testing.assert_array_equal(again, losses)
    np.testing.assert_array_equal(memory.fetch(placed[0]), host)
    np.testing.assert_array_equal(memory.fetch(slots), state.slots)
    assert there.step[0] == state.step[0] == 3
    np.testing.assert_array_equal(
        backend.predict(network, placed[0], placed[1]), backend.predict(network, host, problem.X)
    )
    assert backend.evaluate(network, *placed) == backend.evaluate(network, host, problem.X, problem.Y)


REFUSED = {
    "dtype": lambda a: a.astype(np.float64),
    "size": lambda a: a[:-1],
    "strides": lambda a: np.repeat(a, 2)[::2],
    "boundary": lambda a: np.concatenate([[0], a]).astype(a.dtype)[1:],
}


@pytest.mark.parametrize("how", REFUSED)
def test_device_parameters_of_the_wrong_kind_are_refused(how):
    network = Network.build(SIZES)
    problem = random_problem(network, 4)
    spoilt = REFUSED[how](cuda_simulator.aligned(network.size, "float32"))
    with pytest.raises(ValueError, match="parameters is"):
        backend.predict(network, Foreign(spoilt), problem.X)
    state = State(Foreign(spoilt), np.zeros(1, np.int64))
    with pytest.raises(ValueError, match=r"state.slots is"):
        backend.update_weights(RULES[1], problem.parameters, random_parameters(network), state)


def test_device_labels_out_of_range_are_refused():
    network = Network.build(SIZES)
    problem = random_problem(network, 4, labels=True)
    wrong = Foreign(np.array([0, 1, 2, 3], np.int32))
    with pytest.raises(ValueError, match="Y holds labels 0 to 3; expected 0 to 2"):
        backend.evaluate(network, problem.parameters, problem.X, wrong)


def test_samples_off_a_vectors_boundary_are_copied_once():
    network = Network.build(SIZES)
    problem = random_problem(network, 4)
    room = np.zeros(problem.X.size + 1, np.float32)[1:].reshape(problem.X.shape)
    room[:] = problem.X
    np.testing.assert_array_equal(
        backend.predict(network, problem.parameters, Foreign(room)),
        backend.predict(network, problem.parameters, problem.X),
    )


# -------------------------------------------------------------------------------------------------- an Mlp on the GPU
@pytest.mark.parametrize("optimizer", [Sgd(0.1), Sgd(0.1, momentum=0.9), Adam(0.01)], ids=lambda o: o.rule.kind)
def test_a_fit_is_the_same_as_numpys(optimizer):
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        mlp.fit(X, y, epochs=3, batch_size=5, optimizer=optimizer, validation=(X[:4], y[:4]), progress=False)
        mlp.fit(X, y, epochs=1, batch_size=5, optimizer=optimizer, progress=False)  # goes on from the state
    assert_same(ours, theirs)
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(getattr(ours.history, name), getattr(theirs.history, name), rtol=1e-9)
    assert ours.evaluate(X, y).accuracy == theirs.evaluate(X, y).accuracy
    assert ours.backend_name == "cuda"


def test_data_and_parameters_are_placed_once_for_a_fit(monkeypatch):
    X, y = data(40)
    mlp, copied = Mlp(SIZES, activation="relu", loss="cross_entropy", dtype="float32", backend="cuda", seed=0), []
    copy_into = memory.copy_into
    monkeypatch.setattr(
        memory,
        "copy_into",
        lambda target, source, stream=None: copied.append(np.shape(source)) or copy_into(target, source, stream),
    )
    mlp.fit(X, y, epochs=5, batch_size=8, optimizer=Sgd(0.1, momentum=0.9), progress=False)
    from_host = [shape for shape in copied if shape in (X.shape, (mlp.network.size,))]
    assert copied.count(X.shape) == 1
    assert len(from_host) > 1  # the parameters, and copies of them there to go back to


def test_an_epochs_weights_are_read_through_the_properties():
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    seen: dict = {"cuda": [], "numpy": []}
    for mlp in (ours, theirs):
        note = lambda m, h: seen[m.backend_name].append([w.copy() for w in m.weights]) and None  # noqa: E731
        mlp.fit(X, y, epochs=3, batch_size=5, callbacks=[note], progress=False)
    for a, b in zip(seen["cuda"], seen["numpy"], strict=True):
        for u, v in zip(a, b, strict=True):
            np.testing.assert_allclose(u, v, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("when", ["held before", "through the property", "an entry", "all", "the flat array"])
def test_a_callbacks_edits_go_through(when):
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        held = mlp.weights[0] if when == "held before" else None

        def edit(mlp, history, held=held):
            if when == "held before":
                held *= 0.5
            elif when == "through the property":
                mlp.weights[0][:, 1] = 0.25
            elif when == "an entry":
                mlp.weights[0] = np.full((4, 6), 0.1)
            elif when == "all":
                mlp.weights = [w * 0.5 for w in mlp.weights]
            else:
                mlp.parameters[:] *= 0.5

        mlp.fit(X, y, epochs=3, batch_size=5, optimizer=Sgd(0.1, momentum=0.9), callbacks=[edit], progress=False)
    assert_same(ours, theirs)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)


def test_what_is_overridden_is_computed_on_the_host():
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        mlp.fit(X, y, epochs=2, batch_size=5, optimizer=Sgd(0.1, momentum=0.9), progress=False)
        mlp.sigmoid, mlp.sigmoid_derivative = np.sin, np.cos
        with pytest.warns(RuntimeWarning, match="the slow way"):
            mlp.fit(X, y, epochs=1, batch_size=5, optimizer=Sgd(0.1, momentum=0.9), shuffle=False, progress=False)
        mlp.train(X, y, 2)
    assert ours.backend_name == "numpy"
    assert_same(ours, theirs)
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_allclose(ours.gradients_vector, theirs.gradients_vector, rtol=1e-9, atol=1e-12)


def test_train_tells_its_last_gradients():
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        mlp.train(X, y, 3)
    np.testing.assert_allclose(ours.gradients_vector, theirs.gradients_vector, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.weight_vector, theirs.weight_vector, rtol=1e-9, atol=1e-12)


def test_edits_between_calls_go_through():
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        mlp.predict(X)
        mlp.weights[1][...] = 0.5
        mlp.fit(X, y, epochs=1, progress=False)
        mlp.weights[0][:, 0] += 1
    np.testing.assert_allclose(ours.predict(X), theirs.predict(X), rtol=1e-9)
    np.testing.assert_allclose(ours.backpropagation(X, y)[0], theirs.backpropagation(X, y)[0], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_epoch_that_does_not_end_is_undone(error, monkeypatch):
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    train_epoch, calls_made = backend.train_epoch, []

    def interrupted(*arguments, **options):
        losses = train_epoch(*arguments, **options)
        calls_made.append(1)
        if len(calls_made) == 3:
            raise error
        return losses

    theirs.fit(X, y, epochs=2, batch_size=5, optimizer=Adam(0.01), progress=False)
    monkeypatch.setattr(backend, "train_epoch", interrupted)
    if error is KeyboardInterrupt:
        assert ours.fit(X, y, epochs=9, batch_size=5, optimizer=Adam(0.01), progress=False).interrupted
    else:
        with pytest.raises(error):
            ours.fit(X, y, epochs=9, batch_size=5, optimizer=Adam(0.01), progress=False)
    assert_same(ours, theirs)
    for mlp in (ours, theirs):  # the optimizer's state and the order of samples are undone as well
        mlp.fit(X, y, epochs=2, batch_size=5, optimizer=Adam(0.01), progress=False)
    assert_same(ours, theirs)


def test_divergence_is_seen_and_undone():
    X, y = data(dtype=np.float64)
    mlp = Mlp(SIZES, activation="identity", loss="mean_squared_error", dtype="float64", backend="cuda", seed=0)
    with pytest.warns(RuntimeWarning, match="training stopped in epoch"):
        mlp.fit(X, np.eye(3)[y] * 1e200, epochs=50, optimizer=Sgd(1e200), progress=False)
    assert all(np.isfinite(w).all() for w in mlp.weights)


def test_train_and_its_errors_are_numpys():
    X, y = data(dtype=np.float64)
    Y, errors = np.eye(3)[y], {}
    for backend_name in ("cuda", "numpy"):
        mlp = Mlp(SIZES, seed=1, backend=backend_name)
        errors[backend_name] = []
        mlp.train(X, Y, 7, errors=errors[backend_name])
    np.testing.assert_allclose(errors["cuda"], errors["numpy"], rtol=1e-9)


def test_pickles_and_copies_go_on_where_they_were():
    X, y = data(dtype=np.float64)
    ours, theirs = pair()
    for mlp in (ours, theirs):
        mlp.fit(X, y, epochs=2, batch_size=5, optimizer=Adam(0.01), progress=False)
    for other in (pickle.loads(pickle.dumps(ours)), copy.deepcopy(ours)):
        reference = copy.deepcopy(theirs)
        assert_same(other, reference)
        for mlp in (other, reference):
            mlp.fit(X, y, epochs=2, batch_size=5, optimizer=Adam(0.01), progress=False)
        assert_same(other, reference)
    assert_same(ours, theirs)  # which the copies' training has not touched


def test_saved_and_loaded(tmp_path):
    X, y = data()
    mlp = Mlp(SIZES, activation="relu", loss="cross_entropy", dtype="float32", backend="cuda", seed=0)
    mlp.fit(X, y, epochs=2, progress=False)
    mlp.save(tmp_path / "model.safetensors")
    for name in ("cuda", "numpy"):
        loaded = Mlp.load(tmp_path / "model.safetensors", backend=name)
        np.testing.assert_allclose(loaded.predict(X), mlp.predict(X), rtol=1e-5)


def test_two_mlps_train_at_once_on_their_own_streams():
    X, y = data(20, dtype=np.float64)
    mlps = [
        Mlp(SIZES, activation="tanh", loss="cross_entropy", dtype="float64", seed=seed, backend="cuda")
        for seed in range(3)
    ]
    threads = [
        threading.Thread(target=mlp.fit, args=(X, y), kwargs={"epochs": 3, "batch_size": 5, "progress": False})
        for mlp in mlps
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(mlp._numbers._queue.stream) for mlp in mlps}) == 3
    for seed, mlp in enumerate(mlps):
        alone = Mlp(SIZES, activation="tanh", loss="cross_entropy", dtype="float64", seed=seed, backend="numpy")
        alone.fit(X, y, epochs=3, batch_size=5, progress=False)
        assert_same(mlp, alone)


# ------------------------------------------------------------------------------- an Mlp and other libraries' arrays
@pytest.mark.parametrize("kind", ["labels", "int64 labels", "one-hot", "probabilities"])
def test_device_data_is_taken(kind):
    X, y = data(dtype=np.float64)
    Y = {
        "labels": y.astype(np.int32),
        "int64 labels": y,
        "one-hot": np.eye(3)[y],
        "probabilities": np.random.default_rng(0).dirichlet(np.ones(3), len(y)),
    }[kind]
    ours, theirs = pair()
    placed = Foreign(np.ascontiguousarray(X)), Foreign(np.ascontiguousarray(Y))
    ours.fit(*placed, epochs=2, batch_size=5, validation=placed, progress=False)
    theirs.fit(X, Y, epochs=2, batch_size=5, validation=(X, Y), progress=False)
    assert_same(ours, theirs)
    np.testing.assert_allclose(ours.predict(placed[0]), theirs.predict(X), rtol=1e-9)
    np.testing.assert_array_equal(ours.classify(placed[0]), theirs.classify(X))
    assert ours.evaluate(*placed).loss == pytest.approx(theirs.evaluate(X, Y).loss, rel=1e-9)
    np.testing.assert_allclose(ours.backpropagation(*placed)[1], theirs.backpropagation(X, Y)[1], rtol=1e-7, atol=1e-12)


def test_device_samples_are_not_copied(monkeypatch):
    X, y = data(dtype=np.float64)
    foreign, seen = Foreign(X), []
    train_epoch = backend.train_epoch
    spy = lambda *a, **k: seen.append(memory.address(a[4])) or train_epoch(*a, **k)  # noqa: E731
    monkeypatch.setattr(backend, "train_epoch", spy)
    pair()[0].fit(foreign, y, epochs=2, progress=False)
    assert seen == [X.ctypes.data] * 2


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((4, 8)), r"X has shape \[4, 8\]; expected \[n, 5\]"),
        (np.zeros(5), r"X has shape \[5\]"),
        (np.zeros((0, 5)), r"X has shape \[0, 5\]; expected .* at least one sample"),
        (
            np.zeros((4, 5), np.float16),
            "X is float16, in a GPU's memory; expected C-contiguous uint8, float32, float64",
        ),
        (np.zeros((4, 10))[:, ::2], "X is float64, not contiguous, in a GPU's memory"),
        (np.full((4, 5), np.nan), "X holds nan or infinity"),
    ],
)
def test_device_samples_of_the_wrong_kind_are_refused(X, message):
    mlp = pair()[0]
    with pytest.raises(ValueError, match=message):
        mlp.fit(Foreign(X), np.zeros(len(X), int), progress=False)


def test_device_targets_are_checked():
    X, _ = data(4, dtype=np.float64)
    mlp = pair()[0]
    with pytest.raises(ValueError, match="y holds labels 0 to 3; expected 0 to 2"):
        mlp.fit(X, Foreign(np.array([0, 1, 2, 3])), progress=False)
    with pytest.raises(ValueError, match=r"y has shape \[3\], X has 4 samples"):
        mlp.fit(X, Foreign(np.array([0, 1, 2])), progress=False)


def test_prediction_passes_nan_on():
    X = np.zeros((3, 5))
    X[1, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(pair()[0].predict(Foreign(X))).any(1), [False, True, False])


def test_an_array_of_another_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "owner", lambda array: 1)
    with pytest.raises(ValueError, match="X is in the memory of GPU 1; expected GPU 0"):
        pair()[0].predict(Foreign(np.zeros((3, 5))))


def test_several_threads_may_ask_one_mlp():
    X, _ = data(4, dtype=np.float64)
    mlp, answers = pair()[0], []
    threads = [threading.Thread(target=lambda: answers.append(mlp.predict(X))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])
    assert len(answers) == 4


def test_other_backends_say_that_they_cannot_read_device_arrays():
    X, y = data(dtype=np.float64)
    mlp = pair()[1]
    with pytest.raises(TypeError, match="X is in a GPU's memory; expected an array in the host's, or backend='cuda'"):
        mlp.predict(Foreign(X))
    with pytest.raises(TypeError, match="y is in a GPU's memory"):
        mlp.fit(X, Foreign(y), progress=False)


def test_a_run_names_the_gpu():
    assert (
        backend_line(Mlp(SIZES, activation="relu", loss="cross_entropy", dtype="float32", backend="cuda:0"))
        == "cuda, concurrent simulator, number 0"
    )
