#!/usr/bin/env python3
"""Build assets/progeny.tsv.gz: the 500 most responsive genes of each of PROGENy's 14 human pathways, with their weights.

    apt-get download r-bioc-progeny=1.20.0+ds-1
    uv pip install rdata==1.1.0        (reads R's serialised objects; needed by this script only)
    assets/build/progeny.py r-bioc-progeny_1.20.0+ds-1_all.deb

Source: Debian package r-bioc-progeny 1.20.0+ds-1 (Apache-2.0), data set model_human_full. Takes the .deb (needs dpkg-deb) or its
folder progeny/data with Rdata.rdx and Rdata.rdb, R's store of data sets: an index (gzip) and objects, here each a length of four
bytes, the letter 2 and a bzip2 stream.

Rule: per pathway the 500 genes with the smallest p value (ties by gene name), as `progeny(top = 500)` of that package and
decoupler choose them. Columns source (pathway), target (gene symbol), weight (z score of the regression on perturbation
experiments), sorted by source and target. Each run rewrites the table and its row of assets/MANIFEST.tsv; equal input gives equal
bytes.
"""

from __future__ import annotations

import argparse
import bz2
import csv
import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1]
DATA_IN_DEB = "usr/lib/R/site-library/progeny/data"
TOP = 500
MANIFEST_COLUMNS = ["file", "source", "version", "licence", "date", "sha256", "built_by"]


def stored_object(chunk: bytes) -> bytes:
    """The serialised R object of one entry of an .rdb file whose compression is bzip2."""
    (size,) = struct.unpack(">I", chunk[:4])
    if chunk[4:5] != b"2":
        raise ValueError(f"compression {chunk[4:5]!r}; expected 2 (bzip2)")
    content = bz2.decompress(chunk[5:])
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes, the entry promises {size}")
    return content


def model(folder: Path) -> list[tuple[str, str, float, float]]:
    """Gene, pathway, weight and p value of every row of model_human_full."""
    import rdata

    def convert(content: bytes) -> object:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Unknown file type")
            return rdata.conversion.convert(rdata.parser.parse_data(content))

    index = convert(gzip.decompress((folder / "Rdata.rdx").read_bytes()))
    start, length = map(int, index["variables"]["model_human_full"])
    frame = convert(stored_object((folder / "Rdata.rdb").read_bytes()[start : start + length]))
    columns = [frame[name].tolist() for name in ("gene", "pathway", "weight", "p.value")]
    return [(str(gene), str(pathway), float(weight), float(p)) for gene, pathway, weight, p in zip(*columns, strict=True)]


def strongest(rows: list[tuple[str, str, float, float]], top: int = TOP) -> list[tuple[str, str, float]]:
    """Source, target and weight of the `top` genes of each pathway by p value, ties by name; sorted."""
    by_pathway: dict[str, list[tuple[float, str, float]]] = {}
    for gene, pathway, weight, p in rows:
        by_pathway.setdefault(pathway, []).append((p, gene, weight))
    return sorted((pathway, gene, weight) for pathway, found in by_pathway.items() for _, gene, weight in sorted(found)[:top])


def write_gzip_tsv(path: Path, rows: list[tuple[str, str, float]]) -> None:
    """Write the table with ten significant digits; its bytes follow from its rows only."""
    lines = ["source\ttarget\tweight", *(f"{source}\t{target}\t{weight:.10g}" for source, target, weight in rows)]
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=9, mtime=0) as stream:
        stream.write(("\n".join(lines) + "\n").encode())
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


def main(argv: list[str] | None = None) -> int:
    """Build the table; 0 when done."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, help="the .deb, or the folder with Rdata.rdx and Rdata.rdb")
    made.add_argument("--out", type=Path, default=ASSETS, help="folder of the table (default: assets/)")
    args = made.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.source
        if folder.suffix == ".deb":
            subprocess.run(["dpkg-deb", "-x", str(folder), scratch], check=True)
            folder = Path(scratch) / DATA_IN_DEB
        rows = strongest(model(folder))
    path = args.out / "progeny.tsv.gz"
    write_gzip_tsv(path, rows)
    entry = {
        "file": path.name,
        "source": "PROGENy human model, top 500 genes per pathway, Debian r-bioc-progeny 1.20.0+ds-1",
        "version": "1.20.0",
        "licence": "Apache-2.0",
        "date": "2022-11-01",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "built_by": "assets/build/progeny.py",
    }
    record(args.out / "MANIFEST.tsv", entry)
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
