"""Training in PyTorch: both pipelines against a loop written here, and the lab's data as torchvision reads them."""

import gzip
import os

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, TensorDataset

from fastmlp import Mlp, Sgd, data
from fastmlp.torch_data import lab_pixels, torchvision_mnist
from fastmlp.torch_models import TorchCnn, TorchMlp
from fastmlp.torch_training import TorchHistory, torch_accuracy, torch_classify, train_torch

needs_mnist = pytest.mark.skipif("FASTMLP_DATA" not in os.environ, reason="FASTMLP_DATA names no folder with MNIST")
PIPELINES = ["dataloader", "preloaded"]


@pytest.fixture(params=PIPELINES)
def pipeline(request):
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def problem(n=53, n_in=6, classes=3):
    """Classes that a line tells apart, nearly."""
    rng = np.random.default_rng(2)
    y = rng.integers(0, classes, n)
    centres = 2 * rng.normal(size=(classes, n_in))
    return (centres[y] + rng.normal(size=(n, n_in))).astype(np.float32), y


def model(seed=0, sizes=(6, 5, 3), **options):
    torch.manual_seed(seed)
    return TorchMlp(sizes, **options)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]).numpy()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_pipelines_take_the_steps_of_a_plain_loop(pipeline, dtype):
    X, y = problem()
    trained, expected = model(dtype=dtype), model(dtype=dtype)
    losses = []
    velocity = [torch.zeros_like(parameter) for parameter in expected.parameters()]
    for _ in range(2):
        for start in range(0, len(X), 5):
            batch = torch.tensor(X[start : start + 5], dtype=getattr(torch, dtype))
            loss = F.cross_entropy(expected(batch), torch.tensor(y[start : start + 5]))
            gradients = torch.autograd.grad(loss, list(expected.parameters()))
            with torch.no_grad():
                for parameter, v, gradient in zip(expected.parameters(), velocity, gradients, strict=True):
                    v.mul_(0.9).add_(gradient)
                    parameter.sub_(0.05 * v)
            losses.append(loss.item())
    history = train_torch(trained, (X, y), pipeline=pipeline, epochs=2, batch_size=5, learning_rate=0.05, shuffle=False)
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    assert [len(each) for each in history.batch_losses] == [11, 11]
    np.testing.assert_allclose(np.concatenate(history.batch_losses), losses, rtol=0, atol=tolerance)
    np.testing.assert_allclose(weights(trained), weights(expected), rtol=0, atol=tolerance)


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy", "mean_squared_error"])
def test_it_trains_as_mlp_does_with_every_loss(pipeline, loss, backend):
    X, y = problem()
    mlp = Mlp([6, 5, 3], activation="tanh", loss=loss, dtype="float64", seed=1, backend=backend)
    twin = mlp.to_torch()
    history = train_torch(
        twin, (X, y), (X, y), pipeline=pipeline, epochs=2, batch_size=8, learning_rate=0.05, shuffle=False
    )
    ours = mlp.fit(X, y, epochs=2, batch_size=8, optimizer=Sgd(0.05, 0.9), shuffle=False, validation=(X, y))
    np.testing.assert_allclose(weights(twin), weights(mlp.to_torch()), rtol=0, atol=1e-12)
    sizes = [8] * 6 + [5]
    means = [np.average(losses, weights=sizes) for losses in history.batch_losses]
    np.testing.assert_allclose(means, ours.loss, rtol=1e-12)
    np.testing.assert_equal(history.test_accuracy, ours.val_accuracy)  # nan for a regression


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_rows_of_several_ones_are_right_as_for_mlp(loss):
    X, _ = problem()
    mlp = Mlp([6, 3], loss=loss, output="sigmoid", dtype="float64", seed=1, backend="numpy")
    Y = (mlp.predict(X) > 0.5).astype(float)
    Y[::4, 2] = 1 - Y[::4, 2]
    one_hot = np.eye(3)[mlp.classify(X)]
    assert torch_accuracy(mlp.to_torch(), (X, Y)) == mlp.score(X, Y) == (len(X) - len(X[::4])) / len(X)
    assert torch_accuracy(mlp.to_torch(), (X, one_hot)) == mlp.score(X, one_hot) == 1


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error"])
def test_one_output(pipeline, loss):
    X, y = problem(classes=2)
    mlp = Mlp([6, 1], loss=loss, output="sigmoid", dtype="float64", seed=1, backend="numpy")
    twin = mlp.to_torch()
    options = {"pipeline": pipeline, "epochs": 5, "batch_size": 7, "learning_rate": 0.1, "shuffle": False}
    history = train_torch(twin, (X, y), (X, y), **options)
    ours = mlp.fit(X, y, epochs=5, batch_size=7, optimizer=Sgd(0.1, 0.9), shuffle=False, validation=(X, y))
    np.testing.assert_allclose(weights(twin), weights(mlp.to_torch()), rtol=0, atol=1e-12)
    assert history.test_accuracy == ours.val_accuracy
    assert np.array_equal(torch_classify(twin, X), mlp.classify(X))


def test_running_losses_are_means_of_so_many_batches(pipeline):
    X, y = problem()
    lines = []
    options = {"epochs": 2, "batch_size": 5, "report_every": 4, "say": lines.append}
    history = train_torch(model(), (X, y), (X, y), pipeline=pipeline, **options)
    losses = history.batch_losses
    assert history.running_losses == [
        (1, 4, pytest.approx(losses[0][:4].mean())),
        (1, 8, pytest.approx(losses[0][4:8].mean())),
        (2, 4, pytest.approx(losses[1][:4].mean())),
        (2, 8, pytest.approx(losses[1][4:8].mean())),
    ]
    assert lines[0] == f"[1,     4] loss: {losses[0][:4].mean():.3f}"
    assert [line.split(":")[0] for line in lines] == [
        "[1,     4] loss",
        "[1,     8] loss",
        "epoch 1",
        "[2,     4] loss",
        "[2,     8] loss",
        "epoch 2",
    ]
    assert lines[-1].endswith(f"test accuracy {history.test_accuracy[-1]:.2%}")
    assert len(history.seconds) == len(history.samples_per_second) == 2
    assert history.samples_per_second[0] == pytest.approx(53 / history.seconds[0])


def test_the_lab_reports_every_2000_mini_batches():
    history = TorchHistory(batch_losses=[np.arange(12_000.0)] * 5)
    assert [(epoch, batch) for epoch, batch, _ in history.running_losses][:7] == [
        (1, 2000),
        (1, 4000),
        (1, 6000),
        (1, 8000),
        (1, 10_000),
        (1, 12_000),
        (2, 2000),
    ]
    assert len(history.running_losses) == 30
    assert history.running_losses[1][2] == 2999.5


def test_it_learns_and_a_seed_repeats_to_the_bit(pipeline):
    X, y = problem(300)
    runs = []
    for seed in (1, 1, 2):
        network = model()
        options = {"pipeline": pipeline, "epochs": 6, "learning_rate": 0.02, "seed": seed}
        history = train_torch(network, (X[:200], y[:200]), (X[200:], y[200:]), **options)
        runs.append(weights(network))
        assert history.test_accuracy[-1] > 0.8
        assert history.test_accuracy[-1] == torch_accuracy(network, (X[200:], y[200:]))
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_pytorchs_generator_is_left_alone_with_a_seed_and_used_without(pipeline):
    X, y = problem()
    state = torch.get_rng_state()
    train_torch(model(), (X, y), pipeline=pipeline, epochs=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_torch(torch.nn.Linear(6, 3), (X, y), pipeline=pipeline, epochs=1, seed=3)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    torch.nn.Linear(6, 3)
    assert torch.equal(after, torch.get_rng_state())
    train_torch(torch.nn.Linear(6, 3), (X, y), pipeline=pipeline, epochs=1, seed=None)
    assert not torch.equal(before, torch.get_rng_state())
    torch.set_rng_state(state)


class Squares(Dataset):
    """Samples made when they are asked for."""

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if index >= 40:
            raise IndexError
        return torch.full((6,), index / 40), index % 3


def test_data_sets_of_any_kind(pipeline):
    history = train_torch(model(), Squares(), Squares(), pipeline=pipeline, epochs=1, batch_size=7, shuffle=False)
    X = torch.arange(40).div(40)[:, None].expand(40, 6)
    expected = train_torch(
        model(), TensorDataset(X, torch.arange(40) % 3), pipeline=pipeline, epochs=1, batch_size=7, shuffle=False
    )
    np.testing.assert_array_equal(history.batch_losses, expected.batch_losses)
    assert 0 <= history.test_accuracy[0] <= 1
    assert np.isnan(expected.test_accuracy[0])


def test_dropout_is_on_in_training_and_off_in_testing(pipeline):
    network, modes = TorchCnn(), []
    network.register_forward_hook(lambda module, *_: modes.append(module.training))
    X, y = torch.rand(10, 784), torch.arange(10)
    train_torch(network, (X, y), (X, y), pipeline=pipeline, epochs=2, batch_size=5)
    assert modes == [True, True, False, True, True, False]
    network.eval()
    torch_classify(network, X)
    assert not network.training


def test_ctrl_c_keeps_the_epochs_finished(pipeline):
    X, y = problem()
    network, reference = model(), model()
    calls = []

    def interrupting(*_):
        calls.append(None)
        if len(calls) == 2 * 11 + 4:
            raise KeyboardInterrupt

    handle = network.register_forward_hook(interrupting)
    history = train_torch(network, (X, y), pipeline=pipeline, epochs=5, seed=1)
    handle.remove()
    assert history.interrupted
    assert len(history) == 2
    train_torch(reference, (X, y), pipeline=pipeline, epochs=2, seed=1)
    assert np.array_equal(weights(network), weights(reference))


def test_a_loss_that_becomes_infinite_stops_it_and_undoes_the_epoch(pipeline):
    X, y = problem()
    network = model(loss="mean_squared_error")
    before = weights(network)
    with pytest.warns(RuntimeWarning, match=r"stopped in epoch 1, which was undone: the loss became .*learning_rate"):
        history = train_torch(network, (X, y), pipeline=pipeline, learning_rate=1e6)
    assert len(history) == 0
    assert np.array_equal(weights(network), before)


X, Y = problem()


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((), {"pipeline": "fast"}, ValueError, "pipeline='fast' is not known; expected one of dataloader, preloaded"),
        ((), {"epochs": 0}, ValueError, "epochs=0"),
        ((), {"batch_size": 2.0}, TypeError, "batch_size=2.0"),
        ((), {"learning_rate": 0}, ValueError, "learning_rate=0"),
        ((), {"momentum": 1}, ValueError, "momentum=1"),
        ((), {"seed": -1}, ValueError, "seed=-1"),
        ((), {"report_every": 0}, ValueError, "report_every=0"),
        ((), {"shuffle": 1}, TypeError, "shuffle=1"),
        ((), {"device": "abacus"}, ValueError, "device='abacus' is not known"),
        ((), {"device": "meta:x"}, ValueError, "device='meta:x'"),
        ((X, Y), {}, TypeError, "model is a ndarray"),
        ((torch.nn.ReLU(), (X, Y)), {}, ValueError, "model has no parameters"),
        ((TorchMlp([6, 3]), (X, Y[1:])), {}, ValueError, "train has 53 samples and 52 labels"),
        ((TorchMlp([6, 3]), (X, Y, Y)), {}, TypeError, "train has 3 entries"),
        ((TorchMlp([6, 3]), 3), {}, TypeError, "train is a int"),
        ((TorchMlp([6, 3]), (X, Y), (X[:0], Y[:0])), {}, ValueError, "test has 0 samples"),
    ],
)
def test_what_is_wrong_is_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        train_torch(*(arguments or (TorchMlp([6, 3]), (X, Y))), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here, so cuda is not refused")
def test_cuda_without_a_gpu_is_refused_with_the_reason():
    with pytest.raises(RuntimeError, match="device='cuda' does not work here: "):
        train_torch(TorchMlp([6, 3]), (X, Y), device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that PyTorch can use")
def test_cuda_trains_as_the_cpu_does(pipeline):
    networks = [model(dtype="float64") for _ in range(2)]
    for network, device in zip(networks, ("cpu", "cuda"), strict=True):
        train_torch(network, (X, Y), (X, Y), pipeline=pipeline, device=device, epochs=2, shuffle=False)
    np.testing.assert_allclose(weights(networks[1].cpu()), weights(networks[0]), rtol=0, atol=1e-12)


# ---- the lab's data ----


@needs_mnist
def test_torchvisions_own_class_reads_the_real_files():
    import torchvision

    train, test = torchvision_mnist()
    mnist = data.mnist()
    for dataset, images, labels in (
        (train, mnist.train_images, mnist.train_labels),
        (test, mnist.test_images, mnist.test_labels),
    ):
        assert type(dataset) is torchvision.datasets.MNIST
        assert np.array_equal(dataset.data.numpy().reshape(len(images), -1), images)
        assert np.array_equal(dataset.targets.numpy(), labels)
        image, label = dataset[7]
        assert (image.dtype, image.shape, label) == (torch.float32, (1, 28, 28), labels[7])
        assert np.array_equal(image.numpy().ravel(), lab_pixels(images[7]))  # ToTensor and Normalize, to the bit
        assert (image.min(), image.max()) == (-0.5, 0.5)


@needs_mnist
def test_the_labs_loop_on_the_real_data_and_the_fast_form_learn_alike():
    from torch.utils.data import Subset

    train, test = torchvision_mnist()
    mnist = data.mnist()
    fast_data = lab_pixels(mnist.train_images[:1000]), mnist.train_labels[:1000]
    test_data = lab_pixels(mnist.test_images[:1000]), mnist.test_labels[:1000]
    options = {"epochs": 1, "report_every": 50, "shuffle": False}
    networks = [model(sizes=[784, 100, 10]) for _ in range(2)]
    lab = train_torch(
        networks[0], Subset(train, range(1000)), Subset(test, range(1000)), pipeline="dataloader", **options
    )
    fast = train_torch(networks[1], fast_data, test_data, pipeline="preloaded", **options)
    assert [where[:2] for where in lab.running_losses] == [(1, 50), (1, 100), (1, 150), (1, 200)]
    losses = [loss for _, _, loss in lab.running_losses]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert lab.test_accuracy[0] > 0.4
    assert fast.test_accuracy[0] == pytest.approx(lab.test_accuracy[0], abs=0.003)
    # Fused steps round otherwise; after some of them a unit at its kink may have gone the other way.
    np.testing.assert_allclose(fast.batch_losses[0][:100], lab.batch_losses[0][:100], rtol=0, atol=1e-5)


def small_mnist(folder, gzipped):
    """MNIST's four files with few images; returns the training images."""
    rng = np.random.default_rng(0)
    kept = {}
    for part, n in (("train", 12), ("t10k", 5)):
        images, labels = rng.integers(0, 256, (n, 28, 28)).astype(np.uint8), rng.integers(0, 10, n).astype(np.uint8)
        kept[part] = images
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = header + array.tobytes()
            path = folder / (f"{name}.gz" if gzipped else name)
            path.write_bytes(gzip.compress(content) if gzipped else content)
    return kept


@pytest.mark.parametrize("gzipped", [True, False])
def test_torchvision_reads_packed_and_raw_files_and_nothing_is_left_behind(tmp_path, monkeypatch, gzipped):
    source, temporary = tmp_path / "source", tmp_path / "temporary"
    source.mkdir()
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    images = small_mnist(source, gzipped)
    before = sorted(path.name for path in source.iterdir())
    train, test = torchvision_mnist(source)
    assert np.array_equal(train.data.numpy(), images["train"])
    assert np.array_equal(test.data.numpy(), images["t10k"])
    assert len(train[3]) == 2  # it was read whole
    assert sorted(path.name for path in source.iterdir()) == before
    assert not list(temporary.iterdir())


def test_torchvision_without_data_says_where_it_looked(tmp_path):
    with pytest.raises(data.DataNotFound, match="holds none of MNIST's files"):
        torchvision_mnist(tmp_path)


def test_lab_pixels_are_less_a_half():
    pixels = lab_pixels(np.array([[0, 16, 8]], np.uint8), 16)
    assert pixels.dtype == np.float32
    assert pixels.tolist() == [[-0.5, 0.5, 0.0]]
