"""Runs of the whole pipeline, each made once per session and looked at by many tests."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEXTFLOW = ROOT / ".venv" / "bin" / "nextflow"


@dataclass
class Run:
    """One nextflow run: exit code, what it printed, its trace, its results."""

    code: int
    text: str
    outdir: Path
    launch: Path

    def trace(self) -> list[dict[str, str]]:
        """Rows of the trace: process, tag, name, status, ..."""
        with (self.outdir / "pipeline_info" / "trace.txt").open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        for row in rows:
            row["process"] = row["name"].split(" (")[0].split(":")[-1]
        return rows

    def executed(self) -> list[str]:
        """Names of the tasks that were really run, not taken from the cache; sorted."""
        return sorted(row["name"].split(":")[-1] for row in self.trace() if row["status"] == "COMPLETED")

    def warnings(self) -> list[str]:
        return [line for line in self.text.splitlines() if "WARN" in line]

    def tables(self) -> dict[str, bytes]:
        """Every table, fragment and record of the results by its path; pipeline_info holds times and is left out."""
        return {
            str(path.relative_to(self.outdir)): path.read_bytes()
            for path in sorted(self.outdir.rglob("*"))
            if path.suffix in (".tsv", ".parquet", ".json", ".md", ".csv", ".gz") and "pipeline_info" not in path.parts
        }


def launch(folder: Path, *args: object, project: Path = ROOT, outdir: str = "results", resume: bool = False) -> Run:
    """`nextflow run <project> <args>` from `folder`, work files in <folder>/work."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [NEXTFLOW, "-log", folder / "nextflow.log", "run", project, "-ansi-log", "false", "-work-dir", folder / "work"]
    command += ["--outdir", folder / outdir, *args, *(["-resume"] if resume else [])]
    env = dict(os.environ, NUMBA_CACHE_DIR="", NO_COLOR="1")
    done = subprocess.run([str(part) for part in command], cwd=folder, env=env, capture_output=True, text=True, timeout=2400)
    return Run(done.returncode, done.stdout + done.stderr, folder / outdir, folder)


@pytest.fixture(scope="session")
def nextflow():
    """`nextflow(folder, *args, ...)`: launch a run; the test judges its exit code."""
    return launch


def _done(run: Run) -> Run:
    assert run.code == 0, run.text
    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> Run:
    """The demo as `make demo` runs it."""
    return _done(launch(tmp_path_factory.mktemp("demo"), "-profile", "demo"))


# Small enough to be run several times: 4 samples, two phases, few epochs. The numbers shape the time, nothing else.
SMALL_DESIGN = """sample\tpatient\tphase\tbatch\tn_cells
S1\tP1\tPRE\tb1\t150
S2\tP2\tPRE\tb2\t150
S3\tP1\tPOST\tb1\t150
S4\tP3\tPOST\tb2\t150
"""
SMALL = (
    "--scvi_max_epochs", 2, "--cluster_resolutions", "1.0,2.0", "--sample_min_median_genes", 500,
    "--gsea_permutations", 200, "--panel_draws", 5, "--de_levels", "tumour", "--comm_groupby", "main_type", "--skip_liana",
    "--n_perms_flow", 20, "--flow_draws", 2, "--fates_null", 10, "--route_n_boot", 20,
)  # fmt: skip


def beside(cohort: Path) -> tuple[object, ...]:
    """Arguments that hand in what was simulated beside the cells of `small_cohort`."""
    folder = cohort.parent / "evidence"
    names = {"--survival": "survival.csv", "--dose_response": "plates.tsv", "--staining_tables": "staining.tsv"}
    return tuple(part for option, name in names.items() for part in (option, folder / name))


@pytest.fixture(scope="session")
def small_cohort(tmp_path_factory) -> Path:
    """A simulated cohort of four samples as a user would have it: a samplesheet beside its 10x folders."""
    folder = tmp_path_factory.mktemp("small_cohort")
    (folder / "design.tsv").write_text(SMALL_DESIGN)
    assets = ROOT / "assets"
    tables = ["--positions", assets / "gene_positions.tsv.gz", "--markers", assets / "markers.tsv", "--arms", assets / "arms.tsv"]
    tables += ["--cell_cycle", assets / "cell_cycle.tsv"]
    command = [ROOT / ".venv" / "bin" / "python", ROOT / "bin" / "simulate_cohort.py", *tables]
    command += ["--design", folder / "design.tsv", "--n_genes", "5500", "--seed", "3"]
    subprocess.run(command, cwd=folder, check=True)
    return folder / "cohort"


@pytest.fixture(scope="session")
def small(tmp_path_factory, small_cohort) -> Run:
    """A run on the small cohort."""
    sheet = small_cohort / "samplesheet.csv"
    return _done(launch(tmp_path_factory.mktemp("small"), "--input", sheet, *SMALL, *beside(small_cohort)))


@pytest.fixture(scope="module")
def project_copy(tmp_path_factory) -> Path:
    """The files of the repository as they are now, in a folder of their own, with the same environment."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True)
    copy = tmp_path_factory.mktemp("copy") / "project"
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy
