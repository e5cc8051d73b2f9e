"""The numbers that tune the CUDA backend. None of them has been measured on a GPU yet: all are estimates.

They decide speed, never results beyond rounding.
"""

#: The oldest GPU that the kernels are written for, as a compute capability: asynchronous copies begin there (Ampere).
LEAST_CAPABILITY = (8, 0)

#: From how many multiply-adds of a sample's forward pass on "auto" prefers a GPU to the CPU. None: never, until the two
#: have been measured against each other.
AUTO_LEAST_MULTIPLY_ADDS: int | None = None

#: Bytes of shared memory that a block may have without being asked for; from the CUDA programming guide, not a choice.
SHARED_MEMORY_UNASKED = 48 * 1024

#: Blocks and threads of the kernel that looks for nan and infinity; blocks for each multiprocessor.
FINITE_BLOCKS = 4
FINITE_THREADS = 256

#: Large batches and inference (`fastmlp.kernels.cuda.large_plan`). Threads of a block, and blocks of a multiprocessor:
#: 255 registers a thread for the sums of a tile.
TILE_THREADS = 256
TILE_BLOCKS = 1

#: Products that a tile takes at a time: 64 bytes of each row.
TILE_DEPTH = {"float32": 16, "float64": 8}

#: Bytes of a thread's sums at most (a quarter of its registers), and rows of a tile.
TILE_SUM_BYTES = 256
TILE_ROWS = 128

#: Bytes of shared memory for a tile: what every block has without asking.
TILE_SHARED = SHARED_MEMORY_UNASKED

#: Cycles that a block spends, for each depth of a tile, on storing what it loaded and on waiting for one another.
TILE_MEETING = 120

#: A block takes bands of samples through all layers if that many times the bands are enough for all blocks.
BANDS_SHARE = 1.5

#: Depths of a tile that a part of a batch has at least when gradients are split.
SPLIT_DEPTHS = 4

#: A lone update: threads of a block, and blocks of a multiprocessor.
UPDATE_THREADS = 256
UPDATE_BLOCKS = 8

#: Cycles of a scheduler for one product of numbers on its tensor core: three-term TF32 on a GPU that multiplies 256 TF32
#: numbers a cycle and reaches 0.62 of it (sm_90), float64 at 16 a cycle. And how products are summed in float64: "fma",
#: or "mma" on the tensor cores, which is twice the rate on sm_80 and sm_90 by their data sheets.
MMA_CYCLES = {"tf32x3": 3 / (256 * 0.62), "mma": 1 / 32}
FLOAT64_METHOD = "fma"
