"""scikit-learn's own tests of its multi-layer perceptron, run against fastmlp's classes.

The tests are those of the scikit-learn that is installed: its file is read, and its classes are replaced by name.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor"
OURS = "from fastmlp.estimators import MLPClassifier, MLPRegressor"

#: Tests that can't apply, and why.
LEFT_OUT = {
    "test_fit": "sets coefs_ and private attributes of an estimator that has never been fitted",
    "test_gradient": "calls the private method _loss_grad_lbfgs",
    "test_mlp_param_dtypes": "expects float64 for float64 data by default; here dtype says it (see test_estimators.py)",
}


@pytest.fixture
def global_random_seed() -> int:
    """What scikit-learn's conftest.py has unless it is told otherwise."""
    return 42


def source() -> tuple[str, Path]:
    spec = find_spec("sklearn.neural_network")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin).with_name("tests") / "test_mlp.py"
    text = path.read_text(encoding="utf-8")
    assert IMPORT in text
    return text.replace(IMPORT, OURS), path


_text, _path = source()
exec(compile(_text, _path, "exec"))

for _name, _reason in LEFT_OUT.items():  # an older scikit-learn has fewer
    if _name in globals():
        globals()[_name] = pytest.mark.skip(reason=_reason)(globals()[_name])
