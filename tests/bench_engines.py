"""What the benches of two engines share: each engine in a process of its own, so that its peak of resident memory is its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def measure(script: str, engine: str, folder: Path, threads: int, blas_threads: int = 1) -> dict[str, float]:
    """Seconds and peak memory (GiB; of the process and the largest of its workers) of one engine of a bench."""
    env = {**os.environ, "NUMBA_CACHE_DIR": os.environ.get("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))}
    env |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(blas_threads))
    env |= {"NUMBA_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, script, "--engine", engine, str(folder)], env=env, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(rows: Callable[..., list[dict]], engines: Mapping[str, Callable[[Path], float]]) -> int:
    """Print the lines of a bench, sizes from the command line; with --engine, run one engine and print its figures."""
    if sys.argv[1:2] == ["--engine"]:
        seconds = engines[sys.argv[2]](Path(sys.argv[3]))
        peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        print(json.dumps({"seconds": seconds, "gib": peak / 2**20}))
        return 0
    for row in rows(*(int(text) for text in sys.argv[1:])):
        print(
            f"{row['what']}: {row['ours_s']:.2f} s against {row['stock_s']:.2f} s, {row['ratio']:.1f} times as fast "
            f"(floor {row['floor']}); {row['note']}"
        )
    return 0
