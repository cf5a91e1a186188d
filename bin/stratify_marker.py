#!/usr/bin/env python3
"""Cells that express a marker against cells of the same sample and depth that do not: share, genes, module scores.

Writes, with M = the marker: M.marker_share.tsv, M.marker_de.tsv.gz, M.marker_top.tsv, M.marker_scores.tsv, M.marker_groups.tsv,
M.marker_volcano.png, M.rankings.tsv.gz.

Example: stratify_marker.py --marker MUC3A --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet
    --modules modules.parquet --groups epi_clusters.parquet
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, comparison, contract, io, keys, provenance, status

STEP = "stratify_marker"
TOP_GENES = 15  # per side in marker_top.tsv
GROUPINGS = (keys.CLONE, keys.EPI_CLUSTER, keys.CYCLE_PHASE, keys.CLUSTER)  # columns of --groups that are described
PACKAGES = ["anndata", "illico", "matplotlib", "numpy", "pandas", "pydeseq2", "scipy"]
HEAD_COLUMNS = ("marker", "matched")
DE_COLUMNS = (
    *HEAD_COLUMNS, "gene", "log2fc", "log2fc_definition", "pct_a", "pct_b", "mean_a", "mean_b", "p_bonferroni",
    "n_samples_same_sign", "n_samples_compared", "base_mean", "lfc_se", "remark", "direction", *comparison.TEST_COLUMNS,
)  # fmt: skip
TOP_COLUMNS = (
    "marker", "rank", "side", "gene", "log2fc_patients", "padj_patients", "log2fc_cells", "padj_cells", "padj_unmatched", "pct_a",
    "pct_b", "n_samples_same_sign", "n_samples_compared", "evidence",
)  # fmt: skip
RENAMED = {"n_patients_same_sign": "n_samples_same_sign", "n_patients_compared": "n_samples_compared"}


def rule(text: str) -> str:
    """argparse type: `count>N` or `quantile:Q`."""
    from scresist import stratum

    try:
        stratum.parse_rule(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def phase_list(text: str) -> list[str]:
    """argparse type: phases separated by commas; an empty text means all."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--marker", required=True, type=cli.sample_id, help="gene symbol, a row of the merged matrix")
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet")
    add("--tumour", nargs="*", default=[], type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT, any number")
    add("--modules", nargs="*", default=[], type=Path, help="modules.parquet of FIND_PROGRAMS: scores to compare (default none)")
    add("--groups", nargs="*", default=[], type=Path, help="fragments with clones or clusters to describe (default none)")
    add("--phases_used", type=phase_list, default="", help="phases whose samples are compared, comma list (default all)")
    add("--level", default="tumour", help="cells that are split: tumour, or a main type (default tumour)")
    add("--rule", type=rule, default="count>0", help="positive cells: count>N or quantile:Q (default count>0)")
    add("--lfc", type=cli.number(0, 20), default=0.25, help="|log2 fold change| that counts (default 0.25)")
    add("--padj", type=cli.number(1e-12, 1), default=0.05, help="adjusted p below which a gene counts (default 0.05)")
    add("--min_pct", type=cli.number(0, 1), default=0.1, help="share of cells of either side with the gene (default 0.1)")
    add("--min_positive", type=cli.number(2, 10**6, int), default=20, help="positive and negative cells needed (default 20)")
    add("--min_cells_pseudobulk", type=cli.number(1, 10**6, int), default=10, help="cells per sample and side (default 10)")
    add("--min_replicates", type=cli.number(2, 1000, int), default=2, help="patients needed for a test (default 2)")
    return parser.parse_args(argv)


def read_scores(paths: list[Path], cells: pd.Index) -> pd.DataFrame:
    """Module scores of the cells; missing for cells without one."""
    parts = []
    for path in sorted(paths, key=lambda p: p.name):
        fragment = io.read_fragment(path)
        names = sorted(name for name in fragment if name.startswith(keys.MODULE_PREFIX))
        if not names and len(fragment.columns):
            raise io.InputError(f"{path.name}: no column {keys.MODULE_PREFIX}...; give modules.parquet of FIND_PROGRAMS")
        parts.append(fragment[names].reindex(cells))
    return pd.concat(parts, axis=1) if parts else pd.DataFrame(index=cells)


def de_rows(frame: pd.DataFrame, marker: str, matched: bool) -> pd.DataFrame:
    """Rows of either test in the columns of marker_de.tsv."""
    frame = frame.rename(columns=RENAMED).assign(marker=marker, matched="yes" if matched else "no")
    return frame.reindex(columns=list(DE_COLUMNS))


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    os.environ.setdefault("TQDM_DISABLE", "1")
    args.phases_used = phase_list(args.phases_used) if isinstance(args.phases_used, str) else args.phases_used
    import anndata

    from scresist import expression, stratum

    marker, contrast = args.marker, f"{args.marker}_pos_vs_neg"
    seed = cli.unit_seed(args.seed, STEP, marker)
    backed = anndata.read_h5ad(args.input, backed="r")
    absent = [name for name in keys.IDENTITY if name not in backed.obs]
    if absent:
        raise io.InputError(f"{args.input.name}: obs has no {', '.join(absent)}; give merged.h5ad of MERGE_COHORT")
    names, all_genes = backed.obs_names, backed.var_names
    phases = sorted(set(backed.obs[keys.PHASE].astype(str)))
    used = [name for name in args.phases_used if name in phases] or ([] if args.phases_used else phases)
    annotation = io.join_fragment(names, io.read_fragment(args.annotation), args.annotation.name)
    types = sorted(set(annotation[keys.MAIN_TYPE].dropna().astype(str)) - {keys.UNRESOLVED})
    if args.level != expression.TUMOUR_TYPE and args.level not in types:
        raise io.InputError(
            f"--level {args.level}: no such main type in {args.annotation.name}; use tumour or one of {', '.join(types)}"
        )
    calls = {path.name: io.read_fragment(path) for path in sorted(args.tumour, key=lambda p: p.name)}
    fragments = [io.read_fragment(path) for path in sorted(args.groups, key=lambda p: p.name)]
    # a label of several files (clones come per patient) is one column
    combined = {
        name: pd.concat([f[name] for f in fragments if name in f]).pipe(lambda s: s[~s.index.duplicated()]).to_frame()
        for name in GROUPINGS
        if any(name in f for f in fragments)
    }
    labels = expression.join_labels(
        names, annotation, expression.tumour_cells(calls, names, args.input.name), list(combined.values())
    )
    level = expression.TUMOUR_TYPE if args.level == expression.TUMOUR_TYPE else keys.MAIN_TYPE
    rows = np.flatnonzero(expression.level_labels(level, labels).to_numpy(dtype=str) == args.level)
    merged = contract.check(backed[rows].to_memory(), args.input.name, normalised=len(rows) > 0)
    backed.file.close()
    order = np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")  # draws and sums must not follow the input's order
    x, counts, obs = merged.X[order], merged.layers[keys.COUNTS][order], merged.obs.iloc[order]
    scores = read_scores(args.modules, obs.index)
    cell_labels = {name: labels.loc[obs.index, name].astype(object) for name in combined}
    cell_labels = {name: values.where(values.notna(), "").to_numpy() for name, values in cell_labels.items()}
    del merged

    sample, patient = obs[keys.SAMPLE].astype(str).to_numpy(), obs[keys.PATIENT].astype(str).to_numpy()
    patient_of = dict(zip(sample, patient, strict=True))
    in_use = obs[keys.PHASE].astype(str).isin(used).to_numpy()
    share = pd.DataFrame(columns=list(stratum.SHARE_COLUMNS))
    groups = pd.DataFrame(columns=list(stratum.GROUP_COLUMNS))
    score_table = pd.DataFrame(columns=list(stratum.SCORE_COLUMNS))
    de, top = pd.DataFrame(columns=list(DE_COLUMNS)), pd.DataFrame(columns=list(TOP_COLUMNS))
    rankings = pd.DataFrame(columns=list(expression.RANKING_COLUMNS))
    panels, n_positive, n_negative, n_matched, made = [], 0, 0, 0, None

    if marker not in all_genes:
        word, reason = keys.NOT_ESTIMABLE, f"gene_absent: {marker} is not among the {len(all_genes):,} genes of {args.input.name}"
    elif not len(rows):
        missing = args.level == expression.TUMOUR_TYPE and not args.tumour
        word = keys.SKIPPED_NO_INPUT if missing else keys.SKIPPED_TOO_FEW_CELLS
        reason = "no tumour calls were given" if missing else f"no {args.level} cells in the cohort"
    else:
        at = all_genes.get_loc(marker)
        of_marker = x[:, [at]].toarray().ravel()
        positive = stratum.positive_cells(counts[:, [at]].toarray().ravel(), of_marker, args.rule)
        others = np.flatnonzero(np.arange(len(all_genes)) != at)  # the marker is no part of its own result ...
        x, counts, genes = x[:, others], counts[:, others], all_genes[others]
        total = np.asarray(counts.sum(axis=1, dtype=np.int64)).ravel()  # ... nor of the depth it is matched by
        bins = stratum.depth_bins(total, sample)
        usable = np.flatnonzero(in_use)
        matched = usable[stratum.match_cells(positive[usable], sample[usable], bins[usable], seed)]
        share = stratum.shares(marker, obs, positive, matched, used)
        groups = stratum.groups(marker, obs, cell_labels, positive, of_marker)
        n_positive, n_negative = int(positive[usable].sum()), int((~positive[usable]).sum())
        n_matched = int(positive[matched].sum())
        word, reason = keys.OK, ""
        if min(n_positive, n_negative, n_matched) < args.min_positive:
            word = keys.SKIPPED_TOO_FEW_CELLS
            reason = (
                f"{n_positive} positive, {n_negative} negative and {n_matched} matched cells in the phases"
                f" {', '.join(used) or 'asked for (none has samples)'}; {args.min_positive} of each needed"
            )
        else:
            cells = {}
            for is_matched, chosen in ((True, matched), (False, usable)):
                tested = expression.compare_cells(
                    x[chosen], genes, positive[chosen], sample[chosen], True, args.min_pct, args.min_cells_pseudobulk,
                    args.threads,
                )  # fmt: skip
                side = {"a": positive[chosen], "b": ~positive[chosen]}
                sizes = {f"n_{s}": len(set(sample[chosen][mine])) for s, mine in side.items()}
                sizes |= {f"n_patients_{s}": len(set(patient[chosen][mine])) for s, mine in side.items()}
                sizes |= {f"n_cells_{s}": int(mine.sum()) for s, mine in side.items()}
                cells[is_matched] = expression.cell_rows(tested, level, args.level, contrast, sizes, args.lfc, args.padj)
            made = expression.compare_patients(
                counts[matched], genes, sample[matched], np.where(positive[matched], "a", "b"), patient_of, True,
                args.min_cells_pseudobulk, args.min_replicates, args.padj,
            )  # fmt: skip
            patients = expression.pseudobulk_rows(made, level, args.level, contrast, args.lfc, args.padj)
            if not made.tested:
                word, reason = keys.NO_REPLICATES, made.reason
            parts = [de_rows(cells[True], marker, True), de_rows(cells[False], marker, False), de_rows(patients, marker, True)]
            de = pd.concat([part for part in parts if len(part)], ignore_index=True) if any(map(len, parts)) else de
            rankings = expression.ranking("marker", args.level, contrast, cells[True], patients)
            top = expression.top_genes(cells[True], patients, TOP_GENES).rename(columns=RENAMED)
            unmatched = cells[False].set_index("gene")["p_adjusted"].astype(float)
            top = top.assign(marker=marker, padj_unmatched=unmatched.reindex(top["gene"]).to_numpy())[list(TOP_COLUMNS)]
            score_table = stratum.score_differences(
                marker, scores.iloc[matched], positive[matched], sample[matched], patient_of, args.min_cells_pseudobulk
            )
            n_patients = len(made.patients_a)
            panels = [
                expression.Panel(f"all cells, not matched, n = {n_positive:,} against {n_negative:,}", cells[False]),
                expression.Panel(f"cells of equal depth, n = {n_matched:,} a side", cells[True]),
                expression.Panel(f"patients, paired, n = {n_patients}", patients, f"no test: {made.reason}"),
            ]

    for frame, name in ((de, "marker_de"), (rankings, "rankings")):
        io.write_tsv_gz(frame, Path(f"{marker}.{name}.tsv.gz"))
    for frame, name in ((share, "share"), (top, "top"), (score_table, "scores"), (groups, "groups")):
        io.write_tsv(frame, Path(f"{marker}.marker_{name}.tsv"))
    where = f"{args.level} cells of {', '.join(used) or 'no phase'}"
    title = f"{marker} ({args.rule}) in {where}; thresholds |log2FC| {args.lfc:g}, adjusted p {args.padj:g}"
    content = expression.volcano([panels] if panels else [], title, args.lfc, args.padj, f"{marker} positive", "negative")
    io.write_atomically(Path(f"{marker}.marker_volcano.png"), lambda p: p.write_bytes(content))

    sentence = ""
    if word in (keys.OK, keys.NO_REPLICATES):
        sentence = (
            f"{status.SENTENCES[word]} {n_positive:,} of {n_positive + n_negative:,} {args.level} cells express {marker};"
            f" {n_matched:,} were compared with as many cells of the same depth."
        )
    row = status.StatusRow(
        STEP, "marker", marker, word, reason, len(rows), len(set(sample)), len(set(patient)), sentence
    )  # fmt: skip
    status.write([row], STEP, marker)
    provenance.write(provenance.record(STEP, marker, args, PACKAGES, unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
