"""The numbers that tune the CUDA backend besides those of `fastmlp.kernels.cuda.plans`. None changes a result."""

#: The oldest GPU that the kernels are written for, as a compute capability: asynchronous copies begin there (Ampere).
LEAST_CAPABILITY = (8, 0)

#: From how many multiply-adds of a sample's forward pass on "auto" prefers a GPU to the CPU. None: never, until the two
#: have been measured against each other.
AUTO_LEAST_MULTIPLY_ADDS: int | None = None

#: Bytes of shared memory that a block may have without being asked for; from the CUDA programming guide, not a choice.
SHARED_MEMORY_UNASKED = 48 * 1024

#: Kernels over single numbers: threads of a block, and blocks of a multiprocessor.
ELEMENT_THREADS = 256
ELEMENT_BLOCKS = 8
