"""The shapes that kernels and plans agree on. What stands here is compiled in: a change makes all kernels anew."""

from typing import NamedTuple

__all__ = ["PAD", "STAGES", "Tile", "lanes", "sample_row", "samples_together"]

PAD = 4  #: numbers between the lines of a tile's staging memory, which would else begin in the same banks
MOST_SUMS = 40  #: of a thread of the persistent kernel
STAGES = 3  #: chunks of a tile in shared memory: one in work, the others on their way


class Tile(NamedTuple):
    """The shape of a tile: its sums, those of a thread, and how many products are staged at a time."""

    rows: int
    columns: int
    down: int
    across: int
    depth: int

    def ways(self, threads: int) -> int:
        """Threads that share a square of sums, each with a part of the depth: a power of two."""
        ways = 1
        while 2 * ways * self.squares <= threads and self.depth % (8 * ways) == 0:
            ways *= 2
        return ways

    @property
    def squares(self) -> int:
        """Threads that it takes to hold the sums once."""
        return (self.rows // self.down) * (self.columns // self.across)

    @property
    def line(self) -> int:
        """Numbers from row to row of its sums: odd, so that neighbouring threads store them to different banks."""
        return self.columns | 1

    def numbers(self, threads: int) -> int:
        """Numbers of shared memory that it takes: staged chunks of both operands, then the sums of every way."""
        staged = STAGES * (self.depth + PAD) * (self.rows + self.columns + 2 * PAD)
        return max(staged, self.ways(threads) * self.rows * self.line)


def samples_together(units: int, batch: int) -> int:
    """Samples that a thread of the persistent kernel multiplies at once; ``TOGETHER`` there.

    As many as leave the fewest places of the last turn empty, with no more sums than registers are for.
    """
    return min(range(1, MOST_SUMS // units + 1), key=lambda many: (-(-batch // many) * many, -many))


def lanes(outputs: int) -> int:
    """Threads that share a row of so many outputs."""
    return 1 if outputs == 1 else min(32, 1 << (outputs - 1).bit_length())


def sample_row(inputs: int, vector: int, per_copy: int) -> int:
    """Numbers of a sample in the persistent kernel's shared memory: a vector of zeros or more, and whole copies."""
    return -(-(-(-inputs // vector) + 1) * vector // per_copy) * per_copy
