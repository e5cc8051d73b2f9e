import math
import subprocess
import sys

import pytest

from fastmlp import plots
from fastmlp.history import History

PNG = b"\x89PNG\r\n\x1a\n"


def history(epochs=3, validation=True):
    course = History()
    for epoch in range(1, epochs + 1):
        held_out = {"val_loss": 0.5 / epoch, "val_accuracy": 1 - 0.1 / epoch} if validation else {}
        course.append(loss=1 / epoch, seconds=1.0, samples_per_second=10.0, **held_out)
    return course


def test_curves_show_the_values_of_each_epoch_from_one_on():
    loss, accuracy = plots.history_figure(history(), "a title").axes
    training, held_out = loss.lines
    assert training.get_xdata().tolist() == [1, 2, 3]
    assert training.get_ydata().tolist() == [1, 1 / 2, 1 / 3]
    assert held_out.get_ydata().tolist() == [0.5, 0.25, 0.5 / 3]
    (line,) = accuracy.lines
    assert line.get_ydata().tolist() == pytest.approx([90, 95, 100 - 10 / 3])


def test_everything_is_named():
    figure = plots.history_figure(
        history(), "a title", epoch_name="iteration", loss_name="cross entropy", accuracy_of="test"
    )
    assert figure.get_suptitle() == "a title"
    loss, accuracy = figure.axes
    assert (loss.get_title(), loss.get_xlabel(), loss.get_ylabel()) == ("Loss", "iteration", "cross entropy")
    assert (accuracy.get_title(), accuracy.get_xlabel()) == ("Accuracy", "iteration")
    assert accuracy.get_ylabel() == "accuracy (%)"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "test"]
    assert [text.get_text() for text in accuracy.get_legend().get_texts()] == ["test, 96.67 % at the end"]


def test_curves_differ_without_colour():
    training, held_out = plots.history_figure(history()).axes[0].lines
    assert training.get_linestyle() != held_out.get_linestyle()
    assert training.get_marker() != held_out.get_marker()


def test_without_validation_the_training_loss_stands_alone():
    (axes,) = plots.history_figure(history(validation=False)).axes
    assert len(axes.lines) == 1


def test_accuracy_of_the_training_data_has_no_second_loss():
    course = history()
    course.val_loss = [math.nan] * 3
    loss, accuracy = plots.history_figure(course, accuracy_of="training").axes
    assert len(loss.lines) == 1
    assert accuracy.lines[0].get_color() == loss.lines[0].get_color()


@pytest.mark.parametrize("epochs", [1, 2, 400])
def test_any_number_of_epochs_is_drawn_within_the_picture(epochs, tmp_path):
    figure = plots.history_figure(history(epochs), "MNIST, [784, 100, 10]")
    plots.save_figure(figure, tmp_path / "curves.png")
    width, height = figure.canvas.get_width_height()
    for axes in figure.axes:
        box = axes.get_tightbbox()
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
        low, high = axes.get_xlim()
        assert low < 1 <= epochs < high
    left, right = (axes.get_tightbbox() for axes in figure.axes)
    assert left.x1 < right.x0


def test_no_epoch_is_refused():
    with pytest.raises(ValueError, match="history has no epoch"):
        plots.history_figure(History())


def test_pyplot_stays_out():
    # A figure of pyplot's would be kept until it is closed, and could open a window.
    plots.history_figure(history())
    from matplotlib import _pylab_helpers

    assert not _pylab_helpers.Gcf.figs


def test_saved_in_the_format_of_the_suffix(tmp_path):
    figure = plots.history_figure(history())
    plots.save_figure(figure, tmp_path / "a.png")
    plots.save_figure(figure, tmp_path / "b.pdf")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
    assert (tmp_path / "b.pdf").read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.pdf"}


def test_a_save_that_fails_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    figure = plots.history_figure(history())
    good = tmp_path / "curves.png"
    plots.save_figure(figure, good)
    before = good.read_bytes()

    def half(path, **_):
        path.write_bytes(PNG)
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        plots.save_figure(figure, good)
    assert good.read_bytes() == before
    assert list(tmp_path.iterdir()) == [good]


def test_folder_and_format_that_do_not_exist_are_refused(tmp_path):
    figure = plots.history_figure(history())
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        plots.save_figure(figure, tmp_path / "nowhere" / "a.png")
    with pytest.raises(ValueError, match="xyz"):
        plots.save_figure(figure, tmp_path / "a.xyz")
    assert not list(tmp_path.iterdir())


def test_importing_plots_leaves_matplotlib_alone():
    code = "import sys, fastmlp.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("losses", [[2.30, 2.29], [0.5], [3.0, 1.0, 0.2], [0.0, 0.0]])
def test_the_highest_marker_of_the_loss_is_drawn_whole(losses):
    course = History()
    for loss in losses:
        course.append(loss=loss, seconds=1.0, samples_per_second=10.0)
    figure = plots.history_figure(course)
    figure.canvas.draw()
    axes = figure.axes[0]
    (line,) = axes.lines
    top = axes.transData.transform([(0, max(losses))])[0, 1]
    assert top + line.get_markersize() / 2 * figure.dpi / 72 <= axes.bbox.y1
    assert axes.get_ylim()[0] == 0
