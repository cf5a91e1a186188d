#!/usr/bin/env python3
"""Copy-number profile and score of each cell of one patient, all phases together, against the patient's own normal cells.

Writes <patient>.cnv.h5ad (cells x every n-th gene, arm values in obsm), <patient>.cnv.parquet (scores per cell),
<patient>.cnv_arms.tsv, <patient>.cnv_reference.tsv.

Example: infer_cnv.py --patient P1 --input merged.h5ad --annotation annotation.parquet --arms arms.tsv --panels panels.tsv
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

if TYPE_CHECKING:
    from scresist.cnv import Genome, Profiles, Regions

STEP = "infer_cnv"
OBS = (keys.SAMPLE, keys.PATIENT, keys.PHASE, keys.MAIN_TYPE, keys.CNV_ROLE, "cnv_group")
ARM_COLUMNS = ["patient", "sample", "phase", "main_type", "cnv_role", "arm", "n_genes", "n_cells", "mean", "sd", "mean_z"]
REFERENCE_COLUMNS = ["patient", "group", "main_types", "n_cells", "arms_shifted", "arms", "n_suspect", "used"]


def odd(text: str) -> int:
    """argparse type: an odd number of genes, from 3 on."""
    value = cli.number(3, 1001, int)(text)
    if value % 2 == 0:
        raise argparse.ArgumentTypeError(f"{value} is even: a window needs a middle gene, take {value + 1}")
    return value


def names(text: str) -> list[str]:
    """argparse type: names separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--patient", required=True, type=cli.sample_id, help="patient id")
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet: main_type and lineage of each cell")
    add("--arms", required=True, type=Path, help="arms.tsv: chromosome, arm, start, end")
    add("--panels", type=Path, help="table with a column `gene`: loci whose copy number is reported (default none)")
    add("--engine", choices=["scresist", "infercnvpy"], default="scresist", help="who computes the profile (default scresist)")
    add("--window", type=odd, default=101, help="genes under the smoothing window, odd (default 101)")
    add("--clip", type=cli.number(0.1, 20), default=3.0, help="bound of the log2 difference to the reference (default 3)")
    add("--min_mean", type=cli.number(0, 1000), default=0.1, help="mean count from which a gene is used (default 0.1)")
    add("--reference", type=names, default=[], help="main types of the reference, comma list (default all immune and stromal)")
    add("--min_reference_cells", type=cli.number(2, 10**7, int), default=50, help="reference cells needed (default 50)")
    add("--min_epithelial_cells", type=cli.number(1, 10**7, int), default=20, help="epithelial cells needed (default 20)")
    add("--profile_step", type=cli.number(1, 1000, int), default=10, help="every n-th gene of the profile is kept (default 10)")
    add("--block_cells", type=cli.number(1, 65536, int), default=512, help="cells per unit of work; no result depends on it")
    return parser.parse_args(argv)


def read_rows(group: h5py.Group, rows: np.ndarray) -> sparse.csr_matrix:
    """Some rows (ascending) of a CSR matrix in an open file; runs of neighbouring rows are read at once."""
    indptr = group["indptr"][:].astype(np.int64)
    sizes = indptr[rows + 1] - indptr[rows]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    kind = np.int32 if ends[-1] < np.iinfo(np.int32).max else np.int64
    data, indices = np.empty(ends[-1], dtype=group["data"].dtype), np.empty(ends[-1], dtype=kind)
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(np.arange(len(rows)), breaks) if len(rows) else []:
        here, there = slice(ends[run[0]], ends[run[-1] + 1]), slice(indptr[rows[run[0]]], indptr[rows[run[-1]] + 1])
        data[here], indices[here] = group["data"][there], group["indices"][there]
    shape = (len(rows), int(group.attrs["shape"][1]))
    return sparse.csr_matrix((data, indices, ends.astype(kind)), shape=shape)


def read_patient(path: Path, patient: str, annotation: pd.DataFrame) -> anndata.AnnData:
    """Counts of the patient's annotated cells, sorted by name; obs gets the columns of the annotation.

    Raises
    ------
    InputError
        when the file breaks the contract, or a cell of the patient has no annotation.
    """
    with h5py.File(path) as stream:
        parts = {name: anndata.io.read_elem(stream[name]) for name in ("obs", "var", "uns")}
        obs = parts["obs"]
        if keys.PATIENT not in obs:
            raise io.InputError(f"{path.name} breaks the AnnData contract: obs['{keys.PATIENT}'] is missing")
        rows = np.flatnonzero((obs[keys.PATIENT].astype(str) == patient).to_numpy())
        labels = io.join_fragment(obs.index[rows], annotation, "the annotation")
        wanted = labels[keys.CNV_ROLE].to_numpy() != ""
        rows, labels = rows[wanted], labels[wanted]
        layers = {}
        if f"layers/{keys.COUNTS}/indptr" in stream:
            layers[keys.COUNTS] = read_rows(stream[f"layers/{keys.COUNTS}"], rows)
    made = anndata.AnnData(
        obs=obs.iloc[rows], var=parts["var"], uns={keys.UNS: parts["uns"].get(keys.UNS, {})}, layers=layers,
        shape=(len(rows), len(parts["var"])),
    )  # fmt: skip
    contract.check(made, path.name)
    made.obs = made.obs.assign(**{name: labels[name].astype(str).to_numpy() for name in labels})
    order = np.argsort(made.obs_names.to_numpy(dtype=str), kind="stable")
    return made if (order == np.arange(len(order))).all() else made[order].copy()


def roles(annotation: pd.DataFrame, reference: list[str], name: str) -> pd.DataFrame:
    """`main_type` and `cnv_role` (reference, query, "" = neither) of each cell.

    Reference: the types named, or all immune and stromal types; a cell whose markers alone say an epithelial type never is.
    Query: the other cells of the epithelial lineage.

    Raises
    ------
    InputError
        when columns are missing, or a type named occurs in no cell of the cohort.
    """
    absent = [column for column in (keys.MAIN_TYPE, keys.LINEAGE) if column not in annotation]
    if absent:
        raise io.InputError(f"{name}: no column {', '.join(absent)}; columns are {', '.join(annotation)}")
    main_type, lineage = annotation[keys.MAIN_TYPE].astype(str), annotation[keys.LINEAGE].astype(str)
    unknown = sorted(set(reference) - set(main_type))
    if unknown:
        raise io.InputError(
            f"--reference names {', '.join(unknown)}, which no cell of {name} has; main types are "
            f"{', '.join(sorted(set(main_type)))}: correct cnv_reference"
        )
    epithelial = lineage == keys.LINEAGES[0]
    resolved = main_type != keys.UNRESOLVED
    is_reference = main_type.isin(reference) if reference else lineage.isin(keys.LINEAGES[1:]) & resolved
    if keys.MARKER_TYPE in annotation:
        odd_types = set(main_type[epithelial & resolved]) - set(reference)
        is_reference &= ~annotation[keys.MARKER_TYPE].astype(str).isin(odd_types)
    role = np.where(is_reference, keys.CNV_ROLE_REFERENCE, np.where(epithelial & ~is_reference, keys.CNV_ROLE_QUERY, ""))
    return pd.DataFrame({keys.MAIN_TYPE: main_type, keys.CNV_ROLE: role}, index=annotation.index)


def read_arms(path: Path) -> pd.DataFrame:
    """The table of chromosome arms, checked."""
    table = io.read_tsv(path, dtype={"chromosome": str, "arm": str})
    absent = [name for name in ("chromosome", "arm", "start", "end") if name not in table]
    if absent:
        raise io.InputError(f"{path.name}: no column {', '.join(absent)}; expected chromosome, arm, start, end")
    return table


def panel_places(path: Path | None, var: pd.DataFrame) -> pd.DataFrame:
    """gene, chromosome and start of the panel genes that the cohort has, sorted by gene."""
    empty = pd.DataFrame({"gene": [], "chromosome": [], "start": []})
    if path is None:
        return empty
    table = io.read_tsv(path, dtype=str)
    if "gene" not in table:
        raise io.InputError(f"{path.name}: no column gene; columns are {', '.join(table)}")
    found = [gene for gene in sorted(set(table["gene"].dropna())) if gene in var.index]
    places = var.loc[found, [keys.CHROMOSOME, keys.START]]
    return pd.DataFrame(
        {"gene": found, "chromosome": places[keys.CHROMOSOME].astype(str).to_numpy(), "start": places[keys.START].to_numpy()}
    )


@dataclass
class Result:
    """What one patient ends with; `values` is None when nothing could be computed."""

    word: str
    reason: str
    genome: Genome | None = None
    parts: Regions | None = None
    values: Profiles | None = None
    stored: np.ndarray | None = None  # kept gene behind each column of the profile
    reference: pd.DataFrame | None = None


def infer(patient: anndata.AnnData, arms: pd.DataFrame, panel_path: Path | None, args: argparse.Namespace) -> Result:
    """Profile of one patient; `patient.obs` gets the columns cnv_role (suspect cells lose theirs) and cnv_group."""
    from scresist import cnv

    obs, counts = patient.obs, patient.layers[keys.COUNTS]
    role = obs[keys.CNV_ROLE].to_numpy(dtype=str)
    is_reference, is_query = role == keys.CNV_ROLE_REFERENCE, role == keys.CNV_ROLE_QUERY
    group = np.full(patient.n_obs, "", dtype=object)
    group[is_reference] = cnv.reference_groups(obs[keys.MAIN_TYPE].to_numpy(dtype=str)[is_reference])
    obs["cnv_group"] = group
    sizes = pd.Series(group[is_reference]).value_counts().sort_index()
    table = pd.DataFrame({"group": sizes.index, "n_cells": sizes.to_numpy(), "arms_shifted": np.nan, "arms": ""})
    table["n_suspect"], table["used"] = np.nan, False
    result = Result(keys.OK, "", reference=table)

    def refuse(word: str, reason: str) -> Result:
        result.word, result.reason = word, reason
        return result

    if not is_query.any():
        return refuse(keys.SKIPPED_NO_INPUT, "no epithelial cell of this patient")
    if is_query.sum() < args.min_epithelial_cells:
        return refuse(keys.SKIPPED_TOO_FEW_CELLS, f"{is_query.sum()} epithelial cells, {args.min_epithelial_cells} needed")
    if is_reference.sum() < args.min_reference_cells:
        what = " or ".join(args.reference) if args.reference else "immune and stromal"
        return refuse(
            keys.SKIPPED_INSUFFICIENT_REFERENCE, f"{is_reference.sum()} {what} cells, {args.min_reference_cells} needed"
        )

    def prepared(rows: np.ndarray) -> tuple[Genome, Regions, cnv.Kernel]:
        mine = counts if len(rows) == counts.shape[0] else counts[rows]
        mean = cnv.sums(mine)[1] / len(rows)
        var = patient.var
        genome = cnv.choose_genes(mean, var[keys.CHROMOSOME].astype(str), var[keys.START], patient.var_names, args.min_mean)
        parts = cnv.regions(genome, arms, args.profile_step, panel_places(panel_path, var))
        return genome, parts, cnv.Kernel(mine, genome, args.window, args.clip, args.threads, args.block_cells)

    rows = np.arange(patient.n_obs)
    genome, parts, kernel = prepared(rows)
    if genome.n < cnv.MIN_KEPT_GENES:
        return refuse(
            keys.SKIPPED_FEW_GENES,
            f"{genome.n} genes with a place on chromosomes 1 to 22 and a mean count of {args.min_mean:g} or more, "
            f"{cnv.MIN_KEPT_GENES} needed",
        )
    checked, suspect = cnv.check_references(kernel, {name: np.flatnonzero(group == name) for name in sizes.index}, parts)
    result.reference = checked.assign(used=checked["n_suspect"] < checked["n_cells"])
    remarks = []
    if suspect:
        told = [
            f"{row.n_suspect} of {row.n_cells} cells of {row.group} ({row.arms})" for row in checked.itertuples() if row.n_suspect
        ]
        remarks.append(
            f"reference_suspect: {'; '.join(told)} differ from the other reference cells as tumour cells do and were left out"
        )
        odd_cells = np.isin(np.arange(patient.n_obs), np.concatenate(list(suspect.values())))
        obs.loc[odd_cells, keys.CNV_ROLE] = ""
        is_reference &= ~odd_cells
        if is_reference.sum() < args.min_reference_cells:
            if not is_reference.any():
                remarks = [f"reference_suspect: the reference groups contradict each other ({'; '.join(told)})"]
            return refuse(
                keys.SKIPPED_INSUFFICIENT_REFERENCE,
                f"{remarks[0]}; {is_reference.sum()} reference cells are left, {args.min_reference_cells} needed: name normal "
                "types in cnv_reference",
            )
        rows = np.flatnonzero(is_reference | is_query)
        genome, parts, kernel = prepared(rows)
    n_reference = int(is_reference.sum())
    if n_reference < cnv.FEW_REFERENCE_CELLS:
        remarks.append(f"{n_reference} reference cells, {cnv.FEW_REFERENCE_CELLS} wanted: scores are noisy")
    own = np.where(is_reference[rows], group[rows].astype(str), "")
    used = sorted(set(own) - {""})
    if args.engine == "infercnvpy":
        from scresist.normalise import log1p_cp10k

        x = log1p_cp10k(counts[rows])
        values, stored = cnv.infercnvpy_profiles(x, genome, parts, own, args.window, args.clip, args.profile_step, args.threads)
    else:
        bounds = kernel.bounds([np.flatnonzero(own == name) for name in used])
        values, stored = kernel.profiles(np.arange(len(rows)), bounds, parts), parts.profile
    result.genome, result.parts, result.values, result.stored = genome, parts, values, stored
    if remarks:
        result.word, result.reason = keys.WARNING, "; ".join(remarks)
    elif len(used) == 1:
        result.reason = f"one reference group ({used[0]}): there is no other to check it against"
    return result


def as_anndata(patient: anndata.AnnData, result: Result) -> anndata.AnnData:
    """Profiles of reference and query cells in infercnvpy's format, with arms, thirds and loci; no cells when skipped."""
    from scresist import cnv

    taken = patient.obs[keys.CNV_ROLE].to_numpy(dtype=str) != ""
    obs = patient.obs.loc[taken if result.values is not None else np.zeros(len(taken), dtype=bool), list(OBS)].astype(str)
    samples = patient.obs[[keys.SAMPLE, keys.PHASE]].astype(str).drop_duplicates().sort_values([keys.SAMPLE, keys.PHASE])
    uns: dict = {
        "samples": {name: samples[name].to_numpy(dtype=str) for name in samples},
        "status": {"word": result.word, "reason": result.reason},
    }
    if result.values is None:
        n = np.empty((0, 0), dtype=np.float32)
        uns |= {"cnv": {"chr_pos": {}}, "arms": {name: np.empty(0) for name in ARM_KEYS}, "loci": {"gene": np.empty(0)}}
        return anndata.AnnData(n, obs=obs, obsm=dict.fromkeys(("X_cnv", "arms", "arm_thirds", "loci"), n), uns=uns)
    genome, parts, values = result.genome, result.parts, result.values
    chromosome = genome.chromosome[result.stored]
    reference = obs[keys.CNV_ROLE].to_numpy() == keys.CNV_ROLE_REFERENCE
    mean, sd = cnv.mean_sd(values.arms[reference])
    third_mean, third_sd = cnv.mean_sd(values.thirds[reference])
    uns["cnv"] = {"chr_pos": {f"chr{name}": int(np.flatnonzero(chromosome == name)[0]) for name in genome.names}}
    uns["arms"] = dict(zip(ARM_KEYS, (np.array(parts.arms), parts.arm_genes, mean, sd, third_mean, third_sd), strict=True))
    uns["loci"] = {"gene": np.array(parts.loci, dtype=object)}
    var = pd.DataFrame({keys.CHROMOSOME: chromosome, keys.START: genome.start[result.stored]}, index=genome.genes[result.stored])
    obsm = {"X_cnv": values.profile, "arms": values.arms, "arm_thirds": values.thirds, "loci": values.loci}
    obsm = {name: np.asarray(value, dtype=np.float32) for name, value in obsm.items()}
    return anndata.AnnData(values.profile, obs=obs, var=var, obsm=obsm, uns=uns)


ARM_KEYS = ("name", "n_genes", "mean_ref", "sd_ref", "third_mean_ref", "third_sd_ref")


def arm_table(made: anndata.AnnData, values: Profiles | None) -> pd.DataFrame:
    """Mean, sd and mean z-score of each arm by sample and main type."""
    from scresist import cnv

    if values is None:
        return pd.DataFrame(columns=ARM_COLUMNS[1:])
    z = cnv.against(values.arms, made.uns["arms"]["mean_ref"], made.uns["arms"]["sd_ref"])
    rows = []
    labels = [made.obs[name].astype(str) for name in (keys.SAMPLE, keys.PHASE, keys.MAIN_TYPE, keys.CNV_ROLE)]
    for label, at in sorted(pd.Series(np.arange(made.n_obs)).groupby([name.to_numpy() for name in labels]).indices.items()):
        mean, sd = cnv.mean_sd(values.arms[at])
        sd = sd if len(at) > 1 else np.full(len(mean), np.nan)
        for arm, name in enumerate(made.uns["arms"]["name"]):
            n_genes = int(made.uns["arms"]["n_genes"][arm])
            rows.append((*label, name, n_genes, len(at), mean[arm], sd[arm], z[at, arm].mean()))
    return pd.DataFrame(rows, columns=ARM_COLUMNS[1:])


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)

    arms = read_arms(args.arms)
    annotation = roles(io.read_fragment(args.annotation), args.reference, args.annotation.name)
    patient = read_patient(args.input, args.patient, annotation)
    candidates = patient.obs[keys.CNV_ROLE].to_numpy(dtype=str)
    result = infer(patient, arms, args.panels, args)
    made = as_anndata(patient, result)

    who = args.patient
    table = arm_table(made, result.values)
    table["patient"] = who
    types = patient.obs[[keys.MAIN_TYPE, "cnv_group"]].astype(str).drop_duplicates()
    listed = types.groupby("cnv_group")[keys.MAIN_TYPE].agg(lambda column: ",".join(sorted(column)))
    reference = result.reference.assign(patient=who, main_types=result.reference["group"].map(listed))
    fragment = pd.DataFrame({keys.CELL: patient.obs_names.to_numpy(dtype=str)})
    fragment[keys.CNV_ROLE] = patient.obs[keys.CNV_ROLE].to_numpy(dtype=str)
    scores = pd.DataFrame(index=made.obs_names, columns=[keys.CNV_SCORE_SUM, keys.CNV_SCORE_MEAN], dtype=float)
    if result.values is not None:
        scores[keys.CNV_SCORE_SUM], scores[keys.CNV_SCORE_MEAN] = result.values.score_sum, result.values.score_mean
    for name in scores:
        fragment[name] = scores[name].reindex(fragment[keys.CELL]).to_numpy(dtype=float)

    io.write_h5ad(made, Path(f"{who}.cnv.h5ad"))
    io.write_fragment(fragment, Path(f"{who}.cnv.parquet"))
    io.write_tsv(table[ARM_COLUMNS], Path(f"{who}.cnv_arms.tsv"))
    for name in ("arms_shifted", "n_suspect"):
        reference[name] = reference[name].astype("Int64")
    io.write_tsv(reference[REFERENCE_COLUMNS], Path(f"{who}.cnv_reference.tsv"))

    n_query = int((candidates == keys.CNV_ROLE_QUERY).sum())
    n_reference = int((patient.obs[keys.CNV_ROLE] == keys.CNV_ROLE_REFERENCE).sum())
    sentence = status.SENTENCES[result.word]
    if result.values is not None:
        sentence += (
            f" Copy-number profiles of {n_query} epithelial cells over {result.genome.n} genes, against {n_reference} normal"
            " cells of the same patient."
        )
    row = status.StatusRow(
        step=STEP, unit_type="patient", unit=who, status=result.word, reason=result.reason, n_cells=n_query,
        n_samples=patient.obs[keys.SAMPLE].nunique(), n_patients=1, sentence=sentence,
    )  # fmt: skip
    status.write([row], STEP, who)
    packages = ["anndata", "numba", "numpy", "scipy"] + ["infercnvpy"] * (args.engine == "infercnvpy")
    provenance.write(provenance.record(STEP, who, args, packages, unit_seed=cli.unit_seed(args.seed, STEP, who)))
    return 0


if __name__ == "__main__":
    cli.run(main)
