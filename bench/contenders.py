"""The contenders by name: everybody who can do a `Work`, behind the one small interface of `fastmlp.bench.contender`.

To add a contender, write its class in a file like those imported here and enter it in `CONTENDERS`. One's own, kept
elsewhere, is named "module:Class".
"""

import importlib

from fastmlp.bench.contender import Contender
from fastmlp.bench.predictors import FastmlpPredict, TorchPredictByHand, TorchPredictCompiled, TorchPredictEager
from fastmlp.bench.with_fastmlp import (
    FastmlpCpu,
    FastmlpCpuInOrder,
    FastmlpCpuPixels,
    FastmlpCuda,
    FastmlpCudaPixels,
    FastmlpLab,
    FastmlpLabFloat32,
    FastmlpNumpy,
    with_threads,
)
from fastmlp.bench.with_jax import Jax, JaxCuda, JaxCudaTf32
from fastmlp.bench.with_many import (
    FitInPool,
    FitMany,
    FitManyOneThread,
    JaxVmap,
    TorchLoop,
    TorchVmap,
    TorchVmapCompiled,
)
from fastmlp.bench.with_numpy import NumpyLab
from fastmlp.bench.with_sklearn import ScikitLearn
from fastmlp.bench.with_torch import TorchAutocast, TorchCompiled, TorchEager, TorchFused
from fastmlp.bench.with_torch_by_hand import TorchByHand
from fastmlp.bench.with_torch_cuda import (
    TorchCuda,
    TorchCudaCompiled,
    TorchCudaCompiledGraph,
    TorchCudaGraph,
    with_tf32,
)
from fastmlp.kernels.names import unknown_name

__all__ = ["CONTENDERS", "THREADS", "contender"]


#: Of the contenders "fastmlp-threads-N".
THREADS = (1, 2, 4, 8, 16)

#: name -> contender
CONTENDERS: dict[str, type[Contender]] = {
    "fastmlp-cpu": FastmlpCpu,
    "fastmlp-cpu-in-order": FastmlpCpuInOrder,
    "fastmlp-cpu-uint8": FastmlpCpuPixels,
    "fastmlp-numpy": FastmlpNumpy,
    "fastmlp-cuda": FastmlpCuda,
    "fastmlp-cuda-uint8": FastmlpCudaPixels,
    **{f"fastmlp-threads-{count}": with_threads(count) for count in THREADS},
    "fastmlp-predict": FastmlpPredict,
    "fastmlp-lab": FastmlpLab,
    "fastmlp-lab-float32": FastmlpLabFloat32,
    "numpy-lab": NumpyLab,
    "torch-eager": TorchEager,
    "torch-fused": TorchFused,
    "torch-compiled": TorchCompiled,
    "torch-by-hand": TorchByHand,
    "torch-bf16": TorchAutocast,
    "torch-cuda": TorchCuda,
    "torch-cuda-graph": TorchCudaGraph,
    "torch-cuda-compiled": TorchCudaCompiled,
    "torch-cuda-compiled-graph": TorchCudaCompiledGraph,
    "torch-cuda-tf32": with_tf32(TorchCuda),
    "torch-cuda-graph-tf32": with_tf32(TorchCudaGraph),
    "torch-cuda-compiled-tf32": with_tf32(TorchCudaCompiled),
    "torch-cuda-compiled-graph-tf32": with_tf32(TorchCudaCompiledGraph),
    "torch-predict": TorchPredictEager,
    "torch-predict-compiled": TorchPredictCompiled,
    "torch-predict-by-hand": TorchPredictByHand,
    "jax": Jax,
    "jax-cuda": JaxCuda,
    "jax-cuda-tf32": JaxCudaTf32,
    "scikit-learn": ScikitLearn,
    "fit-many": FitMany,
    "fit-many-1": FitManyOneThread,
    "fit-pool": FitInPool,
    "torch-loop": TorchLoop,
    "torch-vmap": TorchVmap,
    "torch-vmap-compiled": TorchVmapCompiled,
    "jax-vmap": JaxVmap,
}


def contender(name: str) -> type[Contender]:
    """The contender of that name, or the class that "module:Class" names.

    Raises
    ------
    ValueError
        If there is none.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(importlib.import_module(module), attribute)
    if name not in CONTENDERS:
        raise unknown_name("contender", name, CONTENDERS)
    return CONTENDERS[name]
