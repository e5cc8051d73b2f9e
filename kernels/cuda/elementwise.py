"""The functions that the lines of `fastmlp.kernels.cuda.formulas` call, in the dtype of their argument.

On the device they are those of `math`, which Numba compiles to the GPU's own for either dtype. In the simulator they
are NumPy's: those of `math` would give a float64 for a float32, and raise where the device gives infinity.
"""

import math
from typing import Any

import numpy as np
from numba.cuda.core import config

#: Whether kernels run in Numba's simulator (NUMBA_ENABLE_CUDASIM=1) instead of on a device.
SIMULATED = bool(config.ENABLE_CUDASIM)

exp: Any
fabs: Any
log: Any
log1p: Any
sqrt: Any
tanh: Any
if SIMULATED:
    exp, fabs, log, log1p, sqrt, tanh = np.exp, np.abs, np.log, np.log1p, np.sqrt, np.tanh
else:
    exp, fabs, log, log1p, sqrt, tanh = math.exp, math.fabs, math.log, math.log1p, math.sqrt, math.tanh
