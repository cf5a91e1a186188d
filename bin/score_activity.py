#!/usr/bin/env python3
"""Activity of pathways and transcription factors per sample and cell type, from the expression of their targets.

Writes activity.tsv (one row per sample, cell type and source) and activity_tests.tsv (each contrast at patient level).

Example: score_activity.py --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet
    --contrasts contrasts.tsv --samples samples.tsv --networks progeny.tsv.gz
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from scresist import cli, contract, io, keys, provenance, status

STEP = "score_activity"
PSEUDOBULK, CELL_MEAN = "pseudobulk", "cell_mean"
TUMOUR_TYPE = "tumour"  # cell type of the cells that CALL_MALIGNANT gives to the tumour
NETWORK_COLUMNS = ("source", "target", "weight")
ACTIVITY_COLUMNS = [keys.SAMPLE, "cell_type", "network", "method", "source", "score", "n_targets", "level", "n_cells"]
TEST_HEAD = ["cell_type", "level", "network", "method", "source"]
BLOCK = 20_000  # cells whose scores are held at a time
LEVEL = 0.05  # adjusted p counted in the summary


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet")
    add("--tumour", type=Path, nargs="*", default=[], help="<patient>.malignant.parquet of each patient")
    add("--contrasts", required=True, type=Path, help="contrasts.tsv of CHECK_DESIGN")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--networks", required=True, type=Path, nargs="+", help="tables source, target, weight (TSV, may be gzipped)")
    add("--method", choices=("auto", "mlm", "ulm"), default="auto", help="auto: mlm up to 30 sources, else ulm (default auto)")
    add("--levels", choices=("pseudobulk", "both"), default="pseudobulk", help="both: mean of cells too (default pseudobulk)")
    add("--min_cells", type=cli.number(1, 10**6, int), default=10, help="least cells of a sample and type (default 10)")
    add("--min_counts", type=cli.number(0, 10**9, int), default=1000, help="least counts of a sample and type (default 1000)")
    add("--min_targets", type=cli.number(1, 10**4, int), default=5, help="least measured targets of a source (default 5)")
    return parser.parse_args(argv)


def read_network(path: Path) -> pd.DataFrame:
    """A network: source, target, weight (1 where the column is absent), sorted.

    Raises
    ------
    InputError
        naming every fault: missing columns, empty names, weights that are no finite numbers, pairs that stand twice.
    """
    try:
        frame = io.read_tsv(path, dtype=str)
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise io.InputError(f"{path.name}: cannot be read as a tab-separated table ({error})") from error
    absent = [name for name in NETWORK_COLUMNS[:2] if name not in frame]
    if absent:
        found = ", ".join(map(str, frame.columns))[:200]
        missing = ", ".join(absent)
        raise io.InputError(f"{path.name}: columns {missing} are missing; expected source, target, weight, found {found}")
    if "weight" not in frame:
        frame["weight"] = "1"
    frame = frame[list(NETWORK_COLUMNS)].copy()
    problems = []
    number = pd.to_numeric(frame["weight"], errors="coerce").astype(float)
    bad = ~np.isfinite(number)
    if bad.any():
        first = frame.loc[bad].iloc[0]
        problems.append(f"{bad.sum()} weights are no finite numbers, the first is {first['weight']} of {first['source']}")
    bare = frame["source"].isna() | frame["target"].isna()
    if bare.any():
        problems.append(f"{bare.sum()} rows lack a source or a target, the first is row {frame.index[bare][0] + 2}")
    twice = frame.duplicated(["source", "target"]) & ~bare
    if twice.any():
        first = frame.loc[twice].iloc[0]
        problems.append(f"{twice.sum()} pairs stand twice, the first is {first['source']} and {first['target']}; keep one")
    if problems:
        raise io.InputError(f"{path.name}:\n  - " + "\n  - ".join(problems))
    frame["weight"] = number
    return frame.sort_values(["source", "target"], ignore_index=True)


def read_networks(paths: list[Path]) -> dict[str, pd.DataFrame]:
    """Name (file without .tsv and .gz) -> network, sorted by name."""
    names = [path.name.removesuffix(".gz").removesuffix(".tsv") for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise io.InputError(f"--networks: the name {', '.join(twice)} stands for several files; rename all but one")
    found, problems = {}, []
    for name, path in sorted(zip(names, paths, strict=True)):
        try:
            found[name] = read_network(path)
        except io.InputError as error:
            problems.append(str(error))
    if problems:
        raise io.InputError("\n".join(problems))
    return found


def tumour_cells(paths: list[Path], cells: pd.Index) -> np.ndarray:
    """Boolean array over `cells`: those that stand for the tumour."""
    marked = np.zeros(len(cells), dtype=bool)
    for path in sorted(paths, key=lambda p: p.name):
        column = io.read_fragment(path, [keys.TUMOUR])[keys.TUMOUR]
        names = column.index[column.fillna(False).astype(bool)]
        at = cells.get_indexer(names)
        if (at < 0).any():
            raise io.InputError(f"{path.name}: {(at < 0).sum()} cells are not in the cohort, the first is {names[at < 0][0]}")
        marked[at] = True
    return marked


def sample_table(path: Path, in_cohort: set[str]) -> dict[str, str]:
    """sample -> patient; every sample of the cohort must have a row."""
    frame = io.read_tsv(path, dtype=str)
    absent = [name for name in (keys.SAMPLE, keys.PATIENT) if name not in frame]
    if absent:
        raise io.InputError(f"{path.name}: columns {', '.join(absent)} are missing")
    missing = sorted(in_cohort - set(frame[keys.SAMPLE]))
    if missing:
        raise io.InputError(f"{path.name}: no row for the samples {', '.join(missing[:6])} of the cohort")
    return dict(zip(frame[keys.SAMPLE], frame[keys.PATIENT], strict=True))


def groups_of(sample: np.ndarray, main_type: np.ndarray, tumour: np.ndarray) -> tuple[pd.DataFrame, list[np.ndarray]]:
    """All groups of sample and type, `tumour` beside the main types, and for both kinds the group of each cell (-1 none)."""
    typed = np.where((main_type == keys.UNRESOLVED) | (main_type == ""), "", main_type)
    kinds = [np.where(tumour, TUMOUR_TYPE, ""), typed]
    found = sorted({(s, t) for kind in kinds for s, t in zip(sample, kind, strict=True) if t})
    place = {pair: at for at, pair in enumerate(found)}
    codes = [np.array([place.get(pair, -1) for pair in zip(sample, kind, strict=True)], dtype=np.int64) for kind in kinds]
    return pd.DataFrame(found, columns=[keys.SAMPLE, "cell_type"]), codes


def test_rows(scored: pd.DataFrame, contrasts: list, patient_of: dict[str, str]) -> pd.DataFrame:
    """Each contrast of each source in each cell type, BH within contrast, network and level."""
    from scresist import comparison

    tables = []
    for (_, _), part in scored.groupby(["network", "level"], sort=True):
        rows = []
        for head, one in part.groupby(TEST_HEAD, sort=True):
            values, cells = one.set_index(keys.SAMPLE)["score"], one.set_index(keys.SAMPLE)["n_cells"]
            for contrast in contrasts:
                found = comparison.compare(values, cells, contrast, patient_of)
                rows.append({**dict(zip(TEST_HEAD, head, strict=True)), **found})
        tables.append(comparison.adjusted(rows, "celltypes x sources", TEST_HEAD))
    if not tables:
        return pd.DataFrame(columns=[*TEST_HEAD, *comparison.TEST_COLUMNS])
    return pd.concat(tables, ignore_index=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    from scresist import activity, comparison

    networks = read_networks(args.networks)
    merged = contract.check(anndata.read_h5ad(args.input), args.input.name, normalised=True)
    annotation = io.join_fragment(merged.obs_names, io.read_fragment(args.annotation, [keys.MAIN_TYPE]), args.annotation.name)
    sample = merged.obs[keys.SAMPLE].astype(str).to_numpy()
    patient_of = sample_table(args.samples, set(sample))
    contrasts = comparison.contrasts(io.read_tsv(args.contrasts, dtype=str))
    main_type = annotation[keys.MAIN_TYPE].astype(object).fillna("").astype(str).to_numpy()
    groups, codes = groups_of(sample, main_type, tumour_cells(args.tumour, merged.obs_names))

    counts = merged.layers[keys.COUNTS]
    sums = activity.group_sums(counts, codes[0], len(groups)) + activity.group_sums(counts, codes[1], len(groups))
    groups["n_cells"] = sum(np.bincount(code[code >= 0], minlength=len(groups)) for code in codes)
    enough = (groups["n_cells"] >= args.min_cells).to_numpy() & (np.asarray(sums.sum(axis=1)).ravel() >= args.min_counts)
    n_left_out = int((~enough).sum())
    expressed = np.flatnonzero(np.asarray(sums[enough].sum(axis=0)).ravel() > 0)
    genes = merged.var_names[expressed]
    bulk = activity.pseudobulk(sums[enough])[:, expressed]
    kept = groups[enough].reset_index(drop=True)

    tables, notes, empty_networks = [], [], []
    for name, network in networks.items():
        if not len(kept):
            break
        w = activity.weights(network, list(genes), args.min_targets)
        if not w.shape[1]:
            empty_networks.append(name)
            continue
        method, why = activity.choose_method(args.method, w)
        notes += [f"{name}: {why}, so ulm was used"] if why else []
        tables.append(activity.table(kept, activity.scores(bulk, w, method), w, name, method, PSEUDOBULK))
        if args.levels == "both":
            x = merged.X[:, expressed]
            per_cell = np.vstack([activity.scores(x[at : at + BLOCK], w, method) for at in range(0, merged.n_obs, BLOCK)])
            by_name = np.argsort(merged.obs_names.to_numpy(dtype=str), kind="stable")  # sums do not follow the order of the file
            mean = np.full((len(groups), w.shape[1]), np.nan)
            for code in codes:
                here = np.unique(code[code >= 0])
                mean[here] = activity.group_means(per_cell[by_name], code[by_name], len(groups))[here]
            tables.append(activity.table(kept, mean[enough], w, name, method, CELL_MEAN))
    scored = pd.concat(tables, ignore_index=True)[ACTIVITY_COLUMNS] if tables else pd.DataFrame(columns=ACTIVITY_COLUMNS)
    order = ["network", "level", "cell_type", keys.SAMPLE, "source"]
    scored = scored.sort_values(order, kind="stable", ignore_index=True)
    tests = test_rows(scored, contrasts, patient_of)
    io.write_tsv(scored, Path("activity.tsv"))
    io.write_tsv(tests, Path("activity_tests.tsv"))

    status.write([describe(args, merged, kept, n_left_out, networks, empty_networks, notes, tests)], STEP, "cohort")
    packages = ["anndata", "numpy", "pandas", "scipy"]
    provenance.write(provenance.record(STEP, "cohort", args, packages))
    return 0


def describe(
    args: argparse.Namespace,
    merged: anndata.AnnData,
    kept: pd.DataFrame,
    n_left_out: int,
    networks: dict[str, pd.DataFrame],
    empty_networks: list[str],
    notes: list[str],
    tests: pd.DataFrame,
) -> status.StatusRow:
    """The status row of the cohort."""
    word, reason = keys.OK, ""
    none_of = "; ".join(
        f"{name}: no source has {args.min_targets} measured targets (its targets are such as {networks[name]['target'].iloc[0]})"
        if len(networks[name])
        else f"{name}: holds no pair"
        for name in empty_networks
    )
    if not len(kept):
        word = keys.SKIPPED_TOO_FEW_CELLS
        reason = f"{n_left_out} groups of sample and cell type, none with {args.min_cells} cells and {args.min_counts} counts"
    elif len(empty_networks) == len(networks):
        word, reason = keys.SKIPPED_FEW_GENES, none_of
    elif notes or empty_networks:
        word, reason = keys.WARNING, "; ".join([*notes, *([none_of] if none_of else [])])
    sentence = status.SENTENCES[word]
    if word in (keys.OK, keys.WARNING):
        n_found = int((tests["p_adjusted"].astype(float) < LEVEL).sum()) if len(tests) else 0
        sentence += (
            f" Activity in {len(kept)} groups of sample and cell type ({n_left_out} with too few cells left out); {n_found} of"
            f" {int(tests['p_value'].notna().sum())} tests between patients have an adjusted p below {LEVEL:g}."
        )
    return status.StatusRow(
        STEP, "cohort", "cohort", word, reason, n_cells=merged.n_obs, n_samples=merged.obs[keys.SAMPLE].nunique(),
        n_patients=merged.obs[keys.PATIENT].nunique(), sentence=sentence,
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main)
