#!/usr/bin/env python3
"""Refresh the digests of assets/MANIFEST.tsv after an edit of a bundled table: python assets/build/manifest.py

Source, version, licence and date of a file stay as they are; a file without a row is named, not guessed.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

ASSETS = Path(__file__).resolve().parents[1]


def main() -> int:
    """Rewrite the sha256 column; returns 1 when a listed file is missing."""
    path = ASSETS / "MANIFEST.tsv"
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    missing = [row["file"] for row in rows if not (ASSETS / row["file"]).is_file()]
    if missing:
        print(f"MANIFEST.tsv lists files that are not there: {', '.join(missing)}", file=sys.stderr)
        return 1
    for row in rows:
        row["sha256"] = hashlib.sha256((ASSETS / row["file"]).read_bytes()).hexdigest()
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["file"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
