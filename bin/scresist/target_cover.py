"""Which surface targets together reach every clone of a tumour, and where else in the patient they are expressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import keys
from scresist.design import plural
from scresist.io import InputError

TARGET_COLUMNS = ("target", "gene", "class", "drug_example", "source")
CLONE_COLUMNS = (
    keys.PATIENT, keys.PHASE, "clone", "share", "target", "gene", "n_cells", "cp10k", "pct", "positive", "status", "reason",
)  # fmt: skip
NORMAL_COLUMNS = (keys.PATIENT, "cell_type", "target", "gene", "n_cells", "cp10k", "pct", "status")
SET_COLUMNS = (
    keys.PATIENT, keys.PHASE, "role", "n_targets", "rank", "targets", "drug_examples", "clone_coverage", "ci_low", "ci_high",
    "reaches_goal", "smallest", "cell_coverage", "weakest_clone", "weakest_clone_cells", "off_target", "off_target_type",
    "off_target_gene", "uncovered_clones", "unjudged_clones", "unjudged_share", "n_clones", "n_cells", "status", "reason",
)  # fmt: skip
MAX_TARGETS = 40  # beyond, sets of three are too many to enumerate
TOP_SETS = 5  # sets of each size that are listed
MIN_CELLS_CLONE = 10  # as min_clone_cells of TRACE_CLONES
MIN_CELLS_NORMAL = 20  # as min_cells_panel of TRACK_PANELS
LEVEL = 0.95


def check_targets(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The target table as text, sorted by target.

    Raises
    ------
    InputError
        with everything that is wrong: absent columns, empty cells, targets that stand twice, more than MAX_TARGETS.
    """
    absent = [column for column in TARGET_COLUMNS[:2] if column not in table]
    if absent:
        raise InputError(f"{name}: no column {', '.join(absent)}; expected {', '.join(TARGET_COLUMNS)}, found {', '.join(table)}")
    made = table.reindex(columns=list(TARGET_COLUMNS)).fillna("").astype(str).apply(lambda column: column.str.strip())
    problems = []
    for line, row in enumerate(made.to_dict("records"), start=2):
        problems += [f"row {line}: {column} is empty; write one" for column in TARGET_COLUMNS[:2] if not row[column]]
        if "+" in row["target"]:
            problems.append(f"row {line}: target {row['target']!r} holds +, which joins the targets of a set; rename it")
    for target, n in made["target"].value_counts(sort=False).items():
        if n > 1 and target:
            problems.append(f"target {target} stands {n} times; keep one row")
    if len(made) > MAX_TARGETS:
        problems.append(f"{len(made)} targets, at most {MAX_TARGETS} can be combined; remove some")
    if problems:
        raise InputError(f"{name}:\n  - " + "\n  - ".join(problems))
    return made.sort_values("target", ignore_index=True)


def detection(counts: np.ndarray, depth: np.ndarray, median: float) -> np.ndarray:
    """Chance that a cell would still show the gene at `median` counts: 1 - (1 - min(1, median / depth))^count.

    Binomial thinning of deeper cells; a shallower cell keeps what was seen, which makes the share a lower bound.
    """
    keep = np.minimum(1.0, median / np.maximum(np.asarray(depth, dtype=float), 1.0))
    return 1 - (1 - keep) ** np.asarray(counts, dtype=float)


def expression(counts: np.ndarray, depth: np.ndarray, median: float) -> tuple[np.ndarray, np.ndarray]:
    """CP10k of the summed counts and share of positive cells at the standard depth, per gene (cells x genes)."""
    total = float(np.sum(depth))
    if not len(depth) or not total:
        return np.full(counts.shape[1], np.nan), np.full(counts.shape[1], np.nan)
    share = np.array([detection(counts[:, at], depth, median).mean() for at in range(counts.shape[1])])
    return keys.TARGET_SUM * counts.sum(axis=0) / total, share


def clone_table(
    patient: str, phase: str, clone: Sequence[str], counts: sparse.spmatrix, depth: np.ndarray, genes: Mapping[str, int],
    targets: pd.DataFrame, median: float, min_cp10k: float, min_pct: float,
) -> pd.DataFrame:  # fmt: skip
    """CLONE_COLUMNS: every target in every clone of one biopsy.

    A clone is positive when CP10k >= min_cp10k and the share of its cells with the gene, at the standard depth, is
    >= min_pct. A clone of fewer than MIN_CELLS_CLONE cells is not judged.

    Parameters
    ----------
    counts
        cells x measured target genes.
    genes
        gene -> column of `counts`; a target whose gene is not there was not measured.
    median
        median counts of the malignant cells of the cohort.
    """
    own, names = np.asarray(clone, dtype=str), sorted(set(clone), key=keys.natural)
    dense = np.asarray(sparse.csr_matrix(counts).todense(), dtype=float)
    rows = []
    for name in names:
        at = own == name
        cp10k, share = expression(dense[at], depth[at], median)
        for target in targets.to_dict("records"):
            column = genes.get(target["gene"])
            row: dict[str, Any] = dict.fromkeys(CLONE_COLUMNS, np.nan) | {
                keys.PATIENT: patient, keys.PHASE: phase, "clone": name, "share": at.mean(), "target": target["target"],
                "gene": target["gene"], "n_cells": int(at.sum()), "positive": "", "status": keys.OK, "reason": "",
            }  # fmt: skip
            if column is None:
                row |= {"status": keys.NOT_ESTIMABLE, "reason": "gene_absent"}
            else:
                row |= {"cp10k": cp10k[column], "pct": 100 * share[column]}
                if at.sum() < MIN_CELLS_CLONE:
                    row |= {"status": keys.NOT_ESTIMABLE, "reason": f"{at.sum()} cells, {MIN_CELLS_CLONE} needed"}
                else:
                    yes = cp10k[column] >= min_cp10k and share[column] >= min_pct
                    row["positive"] = keys.YES if yes else keys.NO
            rows.append(row)
    return pd.DataFrame(rows, columns=list(CLONE_COLUMNS)).astype({"n_cells": "Int64"})


def normal_table(
    patient: str, cell_type: Sequence[str], counts: sparse.spmatrix, depth: np.ndarray, genes: Mapping[str, int],
    targets: pd.DataFrame, median: float,
) -> pd.DataFrame:  # fmt: skip
    """NORMAL_COLUMNS: every measured target in every normal cell type of one patient, all biopsies together."""
    own = np.asarray(cell_type, dtype=str)
    dense = np.asarray(sparse.csr_matrix(counts).todense(), dtype=float)
    rows = []
    for name in sorted(set(own) - {"", keys.UNRESOLVED}):
        at = own == name
        enough = at.sum() >= MIN_CELLS_NORMAL
        cp10k, share = expression(dense[at], depth[at], median)
        for target in targets.to_dict("records"):
            column = genes.get(target["gene"])
            if column is None:
                continue
            value, pct = (cp10k[column], 100 * share[column]) if enough else (np.nan, np.nan)
            word = keys.OK if enough else keys.SKIPPED_TOO_FEW_CELLS
            rows.append((patient, name, target["target"], target["gene"], int(at.sum()), value, pct, word))
    return pd.DataFrame(rows, columns=list(NORMAL_COLUMNS))


def coverage_interval(counts: Sequence[int], covered: np.ndarray, n_boot: int, seed: int) -> tuple[float, float]:
    """95 % limits of the summed share of the covered clones, over multinomial draws of the clone counts.

    Where all clones are covered (or none is), draws cannot vary; the open limit is then the share that a clone missed by
    so many cells could have: 0.05^(1/N) (or its complement).
    """
    n = np.asarray(counts, dtype=int)
    total = int(n.sum())
    if not total:
        return np.nan, np.nan
    limit = 0.05 ** (1 / total)
    if covered.all():
        return limit, 1.0
    if not covered.any():
        return 0.0, 1 - limit
    drawn = np.random.default_rng(seed).multinomial(total, n / total, size=max(n_boot, 1))[:, covered].sum(axis=1) / total
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def best_sets(
    clones: pd.DataFrame, normal: pd.DataFrame, clone: Sequence[str], detected: np.ndarray, order: Sequence[str],
    targets: pd.DataFrame, max_set: int, goal: float, n_boot: int, seed: int,
) -> pd.DataFrame:  # fmt: skip
    """SET_COLUMNS: the best sets of each size for one biopsy, by enumeration.

    Sets are ranked by clone coverage (sum of the shares of clones positive for any member), then cell coverage (share of
    cells with any member detected: a lower bound), then low expression in normal cells (highest CP10k over members and
    types), then name. Only targets that are positive in a clone take part. `smallest` marks the sets of the smallest size
    that reaches `goal`. Clones too small to be judged (`clone_table`) count neither as reached nor as not reached: where they
    alone decide, `reaches_goal` is empty.

    Parameters
    ----------
    clones, normal
        results of `clone_table` and `normal_table`.
    clone
        clone of each cell of the biopsy.
    detected
        boolean, cells x `order`: the target's gene has a count.
    order
        targets of the columns of `detected`.
    """
    patient, phase = str(clones[keys.PATIENT].iloc[0]), str(clones[keys.PHASE].iloc[0])
    own = np.asarray(clone, dtype=str)
    names = sorted(set(own), key=keys.natural)
    counts = [int((own == name).sum()) for name in names]
    share = np.array(counts) / len(own)
    positive = {
        target: np.array([name in set(part.loc[part["positive"] == keys.YES, "clone"]) for name in names])
        for target, part in clones.groupby("target", sort=True)
    }
    known = set(clones.loc[clones["positive"].isin([keys.YES, keys.NO]), "clone"])
    judged = np.array([name in known for name in names])
    open_share = float(share[~judged].sum())
    usable = [target for target in order if target in positive and positive[target].any()]
    column = {target: at for at, target in enumerate(order)}
    highest = _highest(normal)
    drug = dict(zip(targets["target"], targets["drug_example"], strict=True))
    remarks = []
    if not judged.all():
        few = plural(int((~judged).sum()), "clone")
        remarks.append(f"{few} with {open_share:.1%} of the cells too small to be judged, {MIN_CELLS_CLONE} cells needed")
    if not highest:
        remarks.append(f"no normal cell type of {MIN_CELLS_NORMAL} cells: expression in normal cells is not known")
    blank: dict[str, Any] = dict.fromkeys(SET_COLUMNS, np.nan) | {
        keys.PATIENT: patient, keys.PHASE: phase, "n_clones": len(names), "n_cells": len(own),
        "unjudged_clones": ",".join(np.array(names)[~judged]), "unjudged_share": open_share,
        "status": keys.WARNING if remarks else keys.OK, "reason": "; ".join(remarks),
    }  # fmt: skip
    rows: list[dict[str, Any]] = []
    reached = 0
    for size in range(1, min(max_set, len(usable)) + 1):
        found = []
        for members in combinations(usable, size):
            covered = np.any([positive[t] for t in members], axis=0)
            hit = detected[:, [column[t] for t in members]].any(axis=1)
            off = max((highest.get(t, (-1.0, "", ""))[0], t) for t in members)
            found.append(
                (-round(float(share[covered].sum()), 12), -round(float(hit.mean()), 12), off[0], members, covered, hit, off[1])
            )
        found.sort(key=lambda one: one[:4])
        for rank, (coverage, cells, off_value, members, covered, hit, worst) in enumerate(found[:TOP_SETS], start=1):
            coverage, cells = -coverage, -cells
            low, high = coverage_interval(counts, covered, n_boot, seed)
            by_clone = [(float(hit[own == name].mean()), name) for name in names]
            weakest = min(by_clone, key=lambda one: one[0])
            reaches = coverage >= goal - 1e-9
            reached = reached or (size if reaches else 0)
            open_end = coverage + open_share >= goal - 1e-9  # the clones that were not judged would decide
            reaching = keys.YES if reaches else "" if open_end else keys.NO
            _, off_type, off_gene = highest.get(worst, (np.nan, "", ""))
            rows.append(
                blank
                | {
                    "n_targets": size, "rank": rank, "targets": "+".join(members),
                    "drug_examples": "; ".join(f"{t}: {drug[t]}" for t in members if drug.get(t)),
                    "clone_coverage": coverage, "ci_low": low, "ci_high": high, "reaches_goal": reaching,
                    "smallest": keys.YES if reaches and size == reached else keys.NO, "cell_coverage": cells,
                    "weakest_clone": weakest[1], "weakest_clone_cells": weakest[0],
                    "off_target": off_value if off_value >= 0 else np.nan, "off_target_type": off_type,
                    "off_target_gene": off_gene,
                    "uncovered_clones": ",".join(np.array(names)[judged & ~covered]),
                }
            )  # fmt: skip
    if not rows:
        why = "; ".join(["no listed target is expressed in a clone of this biopsy", *remarks])
        rows = [blank | {"uncovered_clones": ",".join(np.array(names)[judged]), "status": keys.NOT_ESTIMABLE, "reason": why}]
    whole = ["n_targets", "rank", "n_clones", "n_cells"]
    return pd.DataFrame(rows, columns=list(SET_COLUMNS)).astype(dict.fromkeys(whole, "Int64"))


def _highest(normal: pd.DataFrame) -> dict[str, tuple[float, str, str]]:
    """Target -> highest CP10k over normal types, that type, the gene."""
    known = normal[normal["cp10k"].notna()]
    found: dict[str, tuple[float, str, str]] = {}
    for row in known.sort_values(["target", "cp10k", "cell_type"], ascending=[True, False, True]).to_dict("records"):
        found.setdefault(row["target"], (float(row["cp10k"]), row["cell_type"], row["gene"]))
    return found
