"""The numbers that tune the CPU backend (`team.PATIENCE` and `sparse.WIDTHS` stand where they are used).

Where a comment names shapes or times, a number was measured, on two cores of an AMD EPYC with 256-bit vectors
(bench/NOTES.md); so were the tile's shape there, and from which batch on splitting by samples is quicker for samples
that are mostly background. All others follow from sizes of caches or are estimates that still want measuring. They
decide speed, never results beyond rounding.
"""

from fastmlp.kernels.cpu.target import vector_registers

#: Rows of a tile. With `COLUMNS` it fills the registers: 4 x 3 sums and 4 operands of 16, 4 x 6 and 7 of 32.
ROWS = 4
COLUMNS = 3 if vector_registers() == 16 else 6

#: Bytes of rows that a member works on at a time in large batches and inference: half of a 512 KiB second-level cache.
CHUNK_BYTES = 256 * 1024
#: Fewest and most samples of such a chunk. Fewer have the gradients of wide layers read and written too often: with 16
#: [784, 1000, 1000, 10] took up to a third longer at batch 128 and 512. With more, up to 256, narrow layers leave the
#: first-level cache: [20, 50, 1] takes a twentieth longer (bench/NOTES.md).
CHUNK_SAMPLES = (64, 96)

#: Batches of at most this many samples for each member are split by units, larger ones by samples.
SMALL_BATCH = 32
#: The same for the whole batch, of samples that are mostly background: where the first layer's rows may rest (a lone
#: member takes up to 64 so; two were measured), and where they may not.
SMALL_RESTING = 40
SMALL_SPARSE = 16

#: Multiply-adds of a step's forward pass for each member, below which one more costs more in barriers than it saves:
#: [20, 50, 1] and [64, 32, 10] gain nothing from a second thread at batch 32, [784, 100, 10] does at 1. Where rows
#: rest, as many as are off the background count, and fewer are enough.
WORK_PER_STEP = 38_000
WORK_PER_RESTING_STEP = 11_000
#: The same where each member has `SAMPLES_EACH` of its own, as far as it goes: [100, 1] at batch 128 gains a quarter.
WORK_PER_LARGE_STEP = 6_000
SAMPLES_EACH = 64

#: The same for a whole call of inference, below which starting one more thread costs more than it saves.
WORK_PER_THREAD = 5_000_000

#: Most bytes of the threads' scratch and gradients together, and the same in copies of the parameters, of which the
#: larger counts: each thread adds its own, and to a batch split by units as much as the whole batch takes.
MEMORY = 256 * 1024 * 1024
MEMORY_IN_NETWORKS = 8

#: Multiply-adds of a forward pass over all samples that take 0.05 s or so, training included: too short to interrupt.
#: So many more are counted for each step of training, and for each sample: Adam at batch 1 takes 0.7 µs for [4, 8, 2].
BRIEF_WORK = 500_000_000
BRIEF_STEP = 5000
BRIEF_SAMPLE = 500

#: Small batches: with at most so many samples a group of rows is updated and multiplied at once; with more, the update
#: goes by blocks of columns so narrow that the samples' part of one, of so many bytes, stays in the first-level cache.
FUSED_SAMPLES = 10
SAMPLE_BYTES = 16 * 1024

#: Bytes of weights from which on a layer's products of large batches have operands copied for their tiles
#: (`fastmlp.kernels.cpu.packing`), and of how many rows of the gradient at a time, a multiple of
#: `ROWS`.
WIDE_BYTES = 256 * 1024
PACKED_ROWS = 96

#: Inputs of a block of the sparse products: of 48 to 392, 96 was the quickest, though 13 vectors of all its rows are
#: 39 KiB; a chunk reads those of its active inputs.
INPUT_BLOCK = 96

#: Share of inputs off the background up to which they are listed, and the fewest samples in a job: copying the weights
#: into rows by input, and back, is paid once.
SPARSE_DENSITY = 0.35
SPARSE_SAMPLES = 200

#: Inputs of a batch (samples x inputs) for each unit of the first layer up to which, and vectors of units from which
#: on, small batches of any samples are taken in rows by input: measured from [4, 1000, 1] to [784, 100, 10]
#: (bench/NOTES.md).
NARROW_INPUTS = 4
NARROW_VECTORS = 2

#: Large batches, and inference, in rows by input without a background: from how many lanes of a vector on, from how
#: many vectors of units on (as many as a tile has), and up to how many inputs. There it was 5 to 37 % faster; of two
#: vectors of units, or of 200 inputs, it was level, of 400 slower by a seventh (bench/NOTES.md; why not float64, too).
BY_INPUT_LANES = 8
BY_INPUT_VECTORS = COLUMNS
FEW_INPUTS = 100

#: Up to how many inputs of such networks, and from which batch on, a lone member splits by samples what it would else
#: split by units, even in rows by input (above): at batch 32 [20, 50, 1], [8, 50, 1], [32, 24, 1] and [5, 200, 1] took
#: 0.66 to 0.90 of the time in float32; with 64 inputs it is level (bench/NOTES.md).
FEWEST_INPUTS = 32
FEWEST_INPUTS_BATCH = 24

#: Bytes ahead in the order by which samples of large batches are asked for from memory while others are taken in.
AHEAD_BYTES = 4096

#: Share of inputs off the background that a step is reckoned with at least: what it does besides is not nothing.
LEAST_SHARE = 0.01
