"""Which early tumour cells of a patient resemble the later ones: transport couplings between phases, CellRank states, a null.

Biopsies are snapshots of different cells. A coupling says which later cells lie near an early one when all of them have to
find a counterpart; it is a resemblance, not a descent. Every figure stands beside its values under permuted phases.

Imports that take longer than a patient with one phase deserves stand within the functions that need them.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys

N_HVG = 2000
N_PCS = 30  # of the space in which cells are compared (methods.md, MAP_FATES)
SCALE_CAP = 10.0  # sd, as in scanpy's tutorials
NEIGHBOURS = (5, 30)  # of the graphs: the square root of the cells within these limits; 30 is scVelo's and CellRank's default
DENSE_BELOW = 500  # cells up to which all eigenvectors are computed
N_DIFFUSION = 10  # diffusion components of the pseudotime, as in scanpy's dpt
N_CYTOTRACE = 200  # genes of the CytoTRACE score (Gulati 2020, Science 367:405)
CONN_WEIGHT = 0.2  # of moves within a phase in the real-time kernel (CellRank's tutorials; methods.md)
CYTOTRACE_WEIGHT = 0.5  # of the CytoTRACE kernel beside the real-time kernel: equal parts, chosen
STABILITY = 0.96  # probability to stay from which a macrostate is terminal (CellRank's default)
MAX_STATES = 10
# What pygpcca and CellRank say where the data have no such states; any other ValueError is a fault of ours and must not pass
REFUSALS = re.compile(
    "conjugate|leads to a cluster with|decrease this to at most|condition number|elements in chi|rows of chi"
    "|rotation matrix has elements|subspace|orthogonal"
)
STATE_CELLS = 30  # cells that stand for a terminal state (CellRank's default)
COST_CAP = 10.0  # in mean costs; exp(-cap/reg) stays above the smallest float, and an outlier is far in any case
MIN_GROUP = 10  # cells of a group at the earlier phase for a mean
TOP_DRIVERS = 50  # genes of each sign
LEVEL = 0.95
UNIT = "cell"  # behind every interval and p here

FREE, USED = "free", "used"
DATA, CONTROL = "data", "permuted_labels"
EARLY, MIDDLE, DIFFERENTIATED = "early", "middle", "differentiated"
RESEMBLANCE, DIRECTION, PROBABILITY = "resemblance", "direction", "fate_probability"
VALUE_NAMES = {RESEMBLANCE: "mean_log2_ratio", DIRECTION: "slope_log2_ratio_per_sd", PROBABILITY: "mean_probability"}
LATER = "later"  # the fate "cells of the later phase" of the measures that need no terminal state
GROUP_CLONE, GROUP_STATE, GROUP_THIRD, GROUP_ORDER = "clone", "epi_cluster", "cytotrace_third", "order"

COUPLING_COLUMNS = (
    "patient", "phase_from", "phase_to", "coupling", "group_kind", "group_from", "group_to", "n_from", "n_to", "mass",
    "same_group", "mass_changed", "status",
)  # fmt: skip
MACRO_COLUMNS = (
    "patient", "state", "terminal", "n_cells", "stability", "top_clone", "top_clone_share", "top_epi_cluster",
    "top_epi_cluster_share", "top_subtype", "top_subtype_share", "top_module", "top_module_z",
)  # fmt: skip
FATE_TEST_COLUMNS = (
    "patient", "control", "measure", "phase_from", "phase_to", "group_kind", "group", "fate", "n_cells", "value", "value_name",
    "null_mean", "null_low", "null_high", "n_null", "p_value", "p_adjusted", "adjust_method", "p_min_attainable", "spearman",
    "cellrank_mean", "unit", "evidence", "status",
)  # fmt: skip
DRIVER_COLUMNS = (
    "patient", "fate", "rank", "gene", "correlation", "ci_low", "ci_high", "n_cells", "n_genes", "p_value", "p_adjusted",
    "adjust_method", "unit", "evidence",
)  # fmt: skip


# --- space, order -----------------------------------------------------------------------------------------------------


def principal_components(values: np.ndarray, n: int) -> np.ndarray:
    """Scores of the first n principal components, cells x n (fewer where there are fewer); the largest loading is positive."""
    centred = np.asarray(values, dtype=np.float64)
    centred = centred - centred.mean(axis=0)
    by_cell = centred.shape[0] <= centred.shape[1]
    from scipy import linalg

    gram = centred @ centred.T if by_cell else centred.T @ centred
    n = min(n, len(gram))
    size, vectors = linalg.eigh(gram, subset_by_index=[len(gram) - n, len(gram) - 1])
    size, vectors = np.sqrt(np.maximum(size[::-1], 0)), vectors[:, ::-1]
    keep = size > 1e-6 * max(size[0], 1e-300)
    scores = vectors[:, keep] * size[keep] if by_cell else centred @ vectors[:, keep]
    loadings = centred.T @ scores
    return scores * np.where(loadings[np.abs(loadings).argmax(axis=0), np.arange(scores.shape[1])] < 0, -1.0, 1.0)


def space(x: sparse.csr_matrix, genes: pd.Index, phase: np.ndarray, n_hvg: int = N_HVG, n_pcs: int = N_PCS) -> np.ndarray:
    """Principal components of the patient's tumour cells on highly variable genes chosen phase by phase, cells x n_pcs.

    Phase by phase, so that a gene does not enter for differing between two biopsies alone, which handling also brings about.
    Genes are scaled to unit variance and cut at 10 sd (the usual recipe: Luecken 2019, Mol Syst Biol 15:e8746): many weak genes
    that move together, as on a path of differentiation, else count less than a few strong ones.
    """
    from scresist import normalise

    table = normalise.highly_variable(x, genes, pd.Series(phase), n_hvg)
    values = x[:, np.flatnonzero(table["highly_variable"].to_numpy())].toarray().astype(np.float64)
    values -= values.mean(axis=0)
    spread = values.std(axis=0)
    values = np.clip(values[:, spread > 0] / spread[spread > 0], -SCALE_CAP, SCALE_CAP)
    return principal_components(values, n_pcs)


def cytotrace(x: sparse.csr_matrix, graph: sparse.csr_matrix, genes: Sequence[str], n_genes: int = N_CYTOTRACE) -> np.ndarray:
    """CytoTRACE score of each cell, 0 (differentiated) to 1 (early), as CellRank computes it.

    Genes are ranked by their correlation with the number of genes that a cell expresses; the score is the mean of the first 200
    after smoothing over the neighbour graph, scaled to 0 to 1 (Gulati 2020, Science 367:405; Lange 2022, Nat Methods 19:159).
    The number of genes follows the depth of sequencing, so the score may do so too: `depth_rho` of the step says how much.
    All NaN where the score is constant.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    graph
        cells x cells, symmetric weights; a cell's own value enters with the mean weight of its neighbours.
    """
    expressed = np.asarray((x > 0).sum(axis=1), dtype=np.float64).ravel()
    rho = _pearson(x, expressed)
    order = np.lexsort((np.asarray(genes, dtype=str), -np.nan_to_num(rho, nan=-np.inf)))
    best = order[: min(n_genes, int(np.isfinite(rho).sum()))]
    if not len(best):
        return np.full(x.shape[0], np.nan)
    own = x[:, np.sort(best)].astype(np.float64).mean(axis=1)
    score = smooth(graph, np.asarray(own).ravel())
    spread = score.max() - score.min()
    return (score - score.min()) / spread if spread > 0 else np.full(len(score), np.nan)


def smooth(graph: sparse.csr_matrix, values: np.ndarray) -> np.ndarray:
    """Mean over a cell and its neighbours, the cell itself with weight 1 (the largest weight of UMAP's graph)."""
    total = np.asarray(graph.sum(axis=1)).ravel() + 1.0
    return (graph @ values + values) / total


def n_neighbours(n_cells: int) -> int:
    """Neighbours of each cell in a graph of so many cells: a fixed number would join everything in a small biopsy."""
    return min(int(np.clip(round(np.sqrt(n_cells)), *NEIGHBOURS)), n_cells - 1)


def _pearson(x: sparse.csr_matrix, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of every column of x with y; NaN where either is constant."""
    n = x.shape[0]
    y = y - y.mean()
    sums = np.asarray(x.sum(axis=0, dtype=np.float64)).ravel()
    squares = np.asarray(x.multiply(x).sum(axis=0, dtype=np.float64)).ravel()
    spread = np.sqrt(np.maximum(squares - sums**2 / n, 0) * (y @ y))
    product = np.asarray(x.T @ y, dtype=np.float64).ravel()
    return np.divide(product, spread, out=np.full(len(sums), np.nan), where=spread > 1e-9)


@dataclass(frozen=True)
class Diffusion:
    """Eigenvalues (without the first) and vectors of the symmetric diffusion operator, and the part of the graph of each cell."""

    values: np.ndarray
    vectors: np.ndarray
    part: np.ndarray


def diffusion_map(graph: sparse.csr_matrix, n: int = N_DIFFUSION) -> Diffusion:
    """Diffusion map of a neighbour graph, density-normalised as in scanpy (Coifman 2005; Haghverdi 2016, Nat Methods 13:845)."""
    from scipy import linalg
    from scipy.sparse.csgraph import connected_components
    from scipy.sparse.linalg import eigsh

    _, part = connected_components(graph, directed=False)
    density = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    scale = sparse.diags(np.divide(1.0, density, out=np.zeros_like(density), where=density > 0))
    kernel = sparse.csr_matrix(scale @ graph.astype(np.float64) @ scale)
    degree = np.sqrt(np.asarray(kernel.sum(axis=1)).ravel())
    inverse = sparse.diags(np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0))
    operator = sparse.csr_matrix(inverse @ kernel @ inverse)
    operator = (operator + operator.T) / 2
    size = operator.shape[0]
    n = min(n + 1, size)
    if size <= DENSE_BELOW:
        values, vectors = linalg.eigh(operator.toarray(), subset_by_index=[size - n, size - 1])
    else:  # a fixed start, so that every run takes the same steps
        values, vectors = eigsh(operator, k=n, which="LA", v0=np.ones(size), tol=1e-10)
        order = np.argsort(values, kind="stable")
        values, vectors = values[order], vectors[:, order]
    values, vectors = values[::-1], vectors[:, ::-1]
    return Diffusion(values[1:], vectors[:, 1:], part)


def pseudotime(diffusion: Diffusion, root: int) -> np.ndarray:
    """Diffusion pseudotime from a root cell, 0 to 1; NaN in parts of the graph that the root does not reach.

    sum over components of (lambda/(1 - lambda))^2 (psi(cell) - psi(root))^2 (Haghverdi 2016, Nat Methods 13:845).
    """
    ready = diffusion.values < 1 - 1e-9
    lengths = diffusion.values[ready] / (1 - diffusion.values[ready])
    steps = (diffusion.vectors[:, ready] - diffusion.vectors[root, ready]) * lengths
    distance = np.sqrt((steps**2).sum(axis=1))
    distance[diffusion.part != diffusion.part[root]] = np.nan
    top = np.nanmax(distance)
    return distance / top if top > 0 else distance


def root_cell(points: np.ndarray, labels: np.ndarray, first: int, last: int) -> int:
    """The cell of the first phase that lies farthest from the last phase along the line between their means."""
    axis = points[labels == last].mean(axis=0) - points[labels == first].mean(axis=0)
    rows = np.flatnonzero(labels == first)
    return int(rows[np.argmin(points[rows] @ axis)])


# --- couplings --------------------------------------------------------------------------------------------------------


def relative_cost(points: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of all cells divided by their mean over pairs, at most COST_CAP; cells x cells.

    One scale for all pairs of phases and all clones, so that `reg` means the same everywhere and permuted phases need no new one.
    """
    points = np.asarray(points, dtype=np.float64)
    norm = (points**2).sum(axis=1)
    squared = np.maximum(norm[:, None] + norm[None, :] - 2 * points @ points.T, 0.0)
    np.fill_diagonal(squared, 0.0)
    n = len(points)
    mean = squared.sum() / max(n * (n - 1), 1)
    return np.minimum(squared / mean, COST_CAP) if mean > 0 else squared


def sinkhorn(cost: np.ndarray, a: np.ndarray, b: np.ndarray, reg: float, reg_m: float) -> np.ndarray:
    """Unbalanced transport plan (POT; Chizat 2018, Math Comput 87:2563), rows x columns of `cost`.

    min <P, cost> + reg KL(P | a b') + reg_m KL(P 1 | a) + reg_m KL(P' 1 | b): mass may be lost and made, at a price.
    """
    for name in ("PYTORCH", "JAX", "CUPY", "TENSORFLOW"):  # read at import: POT loads every backend that it finds, for seconds
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    from ot.unbalanced import sinkhorn_unbalanced

    plan = sinkhorn_unbalanced(a, b, cost, reg, reg_m, reg_type="kl", numItermax=2000, stopThr=1e-7)
    if not np.isfinite(plan).all():
        raise FloatingPointError(f"the coupling of {len(a)} and {len(b)} cells is not finite (reg {reg:g}, reg_m {reg_m:g})")
    return np.asarray(plan)


@dataclass(frozen=True)
class Rules:
    """Parameters of the couplings."""

    reg: float = 0.05
    reg_m: float = 1.0
    within_clone: bool = True
    min_clone_cells: int = 20


@dataclass(frozen=True)
class Coupling:
    """Plan between two phases: `rows` and `columns` index cells, `plan` is their mass, `block` numbers the block of each row.

    Blocks 1, 2, .. are clones that both phases hold (or all cells, where clones do not count), block 0 is what remains, -1 is
    without any later cell. `own` is the mass that each row of a block above 0 sends to the other cells of its own phase and block
    when these take the place of the later cells; NaN elsewhere, and where it was not asked for.
    """

    rows: np.ndarray
    columns: np.ndarray
    plan: np.ndarray
    block: np.ndarray
    own: np.ndarray

    def resemblance(self) -> np.ndarray:
        """log2 (mass sent to the later phase / mass sent to the own phase), less its mean over the block.

        0 = as the other cells of the clone; NaN where the clone is not found in both phases. Mass alone will not do: an odd cell
        is far from everything and sends little anywhere. (In dual form this is the difference of potentials of which the debiased
        Sinkhorn divergence is made: Feydy 2019, AISTATS 89:2681.)
        """
        mass = self.plan.sum(axis=1)
        good = (self.block > 0) & (mass > 0) & (self.own > 0)
        out = np.full(len(mass), np.nan)
        for name in np.unique(self.block[good]):
            mine = good & (self.block == name)
            ratio = np.log2(mass[mine] / self.own[mine])
            out[mine] = ratio - ratio.mean()
        return out


def couple(
    cost: np.ndarray, labels: np.ndarray, clone: np.ndarray, pair: tuple[int, int], rules: Rules, own: bool = True
) -> Coupling:
    """The coupling of two phases.

    Copy-number clones are inherited, so each clone with enough cells in both phases is coupled with itself (cells without clone
    likewise), and what remains with what remains. Every cell of a phase has the same mass, 1 / cells of its phase, so that a
    clone that shrinks has to lose mass.

    Parameters
    ----------
    cost
        cells x cells.
    labels
        phase of each cell as number; -1 = takes no part.
    clone
        clone of each cell, "" where none.
    own
        also couple the earlier phase with itself, each cell with the others, for `resemblance`.
    """
    rows, columns = (np.flatnonzero(labels == phase) for phase in pair)
    of_row, of_column = np.ones(len(rows), dtype=int), np.ones(len(columns), dtype=int)
    if rules.within_clone:
        from_, to = clone[rows], clone[columns]
        number = {name: at + 1 for at, name in enumerate(clones_of_both(from_, to, rules.min_clone_cells))}
        of_row = np.array([number.get(name, 0) for name in from_], dtype=int)
        of_column = np.array([number.get(name, 0) for name in to], dtype=int)
    plan, block, itself = np.zeros((len(rows), len(columns))), np.full(len(rows), -1), np.full(len(rows), np.nan)
    for at in np.unique(of_row):
        i, j = np.flatnonzero(of_row == at), np.flatnonzero(of_column == at)
        if len(i) and len(j):
            a, b = np.full(len(i), 1 / len(rows)), np.full(len(j), 1 / len(columns))
            plan[np.ix_(i, j)] = sinkhorn(cost[np.ix_(rows[i], columns[j])], a, b, rules.reg, rules.reg_m)
            block[i] = at
            if own and at > 0 and len(i) > 1:
                inner = cost[np.ix_(rows[i], rows[i])]
                np.fill_diagonal(inner, COST_CAP)  # a cell is no evidence for itself
                itself[i] = sinkhorn(inner, a, a, rules.reg, rules.reg_m).sum(axis=1)
    return Coupling(rows, columns, plan, block, itself)


def clones_of_both(a: np.ndarray, b: np.ndarray, least: int) -> list[str]:
    """Names, "" among them, with at least so many cells on both sides, sorted."""
    return [name for name in sorted({*a} & {*b}) if min((a == name).sum(), (b == name).sum()) >= least]


def phase_pairs(n_phases: int) -> list[tuple[int, int]]:
    """Successive phases, then first and last where others lie between."""
    pairs = [(at, at + 1) for at in range(n_phases - 1)]
    return [*pairs, (0, n_phases - 1)] if n_phases > 2 else pairs


def mass_between(coupling: Coupling, groups: np.ndarray) -> pd.DataFrame:
    """Share of the coupled mass from each group to each: group_from, group_to, n_from, n_to, mass, same_group, mass_changed.

    Parameters
    ----------
    groups
        label of every cell, "" = none; such cells and their mass are left out.
    """
    from_, to = groups[coupling.rows], groups[coupling.columns]
    names_from, names_to = sorted({*from_} - {""}), sorted({*to} - {""})
    summed = {
        (f, t): float(coupling.plan[np.ix_(from_ == f, to == t)].sum(dtype=np.float64)) for f in names_from for t in names_to
    }
    total = sum(summed.values())
    frame = pd.DataFrame(
        [
            (f, t, int((from_ == f).sum()), int((to == t).sum()), mass / total if total > 0 else np.nan, f == t)
            for (f, t), mass in summed.items()
        ],
        columns=["group_from", "group_to", "n_from", "n_to", "mass", "same_group"],
    )
    frame["mass_changed"] = frame.loc[~frame["same_group"], "mass"].sum() if total > 0 else np.nan
    return frame


def coupling_table(
    patient: str, couplings: Sequence[tuple[str, str, str, Coupling]], groups: dict[str, np.ndarray]
) -> pd.DataFrame:
    """couplings.tsv from (phase_from, phase_to, used|free, coupling) and the groups by kind."""
    parts = []
    for phase_from, phase_to, how, coupling in couplings:
        for kind, labels in groups.items():
            made = mass_between(coupling, labels)
            made = made.assign(patient=patient, phase_from=phase_from, phase_to=phase_to, coupling=how, group_kind=kind)
            made["status"] = np.where(made["mass"].isna(), keys.NOT_ESTIMABLE, keys.OK)
            parts.append(made)
    return _table(parts, COUPLING_COLUMNS)


def _table(parts: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    filled = [part for part in parts if len(part)]
    return (pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(columns)))[list(columns)]


# --- CellRank: states and fates ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class States:
    """What GPCCA found: macrostates of the last phase, which of them are terminal, fate probabilities of the cells.

    Attributes
    ----------
    names
        of the macrostates, F1 .. by number of cells, terminal ones first.
    terminal
        bool, one per name.
    stability
        probability to stay, one per name.
    cells
        for each name, indices of the cells that stand for it.
    assigned
        index of the name to which a cell of the last phase belongs most, -1 for others.
    probability
        cells x terminal states; NaN rows for cells outside the chain; no column where no state is terminal.
    reason
        why there is no terminal state; "" where there is one.
    """

    names: tuple[str, ...]
    terminal: np.ndarray
    stability: np.ndarray
    cells: tuple[np.ndarray, ...]
    assigned: np.ndarray
    probability: np.ndarray
    reason: str

    @property
    def fates(self) -> list[str]:
        return [name for name, ends in zip(self.names, self.terminal, strict=True) if ends]


def nothing(n_cells: int, reason: str) -> States:
    """States of a patient whose cells end nowhere in particular."""
    none = np.full(n_cells, -1)
    return States((), np.zeros(0, dtype=bool), np.zeros(0), (), none, np.zeros((n_cells, 0)), reason)


def linked(couplings: Sequence[Coupling], labels: np.ndarray) -> np.ndarray:
    """Cells from which the last phase can be reached through successive couplings; bool over cells."""
    keep = labels == labels.max()
    for coupling in reversed(couplings):
        open_ = coupling.plan[:, keep[coupling.columns]].sum(axis=1) > 0
        keep[coupling.rows[open_]] = True
    return keep


def chain(
    points: np.ndarray, labels: np.ndarray, order: np.ndarray, couplings: Sequence[Coupling], keep: np.ndarray
) -> sparse.csr_matrix:
    """Transition matrix over the kept cells: CellRank's RealTimeKernel over the couplings, CytoTRACE's kernel within phases.

    The last phase is never left, so the matrix is block-triangular: its persistent states lie in the last block.

    Parameters
    ----------
    order
        CytoTRACE score of each cell; where it is missing, the real-time kernel stands alone.
    """
    import anndata

    _quiet()
    from cellrank.kernels import PseudotimeKernel, RealTimeKernel

    from scresist import neighbours

    rows = np.flatnonzero(keep)
    place = np.full(len(labels), -1)
    place[rows] = np.arange(len(rows))
    names = np.array([f"{at:07d}" for at in range(len(rows))])
    phase = labels[rows]
    obs = pd.DataFrame({"time": pd.Categorical(phase, ordered=True)}, index=names)
    holder = anndata.AnnData(sparse.csr_matrix((len(rows), 1), dtype=np.float32), obs=obs)
    holder.obsm["X_pca"] = points[rows].astype(np.float32)
    given = {}
    phases = sorted(set(phase.tolist()))
    for source, target, coupling in zip(phases[:-1], phases[1:], couplings, strict=True):
        i, j = keep[coupling.rows], keep[coupling.columns]
        plan = coupling.plan[np.ix_(i, j)]
        plan = plan / plan.sum(axis=1, keepdims=True)
        index = [pd.DataFrame(index=names[place[cells]]) for cells in (coupling.rows[i], coupling.columns[j])]
        given[(source, target)] = anndata.AnnData(sparse.csr_matrix(plan), obs=index[0], var=index[1])
    k = n_neighbours(min(int((phase == at).sum()) for at in phases))
    with _silence():
        kernel: Any = RealTimeKernel(holder, time_key="time", couplings=given).compute_transition_matrix(
            threshold=None,
            self_transitions="all",
            conn_weight=CONN_WEIGHT,
            conn_kwargs={"n_neighbors": k, "use_rep": "X_pca", "method": "gauss"},
        )
        if np.isfinite(order[rows]).all():
            parts = [neighbours.neighbour_weights(points[rows][phase == at], k + 1) for at in phases]
            where = np.concatenate([np.flatnonzero(phase == at) for at in phases])
            back = np.argsort(where)
            within = sparse.block_diag(parts, format="csr")[back][:, back]
            holder.obsp["connectivities"] = sparse.csr_matrix(within)
            holder.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"n_neighbors": k, "method": "umap"}}
            holder.obs["ct_pseudotime"] = 1.0 - order[rows]
            inner = PseudotimeKernel(holder, time_key="ct_pseudotime").compute_transition_matrix(
                threshold_scheme="soft", n_jobs=1, backend="threading", show_progress_bar=False
            )
            kernel = ((1 - CYTOTRACE_WEIGHT) * kernel + CYTOTRACE_WEIGHT * inner).compute_transition_matrix()
    matrix = sparse.csr_matrix(kernel.transition_matrix, dtype=np.float64)
    matrix.sort_indices()
    return matrix


def states(matrix: sparse.csr_matrix, labels: np.ndarray, keep: np.ndarray, n_states: int | None = None) -> States:
    """Macrostates of the last phase by GPCCA, terminal ones among them, and fate probabilities of all kept cells.

    The Schur decomposition (brandts) is that of the last phase's block: the chain never leaves it, so the eigenvalues near one
    of the whole matrix are those of this block, at a ninth of the cost for three phases.

    Parameters
    ----------
    matrix
        kept cells x kept cells, of `chain`.
    labels, keep
        over all cells.
    n_states
        number of macrostates; None = by the largest gap between successive eigenvalues, 2 to 10.
    """
    import anndata

    _quiet()
    from cellrank.estimators import GPCCA
    from cellrank.kernels import PrecomputedKernel

    rows = np.flatnonzero(keep)
    last = np.flatnonzero(labels[rows] == labels[rows].max())
    block = matrix[last][:, last].toarray()
    block /= block.sum(axis=1, keepdims=True)
    names = np.array([f"{at:07d}" for at in range(len(rows))])

    def holder(index: np.ndarray) -> anndata.AnnData:
        return anndata.AnnData(sparse.csr_matrix((len(index), 1), dtype=np.float32), obs=pd.DataFrame(index=index))

    with _silence():
        estimator = GPCCA(PrecomputedKernel(sparse.csr_matrix(block), adata=holder(names[last])))
        estimator.compute_schur(n_components=min(2 * MAX_STATES, len(last) - 1), method="brandts", verbose=False)
        eigen = np.asarray(estimator.eigendecomposition["D"])
        count = n_states or _by_gap(eigen)
        if count is None:
            return nothing(len(labels), "no gap between the eigenvalues of the last phase without splitting a complex pair")
        size = int(np.clip(len(last) // (2 * count), 1, STATE_CELLS))
        try:
            estimator.compute_macrostates(n_states=count, n_cells=size)
        except ValueError as error:  # a complex pair would be split, a state without cells
            if not REFUSALS.search(str(error)):
                raise
            return nothing(len(labels), f"GPCCA finds no {count} macrostates ({' '.join(str(error).split())[:160]})")
        membership = np.asarray(estimator.macrostates_memberships.X)
        stability = np.diag(np.asarray(estimator.coarse_T))
        assignment = estimator.macrostates
        listed = list(assignment.cat.categories)
        most = membership.argmax(axis=1)
        terminal = stability >= STABILITY
        sizes = np.bincount(most, minlength=len(listed))
        # terminal ones first, then by size, then by the first cell
        first = [int(np.flatnonzero(most == at)[0]) if sizes[at] else len(last) for at in range(len(listed))]
        order = sorted(range(len(listed)), key=lambda at: (not terminal[at], -sizes[at], first[at]))
        stand_for = tuple(np.flatnonzero((assignment == listed[at]).to_numpy()) for at in order)
        new = {old: at for at, old in enumerate(order)}
        assigned = np.full(len(labels), -1)
        assigned[rows[last]] = [new[at] for at in most]
        terminal, stability = terminal[order], stability[order]
        called = tuple(f"F{at + 1}" for at in range(len(order)))
        ends = [at for at in range(len(order)) if terminal[at]]
        probability = np.full((len(labels), len(ends)), np.nan)
        reason = ""
        if not ends:
            best = f"the most stable of {count} macrostates keeps its cells with probability {stability.max():.3f}"
            reason = f"{best}, {STABILITY} needed"
        else:
            whole = GPCCA(PrecomputedKernel(matrix, adata=holder(names)))
            whole.set_terminal_states({called[at]: names[last[stand_for[at]]].tolist() for at in ends})
            whole.compute_fate_probabilities(
                solver="direct", use_petsc=False, n_jobs=1, backend="threading", show_progress_bar=False
            )
            found = whole.fate_probabilities
            columns = [list(found.names).index(called[at]) for at in ends]
            probability[rows] = np.asarray(found.X)[:, columns]
    return States(called, terminal, stability, tuple(rows[last[at]] for at in stand_for), assigned, probability, reason)


def _by_gap(eigen: np.ndarray) -> int | None:
    """Number of states 2..MAX_STATES before the largest gap of the real parts; None where every gap splits a complex pair."""
    real = eigen.real
    allowed = [
        n for n in range(2, min(MAX_STATES, len(eigen) - 1) + 1)
        if not (abs(eigen[n - 1].imag) > 1e-10 and np.isclose(eigen[n - 1], np.conj(eigen[n])))
    ]  # fmt: skip
    gaps = [real[n - 1] - real[n] for n in allowed]
    return allowed[int(np.argmax(gaps))] if allowed else None


def _quiet() -> None:
    """Before CellRank is imported: no progress bars (tqdm reads this at import)."""
    os.environ.setdefault("TQDM_DISABLE", "1")


@contextmanager
def _silence() -> Iterator[None]:
    """CellRank without its log, and without the warnings that its versions of other packages raise."""
    from cellrank import settings

    verbosity, settings.verbosity = settings.verbosity, 0
    try:
        with warnings.catch_warnings():
            for text in (".*Transforming to str index.*", ".*petsc4py.*", ".*is deprecated.*", ".*implicit modification.*"):
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        settings.verbosity = verbosity


def likeness(graph: sparse.csr_matrix, state_cells: Sequence[np.ndarray]) -> np.ndarray:
    """Likeness of every cell to each terminal state, by walks on the neighbour graph of all cells; rows sum to 1.

    The chance that a random walk meets the cells of one state before those of the others. Phases take no part in the walk, so
    that the figure of a cell stays the same when phases are permuted. Cells that no walk leads out of have equal parts.
    """
    from scipy import linalg

    n, k = graph.shape[0], len(state_cells)
    ends = np.concatenate(state_cells)
    target = np.concatenate([np.full(len(cells), at) for at, cells in enumerate(state_cells)])
    out = np.full((n, k), 1 / k)
    out[ends] = np.eye(k)[target]
    degree = np.asarray(graph.sum(axis=1), dtype=np.float64).ravel()
    walk = (sparse.diags(np.divide(1.0, degree, out=np.zeros_like(degree), where=degree > 0)) @ graph).tocsr()
    rest = np.setdiff1d(np.arange(n), ends)
    if len(rest):
        leak = 1e-9  # towards equal parts: keeps the system solvable where a piece of the graph holds no state
        system = np.eye(len(rest)) - (1 - leak) * walk[rest][:, rest].toarray()
        right = (1 - leak) * (walk[rest][:, ends] @ out[ends]) + leak / k
        out[rest] = linalg.solve(system, right)
    return out / out.sum(axis=1, keepdims=True)


# --- statistics and null ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cells:
    """Everything about the cells that does not depend on their phases.

    Attributes
    ----------
    cost
        cells x cells, of `relative_cost`.
    points
        cells x components.
    groups
        by kind (clone, epi_cluster, cytotrace_third): label of each cell, "" where none.
    cytotrace
        score of each cell.
    diffusion
        of the graph of all cells.
    likeness
        cells x terminal states (no column where there are fewer than two).
    fates
        names of these states.
    """

    cost: np.ndarray
    points: np.ndarray
    groups: dict[str, np.ndarray]
    cytotrace: np.ndarray
    diffusion: Diffusion
    likeness: np.ndarray
    fates: tuple[str, ...]

    @property
    def clone(self) -> np.ndarray:
        return self.groups[GROUP_CLONE]


def thirds(score: np.ndarray) -> np.ndarray:
    """CytoTRACE in three groups of equal size over all cells of the patient; "" where there is no score."""
    out = np.full(len(score), "", dtype=object)
    known = np.isfinite(score)
    if known.any():
        low, high = np.quantile(score[known], [1 / 3, 2 / 3])
        out[known] = np.where(score[known] <= low, DIFFERENTIATED, np.where(score[known] <= high, MIDDLE, EARLY))
    return out.astype(str)


Row = tuple[str, int, int, str, str, str]  # measure, phase from, phase to, group kind, group, fate


def rows_of_interest(cells: Cells, labels: np.ndarray, rules: Rules) -> list[Row]:
    """What is tested, by the true phases, in a fixed order."""
    last = int(labels.max())
    made: list[Row] = []
    # within one clone its resemblance has the mean 0
    kinds = [GROUP_THIRD, GROUP_STATE] if rules.within_clone else [GROUP_THIRD, GROUP_STATE, GROUP_CLONE]
    for a, b in phase_pairs(last + 1):
        made += [(DIRECTION, a, b, GROUP_ORDER, name, LATER) for name in ("cytotrace", "pseudotime")]
        for kind in kinds:
            made += [(RESEMBLANCE, a, b, kind, name, LATER) for name in sorted({*cells.groups[kind][labels == a]} - {""})]
    for kind in (GROUP_CLONE, GROUP_THIRD, GROUP_STATE):
        for name in sorted({*cells.groups[kind][labels == 0]} - {""}):
            made += [(PROBABILITY, 0, last, kind, name, fate) for fate in cells.fates]
    return made


def statistics(
    cells: Cells, labels: np.ndarray, rules: Rules, wanted: Sequence[Row]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every row of interest under one assignment of phases: value (NaN where it does not exist), cells, Spearman's rho.

    resemblance: mean over the group's cells of `Coupling.resemblance`, 0 = as all cells of the same clone.
    direction: `slope` of that figure on CytoTRACE or on the pseudotime (its root is sought anew).
    fate_probability: mean over the group's cells of likeness to a state, carried back through the successive couplings.
    Cells of clones that are not found in both phases are left out: no permutation within clones can say anything of them.
    """
    last = int(labels.max())
    made = {pair: couple(cells.cost, labels, cells.clone, pair, rules) for pair in phase_pairs(last + 1)}
    order = {"cytotrace": cells.cytotrace, "pseudotime": pseudotime(cells.diffusion, root_cell(cells.points, labels, 0, last))}
    nearness = {pair: coupling.resemblance() for pair, coupling in made.items()}
    whole = made.get((0, last), made[(0, 1)])
    # rounded: where a fate is certain, differences of 1e-9 are those of the solver
    back = np.round(carried(cells.likeness, [made[(at, at + 1)] for at in range(last)], labels), 6)
    back[whole.rows[whole.block <= 0]] = np.nan
    values, sizes, rhos = [], [], []
    for measure, a, b, kind, name, fate in wanted:
        rows, near = made[(a, b)].rows, nearness[(a, b)]
        if measure == DIRECTION:
            values.append(slope(near, order[name][rows]))
            rhos.append(spearman(near, order[name][rows]))
            sizes.append(int((np.isfinite(near) & np.isfinite(order[name][rows])).sum()))
            continue
        mine = cells.groups[kind][rows] == name
        found = near[mine] if measure == RESEMBLANCE else back[rows[mine], cells.fates.index(fate)]
        found = found[np.isfinite(found)]
        values.append(found.mean() if len(found) else np.nan)
        sizes.append(len(found))
        rhos.append(np.nan)
    return np.array(values, dtype=float), np.array(sizes, dtype=int), np.array(rhos, dtype=float)


def carried(values: np.ndarray, couplings: Sequence[Coupling], labels: np.ndarray) -> np.ndarray:
    """Values of the last phase's cells carried back to earlier cells by the rows of successive couplings; NaN without way."""
    out = np.full(values.shape, np.nan)
    final = labels == labels.max()
    out[final] = values[final]
    for coupling in reversed(couplings):
        known = np.isfinite(out[coupling.columns]).all(axis=1)
        plan = coupling.plan[:, known]
        mass = plan.sum(axis=1, keepdims=True)
        moved = plan @ out[coupling.columns[known]]
        out[coupling.rows] = np.divide(moved, mass, out=np.full(moved.shape, np.nan), where=mass > 0)
    return out


def slope(y: np.ndarray, x: np.ndarray) -> float:
    """Change of y per standard deviation of the ranks of x; NaN as in `spearman`.

    A correlation will not do for a test: where all variation lies along one path, the slightest chance shift between the phases
    gives correlations near 1 or -1 under the null too. The slope keeps the size of the shift.
    """
    from scipy import stats

    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < MIN_GROUP or np.ptp(x[both]) == 0:
        return np.nan
    ranks = stats.rankdata(x[both])
    return float(np.mean((ranks - ranks.mean()) / ranks.std() * y[both]))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho over the cells that have both; NaN below MIN_GROUP cells or for constant values."""
    from scipy import stats

    both = np.isfinite(x) & np.isfinite(y)
    if both.sum() < MIN_GROUP or np.ptp(x[both]) == 0 or np.ptp(y[both]) == 0:
        return np.nan
    a, b = stats.rankdata(x[both]), stats.rankdata(y[both])
    return float(np.corrcoef(a, b)[0, 1])


def permuted(labels: np.ndarray, clone: np.ndarray, rules: Rules, rng: np.random.Generator) -> np.ndarray:
    """Phases shuffled among the cells of each clone, which keeps its numbers of cells; among all where clones do not count."""
    out = labels.copy()
    if not rules.within_clone:
        return rng.permutation(labels)
    for name in sorted(set(clone)):
        mine = np.flatnonzero(clone == name)
        out[mine] = rng.permutation(labels[mine])
    return out


def null_summary(value: float, null: np.ndarray) -> tuple[float, float, float, float, int]:
    """Mean, 2.5 % and 97.5 % quantile of the null, two-sided p = (b + 1)/(B + 1), B.

    b counts null values at least as far from the centre as the observed one; the centre is the mean of null and observed value
    together, which keeps p exact (every one of the B + 1 values is treated alike).
    """
    null = null[np.isfinite(null)]
    if not len(null) or not np.isfinite(value):
        return np.nan, np.nan, np.nan, np.nan, len(null)
    centre = (null.sum() + value) / (len(null) + 1)
    beyond = int((np.abs(null - centre) >= abs(value - centre) * (1 - 1e-12)).sum())
    low, high = np.quantile(null, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(null.mean()), float(low), float(high), (beyond + 1) / (len(null) + 1), len(null)


def fate_tests(
    patient: str, cells: Cells, labels: np.ndarray, phases: Sequence[str], rules: Rules, n_null: int, seed: int,
    cellrank: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """fate_tests.tsv: every row of interest for the data and, with the same null, for one permutation taken as data.

    Parameters
    ----------
    cellrank
        cells x states of `cells.fates`: CellRank's fate probabilities, listed beside the statistic that is permuted.
    """
    from scresist import comparison

    wanted = rows_of_interest(cells, labels, rules)
    rng = np.random.default_rng([seed, 1])
    control = permuted(labels, cells.clone, rules, rng)
    null = np.array([statistics(cells, permuted(labels, cells.clone, rules, rng), rules, wanted)[0] for _ in range(n_null)])
    null = null.reshape(n_null, len(wanted))
    made = []
    for name, given in ((DATA, labels), (CONTROL, control)):
        for at, (row, value, n_cells, rho) in enumerate(zip(wanted, *statistics(cells, given, rules, wanted), strict=True)):
            measure, a, b, kind, group, fate = row
            enough = n_cells >= MIN_GROUP and np.isfinite(value)
            mean, low, high, p, n = null_summary(value if enough else np.nan, null[:, at])
            listed = np.nan
            if measure == PROBABILITY and name == DATA and enough:
                column = cellrank[(given == a) & (cells.groups[kind] == group), cells.fates.index(fate)]
                listed = float(np.nanmean(column)) if np.isfinite(column).any() else np.nan
            made.append(
                {
                    "patient": patient, "control": name, "measure": measure, "phase_from": phases[a], "phase_to": phases[b],
                    "group_kind": kind, "group": group, "fate": fate if fate == LATER else f"{patient}.{fate}",
                    "n_cells": n_cells, "value": value if enough else np.nan, "value_name": VALUE_NAMES[measure],
                    "null_mean": mean, "null_low": low, "null_high": high, "n_null": n, "p_value": p,
                    "p_min_attainable": 1 / (n_null + 1), "spearman": rho if enough else np.nan, "cellrank_mean": listed,
                    "unit": UNIT, "evidence": keys.CELL_LEVEL, "status": keys.OK if np.isfinite(p) else keys.NOT_ESTIMABLE,
                }
            )  # fmt: skip
    frame = pd.DataFrame(made, columns=list(FATE_TEST_COLUMNS))
    frame["adjust_method"] = "BH:groups x phases"
    frame["p_adjusted"] = np.nan
    for _, part in frame.groupby(["control", "measure", "group_kind"], sort=False):
        frame.loc[part.index, "p_adjusted"] = comparison.adjust(part["p_value"].to_numpy(dtype=float))
    return frame


# --- genes and descriptions -------------------------------------------------------------------------------------------


def drivers(x: sparse.csr_matrix, genes: Sequence[str], values: np.ndarray, clone: np.ndarray) -> pd.DataFrame:
    """Genes whose expression goes with a per-cell value, within clones: correlation, Fisher's interval and p, BH over genes.

    Expression and value are centred on the mean of the cell's clone, because genes on a gained arm would lead the list otherwise.
    Columns gene, correlation, ci_low, ci_high, n_cells, n_genes, p_value, p_adjusted; genes without variance are left out.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    values
        of the same cells; cells without value are left out.
    """
    from scipy import stats

    from scresist import comparison

    known = np.isfinite(values)
    x, values, clone = sparse.csr_matrix(x)[np.flatnonzero(known)].astype(np.float64), values[known], clone[known]
    names, code = np.unique(clone.astype(str), return_inverse=True)
    n, free = len(values), len(values) - (len(names) - 1) - 3
    empty = pd.DataFrame(columns=["gene", "correlation", "ci_low", "ci_high", "n_cells", "n_genes", "p_value", "p_adjusted"])
    if free < 1 or np.ptp(values) == 0:
        return empty
    mark = sparse.csr_matrix((np.ones(n), (code, np.arange(n))), shape=(len(names), n))
    size = np.bincount(code).astype(float)
    centred = values - (np.bincount(code, weights=values) / size)[code]
    sums = np.asarray((mark @ x).todense())
    squares = np.asarray(x.multiply(x).sum(axis=0)).ravel() - (sums**2 / size[:, None]).sum(axis=0)
    spread = np.sqrt(np.maximum(squares, 0) * (centred @ centred))
    seen = spread > 1e-9
    if not seen.any():
        return empty
    rho = np.clip((np.asarray(x.T @ centred).ravel()[seen]) / spread[seen], -1 + 1e-12, 1 - 1e-12)
    z, se = np.arctanh(rho), 1 / np.sqrt(free)
    half = stats.norm.ppf(0.5 + LEVEL / 2) * se
    p = np.maximum(2 * stats.norm.sf(np.abs(z) / se), 1e-300)
    frame = pd.DataFrame(
        {
            "gene": np.asarray(genes, dtype=object)[seen], "correlation": rho, "ci_low": np.tanh(z - half),
            "ci_high": np.tanh(z + half), "n_cells": n, "n_genes": int(seen.sum()), "p_value": p,
            "p_adjusted": comparison.adjust(p),
        }
    )  # fmt: skip
    return frame.iloc[np.lexsort((frame["gene"].to_numpy(dtype=str), -frame["correlation"].to_numpy()))].reset_index(drop=True)


def top_drivers(patient: str, fate: str, found: pd.DataFrame, most: int = TOP_DRIVERS) -> pd.DataFrame:
    """The strongest genes of each sign as rows of fate_drivers.tsv; rank 1, 2, .. from above, -1, -2, .. from below."""
    up = found[found["correlation"] > 0].head(most)
    down = found[found["correlation"] < 0].tail(most).iloc[::-1]
    both = pd.concat([up.assign(rank=np.arange(1, len(up) + 1)), down.assign(rank=-np.arange(1, len(down) + 1))])
    both = both.assign(patient=patient, fate=fate, adjust_method="BH:genes", unit=UNIT, evidence=keys.CELL_LEVEL)
    return both[list(DRIVER_COLUMNS)].reset_index(drop=True)


def describe_states(patient: str, found: States, labels: dict[str, np.ndarray], modules: pd.DataFrame | None) -> pd.DataFrame:
    """macrostates.tsv: what the cells of each macrostate are.

    Parameters
    ----------
    labels
        clone, epi_cluster and subtype of every cell, "" where none.
    modules
        module scores of the same cells, or None; a state is described by the module whose mean lies highest, in sd of all cells.
    """
    made = []
    for at, name in enumerate(found.names):
        mine = np.flatnonzero(found.assigned == at)
        row: dict[str, Any] = {
            "patient": patient, "state": f"{patient}.{name}", "terminal": bool(found.terminal[at]), "n_cells": len(mine),
            "stability": found.stability[at],
        }  # fmt: skip
        for kind, values in labels.items():
            here = pd.Series(values[mine], dtype=object)
            counts = here[here != ""].value_counts()
            top = sorted(counts.index[counts == counts.max()])[0] if len(counts) else ""
            row[f"top_{kind}"] = top
            row[f"top_{kind}_share"] = counts[top] / len(mine) if len(counts) else np.nan
        row["top_module"], row["top_module_z"] = "", np.nan
        if modules is not None and modules.shape[1] and len(mine):
            values = modules.to_numpy(dtype=float)
            spread = np.nanstd(values, axis=0)
            z = (np.nanmean(values[mine], axis=0) - np.nanmean(values, axis=0)) / np.where(spread > 0, spread, np.nan)
            if np.isfinite(z).any():
                best = int(np.nanargmax(z))
                row["top_module"], row["top_module_z"] = str(modules.columns[best]), float(z[best])
        made.append(row)
    return pd.DataFrame(made, columns=list(MACRO_COLUMNS))


# --- pictures ---------------------------------------------------------------------------------------------------------


def picture(
    patient: str, xy: np.ndarray, phase: np.ndarray, colours: dict[str, str], score: np.ndarray, nearness: np.ndarray,
    fate: np.ndarray, last: str,
) -> bytes:  # fmt: skip
    """The patient's cells four times: by phase, CytoTRACE, resemblance to the last phase, and fate; PNG.

    Parameters
    ----------
    xy
        cells x 2.
    colours
        phase -> colour, in order.
    nearness
        NaN in the last phase.
    fate
        name per cell, "" where none.
    """
    from scresist import figures

    figure, grid = figures.plt.subplots(2, 2, figsize=(8.6, 6.6), layout="constrained", sharex=True, sharey=True)
    order = figures.drawing_order(len(xy))
    size = float(np.clip(6_000 / max(len(xy), 1), 2.0, 12.0))

    def by_name(axes: Any, title: str, names: np.ndarray, palette: dict[str, str]) -> None:
        point = np.array([palette.get(name, figures.PALE) for name in names], dtype=object)
        axes.scatter(xy[order, 0], xy[order, 1], c=list(point[order]), s=size, linewidths=0, rasterized=True)
        for name, colour in palette.items():
            axes.scatter([], [], c=colour, s=30, label=f"{name} (n = {int((names == name).sum()):,})")
        axes.set_title(title, fontsize=10, loc="left", color=figures.TEXT)
        if palette:
            axes.legend(fontsize=7.5, frameon=False, loc="best")

    def by_value(axes: Any, title: str, values: np.ndarray, unit: str, scale: str, limit: tuple[float, float]) -> None:
        known = np.isfinite(values)
        axes.scatter(xy[~known, 0], xy[~known, 1], c=figures.PALE, s=size, linewidths=0, rasterized=True)
        mine = order[known[order]]
        dots = axes.scatter(
            xy[mine, 0], xy[mine, 1], c=values[mine], cmap=scale, vmin=limit[0], vmax=limit[1], s=size, linewidths=0,
            rasterized=True,
        )  # fmt: skip
        axes.set_title(f"{title} (n = {int(known.sum()):,})", fontsize=10, loc="left", color=figures.TEXT)
        bar = figure.colorbar(dots, ax=axes, shrink=0.75, pad=0.01)
        bar.set_label(unit, fontsize=8)
        bar.ax.tick_params(labelsize=7.5)

    by_name(grid[0, 0], "Phase of therapy", phase, colours)
    by_value(grid[0, 1], "CytoTRACE", score, "0 differentiated to 1 early", "cividis", (0.0, 1.0))
    known = np.abs(nearness[np.isfinite(nearness)])
    most = float(np.quantile(known, 0.98)) if len(known) else 1.0
    limit = max(most, 1e-6)
    by_value(grid[1, 0], f"Resemblance to {last} cells", nearness, "log2 ratio, 0 = as the clone", "PuOr_r", (-limit, limit))
    fates = sorted(set(fate) - {""})
    by_name(grid[1, 1], "Fate (state resembled most)" if fates else "No terminal state", fate, figures.colours(fates))
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.supxlabel("component 1 (no unit)", fontsize=9, color=figures.TEXT)
    figure.supylabel("component 2 (no unit)", fontsize=9, color=figures.TEXT)
    figure.suptitle(f"{patient}: {len(xy):,} tumour cells", fontsize=11, color=figures.TEXT, x=0.01, ha="left")
    return figures.png(figure)


def note(text: str) -> bytes:
    """A small PNG that says why there is no other; without matplotlib, whose import takes longer than a skipped patient."""
    import textwrap

    from PIL import Image, ImageDraw, ImageFont

    lines = textwrap.wrap(text, 95) or [""]
    image = Image.new("L", (640, 16 + 18 * len(lines)), 255)
    font = ImageFont.load_default(size=12)
    for at, line in enumerate(lines):
        ImageDraw.Draw(image).text((10, 8 + 18 * at), line, fill=34, font=font)
    content = io.BytesIO()
    image.save(content, format="PNG", optimize=True)
    return content.getvalue()
