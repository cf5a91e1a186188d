#!/usr/bin/env python3
"""Co-expression modules of tumour cells (signed weighted network over metacells), their scores and their relation to traits.

Writes modules.parquet (cell, module_M1 ...), soft_threshold.tsv, modules.tsv, module_sizes.tsv, module_samples.tsv,
module_traits.tsv, module_groups.tsv, preservation.tsv, modules.rankings.tsv.gz, modules.dendrogram.png.

Example: find_programs.py --input merged.h5ad --annotation annotation.parquet --tumour P1.malignant.parquet \\
    --embedding embedding.parquet --samples samples.tsv --phases phases.tsv
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from scresist import cli, contract, io, keys, provenance, status

if TYPE_CHECKING:
    from collections.abc import Sequence

STEP = "find_programs"
AUTO = "auto"
MIN_METACELLS = 30  # methods.md: fewer points make no correlation
MIN_SHARE = 0.05  # of tumour cells that express a gene of the network (hdWGCNA's default)
MIN_SIZE, MIN_SIZE_SMALL, SMALL_NETWORK = 50, 30, 1500  # methods.md: modules of 30 genes where the network has fewer than 1,500
GROUP_COLUMNS = (keys.CLONE, keys.EPI_CLUSTER)
MODULE_COLUMNS = ["gene", "module", "kme", "kme_cells", "hub_rank"]
SIZE_COLUMNS = ["module", "n_genes", "variance_explained", "between_samples", "mean_kme", "hub_genes", "colour"]
SAMPLE_COLUMNS = [
    keys.SAMPLE, keys.PATIENT, keys.PHASE, "module", "mean", "sd", "min", "q1", "median", "q3", "max", "mean_expression",
    "n_cells", "in_traits",
]  # fmt: skip
GROUP_TABLE_COLUMNS = [
    "group_type", "group", "module", "mean", "sd", "mean_expression", "n_cells", "n_samples", "n_patients",
]  # fmt: skip
RANKING_COLUMNS = ["source", "group", "contrast", "evidence", "gene", "score", "direction"]
SOFT_COLUMNS = ["power", "r2", "slope", "signed_r2", "mean_k", "median_k", "chosen"]
PRESERVATION_COLUMNS = [
    "module", "phase", "n_cells", "mean_correlation", "background_correlation", "kme_rank_correlation", "status",
]  # fmt: skip


def auto_or(low: int, high: int):
    """argparse type: `auto` or a whole number within the limits."""

    def convert(text: str) -> str | int:
        return AUTO if text == AUTO else int(cli.number(low, high, int)(text))

    return convert


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--input", required=True, type=Path, help="merged.h5ad")
    add("--annotation", required=True, type=Path, help="annotation.parquet of ANNOTATE_CELLS")
    add("--tumour", required=True, type=Path, nargs="+", help="<patient>.malignant.parquet of CALL_MALIGNANT, one per patient")
    add("--embedding", required=True, type=Path, help="embedding.parquet of INTEGRATE_COHORT")
    add("--samples", required=True, type=Path, help="samples.tsv of CHECK_DESIGN")
    add("--phases", required=True, type=Path, help="phases.tsv of CHECK_DESIGN")
    add("--groups", type=Path, nargs="*", default=[], help="fragments with the columns clone or epi_cluster")
    add("--metacell_k", type=cli.number(2, 500, int), default=25, help="cells of a metacell (default 25)")
    add("--max_shared", type=cli.number(0, 500, int), default=15, help="most cells that two metacells share (default 15)")
    add("--target_metacells", type=cli.number(1, 100000, int), default=1000, help="most metacells of a sample (default 1000)")
    add(
        "--min_cells_metacell", type=cli.number(2, 1000000, int), default=100,
        help="tumour cells that a sample needs to form metacells (default 100)",
    )  # fmt: skip
    add(
        "--soft_power", type=auto_or(1, 50), default=AUTO, help="power of the network, or auto = by scale-free fit (default auto)"
    )
    add("--sft_r2", type=cli.number(0, 1), default=0.9, help="signed R2 of the scale-free fit wanted (default 0.9)")
    add(
        "--soft_power_default", type=cli.number(1, 50, int), default=9,
        help="power where no power fits (default 9, the study's)",
    )  # fmt: skip
    add("--deep_split", type=cli.number(0, 4, int), default=4, help="tree cut: 0 few large modules to 4 many (default 4)")
    add("--detect_cut_height", type=cli.number(0, 1), default=0.995, help="tree cut: highest merge looked at (default 0.995)")
    add(
        "--min_module_size", type=auto_or(3, 10000), default=AUTO,
        help="genes of the smallest module; auto = 50, or 30 in networks of fewer than 1,500 genes (default auto)",
    )  # fmt: skip
    add("--merge_height", type=cli.number(0, 2), default=0.2, help="modules with 1 - correlation up to this merge (default 0.2)")
    add("--min_kme", type=cli.number(-1, 1), default=0.2, help="membership below which a gene leaves its module (default 0.2)")
    add("--max_genes", type=cli.number(10, 50000, int), default=5000, help="most genes of the network (default 5000)")
    add(
        "--min_genes_program", type=cli.number(0, 100000, int), default=0,
        help="leave out tumour cells with at most this many genes (default 0 = none; the study 1000)",
    )  # fmt: skip
    add(
        "--max_mt_program", type=cli.number(0, 100), default=100.0,
        help="leave out tumour cells with more %% mitochondrial counts (default 100 = none; the study 20)",
    )  # fmt: skip
    return parser.parse_args(argv)


# --- input ------------------------------------------------------------------------------------------------------------


def tumour_cells(paths: Sequence[Path]) -> list[str]:
    """Ids of the tumour cells of all patients, sorted."""
    problems, parts = [], []
    for path in sorted(paths, key=lambda p: p.name):
        frame = io.read_fragment(path)
        if keys.TUMOUR not in frame:
            problems.append(
                f"{path.name}: no column {keys.TUMOUR}; columns are {', '.join(frame)}. Give <patient>.malignant.parquet"
            )
            continue
        parts.append(frame[keys.TUMOUR])
    both = pd.concat(parts) if parts else pd.Series(dtype=bool)
    twice = both.index[both.index.duplicated()]
    if len(twice):
        problems.append(f"{len(twice)} cells stand in two files of --tumour, the first is {twice[0]}; give each patient once")
    if problems:
        raise io.InputError("tumour cells cannot be read:\n  - " + "\n  - ".join(problems))
    return sorted(both.index[both.fillna(False).astype(bool)].astype(str))


def read_cells(path: Path, cells: list[str]) -> anndata.AnnData:
    """The rows of merged.h5ad of these cells, in their order."""
    backed = anndata.read_h5ad(path, backed="r")
    rows = backed.obs_names.get_indexer(pd.Index(cells))
    if (rows < 0).any():
        absent = [cell for cell, row in zip(cells, rows, strict=True) if row < 0]
        raise io.InputError(
            f"{path.name}: {len(absent)} of {len(cells)} tumour cells are not in it, the first is {absent[0]};"
            " --tumour and --input must come from one run"
        )
    order = np.argsort(rows)  # h5 files are read in ascending order
    part = backed[rows[order]].to_memory()
    backed.file.close()
    part.X = sparse.csr_matrix(part.X)
    part.layers[keys.COUNTS] = sparse.csr_matrix(part.layers[keys.COUNTS])
    return contract.check(part, path.name, normalised=True)[np.argsort(order)].copy()


def latent_space(path: Path, cells: pd.Index) -> np.ndarray:
    """The integrated space in the order of `cells`."""
    fragment = io.read_fragment(path)
    names = [name for name in fragment if name.startswith(keys.LATENT_PREFIX)]
    if not names or list(fragment) != names:
        raise io.InputError(f"{path.name}: expected the columns {keys.LATENT_PREFIX}1, ..., found {', '.join(fragment)[:200]}")
    values = io.join_fragment(cells, fragment, path.name).to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        n_odd = int((~np.isfinite(values)).any(axis=1).sum())
        raise io.InputError(f"{path.name}: {n_odd} of {len(values)} tumour cells have coordinates that are missing or infinite")
    return values


def check_annotation(path: Path, cells: pd.Index) -> None:
    """Tumour cells must be annotated as epithelial: anything else means files of two runs."""
    fragment = io.read_fragment(path)
    if keys.LINEAGE not in fragment:
        raise io.InputError(f"{path.name}: no column {keys.LINEAGE}; columns are {', '.join(fragment)[:200]}")
    lineage = io.join_fragment(cells, fragment, path.name)[keys.LINEAGE].astype(object)
    odd = lineage.index[lineage != "epithelial"]
    if len(odd):
        raise io.InputError(
            f"{path.name}: {len(odd)} of {len(cells)} tumour cells are not epithelial, the first is {odd[0]}"
            f" ({lineage[odd[0]]}); --annotation and --tumour must come from one run"
        )


def read_design(samples: Path, phases: Path, obs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """samples.tsv and phases.tsv as text (time as number), checked against the samples of the cells."""
    design = io.read_tsv(samples, dtype=str)
    steps = io.read_tsv(phases, dtype=str)
    problems = [
        f"{path.name}: no column {name}; columns are {', '.join(frame)}"
        for path, frame, wanted in (
            (samples, design, (keys.SAMPLE, keys.PATIENT, keys.PHASE)), (phases, steps, ("phase", "role", "time")),
        )
        for name in wanted
        if name not in frame
    ]  # fmt: skip
    if problems:
        raise io.InputError("the design cannot be read:\n  - " + "\n  - ".join(problems))
    absent = sorted(set(obs[keys.SAMPLE].astype(str)) - set(design[keys.SAMPLE]))
    if absent:
        problems.append(
            f"{samples.name}: sample {', '.join(absent)} of merged.h5ad is not in it; give the samples.tsv of this run"
        )
    unknown = sorted(set(design[keys.PHASE]) - set(steps["phase"]))
    if unknown:
        problems.append(
            f"{phases.name}: phase {', '.join(unknown)} of {samples.name} is not in it; give the phases.tsv of this run"
        )
    time = pd.to_numeric(steps["time"], errors="coerce")
    for phase, text in steps.loc[time.isna() & steps["time"].notna(), ["phase", "time"]].itertuples(index=False):
        problems.append(f"{phases.name}: phase {phase} has the time {text!r}; expected a number or nothing")
    if problems:
        raise io.InputError("the design cannot be read:\n  - " + "\n  - ".join(problems))
    return design, steps.assign(time=time.astype(float))


def read_groups(paths: Sequence[Path], cells: pd.Index) -> dict[str, pd.Series]:
    """Clone and cluster of the tumour cells from any number of fragments; cells without a row have none."""
    parts: dict[str, list[pd.Series]] = {}
    for path in sorted(paths, key=lambda p: p.name):
        fragment = io.read_fragment(path)
        found = [name for name in GROUP_COLUMNS if name in fragment]
        if not found:
            raise io.InputError(
                f"{path.name}: none of the columns {', '.join(GROUP_COLUMNS)}; columns are {', '.join(fragment)[:200]}"
            )
        for name in found:
            parts.setdefault(name, []).append(fragment[name].dropna().astype(str))
    made = {}
    for name, series in parts.items():
        joined = pd.concat(series)
        twice = joined.index[joined.index.duplicated()]
        if len(twice):
            raise io.InputError(f"--groups: {len(twice)} cells have a {name} in two files, the first is {twice[0]}")
        made[name] = joined.reindex(cells)
    return {name: made[name] for name in GROUP_COLUMNS if name in made}


def enough(part: anndata.AnnData, min_genes: int, max_mt: float) -> np.ndarray:
    """Cells within the limits of the study, which are off by default: the cohort's own quality control came before."""
    counts = part.layers[keys.COUNTS]
    total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    mito = (part.var[keys.CHROMOSOME].astype(str) == "MT").to_numpy() | part.var_names.str.startswith("MT-")
    share = 100 * np.asarray(counts[:, np.flatnonzero(mito)].sum(axis=1, dtype=np.float64)).ravel() / np.maximum(total, 1)
    return (np.diff(counts.indptr) > (min_genes or -1)) & (share <= max_mt)


# --- what the step makes ----------------------------------------------------------------------------------------------


@dataclass
class Result:
    """All tables; empty ones carry their header."""

    word: str = keys.OK
    reasons: list[str] = field(default_factory=list)
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)
    soft: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SOFT_COLUMNS))
    modules: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=MODULE_COLUMNS))
    sizes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SIZE_COLUMNS))
    samples: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SAMPLE_COLUMNS))
    traits: pd.DataFrame = field(default_factory=pd.DataFrame)
    groups: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=GROUP_TABLE_COLUMNS))
    preservation: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=PRESERVATION_COLUMNS))
    rankings: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=RANKING_COLUMNS))
    picture: bytes = b""
    sentence: str = ""


def network_genes(part: anndata.AnnData, max_genes: int) -> np.ndarray:
    """Columns of the network: expressed in 5 % of the tumour cells and not excluded; the most variable where there are more."""
    from scresist import normalise

    counts = part.layers[keys.COUNTS]
    share = counts.getnnz(axis=0) / max(counts.shape[0], 1)
    columns = np.flatnonzero((share >= MIN_SHARE) & ~normalise.excluded_genes(part.var_names))
    if len(columns) > max_genes:
        table = normalise.highly_variable(part.X[:, columns], part.var_names[columns], part.obs[keys.SAMPLE], max_genes)
        columns = columns[table["highly_variable"].to_numpy(dtype=bool)]
    return columns


def draw(tree: np.ndarray | None, modules: Sequence[str], palette: dict[str, str], title: str) -> bytes:
    """Dendrogram of the genes with their modules as a bar of colours below; without a tree, the title as text."""
    from matplotlib.collections import LineCollection

    from scresist import figures, network

    plt = figures.plt
    if tree is None:
        figure, axes = plt.subplots(figsize=(8.2, 1.6), layout="constrained")
        axes.set_axis_off()
        axes.text(0.5, 0.5, title, ha="center", va="center", fontsize=11, color=figures.TEXT, wrap=True)
        return figures.png(figure)
    order, lines = network.leaf_positions(tree)
    low = min(float(tree[:, 2].min()), 0.98)
    figure, (top, bar) = plt.subplots(2, 1, figsize=(9.5, 4.6), height_ratios=(8, 1), sharex=True, layout="constrained")
    hang = 0.03 * (1 - low)  # leaves hang below their first merge, as in R's drawing of such trees
    paths = []
    for x0, x1, y0, y1, height in lines:
        feet = [y if y > 0 else height - hang for y in (y0, y1)]
        paths.append([(x0, feet[0]), (x0, height), (x1, height), (x1, feet[1])])
    top.add_collection(LineCollection(paths, colors="#555555", linewidths=0.4))
    top.set_ylim(low - 2 * hang, 1.005)
    top.set_ylabel("distance (1 - topological overlap)", fontsize=9, color=figures.TEXT)
    top.set_title(title, fontsize=11, loc="left", color=figures.TEXT)
    names = np.asarray(modules, dtype=object)[order]
    rgb = np.array([figures.plt.matplotlib.colors.to_rgb(palette.get(name, figures.PALE)) for name in names])
    bar.imshow(rgb[None], aspect="auto", extent=(-0.5, len(order) - 0.5, 0, 1), interpolation="nearest")
    bar.set_yticks([0.5], ["module"], fontsize=9)
    bar.set_xlim(-0.5, len(order) - 0.5)
    bar.set_xlabel(f"genes in the order of the tree (n = {len(order):,})", fontsize=9, color=figures.TEXT)
    for axes in (top, bar):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    for name, colour in {**palette, "grey": figures.PALE}.items():
        top.scatter([], [], c=colour, s=36, marker="s", label="no module" if name == "grey" else name)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8.5, ncols=1 if len(palette) <= 20 else 2)
    return figures.png(figure)


def between_samples(values: np.ndarray, sample: np.ndarray) -> float:
    """Share of a variance that lies between samples, in [0, 1]."""
    frame = pd.DataFrame({"value": values, "sample": sample})
    fitted = frame.groupby("sample")["value"].transform("mean")
    total = float(((frame["value"] - frame["value"].mean()) ** 2).sum())
    return float(((fitted - frame["value"].mean()) ** 2).sum() / total)


def by_sample(scores: pd.DataFrame, expressed: pd.DataFrame, obs: pd.DataFrame, least: int) -> pd.DataFrame:
    """Mean, spread and box of each module's score in each sample; `in_traits` where the sample has enough cells for traits."""
    rows = []
    for sample in sorted(set(obs[keys.SAMPLE].astype(str))):
        mine = (obs[keys.SAMPLE].astype(str) == sample).to_numpy()
        first = obs.loc[mine].iloc[0]
        for module in scores:
            values = scores.loc[mine, module].to_numpy(dtype=float)
            sd = values.std(ddof=1) if len(values) > 1 else np.nan
            box = np.quantile(values, [0.01, 0.25, 0.5, 0.75, 0.99])
            above = float(expressed.loc[mine, module].mean())
            rows.append(
                (sample, str(first[keys.PATIENT]), str(first[keys.PHASE]), module, values.mean(), sd, *box, above, len(values),
                 len(values) >= least)
            )  # fmt: skip
    return pd.DataFrame(rows, columns=SAMPLE_COLUMNS)


def find(part: anndata.AnnData, points: np.ndarray, args: argparse.Namespace, seed: int, design: pd.DataFrame,
         phases: pd.DataFrame, groups: dict[str, pd.Series]) -> Result:  # fmt: skip
    """The whole analysis of cells that are there; a result with a status where they are too few."""
    from scresist import figures, metacells, network, programs, tree_cut

    made = Result(traits=pd.DataFrame(columns=list(programs.TRAIT_COLUMNS)), scores=pd.DataFrame(index=part.obs_names))
    sample = part.obs[keys.SAMPLE].astype(str).to_numpy()
    cells = metacells.build(
        points, sample, args.metacell_k, args.max_shared, args.target_metacells, args.min_cells_metacell, seed
    )
    if len(cells) < MIN_METACELLS:
        sizes = pd.Series(sample).value_counts()
        n_large = int((sizes >= max(args.min_cells_metacell, args.metacell_k)).sum())
        made.word = keys.SKIPPED_TOO_FEW_CELLS
        made.reasons = [
            f"{len(cells)} metacells from {n_large} samples with {max(args.min_cells_metacell, args.metacell_k)} tumour cells or"
            f" more ({part.n_obs} tumour cells in {len(sizes)} samples); {MIN_METACELLS} metacells needed"
        ]
        return made

    counts = part.layers[keys.COUNTS]
    columns = network_genes(part, args.max_genes)
    values = metacells.expression(counts, cells, columns)
    moving = np.ptp(values, axis=0) > 0
    columns, values = columns[moving], values[:, moving]
    genes = part.var_names[columns].to_numpy(dtype=str)
    min_size = args.min_module_size
    if min_size == AUTO:
        min_size = MIN_SIZE if len(genes) >= SMALL_NETWORK else MIN_SIZE_SMALL
    if len(genes) < 2 * min_size:
        made.word = keys.SKIPPED_FEW_GENES
        made.reasons = [
            f"{len(genes)} genes are expressed in {MIN_SHARE:.0%} of the tumour cells and vary; {2 * min_size} needed"
        ]
        return made

    s = network.similarity(values)
    powers = network.POWERS if args.soft_power == AUTO else tuple({*network.POWERS, args.soft_power})
    fits = network.soft_threshold(s, powers)
    if args.soft_power == AUTO:
        power = network.choose_power(fits, args.sft_r2, args.soft_power_default)
        if power.fit is None:
            best = fits.loc[fits["signed_r2"].fillna(-1).idxmax()]
            made.word = keys.WARNING
            made.reasons.append(
                f"no_scale_free_fit: the best signed R2 is {best['signed_r2']:.2f} at power {best['power']:.0f}, {args.sft_r2:g}"
                f" (or {network.FALLBACK_R2:g}) needed; power {power.value:g} was used"
            )
    else:
        power = network.Power(float(args.soft_power), None)
    if power.value not in set(fits["power"]):
        fits = network.soft_threshold(s, (*powers, int(power.value)))
    fits["chosen"] = fits["power"] == power.value
    made.soft = fits[SOFT_COLUMNS]

    distance = network.topological_overlap(network.adjacency(s, power.value))
    del s
    np.subtract(1.0, distance, out=distance)
    np.fill_diagonal(distance, 0.0)
    tree = network.tree(distance)
    labels = tree_cut.hybrid_cut(tree, distance, min_size, args.deep_split, args.detect_cut_height)
    del distance
    labels = programs.clean(values, labels, min_size, args.min_kme, args.merge_height)
    modules = programs.name_modules(labels, genes)
    names = programs.module_names(modules)
    palette = figures.colours(names)
    made.picture = draw(tree, modules, palette, f"Tree of genes, power {power.value:g}: {len(names)} modules")

    # each module over metacells and over single cells
    vectors, explained = [], {}
    for name in names:
        vector, explained[name] = programs.eigengene(values[:, modules == name])
        vectors.append(vector)
    eigengenes = np.column_stack(vectors) if names else np.empty((len(cells), 0))
    kme = programs.membership(values, eigengenes)
    x = sparse.csr_matrix(part.X[:, columns])
    scored = [programs.cell_score(x[:, np.flatnonzero(modules == name)]) for name in names]
    scores = np.column_stack(scored) if names else np.empty((part.n_obs, 0))
    kme_cells = programs.correlation_with(x, scores)
    seen = np.flatnonzero(counts.getnnz(axis=0) > 0)
    place = {column: at for at, column in enumerate(seen)}
    all_x = sparse.csr_matrix(part.X[:, seen])
    own_columns = [np.array([place[c] for c in columns[modules == name]]) for name in names]
    above = [programs.expression_score(all_x, own, seed + at) for at, own in enumerate(own_columns)]
    expressed = pd.DataFrame(dict(zip(names, above, strict=True)), index=part.obs_names)
    frame = pd.DataFrame(scores, columns=names, index=part.obs_names)
    made.scores = frame.add_prefix(keys.MODULE_PREFIX)

    at = np.array([names.index(module) if module in names else -1 for module in modules])
    inside = at >= 0
    own_kme = np.where(inside, kme[np.arange(len(genes)), at] if names else np.nan, np.nan)
    own_cells = np.where(inside, kme_cells[np.arange(len(genes)), at] if names else np.nan, np.nan)
    rank = programs.hub_ranks(modules, own_cells, genes)
    table = pd.DataFrame({"gene": genes, "module": modules, "kme": own_kme, "kme_cells": own_cells})
    table["hub_rank"] = pd.array(np.where(rank > 0, rank, -1), dtype="Int64")
    table.loc[table["hub_rank"] < 0, "hub_rank"] = pd.NA
    table["place"] = np.where(inside, at, len(names))
    made.modules = table.sort_values(["place", "kme", "gene"], ascending=[True, False, True])[MODULE_COLUMNS]

    rows = []
    for number, name in enumerate(names):
        mine = made.modules[made.modules["module"] == name]
        hubs = ",".join(mine.dropna(subset="hub_rank").sort_values("hub_rank")["gene"].head(10))
        share = between_samples(eigengenes[:, number], cells.sample)
        rows.append((name, len(mine), explained[name], share, mine["kme"].mean(), hubs, palette[name]))
    rows.append((programs.GREY, int((modules == programs.GREY).sum()), np.nan, np.nan, np.nan, "", figures.PALE))
    made.sizes = pd.DataFrame(rows, columns=SIZE_COLUMNS)

    obs = part.obs[[keys.SAMPLE, keys.PATIENT, keys.PHASE]].astype(str)
    patient_of = dict(zip(design[keys.SAMPLE], design[keys.PATIENT], strict=True))
    made.samples = by_sample(frame, expressed, obs, programs.MIN_CELLS_MEAN)
    used = made.samples[made.samples["in_traits"]] if names else made.samples
    found = programs.traits(design, phases)
    metacell_frame = pd.DataFrame(eigengenes, columns=names)
    spread = {name: float(frame[name].std(ddof=1)) for name in names}
    parts = [
        programs.sample_traits(used[[keys.SAMPLE, "module", "mean", "n_cells"]], spread, patient_of, found, seed),
        programs.cell_traits(metacell_frame, cells.sample, patient_of, found),
    ]
    made.traits = pd.concat(parts, ignore_index=True) if names else made.traits
    kinds = {keys.PHASE: obs[keys.PHASE], **groups}
    tables = [programs.group_means(frame, expressed, labels_, obs).assign(group_type=kind) for kind, labels_ in kinds.items()]
    made.groups = pd.concat(tables, ignore_index=True)[GROUP_TABLE_COLUMNS]
    order = [phase for phase in phases["phase"] if phase in set(obs[keys.PHASE])]
    made.preservation = programs.preservation(x, modules, scores, kme_cells, obs[keys.PHASE].to_numpy(), order)
    made.rankings = pd.DataFrame(
        {
            "source": "modules", "group": np.repeat(names, len(genes)), "contrast": "", "evidence": keys.CELL_LEVEL,
            "gene": np.tile(genes, len(names)), "score": kme.T.ravel(),
            "direction": np.where(np.tile(modules, len(names)) == np.repeat(np.array(names, dtype=str), len(genes)), "up", ""),
        }
    )[RANKING_COLUMNS] if names else made.rankings  # fmt: skip
    if names and not (made.traits["p_value"].notna() & (made.traits["level"] == programs.SAMPLE_LEVEL)).any():
        made.word = keys.WARNING
        made.reasons.append(
            f"{obs[keys.SAMPLE].nunique()} samples of {obs[keys.PATIENT].nunique()} patients allow no test of any trait: two"
            " patients a side are needed; only the strength of each relation is given"
        )
    made.sentence = told(len(names), part.n_obs, made.traits, programs.SAMPLE_LEVEL)
    return made


def told(n_modules: int, n_cells: int, traits: pd.DataFrame, level: str) -> str:
    """The result in words."""
    if not n_modules:
        return f"No group of genes that rise and fall together was found in {n_cells:,} tumour cells."
    words = f"{n_modules} groups of genes (modules) rise and fall together in {n_cells:,} tumour cells"
    clear = traits[
        (traits["level"] == level) & (traits["p_adjusted"] < 0.05) & traits["evidence"].isin([keys.REPLICATED, keys.LIMITED])
    ]
    if clear.empty:
        return f"{words}; none is tied to a trait of the samples beyond chance."
    parts = []
    for row in clear.sort_values(["p_adjusted", "module", "trait"]).head(3).itertuples():
        way = "goes up" if row.rho > 0 else "goes down"
        parts.append(f"{row.module} {way} with {row.trait} (rho {row.rho:.2f}, adjusted p {row.p_adjusted:.2g})")
    return f"{words}; {'; '.join(parts)}."


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)

    if args.max_shared >= args.metacell_k:
        raise io.InputError(
            f"--max_shared {args.max_shared} is not below --metacell_k {args.metacell_k}: metacells could be equal; lower it"
        )
    part = read_cells(args.input, tumour_cells(args.tumour))
    check_annotation(args.annotation, part.obs_names)
    points = latent_space(args.embedding, part.obs_names)
    design, phases = read_design(args.samples, args.phases, part.obs)
    groups = read_groups(args.groups, part.obs_names)
    good = enough(part, args.min_genes_program, args.max_mt_program)
    if not good.all():
        part, points = part[good].copy(), points[good]
        groups = {name: labels[good] for name, labels in groups.items()}
    seed = cli.unit_seed(args.seed, STEP, "cohort")

    made = find(part, points, args, seed, design, phases, groups)
    reason = "; ".join(made.reasons)
    fragment = made.scores.reset_index(drop=True)
    fragment.insert(0, keys.CELL, part.obs_names.to_numpy(dtype=str))
    io.write_fragment(fragment, Path("modules.parquet"))
    tables = {
        "soft_threshold": made.soft, "modules": made.modules, "module_sizes": made.sizes, "module_samples": made.samples,
        "module_traits": made.traits, "module_groups": made.groups, "preservation": made.preservation,
    }  # fmt: skip
    for name, table in tables.items():
        io.write_tsv(table, Path(f"{name}.tsv"))
    io.write_tsv_gz(made.rankings, Path("modules.rankings.tsv.gz"))
    picture = made.picture or draw(None, [], {}, f"No tree of genes: {reason}")
    io.write_atomically(Path("modules.dendrogram.png"), lambda path: path.write_bytes(picture))
    row = status.StatusRow(
        step=STEP, unit_type="cohort", unit="cohort", status=made.word, reason=reason, n_cells=part.n_obs,
        n_samples=part.obs[keys.SAMPLE].nunique(), n_patients=part.obs[keys.PATIENT].nunique(), sentence=made.sentence,
    )  # fmt: skip
    status.write([row], STEP, "cohort")
    packages = ["anndata", "matplotlib", "numpy", "pandas", "scipy"]
    provenance.write(provenance.record(STEP, "cohort", args, packages, unit_seed=seed))
    return 0


if __name__ == "__main__":
    cli.run(main)
