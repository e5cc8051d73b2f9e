"""What is installed: the wheel holds the package with its kernels, and nothing else."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "data", "MNIST", "runs", "results"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Path of a wheel built from a copy of the checkout, so that nothing is left in it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(CHECKOUT, folder / "checkout", ignore=LEFT_OUT)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "checkout"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"fastmlp"}
    sources = {str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "fastmlp").glob("*.py")}
    sources |= {"fastmlp/" + str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "kernels").rglob("*.py")}
    sources |= {"fastmlp/" + str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "bench").glob("*.py")}
    packaged = {name for name in names if name.endswith(".py")}
    assert packaged == sources
    assert "fastmlp/kernels/cpu/__init__.py" in packaged
    assert "fastmlp/py.typed" in names


def test_wheel_names_its_command_and_its_license(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (entry_points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "fastmlp = fastmlp.cli:main" in archive.read(entry_points).decode()
        assert any(name.endswith("LICENSE") for name in archive.namelist())


def test_wheel_works_with_its_own_kernels(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import fastmlp, fastmlp.kernels, fastmlp.kernels.network, fastmlp.kernels.reference\n"
        "mlp = fastmlp.Mlp([2, 3, 2], activation='relu', seed=1, backend='numpy')\n"
        "mlp.fit([[0, 1], [1, 0]], [0, 1], epochs=1)\n"
        "print(fastmlp.__file__)\n"
        "print(fastmlp.kernels.__file__)\n"
        "print(fastmlp.__version__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    package, kernels, version = done.stdout.split()
    assert Path(package) == tmp_path / "site" / "fastmlp" / "__init__.py"
    assert Path(kernels) == tmp_path / "site" / "fastmlp" / "kernels" / "__init__.py"
    assert wheel.name.startswith(f"fastmlp-{version}-")


def test_benchmark_of_the_wheel_runs_its_own_processes(wheel, tmp_path):
    """In a folder with a module in the way of one of Python's, which must not be imported."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "json.py").write_text("raise ImportError('the wrong json')\n")
    code = (
        "import fastmlp.bench\n"
        "from fastmlp.bench.measure import measure_work\n"
        "from fastmlp.bench.processes import Crew, environment\n"
        "from fastmlp.bench.work import Work\n"
        "with Crew() as crew:\n"
        "    work = Work((5, 4, 3), 6, source='synthetic', samples=20)\n"
        "    result = measure_work(work, ['fastmlp-numpy'], crew, rounds=1, steps=2)\n"
        "print(fastmlp.bench.__file__)\n"
        "print(*result['contenders'], *result['missing'].values(), *result['refused'].values())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.returncode == 0, done.stderr
    place, contenders = done.stdout.splitlines()
    assert Path(place) == tmp_path / "site" / "fastmlp" / "bench" / "__init__.py"
    assert contenders == "fastmlp-numpy"
