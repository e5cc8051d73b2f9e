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

#: Small batches (`fastmlp.kernels.cuda.resident_plan`). The largest batch that is tried there; above, tiled products
#: use the GPU better.
RESIDENT_BATCH = 768

#: Threads of a block at most, and registers of a thread by the plan's own estimate, which is some dozens low.
RESIDENT_THREADS = 512
RESIDENT_REGISTERS = 208

#: Units of a thread, and vectors of each, that are tried.
RESIDENT_ROWS = (1, 2, 3, 4, 5, 6, 7, 8)
RESIDENT_VECTORS = 16

#: Blocks of a cluster at most: what every GPU with clusters has.
CLUSTER_BLOCKS = 8

#: Samples of a slice of a batch at least.
LEAST_SLICE = 8

#: The model of a step, in cycles. A barrier of a block with what waits around it; a trip from block to block through
#: the L2 cache, and in a cluster; bytes in a cycle that a block gets by either way; instructions for each sum that is
#: folded over a warp; for each number of the plain loops in shared memory; and of each rule.
MEETING_CYCLES = 80
GRID_TRIP = 1200
CLUSTER_TRIP = 350
L2_BYTES = 48
CLUSTER_BYTES = 32
FOLD_CYCLES = 5
LOOSE_CYCLES = 2
UPDATE_CYCLES = {"plain": 1, "momentum": 2, "nesterov": 3, "adam": 40}
