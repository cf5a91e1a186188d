"""1,000 dose-response curves through the whole step on two cores: `python tests/bench_dose_response.py [curves]`.

Ours: fit_dose_response.py by its command line, from the table of wells to fits, intervals, comparisons and pictures; once as
compounds on four lines each (every compound is compared between lines), once as compounds on one line. Stock: scipy's
`curve_fit` of the free model alone from the same 21 starts, the best kept, without guards, profile intervals, comparisons and
pictures, for the same curves (all wells, and each replicate), measured on a part of them on one core.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
N_CURVES, N_STOCK, THREADS, N_REPLICATES = 1000, 40, 2, 3
LINES = (4, 1)
FLOOR_SECONDS = 60


def table(n_compounds: int, n_lines: int, path: Path) -> None:
    """Wells of nine doses in three replicates: most curves fall across 50 %, some level off above it; lines differ."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(1)
    dose = 0.01 * 4.0 ** np.arange(9)
    parts = []
    for compound in range(n_compounds):
        middle = rng.uniform(-1, 2.2)
        for line in range(n_lines):
            bottom = rng.choice([rng.uniform(-3, 25), rng.uniform(60, 90)], p=[0.85, 0.15])
            own, hill = middle + rng.normal(0, 0.4), rng.uniform(0.6, 2.5)
            for replicate in range(N_REPLICATES):
                share = 1 / (1 + 10 ** (hill * (np.log10(dose) - own - rng.normal(0, 0.05))))
                response = bottom + (100 - bottom) * share + rng.normal(0, 4, len(dose))
                name = {"line": f"L{line:04d}", "compound": f"C{compound:04d}", "replicate": replicate + 1}
                parts.append(pd.DataFrame({**name, "dose": dose, "response": response}))
    pd.concat(parts).assign(unit="nM").to_csv(path, index=False)


def ours(wells: Path) -> tuple[float, float]:
    """Seconds of the step by the clock and of processor time, start and imports included."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, str(ROOT / "bin" / "fit_dose_response.py"), "--tables", wells.name, "--threads", str(THREADS)]
    subprocess.run(command, cwd=wells.parent, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def stock(wells: Path) -> float:
    """Seconds of curve_fit from every start for N_STOCK curves and their replicates."""
    import numpy as np
    import pandas as pd
    from scipy.optimize import curve_fit

    def model(x, bottom, top, middle, hill):
        return bottom + (top - bottom) / (1 + 10 ** (hill * (x - middle)))

    given = pd.read_csv(wells)
    curves = []
    for _, part in list(given.groupby(["compound", "line"]))[:N_STOCK]:
        curves += [part, *(own for _, own in part.groupby("replicate"))]
    start = time.perf_counter()
    for part in curves:
        x, y, best = np.log10(part["dose"].to_numpy()), part["response"].to_numpy(), np.inf
        for middle in np.linspace(x.min(), x.max(), 7):
            for hill in (0.5, 1.0, 2.0):
                try:
                    found, _ = curve_fit(model, x, y, p0=[y.min(), y.max(), middle, hill], maxfev=2000)
                except RuntimeError:  # no convergence from this start
                    continue
                best = min(best, float(((model(x, *found) - y) ** 2).sum()))
    return time.perf_counter() - start


def rows(n: int = N_CURVES) -> list[dict]:
    """The lines of the bench: `what, ours_s, stock_s, ratio, floor, note`."""
    warnings.simplefilter("ignore")
    made = []
    for n_lines in LINES:
        with tempfile.TemporaryDirectory() as scratch:
            wells = Path(scratch) / "wells.csv"
            n_compounds = max(1, n // n_lines)
            n_curves = n_compounds * n_lines
            table(n_compounds, n_lines, wells)
            mine, used = ours(wells)
            part = min(N_STOCK, n_curves)
            other = stock(wells) * n_curves / part / THREADS
        note = (
            f"{n_compounds:,} compounds on {n_lines} line{'' if n_lines == 1 else 's'} in {N_REPLICATES} replicates of 9 doses,"
            f" {THREADS} processes, {used:.0f} s of processor time; floor: {FLOOR_SECONDS} s on {THREADS} free cores, load now"
            f" {os.getloadavg()[0]:.1f}; stock: {part} curves and their replicates on one core, scaled to {n_curves:,} on"
            f" {THREADS}"
        )
        made.append(
            {
                "what": f"the step for {n_curves:,} dose-response curves, against scipy's curve_fit from every start",
                "ours_s": mine,
                "stock_s": other,
                "ratio": other / mine,
                "floor": None,  # in seconds, not a ratio: it stands in the note
                "note": note,
            }
        )
    return made


def main() -> int:
    """Print the lines."""
    for row in rows(*[int(text) for text in sys.argv[1:2]]):
        print(f"{row['what']}: {row['ours_s']:.1f} s against {row['stock_s']:.1f} s, {row['ratio']:.1f} times; {row['note']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
