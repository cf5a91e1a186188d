"""Print where the demo's report lies and what was recovered: `python tests/show_demo.py results/demo`."""

from __future__ import annotations

import csv
import sys
from pathlib import Path


def main(folder: Path) -> int:
    """Print one line per planted thing; returns 1 when a floor was missed."""
    with (folder / "report" / "recovery.tsv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t", quoting=csv.QUOTE_NONE))
    missed = 0
    print("\nPlanted truth against what the run found:")
    for row in rows:
        verdict = {"true": "ok  ", "false": "MISS", "": "    "}[row["passed"]]
        missed += row["passed"] == "false"
        floor = f" (asked {row['floor']})" if row["floor"] else ""
        print(f"  {verdict} {row['what']}: {row['metric']} {row['value']}{floor}")
    print(f"\nReport:  {folder / 'report' / 'report.html'}")
    print(f"Cells:   {folder / 'cells.parquet'}   Object: {folder / 'cohort.h5ad'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
