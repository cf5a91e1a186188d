#!/usr/bin/env python3
"""Make the report: one page for clinicians and reviewers, and the check that everything promised is there.

    build_report.py --tables tables/ --status status/*.tsv --provenance provenance/*.json --cells cells.parquet \\
        --title 'Gastric cohort' --max_mb 25 --max_rows 50

Writes report.html, status.tsv (all rows joined), findings.tsv, software_versions.tsv and methods.md. Ends with exit
code 65 when a sample or a step has no status row, or says that it is done while its table is missing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

import scresist
from scresist import cli, findings, io, keys, provenance, report, status

STEP = "build_report"
ASSETS = Path(__file__).resolve().parents[1] / "assets"
TEXTS = ("multiqc_config.yml", "report.css", "methods_text.yml", "citations.tsv")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Options of the step."""
    parser = cli.parser(__doc__)
    parser.add_argument("--tables", required=True, type=Path, help="folder with every table of the run, by name")
    parser.add_argument("--status", required=True, nargs="+", type=Path, help="status tables of all steps")
    parser.add_argument("--provenance", nargs="*", default=[], type=Path, help="provenance of all tasks (JSON)")
    parser.add_argument("--cells", required=True, type=Path, help="cells.parquet: one row per input cell")
    parser.add_argument("--assets", type=Path, default=ASSETS, help=f"folder with {', '.join(TEXTS)}")
    parser.add_argument("--title", default="scresist", help="heading of the page")
    parser.add_argument(
        "--max_mb", type=cli.number(1, 1000), default=25, help="size above which the page is called too large, MB"
    )
    parser.add_argument("--max_rows", type=cli.number(1, 10_000, int), default=50, help="rows of a table shown on the page")
    args = parser.parse_args(argv)
    for name in ("status", "provenance"):  # the order in which files arrive must not reach the provenance
        setattr(args, name, sorted(getattr(args, name), key=lambda path: path.name))
    return args


def read_provenance(paths: list[Path]) -> list[dict[str, Any]]:
    """Provenance entries sorted by step in the order of the pipeline, then unit."""
    entries = [
        json.loads(path.read_text(encoding="utf-8")) for path in paths if path.stat().st_size
    ]
    place = {step: at for at, step in enumerate(report.STEP_ORDER)}
    return sorted(entries, key=lambda e: (place.get(str(e["step"]).lower(), len(place)), str(e["step"]), str(e["unit"])))


def used_files(tables: report.Tables, assets: Path, entries: list[dict[str, Any]]) -> pd.DataFrame:
    """Models, gene sets and bundled tables with their checksums; columns file, what, sha256."""
    rows = []
    models = tables.get("models")
    name = next((column for column in ("model", "file") if column in models), None)
    for row in models.to_dict("records") if name else []:
        digest = next((row[column] for column in ("sha256", "checksum", "digest") if column in row), "")
        rows.append((row[name], "CellTypist model", digest))
    for entry in entries:
        for what in ("files", "tables", "digests", "checksums"):
            for file, digest in sorted(dict(entry.get(what) or {}).items()):
                rows.append((file, f"input of {report.STEP_NAMES.get(str(entry['step']).lower(), entry['step'])}", str(digest)))
    manifest = assets / "MANIFEST.tsv"
    if manifest.is_file():
        for row in io.read_tsv(manifest, dtype=str).fillna("").to_dict("records"):
            rows.append((row["file"], f"{row['source']}, {row['licence']}", row["sha256"]))
    return pd.DataFrame(rows, columns=["file", "what", "sha256"]).drop_duplicates(ignore_index=True)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    cli.prepare_caches()
    cli.limit_threads(args.threads)
    absent = [name for name in TEXTS if not (args.assets / name).is_file()]
    if absent:
        raise io.InputError(f"{args.assets} lacks {', '.join(absent)}; give the assets folder of the pipeline with --assets")

    tables = report.Tables(args.tables)
    cells = pd.read_parquet(args.cells)
    rows = report.read_status(args.status)
    report.check_delivery(tables, rows, cells)
    entries = read_provenance(args.provenance)
    # the report is a step too: its own versions and row belong on the page that it makes
    own = provenance.record(STEP, "cohort", args, ["multiqc", "matplotlib", "pandas", "plotly", "numpy", "pyarrow"])
    entries.append(own)

    design = tables.get("samples")
    made = report.facts(design, cells)
    found = findings.build(made, tables, cells)
    texts = yaml.safe_load((args.assets / "methods_text.yml").read_text(encoding="utf-8"))
    citations = io.read_tsv(args.assets / "citations.tsv", dtype=str)
    methods = report.methods_text(texts, citations, entries, used_files(tables, args.assets, entries), args.title)
    software = report.software(entries)

    from scresist import page  # sets up MultiQC's surroundings before anything imports it

    page.isolate(Path.cwd() / ".cache" / "home")
    from scresist import chapters  # draws with matplotlib, whose cache folder is set above

    context = chapters.Context(tables, rows, cells, design, made, found, methods, software, entries, args.max_rows)
    page.write(
        chapters.build(context),
        args.title,
        args.assets / "multiqc_config.yml",
        args.assets / "report.css",
        Path("report.html"),
        scresist.__version__,
    )

    size = Path("report.html").stat().st_size / 1e6
    too_large = size > args.max_mb
    mine = status.StatusRow(
        STEP,
        "cohort",
        "cohort",
        keys.WARNING if too_large else keys.OK,
        f"the page has {size:.1f} MB, more than {args.max_mb:g} MB: some mail systems refuse it" if too_large else "",
        n_cells=made.n_kept,
        n_samples=made.n_samples,
        n_patients=made.n_patients,
    )
    everything = pd.concat([rows, status.table([mine]).astype(object)], ignore_index=True)
    io.write_tsv(everything, Path("status.tsv"))
    io.write_tsv(found, Path("findings.tsv"))
    io.write_tsv(software, Path("software_versions.tsv"))
    io.write_atomically(Path("methods.md"), lambda path: path.write_text(methods, encoding="utf-8"))
    status.write([mine], STEP, "cohort")
    provenance.write(own)
    return 0


if __name__ == "__main__":
    cli.run(main)
