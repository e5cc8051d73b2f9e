"""fastmlp.estimators on a simulated GPU: what they do beside `Mlp.fit` reaches the GPU's numbers."""

import pickle

import numpy as np
import pytest

from fastmlp import estimators
from fastmlp.estimators import MLPClassifier, MLPRegressor

X = np.random.default_rng(0).normal(size=(12, 3)).astype("float32")
CLASSES, COUNTS = np.arange(12) % 3, np.arange(12) % 4

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.mark.parametrize("tiny", [0, 10**6])
@pytest.mark.parametrize(
    "model",
    [
        MLPClassifier(batch_size=5, early_stopping=True, validation_fraction=0.3),
        MLPClassifier(solver="lbfgs", class_weight={0: 1, 1: 2, 2: 3}),
        MLPRegressor(solver="sgd", learning_rate="invscaling", learning_rate_init=0.1),
        MLPRegressor(loss="poisson", batch_size=5),
    ],
    ids=str,
)
def test_a_gpu_computes_what_numpy_does(model, tiny, monkeypatch):
    monkeypatch.setattr(estimators, "TINY_WORK", tiny)
    y = CLASSES if isinstance(model, MLPClassifier) else COUNTS
    predicted = {}
    for backend in ("numpy", "cuda"):
        one = type(model)(**{**model.get_params(), "backend": backend, "hidden_layer_sizes": (4,), "max_iter": 3})
        one.set_params(shuffle=False, random_state=0)
        one.fit(X, y)
        assert one.mlp_.backend_name == backend
        if one.solver != "lbfgs":
            one = pickle.loads(pickle.dumps(one)).set_params(early_stopping=False).partial_fit(X, y)
        one.coefs_[0][:] *= 2
        predicted[backend] = getattr(one, "predict_proba", one.predict)(X)
    np.testing.assert_allclose(predicted["cuda"], predicted["numpy"], rtol=1e-3, atol=1e-5)
