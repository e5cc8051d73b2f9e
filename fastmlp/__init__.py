"""fastmlp: multilayer perceptrons, trained fast."""

import importlib
from pathlib import Path
from types import ModuleType

# An installed fastmlp holds kernels/ inside; in a checkout it lies beside this folder, and is found there.
if not Path(__file__).with_name("kernels").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

from fastmlp._version import __version__
from fastmlp.callbacks import Callback, ProgressBar
from fastmlp.history import History
from fastmlp.kernels import Network
from fastmlp.mlp import Evaluation, Mlp
from fastmlp.modelfile import ModelFileError
from fastmlp.optimizers import Adam, Sgd

__all__ = [
    "Adam",
    "Callback",
    "Evaluation",
    "History",
    "Mlp",
    "ModelFileError",
    "Network",
    "ProgressBar",
    "Sgd",
    "__version__",
]

#: Modules that are imported at their first use as attributes: importing fastmlp stays quick.
LAZY = ("data", "estimators", "lab", "many", "plots")


def __getattr__(name: str) -> ModuleType:
    if name in LAZY:
        return importlib.import_module(f"fastmlp.{name}")
    raise AttributeError(f"module 'fastmlp' has no attribute {name!r}")
