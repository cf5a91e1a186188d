#!/usr/bin/env python3
"""Which cell types of one sample may signal to which: LIANA's consensus rank and CellChat's probabilities with pathways.

Writes <sample>.liana.tsv.gz, its first rows as <sample>.liana_top.tsv, <sample>.lr_prob.tsv.gz, <sample>.pathway_prob.tsv,
<sample>.comm_strength.tsv and <sample>.comm_groups.tsv.

Example: score_communication.py --sample PRE-1 --input merged.h5ad --annotation annotation.parquet --samples samples.tsv
--lr_table lr_pathways.tsv
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

STEP = "score_communication"
PROB_COLUMNS = ["sample", "source", "target", "pair", "pathway", "ligand", "receptor", "prob", "pval"]
PATHWAY_COLUMNS = ["sample", "source", "target", "pathway", "prob", "n_pairs"]
STRENGTH_COLUMNS = ["sample", "cell_type", "outgoing", "incoming", "n_links"]
GROUP_COLUMNS = ["sample", "patient", "phase", "cell_type", "n_cells", "estimable"]
LIANA_COLUMNS = ["sample", "source", "target", "ligand", "receptor"]
MIN_TYPES = 2  # methods.md, SCORE_COMMUNICATION: fewer have no one to talk to
OVEREXPRESSED_P = 0.05
LIANA_TOP = 100  # rows for the page
NAMED = 8  # types that a reason names before it counts the rest


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__, sample=True)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--lr_table", required=True, type=Path, help="pairs, families of ligands, or CellChatDB's interaction table")
    add("--lr_complexes", type=Path, help="CellChatDB's table of complexes, with its interaction table")
    add("--lr_cofactors", type=Path, help="CellChatDB's table of cofactors, with its interaction table")
    add("--lr_version", default="", help="keep pairs whose version ends with this text, e.g. v1 (default all)")
    add("--groupby", choices=(keys.MAIN_TYPE, keys.SUBTYPE), default=keys.SUBTYPE, help="column of types (default subtype)")
    add("--min_cells", type=cli.number(0, 10**6, int), default=5, help="types with so many cells or fewer leave (default 5)")
    add("--n_perms", type=cli.number(1, 10**5, int), default=100, help="permutations of labels for CellChat's p (default 100)")
    add("--kh", type=cli.number(1e-6, 100), default=0.5, help="half-saturation of the Hill function (default 0.5)")
    add("--no_cofactors", action="store_true", help="leave out agonists, antagonists and co-receptors")
    add("--prefilter", choices=("none", "overexpressed"), default="none", help="pairs tested: all, or with a gene over-expressed")
    add("--skip_liana", action="store_true", help="leave LIANA's consensus out; its table stays empty")
    add("--n_perms_liana", type=cli.number(1, 10**5, int), default=1000, help="permutations of LIANA (default 1000)")
    add("--expr_prop", type=cli.number(0, 1), default=0.1, help="LIANA: least share of expressing cells (default 0.1)")
    return parser.parse_args(argv)


@dataclass(frozen=True)
class Sample:
    """Cells of one sample, sorted by name: log1p CP10k, genes, types ("" for none); and the types of the whole cohort."""

    x: sparse.csr_matrix
    genes: list[str]
    types: np.ndarray
    cohort_types: list[str]
    patient: str
    phase: str


def read_sample(args: argparse.Namespace) -> Sample:
    """The rows of one sample and no others.

    Raises
    ------
    InputError
        when the sample is not in the design, a file breaks its contract, or a cell has no annotation.
    """
    design = io.read_tsv(args.samples, dtype=str)
    absent = [name for name in (keys.SAMPLE, keys.PATIENT, keys.PHASE) if name not in design]
    if absent:
        raise io.InputError(f"{args.samples.name}: no column {', '.join(absent)}; columns are {', '.join(design)}")
    rows = design[design[keys.SAMPLE] == args.sample]
    if len(rows) != 1:
        known = ", ".join(sorted(design[keys.SAMPLE]))[:300]
        raise io.InputError(f"{args.samples.name}: {len(rows)} rows of sample {args.sample}, expected 1; samples are {known}")
    annotation = io.read_fragment(args.annotation)
    if args.groupby not in annotation:
        columns = ", ".join(annotation)
        raise io.InputError(f"{args.annotation.name}: no column {args.groupby}; columns are {columns}: correct comm_groupby")
    labels = annotation[args.groupby].fillna("").astype(str).replace(keys.UNRESOLVED, "")
    backed = anndata.read_h5ad(args.input, backed="r")
    if keys.SAMPLE not in backed.obs:
        raise io.InputError(f"{args.input.name} breaks the AnnData contract: obs['{keys.SAMPLE}'] is missing")
    mine = np.flatnonzero((backed.obs[keys.SAMPLE].astype(str) == args.sample).to_numpy())
    part = backed[mine].to_memory()
    backed.file.close()
    part = contract.check(part, args.input.name, normalised=len(mine) > 0)
    part = part[np.argsort(part.obs_names.to_numpy(dtype=str), kind="stable")]
    types = io.join_fragment(part.obs_names, labels.to_frame(), args.annotation.name)[args.groupby].to_numpy(dtype=str)
    return Sample(
        x=sparse.csr_matrix(part.X),
        genes=[str(name) for name in part.var_names],
        types=types,
        cohort_types=sorted(set(labels) - {""}),
        patient=rows.iloc[0][keys.PATIENT],
        phase=rows.iloc[0][keys.PHASE],
    )


def groups_of(sample: str, data: Sample, min_cells: int) -> pd.DataFrame:
    """Every type of the cohort with its cells in this sample, and whether it has enough of them."""
    n_cells = pd.Series(data.types).value_counts().reindex(data.cohort_types, fill_value=0)
    return pd.DataFrame(
        {
            "sample": sample,
            "patient": data.patient,
            "phase": data.phase,
            "cell_type": data.cohort_types,
            "n_cells": n_cells.to_numpy(dtype=int),
            "estimable": (n_cells > min_cells).to_numpy(),
        },
        columns=GROUP_COLUMNS,
    )


def link_table(sample: str, names: list[str], prob: np.ndarray, pval: np.ndarray, table: pd.DataFrame) -> pd.DataFrame:
    """Long form of pairs x groups x groups: rows with a probability above zero, by pair, source, target."""
    pair, source, target = np.nonzero(np.nan_to_num(prob) > 0)
    types = np.array(names, dtype=object)
    made = {"sample": sample, "source": types[source], "target": types[target]}
    made |= {column: table[column].to_numpy(dtype=object)[pair] for column in ("pair", "pathway", "ligand", "receptor")}
    return pd.DataFrame({**made, "prob": prob[pair, source, target], "pval": pval[pair, source, target]}, columns=PROB_COLUMNS)


def pathway_table(sample: str, names: list[str], pathways: list[str], sums: np.ndarray, numbers: np.ndarray) -> pd.DataFrame:
    """Long form of pathways x groups x groups: rows with a sum above zero, by pathway, source, target."""
    pathway, source, target = np.nonzero(np.nan_to_num(sums) > 0)
    types = np.array(names, dtype=object)
    return pd.DataFrame(
        {
            "sample": sample,
            "source": types[source],
            "target": types[target],
            "pathway": np.array(pathways, dtype=object)[pathway],
            "prob": sums[pathway, source, target],
            "n_pairs": numbers[pathway, source, target].astype(int),
        },
        columns=PATHWAY_COLUMNS,
    )


def strength_table(sample: str, groups: pd.DataFrame, names: list[str], links: pd.DataFrame) -> pd.DataFrame:
    """Sum of the significant probabilities that each type sends and receives; empty for a type that is not estimable."""
    sent = links.groupby("source")["prob"].sum().reindex(names, fill_value=0.0)
    received = links.groupby("target")["prob"].sum().reindex(names, fill_value=0.0)
    own = links[links["source"] == links["target"]].groupby("source").size().reindex(names, fill_value=0)
    number = links.groupby("source").size().reindex(names, fill_value=0) + links.groupby("target").size().reindex(
        names, fill_value=0
    )
    made = pd.DataFrame({"outgoing": sent, "incoming": received, "n_links": number - own}).reindex(groups["cell_type"])
    made["n_links"] = made["n_links"].astype("Int64")
    made = made.rename_axis("cell_type").reset_index()
    made.insert(0, "sample", sample)
    return made[STRENGTH_COLUMNS]


def overexpressed(x: sparse.csr_matrix, types: np.ndarray, threads: int) -> np.ndarray:
    """Genes that are higher in some type than in all other cells (Wilcoxon p < 0.05, CellChat's identifyOverExpressedGenes)."""
    from scresist import expression

    tested = expression.rank_sum(x, types, threads=threads)
    return np.any([(frame["z"] > 0) & (frame["p_value"] < OVEREXPRESSED_P) for frame in tested.values()], axis=0)


def score(
    args: argparse.Namespace, data: Sample, groups: pd.DataFrame, seed: int
) -> tuple[dict[str, pd.DataFrame], str, str, str]:
    """The tables of both methods, and the status word with its reason and a sentence."""
    from scresist import communication, pair_tables

    empty = {
        "liana": pd.DataFrame(columns=[*LIANA_COLUMNS, *communication.LIANA_SCORES]),
        "lr_prob": pd.DataFrame(columns=PROB_COLUMNS),
        "pathway_prob": pd.DataFrame(columns=PATHWAY_COLUMNS),
        "comm_strength": strength_table(args.sample, groups, [], pd.DataFrame(columns=PROB_COLUMNS)),
    }
    table = pair_tables.load(args.lr_table, args.lr_complexes, args.lr_cofactors, args.lr_version)
    names = groups.loc[groups["estimable"], "cell_type"].tolist()
    if len(names) < MIN_TYPES:
        found = f"{len(names)} cell types with more than {args.min_cells} cells ({len(data.types)} cells in all)"
        return empty, keys.SKIPPED_TOO_FEW_CELLS, f"{found}, {MIN_TYPES} types needed", ""
    pairs = communication.read_pairs(table, data.genes)
    if not len(pairs):
        found = f"none of the {len(table)} pairs of {args.lr_table.name} has all its genes among {len(data.genes)} measured ones"
        return empty, keys.SKIPPED_FEW_GENES, found, ""
    at = {gene: index for index, gene in enumerate(data.genes)}
    x = data.x[:, [at[gene] for gene in pairs.genes]].tocsr()
    labelled = data.types != ""
    values, types = communication.scale(x)[labelled], data.types[labelled]
    if args.prefilter == "overexpressed":
        pairs = pairs.take(communication.any_gene(pairs, overexpressed(x[labelled].sorted_indices(), types, args.threads)))
    codes = pd.Categorical(types, categories=names).codes.astype(np.int32)
    cofactors = not args.no_cofactors
    ranked = communication.rank(values)
    averages = communication.trimean_by_group(ranked, codes, len(names))
    prob = communication.probabilities(averages, pairs, kh=args.kh, cofactors=cofactors)
    pval = communication.permutation_pvalues(
        ranked, codes, len(names), pairs, prob, args.n_perms, np.random.default_rng(seed),
        threads=args.threads, kh=args.kh, cofactors=cofactors,
    )  # fmt: skip
    links = link_table(args.sample, names, prob, pval, pairs.table)
    significant = links[links["pval"] <= communication.PATHWAY_CUT]
    pathways, sums = communication.pathway_sums(prob, pval, pairs)
    _, numbers = communication.pathway_sums((prob > 0).astype(float), pval, pairs)
    made = {
        "liana": empty["liana"],
        "lr_prob": links,
        "pathway_prob": pathway_table(args.sample, names, pathways, sums, numbers),
        "comm_strength": strength_table(args.sample, groups, names, significant),
    }
    remarks = []
    if not len(pairs):
        remarks.append("no pair has an over-expressed gene (--prefilter overexpressed): no link was tested")
    if args.skip_liana:
        remarks.append("LIANA's consensus was switched off (--skip_liana): its tables are empty")
    else:
        ranks = communication.liana_consensus(
            data.x[labelled], data.genes, types, args.min_cells + 1, args.expr_prop, args.n_perms_liana, seed
        )
        ranks.insert(0, "sample", args.sample)
        made["liana"] = ranks
        if not len(ranks):
            remarks.append(
                f"LIANA ranks nothing: no pair of its resource is expressed by {args.expr_prop:.0%} of the cells of a type, or "
                f"fewer than {communication.LIANA_SHARE:.0%} of its genes were measured"
            )
    left = groups.loc[~groups["estimable"]]
    if len(left):
        listed = status.few([f"{row.cell_type} ({row.n_cells})" for row in left.itertuples()], NAMED)
        remarks.append(f"not estimable with {args.min_cells} cells or fewer: {listed}; their links are empty, not zero")
    best = made["pathway_prob"].groupby("pathway")["prob"].sum()
    named = best[~best.index.str.startswith(pair_tables.OTHER)].sort_values(ascending=False, kind="stable").index[:3]
    strongest = f"; strongest pathways {', '.join(named)}" if len(named) else ""
    sentence = (
        f"{len(significant):,} possible signals between {len(names)} cell types, by {significant['pair'].nunique():,} of "
        f"{len(pairs):,} ligand-receptor pairs{strongest}. Inferred from expression of ligand and receptor: no contact or effect "
        "was measured."
    )
    return made, keys.OK, "; ".join(remarks), sentence


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at import: no progress bars in the logs of tasks
    data = read_sample(args)
    groups = groups_of(args.sample, data, args.min_cells)
    seed = cli.unit_seed(args.seed, STEP, args.sample)
    made, word, reason, sentence = score(args, data, groups, seed)
    io.write_tsv_gz(made["liana"], Path(f"{args.sample}.liana.tsv.gz"))
    io.write_tsv(made["liana"].head(LIANA_TOP), Path(f"{args.sample}.liana_top.tsv"))
    io.write_tsv_gz(made["lr_prob"], Path(f"{args.sample}.lr_prob.tsv.gz"))
    io.write_tsv(made["pathway_prob"], Path(f"{args.sample}.pathway_prob.tsv"))
    io.write_tsv(made["comm_strength"], Path(f"{args.sample}.comm_strength.tsv"))
    io.write_tsv(groups, Path(f"{args.sample}.comm_groups.tsv"))
    row = status.StatusRow(
        step=STEP, unit_type="sample", unit=args.sample, status=word, reason=reason, n_cells=len(data.types), n_samples=1,
        n_patients=1, sentence=f"{status.SENTENCES[word]} {sentence}".strip(),
    )  # fmt: skip
    status.write([row], STEP, args.sample)
    packages = ["anndata", "numba", "numpy", "pandas", "scipy"]
    packages += ["illico"] if args.prefilter == "overexpressed" else []
    provenance.write(provenance.record(STEP, args.sample, args, [*packages, "liana"], unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
