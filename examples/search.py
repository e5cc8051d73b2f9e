"""A search with successive halving: many settings are trained a little, the better ones go on."""

from scipy.stats import loguniform
from sklearn.datasets import load_digits

from fastmlp import Adam, Mlp
from fastmlp.many import search

PARAMETERS = {
    "units": [10, 20, 50, 100],
    "activation": ["relu", "tanh"],
    "reg_lambda": loguniform(1e-4, 1),
    "optimizer": [Adam(rate) for rate in (0.0003, 0.001, 0.003, 0.01)],
    "batch_size": [32, 128],
}


def make(units: int, activation: str, reg_lambda: float) -> Mlp:
    """The network of one setting; what is named "optimizer" and "batch_size" goes to its training."""
    return Mlp(
        [64, units, 10],
        activation=activation,
        output="softmax",
        dtype="float32",
        seed=0,
        reg_lambda=reg_lambda,
        input_scale=1 / 16,
        input_shift=-0.5,
    )


def main() -> None:
    """Draw 30 settings, and show the best."""
    X, y = load_digits(return_X_y=True)
    found = search(make, PARAMETERS, X, y, draws=30, epochs=27, seed=0)
    for trial in found.trials[:5]:
        setting = ", ".join(f"{name}={value}" for name, value in trial["parameters"].items())
        print(f"{trial['epochs']} epochs: loss {trial['loss']:.3f}, accuracy {trial['accuracy']:.1%}, {setting}")
    print(f"the best: {found.network}")


if __name__ == "__main__":
    main()
