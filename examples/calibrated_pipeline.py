"""A frame with text and numbers in, calibrated probabilities out: a pipeline of scikit-learn's with fastmlp in it."""

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.metrics import brier_score_loss
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fastmlp.estimators import MLPClassifier

rng = np.random.default_rng(0)
n = 2000
people = pd.DataFrame(
    {
        "age": rng.integers(18, 80, n),
        "income": rng.lognormal(10, 0.5, n),
        "town": rng.choice(["Bergen", "Lima", "Pune"], n),
    }
)
z = (people["age"] - 50) / 15 + (people["town"] == "Lima") * 1.5 + rng.normal(0, 0.7, n)
answers = np.where(z > 0, "yes", "no")

encode = make_column_transformer((StandardScaler(), ["age", "income"]), (OneHotEncoder(), ["town"]))
network = MLPClassifier((32,), class_weight="balanced", early_stopping=True, random_state=0)
model = CalibratedClassifierCV(make_pipeline(encode, network), method="sigmoid", cv=3)

X_train, X_test, y_train, y_test = train_test_split(people, answers, random_state=0)
model.fit(X_train, y_train)
probabilities = model.predict_proba(X_test)[:, 1]
score = brier_score_loss(y_test, probabilities, pos_label="yes")
print(f"accuracy {model.score(X_test, y_test):.3f}, Brier score {score:.3f}")
