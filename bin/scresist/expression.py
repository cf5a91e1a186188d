"""Genes that differ between two groups of cells: per cell (Wilcoxon, Seurat's fold change) and per patient (pseudobulk).

Both views stand side by side because they answer different questions: the cell-level test says whether cells differ, the
pseudobulk test whether patients do. Only the second counts patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from scresist import comparison, keys, pseudobulk
from scresist.io import InputError

P_FLOOR = 1e-300  # smallest p that is written (methods.md, Determinism)
LFC_SECOND = 0.25  # the study's other threshold, always reported beside `lfc`
LOG2FC_DEFINITION = "log2((mean(expm1(x_a)) + 1) / (mean(expm1(x_b)) + 1))"
CELL_COLUMNS = (
    "level",
    "cell_type",
    "gene",
    "log2fc",
    "log2fc_definition",
    "pct_a",
    "pct_b",
    "mean_a",
    "mean_b",
    "p_bonferroni",
    "n_patients_same_sign",
    "n_patients_compared",
    "direction",
    *comparison.TEST_COLUMNS,
)
PSEUDOBULK_COLUMNS = (
    "level",
    "cell_type",
    "gene",
    "base_mean",
    "log2fc",
    "lfc_se",
    "stat",
    "remark",
    "direction",
    *comparison.TEST_COLUMNS,
)
SAMPLE_COLUMNS = ("level", "cell_type", keys.SAMPLE, keys.PATIENT, "side", "n_cells", "counts", "used", "reason")
RANKING_COLUMNS = ("source", "group", "contrast", "evidence", "gene", "score", "direction")
UP, DOWN = "up", "down"


def rank_sum(x: sparse.csr_matrix, labels: np.ndarray, reference: str | None = None, threads: int = 1) -> dict[str, pd.DataFrame]:
    """Wilcoxon rank-sum of every gene, normal approximation with tie and continuity correction (illico; R's `wilcox.test`).

    Parameters
    ----------
    x
        cells x genes, sorted indices (CSR).
    labels
        group of each cell.
    reference
        group that the others are compared with; None = each group against all other cells.

    Returns
    -------
    Group -> frame with one row per gene: u (of the group), z (positive = higher in the group), p_value (at least 1e-300).
    """
    import anndata
    from illico import asymptotic_wilcoxon
    from loguru import logger

    logger.disable("illico")  # its log would fill stderr, where errors must be seen
    obs = pd.DataFrame({"group": pd.Categorical(labels)}, index=[str(i) for i in range(len(labels))])
    view = anndata.AnnData(x, obs=obs)
    found = asymptotic_wilcoxon(
        view, is_log1p=True, group_keys="group", reference=reference, n_threads=threads, tie_correct=True, use_continuity=True
    )
    values = found[["statistic", "z_score", "p_value"]].to_numpy(dtype=float).reshape(-1, x.shape[1], 3)
    made = {}
    for name, block in zip(found.index.get_level_values(0).unique(), values, strict=True):
        if name != reference:
            p = np.where(np.isfinite(block[:, 2]), block[:, 2], 1.0).clip(P_FLOOR, 1.0)
            made[str(name)] = pd.DataFrame({"u": block[:, 0], "z": np.nan_to_num(block[:, 1]), "p_value": p})
    return made


def unit_sums(x: sparse.csr_matrix, unit: np.ndarray, n_units: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per unit: number of cells, sums of expm1(x) and numbers of positive cells per gene (units x genes, float64)."""
    collect = sparse.csr_matrix((np.ones(len(unit)), (unit, np.arange(len(unit)))), shape=(n_units, len(unit)))
    linear = sparse.csr_matrix((np.expm1(x.data.astype(np.float64)), x.indices, x.indptr), shape=x.shape)
    hits = sparse.csr_matrix(((x.data > 0).astype(np.float64), x.indices, x.indptr), shape=x.shape)
    n_cells = np.bincount(unit, minlength=n_units).astype(float)
    return n_cells, np.asarray((collect @ linear).todense()), np.asarray((collect @ hits).todense())


def log2_fold_change(mean_a: np.ndarray, mean_b: np.ndarray) -> np.ndarray:
    """Seurat 4's log2FC from means of counts per 10,000: log2(mean_a + 1) - log2(mean_b + 1)."""
    return np.log2(mean_a + 1) - np.log2(mean_b + 1)


def same_sign(
    effect: np.ndarray, mean: np.ndarray, is_a: np.ndarray, patient: np.ndarray, paired: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Patients that agree with the sign of an effect, and how many could: two integer arrays over genes.

    Paired: patients whose own A minus B has the sign. Else: patients that lie on the expected side of the mean of the other
    side's patients. An effect of 0 has no sign, hence no patient agrees.

    Parameters
    ----------
    mean
        units x genes, mean counts per 10,000; a unit is a patient on one side.
    """
    sign = np.sign(effect)
    agree, n = np.zeros(len(effect), dtype=int), 0
    if paired:
        for name in sorted(set(patient[is_a]) & set(patient[~is_a])):
            difference = mean[is_a & (patient == name)][0] - mean[~is_a & (patient == name)][0]
            agree += (np.sign(difference) == sign) & (sign != 0)
            n += 1
    elif is_a.any() and (~is_a).any():
        middle_a, middle_b = mean[is_a].mean(axis=0), mean[~is_a].mean(axis=0)
        for row, side in zip(mean, is_a, strict=True):
            difference = row - middle_b if side else middle_a - row
            agree += (np.sign(difference) == sign) & (sign != 0)
            n += 1
    return agree, np.full(len(effect), n)


def direction(log2fc: np.ndarray, p_adjusted: np.ndarray, lfc: float, alpha: float) -> np.ndarray:
    """`up`, `down` or "" per gene: |log2FC| > lfc and adjusted p < alpha; a missing p is never significant."""
    significant = (np.abs(log2fc) > lfc) & (np.nan_to_num(p_adjusted, nan=1.0) < alpha)
    return np.where(significant, np.where(log2fc > 0, UP, DOWN), "")


def compare_cells(
    x: sparse.csr_matrix,
    genes: pd.Index,
    is_a: np.ndarray,
    patient: np.ndarray,
    paired: bool,
    min_pct: float,
    min_cells_vote: int = 1,
    threads: int = 1,
) -> pd.DataFrame:
    """Cell-level test of side A against side B: one row per gene that enough cells of either side express.

    Parameters
    ----------
    x
        cells x genes, log1p of counts per 10,000.
    is_a, patient
        side and patient of each cell.
    min_pct
        share (0 to 1) of cells with the gene that at least one side must reach.
    min_cells_vote
        cells of a patient on one side below which it has no say in n_patients_same_sign.

    Returns
    -------
    gene, log2fc, pct_a, pct_b (in %), mean_a, mean_b (counts per 10,000), p_bonferroni (over all genes of `x`, as Seurat's
    p_val_adj), n_patients_same_sign, n_patients_compared, effect (rank-biserial), statistic (z), p_value, p_adjusted (BH over the
    rows).
    """
    units = pd.MultiIndex.from_arrays([np.asarray(patient, dtype=str), is_a])
    code, levels = pd.factorize(units, sort=True)
    unit_patient, unit_side = np.array([u[0] for u in levels], dtype=object), np.array([bool(u[1]) for u in levels])
    n_cells, sums, hits = unit_sums(x, code, len(levels))
    n_a, n_b = n_cells[unit_side].sum(), n_cells[~unit_side].sum()
    share_a, share_b = hits[unit_side].sum(axis=0) / n_a, hits[~unit_side].sum(axis=0) / n_b
    kept = np.flatnonzero((share_a >= min_pct) | (share_b >= min_pct))
    sums, share_a, share_b = sums[:, kept], share_a[kept], share_b[kept]
    mean_a, mean_b = sums[unit_side].sum(axis=0) / n_a, sums[~unit_side].sum(axis=0) / n_b
    log2fc = log2_fold_change(mean_a, mean_b)
    if len(kept):
        part = x[:, kept]
        part.sort_indices()
        tested = rank_sum(part, np.where(is_a, "a", "b"), "b", threads)["a"]
    else:
        tested = pd.DataFrame({"u": [], "z": [], "p_value": []}, dtype=float)
    voting = n_cells >= min_cells_vote
    means = sums[voting] / n_cells[voting, None]
    agree, compared = same_sign(log2fc, means, unit_side[voting], unit_patient[voting], paired)
    p = tested["p_value"].to_numpy(dtype=float)
    return pd.DataFrame(
        {
            "gene": np.asarray(genes)[kept],
            "log2fc": log2fc,
            "pct_a": 100 * share_a,
            "pct_b": 100 * share_b,
            "mean_a": mean_a,
            "mean_b": mean_b,
            "p_bonferroni": np.minimum(p * len(genes), 1.0),
            "n_patients_same_sign": agree,
            "n_patients_compared": compared,
            "effect": 2 * tested["u"].to_numpy(dtype=float) / (n_a * n_b) - 1,
            "statistic": tested["z"].to_numpy(dtype=float),
            "p_value": p,
            "p_adjusted": comparison.adjust(p),
        }
    )


@dataclass
class Pseudobulk:
    """Result of `compare_patients`: the table of genes (empty without a test) and who stands behind it."""

    table: pd.DataFrame
    samples: pd.DataFrame
    patients_a: list[str] = field(default_factory=list)
    patients_b: list[str] = field(default_factory=list)
    n_samples_a: int = 0
    n_samples_b: int = 0
    n_cells_a: int = 0
    n_cells_b: int = 0
    reason: str = ""  # why there is no test; "" when there is one

    @property
    def tested(self) -> bool:
        """Whether the model was fitted."""
        return not self.reason


def compare_patients(
    counts: sparse.csr_matrix,
    genes: pd.Index,
    sample: np.ndarray,
    side: np.ndarray,
    patient_of: Mapping[str, str],
    paired: bool,
    min_cells: int,
    min_replicates: int,
    alpha: float,
) -> Pseudobulk:
    """Pseudobulk of one cell type: counts summed per patient and side, then DESeq2.

    Samples with fewer than `min_cells` cells or 1,000 counts are left out; those of one patient on one side become one unit. In a
    paired design patients without a usable sample on both sides are left out too, and the model is ~ patient + side.

    Parameters
    ----------
    counts
        cells x genes, integers.
    sample, side
        sample and side (`a` or `b`) of each cell; a sample may stand on both sides (positive and negative cells of a marker).
    min_replicates
        patients needed on each side.
    alpha
        level of the independent filtering.
    """
    frame = pd.DataFrame({keys.SAMPLE: np.asarray(sample, dtype=str), "side": np.asarray(side, dtype=str)})
    frame["total"] = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()
    table = frame.groupby([keys.SAMPLE, "side"], sort=True)["total"].agg(n_cells="size", counts="sum").reset_index()
    table = table.sort_values(["side", keys.SAMPLE], ignore_index=True)
    table.insert(1, keys.PATIENT, [patient_of[name] for name in table[keys.SAMPLE]])
    reason = np.where(table["n_cells"] < min_cells, f"fewer than {min_cells} cells", "")
    few_counts = (table["counts"] < pseudobulk.MIN_SAMPLE_COUNTS).to_numpy()
    reason = np.where((reason == "") & few_counts, f"fewer than {pseudobulk.MIN_SAMPLE_COUNTS:,} counts", reason)
    table["used"], table["reason"] = reason == "", reason
    usable = table[table["used"]]
    of_side = {s: set(usable.loc[usable["side"] == s, keys.PATIENT]) for s in ("a", "b")}
    if paired:
        lone = table["used"] & ~table[keys.PATIENT].isin(of_side["a"] & of_side["b"])
        table.loc[lone, "reason"] = "the patient has no usable sample on the other side"
        table["used"] &= ~lone
        usable = table[table["used"]]
        of_side = {s: set(usable.loc[usable["side"] == s, keys.PATIENT]) for s in ("a", "b")}
    columns = ("level", "cell_type", *SAMPLE_COLUMNS[2:])
    made = Pseudobulk(
        pd.DataFrame(columns=list(pseudobulk.RESULT_COLUMNS)),
        table.reindex(columns=columns[2:]),
        sorted(of_side["a"]),
        sorted(of_side["b"]),
        *(int((usable["side"] == s).sum()) for s in ("a", "b")),
        *(int(usable.loc[usable["side"] == s, "n_cells"].sum()) for s in ("a", "b")),
    )
    n_a, n_b = len(made.patients_a), len(made.patients_b)
    # one unit more than coefficients is what a dispersion needs at least
    least = max(min_replicates, 2)
    if min(n_a, n_b) < least:
        pairs = "pairs of " if paired else ""
        made.reason = f"{pairs}patients with enough cells: {n_a} against {n_b}, {least} needed on each side"
        return made
    units = sorted({(s, p) for s, p in zip(usable["side"], usable[keys.PATIENT], strict=True)})
    number = {unit: at for at, unit in enumerate(units)}
    unit_of = {
        (row.sample, row.side): number[row.side, row.patient] for row in usable[[keys.SAMPLE, "side", keys.PATIENT]].itertuples()
    }
    code = np.array([unit_of.get(key, -1) for key in zip(frame[keys.SAMPLE], frame["side"], strict=True)], dtype=int)
    sums = pseudobulk.sum_rows(counts, code, len(units))
    is_a = np.array([s == "a" for s, _ in units])
    patient = np.array([p for _, p in units], dtype=object)
    kept = pseudobulk.filter_by_expr(sums, is_a)
    if not kept.any():
        made.reason = f"no gene has enough counts in {min(n_a, n_b)} patients"
        return made
    made.table = pseudobulk.deseq2(sums[:, kept], genes[kept], is_a, patient if paired else None, alpha)
    return made


def cell_rows(
    tested: pd.DataFrame, level: str, cell_type: str, contrast: str, sizes: Mapping[str, int], lfc: float, alpha: float
) -> pd.DataFrame:
    """`compare_cells` as rows of de_cells.tsv; `sizes`: n_a, n_b (samples), n_patients_a, n_patients_b, n_cells_a, n_cells_b."""
    frame = tested.assign(
        level=level,
        cell_type=cell_type,
        log2fc_definition=LOG2FC_DEFINITION,
        direction=direction(tested["log2fc"].to_numpy(), tested["p_adjusted"].to_numpy(), lfc, alpha),
        contrast=contrast,
        unit=comparison.UNIT_CELL,
        effect_name="rank_biserial",
        ci_low=np.nan,
        ci_high=np.nan,
        test="wilcoxon_rank_sum",
        adjust_method="BH:genes",
        p_min_attainable=np.nan,
        evidence=keys.CELL_LEVEL,
        status=keys.OK,
        **sizes,
    )
    return frame[list(CELL_COLUMNS)]


def pseudobulk_rows(made: Pseudobulk, level: str, cell_type: str, contrast: str, lfc: float, alpha: float) -> pd.DataFrame:
    """`compare_patients` as rows of de_pseudobulk.tsv; the interval is log2FC +- 1.96 standard errors."""
    frame = made.table
    if frame.empty:
        return pd.DataFrame(columns=list(PSEUDOBULK_COLUMNS))
    frame = frame.assign(
        level=level,
        cell_type=cell_type,
        direction=direction(frame["log2fc"].to_numpy(), frame["p_adjusted"].to_numpy(), lfc, alpha),
        contrast=contrast,
        unit=comparison.UNIT_PATIENT,
        n_a=made.n_samples_a,
        n_b=made.n_samples_b,
        n_patients_a=len(made.patients_a),
        n_patients_b=len(made.patients_b),
        n_cells_a=made.n_cells_a,
        n_cells_b=made.n_cells_b,
        effect=frame["log2fc"],
        effect_name="log2fc",
        ci_low=frame["log2fc"] - 1.959964 * frame["lfc_se"],
        ci_high=frame["log2fc"] + 1.959964 * frame["lfc_se"],
        statistic=frame["stat"],
        test="deseq2_wald",
        adjust_method="BH:genes, independent filtering",
        p_min_attainable=np.nan,
        evidence=comparison.evidence(len(made.patients_a), len(made.patients_b)),
        status=np.where(frame["p_value"].isna(), keys.NOT_ESTIMABLE, keys.OK),
    )
    return frame[list(PSEUDOBULK_COLUMNS)]


def ranking(source: str, group: str, contrast: str, cells: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Rows of rankings.tsv of one group: the Wald statistic where patients could be tested, else z of the cell-level test.

    Genes without p (an outlier decides them) are no part of the universe. Sorted by falling score, then gene.
    """
    if len(patients):
        table = patients[patients["p_value"].notna()]
        score, evidence = table["stat"], patients["evidence"].iloc[0]
    else:
        table, evidence = cells, keys.CELL_LEVEL
        score = cells["statistic"]
    frame = pd.DataFrame(
        {
            "source": source,
            "group": group,
            "contrast": contrast,
            "evidence": evidence,
            "gene": table["gene"].to_numpy(),
            "score": score.to_numpy(dtype=float),
            "direction": table["direction"].to_numpy(),
        },
        columns=list(RANKING_COLUMNS),
    )
    return frame.sort_values(["score", "gene"], ascending=[False, True], ignore_index=True)


def significant(frame: pd.DataFrame, lfc: float, alpha: float) -> tuple[int, int]:
    """Numbers of genes up and down at a threshold of |log2FC| and adjusted p."""
    if frame.empty:
        return 0, 0
    words = direction(frame["log2fc"].to_numpy(dtype=float), frame["p_adjusted"].to_numpy(dtype=float), lfc, alpha)
    return int((words == UP).sum()), int((words == DOWN).sum())


def top_genes(cells: pd.DataFrame, patients: pd.DataFrame, n: int) -> pd.DataFrame:
    """The `n` genes of smallest p on each side, by patients where they could be tested, else by cells; both views beside it.

    Columns rank, side (up, down), gene, log2fc_patients, padj_patients, log2fc_cells, padj_cells, pct_a, pct_b,
    n_patients_same_sign, n_patients_compared, evidence.
    """
    leading = patients if len(patients) else cells
    leading = leading[leading["p_value"].notna()].assign(size=lambda f: f["log2fc"].abs())
    leading = leading.sort_values(["p_value", "size", "gene"], ascending=[True, False, True])
    parts = []
    for word, chosen in ((UP, leading[leading["log2fc"] > 0]), (DOWN, leading[leading["log2fc"] < 0])):
        part = chosen.head(n)[["gene", "evidence"]].assign(rank=np.arange(1, min(n, len(chosen)) + 1), side=word)
        parts.append(part)
    frame = pd.concat(parts, ignore_index=True)
    for suffix, table in (("patients", patients), ("cells", cells)):
        known = table.set_index("gene")
        frame[f"log2fc_{suffix}"] = pd.to_numeric(known["log2fc"]).reindex(frame["gene"]).to_numpy(dtype=float)
        frame[f"padj_{suffix}"] = pd.to_numeric(known["p_adjusted"]).reindex(frame["gene"]).to_numpy(dtype=float)
    by_gene = cells.set_index("gene")
    for name in ("pct_a", "pct_b", "n_patients_same_sign", "n_patients_compared"):
        frame[name] = pd.to_numeric(by_gene[name]).reindex(frame["gene"]).to_numpy(dtype=float)
    return frame[
        [
            "rank", "side", "gene", "log2fc_patients", "padj_patients", "log2fc_cells", "padj_cells", "pct_a", "pct_b",
            "n_patients_same_sign", "n_patients_compared", "evidence",
        ]
    ]  # fmt: skip


# --- picture


@dataclass(frozen=True)
class Panel:
    """One volcano: points (gene, log2fc, p_adjusted) or, without points, the reason."""

    title: str
    points: pd.DataFrame
    why_empty: str = ""


def volcano(
    rows: Sequence[Sequence[Panel]], title: str, lfc: float, alpha: float, side_a: str, side_b: str, n_names: int = 5
) -> bytes:
    """Rows of volcanoes as PNG; thresholds drawn, the strongest genes of each side named."""
    from scresist import figures

    rows = rows or [[Panel("no picture", pd.DataFrame(), "too few cells on one of the sides")]]
    n_rows, n_columns = len(rows), max(len(row) for row in rows)
    figure, grid = figures.plt.subplots(
        n_rows, n_columns, figsize=(max(5.2 * n_columns, 7.0), 3.6 * n_rows + 0.5), squeeze=False, layout="constrained"
    )
    for axes_row, panels in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, panels, strict=True):
            _volcano(axes, panel, lfc, alpha, n_names)
            axes.set_xlabel(f"log2 fold change, {side_a} over {side_b}", fontsize=8.5, color=figures.TEXT)
            axes.set_ylabel("-log10 adjusted p", fontsize=8.5, color=figures.TEXT)
    figure.suptitle(title, fontsize=10.5, x=0.01, ha="left", color=figures.TEXT)
    return figures.png(figure)


def _volcano(axes: Any, panel: Panel, lfc: float, alpha: float, n_names: int) -> None:
    from scresist import figures

    axes.set_title(panel.title, fontsize=9.5, loc="left", color=figures.TEXT, pad=17)  # the legend stands below the title
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    points = panel.points
    points = points[points["p_adjusted"].notna()] if len(points) else points
    if points.empty:
        axes.text(0.5, 0.5, panel.why_empty or "no gene", ha="center", va="center", fontsize=8.5, wrap=True, color="#555555")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    x = points["log2fc"].to_numpy(dtype=float)
    p = points["p_adjusted"].to_numpy(dtype=float).clip(P_FLOOR, 1.0)
    y, words = -np.log10(p), direction(x, p, lfc, alpha)
    for word, colour, label in (("", figures.GREY, "other"), (UP, "#D55E00", "up"), (DOWN, "#0072B2", "down")):
        mine = words == word
        axes.scatter(x[mine], y[mine], s=8, c=colour, linewidths=0, label=f"{label} (n = {mine.sum():,})")
    axes.axhline(-np.log10(alpha), color="#777777", linewidth=0.7, linestyle="--")
    for value, style in ((lfc, "--"), (LFC_SECOND, ":")):
        for at in (-value, value):
            axes.axvline(at, color="#777777", linewidth=0.7, linestyle=style)
    span = max(float(np.abs(x).max()) * 1.6, 2 * lfc, 0.5)
    top = max(float(y.max()) * 1.05, 1.6)
    axes.set_xlim(-span, span)
    axes.set_ylim(-0.03 * top, top)
    named = points.assign(x=x, y=y, word=words).sort_values(["y", "gene"], ascending=[False, True])
    for word, edge in ((UP, 0.98), (DOWN, -0.98)):
        # names stand in a column at the edge, joined to their points: none covers another
        slot = 0.98 * top
        for row in named[named["word"] == word].head(n_names).itertuples():
            slot = min(slot, row.y)
            axes.annotate(
                row.gene, (row.x, row.y), (edge * span, slot), fontsize=7, style="italic", va="center", color=figures.TEXT,
                ha="right" if edge > 0 else "left", arrowprops={"arrowstyle": "-", "linewidth": 0.3, "color": "#999999"},
            )  # fmt: skip
            slot -= 0.06 * top
    axes.legend(fontsize=7, frameon=False, loc="lower left", bbox_to_anchor=(0.0, 1.005), ncols=3, handletextpad=0.1, borderpad=0)


# --- which cells stand for what


TUMOUR_TYPE = "tumour"  # level and cell type: the cells that CALL_MALIGNANT takes for the tumour


def level_labels(level: str, labels: pd.DataFrame) -> pd.Series:
    """Cell type of every cell at one level; "" for cells that belong to none.

    `tumour`: the tumour cells; `main_type`: main types without the unresolved; any other column: `<column>:<value>`.
    """
    if level == TUMOUR_TYPE:
        return pd.Series(np.where(labels[keys.TUMOUR], TUMOUR_TYPE, ""), index=labels.index, dtype=object)
    values = labels[level].astype(object)
    values = values.where(values.notna(), "").astype(str)
    values[values == keys.UNRESOLVED] = ""
    return values if level == keys.MAIN_TYPE else values.where(values == "", level + ":" + values)


def tumour_cells(calls: Mapping[str, pd.DataFrame], cells: pd.Index, source: str) -> pd.Index:
    """Cells that stand for the tumour, from the fragments of CALL_MALIGNANT.

    Parameters
    ----------
    calls
        file name -> fragment indexed by cell, with the column `tumour`.
    cells, source
        all cells of the cohort and the name of their file.

    Raises
    ------
    InputError
        naming every file without the column, with cells of another run, or with cells of another file.
    """
    problems, seen, chosen = [], pd.Index([]), []
    for name, frame in calls.items():
        if keys.TUMOUR not in frame:
            problems.append(f"{name}: no column {keys.TUMOUR}; give <patient>.malignant.parquet of CALL_MALIGNANT")
            continue
        strange, again = frame.index.difference(cells), frame.index.intersection(seen)
        if len(strange):
            problems.append(
                f"{name}: {len(strange)} of {len(frame)} cells are not in {source}, first {strange[0]}; give files of one run"
            )
        if len(again):
            problems.append(f"{name}: {len(again)} cells stand in another file too, the first is {again[0]}; give each file once")
        seen = seen.append(frame.index)
        # missing, False and True may stand together: the column is then no boolean one
        chosen += [cell for cell, value in frame[keys.TUMOUR].items() if not pd.isna(value) and bool(value)]
    if problems:
        raise InputError("; ".join(problems))
    return pd.Index(chosen)


def join_labels(cells: pd.Index, annotation: pd.DataFrame, tumour: pd.Index, groups: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Labels of the cells: columns of the annotation and of further fragments (missing for cells they do not hold), `tumour`.

    Parameters
    ----------
    annotation
        indexed by cell, in the order of `cells`.
    tumour
        the tumour cells.
    """
    made = annotation.copy()
    for frame in groups:
        for name in frame:
            if name not in made:
                made[name] = frame[name].reindex(cells)
    made[keys.TUMOUR] = cells.isin(tumour)
    return made
