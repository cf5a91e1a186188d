#!/usr/bin/env python3
"""Build assets/go_bp.gmt.gz: the biological processes of Gene Ontology with 10 to 500 human genes.

    apt-get download r-bioc-org.hs.eg.db=3.16.0-1 r-bioc-go.db=3.16.0-1
    assets/build/gene_sets.py r-bioc-org.hs.eg.db_3.16.0-1_all.deb r-bioc-go.db_3.16.0-1_all.deb

Sources: Debian packages r-bioc-org.hs.eg.db 3.16.0-1 (which gene has which term, Entrez Gene of 2022-09-12; Artistic-2.0) and
r-bioc-go.db 3.16.0-1 (terms and their order, Gene Ontology of 2022-07-01; CC BY 4.0). Takes the .deb files (needs dpkg-deb) or
the org.Hs.eg.sqlite and GO.sqlite inside them.

Rules
- A gene annotated with a term has every ancestor of that term too (is_a, part_of and regulates, as Bioconductor's GOALL and
  the table go_bp_all do); all evidence codes count; the root `all` is left out.
- Genes are the symbols of Entrez Gene, each once; sets of 10 to 500 symbols stay.
- One line per term: GOBP_<NAME IN CAPITALS, blanks as underscores, no commas>, the GO identifier, the sorted symbols. Lines
  stand in the order of the identifiers.
Each run rewrites the file and its row of assets/MANIFEST.tsv; equal input gives equal bytes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import sqlite3
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1]
ORG_IN_DEB = "usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite"
GO_IN_DEB = "usr/lib/R/site-library/GO.db/extdata/GO.sqlite"
ROOTS = {"all", "GO:0008150"}  # the top of the tree and biological_process itself say nothing about a gene
SMALLEST, LARGEST = 10, 500
MANIFEST_COLUMNS = ["file", "source", "version", "licence", "date", "sha256", "built_by"]


def set_name(term: str) -> str:
    """The name of a set in the manner of MSigDB: GOBP_ and the term in capitals, blanks as underscores, without commas."""
    return "GOBP_" + "_".join(term.upper().replace(",", " ").split())


def read(genes: sqlite3.Connection, ontology: sqlite3.Connection) -> list[tuple[str, str, list[str]]]:
    """Name, identifier and sorted symbols of each set, by identifier."""
    identifier = dict(ontology.execute("SELECT _id, go_id FROM go_term"))
    name = dict(ontology.execute("SELECT go_id, term FROM go_term WHERE ontology = 'BP'"))
    ancestors: dict[str, list[str]] = defaultdict(list)
    for ancestor, term in ontology.execute("SELECT _id, _offspring_id FROM go_bp_offspring"):
        ancestors[identifier[term]].append(identifier[ancestor])
    symbol = dict(genes.execute("SELECT _id, symbol FROM gene_info"))
    members: dict[str, set[str]] = defaultdict(set)
    for key, term in genes.execute("SELECT DISTINCT _id, go_id FROM go_bp"):
        for at in (term, *ancestors[term]):
            members[at].add(symbol[key])
    return [
        (set_name(name[term]), term, sorted(found))
        for term, found in sorted(members.items())
        if term in name and term not in ROOTS and SMALLEST <= len(found) <= LARGEST
    ]


def write_gmt_gz(path: Path, sets: list[tuple[str, str, list[str]]]) -> None:
    """Write a gzipped GMT whose bytes follow from its sets only: no time, no name in the gzip header."""
    text = "".join("\t".join([name, note, *members]) + "\n" for name, note, members in sets)
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(text.encode())
    path.write_bytes(buffer.getvalue())


def record(manifest: Path, entry: dict[str, str]) -> None:
    """Replace the row of `entry` in the manifest, which stays sorted by file."""
    kept = []
    if manifest.exists():
        with manifest.open(newline="") as stream:
            kept = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = sorted([row for row in kept if row["file"] != entry["file"]] + [entry], key=lambda row: row["file"])
    lines = ["\t".join(MANIFEST_COLUMNS)] + ["\t".join(row[column] for column in MANIFEST_COLUMNS) for row in rows]
    manifest.write_text("\n".join(lines) + "\n")


def database(source: Path, inside: str, scratch: Path) -> sqlite3.Connection:
    """The database itself, or the one within a .deb."""
    if source.suffix == ".deb":
        folder = scratch / source.stem
        subprocess.run(["dpkg-deb", "-x", str(source), str(folder)], check=True)
        source = folder / inside
    return sqlite3.connect(f"file:{source}?mode=ro", uri=True)


def main(argv: list[str] | None = None) -> int:
    """Build the collection; 0 when done."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("genes", type=Path, help="the .deb of org.Hs.eg.db, or org.Hs.eg.sqlite")
    made.add_argument("ontology", type=Path, help="the .deb of GO.db, or GO.sqlite")
    made.add_argument("--out", type=Path, default=ASSETS, help="folder of the table (default: assets/)")
    args = made.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        genes = database(args.genes, ORG_IN_DEB, Path(scratch))
        ontology = database(args.ontology, GO_IN_DEB, Path(scratch))
        sets = read(genes, ontology)
        genes.close()
        ontology.close()
    path = args.out / "go_bp.gmt.gz"
    write_gmt_gz(path, sets)
    entry = {
        "file": path.name,
        "source": "Gene Ontology, biological process, by Debian r-bioc-go.db 3.16.0-1; human annotation of Bioconductor"
        " org.Hs.eg.db, Debian r-bioc-org.hs.eg.db 3.16.0-1",
        "version": "3.16.0",
        "licence": "CC BY 4.0 (Gene Ontology), Artistic-2.0 (org.Hs.eg.db)",
        "date": "2022-07-01",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "built_by": "assets/build/gene_sets.py",
    }
    record(args.out / "MANIFEST.tsv", entry)
    print(f"{path.name}: {len(sets)} sets, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
