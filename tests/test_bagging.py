"""The bag as an estimator of scikit-learn."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp.bagging import BagClassifier


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of inputs far from unit scale, which the checks have
@parametrize_with_checks([BagClassifier((8,), n_estimators=3, epochs=30, optimizer="adam")])
def test_it_is_an_estimator(estimator, check):
    check(estimator)


def test_it_answers_with_the_mean_of_probabilities_and_the_users_classes():
    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    bag = BagClassifier((10,), n_estimators=5, random_state=0).fit(X, names)
    means = np.mean([mlp.predict(X) for mlp in bag.ensemble_.networks], 0)
    np.testing.assert_allclose(bag.predict_proba(X), means, rtol=1e-6)
    assert set(bag.predict(X)) == set(bag.classes_) == set(names)
    assert bag.score(X, names) > 0.9
    again = clone(bag).fit(X, names)
    np.testing.assert_array_equal(again.predict_proba(X), bag.predict_proba(X))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(bag)).predict_proba(X), bag.predict_proba(X))


def test_in_a_pipeline_and_a_search():
    X, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(StandardScaler(), BagClassifier((5,), n_estimators=2, epochs=5, random_state=0))
    found = GridSearchCV(pipeline, {"bagclassifier__hidden_layer_sizes": [(3,), (10,)]}, cv=2).fit(X, y)
    assert found.best_params_


def test_bad_parameters():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="size=0; expected 1 or more"):
        BagClassifier(n_estimators=0).fit(X, y)
    with pytest.raises(ValueError, match="share=2; expected"):
        BagClassifier(max_samples=2).fit(X, y)
