#!/usr/bin/env python3
"""Build assets/gene_positions.tsv.gz and assets/gene_aliases.tsv.gz from Bioconductor's org.Hs.eg.db 3.16.

    apt-get download r-bioc-org.hs.eg.db=3.16.0-1
    assets/build/gene_positions.py r-bioc-org.hs.eg.db_3.16.0-1_all.deb

Source: Debian package r-bioc-org.hs.eg.db 3.16.0-1 (Artistic-2.0): Entrez Gene of 2022-09-12, positions of RefSeq transcripts on
GRCh38 from UCSC of 2022-08-31. Takes the .deb (needs dpkg-deb) or the org.Hs.eg.sqlite inside it.

Rules
- Coordinates are 1-based and inclusive, as in GTF and in 10x references: the package stores 0-based starts, with a minus sign
  for the reverse strand, so start = |start_location| + 1 and end = |end_location|.
- Standard chromosomes only (1..22, X, Y, MT); alternative haplotypes and unplaced scaffolds are left out.
- One row per symbol: of the chromosomes with transcripts, those that Entrez Gene names for the gene (RPL21 has look-alikes on
  other chromosomes), of these the first in the order 1..22, X, Y (so the pseudoautosomal genes stand on X); there the locus
  (transcripts joined while they overlap) with the smallest start. Start and end are those of that whole locus.
- Genes without a transcript position but with an Ensembl id and one standard chromosome (protein-coding, ncRNA, and the
  immune receptor segments such as TRAC, IGKC, which RefSeq does not place) keep a row with empty start and end, last on their
  chromosome, so that symbols and Ensembl ids are known.
- Mitochondrial genes: the 13 proteins and 2 rRNAs under their HGNC and 10x symbols (MT-ND1, MT-CO1, ...). The package has no
  positions for them; they are those of the revised Cambridge Reference Sequence, NC_012920.1, the MT of GRCh38.
- gene_id: the smallest Ensembl gene id of the Entrez gene (the primary assembly comes before the haplotype copies), else empty.
- An alias is kept when it names exactly one gene, is no symbol of any gene itself, and its gene has a row.
Each run rewrites both tables and their rows of assets/MANIFEST.tsv; equal input gives equal bytes.
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
CHROMOSOMES = [*map(str, range(1, 23)), "X", "Y", "MT"]
SQLITE_IN_DEB = "usr/lib/R/site-library/org.Hs.eg.db/extdata/org.Hs.eg.sqlite"
# Entrez symbol -> (10x symbol, start, end), NC_012920.1, 1-based inclusive.
MITOCHONDRIAL = {
    "RNR1": ("MT-RNR1", 648, 1601),
    "RNR2": ("MT-RNR2", 1671, 3229),
    "ND1": ("MT-ND1", 3307, 4262),
    "ND2": ("MT-ND2", 4470, 5511),
    "COX1": ("MT-CO1", 5904, 7445),
    "COX2": ("MT-CO2", 7586, 8269),
    "ATP8": ("MT-ATP8", 8366, 8572),
    "ATP6": ("MT-ATP6", 8527, 9207),
    "COX3": ("MT-CO3", 9207, 9990),
    "ND3": ("MT-ND3", 10059, 10404),
    "ND4L": ("MT-ND4L", 10470, 10766),
    "ND4": ("MT-ND4", 10760, 12137),
    "ND5": ("MT-ND5", 12337, 14148),
    "ND6": ("MT-ND6", 14149, 14673),
    "CYTB": ("MT-CYB", 14747, 15887),
}
UNPLACED_KINDS = ("protein-coding", "ncRNA", "other")
MANIFEST_COLUMNS = ["file", "source", "version", "licence", "date", "sha256", "built_by"]


def locus(transcripts: list[tuple[int, int]]) -> tuple[int, int]:
    """Start and end of the first run of overlapping transcripts."""
    start, end = min(transcripts)
    for low, high in sorted(transcripts):
        if low > end:
            break
        end = max(end, high)
    return start, end


def read(database: sqlite3.Connection) -> tuple[list[tuple], list[tuple[str, str]]]:
    """Rows of both tables, sorted."""
    on_mt = {key for (key,) in database.execute("SELECT _id FROM chromosomes WHERE chromosome = 'MT'")}
    entrez_symbols = {}
    symbols = {}
    for key, symbol in database.execute("SELECT _id, symbol FROM gene_info"):
        entrez_symbols[key] = symbol
        symbols[key] = MITOCHONDRIAL[symbol][0] if key in on_mt and symbol in MITOCHONDRIAL else symbol

    named: dict[int, set[str]] = defaultdict(set)
    for key, name in database.execute("SELECT _id, chromosome FROM chromosomes"):
        named[key].add(name)

    ensembl: dict[int, str] = {}
    for key, ensembl_id in database.execute("SELECT _id, ensembl_id FROM ensembl"):
        ensembl[key] = min(ensembl.get(key, ensembl_id), ensembl_id)

    places: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    owner: dict[tuple[str, str], list[int]] = defaultdict(list)
    for key, name, start, end in database.execute(
        "SELECT _id, seqname, start_location, end_location FROM chromosome_locations ORDER BY _id"
    ):
        # the mitochondrial ones are set below
        if name in CHROMOSOMES and name != "MT":
            places[symbols[key], name].append((abs(start) + 1, abs(end)))
            owner[symbols[key], name].append(key)

    def preference(place: tuple[str, str]) -> tuple[bool, int, str]:
        symbol, name = place
        return not any(name in named[key] for key in owner[place]), CHROMOSOMES.index(name), symbol

    rows = {}
    for symbol, name in sorted(places, key=preference):
        if symbol not in rows:
            ids = sorted(ensembl[key] for key in set(owner[symbol, name]) if key in ensembl)
            rows[symbol] = (symbol, ids[0] if ids else "", name, *locus(places[symbol, name]))
    for key, kind in database.execute("SELECT _id, gene_type FROM genetype ORDER BY _id"):
        if kind in UNPLACED_KINDS and key in ensembl and len(named[key]) == 1 and named[key] <= set(CHROMOSOMES[:-1]):
            rows.setdefault(symbols[key], (symbols[key], ensembl[key], *named[key], "", ""))
    for key in sorted(on_mt):
        if entrez_symbols[key] in MITOCHONDRIAL:
            symbol, start, end = MITOCHONDRIAL[entrez_symbols[key]]
            rows[symbol] = (symbol, ensembl.get(key, ""), "MT", start, end)

    owners: dict[str, set[int]] = defaultdict(set)
    for key, alias in database.execute("SELECT _id, alias_symbol FROM alias"):
        owners[alias].add(key)
    taken = set(entrez_symbols.values()) | set(symbols.values())
    aliases = sorted(
        (alias, symbols[next(iter(keys))])
        for alias, keys in owners.items()
        if len(keys) == 1 and alias not in taken and symbols[next(iter(keys))] in rows and "\t" not in alias
    )
    positions = sorted(rows.values(), key=lambda row: (CHROMOSOMES.index(row[2]), row[3] == "", row[3], row[0]))
    return positions, aliases


def write_gzip_tsv(path: Path, header: list[str], rows: list[tuple]) -> None:
    """Write a gzipped table whose bytes follow from its rows only: no time, no name in the gzip header."""
    text = "\n".join("\t".join(map(str, row)) for row in [tuple(header), *rows]) + "\n"
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(text.encode())
    path.write_bytes(buffer.getvalue())


def record(manifest: Path, entries: list[dict[str, str]]) -> None:
    """Replace the rows of `entries` in the manifest, which stays sorted by file."""
    kept = []
    if manifest.exists():
        with manifest.open(newline="") as stream:
            kept = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    names = {entry["file"] for entry in entries}
    rows = sorted([row for row in kept if row["file"] not in names] + entries, key=lambda row: row["file"])
    lines = ["\t".join(MANIFEST_COLUMNS)] + ["\t".join(row[column] for column in MANIFEST_COLUMNS) for row in rows]
    manifest.write_text("\n".join(lines) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Build both tables; 0 when done."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, help="the .deb or org.Hs.eg.sqlite")
    made.add_argument("--out", type=Path, default=ASSETS, help="folder of the tables (default: assets/)")
    args = made.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        sqlite = args.source
        if sqlite.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", str(args.source), scratch], check=True)
            sqlite = Path(scratch) / SQLITE_IN_DEB
        database = sqlite3.connect(f"file:{sqlite}?mode=ro", uri=True)
        positions, aliases = read(database)
        database.close()
    tables = {
        "gene_positions.tsv.gz": (["symbol", "gene_id", "chromosome", "start", "end"], positions),
        "gene_aliases.tsv.gz": (["alias", "symbol"], aliases),
    }
    entries = []
    for name, (header, rows) in tables.items():
        write_gzip_tsv(args.out / name, header, rows)
        entries.append(
            {
                "file": name,
                "source": "Bioconductor org.Hs.eg.db, Debian r-bioc-org.hs.eg.db 3.16.0-1"
                + ("; MT positions NC_012920.1" if name == "gene_positions.tsv.gz" else ""),
                "version": "3.16.0",
                "licence": "Artistic-2.0",
                "date": "2022-09-12",
                "sha256": hashlib.sha256((args.out / name).read_bytes()).hexdigest(),
                "built_by": "assets/build/gene_positions.py",
            }
        )
        print(f"{name}: {len(rows)} rows, {(args.out / name).stat().st_size} bytes")
    record(args.out / "MANIFEST.tsv", entries)
    return 0


if __name__ == "__main__":
    sys.exit(main())
