"""Copy-number profiles of single cells from expression: R inferCNV's steps with running sums, one cell at a time.

Counts are scaled, logged, taken against bounds of the reference groups, clipped, smoothed along each chromosome with a
triangular window, centred and taken against the reference once more (Patel 2014, Tirosh 2016; inferCNV of the Trinity CTAT
project). Rows are cells. A cell needs one row of scratch memory, so that memory does not grow with the number of cells, and
its values depend on no other cell but through the bounds: block size and order of cells do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import pandas as pd
from scipy import sparse

AUTOSOMES = tuple(str(number) for number in range(1, 23))
MIN_CHROMOSOME_GENES = 10  # methods.md, INFER_CNV: smaller chromosomes leave
MIN_KEPT_GENES = 2000  # below, a window spans whole arms: panels of a few hundred genes are refused
MIN_GROUP_CELLS = 20  # a reference type with fewer cells shares a group with the other small ones
FEW_REFERENCE_CELLS = 100  # below, the reference is used with a warning
MIN_ARM_GENES = 20  # arms with fewer genes have no value; clones are compared on these arms ...
MIN_EVENT_GENES = 40  # ... and called shifted on arms with at least this many (methods.md, CALL_MALIGNANT)
LOCUS_HALF = 50  # genes on each side of a locus
ARM_SHIFT = 1.5  # reference sd of a shifted arm, and of each of its thirds (methods.md, CALL_MALIGNANT)
THIRD_SHIFT = 0.75
MIN_SHIFTED_ARMS = 2
SMALL_GROUPS = "other"  # name of the group of all types below MIN_GROUP_CELLS
MIN_PART_CELLS = 10  # part of a reference group that is judged apart
CHECK_CELLS = 200  # cells of a group in the check of references: a mean of 200 is known to 0.07 sd
SUM_CELLS = 256  # reference cells summed apart, then together
MEDIAN_BINS = 4096


@dataclass(frozen=True)
class Genome:
    """The genes in use, in genome order.

    Attributes
    ----------
    columns
        column of each kept gene in the count matrix.
    genes, chromosome, start
        of each kept gene; chromosomes as "1" .. "22".
    edges
        chromosome i holds the kept genes edges[i] .. edges[i + 1] - 1.
    names
        chromosomes with genes, in order.
    n_columns
        columns of the count matrix.
    """

    columns: np.ndarray
    genes: np.ndarray
    chromosome: np.ndarray
    start: np.ndarray
    edges: np.ndarray
    names: tuple[str, ...]
    n_columns: int

    @property
    def n(self) -> int:
        """Number of kept genes."""
        return len(self.columns)


@dataclass(frozen=True)
class Regions:
    """What is averaged over genes beside the profile.

    Attributes
    ----------
    profile
        indices of the kept genes whose values are stored.
    arms
        names such as "8q", in genome order; `arm_genes` their number of kept genes.
    segments
        3 x arms rows (first, last + 1): thirds of the arms' kept genes, arm by arm.
    loci
        panel genes that were measured; `windows` their first and last + 1 kept gene.
    """

    profile: np.ndarray
    arms: tuple[str, ...]
    arm_genes: np.ndarray
    segments: np.ndarray
    loci: tuple[str, ...]
    windows: np.ndarray


@dataclass(frozen=True)
class Bounds:
    """Reference bounds per kept gene: of log2 values before smoothing and of the smoothed, centred values."""

    low: np.ndarray
    high: np.ndarray
    low_smooth: np.ndarray
    high_smooth: np.ndarray


@dataclass(frozen=True)
class Profiles:
    """Values of cells (rows).

    `profile` z at the stored genes; `arms` and `loci` means of z; `thirds` means of the values before smoothing less the cell's
    centre; `score_sum` and `score_mean` sum and mean of z squared over the kept genes.
    """

    profile: np.ndarray
    arms: np.ndarray
    thirds: np.ndarray
    loci: np.ndarray
    score_sum: np.ndarray
    score_mean: np.ndarray


# --- genes -----------------------------------------------------------------------------------------------------------


def choose_genes(
    mean: np.ndarray, chromosome: Sequence[str], start: Sequence[int], genes: Sequence[str], min_mean: float
) -> Genome:
    """Genes of chromosomes 1 to 22 with a place and a mean count of at least `min_mean`, by chromosome, start, symbol.

    Chromosomes with fewer than 10 such genes leave.

    Parameters
    ----------
    mean
        mean count of each gene over the cells in use.
    chromosome, start, genes
        place and symbol of each gene; empty chromosome or start below 0 = unplaced. A prefix `chr` is taken off.
    """
    name = pd.Series(np.asarray(chromosome, dtype=object)).astype(str).str.removeprefix("chr")
    rank = name.map({chromosome: at for at, chromosome in enumerate(AUTOSOMES)}).to_numpy(dtype=float)
    start = np.asarray(start, dtype=np.int64)
    genes = np.asarray(genes, dtype=object).astype(str)
    keep = np.flatnonzero(~np.isnan(rank) & (start >= 0) & (np.asarray(mean) >= min_mean))
    order = keep[np.lexsort((genes[keep], start[keep], rank[keep]))]
    sizes = np.bincount(rank[order].astype(int), minlength=len(AUTOSOMES))
    order = order[sizes[rank[order].astype(int)] >= MIN_CHROMOSOME_GENES]
    names = tuple(chromosome for at, chromosome in enumerate(AUTOSOMES) if sizes[at] >= MIN_CHROMOSOME_GENES)
    edges = np.concatenate([[0], np.cumsum([size for size in sizes if size >= MIN_CHROMOSOME_GENES])]).astype(np.int64)
    return Genome(order.astype(np.int64), genes[order], name.to_numpy(dtype=str)[order], start[order], edges, names, len(genes))


def regions(genome: Genome, arms: pd.DataFrame, step: int, panel: pd.DataFrame | None = None, half: int = LOCUS_HALF) -> Regions:
    """Stored genes, thirds of arms and windows of loci.

    Parameters
    ----------
    arms
        chromosome, arm (p, q), start, end; an arm holds the genes that start within it.
    step
        every `step`-th kept gene of each chromosome is stored, from its first on.
    panel
        gene, chromosome, start of the loci to measure; a locus on a chromosome without kept genes is left out. A locus need
        not be a kept gene: the window has `half` kept genes on each side of its place, fewer at the ends of the chromosome.
    """
    profile = np.concatenate([np.arange(a, b, step) for a, b in _pairs(genome.edges)] or [np.empty(0)]).astype(np.int64)
    names, sizes, segments = [], [], []
    for name, (a, b) in zip(genome.names, _pairs(genome.edges), strict=True):
        mine = arms[arms["chromosome"].astype(str) == name].sort_values("start")
        for row in mine.itertuples():
            first = a + int(np.searchsorted(genome.start[a:b], row.start, side="left"))
            last = a + int(np.searchsorted(genome.start[a:b], row.end, side="right"))
            if last - first >= MIN_ARM_GENES:
                names.append(f"{name}{row.arm}")
                sizes.append(last - first)
                cuts = first + np.arange(4) * (last - first) // 3
                segments += list(_pairs(cuts))
    loci, windows = [], []
    for row in (panel if panel is not None else pd.DataFrame(columns=["gene", "chromosome", "start"])).itertuples():
        if str(row.chromosome) not in genome.names or row.start < 0:
            continue
        at = genome.names.index(str(row.chromosome))
        a, b = int(genome.edges[at]), int(genome.edges[at + 1])
        left = a + int(np.searchsorted(genome.start[a:b], row.start, side="left"))
        own = np.flatnonzero(genome.genes[a:b] == row.gene)
        if len(own):
            windows.append((max(a, a + own[0] - half), min(b, a + own[0] + half + 1)))
        else:
            windows.append((max(a, left - half), min(b, left + half)))
        loci.append(str(row.gene))
    return Regions(
        profile,
        tuple(names),
        np.array(sizes, dtype=np.int64),
        np.array(segments, dtype=np.int64).reshape(-1, 2),
        tuple(loci),
        np.array(windows, dtype=np.int64).reshape(-1, 2),
    )


def _pairs(edges: np.ndarray) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in pairwise(edges)]


def pyramid_weight(n: int, window: int) -> np.ndarray:
    """Sum of the weights of the triangular window that lie on a chromosome of `n` genes, for each gene.

    Raises
    ------
    ValueError
        for an even window, which has no middle gene.
    """
    if window % 2 == 0:
        raise ValueError(f"a window of {window} genes has no middle: it must be odd")
    half = window // 2
    at = np.arange(n)

    def beyond(missing: np.ndarray) -> np.ndarray:
        missing = np.maximum(missing, 0)  # genes of one side of the window that lie off the chromosome: weights 1, 2, ...
        return missing * (missing + 1) / 2

    return (half + 1.0) ** 2 - beyond(half - at) - beyond(half - (n - 1 - at))


# --- one cell --------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _smoothed(first, last, indices, data, scale, place, base, low, high, clip, edges, half, weight, padded, smooth):
    """Fill `smooth` with the smoothed, uncentred values of one cell.

    `padded` holds the values of each chromosome between zeros (half + 1 before, half + 2 behind), so that the running sums
    need no test for the ends; `place` is the position of each column there, -1 for genes not in use.
    """
    padded[:] = base
    for at in range(first, last):
        where = place[indices[at]]
        if where >= 0:
            value = np.log2(data[at] * scale + 1.0)
            if value > high[where]:
                value = value - high[where]
            elif value < low[where]:
                value = value - low[where]
            else:
                value = 0.0
            padded[where] = min(max(value, -clip), clip)
    offset = half + 1
    for chromosome in range(len(edges) - 1):
        a, b = edges[chromosome], edges[chromosome + 1]
        # weighted sum around the first gene, then the plain sums right of it and up to it
        total, right, left = 0.0, 0.0, 0.0
        for step in range(half + 1):
            total += (half + 1 - step) * padded[a + offset + step]
            right += padded[a + offset + 1 + step]
        left = padded[a + offset]
        for gene in range(a, b):
            smooth[gene] = total * weight[gene]
            total += right - left
            here = gene + offset
            right += padded[here + half + 2] - padded[here + 1]
            left += padded[here + 1] - padded[here - half]
        offset += 2 * half + 3


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _median(values, clip, bins, found):
    """Exact median of values within [-clip, clip]: counts per bin, then order within the bin of the middle."""
    n, n_bins = len(values), len(bins)
    bins[:] = 0
    factor = n_bins / (2.0 * clip)
    for at in range(n):
        bins[min(max(int((values[at] + clip) * factor), 0), n_bins - 1)] += 1
    first, second = (n - 1) // 2, n // 2
    below, middle = 0, 0
    while below + bins[middle] <= first:
        below += bins[middle]
        middle += 1
    size = 0
    smallest_above = np.inf
    straddles = second >= below + bins[middle]
    for at in range(n):
        which = min(max(int((values[at] + clip) * factor), 0), n_bins - 1)
        if which == middle:
            found[size] = values[at]
            size += 1
        elif straddles and which > middle:
            smallest_above = min(smallest_above, values[at])
    ordered = np.sort(found[:size])
    low = ordered[first - below]
    return 0.5 * (low + (smallest_above if straddles else ordered[second - below]))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sum_logs(rows, indptr, indices, data, scale, place, total):
    """Add log2(scaled count + 1) of some rows to `total`, at the places of the genes in use."""
    for row in rows:
        for at in range(indptr[row], indptr[row + 1]):
            where = place[indices[at]]
            if where >= 0:
                total[where] += np.log2(data[at] * scale[row] + 1.0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sum_rows(rows, indptr, indices, data, scale, place, base, low, high, clip, edges, half, weight, total):
    """Add the smoothed, centred values of some rows to `total`."""
    padded, smooth = np.empty(len(base)), np.empty(len(weight))
    bins, found = np.empty(MEDIAN_BINS, np.int64), np.empty(len(weight))
    for row in rows:
        _smoothed(
            indptr[row], indptr[row + 1], indices, data, scale[row], place, base, low, high, clip, edges, half, weight, padded,
            smooth,
        )  # fmt: skip
        median = _median(smooth, clip, bins, found)
        for gene in range(len(smooth)):
            total[gene] += smooth[gene] - median


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _squares(values):
    total = 0.0
    for at in range(len(values)):
        total += values[at] * values[at]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _total(values):
    total = 0.0
    for at in range(len(values)):
        total += values[at]
    return total


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _fill_rows(
    rows, first, indptr, indices, data, scale, place, base, low, high, clip, edges, half, weight, low2, high2,
    stored, slots, segments, windows, profile, arms, thirds, loci, squares,
):  # fmt: skip
    """Write all values of some rows into the result, from its row `first` on."""
    padded, smooth = np.empty(len(base)), np.empty(len(weight))
    bins, found = np.empty(MEDIAN_BINS, np.int64), np.empty(len(weight))
    out = first
    for row in rows:
        _smoothed(
            indptr[row], indptr[row + 1], indices, data, scale[row], place, base, low, high, clip, edges, half, weight, padded,
            smooth,
        )  # fmt: skip
        median = _median(smooth, clip, bins, found)
        for gene in range(len(smooth)):
            value = smooth[gene] - median
            smooth[gene] = max(value - high2[gene], 0.0) + min(value - low2[gene], 0.0)
        squares[out] = _squares(smooth)
        for at in range(len(stored)):
            profile[out, at] = smooth[stored[at]]
        for at in range(len(segments)):
            a, b = segments[at, 0], segments[at, 1]
            thirds[out, at] = _total(padded[slots[a] : slots[a] + b - a]) / (b - a) - median
        for at in range(arms.shape[1]):
            a, b = segments[3 * at, 0], segments[3 * at + 2, 1]
            arms[out, at] = _total(smooth[a:b]) / (b - a)
        for at in range(len(windows)):
            a, b = windows[at, 0], windows[at, 1]
            loci[out, at] = _total(smooth[a:b]) / (b - a)
        out += 1


# --- all cells -------------------------------------------------------------------------------------------------------


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _sums(indptr, indices, data, used, by_row, by_column):
    """Add the counts of the columns in use to the sums of rows and columns; no copy of the counts, as scipy would make."""
    for row in range(len(indptr) - 1):
        for at in range(indptr[row], indptr[row + 1]):
            if used[indices[at]]:
                by_row[row] += data[at]
                by_column[indices[at]] += data[at]


def sums(counts: sparse.csr_matrix, used: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Totals of rows and columns (float64) over the columns in use (boolean; default all)."""
    used = np.ones(counts.shape[1], dtype=bool) if used is None else used
    by_row, by_column = np.zeros(counts.shape[0]), np.zeros(counts.shape[1])
    _sums(counts.indptr, counts.indices, counts.data, used, by_row, by_column)
    return by_row, by_column


def cell_scale(counts: sparse.csr_matrix, genome: Genome) -> np.ndarray:
    """Factor of each cell: median over cells of the total over kept genes, divided by the cell's own; 0 for an empty cell."""
    used = np.zeros(counts.shape[1], dtype=bool)
    used[genome.columns] = True
    total, _ = sums(counts, used)
    return np.divide(np.median(total), total, out=np.zeros(len(total)), where=total > 0)


class Kernel:
    """The steps of the profile for one set of cells and genes.

    Parameters
    ----------
    counts
        cells x genes, CSR; all cells of the patient that take part (their median depth is the common scale).
    genome
        kept genes.
    window
        odd number of genes; the weights are 1, 2, ..., (window + 1) / 2, ..., 2, 1.
    clip
        bound of the log2 difference to the reference.
    threads
        cells are dealt to threads in blocks of `block` cells. Sums over reference cells are formed within blocks of a fixed
        size first, so that no last digit depends on threads or `block`.
    """

    def __init__(
        self, counts: sparse.csr_matrix, genome: Genome, window: int = 101, clip: float = 3.0, threads: int = 1, block: int = 512
    ):
        self.counts, self.genome, self.clip, self.threads, self.block = counts, genome, float(clip), threads, block
        self.half = window // 2
        sizes = np.diff(genome.edges)
        self.weight = np.concatenate([1.0 / pyramid_weight(int(n), window) for n in sizes] or [np.empty(0)])
        shift = np.repeat(np.arange(len(sizes)) * (2 * self.half + 3) + self.half + 1, sizes)
        self.slots = np.arange(genome.n) + shift  # positions of the kept genes between the zeros
        self.n_slots = int(genome.n + len(sizes) * (2 * self.half + 3))
        self.place = np.full(genome.n_columns, -1, dtype=np.int64)
        self.place[genome.columns] = self.slots
        self.scale = cell_scale(counts, genome)

    def _each(self, call: Callable[[tuple[int, np.ndarray]], np.ndarray | None], rows: np.ndarray, block: int) -> list:
        rows = np.asarray(rows, dtype=np.int64)
        parts = [(at, rows[at : at + block]) for at in range(0, len(rows), block)]
        if self.threads == 1:
            return [call(part) for part in parts]
        with ThreadPoolExecutor(self.threads) as pool:  # the compiled loops hold no lock
            return list(pool.map(call, parts))

    def _slotted(self, values: np.ndarray) -> np.ndarray:
        out = np.zeros(self.n_slots)
        out[self.slots] = values
        return out

    def mean_log(self, rows: np.ndarray) -> np.ndarray:
        """Mean log2(scaled count + 1) of each kept gene over some cells, at least one."""

        def add(part: tuple[int, np.ndarray]) -> np.ndarray:
            total = np.zeros(self.n_slots)
            _sum_logs(part[1], self.counts.indptr, self.counts.indices, self.counts.data, self.scale, self.place, total)
            return total

        total = np.zeros(self.n_slots)
        for part in self._each(add, rows, SUM_CELLS):
            total += part
        return total[self.slots] / len(rows)

    def _first_bounds(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # a count of zero has the value 0, which lies below the bounds of every expressed gene
        return self._slotted(low), self._slotted(high), self._slotted(-np.minimum(low, self.clip))

    def bounds(self, groups: Sequence[np.ndarray]) -> Bounds:
        """Smallest and largest group mean of each gene, before and after smoothing.

        Parameters
        ----------
        groups
            rows of each reference group; at least one, none empty.
        """
        means = np.array([self.mean_log(rows) for rows in groups])
        low, high = means.min(axis=0), means.max(axis=0)
        slot_low, slot_high, base = self._first_bounds(low, high)
        smoothed = []
        for rows in groups:

            def add(part: tuple[int, np.ndarray]) -> np.ndarray:
                total = np.zeros(self.genome.n)
                _sum_rows(
                    part[1], self.counts.indptr, self.counts.indices, self.counts.data, self.scale, self.place, base, slot_low,
                    slot_high, self.clip, self.genome.edges, self.half, self.weight, total,
                )  # fmt: skip
                return total

            total = np.zeros(self.genome.n)
            for part in self._each(add, rows, SUM_CELLS):
                total += part
            smoothed.append(total / len(rows))
        return Bounds(low, high, np.min(smoothed, axis=0), np.max(smoothed, axis=0))

    def profiles(self, rows: np.ndarray, bounds: Bounds, parts: Regions, dtype: type = np.float32) -> Profiles:
        """Profiles (stored as `dtype`, computed in float64), arm means, loci and scores of some cells, in the order of `rows`."""
        slot_low, slot_high, base = self._first_bounds(bounds.low, bounds.high)
        n = len(rows)
        profile = np.empty((n, len(parts.profile)), dtype=dtype)
        thirds, loci = np.empty((n, len(parts.segments))), np.empty((n, len(parts.windows)))
        arms, squares = np.empty((n, len(parts.arms))), np.empty(n)

        def fill(part: tuple[int, np.ndarray]) -> None:
            _fill_rows(
                part[1], part[0], self.counts.indptr, self.counts.indices, self.counts.data, self.scale, self.place, base,
                slot_low, slot_high, self.clip, self.genome.edges, self.half, self.weight, bounds.low_smooth, bounds.high_smooth,
                parts.profile, self.slots, parts.segments, parts.windows, profile, arms, thirds, loci, squares,
            )  # fmt: skip

        self._each(fill, rows, self.block)
        return Profiles(profile, arms, thirds, loci, squares, squares / max(self.genome.n, 1))


def arm_means(thirds: np.ndarray, parts: Regions) -> np.ndarray:
    """Means over whole arms from the means over their thirds, cells x arms."""
    sizes = np.diff(parts.segments, axis=1).ravel().reshape(-1, 3).astype(float)
    cube = thirds.reshape(len(thirds), -1, 3)
    return (cube * sizes).sum(axis=2) / sizes.sum(axis=1) if len(sizes) else np.empty((len(thirds), 0))


# --- reference -------------------------------------------------------------------------------------------------------


def reference_groups(types: Sequence[str], minimum: int = MIN_GROUP_CELLS) -> np.ndarray:
    """Group of each reference cell: its type, or `other` where the type has fewer than `minimum` cells.

    When the small types together stay below `minimum` they join the largest type: bounds are the extremes of group means, and
    the mean of a handful of cells would widen them until no difference is left.
    """
    types = np.asarray(types, dtype=object).astype(str)
    sizes = pd.Series(types).value_counts()
    large = sorted(sizes.index[sizes >= minimum], key=lambda name: (-sizes[name], name))
    small = ~np.isin(types, large)
    name = large[0] if large and small.sum() < minimum else SMALL_GROUPS
    return np.where(small, name, types).astype(str)


def shifted(
    mean_arm: np.ndarray,
    mean_third: np.ndarray,
    n_genes: np.ndarray,
    arm_shift: float = ARM_SHIFT,
    third_shift: float = THIRD_SHIFT,
) -> np.ndarray:
    """Sign (-1, 0, 1) of each arm of a group of cells: which arms are gained or lost.

    An arm is shifted when its mean z-score is at least `arm_shift` away from the reference and each third of its genes,
    averaged apart, lies at least `third_shift` on the same side: one family of neighbouring genes (HLA, the epidermal genes
    of 1q21) moves one third only. Thirds are means of unsmoothed values: the window of 101 genes is longer than a small arm and
    would carry the family into all three. Arms with fewer than 40 genes are not called.

    Parameters
    ----------
    mean_arm
        groups x arms, mean over cells of the arm's z-score against the reference cells.
    mean_third
        groups x 3 arms, the same of its thirds.
    """
    mean_arm = np.atleast_2d(mean_arm)
    cube = np.atleast_2d(mean_third).reshape(*mean_arm.shape, 3)
    gained = (mean_arm >= arm_shift) & (cube >= third_shift).all(axis=2)
    lost = (mean_arm <= -arm_shift) & (cube <= -third_shift).all(axis=2)
    return (gained.astype(np.int8) - lost.astype(np.int8)) * (np.asarray(n_genes) >= MIN_EVENT_GENES)


def against(values: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """(values - mean) / sd by column, 0 where the reference does not vary."""
    mean, sd = np.asarray(mean, dtype=float), np.asarray(sd, dtype=float)
    return np.divide(values - mean, sd, out=np.zeros(np.shape(values)), where=np.broadcast_to(sd > 0, np.shape(values)))


def mean_sd(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (n - 1) of each column; sd 0 for a single row."""
    values = np.asarray(values, dtype=float)
    sd = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(values.shape[1])
    return values.mean(axis=0), sd


def spread(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, evenly spread over their order."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def two_parts(values: np.ndarray) -> np.ndarray:
    """Split of cells in two along their first principal component, at the cut with the least squares within; True = the upper."""
    centred = values - values.mean(axis=0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    ordered = np.sort(along)
    n, left = len(ordered), np.arange(1, len(ordered))
    sums = np.cumsum(ordered)[:-1]
    between = sums**2 / left + (ordered.sum() - sums) ** 2 / (n - left)
    return along > ordered[int(between.argmax())]


def check_references(kernel: Kernel, groups: dict[str, np.ndarray], parts: Regions) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Which reference groups, or parts of them, look like tumour cells when held against the other groups.

    Each group is left out of the bounds in turn; its arms are judged by `shifted` against the cells of the other groups: the
    whole group, and the two parts into which its arm values fall (each of at least 10 cells), for tumour cells that hide among
    normal ones. At most 200 cells of a group are looked at. With one group there is nothing to compare with.

    Returns
    -------
    `group, n_cells, arms_shifted (number, missing with one group), arms (signed names), n_suspect (cells)`, one row per group
    in order of name; and the rows of the suspect cells (those with two or more shifted arms) by group
    """
    looked = {name: spread(rows, CHECK_CELLS) for name, rows in sorted(groups.items())}
    callable_ = np.flatnonzero(parts.arm_genes >= MIN_EVENT_GENES)
    table, suspect = [], {}
    for name, rows in looked.items():
        others = [mine for other, mine in looked.items() if other != name]
        n_shifted, listed, leaving = np.nan, "", rows[:0]
        if others:
            bounds = kernel.bounds(others)
            ref = kernel.profiles(np.concatenate(others), bounds, parts)
            arm, third = mean_sd(ref.arms), mean_sd(ref.thirds)

            def scores(
                rows: np.ndarray, bounds: Bounds = bounds, arm: tuple = arm, third: tuple = third
            ) -> tuple[np.ndarray, np.ndarray]:
                made = kernel.profiles(rows, bounds, parts)
                return against(made.arms, *arm), against(made.thirds, *third)

            z, third_z = scores(rows)
            whole = shifted(z.mean(axis=0), third_z.mean(axis=0), parts.arm_genes)[0]
            n_shifted, listed = float((whole != 0).sum()), events(parts.arms, whole)
            if n_shifted >= MIN_SHIFTED_ARMS:
                leaving = groups[name]
            if len(rows) >= 2 * MIN_PART_CELLS and len(callable_):
                upper = two_parts(z[:, callable_])
                halves = [mine for mine in (upper, ~upper) if min(mine.sum(), (~mine).sum()) >= MIN_PART_CELLS]
                signs = [shifted(z[mine].mean(axis=0), third_z[mine].mean(axis=0), parts.arm_genes)[0] for mine in halves]
                odd = [at for at, sign in enumerate(signs) if (sign != 0).sum() >= MIN_SHIFTED_ARMS]
                if len(odd) == 1:  # tumour cells beside normal ones: those nearer to the shifted part leave
                    mine, sign = halves[odd[0]], signs[odd[0]]
                    n_shifted, listed = float((sign != 0).sum()), events(parts.arms, sign)
                    every, _ = scores(groups[name])
                    means = [z[part][:, callable_].mean(axis=0) for part in (mine, ~mine)]
                    near, far = (((every[:, callable_] - mean) ** 2).sum(axis=1) for mean in means)
                    leaving = groups[name][near < far]
        if len(leaving):
            suspect[name] = leaving
        table.append((name, len(groups[name]), n_shifted, listed, len(leaving)))
    return pd.DataFrame(table, columns=["group", "n_cells", "arms_shifted", "arms", "n_suspect"]), suspect


def events(arms: Sequence[str], signs: np.ndarray) -> str:
    """Signed arms as text: `+1q,-5q`."""
    return ",".join(f"{'+' if sign > 0 else '-'}{arm}" for arm, sign in zip(arms, signs, strict=True) if sign)


# --- infercnvpy as the other engine ----------------------------------------------------------------------------------


def infercnvpy_profiles(
    x: sparse.csr_matrix, genome: Genome, parts: Regions, group: Sequence[str], window: int, clip: float, step: int, threads: int
) -> tuple[Profiles, np.ndarray]:
    """The same values by infercnvpy (Sturm 2022) on the same genes: its own normalisation, full windows only.

    `dynamic_threshold` is switched off, because its noise filter depends on the chunk a cell falls into.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    group
        reference group of each cell, "" for the others.

    Returns
    -------
    the values (arms, thirds and loci are means over windows whose middle gene lies there; scores are over windows, their sum
    scaled to the number of genes), and the kept gene in the middle of each stored window
    """
    import anndata
    import infercnvpy

    var = pd.DataFrame(
        {"chromosome": ["chr" + name for name in genome.chromosome], "start": range(genome.n), "end": range(1, genome.n + 1)},
        index=genome.genes,
    )
    labels = np.asarray(group, dtype=object).astype(str)
    holder = anndata.AnnData(
        sparse.csr_matrix(x[:, genome.columns]),
        obs=pd.DataFrame({"group": labels}, index=[str(at) for at in range(len(labels))]),
        var=var,
    )
    infercnvpy.tl.infercnv(
        holder, reference_key="group", reference_cat=sorted(set(labels) - {""}), lfc_clip=clip, window_size=window, step=step,
        dynamic_threshold=None, n_jobs=threads,
    )  # fmt: skip
    values = np.asarray(holder.obsm["X_cnv"].todense(), dtype=np.float64)
    middle = []
    for a, b in _pairs(genome.edges):
        # one window over all genes where a chromosome is no longer than the window
        ends = (a + window // 2, b - window + 1 + window // 2)
        middle.append(np.arange(*ends, step) if b - a > window else np.array([(a + b) // 2]))
    centre = np.concatenate(middle).astype(np.int64)

    def mean_within(first: int, last: int) -> np.ndarray:
        inside = np.flatnonzero((centre >= first) & (centre < last))
        if not len(inside):  # a stretch between two windows takes the nearest one
            inside = np.array([np.abs(centre - (first + last) / 2).argmin()])
        return values[:, inside].mean(axis=1)

    empty = np.empty((len(values), 0))
    thirds = np.column_stack([mean_within(*row) for row in parts.segments]) if len(parts.segments) else empty
    loci = np.column_stack([mean_within(*row) for row in parts.windows]) if len(parts.windows) else empty
    mean = (values**2).mean(axis=1)
    return Profiles(values.astype(np.float32), arm_means(thirds, parts), thirds, loci, mean * genome.n, mean), centre
