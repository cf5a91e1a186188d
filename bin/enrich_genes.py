#!/usr/bin/env python3
"""Gene sets in lists of chosen genes (over-representation) and in ranked genes (GSEA), for every group of one rankings file.

Writes <unit>.ora.tsv.gz, <unit>.gsea.tsv.gz, the small tables <unit>.ora_top.tsv, <unit>.gsea_top.tsv and
<unit>.enrichment_groups.tsv, and the pictures <unit>.running_sum.png and <unit>.enrichment_dots.png.

Example: enrich_genes.py --unit POST_vs_PRE --rankings POST_vs_PRE.rankings.tsv.gz --collections go_bp.gmt.gz hallmark.gmt
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scresist import cli, io, keys, provenance, status

if TYPE_CHECKING:
    from scresist.enrichment import Collection, Ranking

STEP = "enrich_genes"
RANKING_COLUMNS = ("source", "group", "contrast", "evidence", "gene", "score", "direction")
GROUP_COLUMNS = ("source", "group", "contrast")
DIRECTIONS = ("up", "down", "")
EXPRESSION = "expression"  # source whose unit is a contrast
ALL = "all"
TUMOUR = "tumour"  # group drawn first
TOP = 20  # sets per group, direction and collection in the small tables
TOP_GENES = 10  # genes per set in the small tables
LEVEL = 0.05  # adjusted p below which a set counts in the summary
DRAWN_SETS = 6  # running sums
DOTS_PER_GROUP, MOST_DOT_ROWS = 3, 24
FAINT = 0.5  # dots with a larger adjusted p are left out
CASE = {"dna": "DNA", "rna": "RNA", "mrna": "mRNA", "trna": "tRNA", "rrna": "rRNA", "mhc": "MHC", "nf": "NF", "tgf": "TGF"}
LABEL = 58  # characters of a set's name in a picture
MOST_PROBLEMS = 10
ORA_HEAD = ["source", "group", "contrast", "evidence", "direction", "collection"]
GSEA_HEAD = ["source", "group", "contrast", "evidence", "collection"]
SUMMARY_COLUMNS = [
    "source", "group", "contrast", "evidence", "method", "direction", "collection", "n_genes", "query", "universe", "n_sets",
    "n_significant", "top_set", "top_padj", "status", "reason",
]  # fmt: skip


def group_list(text: str) -> list[str]:
    """argparse type: `all`, or names separated by commas."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise argparse.ArgumentTypeError("give `all` or the names of groups, separated by commas")
    return names


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    add = parser.add_argument
    add("--unit", required=True, type=cli.sample_id, help="name of the rankings: a contrast, marker, epi_clusters or modules")
    add("--rankings", required=True, type=Path, help="<unit>.rankings.tsv.gz: one row per group and gene")
    add("--collections", type=Path, nargs="*", default=[], help="gene set collections (GMT, may be gzipped)")
    add("--permutations", type=cli.number(100, 10**7, int), default=10_000, help="random orders for GSEA (default 10000)")
    add("--min_size", type=cli.number(1, 10**5, int), default=10, help="least measured genes of a set (default 10)")
    add("--max_size", type=cli.number(1, 10**5, int), default=500, help="most measured genes of a set (default 500)")
    add("--min_query", type=cli.number(1, 10**5, int), default=5, help="least chosen, annotated genes for ORA (default 5)")
    add(
        "--gsea_groups",
        type=group_list,
        default=[TUMOUR],
        help="cell types of a contrast whose ranking is tested by GSEA: all, or names; all of them where none of the names is"
        " there; clusters, modules and markers always are (default tumour)",
    )
    args = parser.parse_args(argv)
    if args.min_size > args.max_size:
        parser.error(f"--min_size {args.min_size} is above --max_size {args.max_size}")
    return args


def stem(path: Path) -> str:
    """The collection's name: the file without .gmt and .gz."""
    return path.name.removesuffix(".gz").removesuffix(".gmt").removesuffix(".txt")


def read_text(path: Path) -> str:
    """A text file, unpacked where it is gzipped (told by its first bytes, not by its name)."""
    raw = path.read_bytes()
    try:
        return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise io.InputError(f"{path.name}: cannot be read as text ({error}); expected a GMT file, plain or gzipped") from error


def read_collections(paths: list[Path]) -> list[Collection]:
    """All collections, sorted by name."""
    from scresist import enrichment

    names = [stem(path) for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise io.InputError(f"--collections: the name {', '.join(twice)} stands for several files; rename all but one")
    found, problems = [], []
    for path, name in sorted(zip(paths, names, strict=True), key=lambda pair: pair[1]):
        try:
            found.append(enrichment.collection(name, enrichment.parse_gmt(read_text(path), path.name)))
        except io.InputError as error:
            problems.append(str(error))
    if problems:
        raise io.InputError("\n".join(problems))
    return found


def read_rankings(path: Path) -> pd.DataFrame:
    """The rankings, checked and sorted by group and gene.

    Raises
    ------
    InputError
        naming every kind of fault: missing columns, empty genes, genes that stand twice within a group, scores that are no
        finite numbers, unknown directions.
    """
    try:
        frame = io.read_tsv(path, dtype=str)
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise io.InputError(f"{path.name}: cannot be read as a tab-separated table ({error})") from error
    absent = [name for name in RANKING_COLUMNS if name not in frame]
    if absent:
        raise io.InputError(
            f"{path.name}: columns {', '.join(absent)} are missing; expected {', '.join(RANKING_COLUMNS)}, found"
            f" {', '.join(map(str, frame.columns))[:200]}"
        )
    frame = frame[list(RANKING_COLUMNS)].copy()
    for name in RANKING_COLUMNS:
        if name != "score":
            frame[name] = frame[name].fillna("").astype(str)
    score = pd.to_numeric(frame["score"], errors="coerce").astype(float)
    problems = []
    bad = frame["score"].notna() & ~np.isfinite(score)
    if bad.any():
        problems.append(f"{bad.sum()} scores are no finite numbers, the first is {frame.loc[bad, 'score'].iloc[0]!r}")
    unknown = sorted(set(frame["direction"]) - set(DIRECTIONS))
    if unknown:
        problems.append(f"direction {', '.join(unknown[:5])}: expected up, down or empty")
    for name in ("gene", "group"):
        if (frame[name] == "").any():
            bare = frame.index[frame[name] == ""]
            problems.append(f"{len(bare)} rows have no {name}, the first is row {bare[0] + 2}")
    key = [*GROUP_COLUMNS, "gene"]
    twice = frame.duplicated(key)
    if twice.any():
        first = frame.loc[twice].iloc[0]
        problems.append(f"{int(twice.sum())} genes stand twice in a group, the first is {first['gene']} in {first['group']}")
    if problems:
        raise io.InputError(f"{path.name}:\n  - " + "\n  - ".join(problems))
    frame["score"] = score
    return frame.sort_values(key, kind="stable", ignore_index=True)


def strongest_first(part: pd.DataFrame) -> pd.DataFrame:
    """Genes of a group by |score|, descending, those without a score last, ties by name."""
    order = np.lexsort((part["gene"].to_numpy(dtype=str), -part["score"].abs().fillna(-1).to_numpy(dtype=float)))
    return part.iloc[order]


def groups_to_rank(groups: list[tuple[str, str]], names: list[str]) -> set[tuple[str, str]]:
    """(source, group) pairs for GSEA: those named among the cell types of a contrast (all where none is there), all others."""
    types = {pair for pair in groups if pair[0] == EXPRESSION}
    named = types if names == [ALL] else {pair for pair in types if pair[1] in names} or types
    return named | (set(groups) - types)


def counted(frame: pd.DataFrame) -> dict[str, object]:
    """What the summary says of a table of sets."""
    known = frame[frame["padj"].notna()] if len(frame) else frame
    return {
        "n_significant": int((known["padj"].astype(float) < LEVEL).sum()) if len(known) else 0,
        "top_set": known["set"].iloc[0] if len(known) else "",
        "top_padj": float(known["padj"].iloc[0]) if len(known) else np.nan,
    }


def enrich_lists(
    part: pd.DataFrame, known: Collection, directions: list[str], args: argparse.Namespace
) -> tuple[list[pd.DataFrame], list[dict[str, object]]]:
    """ORA of the chosen genes of one group, each direction on its own."""
    from scresist import enrichment

    genes = part["gene"].tolist()
    tables, rows = [], []
    for direction in directions:
        chosen = part.loc[part["direction"] == direction, "gene"].tolist()
        found, facts = enrichment.over_representation(known, genes, chosen, args.min_size, args.max_size, args.min_query)
        if len(found):
            found.insert(0, "direction", direction)
            tables.append(found)
        rows.append({"method": "ora", "direction": direction, "n_genes": len(genes), **facts, **counted(found)})
    return tables, rows


def enrich_ranking(
    ranking: Ranking, known: list[Collection], args: argparse.Namespace, seed: int
) -> list[tuple[str, pd.DataFrame, dict[str, object]]]:
    """GSEA of one ranking in every collection against one null."""
    from scresist import enrichment

    measured = {c.name: enrichment.measure(c, ranking, args.min_size, args.max_size) for c in known}
    done = []
    against = None
    if ranking.usable:
        sizes = [size for found in measured.values() for size in found.sizes]
        against = enrichment.null(ranking, sizes, args.permutations, seed, args.threads)
    for c in known:
        found = pd.DataFrame(columns=list(enrichment.GSEA_COLUMNS))
        facts: dict[str, object] = {"n_sets": len(measured[c.name].rows), "status": keys.OK, "reason": ""}
        if against is None:
            facts["status"], facts["reason"] = keys.NOT_ESTIMABLE, "all genes have the same score; scores that differ are needed"
        elif not len(measured[c.name].rows):
            facts["status"] = keys.SKIPPED_FEW_GENES
            facts["reason"] = f"no set has {args.min_size} to {args.max_size} of the {len(ranking.genes)} ranked genes"
        else:
            found = enrichment.preranked(c, ranking, measured[c.name], against)
        row = {"method": "gsea", "direction": "", "n_genes": len(ranking.genes), **facts, **counted(found)}
        done.append((c.name, found, row))
    return done


def first_genes(text: str) -> str:
    """The first genes of a comma list."""
    return ",".join(str(text).split(",")[:TOP_GENES])


def top_ora(ora: pd.DataFrame) -> pd.DataFrame:
    """The first sets of each group, direction and collection."""
    top = ora.groupby(["source", "group", "contrast", "direction", "collection"], sort=False).head(TOP).copy()
    top["genes"] = [first_genes(text) for text in top["genes"]]
    return top


def top_gsea(gsea: pd.DataFrame) -> pd.DataFrame:
    """The first sets of each group, sign and collection."""
    sign = np.where(gsea["nes"].astype(float) >= 0, "up", "down")
    known = gsea.assign(direction=sign)[gsea["nes"].notna()]
    top = known.groupby(["source", "group", "contrast", "collection", "direction"], sort=False).head(TOP).copy()
    top["leading_edge"] = [first_genes(text) for text in top["leading_edge"]]
    return top[[*GSEA_HEAD, "direction", *(name for name in gsea if name not in GSEA_HEAD)]]


def label(name: str) -> str:
    """A set's name for a picture: without the prefix of its collection, with blanks, cut."""
    words = name.split("_")
    text = " ".join(words[1:] if len(words) > 1 and words[0].isupper() else words)
    if text.isupper():
        text = " ".join(CASE.get(word, word) for word in text.lower().split())
    return text if len(text) <= LABEL else text[: LABEL - 1] + "…"


def in_order(groups: list[str]) -> list[str]:
    """Tumour cells first, then by name (M2 before M10)."""
    from scresist.report import natural

    return sorted(groups, key=lambda name: (name != TUMOUR, natural(name)))


def note(text: str) -> bytes:
    """A picture that says why there is none."""
    from scresist import figures

    figure = figures.plt.figure(figsize=(6, 0.6))
    figure.text(0.01, 0.5, text, fontsize=9, va="center", color=figures.TEXT)
    return figures.png(figure)


def draw_running_sums(ranking: Ranking | None, title: str, chosen: pd.DataFrame, known: list[Collection]) -> bytes:
    """Running sums of the strongest sets, rising ones left and falling ones right, the ranks of their genes below each curve."""
    from scresist import enrichment, figures

    if ranking is None or chosen.empty:
        return note("No running sum: no group has scores that differ, or no set has enough ranked genes.")
    by_name = {c.name: c for c in known}
    sides = [part for way in ("up", "down") if len(part := chosen[chosen["direction"] == way])]
    n_rows = max(map(len, sides))
    figure, grid = figures.plt.subplots(
        n_rows, len(sides), figsize=(4.3 * len(sides), 2.15 * n_rows + 0.6), squeeze=False, layout="constrained"
    )
    for axes in grid.flat:
        axes.set_axis_off()
    for column, part in enumerate(sides):
        for axes, row in zip(grid[:, column], part.to_dict("records"), strict=False):
            c = by_name[row["collection"]]
            at = int(np.flatnonzero(c.sets == row["set"])[0])
            members = c.genes[c.members.indices[c.members.indptr[at] : c.members.indptr[at + 1]]]
            curve, hits = enrichment.running_sum(ranking, members)
            axes.set_axis_on()
            axes.plot(np.arange(1, len(curve) + 1), curve, color="#D55E00" if row["nes"] >= 0 else "#0072B2", linewidth=1.3)
            axes.axhline(0, color="#888888", linewidth=0.6)
            low, high = min(curve.min(), 0), max(curve.max(), 0)
            span = max(high - low, 1e-9)
            axes.vlines(hits + 1, low - 0.14 * span, low - 0.04 * span, color="#444444", linewidth=0.35)
            axes.set_ylim(low - 0.17 * span, high + 0.06 * span)
            axes.set_xlim(0, len(curve) + 1)
            axes.set_title(
                f"{label(row['set'])}\nNES {row['nes']:.2f}, adjusted p {row['padj']:.2g}, {row['set_size']} genes",
                fontsize=7.5, loc="left", color=figures.TEXT,
            )  # fmt: skip
            axes.tick_params(labelsize=7)
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
    figure.supxlabel(f"rank of the gene, highest score first (n = {len(ranking.genes):,} genes)", fontsize=8.5)
    figure.supylabel("running sum (no unit)", fontsize=8.5)
    figure.suptitle(title, fontsize=10, x=0.01, ha="left", color=figures.TEXT)
    return figures.png(figure)


def dot_rows(top: pd.DataFrame, columns: list[str], column: str) -> list[tuple[str, str]]:
    """(collection, set) pairs to draw: the strongest significant ones of each column, column after column, without repeats."""
    chosen: dict[tuple[str, str], None] = {}
    for depth in range(DOTS_PER_GROUP):
        for name in columns:
            mine = top[(top[column] == name) & (top["padj"].astype(float) < LEVEL)]  # the strongest first within a collection
            mine = mine.sort_values("padj", kind="stable")
            if depth < len(mine) and len(chosen) < MOST_DOT_ROWS:
                chosen.setdefault((mine["collection"].iloc[depth], mine["set"].iloc[depth]))
    return sorted(chosen)


def draw_dots(ora: pd.DataFrame, gsea: pd.DataFrame, unit: str) -> bytes:
    """Dot plots: sets against groups, GSEA (colour = NES) above ORA (colour = fold); dot area = -log10 adjusted p."""
    from scresist import figures

    parts = []
    for title, frame, value, colours, text in (
        ("ranked genes (GSEA)", gsea, "nes", "RdBu_r", "normalised enrichment score"),
        ("chosen genes (ORA)", ora, "fold", "cividis_r", "times as many genes as expected"),
    ):
        if frame.empty:
            continue
        frame = frame.assign(column=frame["group"])
        names = in_order(sorted(set(frame["group"])))
        if value == "fold":
            frame["column"] = frame["group"] + " " + frame["direction"]
            names = [f"{name} {way}" for name in names for way in ("up", "down") if f"{name} {way}" in set(frame["column"])]
        rows = dot_rows(frame, names, "column")
        if rows:
            parts.append((title, frame, value, colours, text, names, rows))
    if not parts:
        return note(f"No dot plot: no gene set has an adjusted p below {LEVEL:g}.")
    heights = [len(part[6]) + 4.5 for part in parts]
    figure, grid = figures.plt.subplots(
        len(parts), 1, figsize=(9.2, 0.215 * sum(heights) + 1.2), squeeze=False, height_ratios=heights, layout="constrained"
    )
    for axes, (title, frame, value, colours, text, names, rows) in zip(grid.flat, parts, strict=True):
        place = {pair: at for at, pair in enumerate(rows)}
        listed = [pair in place for pair in zip(frame["collection"], frame["set"], strict=True)]
        shown = frame[np.array(listed) & (frame["padj"].astype(float) < FAINT).to_numpy()]
        x = [names.index(name) for name in shown["column"]]
        y = [place[pair] for pair in zip(shown["collection"], shown["set"], strict=True)]
        shade = shown[value].astype(float).to_numpy()
        strength = np.minimum(-np.log10(shown["padj"].astype(float).to_numpy()), 10)
        limit = float(np.abs(shade).max())
        low, high = (-limit, limit) if value == "nes" else (1.0, max(limit, 1.1))
        rims = np.where(strength > -np.log10(LEVEL), "#222222", "#CCCCCC")
        dots = axes.scatter(
            x, y, s=4 + 9 * strength, c=shade, cmap=colours, vmin=low, vmax=high, linewidths=0.5, edgecolors=list(rims)
        )
        axes.set_yticks(range(len(rows)), [label(name) for _, name in rows], fontsize=7)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(color="#EEEEEE", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(f"{unit}: {title}; dark rim: adjusted p < {LEVEL:g}", fontsize=9, loc="left", color=figures.TEXT)
        bar = figure.colorbar(dots, ax=axes, shrink=0.7, pad=0.01, aspect=18)
        bar.set_label(text, fontsize=7.5)
        bar.ax.tick_params(labelsize=7)
    handles = [grid.flat[0].scatter([], [], s=4 + 9 * s, c="#777777", label=f"{10.0**-s:g}") for s in (1, 2, 5, 10)]
    figure.legend(
        handles=handles, title="adjusted p (dot area)", loc="outside lower right", fontsize=7, title_fontsize=7, frameon=False,
        ncols=4,
    )  # fmt: skip
    return figures.png(figure)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    from scresist import enrichment

    frame = read_rankings(args.rankings)
    known = read_collections(args.collections)
    seed = cli.unit_seed(args.seed, STEP, args.unit)
    ora_tables, gsea_tables, summary = [], [], []
    drawn: tuple[str, Ranking] | None = None
    groups = list(frame.groupby(list(GROUP_COLUMNS), sort=True))
    # modules and states have no falling genes: a direction that no group of a source has is not missed
    chosen_ways = {
        source: [way for way in ("up", "down") if (part["direction"] == way).any()] for source, part in frame.groupby("source")
    }
    ranked = groups_to_rank([key[:2] for key, _ in groups], args.gsea_groups)
    for (source, group, contrast), part in groups:
        head = {"source": source, "group": group, "contrast": contrast, "evidence": part["evidence"].iloc[0]}
        for c in known:
            tables, rows = enrich_lists(strongest_first(part), c, chosen_ways[source], args)
            ora_tables += [table.assign(**head, collection=c.name) for table in tables]
            summary += [{**head, "collection": c.name, **row} for row in rows]
        if not part["score"].notna().any() or (source, group) not in ranked:
            continue
        ranking = enrichment.rank(part["gene"].tolist(), part["score"].to_numpy(dtype=float))
        for name, found, row in enrich_ranking(ranking, known, args, seed):
            if len(found):
                gsea_tables.append(found.assign(**head, collection=name))
            summary.append({**head, "collection": name, **row})
        if ranking.usable and (drawn is None or (group == TUMOUR and drawn[0] != TUMOUR)):
            drawn = (group, ranking)

    ora_columns, gsea_columns = [*ORA_HEAD, *enrichment.ORA_COLUMNS], [*GSEA_HEAD, *enrichment.GSEA_COLUMNS]
    ora = pd.concat(ora_tables, ignore_index=True)[ora_columns] if ora_tables else pd.DataFrame(columns=ora_columns)
    gsea = pd.concat(gsea_tables, ignore_index=True)[gsea_columns] if gsea_tables else pd.DataFrame(columns=gsea_columns)
    summed = pd.DataFrame(summary, columns=SUMMARY_COLUMNS)
    ora_small, gsea_small = top_ora(ora), top_gsea(gsea)
    io.write_tsv_gz(ora, Path(f"{args.unit}.ora.tsv.gz"))
    io.write_tsv_gz(gsea, Path(f"{args.unit}.gsea.tsv.gz"))
    io.write_tsv(ora_small, Path(f"{args.unit}.ora_top.tsv"))
    io.write_tsv(gsea_small, Path(f"{args.unit}.gsea_top.tsv"))
    io.write_tsv(summed, Path(f"{args.unit}.enrichment_groups.tsv"))

    chosen = pd.DataFrame()
    if drawn is not None and len(gsea_small):
        mine = gsea_small[gsea_small["group"] == drawn[0]]
        strength = -mine["nes"].astype(float).abs()
        mine = mine.assign(_size=strength).sort_values(["padj", "_size", "set"], kind="stable").drop(columns="_size")
        half = DRAWN_SETS // 2
        chosen = pd.concat([mine[mine["direction"] == "up"].head(half), mine[mine["direction"] == "down"].head(half)])
    title = f"{args.unit}: strongest sets of {drawn[0]}" if drawn else ""
    picture = draw_running_sums(drawn[1] if drawn else None, title, chosen, known)
    io.write_atomically(Path(f"{args.unit}.running_sum.png"), lambda path: path.write_bytes(picture))
    dots = draw_dots(ora, gsea, args.unit)
    io.write_atomically(Path(f"{args.unit}.enrichment_dots.png"), lambda path: path.write_bytes(dots))

    row = describe(args, frame, groups, known, summed)
    status.write([row], STEP, args.unit)
    packages = ["matplotlib", "numba", "numpy", "pandas", "scipy"]
    digests = {c.name: f"{len(c.sets)} sets, {len(c.genes)} genes" for c in known}
    provenance.write(provenance.record(STEP, args.unit, args, packages, unit_seed=seed, collection_sizes=digests))
    return 0


def describe(
    args: argparse.Namespace, frame: pd.DataFrame, groups: list, known: list[Collection], summed: pd.DataFrame
) -> status.StatusRow:
    """The status row of the unit."""
    genes = set(frame["gene"])
    foreign = [c.name for c in known if genes and not genes.intersection(c.genes)]
    word, reason = keys.OK, ""
    if frame.empty:
        word, reason = keys.SKIPPED_NO_INPUT, f"{args.rankings.name} holds no gene; at least one group of tested genes is needed"
    elif not known:
        word, reason = keys.SKIPPED_NO_INPUT, "no gene set collection was given; at least one GMT file is needed"
    elif len(foreign) == len(known):
        word = keys.SKIPPED_FEW_GENES
        reason = f"none of the {len(genes)} genes (such as {min(genes)}) is in {', '.join(foreign)}; gene symbols are needed"
    elif not (summed["status"] == keys.OK).any():
        word = keys.SKIPPED_FEW_GENES
        why = sorted(set(summed["reason"]) - {""})
        reason = "; ".join(why[:3]) if why else "no gene was chosen and none has a score"
    elif foreign:
        word, reason = keys.WARNING, f"no gene of the data is in {', '.join(foreign)}; is it of another species or naming?"
    n_ora = int(summed.loc[summed["method"] == "ora", "n_significant"].sum())
    n_gsea = int(summed.loc[summed["method"] == "gsea", "n_significant"].sum())
    sentence = status.SENTENCES[word]
    if word in (keys.OK, keys.WARNING):
        sentence += (
            f" {len(groups)} group(s) of genes against {sum(len(c.sets) for c in known):,} gene sets: {n_ora:,} sets hold more"
            f" of the chosen genes than chance gives, {n_gsea:,} lie at an end of a ranking (adjusted p below {LEVEL:g})."
        )
    unit_type = "contrast" if set(frame["source"]) == {EXPRESSION} else "cohort"
    return status.StatusRow(STEP, unit_type, args.unit, word, reason, sentence=sentence)


if __name__ == "__main__":
    cli.run(main)
