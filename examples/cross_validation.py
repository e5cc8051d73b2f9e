"""Ten-fold cross-validation: ten networks trained side by side, each on nine tenths of the samples."""

from sklearn.datasets import load_digits

from fastmlp import Adam, Mlp
from fastmlp.many import cross_validate


def make(fold: int) -> Mlp:
    """The network for one fold."""
    return Mlp(
        [64, 50, 10],
        activation="relu",
        output="softmax",
        dtype="float32",
        seed=fold,
        input_scale=1 / 16,
        input_shift=-0.5,
    )


def main() -> None:
    """Cross-validate on scikit-learn's digits."""
    X, y = load_digits(return_X_y=True)
    found = cross_validate(make, X, y, folds=10, seed=0, epochs=20, optimizer=Adam(0.003))
    for fold, accuracy in enumerate(found.accuracies):
        print(f"fold {fold}: accuracy {accuracy:.1%} on {len(found.tests[fold])} samples")
    print(f"accuracy {found.accuracies.mean():.1%} ± {found.accuracies.std():.1%}")


if __name__ == "__main__":
    main()
