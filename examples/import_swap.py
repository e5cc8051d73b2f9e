"""scikit-learn's MLPClassifier and fastmlp's, by nothing but another import."""

import time

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier as Theirs

from fastmlp.estimators import MLPClassifier as Ours

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

for name, MLPClassifier in (("scikit-learn", Theirs), ("fastmlp", Ours)):
    start = time.perf_counter()
    model = MLPClassifier(early_stopping=True, random_state=0).fit(X_train, y_train)
    seconds = time.perf_counter() - start
    print(f"{name}: accuracy {model.score(X_test, y_test):.3f} after {model.n_iter_} epochs, {seconds:.2f} s")
