"""What the integers of a plan and the columns of its table mean, for `plan`, which writes them, and the drivers."""

#: What `run` is asked to do.
TRAIN_SMALL, TRAIN_LARGE, GRADIENT, UPDATE, PREDICT, FEEDFORWARD, EVALUATE = range(7)

#: Columns of the plan's table, after the five of `Network.table`: where the layer's input rows, output rows, slopes and
#: deltas lie in scratch, the stride of its output rows, where its activations go in the result of `FEEDFORWARD`, and
#: whether its products have operands copied (`fastmlp.kernels.cpu.packing`).
INPUT, OUTPUT, SLOPES, DELTA, OUT_STRIDE, RESULT, WIDE = range(5, 12)
TABLE_COLUMNS = 12

#: Entries of the plan.
(
    MEMBERS,
    LAYERS,
    BIAS,
    LOSS,
    RULE,
    SIZE,  # parameters, and the distance between state arrays
    SAMPLES,  # entries of the order, of an epoch's where it is that of several
    BATCH,
    CHUNK,  # rows that a member's scratch holds
    ADDRESS,  # of the samples
    INPUT_CODE,
    ROW_BYTES,  # of a sample
    TARGETS,  # scratch offset of the target rows
    PRIVATE,  # scratch offset of member 0's own region
    REGION,  # length of a member's own region
    SUMS,  # offset of pre-activations in a member's region
    PROBABILITIES,  # offset of outputs in a member's region
    OUTPUT_SLOPES,  # offset of the output's slopes in a member's region
    STEP,  # steps taken before
    LANES,
    SLOTS,  # state arrays of the rule
    BY_INPUT,  # whether the first layer lies in rows by input (`fastmlp.kernels.cpu.first_layer`); then also:
    LISTED,  # whether samples are lists of what differs from a background; else they are taken whole
    WEIGHTS_BY_INPUT,  # scratch offset of its weights so, each state array following the one before, and
    MATRIX,  # the distance between them
    UNITS_STRIDE,  # of a row by input
    GRADIENT_BY_INPUT,  # offset of their gradient in a member's region
    UNIT_SUMS,  # offset there of the sums over a member's share of the rows by input,
    BASE,  # of what the background adds to every sample's pre-activations,
    DELTA_SUM,  # of a chunk's deltas, summed over its samples, and
    SHIFTED,  # of what the background adds to every input's gradient
    VALUES,  # offset of the lists' values in a member's region
    BLOCKS,  # of inputs
    CAPACITY,  # of a sample's list
    LISTS,  # length of a member's part of the array of places,
    STARTS,  # where in it the blocks' beginnings are, and
    WORDS,  # where the bits of the inputs
    BLOCK,  # inputs of a block; and of `fastmlp.kernels.cpu.lazy_layer`:
    ROWS_BY_INPUT,  # offset in a member's region of its weights in rows by input, and
    APART,  # the distance from a row of them to that of its velocities
    REST,  # offset there of the table for rows that rest, and
    COEFFICIENTS,  # of the samples' sums, of two batches, and of the background, once for each sample
    ACTIVE,  # where in a member's part of the array of places the active inputs of a batch are, block by block,
    LENGTH,  # the distance to those of the batch before,
    WOKEN,  # where the inputs to be woken are,
    RESTED,  # how many steps each of them has rested, and
    UPDATED,  # the steps that each input's row has taken, and
    ALWAYS,  # the rows that every step concerns
    PARTIAL,  # scratch offset of the parts of the logits that each member has, of two batches
    PACKED,  # offset in a member's region of what wide layers have copied
    SIDES,  # what `EVALUATE` counts: samples with all outputs on the right side of ½, or with the largest at its place
    PLAN_LENGTH,
) = range(52)

#: Arrays that are found through the plan: after its own entries come, for each, its address and its length. First those
#: that a plan keeps, then those of a job (0, 0 where it has none).
(
    TABLE_ARRAY,
    SETTINGS_ARRAY,
    SCRATCH_ARRAY,
    LISTS_ARRAY,
    PARTIAL_ARRAY,
    TEAM_ARRAY,
    HYPERPARAMETERS_ARRAY,
    SLOTS_ARRAY,
    ORDER_ARRAY,
    LABELS_ARRAY,
    DENSE_ARRAY,
    OUT_ARRAY,
    LOSSES_ARRAY,
    ERRORS_ARRAY,
    GRADIENTS_ARRAY,
    SHARES_ARRAY,
    DECAYS_ARRAY,
    AFTER_ARRAYS,
) = range(PLAN_LENGTH, PLAN_LENGTH + 35, 2)

#: Entries of the settings, float64.
SCALE, SHIFT, BACKGROUND, L2, BETA1, BETA2, SETTINGS_LENGTH = range(7)

#: Elements of a member's hyperparameters: those of `HYPERPARAMETERS`, then λ/B.
H_LENGTH = 16
LEARNING_RATE, MOMENTUM, CORRECTION1, CORRECTION2, DECAY = 0, 1, 5, 6, 7
