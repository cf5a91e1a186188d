#!/usr/bin/env python3
"""Malignant, non-malignant or unresolved: the call of each epithelial cell of one patient from its copy-number profile.

Writes <patient>.malignant.parquet (per cell), <patient>.malignant.tsv (per sample), <patient>.malignant_clusters.tsv (per
cluster of profiles), <patient>.malignant_sensitivity.tsv (how the call moves with its thresholds).

Example: call_malignant.py --patient P1 --input P1.cnv.h5ad --scores P1.cnv.parquet
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from scresist import cli, io, keys, provenance, status

STEP = "call_malignant"
BASIS_CNV, BASIS_EPITHELIAL, BASIS_NONE = "cnv", "epithelial", "none"
FRAGMENT = [
    keys.CELL, keys.MALIGNANT, keys.MALIGNANT_BASIS, keys.CNV_CLUSTER, keys.ARM_PROJECTION, keys.CNV_CORR, keys.QUOTA_TOP10,
    keys.REFERENCE_CUT, keys.TUMOUR, keys.TUMOUR_BASIS,
]  # fmt: skip
TABLE = [
    "patient", "sample", "phase", "n_epithelial", "n_malignant", "n_non", "n_unresolved", "n_quota", "n_refcut", "n_tumour",
    "tumour_basis", "agreement_quota", "agreement_refcut", "status",
]  # fmt: skip
CLUSTERS = [
    "patient",
    "cluster",
    "n_cells",
    "n_samples",
    "top_sample_share",
    "n_shifted",
    "arms",
    "judged",
    "tumour_like",
    "n_malignant",
]
SENSITIVITY = [
    "patient", "arm_shift", "min_shifted_arms", "third_shift", "cell_quantile", "is_default", "n_tumour_like_clusters",
    "n_malignant", "jaccard_to_default",
]  # fmt: skip


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--patient", required=True, type=cli.sample_id, help="patient id")
    add("--input", required=True, type=Path, help="<patient>.cnv.h5ad of INFER_CNV")
    add("--scores", required=True, type=Path, help="<patient>.cnv.parquet of INFER_CNV")
    add("--arm_shift", type=cli.number(0.1, 100), default=1.5, help="reference sd from which an arm is shifted (default 1.5)")
    add("--third_shift", type=cli.number(0, 100), default=0.75, help="the same for each third of the arm's genes (default 0.75)")
    add("--min_shifted_arms", type=cli.number(1, 41, int), default=2, help="shifted arms of a tumour-like cluster (default 2)")
    add("--cell_quantile", type=cli.number(0.5, 1), default=0.95, help="quantile of reference cells to be above (default 0.95)")
    add("--quota", type=cli.number(0.001, 0.999), default=0.10, help="share of top scores in the study's rule (default 0.10)")
    add("--reference_sd", type=cli.number(0, 100), default=2.0, help="sd above the reference's mean score (default 2)")
    add("--min_epithelial_cells", type=cli.number(1, 10**7, int), default=20, help="epithelial cells needed (default 20)")
    add(
        "--quiet_use",
        choices=["epithelial", "none"],
        default="epithelial",
        help="what stands for the tumour where no call was possible: all epithelial cells, or none (default epithelial)",
    )
    return parser.parse_args(argv)


def read(path: Path, scores: Path) -> tuple[anndata.AnnData, pd.DataFrame]:
    """Profiles and the table of epithelial cells: score, sample, phase, index cell, sorted.

    Raises
    ------
    InputError
        when a slot or column is missing, or the two files do not belong together.
    """
    made = anndata.read_h5ad(path)
    problems = [f"uns['{name}'] is missing" for name in ("arms", "samples", "status") if name not in made.uns]
    problems += [f"obsm['{name}'] is missing" for name in ("X_cnv", "arms", "arm_thirds") if name not in made.obsm]
    if problems:
        raise io.InputError(f"{path.name}: {'; '.join(problems)}: give the file that INFER_CNV wrote")
    fragment = io.read_fragment(scores)
    absent = [name for name in (keys.CNV_ROLE, keys.CNV_SCORE_SUM) if name not in fragment]
    if absent:
        raise io.InputError(f"{scores.name}: no column {', '.join(absent)}: give the file that INFER_CNV wrote")
    if made.n_obs:
        io.join_fragment(made.obs_names, fragment, scores.name)
    cells = fragment[fragment[keys.CNV_ROLE] == keys.CNV_ROLE_QUERY].sort_index()
    if made.n_obs and set(cells.index) != set(made.obs_names[made.obs[keys.CNV_ROLE].astype(str) == keys.CNV_ROLE_QUERY]):
        raise io.InputError(f"{path.name} and {scores.name} hold different epithelial cells: take both from one run of INFER_CNV")
    phase = dict(zip(made.uns["samples"][keys.SAMPLE], made.uns["samples"][keys.PHASE], strict=True))
    sample = cells.index.str.split(":", n=1).str[0]
    return made, cells.assign(**{keys.SAMPLE: sample, keys.PHASE: [phase.get(name, "") for name in sample]})


def uncalled(cells: pd.DataFrame, basis: str) -> pd.DataFrame:
    """The fragment of a patient without profiles: every cell unresolved."""
    frame = pd.DataFrame({keys.CELL: cells.index.to_numpy(dtype=str)})
    frame[keys.MALIGNANT], frame[keys.MALIGNANT_BASIS], frame[keys.CNV_CLUSTER] = keys.UNRESOLVED, basis, ""
    frame[keys.ARM_PROJECTION] = frame[keys.CNV_CORR] = np.nan
    frame[keys.QUOTA_TOP10] = frame[keys.REFERENCE_CUT] = pd.array([pd.NA] * len(frame), dtype="boolean")
    return frame


def per_sample(cells: pd.DataFrame, frame: pd.DataFrame, word: str) -> pd.DataFrame:
    """Numbers of calls by sample; those of the study's rules stay empty where there is no score."""
    from scresist import malignancy

    rows = []
    calls = frame[keys.MALIGNANT].to_numpy(dtype=str)
    for (sample, phase), at in sorted(cells.reset_index().groupby([keys.SAMPLE, keys.PHASE]).indices.items()):
        mine = calls[at]
        flags = {name: frame[name].to_numpy()[at] for name in (keys.QUOTA_TOP10, keys.REFERENCE_CUT)}
        known = {name: not pd.isna(flag).any() for name, flag in flags.items()}
        n = {name: int(flag.astype(bool).sum()) if known[name] else None for name, flag in flags.items()}
        agree = {name: malignancy.agreement(mine, flag.astype(bool)) if known[name] else np.nan for name, flag in flags.items()}
        rows.append(
            {
                "sample": sample,
                "phase": phase,
                "n_epithelial": len(at),
                "n_malignant": int((mine == keys.MALIGNANT_YES).sum()),
                "n_non": int((mine == keys.MALIGNANT_NO).sum()),
                "n_unresolved": int((mine == keys.UNRESOLVED).sum()),
                "n_quota": n[keys.QUOTA_TOP10],
                "n_refcut": n[keys.REFERENCE_CUT],
                "n_tumour": int(frame[keys.TUMOUR].to_numpy()[at].sum()),
                "tumour_basis": frame[keys.TUMOUR_BASIS].iloc[at[0]],
                "agreement_quota": agree[keys.QUOTA_TOP10],
                "agreement_refcut": agree[keys.REFERENCE_CUT],
                "status": word,
            }
        )
    table = pd.DataFrame(rows, columns=TABLE[1:])
    for name in ("n_quota", "n_refcut"):
        table[name] = table[name].astype("Int64")
    return table


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    from scresist import malignancy

    who, seed = args.patient, cli.unit_seed(args.seed, STEP, args.patient)
    made, cells = read(args.input, args.scores)
    rule = malignancy.Rule(
        args.arm_shift, args.third_shift, args.min_shifted_arms, args.cell_quantile, args.quota, args.reference_sd
    )
    clusters, grid = pd.DataFrame(columns=CLUSTERS), pd.DataFrame(columns=SENSITIVITY)
    called = False
    before = str(made.uns["status"]["reason"])
    if not len(cells):
        word, reason, frame = keys.SKIPPED_NO_INPUT, "no epithelial cell of this patient", uncalled(cells, malignancy.NO_CNV)
    elif len(cells) < args.min_epithelial_cells:
        word, reason = keys.SKIPPED_TOO_FEW_CELLS, f"{len(cells)} epithelial cells, {args.min_epithelial_cells} needed"
        frame = uncalled(cells, malignancy.TOO_FEW)
    elif not made.n_obs:
        word, reason = keys.SKIPPED_NO_INPUT, f"no copy-number profile of this patient: {before}"
        frame = uncalled(cells, malignancy.NO_CNV)
    else:
        made = made[np.argsort(made.obs_names.to_numpy(dtype=str), kind="stable")]
        reference = (made.obs[keys.CNV_ROLE].astype(str) == keys.CNV_ROLE_REFERENCE).to_numpy()
        arms = made.uns["arms"]
        found = malignancy.evidence(
            made.obsm["arms"], made.obsm["arm_thirds"], reference, [str(name) for name in arms["name"]], arms["n_genes"]
        )
        profile = np.asarray(made.obsm["X_cnv"])[~reference]
        labels = malignancy.cluster(profile, seed)
        result = malignancy.call(found, labels, rule)
        score = cells[keys.CNV_SCORE_SUM].to_numpy(dtype=float)
        of_reference = io.read_fragment(args.scores)[keys.CNV_SCORE_SUM].loc[made.obs_names[reference]].to_numpy(dtype=float)
        quota = malignancy.above_quota(score, rule.quota)
        frame = pd.DataFrame(
            {
                keys.CELL: cells.index.to_numpy(dtype=str),
                keys.MALIGNANT: result.malignant,
                keys.MALIGNANT_BASIS: result.basis,
                keys.CNV_CLUSTER: labels,
                keys.ARM_PROJECTION: result.projection,
                keys.CNV_CORR: malignancy.correlation(profile, quota),
                keys.QUOTA_TOP10: quota,
                keys.REFERENCE_CUT: malignancy.above_reference(score, of_reference, rule.reference_sd),
            }
        )
        called = not result.quiet
        sample = cells[keys.SAMPLE].to_numpy(dtype=str)
        more = []
        for name in result.clusters["cluster"]:
            mine = labels == name
            sizes = pd.Series(sample[mine]).value_counts()
            more.append((len(sizes), sizes.iloc[0] / mine.sum(), int((result.malignant[mine] == keys.MALIGNANT_YES).sum())))
        clusters = result.clusters.assign(patient=who)
        clusters[["n_samples", "top_sample_share", "n_malignant"]] = more
        clusters = clusters.astype({"n_samples": int, "n_malignant": int})[CLUSTERS]
        grid = malignancy.sensitivity(found, labels, rule).assign(patient=who)[SENSITIVITY]
        if called:
            word, reason = (
                (keys.WARNING, f"copy-number profiles: {before}") if made.uns["status"]["word"] == keys.WARNING else (keys.OK, "")
            )
        else:
            word = keys.CNV_QUIET
            reason = (
                f"no cluster of at least {malignancy.MIN_CLUSTER_CELLS} of the {len(cells)} epithelial cells has "
                f"{rule.min_shifted_arms} shifted arms (most found: {int(result.clusters['n_shifted'].max())})"
            )
    if called:
        frame[keys.TUMOUR], frame[keys.TUMOUR_BASIS] = frame[keys.MALIGNANT] == keys.MALIGNANT_YES, BASIS_CNV
    else:
        frame[keys.TUMOUR] = args.quiet_use == "epithelial"
        frame[keys.TUMOUR_BASIS] = BASIS_EPITHELIAL if args.quiet_use == "epithelial" else BASIS_NONE
    frame[keys.TUMOUR] = frame[keys.TUMOUR].astype(bool)
    table = per_sample(cells, frame, word).assign(patient=who)[TABLE]

    for name in (keys.QUOTA_TOP10, keys.REFERENCE_CUT):
        frame[name] = frame[name].astype("boolean")
    io.write_fragment(frame[FRAGMENT], Path(f"{who}.malignant.parquet"))
    io.write_tsv(table, Path(f"{who}.malignant.tsv"))
    io.write_tsv(clusters, Path(f"{who}.malignant_clusters.tsv"))
    io.write_tsv(grid, Path(f"{who}.malignant_sensitivity.tsv"))

    sentence = status.SENTENCES[word]
    n_malignant = int((frame[keys.MALIGNANT] == keys.MALIGNANT_YES).sum())
    if called:
        n_open = int((frame[keys.MALIGNANT] == keys.UNRESOLVED).sum())
        sentence += f" {n_malignant} of {len(cells)} epithelial cells carry copy-number changes; {n_open} stay unresolved."
    elif len(cells):
        use = "all of them stand for the tumour in later steps" if args.quiet_use == "epithelial" else "none is used as tumour"
        sentence += f" {len(cells)} epithelial cells stay unresolved; {use}."
    row = status.StatusRow(
        step=STEP, unit_type="patient", unit=who, status=word, reason=reason, n_cells=len(cells),
        n_samples=cells[keys.SAMPLE].nunique(), n_patients=1, sentence=sentence,
    )  # fmt: skip
    status.write([row], STEP, who)
    packages = ["anndata", "igraph", "numpy", "scanpy", "scikit-learn", "scipy", "umap-learn"]
    provenance.write(provenance.record(STEP, who, args, packages, unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
