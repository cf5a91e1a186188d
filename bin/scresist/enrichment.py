"""Gene sets against lists and rankings of genes: over-representation and preranked enrichment.

Over-representation follows clusterProfiler's convention (universe and query cut to annotated genes); preranked enrichment is
`gseapy.prerank(weight=1)`, with one null per ranking and set size instead of one per set: under permuted genes the null of the
enrichment score depends on the size of the set only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numba
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys
from scresist.comparison import adjust
from scresist.io import InputError

LEAST_P = 1e-300  # printed instead of 0: below it a tail probability is not resolved in double precision
MOST_PROBLEMS = 10  # lines of one file that an error message names
ORA_COLUMNS = ("set", "hits", "set_size", "query", "universe", "fold", "p", "padj", "genes", "status")
GSEA_COLUMNS = ("set", "set_size", "es", "nes", "p", "padj", "q_broad", "n_leading", "leading_edge", "n_permutations", "status")


# --- collections ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Collection:
    """Gene sets of one file, ready for counting.

    Attributes
    ----------
    name
        of the collection.
    sets
        names, in the order of the file.
    genes
        all genes of the collection, sorted.
    members
        sets x genes, 1 where the gene is in the set (CSR, int32, indices sorted).
    """

    name: str
    sets: np.ndarray
    genes: np.ndarray
    members: sparse.csr_matrix


def parse_gmt(text: str, name: str) -> dict[str, list[str]]:
    """Sets of a GMT file: set -> genes, each once, in their order.

    Raises
    ------
    InputError
        when the text holds no set, a line has fewer than the fields name and description, or a name stands twice.
    """
    sets: dict[str, list[str]] = {}
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 2 or not fields[0]:
            problems.append(
                f"line {number}: {line[:60]!r} has {len(fields)} field(s); expected name, description, genes, tab-separated"
            )
        elif fields[0] in sets:
            problems.append(f"line {number}: the set {fields[0]} stands twice; rename or remove one")
        else:
            sets[fields[0]] = list(dict.fromkeys(gene for gene in fields[2:] if gene))
    if not problems and not any(sets.values()):
        problems.append("no set with genes; expected one set per line: name, description, genes, tab-separated")
    if problems:
        more = [f"and {len(problems) - MOST_PROBLEMS} more"] if len(problems) > MOST_PROBLEMS else []
        raise InputError(f"{name} is no gene set collection (GMT):\n  - " + "\n  - ".join(problems[:MOST_PROBLEMS] + more))
    return sets


def collection(name: str, sets: Mapping[str, Sequence[str]]) -> Collection:
    """The incidence matrix of named gene sets; a gene counts once per set."""
    genes = np.array(sorted({gene for members in sets.values() for gene in members}), dtype=object)
    at = {gene: index for index, gene in enumerate(genes)}
    rows = [sorted({at[gene] for gene in members}) for members in sets.values()]
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = np.fromiter((index for row in rows for index in row), dtype=np.int64, count=int(indptr[-1]))
    members = sparse.csr_matrix((np.ones(len(indices), dtype=np.int32), indices, indptr), shape=(len(rows), len(genes)))
    return Collection(name, np.array(list(sets), dtype=object), genes, members)


def _places(known: Collection, genes: Sequence[str]) -> np.ndarray:
    """For each gene of the collection its place in `genes`, -1 where it is absent."""
    index = pd.Index(genes)
    if not index.is_unique:
        raise ValueError(f"gene {index[index.duplicated()][0]} stands twice")
    return index.get_indexer(known.genes)


# --- over-representation ----------------------------------------------------------------------------------------------


@numba.njit(nogil=True, cache=True)
def _upper_tail(hits, universe, sizes, query, log_factorial, out):  # pragma: no cover (compiled)
    f = log_factorial
    for i in range(len(hits)):
        h, n = hits[i], sizes[i]
        last = min(n, query)
        log_p = (
            f[n] - f[h] - f[n - h]
            + f[universe - n] - f[query - h] - f[universe - n - query + h]
            - f[universe] + f[query] + f[universe - query]
        )  # fmt: skip
        term = 1.0
        total = 1.0
        for x in range(h, last):
            term *= (n - x) / (x + 1.0) * ((query - x) / (universe - n - query + x + 1.0))
            total += term
            if term < 1e-17 * total:
                break
        out[i] = min(1.0, np.exp(log_p) * total)


def hypergeometric_tail(hits: np.ndarray, universe: int, sizes: np.ndarray, query: int) -> np.ndarray:
    """P(X >= hits) for X ~ Hypergeometric(universe, set size, query), not below 1e-300.

    Parameters
    ----------
    hits, sizes
        one per set; hits can be reached (at most the smaller of size and query, at least size + query - universe).
    universe, query
        genes in the universe and in the query.

    The first term comes from logarithms of factorials, the others from the ratio of neighbouring terms.
    """
    hits, sizes = np.asarray(hits, dtype=np.int64), np.asarray(sizes, dtype=np.int64)
    out = np.empty(len(hits))
    if len(hits):
        logs = np.log(np.arange(1, universe + 1, dtype=np.longdouble))
        log_factorial = np.concatenate([[0.0], np.cumsum(logs)]).astype(np.float64)
        # where a set and the query exceed the universe together, fewer hits than that cannot occur: the tail starts there
        least = np.maximum(hits, sizes + query - universe)
        _upper_tail(least, universe, sizes, query, log_factorial, out)
    return np.maximum(out, LEAST_P)


def over_representation(
    known: Collection,
    universe: Sequence[str],
    query: Sequence[str],
    min_size: int = 10,
    max_size: int = 500,
    min_query: int = 5,
) -> tuple[pd.DataFrame, dict[str, object]]:
    """Sets that hold more of the query than chance gives (Fisher's exact test, one-sided).

    Universe and query are cut to genes that occur in any set of the collection, set sizes (`min_size` to `max_size`) count
    after that cut, and Benjamini-Hochberg runs over the sets of that size with at least one hit: the convention of
    clusterProfiler (Yu 2012, OMICS 16:284; DOSE `enricher_internal`).

    Parameters
    ----------
    universe
        all genes that were tested, each once.
    query
        those chosen; the order of `universe` gives the order of `genes` in the result.

    Returns
    -------
    The sets with a hit by p, then name (ORA_COLUMNS), and the facts `query`, `universe`, `n_sets`, `status`, `reason`.
    """
    place = _places(known, universe)
    chosen = pd.Index(universe).get_indexer(pd.Index(list(dict.fromkeys(query))))
    if (chosen < 0).any():
        raise ValueError("the query holds genes outside the universe")
    in_query = np.zeros(len(universe) + 1, dtype=bool)
    in_query[chosen] = True
    in_query[-1] = False  # where place is -1
    inside = (place >= 0).astype(np.int32)
    hit = in_query[place].astype(np.int32)
    n_universe, n_query = int(inside.sum()), int(hit.sum())
    facts: dict[str, object] = {"query": n_query, "universe": n_universe, "n_sets": 0, "status": keys.OK, "reason": ""}
    if n_query < min_query:
        facts["status"] = keys.SKIPPED_FEW_GENES
        facts["reason"] = f"{n_query} of the {len(chosen)} chosen genes are annotated, {min_query} needed"
        return _empty(ORA_COLUMNS), facts
    sizes, hits = known.members @ inside, known.members @ hit
    used = np.flatnonzero((sizes >= min_size) & (sizes <= max_size) & (hits > 0))
    facts["n_sets"] = len(used)
    if not len(used):
        facts["status"] = keys.NOT_ESTIMABLE
        facts["reason"] = f"no set of {min_size} to {max_size} measured genes holds a chosen gene"
        return _empty(ORA_COLUMNS), facts
    p = hypergeometric_tail(hits[used], n_universe, sizes[used], n_query)
    names = np.asarray(universe, dtype=object)
    found = []
    for row in used:
        members = known.members.indices[known.members.indptr[row] : known.members.indptr[row + 1]]
        at = np.sort(place[members])
        found.append(",".join(names[at[in_query[at]]]))
    frame = pd.DataFrame(
        {
            "set": known.sets[used],
            "hits": hits[used],
            "set_size": sizes[used],
            "query": n_query,
            "universe": n_universe,
            "fold": (hits[used] / n_query) / (sizes[used] / n_universe),
            "p": p,
            "padj": adjust(p),
            "genes": found,
            "status": keys.OK,
        }
    )
    return frame.sort_values(["p", "set"], kind="stable", ignore_index=True), facts


def _empty(columns: Iterable[str]) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype=object) for name in columns})


# --- preranked enrichment ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """Genes from the highest score to the lowest, ties by name.

    Attributes
    ----------
    genes, scores
        in that order.
    """

    genes: np.ndarray
    scores: np.ndarray

    @property
    def usable(self) -> bool:
        """Whether the scores differ at all."""
        return bool(len(self.scores) > 1 and self.scores[0] > self.scores[-1])


def rank(genes: Sequence[str], scores: Sequence[float]) -> Ranking:
    """Sort genes by score, descending, ties by name; genes without a score leave.

    Raises
    ------
    ValueError
        for a gene that stands twice or an infinite score.
    """
    names, values = np.asarray(genes, dtype=object), np.asarray(scores, dtype=float)
    if np.isinf(values).any():
        raise ValueError(f"the score of {names[np.isinf(values)][0]} is infinite")
    keep = ~np.isnan(values)
    names, values = names[keep], values[keep]
    if len(set(names)) < len(names):
        raise ValueError("a gene stands twice")
    order = np.lexsort((names.astype(str), -values))
    return Ranking(names[order], values[order])


@numba.njit(nogil=True, cache=True)
def _scores(weight, indptr, positions, es, peak):  # pragma: no cover (compiled)
    n = len(weight)
    for i in range(len(es)):
        start, end = indptr[i], indptr[i + 1]
        k = end - start
        total = 0.0
        for j in range(start, end):
            total += weight[positions[j]]
        if total == 0.0 or k == n:
            es[i] = np.nan
            peak[i] = -1
            continue
        high = low = 0.0
        at_high = at_low = 0
        so_far = 0.0
        for j in range(k):
            at = positions[start + j]
            missed = (at - j) / (n - k)
            before = so_far / total - missed
            if before < low:
                low = before
                at_low = j
            so_far += weight[at]
            after = so_far / total - missed
            if after > high:
                high = after
                at_high = j
        if high > -low:
            es[i] = high
            peak[i] = at_high
        else:
            es[i] = low
            peak[i] = at_low


# No NaN or signed zero arises below; saying so lets the compiler take maxima and minima over several values at once. Sums keep
# their order, so the result does not depend on the machine's vector width.
@numba.njit(nogil=True, cache=True, fastmath={"nnan", "nsz"})
def _null_block(weight, sizes, first, last, seed, out):  # pragma: no cover (compiled)
    n = len(weight)
    largest = sizes[-1]
    order = np.arange(n)
    swapped = np.empty(largest, dtype=np.int64)
    hit = np.zeros(largest + 1)  # hit[i]: weight of the first i hits in order of rank
    miss = np.zeros(largest)  # miss[i]: genes outside the set above hit i; its rank is miss[i] + i
    for t in range(first, last):
        # splitmix64 (Steele 2014): each permutation has a stream of its own, whatever thread draws it
        state = np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(t) * np.uint64(0xD1342543DE82EF95)
        which = 0
        for k in range(largest):
            state = state + np.uint64(0x9E3779B97F4A7C15)
            z = state
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            j = k + np.int64(((z >> np.uint64(32)) * np.uint64(n - k)) >> np.uint64(32))
            gene = order[j]
            order[j] = order[k]
            order[k] = gene
            swapped[k] = j
            low, high = 0, k
            while low < high:
                middle = (low + high) // 2
                if miss[middle] + middle > gene:
                    high = middle
                else:
                    low = middle + 1
            w = weight[gene]
            for i in range(k, low, -1):
                miss[i] = miss[i - 1] - 1.0
            miss[low] = gene - low
            for i in range(k, low - 1, -1):
                hit[i + 1] = hit[i] + w
            if k + 1 == sizes[which]:
                total = hit[k + 1]
                per_miss = total / (n - k - 1)
                top = 0.0
                bottom = 0.0
                for i in range(k + 1):
                    after = hit[i + 1] - miss[i] * per_miss
                    if after > top:
                        top = after
                for i in range(k + 1):
                    before = hit[i] - miss[i] * per_miss
                    if before < bottom:
                        bottom = before
                if total == 0.0:
                    out[which, t] = 0.0
                elif top > -bottom:
                    out[which, t] = top / total
                else:
                    out[which, t] = bottom / total
                which += 1
        for k in range(largest - 1, -1, -1):
            j = swapped[k]
            gene = order[k]
            order[k] = order[j]
            order[j] = gene


def null_scores(weights: np.ndarray, sizes: Sequence[int], n_permutations: int, seed: int, threads: int = 1) -> np.ndarray:
    """Enrichment scores of random sets: for each permutation one random order of the genes, whose first k genes are the random
    set of size k.

    Parameters
    ----------
    weights
        |score| of each gene, from the first rank to the last.
    sizes
        distinct set sizes, ascending, each below the number of genes.
    seed
        of this unit; equal seeds and numbers of genes give equal orders, whatever the number of threads.

    Returns
    -------
    sizes x permutations.
    """
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    sizes = np.asarray(sizes, dtype=np.int64)
    out = np.empty((len(sizes), n_permutations))
    if not len(sizes):
        return out
    edges = np.linspace(0, n_permutations, max(1, threads) + 1).astype(int)
    blocks = list(pairwise(edges))
    if len(blocks) == 1:
        _null_block(weights, sizes, 0, n_permutations, seed, out)
    else:
        with ThreadPoolExecutor(len(blocks)) as pool:
            for done in [pool.submit(_null_block, weights, sizes, a, b, seed, out) for a, b in blocks]:
                done.result()
    return out


@dataclass(frozen=True)
class Null:
    """The null of one ranking: per set size the sorted scores of random sets and their means by sign."""

    sizes: np.ndarray
    scores: np.ndarray  # sizes x permutations, each row ascending
    first_positive: np.ndarray  # per size: place of the first score >= 0
    mean_positive: np.ndarray
    mean_negative: np.ndarray  # of the absolute scores

    def row(self, size: np.ndarray) -> np.ndarray:
        """The row of each set size."""
        return np.searchsorted(self.sizes, size)


def null(ranking: Ranking, sizes: Iterable[int], n_permutations: int = 10_000, seed: int = 0, threads: int = 1) -> Null:
    """The shared null of a ranking for all given set sizes."""
    distinct = np.array(sorted(set(map(int, sizes))), dtype=np.int64)
    scores = null_scores(np.abs(ranking.scores), distinct, n_permutations, seed, threads)
    scores.sort(axis=1)
    first = (scores < 0).sum(axis=1)
    positive = np.where(scores >= 0, scores, 0).sum(axis=1)
    negative = -np.where(scores < 0, scores, 0).sum(axis=1)
    n_positive, n_negative = n_permutations - first, first
    nothing = np.full(len(distinct), np.nan)
    return Null(
        distinct,
        scores,
        first,
        np.divide(positive, n_positive, out=nothing.copy(), where=n_positive > 0),
        np.divide(negative, n_negative, out=nothing.copy(), where=n_negative > 0),
    )


@dataclass(frozen=True)
class Measured:
    """The sets of a collection in a ranking: which, and at which ranks their genes stand."""

    rows: np.ndarray  # of the collection
    indptr: np.ndarray
    positions: np.ndarray  # ascending within each set

    @property
    def sizes(self) -> np.ndarray:
        return np.diff(self.indptr)


def measure(known: Collection, ranking: Ranking, min_size: int = 10, max_size: int = 500) -> Measured:
    """Sets with `min_size` to `max_size` ranked genes (and fewer than all of them), with the ranks of these genes."""
    place = _places(known, ranking.genes)
    sizes = known.members @ (place >= 0).astype(np.int32)
    rows = np.flatnonzero((sizes >= min_size) & (sizes <= min(max_size, len(ranking.genes) - 1)))
    indptr = np.concatenate([[0], np.cumsum(sizes[rows])]).astype(np.int64)
    positions = np.empty(int(indptr[-1]), dtype=np.int64)
    for i, row in enumerate(rows):
        at = place[known.members.indices[known.members.indptr[row] : known.members.indptr[row + 1]]]
        positions[indptr[i] : indptr[i + 1]] = np.sort(at[at >= 0])
    return Measured(rows, indptr, positions)


def enrichment_scores(ranking: Ranking, measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Enrichment score of each set and the place of its peak among the set's genes (NaN and -1 where all weights are 0).

    The running sum rises by |r| / sum of |r| over the set at each of its genes and falls by 1 / (N - set size) at each other
    gene; the score is its largest deviation from 0 (Subramanian 2005, PNAS 102:15545, weight 1).
    """
    es = np.empty(len(measured.rows))
    peak = np.empty(len(measured.rows), dtype=np.int64)
    _scores(np.abs(ranking.scores).astype(np.float64), measured.indptr, measured.positions, es, peak)
    return es, peak


def significance(es: np.ndarray, sizes: np.ndarray, against: Null) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """NES, p and Broad FDR q of each score; NaN where the score or a null of its sign is missing.

    NES = ES / mean of the null of its sign; p = (b + 1) / (n + 1) with b of the n null scores of that sign at least as far from
    0. q = share of null NES of that sign at least as extreme, over all sets and permutations, divided by that share among the
    observed ones, at most 1 (Subramanian 2005); with 1 added to both counts of the null, so that it is never 0.
    """
    nes, p, q = np.full(len(es), np.nan), np.full(len(es), np.nan), np.full(len(es), np.nan)
    n_permutations = against.scores.shape[1]
    rows = against.row(sizes)
    for i in np.flatnonzero(~np.isnan(es)):
        row = against.scores[rows[i]]
        first = against.first_positive[rows[i]]
        if es[i] >= 0:
            n, mean = n_permutations - first, against.mean_positive[rows[i]]
            b = n_permutations - max(first, np.searchsorted(row, es[i], side="left"))
        else:
            n, mean = first, against.mean_negative[rows[i]]
            b = min(first, np.searchsorted(row, es[i], side="right"))
        if n and mean > 0:
            nes[i], p[i] = es[i] / mean, (b + 1) / (n + 1)
    for positive in (True, False):
        mine = np.flatnonzero((nes >= 0) if positive else (nes < 0))
        if len(mine):
            q[mine] = _broad_q(np.abs(nes[mine]), rows[np.flatnonzero(~np.isnan(nes))], against, positive)
    return nes, p, q


def _broad_q(values: np.ndarray, rows: np.ndarray, against: Null, positive: bool) -> np.ndarray:
    """q of absolute NES of one sign; `rows` names the null of every set of the collection (a size counts once per set)."""
    order = np.sort(values)
    n_permutations = against.scores.shape[1]
    beyond, total = np.zeros(len(order)), 0.0
    for row, times in zip(*np.unique(rows, return_counts=True), strict=True):
        first = against.first_positive[row]
        mean = against.mean_positive[row] if positive else against.mean_negative[row]
        n = n_permutations - first if positive else first
        if not n or not mean > 0:
            continue
        part = against.scores[row, first:] if positive else -against.scores[row, :first][::-1]
        beyond += times * (n - np.searchsorted(part, order * mean, side="left"))
        total += times * n
    observed = (len(order) - np.searchsorted(order, order, side="left")) / len(order)
    q = np.minimum(1.0, (beyond + 1) / (total + 1) / observed)
    return q[np.searchsorted(order, values, side="left")]


def preranked(known: Collection, ranking: Ranking, measured: Measured, against: Null) -> pd.DataFrame:
    """Preranked enrichment of all measured sets of a collection, by adjusted p, then |NES|, then name (GSEA_COLUMNS).

    `leading_edge`: the set's genes up to the peak of the running sum, from the end of the ranking they belong to.
    """
    if not len(measured.rows):
        return _empty(GSEA_COLUMNS)
    es, peak = enrichment_scores(ranking, measured)
    sizes = measured.sizes
    nes, p, q = significance(es, sizes, against)
    leading, n_leading = [], np.zeros(len(es), dtype=np.int64)
    for i in range(len(es)):
        at = measured.positions[measured.indptr[i] : measured.indptr[i + 1]]
        edge = at[: peak[i] + 1] if es[i] > 0 else at[peak[i] :][::-1] if es[i] <= 0 else at[:0]
        n_leading[i] = len(edge)
        leading.append(",".join(ranking.genes[edge]))
    frame = pd.DataFrame(
        {
            "set": known.sets[measured.rows],
            "set_size": sizes,
            "es": es,
            "nes": nes,
            "p": p,
            "padj": adjust(p),
            "q_broad": q,
            "n_leading": n_leading,
            "leading_edge": leading,
            "n_permutations": against.scores.shape[1],
            "status": np.where(np.isnan(nes), keys.NOT_ESTIMABLE, keys.OK),
        }
    )
    frame["_size"] = -frame["nes"].abs()
    # p at the floor of the permutations differ only by how many random sets have that sign: |NES| orders them
    return frame.sort_values(["padj", "_size", "set"], kind="stable", ignore_index=True).drop(columns="_size")


def running_sum(ranking: Ranking, members: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The running sum after each gene of the ranking and the ranks (from 0) of the set's genes, for drawing."""
    at = np.sort(np.flatnonzero(np.isin(ranking.genes.astype(str), np.asarray(list(members), dtype=str))))
    weight = np.abs(ranking.scores[at])
    steps = np.full(len(ranking.genes), -1.0 / max(len(ranking.genes) - len(at), 1))
    steps[at] = weight / weight.sum() if weight.sum() > 0 else 0.0
    return np.cumsum(steps), at
