"""Copy-number clones of one patient: found by clustering and merging, followed over phases with intervals, put into a tree.

Arrays are cells x genes (profiles, every n-th gene of the genome), cells x arms (mean profile of a chromosome arm) and cells
x 3 arms (thirds of each arm, three neighbouring columns per arm). "Reference sd" is the spread of one figure between single
normal cells of the same patient, so a distance of 2 means two such sd.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pandas as pd
from scipy.cluster import hierarchy
from scipy.spatial.distance import cdist
from scipy.stats import chi2, fisher_exact

from scresist import cnv, comparison, keys, malignancy
from scresist.neighbours import by_size, communities, neighbour_weights

MIN_CELLS_CLUSTER = 20  # below, there is one clone: neighbours of so few cells say nothing
# Two halves of one normal population differ by 2.65 sd of what is left within the halves (2 sqrt(2/pi) / sqrt(1 - 2/pi)); a cut
# that leaves 2 % or more on its smaller side gives no more. Clones planted at 70 to 250 cells differ by 3.4 and more. The figure
# is Ashman's D (1994, Astron J 108:2348) with the pooled sd.
SEPARATION = 2.65
MIN_CELLS_GROUP = 20  # reference cells of a type (and phase) that make a group of their own
WARD_CELLS = 5_000  # linkage needs memory of n squared; beyond, a stratified subsample
WARD_K = range(2, 9)  # numbers of clusters among which the best silhouette is looked for
SILHOUETTE_CELLS = 2_000
SEGMENT_POINTS = 10  # stored points; at every 10th gene one smoothing window: shorter runs can be one gene family
ALPHA = 0.05
RAREFY_MIN = 50  # phases with fewer cells are not compared for diversity
RAREFY_DRAWS = 200
UNIT_GAIN, UNIT_LOSS = "+", "-"

EXPANDING, SHRINKING, LOST, EMERGING, UNCERTAIN = "expanding", "shrinking", "lost", "emerging", "uncertain"
HIGHER, LOWER = "higher", "lower"  # for two phases that no time orders
CLASSES = (EXPANDING, EMERGING, SHRINKING, LOST, HIGHER, LOWER, UNCERTAIN, keys.NOT_ESTIMABLE)
TRUNK, SHARED, PRIVATE = "trunk", "shared", "private"
NORMAL = "normal"  # the root of the tree: a cell without events

EVENT_COLUMNS = (
    "patient", "clone", "level", "event", "chromosome", "arm", "first_gene", "last_gene", "start", "end", "n_genes", "mean_z",
    "scope",
)  # fmt: skip
PHASE_COLUMNS = ("patient", "clone", "phase", "n", "N", "share", "ci_low", "ci_high", "detection_limit", "status")
CHANGE_COLUMNS = (
    "patient", "clone", "contrast", "n_a", "N_a", "n_b", "N_b", "diff", "ci_low", "ci_high", "log2_ratio", "class", "unit",
    "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b", "effect", "effect_name", "statistic", "test", "p_value",
    "p_adjusted", "adjust_method", "p_min_attainable", "evidence", "status",
)  # fmt: skip
TREE_COLUMNS = ("patient", "kind", "clone_a", "clone_b", "arm_distance", "n_shared", "shared_events", "gained_events")
DIVERSITY_COLUMNS = ("patient", "phase", "index", "value", "ci_low", "ci_high", "n_cells", "n_cells_rarefied", "status")
DIVERSITY_INDICES = ("shannon", "hill_q0", "hill_q1", "hill_q2", "pielou", "clonality", "chao1")


@dataclass(frozen=True)
class Arms:
    """Chromosome arms and their values in the patient's reference cells; all arrays in the order of `names`.

    `third_mean_ref` and `third_sd_ref` have three neighbouring values per arm.
    """

    names: tuple[str, ...]
    n_genes: np.ndarray
    mean_ref: np.ndarray
    sd_ref: np.ndarray
    third_mean_ref: np.ndarray
    third_sd_ref: np.ndarray

    def scaled(self, arms: np.ndarray, min_genes: int = cnv.MIN_ARM_GENES) -> np.ndarray:
        """Arm values in reference sd, cells x the arms with at least `min_genes` genes and a spread above 0."""
        used = (self.n_genes >= min_genes) & (self.sd_ref > 0)
        return (arms[:, used] - self.mean_ref[used]) / self.sd_ref[used]


# --- clusters ---------------------------------------------------------------------------------------------------------


def centroids(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Mean of `values` per label 0 .. n - 1, labels x columns, float64."""
    return np.vstack([values[labels == label].mean(axis=0, dtype=np.float64) for label in range(int(labels.max()) + 1)])


def separation(labels: np.ndarray, scaled: np.ndarray, limit: float) -> np.ndarray:
    """How far any two clusters are apart, clusters x clusters: below 1 they are one clone.

    For each arm the smaller of |difference of means| / `limit` and |difference of means| / (SEPARATION x pooled sd within the
    two clusters); of these the largest over arms. The second keeps one broad population, which a clustering cuts somewhere,
    from counting as two.
    """
    n_cells = np.bincount(labels)
    mean = centroids(scaled, labels)
    squares = np.vstack([((scaled[labels == at] - mean[at]) ** 2).sum(axis=0) for at in range(len(mean))])
    out = np.zeros((len(mean), len(mean)))
    for a, b in combinations(range(len(mean)), 2):
        gap = np.abs(mean[a] - mean[b])
        within = np.sqrt((squares[a] + squares[b]) / max(n_cells[a] + n_cells[b] - 2, 1))
        apart = gap / np.maximum(SEPARATION * within, 1e-12)
        out[a, b] = out[b, a] = np.minimum(gap / limit, apart).max(initial=0.0)
    return out


def merge_close(labels: np.ndarray, scaled: np.ndarray, limit: float) -> np.ndarray:
    """Join the closest pair of clusters while no arm tells the two apart (`separation` below 1), closest first.

    Parameters
    ----------
    labels
        clusters, one per cell.
    scaled
        cells x arms in reference sd (`Arms.scaled`).
    limit
        difference of two means in reference sd from which an arm can tell clusters apart (methods.md: 2.0).
    """
    labels = by_size(labels)
    while labels.max() > 0:
        apart = separation(labels, scaled, limit)
        apart[np.tril_indices(len(apart))] = np.inf
        a, b = np.unravel_index(np.argmin(apart), apart.shape)
        if not apart[a, b] < 1:
            break
        labels = by_size(np.where(labels == b, a, labels))
    return labels


def absorb_small(labels: np.ndarray, scaled: np.ndarray, min_cells: int) -> np.ndarray:
    """Join clusters of fewer than `min_cells` cells, the smallest first, to the one nearest over all arms."""
    labels = by_size(labels)
    while labels.max() > 0 and np.bincount(labels)[-1] < min_cells:
        middle = centroids(scaled, labels)
        nearest = int(np.argmin(((middle[:-1] - middle[-1]) ** 2).sum(axis=1)))
        labels = by_size(np.where(labels == labels.max(), nearest, labels))
    return labels


def find_clones(
    profiles: np.ndarray, scaled: np.ndarray, resolution: float, limit: float, min_cells: int, seed: int
) -> tuple[np.ndarray, int]:
    """Clones of all malignant cells of a patient: Leiden on the profiles, then merging by arm distance.

    Parameters
    ----------
    profiles
        cells x genes; rows in a fixed order (sorted cell names), on which ties depend.
    scaled
        cells x arms in reference sd.

    Returns
    -------
    Labels 0, 1, ... by size, and the number of Leiden clusters before merging (1 below MIN_CELLS_CLUSTER cells).
    """
    if len(profiles) < MIN_CELLS_CLUSTER:
        return np.zeros(len(profiles), dtype=int), 1
    raw = communities(neighbour_weights(malignancy.pca(profiles)), resolution, seed)
    return absorb_small(merge_close(raw, scaled, limit), scaled, min_cells), int(raw.max()) + 1


# --- second opinions --------------------------------------------------------------------------------------------------


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index of two partitions (Hubert and Arabie 1985); 1 when both are one cluster."""
    table = pd.crosstab(np.asarray(a), np.asarray(b)).to_numpy().astype(float)

    def pairs(n: np.ndarray | float) -> float:
        return float(np.sum(np.asarray(n) * (np.asarray(n) - 1) / 2))

    both, rows, columns, total = pairs(table), pairs(table.sum(axis=1)), pairs(table.sum(axis=0)), pairs(table.sum())
    expected = rows * columns / total if total else 0.0
    most = (rows + columns) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


def stratified(strata: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices of `n` cells, each stratum with its share (at least one cell), sorted; all cells where there are no more."""
    total = len(strata)
    if total <= n:
        return np.arange(total)
    rng = np.random.default_rng(seed)
    chosen = []
    for name in sorted(set(strata)):
        rows = np.flatnonzero(strata == name)
        chosen.append(rng.choice(rows, min(len(rows), max(1, int(n * len(rows) / total))), replace=False))
    return np.sort(np.concatenate(chosen))


def ward(profiles: np.ndarray) -> np.ndarray:
    """Ward's hierarchy on Euclidean distances, scipy's linkage matrix: what R calls ward.D2 (not ward.D)."""
    return hierarchy.linkage(np.asarray(profiles, dtype=np.float64), "ward")


def ward_opinion(
    profiles: np.ndarray, strata: np.ndarray, n_clones: int, seed: int, max_cells: int = WARD_CELLS
) -> tuple[np.ndarray, np.ndarray, int]:
    """Ward's clusters as a second opinion: cut at the number of clones found, and at the best silhouette over k = 2 .. 8.

    Above `max_cells` cells the tree is made of a subsample stratified by `strata`, the rest joins the nearest centroid.

    Returns
    -------
    Labels at `n_clones`, labels at the best silhouette, that k (0 where fewer than 3 cells allow none).
    """
    n = len(profiles)
    values = np.asarray(profiles, dtype=np.float64)
    if n < 3:
        return np.zeros(n, dtype=int), np.zeros(n, dtype=int), 0
    rows = stratified(strata, max_cells, seed)
    tree = ward(values[rows])

    def cut(k: int) -> np.ndarray:
        part = by_size(hierarchy.fcluster(tree, k, "maxclust"))
        if len(rows) == n:
            return part
        middle = centroids(values[rows], part)
        nearest = (middle**2).sum(axis=1)[None] - 2 * values @ middle.T  # squared distance but for a constant of the cell
        labels = nearest.argmin(axis=1)
        labels[rows] = part
        return labels

    shown = stratified(strata, SILHOUETTE_CELLS, seed)
    gaps = cdist(values[shown], values[shown])
    cuts = {k: cut(k) for k in WARD_K if k < n}
    quality = {k: silhouette(gaps, labels[shown]) for k, labels in cuts.items()}
    best = max(quality, key=lambda k: (quality[k], -k)) if quality else 0
    return cut(n_clones), cuts[best] if best else np.zeros(n, dtype=int), best


def silhouette(distances: np.ndarray, labels: np.ndarray) -> float:
    """Mean silhouette width (Rousseeuw 1987) from a distance matrix; cells alone in their cluster count 0; -1 for one cluster."""
    names, codes, size = np.unique(labels, return_inverse=True, return_counts=True)
    if len(names) < 2:
        return -1.0
    sums = np.column_stack([distances[:, codes == at].sum(axis=1) for at in range(len(names))])
    rows = np.arange(len(codes))
    alone = size[codes] == 1
    inside = sums[rows, codes] / np.maximum(size[codes] - 1, 1)
    mean = sums / size
    mean[rows, codes] = np.inf
    outside = mean.min(axis=1)
    width = np.where(alone, 0.0, (outside - inside) / np.maximum(np.maximum(inside, outside), 1e-300))
    return float(width.mean())


def reference_groups(main_type: np.ndarray, phase: np.ndarray, min_cells: int = MIN_CELLS_GROUP) -> list[np.ndarray]:
    """Reference cells by type and phase; groups below `min_cells` are pooled within their phase, small rests are left out.

    A phase with fewer than `min_cells` reference cells gives no group, because its mean would be noise.
    """
    groups = []
    for code in sorted(set(phase)):
        small = []
        for name in sorted(set(main_type[phase == code])):
            rows = np.flatnonzero((phase == code) & (main_type == name))
            (groups if len(rows) >= min_cells else small).append(rows)
        rest = np.concatenate(small) if small else np.array([], dtype=int)
        if len(rest) >= min_cells:
            groups.append(rest)
    return groups


def subtract_bounds(values: np.ndarray, reference: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """What of `values` lies outside the range of the group means of `reference` (methods.md, INFER_CNV 4).

    Parameters
    ----------
    values, reference
        cells x columns; `groups` index the rows of `reference`.
    """
    means = np.vstack([reference[rows].mean(axis=0, dtype=np.float64) for rows in groups])
    low, high = means.min(axis=0), means.max(axis=0)
    return np.where(values > high, values - high, np.where(values < low, values - low, 0.0))


def reference_design_ari(
    labels: np.ndarray,
    profiles: np.ndarray,
    arms: np.ndarray,
    profiles_ref: np.ndarray,
    arms_ref: np.ndarray,
    main_type: np.ndarray,
    phase: np.ndarray,
    table: Arms,
    limits: tuple[float, float, int, int],
) -> float:
    """Adjusted Rand index of the clones with those found after a second subtraction of the reference, by type and phase.

    The profiles were made against types pooled over phases. If cells of one phase differ for technical reasons, their normal
    cells differ likewise; subtracting the range of type-by-phase means then removes a clone that was none. NaN where fewer
    than two phases have MIN_CELLS_GROUP reference cells.

    Parameters
    ----------
    labels, profiles, arms
        of the malignant cells; `..._ref`, `main_type`, `phase` of the reference cells.
    limits
        resolution, arm distance, least cells, seed of `find_clones`.
    """
    groups = reference_groups(main_type, phase)
    if len({phase[rows[0]] for rows in groups}) < 2:
        return float("nan")
    mean, sd = cnv.mean_sd(subtract_bounds(arms_ref, arms_ref, groups))
    second = Arms(table.names, table.n_genes, mean, sd, table.third_mean_ref, table.third_sd_ref)
    scaled = second.scaled(subtract_bounds(arms, arms_ref, groups))
    other, _ = find_clones(subtract_bounds(profiles, profiles_ref, groups), scaled, *limits)
    return adjusted_rand(labels, other)


# --- events -----------------------------------------------------------------------------------------------------------


def clone_arms(arms: np.ndarray, thirds: np.ndarray, labels: np.ndarray, table: Arms) -> tuple[np.ndarray, np.ndarray]:
    """Mean arm and third values of each clone in reference sd: clones x arms, clones x 3 arms; 0 where the sd is 0."""
    z = cnv.against(centroids(arms, labels), table.mean_ref, table.sd_ref)
    return z, cnv.against(centroids(thirds, labels), table.third_mean_ref, table.third_sd_ref)


def call_arms(
    mean_z: np.ndarray,
    third_z: np.ndarray,
    n_genes: np.ndarray,
    arm_shift: float = cnv.ARM_SHIFT,
    third_shift: float = cnv.THIRD_SHIFT,
) -> np.ndarray:
    """Sign (-1, 0, 1) of each arm of each clone: the rule of shifted arms (`cnv.shifted`), then the mean alone.

    The thirds of an arm are asked for to tell an arm from a family of neighbouring genes. Where one clone has shown that the
    whole arm is shifted, a mean beyond the limit is enough in the others; else one noisy third would turn an event of the
    trunk into one of some clones.
    """
    signs = cnv.shifted(mean_z, third_z, n_genes, arm_shift, third_shift)
    for sign in (-1, 1):
        shown = (signs == sign).any(axis=0)
        signs[:, shown] = np.where((signs == 0) & (sign * mean_z >= arm_shift), sign, signs)[:, shown]
    return signs


def event_name(value: float, arm: str) -> str:
    """`+8q` for a gain, `-5q` for a loss."""
    return f"{UNIT_GAIN if value > 0 else UNIT_LOSS}{arm}"


def event_sets(signs: np.ndarray, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Names of the shifted arms of each clone, in the order of the arms; `signs` (`cnv.shifted`): clones x arms, -1, 0, 1."""
    return [tuple(event_name(row[at], names[at]) for at in np.flatnonzero(row)) for row in signs]


def scope(event: str, sets: Sequence[tuple[str, ...]]) -> str:
    """trunk: in all clones; private: in one of several; shared: in some."""
    having = sum(event in events for events in sets)
    return TRUNK if having == len(sets) else PRIVATE if having == 1 else SHARED


def segments(
    profile_z: np.ndarray, chromosome: np.ndarray, mean_shift: float = cnv.ARM_SHIFT, point_shift: float = cnv.THIRD_SHIFT
) -> list[tuple[int, int, float]]:
    """Runs of neighbouring points of one chromosome that are all shifted the same way.

    Parameters
    ----------
    profile_z
        mean profile of a clone in reference sd of single cells, one value per stored gene in genome order.
    chromosome
        chromosome of each stored gene.
    mean_shift, point_shift
        reference sd that the mean of a run and each of its points exceed: the limits for an arm and its thirds.

    Returns
    -------
    (first, last, mean) of each run of at least SEGMENT_POINTS points.
    """
    sign = np.where(profile_z >= point_shift, 1, np.where(profile_z <= -point_shift, -1, 0))
    ends = np.flatnonzero((np.diff(sign) != 0) | (chromosome[1:] != chromosome[:-1]))
    starts, stops = np.r_[0, ends + 1], np.r_[ends, len(sign) - 1]
    found = []
    for first, last in zip(starts, stops, strict=True):
        if sign[first] and last - first + 1 >= SEGMENT_POINTS:
            mean = float(profile_z[first : last + 1].mean())
            if abs(mean) >= mean_shift:
                found.append((int(first), int(last), mean))
    return found


def segment_scopes(found: Sequence[Sequence[tuple[int, int, float]]]) -> list[list[str]]:
    """Scope of each segment: how many clones have a segment of the same sign over at least half of its points.

    Parameters
    ----------
    found
        for each clone its segments (`segments`).
    """

    def has(other: Sequence[tuple[int, int, float]], first: int, last: int, mean: float) -> bool:
        covered = sum(max(0, min(last, b) - max(first, a) + 1) for a, b, value in other if value * mean > 0)
        return 2 * covered >= last - first + 1

    scopes = []
    for mine in found:
        having = [sum(has(other, *segment) for other in found) for segment in mine]
        scopes.append([TRUNK if n == len(found) else PRIVATE if n == 1 else SHARED for n in having])
    return scopes


def event_table(
    patient: str,
    names: Sequence[str],
    table: Arms,
    signs: np.ndarray,
    mean_z: np.ndarray,
    found: Sequence[Sequence[tuple[int, int, float]]],
    points: pd.DataFrame,
) -> pd.DataFrame:
    """EVENT_COLUMNS: the shifted arms of each clone, then its segments.

    Parameters
    ----------
    signs, mean_z
        clones x arms, of `cnv.shifted` and `clone_arms`.
    found
        segments of each clone.
    points
        one row per stored gene in genome order, index = symbol, columns chromosome and start (bp).
    """
    sets = event_sets(signs, table.names)
    scopes = segment_scopes(found)
    chromosome, start = points[keys.CHROMOSOME].astype(str).to_numpy(), points[keys.START].to_numpy()
    rows = []
    for at, name in enumerate(names):
        for arm in np.flatnonzero(signs[at]):
            label, event = table.names[arm], event_name(signs[at, arm], table.names[arm])
            n_genes = int(table.n_genes[arm])
            rows.append(
                (patient, name, "arm", event, label.rstrip("pq"), label, "", "", pd.NA, pd.NA, n_genes, mean_z[at, arm],
                 scope(event, sets))
            )  # fmt: skip
        for (first, last, mean), word in zip(found[at], scopes[at], strict=True):
            event = event_name(mean, f"{chromosome[first]}:{start[first] / 1e6:.1f}-{start[last] / 1e6:.1f}Mb")
            rows.append(
                (patient, name, "segment", event, chromosome[first], "", points.index[first], points.index[last],
                 int(start[first]), int(start[last]), last - first + 1, mean, word)
            )  # fmt: skip
    made = pd.DataFrame(rows, columns=list(EVENT_COLUMNS))
    return made.astype({"start": "Int64", "end": "Int64", "n_genes": "Int64"})


# --- shares -----------------------------------------------------------------------------------------------------------


def goodman(counts: Sequence[int], alpha: float = ALPHA) -> tuple[np.ndarray, np.ndarray]:
    """Simultaneous intervals of multinomial shares (Goodman 1965, Technometrics 7:247), lower and upper limits.

    (A + 2n +- sqrt(A (A + 4 n (N - n) / N))) / (2 (N + A)) with A the 1 - alpha/k quantile of chi squared with 1 df.
    """
    n = np.asarray(counts, dtype=float)
    total = n.sum()
    if not total:
        return np.full(len(n), np.nan), np.full(len(n), np.nan)
    a = chi2.ppf(1 - alpha / len(n), 1)
    root = np.sqrt(a * (a + 4 * n * (total - n) / total))
    return np.clip((a + 2 * n - root) / (2 * (total + a)), 0, 1), np.clip((a + 2 * n + root) / (2 * (total + a)), 0, 1)


def detection_limit(total: int, alpha: float = ALPHA) -> float:
    """The share that would have shown at least one of `total` cells with probability 1 - alpha: 1 - alpha^(1/N)."""
    return 1 - alpha ** (1 / total) if total else np.nan


def newcombe(n_a: float, total_a: float, n_b: float, total_b: float, alpha: float = ALPHA) -> tuple[float, float, float]:
    """Difference of two shares, A minus B, with its interval from Wilson limits (Newcombe 1998, Stat Med 17:873, method 10)."""
    p_a, p_b = n_a / total_a, n_b / total_b
    (low_a, high_a), (low_b, high_b) = comparison.wilson(n_a, total_a, alpha), comparison.wilson(n_b, total_b, alpha)
    d = p_a - p_b
    return (
        d,
        d - float(np.sqrt((p_a - low_a) ** 2 + (high_b - p_b) ** 2)),
        d + float(np.sqrt((high_a - p_a) ** 2 + (p_b - low_b) ** 2)),
    )


def shares(patient: str, names: Sequence[str], clone: np.ndarray, phase: np.ndarray, phases: Sequence[str]) -> pd.DataFrame:
    """PHASE_COLUMNS: cells of each clone in each phase with Goodman's interval; for n = 0 the detection limit too."""
    rows = []
    for code in phases:
        counts = [int(((phase == code) & (clone == name)).sum()) for name in names]
        total = sum(counts)
        low, high = goodman(counts)
        for at, name in enumerate(names):
            limit = detection_limit(total) if counts[at] == 0 else np.nan
            share = counts[at] / total if total else np.nan
            word = keys.OK if total else keys.NOT_ESTIMABLE
            rows.append((patient, name, code, counts[at], total, share, low[at], high[at], limit, word))
    return pd.DataFrame(rows, columns=list(PHASE_COLUMNS))


def phase_pairs(present: Sequence[str], times: Mapping[str, float]) -> list[tuple[str, str, bool]]:
    """Pairs (later, earlier, ordered) to compare: neighbours in time, then each later phase against the first.

    A phase without time is compared with the first phase on the time axis, or, where there is none, with the phase listed
    before it; such a pair has no order in time.

    Parameters
    ----------
    present
        the patient's phases in the order of phases.tsv.
    times
        phase -> place on the time axis, NaN for a branch beside it.
    """
    timed = sorted((p for p in present if np.isfinite(times.get(p, np.nan))), key=lambda p: (times[p], list(present).index(p)))
    beside = [p for p in present if p not in timed]
    pairs = [(b, a, True) for a, b in pairwise(timed)]
    pairs += [(b, timed[0], True) for b in timed[2:]]
    if timed:
        pairs += [(p, timed[0], False) for p in beside]
    else:
        pairs += [(b, a, False) for a, b in pairwise(beside)]
    return pairs


def change_class(n_a: int, total_a: int, n_b: int, low: float, high: float, total_b: int, ordered: bool, limit: float) -> str:
    """The word for a clone between a later phase A and an earlier phase B.

    expanding or shrinking: the interval of the difference lies on one side of 0. emerging instead of expanding: no cell
    earlier, where a share of `limit` would have shown one (detection limit <= limit); lost is its mirror. Without an order in
    time the words are higher and lower.
    """
    if low > 0:
        if not ordered:
            return HIGHER
        return EMERGING if n_b == 0 and detection_limit(total_b) <= limit else EXPANDING
    if high < 0:
        if not ordered:
            return LOWER
        return LOST if n_a == 0 and detection_limit(total_a) <= limit else SHRINKING
    return UNCERTAIN


def changes(table: pd.DataFrame, pairs: Sequence[tuple[str, str, bool]], min_cells: int, emerging_limit: float) -> pd.DataFrame:
    """CHANGE_COLUMNS: each clone in each pair of phases, with Newcombe's interval and Fisher's exact test of the cells.

    The cells of one biopsy are no independent draws of the lesion, so p values carry the evidence `cell_level`; they are
    adjusted by Benjamini-Hochberg over the clones of a pair. A pair with a phase below `min_cells` is `not_estimable`:
    numbers of cells only. Without any pair one row per clone says so.

    Parameters
    ----------
    table
        result of `shares`.
    pairs
        result of `phase_pairs`.
    """
    patient = table["patient"].iloc[0]
    clones = list(dict.fromkeys(table["clone"]))
    seen = {(row.clone, row.phase): (int(row.n), int(row.N)) for row in table.itertuples()}
    blank = dict.fromkeys(CHANGE_COLUMNS, np.nan) | {
        "patient": patient, "unit": comparison.UNIT_CELL, "n_patients_a": 1, "n_patients_b": 1,
        "effect_name": "difference_of_shares", "test": "fisher_exact", "adjust_method": "BH:clones",
        "evidence": keys.CELL_LEVEL, "contrast": "", "class": keys.NOT_ESTIMABLE,
    }  # fmt: skip
    rows = []
    for later, earlier, ordered in pairs:
        part = []
        for name in clones:
            (n_a, total_a), (n_b, total_b) = seen[(name, later)], seen[(name, earlier)]
            row = blank | {
                "clone": name, "contrast": f"{later}_vs_{earlier}", "n_a": n_a, "N_a": total_a, "n_b": n_b, "N_b": total_b,
                "n_cells_a": total_a, "n_cells_b": total_b, "status": keys.NOT_ESTIMABLE,
            }  # fmt: skip
            if min(total_a, total_b) >= min_cells:
                diff, low, high = newcombe(n_a, total_a, n_b, total_b)
                found = fisher_exact([[n_a, total_a - n_a], [n_b, total_b - n_b]])
                # the odds ratio of the sample; without meaning where a margin is empty
                odds = float(found.statistic) if 0 < n_a + n_b < total_a + total_b else np.nan
                row |= {
                    "diff": diff, "effect": diff, "ci_low": low, "ci_high": high, "statistic": odds,
                    "log2_ratio": float(np.log2(((n_a + 0.5) / (total_a + 1)) / ((n_b + 0.5) / (total_b + 1)))),
                    "p_value": float(found.pvalue), "status": keys.OK,
                    "class": change_class(n_a, total_a, n_b, low, high, total_b, ordered, emerging_limit),
                }  # fmt: skip
            part.append(row)
        adjusted = comparison.adjust([row["p_value"] for row in part])
        rows += [row | {"p_adjusted": p} for row, p in zip(part, adjusted, strict=True)]
    if not pairs:
        word = {"status": keys.SKIPPED_NO_INPUT, "n_patients_a": np.nan, "n_patients_b": np.nan}
        rows = [blank | {"clone": name} | word for name in clones]
    made = pd.DataFrame(rows, columns=list(CHANGE_COLUMNS))
    whole = ["n_a", "N_a", "n_b", "N_b", "n_patients_a", "n_patients_b", "n_cells_a", "n_cells_b"]
    return made.astype(dict.fromkeys(whole, "Int64"))


# --- tree -------------------------------------------------------------------------------------------------------------


def tree(names: Sequence[str], sets: Sequence[tuple[str, ...]], distance: np.ndarray) -> list[tuple[str, str, tuple[str, ...]]]:
    """A rooted tree of clones by shared events: branches (parent, child, events gained on the branch).

    The two nodes with the most events in common are joined first (ties: the smaller arm distance, then the names); their
    ancestor has exactly the common events, and a clone without events of its own is the ancestor itself. Events in a clone
    but not in its ancestor are gained on the branch; an event can be gained twice, never lost. The root is `normal`.

    Parameters
    ----------
    names, sets
        clones and their events; at least one.
    distance
        clones x clones, largest difference of an arm in reference sd.
    """
    order = {event: at for at, event in enumerate(dict.fromkeys(event for events in sets for event in events))}
    events = {name: frozenset(given) for name, given in zip(names, sets, strict=True)}
    gap = {(a, b): float(distance[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)}
    members = {name: (name,) for name in names}
    children: dict[str, list[str]] = {name: [] for name in names}
    made, top = 0, list(names)
    while len(top) > 1:
        _, _, a, b = min(
            (-len(events[a] & events[b]), min(gap[x, y] for x in members[a] for y in members[b]), a, b)
            for a, b in combinations(top, 2)
        )
        common = events[a] & events[b]
        if not common:
            break  # nothing shared: separate branches from the root
        if common == events[a]:
            parent, parts = a, [b]
        elif common == events[b]:
            parent, parts = b, [a]
        else:
            made += 1
            parent, parts = f"node{made}", [a, b]
            events[parent], children[parent] = common, []
        members[parent] = tuple(dict.fromkeys((*members[a], *members[b])))
        children[parent] += parts
        top = [parent if name in (a, b) else name for name in top]
        top = list(dict.fromkeys(top))
    branches: list[tuple[str, str, tuple[str, ...]]] = []

    def walk(parent: str, child: str, known: frozenset[str]) -> None:
        gained = tuple(sorted(events[child] - known, key=order.__getitem__))
        branches.append((parent, child, gained))
        for below in sorted(children[child]):
            walk(child, below, events[child])

    for name in sorted(top):
        walk(NORMAL, name, frozenset())
    return branches


def tree_table(patient: str, names: Sequence[str], sets: Sequence[tuple[str, ...]], means: np.ndarray) -> pd.DataFrame:
    """TREE_COLUMNS: every pair of clones (kind `pair`), then the branches of the tree (kind `branch`, a = parent, b = child).

    Parameters
    ----------
    means
        clones x arms in reference sd, the arms of the distance.
    """
    gap = cdist(means, means, "chebyshev")
    rows = []
    for i, j in combinations(range(len(names)), 2):
        common = [event for event in sets[i] if event in sets[j]]
        rows.append((patient, "pair", names[i], names[j], gap[i, j], len(common), ",".join(common), ""))
    branches = tree(names, sets, gap)
    above = {NORMAL: 0}
    known: dict[str, tuple[str, ...]] = {NORMAL: ()}
    for parent, child, gained in branches:
        distance = gap[names.index(parent), names.index(child)] if parent in names and child in names else np.nan
        rows.append((patient, "branch", parent, child, distance, above[parent], ",".join(known[parent]), ",".join(gained)))
        known[child] = (*known[parent], *gained)
        above[child] = len(known[child])
    return pd.DataFrame(rows, columns=list(TREE_COLUMNS))


# --- diversity --------------------------------------------------------------------------------------------------------


def diversity(counts: Sequence[int]) -> dict[str, float]:
    """Diversity of one set of counts; pielou and clonality are NaN for a single clone, where ln S is 0.

    Shannon H = -sum p ln p; Hill q0, q1 = e^H, q2 = 1 / sum p^2; Pielou H / ln S; clonality 1 - Pielou; Chao1 = S +
    F1 (F1 - 1) / (2 (F2 + 1)) with F1 and F2 the clones seen once and twice.
    """
    n = np.asarray(counts, dtype=float)
    n = n[n > 0]
    if not len(n):
        return dict.fromkeys(DIVERSITY_INDICES, np.nan)
    p = n / n.sum()
    shannon = float(max(-(p * np.log(p)).sum(), 0.0))
    pielou = shannon / np.log(len(n)) if len(n) > 1 else np.nan
    once, twice = (n == 1).sum(), (n == 2).sum()
    chao1 = float(len(n) + once * (once - 1) / (2 * (twice + 1)))
    values = (shannon, float(len(n)), float(np.exp(shannon)), float(1 / (p**2).sum()), pielou, 1 - pielou, chao1)
    return dict(zip(DIVERSITY_INDICES, values, strict=True))


def diversity_table(patient: str, counts: Mapping[str, Sequence[int]], seed: int) -> pd.DataFrame:
    """DIVERSITY_COLUMNS per phase, rarefied to the smallest phase of at least RAREFY_MIN cells.

    The value is the mean of RAREFY_DRAWS draws of that many cells without replacement, which makes phases of unlike size
    comparable. The interval holds the middle 95 % of as many draws with replacement: without it the smallest phase would have
    an interval of width 0. Smaller phases are `not_estimable`.

    Parameters
    ----------
    counts
        phase -> cells per clone, clones in one order.
    """
    rng = np.random.default_rng(seed)
    large = [sum(given) for given in counts.values() if sum(given) >= RAREFY_MIN]
    depth = min(large) if large else 0
    rows = []
    for code, given in counts.items():
        n = np.asarray(given, dtype=np.int64)
        if n.sum() < RAREFY_MIN:
            rows += [
                (patient, code, index, np.nan, np.nan, np.nan, n.sum(), pd.NA, keys.NOT_ESTIMABLE) for index in DIVERSITY_INDICES
            ]
            continue
        plain = pd.DataFrame([diversity(d) for d in rng.multivariate_hypergeometric(n, depth, size=RAREFY_DRAWS)])
        boot = pd.DataFrame([diversity(d) for d in rng.multinomial(depth, n / n.sum(), size=RAREFY_DRAWS)])
        for index in DIVERSITY_INDICES:
            drawn = plain[index].dropna()
            # pielou needs two clones; where most draws hold one, the mean of the others would be of another population
            word = keys.OK if len(drawn) > RAREFY_DRAWS / 2 else keys.NOT_ESTIMABLE
            value, low, high = (np.nan,) * 3
            if word == keys.OK:
                value, (low, high) = float(drawn.mean()), np.quantile(boot[index].dropna(), [ALPHA / 2, 1 - ALPHA / 2])
            rows.append((patient, code, index, value, low, high, n.sum(), depth, word))
    made = pd.DataFrame(rows, columns=list(DIVERSITY_COLUMNS))
    return made.astype({"n_cells": "Int64", "n_cells_rarefied": "Int64"})
