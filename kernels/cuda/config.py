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

#: Products that a tile takes at a time: 64 or 128 bytes of each row.
TILE_DEPTHS = {"float32": (16, 32), "float64": (8, 16)}

#: Bytes of a thread's sums at most (a quarter of its registers), and rows of a tile.
TILE_SUM_BYTES = 256
TILE_ROWS = 128

#: Registers of a thread for its sums and for each vector that it loads in a round; with more, the compiler spilled.
LOAD_REGISTERS = 8
TILE_REGISTERS = {"float32": 88, "float64": 96}

#: Bytes of shared memory for a tile: enough for 128 x 128 sums in float32, and half of what sm_80 has.
TILE_SHARED = 80 * 1024

#: The model. Cycles of a block for each round of a tile, waiting for one another; for each number that it loads in a
#: round (address, conversion, storing); for each finished sum; of a trip to the second-level cache; of a meeting of the
#: whole grid. And the bytes that a multiprocessor gets from that cache in a cycle.
TILE_MEETING = 60
LOAD_CYCLES = 0.07
FINISH_CYCLES = 0.2
CACHE_CYCLES = 600
MEETING = 2500
ALONE = 1.2  # times as long as it takes to issue, where a scheduler has but one warp
CACHE_BYTES = 24

#: Rounds of a tile that a part of a batch has at least when gradients are split.
SPLIT_ROUNDS = 4

#: A lone update: threads of a block, and blocks of a multiprocessor.
UPDATE_THREADS = 256
UPDATE_BLOCKS = 8

#: Cycles of a scheduler for one product of numbers on its tensor core: three-term TF32 on a GPU that multiplies 256 of
#: TF32 a cycle and reaches 0.62 of it (sm_90), float64 at 16 a cycle. And how products are summed in float64: "fma",
#: or "mma" on the tensor cores, which is twice the rate on sm_80 and sm_90 by their data sheets.
MMA_CYCLES = {"tf32x3": 3 / (256 * 0.62), "mma": 1 / 32}
FLOAT64_METHOD = "fma"

#: Small batches (`fastmlp.kernels.cuda.resident_plan`). The largest batch that is tried there; above, tiled products
#: use the GPU better.
RESIDENT_BATCH = 768

#: Threads of a block at most, and registers of a thread beyond the plan's own estimate, which is low: with fewer to
#: spare, the compile check found spills.
RESIDENT_THREADS = 512
RESIDENT_SPARE = 24

#: Units of a thread, and vectors of each, that are tried.
RESIDENT_ROWS = (1, 2, 3, 4, 5, 6, 7, 8)
RESIDENT_VECTORS = 16

#: Blocks of a cluster at most: what every GPU with clusters has.
CLUSTER_BLOCKS = 8

#: Samples of a slice of a batch at least.
LEAST_SLICE = 8

#: The model of a step, in cycles. A barrier of a block with what waits around it; loss and delta of a row of outputs; a
#: trip from block to block through the L2 cache, the cache's answer alone, and a trip in a cluster; bytes in a cycle
#: that a block gets by either way; instructions for each sum that is folded over a warp; for each number of the plain
#: loops in shared memory; and of each rule.
MEETING_CYCLES = 80
ROW_CYCLES = 300
GRID_TRIP = 1200
L2_CYCLES = 500
CLUSTER_TRIP = 350
L2_BYTES = 48
CLUSTER_BYTES = 32
FOLD_CYCLES = 5
LOOSE_CYCLES = 2
UPDATE_CYCLES = {"plain": 1, "momentum": 2, "nesterov": 3, "adam": 40}

#: What that is compared with: a phase of tiled products with the barrier after it, in cycles, and the share of their
#: products that the multiprocessors reach in small tiles.
PHASE_CYCLES = 2000
TILED_RATE = 0.5
