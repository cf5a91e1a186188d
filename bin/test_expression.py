#!/usr/bin/env python3
"""Genes that differ between the two sides of one contrast, per cell type: cells (Wilcoxon) and patients (pseudobulk, DESeq2).

Writes, with C = the name of the contrast: C.de_cells.tsv.gz, C.de_pseudobulk.tsv.gz, C.pseudobulk_samples.tsv, C.de_summary.tsv,
C.de_top.tsv, C.volcano.png, C.rankings.tsv.gz.

Example: test_expression.py --contrast POST_vs_PRE --contrasts contrasts.tsv --samples samples.tsv --input merged.h5ad
    --annotation annotation.parquet --tumour P1.malignant.parquet P2.malignant.parquet
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

from scresist import cli, comparison, contract, io, keys, provenance, status

STEP = "test_expression"
TOP_GENES = 10  # per cell type and side in de_top.tsv; all genes stand in the gzipped tables
VOLCANO_TYPES = 3  # tumour cells and the types with most significant genes
PACKAGES = ["anndata", "illico", "matplotlib", "numpy", "pandas", "pydeseq2", "scipy"]
SUMMARY_COLUMNS = (
    "contrast",
    "level",
    "cell_type",
    "n_cells_a",
    "n_cells_b",
    "n_samples_a",
    "n_samples_b",
    "n_patients_a",
    "n_patients_b",
    "status_cells",
    "n_genes_cells",
    "n_up_cells",
    "n_down_cells",
    "n_up_cells_025",
    "n_down_cells_025",
    "n_patients_used_a",
    "n_patients_used_b",
    "design",
    "n_genes_pseudobulk",
    "n_up_pseudobulk",
    "n_down_pseudobulk",
    "n_up_pseudobulk_025",
    "n_down_pseudobulk_025",
    "n_both",
    "evidence",
    "status",
    "reason",
)
TOP_COLUMNS = (
    "contrast", "level", "cell_type", "rank", "side", "gene", "log2fc_patients", "padj_patients", "log2fc_cells", "padj_cells",
    "pct_a", "pct_b", "n_patients_same_sign", "n_patients_compared", "evidence",
)  # fmt: skip


def names(text: str) -> list[str]:
    """argparse type: column names separated by commas, without repeats."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not found:
        raise argparse.ArgumentTypeError("expected at least one level, for example tumour,main_type")
    return found


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--contrast", required=True, type=cli.sample_id, help="name of the contrast, a row of --contrasts")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet")
    add("--tumour", nargs="*", default=[], type=Path, help="<patient>.malignant.parquet of CALL_MALIGNANT, any number")
    add("--groups", nargs="*", default=[], type=Path, help="fragments with further labels, e.g. clusters.parquet")
    add("--levels", type=names, default="tumour,main_type", help="what to test: tumour, main_type or columns of the fragments")
    add("--lfc", type=cli.number(0, 20), default=0.5, help="|log2 fold change| that counts (default 0.5)")
    add("--padj", type=cli.number(1e-12, 1), default=0.05, help="adjusted p below which a gene counts (default 0.05)")
    add("--min_pct", type=cli.number(0, 1), default=0.1, help="share of cells of either side with the gene (default 0.1)")
    add("--min_cells", type=cli.number(2, 10**6, int), default=20, help="cells per side for the cell-level test (default 20)")
    add("--min_cells_pseudobulk", type=cli.number(1, 10**6, int), default=10, help="cells per sample and type (default 10)")
    add("--min_replicates", type=cli.number(2, 1000, int), default=2, help="patients per side for a test (default 2)")
    return parser.parse_args(argv)


def read_contrast(args: argparse.Namespace) -> tuple[comparison.Contrast, dict[str, str]]:
    """The contrast and the patient of each sample."""
    known = {c.name: c for c in comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))}
    if args.contrast not in known:
        raise io.InputError(
            f"{args.contrasts.name}: no contrast {args.contrast}; it holds {', '.join(known) or 'none'}. Use one of these names."
        )
    samples = io.read_tsv(args.samples, dtype=str)
    absent = [name for name in (keys.SAMPLE, keys.PATIENT) if name not in samples]
    if absent:
        raise io.InputError(f"{args.samples.name}: columns {', '.join(absent)} are missing; give samples.tsv of CHECK_DESIGN")
    patient_of = dict(zip(samples[keys.SAMPLE], samples[keys.PATIENT], strict=True))
    contrast = known[args.contrast]
    foreign = sorted({*contrast.samples_a, *contrast.samples_b} - set(patient_of))
    twice = sorted(set(contrast.samples_a) & set(contrast.samples_b))
    problems = [f"sample {name} of the contrast is not in {args.samples.name}" for name in foreign]
    problems += [f"sample {name} stands on both sides" for name in twice]
    if problems:
        raise io.InputError(
            f"{args.contrasts.name}, contrast {contrast.name}: " + "; ".join(problems) + ". Make the two tables agree."
        )
    return contrast, patient_of


def read_labels(args: argparse.Namespace, cells: pd.Index) -> pd.DataFrame:
    """Labels of all cells from the annotation, the tumour calls and the further fragments."""
    from scresist import expression

    annotation = io.join_fragment(cells, io.read_fragment(args.annotation), args.annotation.name)
    calls = {path.name: io.read_fragment(path) for path in sorted(args.tumour, key=lambda p: p.name)}
    tumour = expression.tumour_cells(calls, cells, args.input.name)
    groups = [io.read_fragment(path) for path in sorted(args.groups, key=lambda p: p.name)]
    labels = expression.join_labels(cells, annotation, tumour, groups)
    unknown = [level for level in args.levels if level not in labels]
    if unknown:
        raise io.InputError(
            f"--levels: no column {', '.join(unknown)} in the fragments; they have {', '.join(sorted(labels))}. Give the fragment"
            " that holds it with --groups, or leave the level out."
        )
    return labels


def count_sides(side: np.ndarray, sample: np.ndarray, patient: np.ndarray) -> dict[str, int]:
    """Samples, patients and cells on each side, under the names of the TEST columns."""
    found = {}
    for s in ("a", "b"):
        mine = side == s
        found[f"n_{s}"] = len(set(sample[mine]))
        found[f"n_patients_{s}"] = len(set(patient[mine]))
        found[f"n_cells_{s}"] = int(mine.sum())
    return found


def status_row(summary: pd.DataFrame, contrast: comparison.Contrast, n_cells: int, sizes: dict[str, int]) -> status.StatusRow:
    """One row for the contrast: whether patients, only cells, or nothing could be tested."""
    patients = summary[summary["status"] == keys.OK]
    cells = summary[summary["status_cells"] == keys.OK]
    if len(patients):
        genes = int((patients["n_up_pseudobulk"] + patients["n_down_pseudobulk"]).sum())
        word = keys.WARNING if contrast.status == keys.WARNING else keys.OK
        reason = contrast.reason if word == keys.WARNING else ""
        sentence = (
            f"{status.SENTENCES[word]} {genes} genes differ between patients in {len(patients)} of {len(summary)} cell types."
        )
    elif len(cells):
        word, sentence = keys.NO_REPLICATES, ""
        reason = f"{cells['reason'].iloc[0]}; {len(cells)} cell types were compared cell by cell, which is exploratory"
    else:
        word, sentence = keys.SKIPPED_TOO_FEW_CELLS, ""
        reason = "no cell type with enough cells on both sides" + (
            f"; {summary['cell_type'].iloc[0]}: {summary['reason'].iloc[0]}" if len(summary) else ""
        )
    return status.StatusRow(
        STEP, "contrast", contrast.name, word, reason, n_cells, sizes["n_a"] + sizes["n_b"],
        sizes["n_patients"], sentence,
    )  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    os.environ.setdefault("TQDM_DISABLE", "1")
    args.levels = names(args.levels) if isinstance(args.levels, str) else args.levels
    contrast, patient_of = read_contrast(args)
    import anndata

    from scresist import expression

    backed = anndata.read_h5ad(args.input, backed="r")
    absent = [name for name in keys.IDENTITY if name not in backed.obs]
    if absent:
        raise io.InputError(f"{args.input.name}: obs has no {', '.join(absent)}; give merged.h5ad of MERGE_COHORT")
    labels = read_labels(args, backed.obs_names)
    of_sample = dict.fromkeys(contrast.samples_a, "a") | dict.fromkeys(contrast.samples_b, "b")
    mine = np.flatnonzero(backed.obs[keys.SAMPLE].astype(str).isin(list(of_sample)).to_numpy())
    merged = contract.check(backed[mine].to_memory(), args.input.name, normalised=len(mine) > 0)
    backed.file.close()
    order = np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")  # sums must not follow the order of the input
    x, counts, genes = merged.X[order], merged.layers[keys.COUNTS][order], merged.var_names
    labels = labels.iloc[mine].iloc[order]
    sample = merged.obs[keys.SAMPLE].astype(str).to_numpy()[order]
    side = np.array([of_sample[name] for name in sample], dtype=object)
    patient = np.array([patient_of[name] for name in sample], dtype=object)
    del merged

    columns = {
        "cells": expression.CELL_COLUMNS,
        "patients": expression.PSEUDOBULK_COLUMNS,
        "samples": expression.SAMPLE_COLUMNS,
        "top": TOP_COLUMNS,
        "rankings": expression.RANKING_COLUMNS,
    }
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in columns}
    summary, drawn = [], {}
    for level in args.levels:
        of_cell = expression.level_labels(level, labels).to_numpy(dtype=str)
        kinds = sorted(set(of_cell) - {""})
        if level == expression.TUMOUR_TYPE and not kinds:
            kinds = [level]  # said, not left out: readers look for the tumour first
        for kind in kinds:
            rows = np.flatnonzero(of_cell == kind)
            sizes = count_sides(side[rows], sample[rows], patient[rows])
            made, cells = None, pd.DataFrame(columns=list(expression.CELL_COLUMNS))
            word_cells, few = keys.OK, f"{sizes['n_cells_a']} against {sizes['n_cells_b']} cells"
            if min(sizes["n_cells_a"], sizes["n_cells_b"]) < args.min_cells:
                word_cells = keys.SKIPPED_TOO_FEW_CELLS
            else:
                tested = expression.compare_cells(
                    x[rows], genes, side[rows] == "a", patient[rows], contrast.paired, args.min_pct, args.min_cells_pseudobulk,
                    args.threads,
                )  # fmt: skip
                cells = expression.cell_rows(tested, level, kind, contrast.name, sizes, args.lfc, args.padj)
            made = expression.compare_patients(
                counts[rows], genes, sample[rows], side[rows], patient_of, contrast.paired, args.min_cells_pseudobulk,
                args.min_replicates, args.padj,
            )  # fmt: skip
            patients = expression.pseudobulk_rows(made, level, kind, contrast.name, args.lfc, args.padj)
            if made.tested:
                word, reason = keys.OK, ""
            elif word_cells == keys.OK:
                word, reason = keys.NO_REPLICATES, made.reason
            elif not len(rows) and level == expression.TUMOUR_TYPE:
                word = keys.SKIPPED_NO_INPUT if not args.tumour else keys.SKIPPED_TOO_FEW_CELLS
                reason = "no tumour calls were given" if not args.tumour else "no tumour cells in these samples"
            else:
                word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{few}, {args.min_cells} needed on each side"
            design = ("~ patient + side" if contrast.paired else "~ side") if made.tested else ""
            both = set()
            if len(cells) and len(patients):
                keyed = [set(zip(t["gene"], t["direction"], strict=True)) for t in (cells, patients)]
                both = {pair for pair in keyed[0] & keyed[1] if pair[1]}
            counted = {}
            for name, frame in (("cells", cells), ("pseudobulk", patients)):
                up, down = expression.significant(frame, args.lfc, args.padj)
                up2, down2 = expression.significant(frame, expression.LFC_SECOND, args.padj)
                there = word_cells == keys.OK if name == "cells" else made.tested
                values = (len(frame), up, down, up2, down2) if there else (None,) * 5
                heads = (f"n_genes_{name}", *(f"n_{way}_{name}{end}" for end in ("", "_025") for way in ("up", "down")))
                counted |= dict(zip(heads, values, strict=True))
            summary.append(
                {
                    "contrast": contrast.name,
                    "level": level,
                    "cell_type": kind,
                    **{f"n_cells_{s}": sizes[f"n_cells_{s}"] for s in "ab"},
                    **{f"n_samples_{s}": sizes[f"n_{s}"] for s in "ab"},
                    **{f"n_patients_{s}": sizes[f"n_patients_{s}"] for s in "ab"},
                    "status_cells": word_cells,
                    **counted,
                    "n_patients_used_a": len(made.patients_a),
                    "n_patients_used_b": len(made.patients_b),
                    "design": design,
                    "n_both": len(both) if made.tested and word_cells == keys.OK else None,
                    "evidence": (
                        patients["evidence"].iloc[0] if len(patients) else keys.CELL_LEVEL if word_cells == keys.OK else ""
                    ),
                    "status": word,
                    "reason": reason,
                }
            )
            parts["samples"].append(made.samples.assign(level=level, cell_type=kind))
            if not len(cells) and not len(patients):
                continue
            parts["cells"].append(cells)
            parts["patients"].append(patients)
            parts["rankings"].append(expression.ranking("expression", kind, contrast.name, cells, patients))
            top = expression.top_genes(cells, patients, TOP_GENES)
            parts["top"].append(top.assign(contrast=contrast.name, level=level, cell_type=kind))
            drawn[kind] = (cells, patients, made, sizes)

    tables = {}
    for name, wanted in columns.items():
        filled = [part for part in parts[name] if len(part)]
        joined = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=list(wanted))
        tables[name] = joined[list(wanted)]
    frame = pd.DataFrame(summary, columns=list(SUMMARY_COLUMNS))
    for name in SUMMARY_COLUMNS:
        if name.startswith("n_"):
            frame[name] = frame[name].astype("Int64")
    for name, end in (("cells", "de_cells"), ("patients", "de_pseudobulk"), ("rankings", "rankings")):
        io.write_tsv_gz(tables[name], Path(f"{contrast.name}.{end}.tsv.gz"))
    io.write_tsv(tables["samples"], Path(f"{contrast.name}.pseudobulk_samples.tsv"))
    io.write_tsv(tables["top"], Path(f"{contrast.name}.de_top.tsv"))
    io.write_tsv(frame, Path(f"{contrast.name}.de_summary.tsv"))
    content = picture(drawn, frame, contrast, args)
    io.write_atomically(Path(f"{contrast.name}.volcano.png"), lambda p: p.write_bytes(content))

    sizes = count_sides(side, sample, patient) | {"n_patients": len(set(patient))}
    status.write([status_row(frame, contrast, len(side), sizes)], STEP, contrast.name)
    seed = cli.unit_seed(args.seed, STEP, contrast.name)
    provenance.write(provenance.record(STEP, contrast.name, args, PACKAGES, unit_seed=seed))
    return 0


def picture(drawn: dict, summary: pd.DataFrame, contrast: comparison.Contrast, args: argparse.Namespace) -> bytes:
    """Volcanoes of the tumour cells and of the types with most significant genes."""
    from scresist import expression

    known = summary[summary["cell_type"].isin(list(drawn))].fillna(0)
    known = known.assign(
        first=known["cell_type"] == expression.TUMOUR_TYPE,
        hits=(known["n_up_pseudobulk"] + known["n_down_pseudobulk"]).astype(int),
        hits_cells=(known["n_up_cells"] + known["n_down_cells"]).astype(int),
    )
    known = known.sort_values(["first", "hits", "hits_cells", "cell_type"], ascending=[False, False, False, True])
    rows = []
    for kind in known["cell_type"].head(VOLCANO_TYPES):
        cells, patients, made, sizes = drawn[kind]
        rows.append(
            (
                expression.Panel(
                    f"{kind}: cells (exploratory), n = {sizes['n_cells_a']:,} against {sizes['n_cells_b']:,}",
                    cells,
                    f"fewer than {args.min_cells} cells on a side",
                ),
                expression.Panel(
                    f"{kind}: patients (pseudobulk), n = {len(made.patients_a)} against {len(made.patients_b)}"
                    + (", paired" if contrast.paired else ""),
                    patients,
                    f"no test: {made.reason}",
                ),
            )
        )
    title = f"{contrast.name}: thresholds |log2FC| {args.lfc:g} (dashed) and 0.25 (dotted), adjusted p {args.padj:g}"
    return expression.volcano(rows, title, args.lfc, args.padj, contrast.side_a or "A", contrast.side_b or "B")


if __name__ == "__main__":
    cli.run(main)
