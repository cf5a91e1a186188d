"""Shared fixtures: the package on the path, scripts through their command line, real data where it is."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / "bin"
sys.path.insert(0, str(BIN))
# Scripts called within this process bound numba's pool by its size at start: one size for every test, in any order
os.environ.setdefault("NUMBA_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def plain_figures() -> None:
    """Figures are drawn with matplotlib's defaults, whatever a package that an earlier test imported has set."""
    if matplotlib := sys.modules.get("matplotlib"):
        matplotlib.rcdefaults()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real public data beside the repository; tests that use it skip, saying so, where it is absent."""
    folder = Path(os.environ.get("SCRESIST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set SCRESIST_DATA to the folder that holds them)")
    return folder


@pytest.fixture(scope="session")
def run_script():
    """Call bin/<name>.py as a task does: `run_script(name, *args, cwd=folder)`; returns the completed process."""

    def call(name: str, *args: object, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        env = dict(os.environ)
        env.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".cache" / "numba"))
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # without compiled modules every process compiles for seconds
        env["PYTHONHASHSEED"] = "random"  # an output that follows the order of a set must fail here, not at a user's
        done = subprocess.run(
            [sys.executable, str(BIN / f"{name}.py"), *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True
        )
        if check and done.returncode:
            raise AssertionError(f"{name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done

    return call


@pytest.fixture
def script_main(tmp_path, monkeypatch) -> Callable[[str], Callable[..., int]]:
    """`script_main(name)(*options)`: main of bin/<name>.py in this process and the test's folder; a new one costs seconds."""

    def load(name: str) -> Callable[..., int]:
        own = f"script_{name}"  # not the name itself: some scripts are named like tests
        spec = importlib.util.spec_from_file_location(own, BIN / f"{name}.py")
        script = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, own, script)
        spec.loader.exec_module(script)
        monkeypatch.chdir(tmp_path)
        folders = {"NUMBA_CACHE_DIR": ROOT / ".cache" / "numba", "MPLCONFIGDIR": tmp_path}
        for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", *folders):
            monkeypatch.setenv(variable, os.environ.get(variable, str(folders.get(variable, 1))))
        return lambda *options: script.main([str(option) for option in options])

    return load
