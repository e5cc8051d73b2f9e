"""fastmlp: multilayer perceptrons, trained fast."""

from pathlib import Path

# An installed fastmlp holds kernels/ inside; in a checkout it lies beside this folder, and is found there.
if not Path(__file__).with_name("kernels").is_dir():
    __path__.append(str(Path(__file__).parent.parent))

from fastmlp._version import __version__  # noqa: E402 (kernels must be findable first)
