"""Communication probabilities between groups of cells: CellChat's model (Jin 2021, doi:10.1038/s41467-021-21246-9).

Trimean per group, geometric mean over the subunits of a complex, Hill function of ligand times receptor, agonists, antagonists
and co-receptors, p by permuted labels. Rows of `values` are cells, columns are `Pairs.genes`; groups are codes 0 .. n_groups - 1.
The quantiles of a group need only the largest values of each gene, so that each gene is sorted once and a permutation walks down
its values above zero. Counts of permutations are whole numbers: neither threads nor their order change a p value.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numba
import numpy as np
import pandas as pd
from scipy import sparse

from scresist.io import InputError

KH = 0.5  # half-saturation of the Hill function, CellChat's computeCommunProb
HILL = 1.0  # its exponent
PATHWAY_CUT = 0.05  # pairs with p up to this enter pathway sums and strengths, CellChat's computeCommunProbPathway
REQUIRED = ("pair", "pathway", "ligand", "receptor", "ligand_genes", "receptor_genes")
COFACTORS = ("agonist", "antagonist", "co_a", "co_i")
OPTIONAL = ("annotation", *COFACTORS, "version", "licence")
SEPARATOR = ","  # between the genes of one cell of the table
SHOWN = 20  # problems listed in a message
LIANA_SHARE = 0.02  # of the genes of its resource LIANA wants measured (assert_covered)
LIANA_SCORES = (
    "lr_means", "cellphone_pvals", "expr_prod", "scaled_weight", "lr_logfc", "spec_weight", "lrscore", "specificity_rank",
    "magnitude_rank",
)  # fmt: skip
NEVER = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Pairs:
    """The pairs whose ligand and receptor were measured.

    Attributes
    ----------
    table
        one row per pair: pair, pathway, annotation, ligand, receptor, ligand_genes, receptor_genes; sorted by pair.
    genes
        every gene of the interaction table that was measured, cofactors and genes of dropped pairs included, sorted.
    ligand, receptor, agonist, antagonist, co_a, co_i
        int32 pairs x most genes of a row: indices into `genes`, padded with -1.
    dropped
        pairs of the table that lack a subunit.
    """

    table: pd.DataFrame
    genes: tuple[str, ...]
    ligand: np.ndarray
    receptor: np.ndarray
    agonist: np.ndarray
    antagonist: np.ndarray
    co_a: np.ndarray
    co_i: np.ndarray
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def take(self, rows: np.ndarray) -> Pairs:
        """Some pairs (mask or indices), the genes as they are: scaling must not depend on a choice of pairs."""
        names = ("ligand", "receptor", *COFACTORS)
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True), **{n: getattr(self, n)[rows] for n in names})


@dataclass(frozen=True)
class Ranked:
    """Values above zero gene by gene, largest first: `cells` (row of each), `values`, `indptr` (first of each gene)."""

    cells: np.ndarray
    values: np.ndarray
    indptr: np.ndarray
    n_cells: int


def gene_list(text: object) -> tuple[str, ...]:
    """Genes of one cell of the table: names separated by commas, each once, in their order."""
    if text is None or (isinstance(text, float) and np.isnan(text)):
        return ()
    return tuple(dict.fromkeys(part.strip() for part in str(text).split(SEPARATOR) if part.strip()))


def check_table(frame: pd.DataFrame, name: str = "the pair table") -> pd.DataFrame:
    """The pair table with every column as text, cofactor columns added where absent, sorted by pair.

    Raises
    ------
    InputError
        naming every missing column, every pair without genes or name and every pair that occurs twice.
    """
    problems = [
        f"no column `{column}`; columns are {', '.join(map(str, frame.columns))}" for column in REQUIRED if column not in frame
    ]
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems) + f"\n  Expected {', '.join((*REQUIRED, *OPTIONAL))}")
    table = pd.DataFrame({column: frame.get(column, "") for column in (*REQUIRED, *OPTIONAL)})
    table = table.fillna("").astype(str).apply(lambda column: column.str.strip())
    for column in REQUIRED:
        for row in np.flatnonzero((table[column] == "").to_numpy())[:SHOWN]:
            problems.append(f"row {row + 2}: `{column}` is empty (pair {table['pair'].iloc[row] or 'without name'})")
    twice = sorted(set(table.loc[table["pair"].duplicated() & (table["pair"] != ""), "pair"]))
    problems += [f"pair {pair} occurs more than once" for pair in twice[:SHOWN]]
    if not len(table):
        problems.append("holds no pair")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    return table.sort_values("pair", kind="stable", ignore_index=True)


def read_pairs(frame: pd.DataFrame, genes: Sequence[str]) -> Pairs:
    """The usable pairs of a table for data with `genes`; a pair that lacks a subunit leaves, an absent cofactor does not count.

    Parameters
    ----------
    frame
        columns REQUIRED (and OPTIONAL); `ligand_genes`, `receptor_genes` and the cofactors hold genes separated by commas.
    genes
        names of the measured genes, in any order.

    Raises
    ------
    InputError
        as `check_table`.
    """
    table = check_table(frame)
    lists = {c: [gene_list(text) for text in table[c]] for c in ("ligand_genes", "receptor_genes", *COFACTORS)}
    measured = set(genes) & {gene for column in lists.values() for row in column for gene in row}
    names = tuple(sorted(measured))
    at = {gene: index for index, gene in enumerate(names)}
    usable = np.array(
        [
            all(g in at for g in (*ligand, *receptor))
            for ligand, receptor in zip(lists["ligand_genes"], lists["receptor_genes"], strict=True)
        ]
    )
    kept = np.flatnonzero(usable)

    def indices(column: str) -> np.ndarray:
        rows = [[at[gene] for gene in lists[column][row] if gene in at] for row in kept]
        out = np.full((len(rows), max((len(row) for row in rows), default=0)), -1, dtype=np.int32)
        for row, found in enumerate(rows):
            out[row, : len(found)] = found
        return out

    columns = ["pair", "pathway", "annotation", "ligand", "receptor", "ligand_genes", "receptor_genes"]
    return Pairs(
        table=table.loc[kept, columns].reset_index(drop=True),
        genes=names,
        ligand=indices("ligand_genes"),
        receptor=indices("receptor_genes"),
        **{column: indices(column) for column in COFACTORS},
        dropped=int((~usable).sum()),
    )


def scale(values: sparse.spmatrix) -> sparse.csr_matrix:
    """Values divided by their maximum over all cells and genes given; unchanged when all are zero. Float64.

    Raises
    ------
    ValueError
        when a value is negative or not finite.
    """
    out = sparse.csr_matrix(values, dtype=np.float64)
    if out.nnz and not (np.isfinite(out.data).all() and out.data.min() >= 0):
        raise ValueError("values must be finite and not negative")
    top = out.data.max() if out.nnz else 0.0
    return sparse.csr_matrix((out.data / top, out.indices, out.indptr), out.shape) if top > 0 else out


def rank(values: sparse.spmatrix) -> Ranked:
    """Sort each gene's values above zero once, for any number of calls of `trimean_by_group` with other labels.

    Raises
    ------
    ValueError
        when a value is negative or not finite: values not stored count as zero and must be the smallest.
    """
    columns = sparse.csc_matrix(values, dtype=np.float64, copy=True)
    columns.sum_duplicates()
    columns.eliminate_zeros()
    if columns.nnz and not (np.isfinite(columns.data).all() and columns.data.min() >= 0):
        raise ValueError("values must be finite and not negative")
    cells, data = columns.indices.astype(np.int32), columns.data
    for first, last in pairwise(columns.indptr):
        order = np.argsort(-data[first:last])
        cells[first:last], data[first:last] = cells[first:last][order], data[first:last][order]
    return Ranked(cells=cells, values=data, indptr=columns.indptr.astype(np.int64), n_cells=columns.shape[0])


def _places(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which values of a group make its trimean, from the largest down: steps from one to the next, and weights; 6 per group.

    (Q1 + 2 Q2 + Q3) / 4 with quantile type 7: the quantile q of n values lies at (n - 1) q of the ascending order, between
    two values in proportion.
    """
    steps = np.full((len(sizes), 6), NEVER, dtype=np.int32)
    weights = np.zeros((len(sizes), 6))
    for group, n in enumerate(sizes):
        found: dict[int, float] = {}
        for quantile, share in ((0.75, 0.25), (0.5, 0.5), (0.25, 0.25)):
            at = (n - 1) * quantile
            low = int(np.floor(at))
            for index, weight in ((low + 1, at - low), (low, 1 - (at - low))):
                if n and weight > 0:
                    found[int(n) - index] = found.get(int(n) - index, 0.0) + share * weight
        keys = sorted(found)  # ranks, 1 = largest
        steps[group, : len(keys)] = np.diff([0, *keys])
        weights[group, : len(keys)] = [found[key] for key in keys]
    return steps, weights


@numba.njit(cache=True, nogil=True)
def _trimeans(indptr, cells, values, codes, steps, weights, out):  # pragma: no cover - compiled
    """Walk down each gene's values; `left` counts what remains to the next place of the group. Code n_groups = in none."""
    n_groups, n_genes = out.shape
    place = np.zeros(n_groups, dtype=np.int32)
    left = np.full(n_groups + 1, NEVER, dtype=np.int32)
    nearest = steps[:, 0].min() if n_groups else NEVER
    for gene in range(n_genes):
        out[:, gene] = 0.0
        first, last = indptr[gene], indptr[gene + 1]
        if last - first < nearest:
            continue
        for group in range(n_groups):
            place[group] = 0
            left[group] = steps[group, 0]
        left[n_groups] = NEVER
        for at in range(first, last):
            group = codes[cells[at]]
            left[group] -= 1
            if left[group] == 0:
                out[group, gene] += weights[group, place[group]] * values[at]
                place[group] += 1
                left[group] = steps[group, place[group]] if place[group] < 6 else NEVER


def _compact(codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Codes with n_groups for cells in no group, in the smallest integers that hold them: they are looked up at random."""
    kind = np.int8 if n_groups < 127 else np.int32
    return np.where(codes < 0, n_groups, codes).astype(kind)


def trimean_by_group(values: sparse.spmatrix | Ranked, codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Trimean (Q1 + 2 Q2 + Q3) / 4 of each gene in each group, zeros included, quantiles of type 7; groups x genes, float64.

    Parameters
    ----------
    values
        cells x genes, not negative; or `rank(values)`, where it is needed for more than one labelling.
    codes
        group of each cell, -1 for cells in none. The row of a group without cells is NaN.
    """
    ranked = values if isinstance(values, Ranked) else rank(values)
    codes = np.ascontiguousarray(codes, dtype=np.int32)
    if len(codes) != ranked.n_cells:
        raise ValueError(f"{len(codes)} codes for {ranked.n_cells} cells")
    sizes = np.bincount(codes[codes >= 0], minlength=n_groups)
    out = np.empty((n_groups, len(ranked.indptr) - 1))
    _trimeans(ranked.indptr, ranked.cells, ranked.values, _compact(codes, n_groups), *_places(sizes), out)
    out[sizes == 0] = np.nan
    return out


@numba.njit(cache=True, nogil=True)
def _complexes(averages, index, out):  # pragma: no cover - compiled
    for pair in range(index.shape[0]):
        for group in range(averages.shape[0]):
            total, count, least = 0.0, 0, np.inf
            for place in range(index.shape[1]):
                gene = index[pair, place]
                if gene < 0:
                    break
                value = averages[group, gene]
                least = min(least, value)
                total += np.log(value) if value > 0 else 0.0
                count += 1
            if count == 1:
                out[pair, group] = averages[group, index[pair, 0]]
            elif least > 0:
                out[pair, group] = np.exp(total / count)
            else:
                out[pair, group] = 0.0


@numba.njit(cache=True, nogil=True)
def _cofactor(averages, index, kind, kh, hill, out):  # pragma: no cover - compiled
    """Multiply `out` (pairs x groups) by the factor of one kind: 0 co-activator, 1 co-inhibitor, 2 agonist, 3 antagonist."""
    half = kh**hill
    for pair in range(index.shape[0]):
        for place in range(index.shape[1]):
            gene = index[pair, place]
            if gene < 0:
                break
            for group in range(averages.shape[0]):
                value = averages[group, gene]
                if kind == 0:
                    out[pair, group] *= 1.0 + value
                elif kind == 1:
                    out[pair, group] /= 1.0 + value
                else:
                    power = value if hill == 1.0 else value**hill
                    if kind == 2:
                        out[pair, group] *= 1.0 + power / (half + power)
                    else:
                        out[pair, group] *= half / (half + power)


@numba.njit(cache=True, nogil=True)
def _probability(ligand, receptor, factor, half, hill, pair, source, target):  # pragma: no cover - compiled
    power = ligand[pair, source] * receptor[pair, target]
    if hill != 1.0:
        power = power**hill
    return power / (half + power) * (factor[pair, source] * factor[pair, target])


@numba.njit(cache=True, nogil=True)
def _fill(ligand, receptor, factor, half, hill, out):  # pragma: no cover - compiled
    for pair in range(out.shape[0]):
        for source in range(out.shape[1]):
            for target in range(out.shape[2]):
                out[pair, source, target] = _probability(ligand, receptor, factor, half, hill, pair, source, target)


@numba.njit(cache=True, nogil=True)
def _exceed(ligand, receptor, factor, half, hill, observed, active, counts):  # pragma: no cover - compiled
    for pair in range(observed.shape[0]):
        if not active[pair]:
            continue
        for source in range(observed.shape[1]):
            if ligand[pair, source] == 0.0:
                continue
            for target in range(observed.shape[2]):
                if _probability(ligand, receptor, factor, half, hill, pair, source, target) > observed[pair, source, target]:
                    counts[pair, source, target] += 1


def _sides(averages: np.ndarray, pairs: Pairs, kh: float, hill: float, cofactors: bool) -> tuple[np.ndarray, ...]:
    """Ligand, receptor (with co-receptors) and the factor of agonists and antagonists, each pairs x groups."""
    shape = (len(pairs), averages.shape[0])
    ligand, receptor, factor = np.empty(shape), np.empty(shape), np.ones(shape)
    _complexes(averages, pairs.ligand, ligand)
    _complexes(averages, pairs.receptor, receptor)
    if cofactors:
        _cofactor(averages, pairs.co_a, 0, kh, hill, receptor)
        _cofactor(averages, pairs.co_i, 1, kh, hill, receptor)
        _cofactor(averages, pairs.agonist, 2, kh, hill, factor)
        _cofactor(averages, pairs.antagonist, 3, kh, hill, factor)
    return ligand, receptor, factor


def probabilities(averages: np.ndarray, pairs: Pairs, kh: float = KH, n: float = HILL, cofactors: bool = True) -> np.ndarray:
    """P of each pair from each group (source) to each group (target): pairs x groups x groups, float64.

    P_ij = (L_i R_j)^n / (kh^n + (L_i R_j)^n) x u_i u_j x v_i v_j; L and R geometric means over subunits (0 if one is 0), R times
    prod(1 + co-activator) / prod(1 + co-inhibitor), u = prod(1 + g^n / (kh^n + g^n)) over agonists, v = prod(kh^n / (kh^n + g^n))
    over antagonists. A group without averages (NaN) has NaN. Jin 2021, no factor for the size of populations.

    Parameters
    ----------
    averages
        groups x `pairs.genes`, of scaled values.
    """
    averages = np.ascontiguousarray(averages, dtype=np.float64)
    out = np.empty((len(pairs), averages.shape[0], averages.shape[0]))
    _fill(*_sides(averages, pairs, kh, n, cofactors), kh**n, n, out)
    absent = np.isnan(averages).all(axis=1) if averages.shape[1] else np.zeros(averages.shape[0], dtype=bool)
    out[:, absent, :] = np.nan
    out[:, :, absent] = np.nan
    return out


def permutation_pvalues(
    values: sparse.spmatrix | Ranked,
    codes: np.ndarray,
    n_groups: int,
    pairs: Pairs,
    observed: np.ndarray,
    n_perms: int,
    rng: np.random.Generator,
    threads: int = 1,
    kh: float = KH,
    n: float = HILL,
    cofactors: bool = True,
) -> np.ndarray:
    """Share of label permutations with P strictly above the observed one; pairs x groups x groups; 1 where P is 0, NaN where NaN.

    One permutation serves all pairs. Labels move over all cells of `values`: cells with the code -1 (groups too small to be
    averaged) stay in the pool, as in CellChat, which drops such groups only afterwards. The result depends on the state of `rng`
    and not on `threads`.

    Parameters
    ----------
    values, codes, n_groups, kh, n, cofactors
        as for `trimean_by_group` and `probabilities` of `observed`.
    n_perms
        permutations; p is a multiple of 1 / n_perms.
    """
    ranked = values if isinstance(values, Ranked) else rank(values)
    codes = np.ascontiguousarray(codes, dtype=np.int32)
    compact = _compact(codes, n_groups)
    places = _places(np.bincount(codes[codes >= 0], minlength=n_groups))
    target = np.ascontiguousarray(np.nan_to_num(observed, nan=np.inf))  # nothing exceeds infinity
    active = (np.isfinite(target) & (target > 0)).any(axis=(1, 2))
    # Genes of pairs that are zero everywhere need no average: their p is 1
    wanted = np.zeros(len(pairs.genes), dtype=bool)
    for name in ("ligand", "receptor", *(COFACTORS if cofactors else ())):
        index = getattr(pairs, name)[active]
        wanted[index[index >= 0]] = True
    genes = np.flatnonzero(wanted)
    spans = [np.arange(ranked.indptr[gene], ranked.indptr[gene + 1]) for gene in genes]
    chosen = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum([len(span) for span in spans])]).astype(np.int64)
    cells, data = ranked.cells[chosen], ranked.values[chosen]

    def work(batch: list[np.ndarray]) -> np.ndarray:
        counts = np.zeros(observed.shape, dtype=np.int32)
        averages = np.zeros((n_groups, len(pairs.genes)))
        part = np.empty((n_groups, len(genes)))
        for shuffled in batch:
            _trimeans(indptr, cells, data, shuffled, *places, part)
            averages[:, genes] = part
            _exceed(*_sides(averages, pairs, kh, n, cofactors), kh**n, n, target, active, counts)
        return counts

    total = np.zeros(observed.shape, dtype=np.int64)
    per_round = threads * 16
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, n_perms, per_round):
            drawn = [rng.permutation(compact) for _ in range(min(per_round, n_perms - start))]
            for counts in pool.map(work, [drawn[first::threads] for first in range(threads)]):
                total += counts
    out = total / max(n_perms, 1) if n_perms else np.full(observed.shape, np.nan)
    out[observed == 0] = 1.0
    out[np.isnan(observed)] = np.nan
    return out


def pathway_sums(prob: np.ndarray, pval: np.ndarray, pairs: Pairs, cut: float = PATHWAY_CUT) -> tuple[list[str], np.ndarray]:
    """Names of the pathways, sorted, and the sum of P over their pairs with p <= `cut`: pathways x groups x groups.

    Between groups that are not estimable (P is NaN) the sum is NaN.
    """
    names, codes = np.unique(pairs.table["pathway"].to_numpy(dtype=str), return_inverse=True)
    kept = np.where(np.isnan(prob), np.nan, np.where(pval <= cut, prob, 0.0))
    out = np.zeros((len(names), *prob.shape[1:]))
    np.add.at(out, codes, kept)
    return names.tolist(), out


def any_gene(pairs: Pairs, chosen: np.ndarray) -> np.ndarray:
    """Mask of the pairs with at least one subunit of ligand or receptor among the `chosen` genes (mask over `pairs.genes`)."""
    padded = np.append(chosen, False)  # the index -1 of the padding finds it
    return padded[pairs.ligand].any(axis=1) | padded[pairs.receptor].any(axis=1)


def liana_consensus(
    x: sparse.csr_matrix,
    genes: Sequence[str],
    types: np.ndarray,
    min_cells: int,
    expr_prop: float,
    n_perms: int,
    seed: int,
    resource: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """LIANA's `rank_aggregate` with its consensus resource (Dimitrov 2022, doi:10.1038/s41467-022-30755-0), the best first.

    Parameters
    ----------
    x
        cells x all genes, log1p of counts per 10,000: one of the methods takes the mean over all of them.
    min_cells
        types with fewer cells leave (LIANA keeps >=).
    expr_prop
        least share of a type's cells with a value above zero, for each subunit.
    n_perms
        permutations; the p of CellPhoneDB and so `specificity_rank` depend on them and on `seed`, `magnitude_rank` does not.
    resource
        ligand, receptor (subunits joined by `_`); the consensus resource when not given.

    Returns
    -------
    source, target, ligand, receptor and LIANA's scores and ranks; empty where LIANA has nothing to rank: no pair is expressed by
    `expr_prop` of the cells of two types, or hardly a gene of the resource was measured (LIANA refuses below 2 %).
    """
    import anndata
    import liana

    chosen = liana.rs.select_resource("consensus") if resource is None else resource
    holder = anndata.AnnData(
        sparse.csr_matrix(x, dtype=np.float32),
        obs=pd.DataFrame({"type": pd.Categorical(types)}, index=[str(at) for at in range(len(types))]),
        var=pd.DataFrame(index=list(genes)),
    )
    if not _rankable(holder.X, np.asarray(genes), np.asarray(types), chosen, min_cells, expr_prop):
        return pd.DataFrame(columns=["source", "target", "ligand", "receptor", *LIANA_SCORES])
    holder.uns["log1p"] = {"base": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # liana 1.10 warns of deprecated calls of its own on every run
        found = liana.mt.rank_aggregate(
            holder, groupby="type", resource=chosen, expr_prop=expr_prop, min_cells=min_cells, use_raw=False, n_perms=n_perms,
            seed=seed, n_jobs=1, return_all_lrs=False, verbose=False, inplace=False,
        )  # fmt: skip
    found = found.rename(columns={"ligand_complex": "ligand", "receptor_complex": "receptor"})
    order = ["magnitude_rank", "specificity_rank", "source", "target", "ligand", "receptor"]
    found = found.astype(dict.fromkeys(order[2:], str)).sort_values(order, kind="stable", ignore_index=True)
    return found[["source", "target", "ligand", "receptor", *LIANA_SCORES]]


def _rankable(
    x: sparse.csr_matrix, genes: np.ndarray, types: np.ndarray, resource: pd.DataFrame, min_cells: int, expr_prop: float
) -> bool:
    """Whether `rank_aggregate` has at least one pair to rank and enough genes of the resource; it fails otherwise."""
    names, sizes = np.unique(types, return_counts=True)
    names = names[sizes >= min_cells]
    sides = [[tuple(text.split("_")) for text in resource[column]] for column in ("ligand", "receptor")]
    wanted = {gene for side in sides for subunits in side for gene in subunits}
    columns = np.flatnonzero(np.isin(genes, list(wanted)) & (x.getnnz(axis=0) > 0))
    if len(names) < 2 or len(columns) < LIANA_SHARE * len(wanted):
        return False
    part = x[:, columns]
    shares = np.stack([part[types == name].getnnz(axis=0) / (types == name).sum() for name in names])
    most = dict(zip(genes[columns], np.array([set(np.flatnonzero(column >= expr_prop)) for column in shares.T], dtype=object)))
    nowhere: set[int] = set()

    def somewhere(subunits: tuple[str, ...]) -> bool:
        return bool(set.intersection(*(most.get(gene, nowhere) for gene in subunits)))

    return any(somewhere(ligand) and somewhere(receptor) for ligand, receptor in zip(*sides, strict=True))
