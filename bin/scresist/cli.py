"""What every script in bin/ does the same way: common options, caches, seeds, exit codes.

Exit codes: 0 complete, 2 usage (argparse), 65 bad data (never retried by the workflow).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

from scresist import keys
from scresist.io import InputError

EXIT_BAD_DATA = 65
ID_PATTERN = keys.ID_PATTERN


def prepare_caches() -> None:
    """Point numba, matplotlib and CellTypist at a writable folder before they are imported.

    A given folder that can be written is kept (numba compiles for 20-90 s per process without one); else a folder of
    the task itself is used, so that a read-only home or clone works.
    """
    for variable, name in (("NUMBA_CACHE_DIR", "numba"), ("MPLCONFIGDIR", "matplotlib"), ("CELLTYPIST_FOLDER", "celltypist")):
        given = os.environ.get(variable)
        folder = Path(given) if given else Path.cwd() / ".cache" / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            writable = os.access(folder, os.W_OK)
        except OSError:
            writable = False
        if not writable:
            folder = Path.cwd() / ".cache" / name
            folder.mkdir(parents=True, exist_ok=True)
        os.environ[variable] = str(folder)


def limit_threads(threads: int) -> None:
    """Bound every thread pool of the numeric libraries; call before importing them.

    numba refuses a changed NUMBA_NUM_THREADS once its pool runs, so where a caller has imported it already (a test, a
    notebook) its own limit is set instead, which cannot exceed the size of that pool.
    """
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    if numba := sys.modules.get("numba"):
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    else:
        os.environ["NUMBA_NUM_THREADS"] = str(threads)
    # Idle threads sleep instead of spinning: on a machine shared with other tasks two spinning threads are slower than one
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def sample_id(text: str) -> str:
    """argparse type: an id that is safe in file names, shells and HTML."""
    if not ID_PATTERN.match(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an id: letters, digits, `_`, `.`, `-`, starting with a letter or digit"
        )
    return text


def number(low: float, high: float, kind: type = float) -> Callable[[str], float]:
    """argparse type: a number of `kind` within [low, high]."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {'a whole' if kind is int else 'a'} number") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is outside {low} to {high}")
        return value

    return convert


def resolutions(text: str) -> list[str]:
    """argparse type: Leiden resolutions separated by commas, ascending, as they will be named in columns."""
    try:
        values = sorted({float(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of numbers separated by commas") from None
    if values[0] <= 0:
        raise argparse.ArgumentTypeError(f"{values[0]} is not a resolution: they are above 0")
    return [str(value) for value in values]


def parser(doc: str | None, sample: bool = False) -> argparse.ArgumentParser:
    """A parser with the options that every step takes; `doc` is the script's docstring."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    if sample:
        made.add_argument("--sample", required=True, type=sample_id, help="sample id")
    made.add_argument("--seed", type=number(0, 2**31 - 1, int), default=1, help="seed of the run (default 1)")
    made.add_argument("--threads", type=number(1, 1024, int), default=1, help="threads to use (default 1)")
    made.add_argument(
        "--code",
        default="unknown",
        help="digest of the modules behind this script, by which the workflow sees their edits",
    )
    return made


def unit_seed(seed: int, step: str, unit: str) -> int:
    """The seed of one unit of one step, in [0, 2**31): adding a sample does not move the others."""
    digest = hashlib.sha256(f"{seed}/{step}/{unit}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def run(main: Callable[[list[str] | None], int]) -> None:
    """Call a script's main and exit; an InputError becomes its text on stderr and exit code 65."""
    try:
        code = main(None)
    except InputError as error:
        print(f"ERROR {Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        code = EXIT_BAD_DATA
    sys.exit(code)
