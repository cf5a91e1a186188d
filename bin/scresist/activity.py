"""Activity of pathways and transcription factors from the expression of their targets: t values of linear models over genes.

The expression of one sample (or cell) over all genes is explained by the weights of the targets. `ulm` fits one source at a time,
`mlm` all sources of a network together; the score is the t value of the slope (Badia-i-Mompel 2022, Bioinform Adv 2:vbac016).
Both follow from sums over genes, so that a sparse matrix of cells needs one product with the weights; decoupler's `mt.ulm` and
`mt.mlm` give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys, normalise

ULM, MLM, AUTO = "ulm", "mlm", "auto"
MLM_SOURCES = 30  # chosen: PROGENy has 14 sources; hundreds of regulons share targets and make one model unstable
MIN_TARGETS = 5  # decoupler's tmin: fewer measured targets say nothing about their source
TINY = 2.2e-16  # added by decoupler to 1 - r and 1 + r, so that a perfect fit has a finite t


def weights(network: pd.DataFrame, genes: Sequence[str], min_targets: int = MIN_TARGETS) -> pd.DataFrame:
    """Genes x sources: the weights of a network over the given genes, 0 for a gene that is no target.

    Parameters
    ----------
    network
        columns source, target, weight; each pair once.

    Sources with fewer than `min_targets` of their targets among the genes are left out; sources are sorted.
    """
    inside = network[network["target"].isin(set(genes)) & (network["weight"] != 0)]
    count = inside["source"].value_counts()
    inside = inside[inside["source"].isin(count.index[count >= min_targets])]
    index = pd.Index(genes)
    sources = sorted(set(inside["source"]))
    table = np.zeros((len(index), len(sources)))
    table[index.get_indexer(inside["target"]), pd.Index(sources).get_indexer(inside["source"])] = inside["weight"]
    return pd.DataFrame(table, index=index, columns=sources)


def choose_method(asked: str, w: pd.DataFrame) -> tuple[str, str]:
    """The method to use and, where it is not the one asked for, why.

    `auto`: mlm up to 30 sources, ulm above. mlm is replaced by ulm where the sources are linearly dependent over the measured
    genes, or where there are not more genes than sources + 1.
    """
    method = (MLM if w.shape[1] <= MLM_SOURCES else ULM) if asked == AUTO else asked
    if method == MLM:
        design = np.column_stack([np.ones(len(w)), w.to_numpy()])
        rank = int(np.linalg.matrix_rank(design)) if w.shape[1] else 1
        if rank < design.shape[1] or len(w) <= design.shape[1]:
            return ULM, f"mlm needs independent sources; these {w.shape[1]} over {len(w)} genes have rank {rank - 1}"
    return method, ""


def _products(y: np.ndarray | sparse.spmatrix, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per row of y: sum, sum of squares, and products with the columns of w; in float64."""
    if sparse.issparse(y):
        y = sparse.csr_matrix(y, dtype=np.float64)
        square = np.asarray(y.multiply(y).sum(axis=1)).ravel()
    else:
        y = np.asarray(y, dtype=np.float64)
        square = np.einsum("ij,ij->i", y, y)
    return np.asarray(y.sum(axis=1)).ravel(), square, np.asarray(y @ w)


def ulm(y: np.ndarray | sparse.spmatrix, w: np.ndarray) -> np.ndarray:
    """t value of the slope of each source on its own.

    Parameters
    ----------
    y
        observations x genes.
    w
        genes x sources.

    Returns
    -------
    observations x sources; NaN for constant observations. t = r sqrt(df / ((1 - r)(1 + r))) with df = genes - 2 and r the
    Pearson correlation over genes.
    """
    n = w.shape[0]
    total, square, product = _products(y, w)
    spread_y = square - total**2 / n
    spread_w = ((w - w.mean(axis=0)) ** 2).sum(axis=0)
    together = product - np.outer(total, w.mean(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        r = together / np.sqrt(np.outer(spread_y, spread_w))
        t = r * np.sqrt((n - 2) / ((1 - r + TINY) * (1 + r + TINY)))
    t[spread_y <= 1e-12 * np.maximum(square, TINY)] = np.nan
    return t


def mlm(y: np.ndarray | sparse.spmatrix, w: np.ndarray) -> np.ndarray:
    """t values of the slopes of all sources fitted together, with an intercept.

    Shapes as in `ulm`. t = b / sqrt(RSS / df x diag((X'X)^-1)), X = [1, w], df = genes - sources - 1.

    Raises
    ------
    numpy.linalg.LinAlgError
        when the sources are linearly dependent (`choose_method` tells beforehand).
    """
    x = np.column_stack([np.ones(w.shape[0]), w])
    inverse = np.linalg.inv(x.T @ x)
    _, square, product = _products(y, x)
    b = product @ inverse
    rest = square - np.einsum("ij,ij->i", b, product)
    df = w.shape[0] - w.shape[1] - 1
    rest[rest <= 1e-12 * np.maximum(square, TINY)] = np.nan
    return (b / np.sqrt(np.outer(rest / df, np.diag(inverse))))[:, 1:]


def scores(y: np.ndarray | sparse.spmatrix, w: pd.DataFrame, method: str) -> np.ndarray:
    """Observations x sources by `ulm` or `mlm`."""
    return (mlm if method == MLM else ulm)(y, w.to_numpy())


def group_sums(counts: sparse.csr_matrix, group: np.ndarray, n_groups: int) -> sparse.csr_matrix:
    """Counts summed per group (groups x genes, int64); cells of group -1 belong to none."""
    inside = np.flatnonzero(group >= 0)
    collect = sparse.csr_matrix(
        (np.ones(len(inside), dtype=np.int64), (group[inside], inside)), shape=(n_groups, counts.shape[0])
    )
    sums = sparse.csr_matrix(collect @ counts.astype(np.int64))
    sums.sort_indices()  # later sums over genes then do not follow the order of the cells
    return sums


def pseudobulk(sums: sparse.csr_matrix) -> sparse.csr_matrix:
    """ln(1 + counts per 10,000) of summed counts, as for cells."""
    return normalise.log1p_cp10k(sums).astype(np.float64)


def group_means(values: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Mean of each column per group, NaN rows left out; NaN for an empty group."""
    used = (group >= 0) & ~np.isnan(values).any(axis=1)
    total = np.zeros((n_groups, values.shape[1]))
    np.add.at(total, group[used], values[used])
    size = np.bincount(group[used], minlength=n_groups).astype(float)[:, None]
    return np.divide(total, size, out=np.full_like(total, np.nan), where=size > 0)


def table(groups: pd.DataFrame, values: np.ndarray, w: pd.DataFrame, network: str, method: str, level: str) -> pd.DataFrame:
    """Long table of scores: one row per group (columns sample, cell_type, n_cells) and source."""
    n_sources = w.shape[1]
    long = groups.loc[groups.index.repeat(n_sources), [keys.SAMPLE, "cell_type"]].reset_index(drop=True)
    long["level"], long["network"], long["method"] = level, network, method
    long["source"] = np.tile(w.columns.to_numpy(dtype=object), len(groups))
    long["score"] = values.ravel()
    long["n_targets"] = np.tile((w.to_numpy() != 0).sum(axis=0), len(groups))
    long["n_cells"] = np.repeat(groups["n_cells"].to_numpy(), n_sources)
    return long
