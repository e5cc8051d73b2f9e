"""A bag of twenty networks, each trained on random samples of its own, that answer with their mean probabilities."""

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fastmlp import Adam, Mlp
from fastmlp.many import bag


def make(i: int) -> Mlp:
    """One of the networks."""
    return Mlp(
        [64, 30, 10], activation="relu", output="softmax", dtype="float32", seed=i, input_scale=1 / 16, input_shift=-0.5
    )


def main() -> None:
    """Compare a bag with its networks on scikit-learn's digits."""
    X, X_test, y, y_test = train_test_split(*load_digits(return_X_y=True), random_state=0)
    ensemble = bag(make, X, y, size=20, seed=0, epochs=20, optimizer=Adam(0.003))
    alone = [mlp.score(X_test, y_test) for mlp in ensemble.networks]
    print(f"accuracy of the networks alone: {min(alone):.1%} to {max(alone):.1%}")
    print(f"accuracy of all together: {ensemble.score(X_test, y_test):.1%}")


if __name__ == "__main__":
    main()
