"""``fastmlp compare``, end to end and part by part."""

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from fastmlp import cli, compare, compare_contenders, compare_plots, comparison, data
from fastmlp.compare import NothingCompared
from fastmlp.comparison import Comparison, Course, Parity, Row, Settings

needs_mnist = pytest.mark.skipif("FASTMLP_DATA" not in os.environ, reason="FASTMLP_DATA names no folder with MNIST")
ROOT = Path(__file__).resolve().parent.parent
SMALL = {"epochs": 2, "seeds": 2, "batch_size": 16, "learning_rate": 0.02, "images": 400}


@pytest.fixture(scope="module")
def small():
    """A comparison on the digits with all that runs there: the result, what was said, what was kept."""
    said, kept = [], []
    settings = Settings(**SMALL)
    result = compare.compare(data.digits(), settings, said.append, lambda so_far: kept.append(len(so_far.ran)))
    return result, said, kept


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command in this process and in an empty folder; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        code = cli.main(["compare", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def processor_seconds():
    """Of all processes that have been waited for; others on the machine do not count."""
    times = os.times()
    return times.children_user + times.children_system


def is_picture(path):
    """Whether a file is a picture with something on it."""
    pixels = imread(path)[..., :3]
    assert pixels.shape[0] > 200
    assert pixels.shape[1] > 400
    assert 0.001 < np.mean(pixels.min(2) < 0.5) < 0.6
    return True


# ---- end to end ----


@needs_mnist
def test_quick_on_mnist_compares_everybody_in_time(tmp_path):
    before = processor_seconds()
    command = [sys.executable, "-m", "fastmlp", "compare", "--quick", "--out", "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    seconds = processor_seconds() - before
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert seconds < 90  # and so no longer than that by the clock, on cores of its own

    files = {"compare.json", "losses.png", "accuracy.png", "throughput.png", "misclassified.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    assert all(is_picture(tmp_path / "out" / name) for name in files if name.endswith(".png"))
    result = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert (result["format"], result["network"]) == ("fastmlp compare 1", [784, 100, 10])
    assert (result["interrupted"], result["finished"]) == (False, True)
    assert result["data"] == {"name": "mnist", "training": 3000, "test": 10_000}

    rows = {row["name"]: row for row in result["rows"]}
    ran = [name for name, row in rows.items() if not row["skipped"]]
    expected = ["fastmlp, cpu", "fastmlp, numpy", "PyTorch, preloaded", "PyTorch, dataloader", "CNN, preloaded"]
    assert [*expected, "MLP-Mixer, preloaded"] == ran
    for name in ran:
        row = rows[name]
        assert [len(course["test_accuracy"]) for course in row["courses"]] == [1, 1]
        assert row["accuracy"] > (0.2 if "CNN" in name else 0.6)
        assert row["images_per_second"] == pytest.approx(3000 / row["epoch_seconds"])
        assert f"{100 * row['accuracy']:.2f} ±" in done.stdout
    assert rows["fastmlp, cpu"]["accuracy"] == pytest.approx(rows["fastmlp, numpy"]["accuracy"], abs=0.01)

    compared = {(one["what"], one["dtype"]): one for one in result["parity"]}
    assert len(compared) == 5
    for backend in ("cpu", "numpy"):
        one = compared[f"fastmlp {backend} and PyTorch", "float64"]
        assert one["batches"] == 600
        assert one["loss_difference"] < 1e-12
        assert one["weight_difference"] < 1e-12
        # In float32 rounding may push a unit over its kink; the first batches can't have come to that.
        assert max(compared[f"fastmlp {backend} and PyTorch", "float32"]["differences"][:10]) < 1e-5
    for said in result["misclassified"]:
        assert set(said["said"]) == {"fastmlp, cpu", "PyTorch, preloaded", "CNN, preloaded", "MLP-Mixer, preloaded"}
        assert set(said["said"].values()) != {said["label"]}


def test_without_mnist_the_digits_are_taken_and_it_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr("fastmlp.training_run.mnist", lambda: (_ for _ in ()).throw(data.DataNotFound("none")))
    code, output, error = run("--quick", "--batch-size", 64)
    assert (code, error) == (0, "")
    assert "MNIST was neither found nor could it be fetched" in output
    assert "left out: CNN, preloaded: needs images of 28 × 28; those of digits are 8 × 8" in output
    assert "left out: MLP-Mixer, preloaded: needs" in output
    assert "left out: fastmlp, cuda: " in output
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.endswith("-digits-compare")
    result = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    assert result["data"]["name"] == "digits"
    assert {row["name"] for row in result["rows"] if row["skipped"]} == {
        "fastmlp, cuda",
        "CNN, preloaded",
        "MLP-Mixer, preloaded",
    }


def test_an_earlier_comparison_is_replaced_and_nothing_else(run, tmp_path):
    arguments = ("--data", "digits", "--models", "torch-mlp", "--epochs", 1, "--seeds", 1, "--batch-size", 300)
    assert run(*arguments, "--out", "here")[0] == 0
    assert not (tmp_path / "here" / "losses.png").exists()  # without fastmlp's MLP nothing is compared step by step
    (tmp_path / "here" / "mine.txt").write_text("mine")
    assert run(*arguments, "--out", "here")[0] == 0
    assert (tmp_path / "here" / "mine.txt").read_text() == "mine"
    (tmp_path / "here" / "compare.json").write_text("{}")
    code, _, error = run(*arguments, "--out", "here")
    assert code == 2
    assert "holds compare.json, which is not an earlier run's" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "mlp,rnn"), "models='rnn' is not known; expected one of mlp, torch-mlp, cnn, mixer"),
        (("--models", ","), "--models is empty"),
        (("--epochs", 0), "epochs"),
        (("--seeds", 0), "seeds"),
        (("--batch-size", 0), "batch-size"),
        (("--learning-rate", 0), "--learning-rate=0.0"),
        (("--device", "abacus"), "device='abacus'"),
        (("--data", "nowhere"), "data='nowhere'"),
        (("--data", "digits", "--models", "cnn"), "models='cnn' leaves nobody to compare: CNN, preloaded needs images"),
        (("--data", "digits", "--learning-rate", "1e30", "--quick"), "infinite"),
    ],
)
@pytest.mark.filterwarnings("ignore:training stopped")
def test_what_is_wrong_is_refused_in_a_line(run, tmp_path, arguments, message):
    code, _, error = run(*arguments, "--out", tmp_path / "out")
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not (tmp_path / "out").exists()


def test_without_torch_the_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, output, error = run("--quick")
    assert (code, output) == (2, "")
    assert "torch is not installed, and this needs it: pip install 'fastmlp[torch]'" in error


@pytest.mark.parametrize(("model", "epochs"), [("mlp", 2), ("torch-mlp", 2), ("torch-mlp", 0)])
def test_ctrl_c_keeps_every_epoch_finished(run, tmp_path, monkeypatch, model, epochs):
    """It comes in the third epoch, or the first, of the second seed."""
    from fastmlp import torch_training
    from fastmlp.kernels import cpu

    owner, name = (cpu, "train_epoch") if model == "mlp" else (torch_training.FastPipeline, "train_epoch")
    right, calls = getattr(owner, name), []

    def interrupting(*arguments, **options):
        calls.append(None)
        if len(calls) == count:
            raise KeyboardInterrupt
        return right(*arguments, **options)

    # Before: fastmlp's epochs of the two comparisons in each dtype and of its warming up; PyTorch's trials of threads.
    trials = 2 * 2 * len({1, comparison.cores()})
    count = (2 + 1 if model == "mlp" else trials) + 3 + epochs + 1
    monkeypatch.setattr(owner, name, interrupting)
    arguments = ("--data", "digits", "--models", model, "--epochs", 3, "--seeds", 2, "--batch-size", 64)
    code, output, error = run(*arguments, "--out", "out")
    assert (code, error) == (130, "interrupted\n")
    assert "test accuracy" in output
    result = json.loads((tmp_path / "out" / "compare.json").read_text(encoding="utf-8"))
    assert (result["interrupted"], result["finished"]) == (True, False)
    courses = result["rows"][0]["courses"]
    assert [len(course["seconds"]) for course in courses] == ([3, epochs] if epochs else [3])
    assert [course["interrupted"] for course in courses] == ([False, True] if epochs else [False])
    assert (tmp_path / "out" / "throughput.png").exists()


# ---- the parts ----


def test_all_contenders_run_from_each_seed_in_turn(small):
    result, said, kept = small
    lines = [line for line in said if line.startswith("seed")]
    names = ["fastmlp, cpu", "fastmlp, numpy", "PyTorch, preloaded", "PyTorch, dataloader"]
    assert [line.split(": ")[:2] for line in lines] == [[f"seed {seed}", name] for seed in (0, 1) for name in names]
    assert kept == [1, 2, 3, 4, 4, 4, 4, 4]
    for row in result.ran:
        assert row.images == 400
        assert [len(course.test_accuracy) for course in row.courses] == [2, 2]
        assert row.accuracy > 0.6
        assert all(seconds > 0 for course in row.courses for seconds in course.seconds)


def test_the_labels_kept_are_those_of_the_accuracy(small):
    result, _, _ = small
    for row in result.ran:
        for course in row.courses:
            assert np.mean(course.labels == result.data.test_labels) == pytest.approx(course.test_accuracy[-1])


def test_one_epoch_in_both_is_the_same_within_rounding(small):
    result, _, _ = small
    assert [(one.what, one.dtype) for one in result.parity] == [
        ("fastmlp cpu and PyTorch", "float32"),
        ("fastmlp numpy and PyTorch", "float32"),
        ("fastmlp cpu and PyTorch", "float64"),
        ("fastmlp numpy and PyTorch", "float64"),
        ("PyTorch in float32 and in float64", "both"),
    ]
    for one in result.parity:
        assert one.batches == 25
        bound = 1e-13 if one.dtype == "float64" else 2e-5
        assert one.loss_difference < bound
        assert one.weight_difference < bound
        assert one.loss > 1
        assert one.weight > 0.1
        assert max(one.differences) == one.loss_difference
    assert result.parity[-1].loss_difference > 0  # float32 and float64 are never the same


def test_parity_finds_a_wrong_backend(monkeypatch):
    """A backend that takes another learning rate is found out."""
    from fastmlp.kernels import reference

    right = reference.train_epoch

    def wrong(network, rule, *arguments, **options):
        from dataclasses import replace

        return right(network, replace(rule, learning_rate=1.001 * rule.learning_rate), *arguments, **options)

    monkeypatch.setattr(reference, "train_epoch", wrong)
    settings = Settings(**SMALL)
    one = compare.parity(compare.first_images(data.digits(), 400), settings, ["numpy"])[1]
    assert one.dtype == "float64"
    assert one.weight_difference > 1e-5
    assert one.loss_difference > 1e-5


def test_difference_by_hand():
    one = np.array([3.0, 2.0, 1.0]), [np.array([[1.0, -4.0]])]
    other = np.array([3.0, 2.5, 0.75]), [np.array([[1.0, -4.125]])]
    found = compare.difference("a and b", "float64", one, other)
    assert (found.loss_difference, found.weight_difference) == (0.5, 0.125)
    assert (found.loss, found.weight, found.batches, found.batches_a_point) == (3.0, 4.125, 3, 1)
    assert found.differences == [0.0, 0.5, 0.25]


def test_curves_are_means_of_so_many_batches():
    losses = np.arange(2 * compare.CURVE_POINTS + 1.0)
    found = compare.difference("a and b", "float64", (losses, [np.ones((1, 1))]), (losses + 1, [np.ones((1, 1))]))
    assert found.batches_a_point == 2
    assert found.curves[0][:2] == [0.5, 2.5]
    assert len(found.curves[1]) == compare.CURVE_POINTS
    assert found.differences == [1.0] * compare.CURVE_POINTS


def test_figures_of_a_row():
    courses = [Course(0, [0.5, 0.9], [1.0, 3.0]), Course(1, [0.6, 0.8], [2.0, 2.0]), Course(2, [0.1], [9.0])]
    row = Row("name", "mlp", "cpu", images=100, courses=courses)
    assert row.accuracies == [0.9, 0.8]  # the third was cut short
    assert row.accuracy == pytest.approx(0.85)
    assert row.spread == pytest.approx(statistics.stdev([0.9, 0.8]))
    assert row.epoch_seconds == 2.0
    assert row.images_per_second == 50
    assert math.isnan(Row("name", "mlp", "cpu", courses=courses[:1]).spread)


def test_the_lab_is_the_default():
    settings = Settings()
    assert (settings.epochs, settings.batch_size, settings.learning_rate, settings.momentum) == (5, 5, 0.001, 0.9)
    quick = comparison.settings_for("cnn, mlp", None, 4, 5, 0.001, "cpu", quick=True)
    assert (quick.models, quick.epochs, quick.seeds, quick.images) == (("cnn", "mlp"), 1, 4, 3000)


def test_pytorch_starts_from_the_weights_of_fastmlp():
    digits = data.digits()
    (preloaded, _), settings = compare_contenders.torch_mlp_contenders(digits, Settings()), Settings()
    mlp = compare_contenders.Contender(Row("", "mlp", "numpy"), digits, settings).initial(3)
    state = preloaded.build(preloaded, 3).state_dict()
    assert np.array_equal(state["layers.0.weight"].numpy(), mlp.weights[0][:, 1:])
    assert np.array_equal(state["layers.1.bias"].numpy(), mlp.weights[1][:, 0])


def test_pytorchs_threads_and_subnormals_are_put_back():
    import torch

    before = torch.get_num_threads()
    tiny = torch.tensor(1e-40)
    with compare_contenders.torch_threads(1):
        assert torch.get_num_threads() == 1
        assert (tiny * 1.0).item() == 0
    assert torch.get_num_threads() == before
    assert (tiny * 1.0).item() > 0


@needs_mnist
def test_the_labs_loop_reads_torchvisions_mnist():
    import torchvision
    from torch.utils.data import Subset

    mnist = data.mnist()
    rows = compare_contenders.torch_mlp_contenders(compare.first_images(mnist, 100), Settings())
    samples = {contender.row.variant: contender.samples() for contender in rows}
    assert isinstance(samples["dataloader"], Subset)
    assert type(samples["dataloader"].dataset) is torchvision.datasets.MNIST
    assert len(samples["dataloader"]) == len(samples["preloaded"][0]) == 100
    image, label = samples["dataloader"][42]
    assert np.array_equal(image.numpy().ravel(), samples["preloaded"][0][42])
    assert label == mnist.train_labels[42]


# ---- pictures ----


def test_the_losses_picture_shows_both_and_their_difference(small):
    result, _, _ = small
    figure = compare_plots.losses_figure(result)
    above, below = figure.axes
    theirs, ours = above.lines
    assert theirs.get_ydata().tolist() == result.parity[0].curves[1]
    assert ours.get_ydata().tolist() == result.parity[0].curves[0]
    assert [text.get_text() for text in above.get_legend().get_texts()] == ["PyTorch, float32", "fastmlp cpu, float32"]
    assert len(below.lines) == 4
    assert np.nanmax(below.lines[0].get_ydata()) == result.parity[0].loss_difference
    assert (below.get_yscale(), below.get_xlabel()) == ("log", "batch")
    assert "digits, 400 training images, batches of 16" in above.get_title()


def test_the_accuracy_picture_shows_each_epoch_of_each_row(small):
    result, _, _ = small
    (axes,) = compare_plots.accuracy_figure(result).axes
    assert len(axes.lines) == 4 * 3  # two seeds and their mean
    first, second, mean = axes.lines[:3]
    row = result.ran[0]
    assert first.get_xdata().tolist() == np.cumsum(row.courses[0].seconds).tolist()
    assert second.get_ydata().tolist() == [100 * value for value in row.courses[1].test_accuracy]
    np.testing.assert_allclose(mean.get_ydata(), (first.get_ydata() + second.get_ydata()) / 2)
    assert "seconds" in axes.get_xlabel()
    assert axes.get_ylabel() == "test accuracy (%)"
    assert len(axes.get_legend().get_texts()) == 4


def test_the_throughput_picture_has_a_bar_for_each_row(small):
    result, _, _ = small
    (axes,) = compare_plots.throughput_figure(result).axes
    assert sorted(bar.get_width() for bar in axes.patches) == sorted(row.images_per_second for row in result.ran)
    assert len(axes.get_yticklabels()) == 4
    assert axes.get_xlabel() == "images a second"


def made_up(said):
    """A comparison of two models that say this of the digits' test images."""
    rows = []
    for name, labels in said.items():
        rows.append(Row(f"{name}, x", name, "x", images=1, courses=[Course(0, [0.5], [1.0], labels)]))
    return Comparison(data.digits(), Settings(), rows=rows)


def test_the_panel_shows_what_each_model_said():
    labels = data.digits().test_labels
    first, second = labels.copy(), labels.copy()
    first[[3, 50]] = (labels[[3, 50]] + 1) % 10
    second[[50, 70]] = (labels[[50, 70]] + 2) % 10
    result = made_up({"mlp": first, "cnn": second})
    assert result.misclassified().tolist() == [3, 50, 70]
    figure = compare_plots.misclassified_figure(result)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [f"image {i}, label {labels[i]}" for i in (3, 50, 70)]
    assert [text.get_text() for text in shown[0].texts] == [f"mlp: {first[3]} ✗", f"cnn: {labels[3]} ✓"]
    assert [text.get_text() for text in shown[1].texts] == [f"mlp: {first[50]} ✗", f"cnn: {second[50]} ✗"]
    assert np.array_equal(shown[2].images[0].get_array(), result.data.test_images[70].reshape(8, 8))
    assert result.to_dict()["misclassified"][0] == {
        "test_image": 3,
        "label": labels[3],
        "said": {"mlp, x": first[3], "cnn, x": labels[3]},
    }


def test_nothing_wrong_means_no_panel(tmp_path):
    result = made_up({"mlp": data.digits().test_labels})
    with pytest.raises(ValueError, match="no test image was classified wrongly"):
        compare_plots.misclassified_figure(result)
    with pytest.raises(ValueError, match="no epoch of fastmlp"):
        compare_plots.losses_figure(result)
    assert [path.name for path in compare_plots.save_figures(result, tmp_path)] == ["accuracy.png", "throughput.png"]


def test_an_equal_course_leaves_a_gap_in_the_logarithm():
    one = Parity("fastmlp cpu and PyTorch", "float64", 2, 0.5, 0.0, 1.0, 1.0, [[1.0, 1.0], [1.0, 0.5]], [0.0, 0.5], 1)
    result = made_up({"mlp": data.digits().test_labels})
    result.parity = [one]
    line = compare_plots.losses_figure(result).axes[1].lines[0]
    assert np.isnan(line.get_ydata()[0])
    assert line.get_ydata()[1] == 0.5


def test_nobody_to_compare():
    with pytest.raises(NothingCompared, match="leaves nobody"):
        compare.compare(data.digits(), Settings(models=("mixer",)), lambda line: None)


def test_the_speed_up_is_pytorchs_time_over_the_rows():
    rows = [
        Row(name, model, variant, images=100, courses=[Course(0, [0.5], [seconds])])
        for name, model, variant, seconds in [
            ("fastmlp, cpu", "mlp", "cpu", 0.5),
            ("PyTorch, preloaded", "torch-mlp", "preloaded", 2.0),
            ("PyTorch, dataloader", "torch-mlp", "dataloader", 8.0),
            ("CNN, preloaded", "cnn", "preloaded", 9.0),
        ]
    ]
    (table,) = comparison.report(Comparison(data.digits(), Settings(), rows=rows))
    assert table.columns[-1].header == "speed-up over PyTorch"
    assert list(table.columns[-1].cells) == ["4", "1", "0.25", ""]  # another network is no comparison
    assert "the time an epoch of PyTorch, preloaded, divided by the row's" in table.caption


# ---- the README's table ----


def test_the_table_of_the_readme(small, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)  # bench/ is no part of the package: it runs from the checkout
    from fastmlp.bench import compared

    result, _, _ = small
    path, readme = comparison.save(result, tmp_path), tmp_path / "README.md"
    readme.write_text(f"before\n{compared.BEGIN}\nold\n{compared.END}\nafter\n")
    assert compared.main([str(readme), str(path), "--check"]) == 1
    assert compared.main([str(readme), str(path)]) == 0
    assert compared.main([str(readme), str(path), "--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(f"before\n{compared.BEGIN}\n2 epochs of 400 DIGITS images in batches of 16")
    assert text.endswith(f"{compared.END}\nafter\n")
    for row in result.ran:
        assert f"| {row.name} | {100 * row.accuracy:.2f} ± {100 * row.spread:.2f} % | {row.epoch_seconds:.2f} |" in text
    assert "fastmlp cpu and PyTorch (float64)" in text

    for content, message in (("{}", "no result of fastmlp compare"), ("x", "Expecting value")):
        path.write_text(content)
        assert compared.main([str(readme), str(path)]) == 2
        assert message in capsys.readouterr().err
    comparison.save(Comparison(result.data, result.settings), tmp_path)
    assert compared.main([str(readme), str(path)]) == 2
    assert "has not come to its end" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == text


def test_the_readme_shows_the_committed_comparison(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT)
    from fastmlp.bench import compared

    result = ROOT / "bench" / "results" / "compare" / "compare.json"
    assert compared.main([str(ROOT / "README.md"), str(result), "--check"]) == 0, capsys.readouterr().err
