"""What must agree: names, parameters, digests, pins, status words. Each message says how to mend."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = ROOT / "bin"
PACKAGE = BIN / "scresist"
sys.path.insert(0, str(BIN))

SCRIPTS = sorted(BIN.glob("*.py"))
MODULES = sorted(PACKAGE.rglob("*.py"))
PROCESS_FILES = sorted(p for p in (ROOT / "modules").glob("*/*.nf") if p.name != "main.nf")
# Plumbing knows files and arguments and no biology; every other module of the package is a kernel (architecture.md).
REPORT_PARTS = {"chapters", "layout", "page", "report", *(m.stem for m in MODULES if m.stem.startswith("chapter_"))}
PLUMBING = {"__init__", "cli", "contract", "io", "keys", "provenance", "status", *REPORT_PARTS}
# What a kernel may take from io: the error that names bad input, and how a number is written.
KERNEL_MAY_IMPORT_FROM_IO = {"InputError", "format_float"}
TOP_LEVEL = {
    ".ci",
    ".dockerignore",
    ".gitattributes",
    ".github",
    ".gitignore",
    "CHANGELOG.md",
    "CITATION.cff",
    "LICENSE",
    "Makefile",
    "README.md",
    "assets",
    "bin",
    "conf",
    "containers",
    "docs",
    "lib",
    "main.nf",
    "modules",
    "nextflow.config",
    "nextflow_schema.json",
    "pyproject.toml",
    "tests",
    "tower.yml",
}
# Configuration of other tools: written by hand, without an origin to record.
ASSETS_WITHOUT_ORIGIN = {".css", ".html", ".json", ".md", ".yaml", ".yml"}


def by_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def repository_files() -> tuple[Path, ...]:
    """Files that belong to the repository: what git tracks or would track; without git, all but environments and results."""
    if shutil.which("git") and (ROOT / ".git").exists():
        done = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
        )
        names = [name for name in done.stdout.decode().split("\0") if name]
        return tuple(sorted(ROOT / name for name in names if (ROOT / name).is_file()))
    left_out = {
        ".git",
        ".venv",
        ".cache",
        ".nextflow",
        "__pycache__",
        ".pytest_cache",
        ".ruff_cache",
        "results",
        "work",
        ".nf-test",
    }
    found = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in left_out]
        found += [Path(folder) / name for name in names if not name.startswith(".nextflow") and name != ".setup.lock"]
    return tuple(sorted(found))


def text_of(path: Path) -> str | None:
    """The text of a file, or None when it is binary."""
    content = path.read_bytes()
    if b"\0" in content[:8192] or path.suffix in (".gz", ".png", ".h5", ".h5ad", ".parquet", ".pkl"):
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def without_comments(groovy: str) -> str:
    """Nextflow code without its comments; a `//` inside a URL is no comment."""
    return re.sub(r"(?m)(?<!:)//.*$", "", re.sub(r"(?s)/\*.*?\*/", "", groovy))


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# --- one name per step


@pytest.mark.parametrize("path", PROCESS_FILES, ids=by_name)
def test_process_file(path):
    step, name = path.stem, by_name(path)
    code = without_comments(path.read_text(encoding="utf-8"))
    processes = re.findall(r"(?m)^\s*process\s+(\w+)", code)
    assert processes == [step.upper()], f"{name}: processes {processes}; a file holds exactly one, named {step.upper()}"
    assert "params" not in re.findall(r"\w+", code), f"{name}: reads params; pass the value as ext.args in conf/modules.config"
    assert not re.search(r"optional\s*:\s*true", code), f"{name}: optional output; write a valid empty file and a status row"
    assert re.search(r"(?m)^\s*stub:", code), f"{name}: add a stub that makes the outputs"
    section = re.search(r"(?s)\bscript:(.*?)\bstub:", code)
    assert section, f"{name}: a `script:` section must stand before `stub:`"
    blocks = re.findall(r'(?s)"""(.*?)"""', section.group(1)) + re.findall(r"(?s)'''(.*?)'''", section.group(1))
    first_words = [line.split()[0] for block in blocks for line in block.splitlines() if line.split()]
    mend = f"call {step}.py by its bare name, first on its own line in a triple-quoted script block"
    assert f"{step}.py" in first_words, f"{name}: {mend} (otherwise -resume does not see its edits)"


@pytest.mark.parametrize("path", PROCESS_FILES, ids=by_name)
def test_process_has_script_and_test(path):
    script, test = BIN / f"{path.stem}.py", ROOT / "tests" / "unit" / f"test_{path.stem}.py"
    assert script.is_file(), f"{by_name(path)}: write {by_name(script)}, or remove the process"
    assert os.access(script, os.X_OK), f"{by_name(script)} is not executable: chmod +x {by_name(script)}"
    assert script.read_text().startswith("#!/usr/bin/env python3\n"), (
        f"{by_name(script)}: first line must be #!/usr/bin/env python3"
    )
    assert test.is_file(), f"{by_name(script)} has no test: write {by_name(test)}"


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_script_has_a_process(script):
    found = [path for path in PROCESS_FILES if path.stem == script.stem]
    assert len(found) == 1, f"{by_name(script)}: {len(found)} files modules/*/{script.stem}.nf; there must be one"


@pytest.mark.parametrize("module", [m for m in MODULES if m.stem not in PLUMBING], ids=by_name)
def test_kernel_has_a_test(module):
    test = ROOT / "tests" / "unit" / f"test_{module.stem}.py"
    assert test.is_file(), f"{by_name(module)} has no test: write {by_name(test)}"


def test_params_only_where_allowed():
    bad = []
    for path in repository_files():
        name = by_name(path)
        if path.suffix not in (".nf", ".config", ".groovy") or name in ("main.nf", "nextflow.config") or name.startswith("conf/"):
            continue
        if name.startswith(("lib/", "tests/")):
            continue  # functions there take params as an argument
        if re.search(r"\bparams\s*[.\[]", without_comments(path.read_text(encoding="utf-8"))):
            bad.append(name)
    assert not bad, f"{', '.join(bad)}: params. belongs to main.nf, nextflow.config and conf/; pass values as inputs or ext.args"


def test_every_process_has_a_folder_for_its_results():
    text = without_comments((ROOT / "conf" / "modules.config").read_text(encoding="utf-8"))
    named = {name for group in re.findall(r"withName:\s*['\"]?([A-Z_0-9|]+)", text) for name in group.split("|")}
    processes = {path.stem.upper() for path in PROCESS_FILES}
    assert processes <= named, f"conf/modules.config: add withName with ext.dir for {', '.join(sorted(processes - named))}"
    assert named <= processes, f"conf/modules.config: no process {', '.join(sorted(named - processes))}; remove the selector"


# --- generated files


def test_code_digests_are_fresh():
    done = subprocess.run([sys.executable, str(ROOT / "conf" / "build_code.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip() or "run `make code`"


def test_parameter_page_is_fresh():
    done = subprocess.run([sys.executable, str(ROOT / "docs" / "build_parameters.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip() or "run `make docs`"


# --- parameters


def config_defaults(text: str) -> dict[str, object]:
    """Names and values of the `params { }` block of nextflow.config, one `name = value` on each line."""
    block = re.search(r"(?ms)^params\s*\{\n(.*?)^\}", text)
    assert block, "nextflow.config: no params block that starts and ends at the left margin"
    values: dict[str, object] = {}
    for line in block.group(1).splitlines():
        code = line.strip()
        if not code or code.startswith("//"):
            continue
        found = re.fullmatch(r"(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\"[^\"$]*\"|null|true|false|[-+.\deE]+)(?:\s*//.*)?", code)
        assert found, f"nextflow.config: `{code}` in params is not `name = value` with a plain value"
        name, word = found.groups()
        assert name not in values, f"nextflow.config: {name} stands twice in params; remove one"
        plain = {"null": None, "true": True, "false": False}
        values[name] = plain[word] if word in plain else ast.literal_eval(word)
    return values


def schema_properties() -> dict[str, dict]:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    found: dict[str, dict] = {}
    for group in schema["$defs"].values():
        for name, entry in group["properties"].items():
            assert name not in found, f"nextflow_schema.json: {name} stands in two groups; remove one"
            found[name] = entry
    return found


def test_parser_of_defaults():
    text = "params {\n    // words\n    a = 'x, y'\n    b = null // none\n    c = 2.0\n    d = false\n    e = 3\n}\nprocess {}\n"
    assert config_defaults(text) == {"a": "x, y", "b": None, "c": 2.0, "d": False, "e": 3}
    for bad in ("params {\n    a = [1, 2]\n}\n", "params {\n    a = 1\n    a = 2\n}\n", 'params {\n    a = "${x}"\n}\n'):
        with pytest.raises(AssertionError, match=r"nextflow\.config"):
            config_defaults(bad)


def test_schema_equals_defaults():
    defaults = config_defaults((ROOT / "nextflow.config").read_text(encoding="utf-8"))
    schema = schema_properties()
    missing, extra = sorted(set(defaults) - set(schema)), sorted(set(schema) - set(defaults))
    assert not missing, f"nextflow_schema.json: describe {', '.join(missing)}, or remove them from nextflow.config"
    assert not extra, (
        f"nextflow.config: give {', '.join(extra)} a default (null for none), or remove them from nextflow_schema.json"
    )
    unlike = [
        f"{name}: nextflow.config {value!r}, schema {schema[name].get('default')!r}"
        for name, value in defaults.items()
        if value != schema[name].get("default") or isinstance(value, bool) is not isinstance(schema[name].get("default"), bool)
    ]
    assert not unlike, "make the defaults equal:\n" + "\n".join(unlike)


def test_schema_describes_every_parameter_well():
    schema = json.loads((ROOT / "nextflow_schema.json").read_text(encoding="utf-8"))
    referred = {entry["$ref"].rpartition("/")[2] for entry in schema["allOf"]}
    groups = set(schema["$defs"])
    assert referred == groups, f"nextflow_schema.json: allOf and $defs differ in {', '.join(sorted(referred ^ groups))}"
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    for name, entry in schema_properties().items():
        assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"nextflow_schema.json: {name} is not lower_snake; rename it"
        assert entry.get("type") in kinds, f"nextflow_schema.json: {name} needs a type: {', '.join(kinds)}"
        assert entry.get("description"), f"nextflow_schema.json: {name} needs a description"
        default = entry.get("default")
        if default is None:
            continue
        is_bool = entry["type"] == "boolean"
        right = isinstance(default, kinds[entry["type"]]) and isinstance(default, bool) is is_bool
        assert right, f"nextflow_schema.json: {name} is {entry['type']}, its default {default!r} is not"
        assert "enum" not in entry or default in entry["enum"], f"nextflow_schema.json: default of {name} is not in its enum"
        if isinstance(default, int | float) and not is_bool:
            low, high = entry.get("minimum", default), entry.get("maximum", default)
            assert low <= default <= high, f"nextflow_schema.json: default of {name} is outside {low} to {high}"
        if "pattern" in entry:
            assert re.search(entry["pattern"], default), f"nextflow_schema.json: default of {name} does not match its pattern"


def test_every_parameter_is_used_and_every_used_one_exists():
    used: set[str] = set()
    for path in [ROOT / "main.nf", ROOT / "nextflow.config", *sorted((ROOT / "conf").rglob("*.config"))]:
        used |= set(re.findall(r"\bparams\.(\w+)", without_comments(path.read_text(encoding="utf-8"))))
        if path.parent.name == "profiles":
            for block in re.findall(r"(?s)\bparams\s*\{(.*?)\}", without_comments(path.read_text(encoding="utf-8"))):
                used |= set(re.findall(r"(?m)^\s*(\w+)\s*=", block))
    known = set(schema_properties())
    assert used <= known, f"no such parameter: {', '.join(sorted(used - known))}; describe it in nextflow_schema.json"
    assert known <= used, f"nothing reads {', '.join(sorted(known - used))}; use it or remove it"


# --- status words


def status_constants() -> dict[str, str]:
    """Constants of keys.py below the line that opens the status words."""
    source = (PACKAGE / "keys.py").read_text(encoding="utf-8")
    start = source[: source.index("# --- status words")].count("\n") + 1
    found = {}
    for node in tree_of(PACKAGE / "keys.py").body:
        if isinstance(node, ast.Assign) and node.lineno > start and isinstance(node.value, ast.Constant):
            found[node.targets[0].id] = node.value.value
    return found


def test_each_status_word_has_a_sentence():
    from scresist import status

    words = set(status_constants().values())
    assert words == set(status.SENTENCES), (
        f"keys.py and status.SENTENCES differ in {', '.join(sorted(words ^ set(status.SENTENCES)))}: give each word one sentence"
    )
    for word, sentence in status.SENTENCES.items():
        assert sentence.endswith((".", ")")) and sentence[0].isupper(), f"status.py: the sentence of {word} is no sentence"
        assert re.fullmatch(r"[a-z_]+", word), f"keys.py: status word {word} is not lower_snake"


@pytest.mark.parametrize("path", [*SCRIPTS, *(m for m in MODULES if m.stem != "keys")], ids=by_name)
def test_status_words_come_from_keys(path):
    names = {word: name for name, word in status_constants().items()}
    bad = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            word = node.value
            # `ok` and `warning` are words of other vocabularies too; the calls below are checked for them
            if (word in names and word not in ("ok", "warning")) or re.fullmatch(r"(skipped|failed)_[a-z]+(_[a-z]+)*", word):
                bad.append((node.lineno, word))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "StatusRow":
            given = [*node.args[3:4], *(keyword.value for keyword in node.keywords if keyword.arg == "status")]
            bad += [(node.lineno, value.value) for value in given if isinstance(value, ast.Constant)]
    lines = [
        f"line {n}: {word!r} -> {'keys.' + names[word] if word in names else 'add it to keys.py'}" for n, word in sorted(set(bad))
    ]
    assert not lines, f"{by_name(path)}: " + "; ".join(lines)


# --- pins


def pins(path: Path) -> dict[str, str]:
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", line)
        if match:
            found[re.sub(r"[-_.]+", "-", match.group(1)).lower()] = match.group(2)
    return found


REQUIREMENTS = sorted((ROOT / "containers").glob("*/requirements.txt"))


@pytest.mark.parametrize("path", REQUIREMENTS, ids=by_name)
def test_requirements(path):
    name, text = by_name(path), path.read_text(encoding="utf-8")
    mine = pins(path)
    assert mine, f"{name} holds no pin: run `make lock`"
    hosts = [
        line
        for line in text.splitlines()
        if re.search(r"https?://|^\s*(-i|-f|--index-url|--extra-index-url|--find-links)\b", line)
    ]
    assert not hosts, f"{name} names an index host ({hosts[0].strip()}): remove the line, users bring their own mirror"
    loose = [line for line in text.splitlines() if line and not line.startswith((" ", "\t", "#", "--hash")) and "==" not in line]
    assert not loose, f"{name}: not pinned: {loose[0]}; run `make lock`"
    bare = [
        block.splitlines()[0]
        for block in re.split(r"\n(?=\S)", text)
        if re.match(r"[A-Za-z0-9]", block) and "--hash=sha256:" not in block
    ]
    assert not bare, f"{name}: without hash: {bare[0]}; run `make lock`"
    if path.parent.name == "uv":
        return  # the tool that installs the others
    everything = pins(ROOT / "containers" / "all" / "requirements.txt")
    unlike = [f"{p}=={v} (all: {everything.get(p)})" for p, v in sorted(mine.items()) if everything.get(p) != v]
    assert not unlike, f"{name} departs from containers/all: {', '.join(unlike)}; run `make lock`"


@pytest.mark.parametrize("path", REQUIREMENTS, ids=by_name)
def test_requirements_answer_what_was_asked(path):
    asked = path.with_suffix(".in")
    assert asked.is_file(), f"{by_name(path)} has no {asked.name}: write what is wanted there, then `make lock`"
    wanted = {
        re.sub(r"[-_.]+", "-", match.group(1)).lower()
        for line in asked.read_text(encoding="utf-8").splitlines()
        if (match := re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)", line))
    }
    absent = sorted(wanted - set(pins(path)))
    assert not absent, f"{by_name(path)} lacks {', '.join(absent)}: run `make lock`"


def test_containers_of_the_configuration_exist():
    text = without_comments((ROOT / "conf" / "containers.config").read_text(encoding="utf-8"))
    images = set(re.findall(r"container_prefix\}/([\w-]+)", text))
    assert images, "conf/containers.config names no image"
    absent = sorted(name for name in images if not (ROOT / "containers" / name / "requirements.txt").is_file())
    assert not absent, (
        f"conf/containers.config: write containers/<name>/requirements.in and run `make lock` for {', '.join(absent)}"
    )
    processes = {path.stem.upper() for path in PROCESS_FILES}
    named = {name for group in re.findall(r"withName:\s*['\"]([A-Z_0-9|]+)", text) for name in group.split("|")}
    assert named <= processes, f"conf/containers.config: no process {', '.join(sorted(named - processes))}; remove the selector"


# --- the tree


# written in pieces, so that this file does not find itself
MACHINE_PATH = re.compile(r"/(?:home|Users)/" + r"[A-Za-z]|/ro" + r"ot/\w|/work/(?:ma" + r"in|shared)\b|[A-Z]:\\Users")
UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|X{3})\b")


def test_no_path_of_a_machine_and_nothing_unfinished():
    bad = []
    for path in repository_files():
        text = text_of(path)
        if text is None or path.name == "LICENSE":
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if MACHINE_PATH.search(line) or str(ROOT) + "/" in line:
                bad.append(f"{by_name(path)}:{number}: a path of one machine; make it relative or a parameter")
            if UNFINISHED.search(line):
                bad.append(f"{by_name(path)}:{number}: unfinished; finish it, or open an issue and remove the word")
    assert not bad, "\n".join(bad)


def test_bundled_data_have_an_origin():
    manifest = ROOT / "assets" / "MANIFEST.tsv"
    header, *lines = manifest.read_text(encoding="utf-8").splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    listed = {row["file"]: row["sha256"] for row in rows}
    assert len(listed) == len(rows), "assets/MANIFEST.tsv: a file stands twice; remove one row"
    assert list(listed) == sorted(listed), "assets/MANIFEST.tsv: sort the rows by file"
    files = {
        path.relative_to(manifest.parent).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in repository_files()
        if manifest.parent in path.parents
        and path != manifest
        and "build" not in path.relative_to(manifest.parent).parts[:-1]
        and path.suffix not in ASSETS_WITHOUT_ORIGIN
    }
    problems = [f"{name}: no row; add it with sha256 {files[name]}" for name in sorted(set(files) - set(listed))]
    problems += [f"{name}: no such file; remove the row" for name in sorted(set(listed) - set(files))]
    problems += [
        f"{name}: changed; its sha256 is now {files[name]}"
        for name in sorted(set(files) & set(listed))
        if files[name] != listed[name]
    ]
    problems += [
        f"{row['file']}: {key} is empty" for row in rows for key in ("source", "version", "licence", "date") if not row[key]
    ]
    assert not problems, "assets/MANIFEST.tsv:\n" + "\n".join(problems)


def test_top_level_stays_small():
    extra = sorted({path.relative_to(ROOT).parts[0] for path in repository_files()} - TOP_LEVEL)
    assert not extra, f"{', '.join(extra)}: move into a folder, or ignore it in .gitignore (results, caches)"


# --- scripts and package


@pytest.mark.parametrize("path", [*SCRIPTS, *MODULES], ids=by_name)
def test_docstrings(path):
    assert ast.get_docstring(tree_of(path)), f"{by_name(path)}: begin with a docstring that says what it is for"
    # what parse_args and main of a script do is the script's own docstring
    told = {"parse_args", "main"} if path in SCRIPTS else set()
    bare = [
        node.name
        for node in tree_of(path).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and node.name not in told
        and not ast.get_docstring(node)
    ]
    assert not bare, f"{by_name(path)}: say in one line what {', '.join(bare)} does"


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_script_anatomy(script):
    name, tree = by_name(script), tree_of(script)
    assert f"{script.name} " in ast.get_docstring(tree), f"{name}: the docstring lacks an example call of {script.name}"
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"parse_args", "main"} <= defined, f"{name}: define parse_args(argv=None) and main(argv=None)"
    ending = 'if __name__ == "__main__":\n    cli.run(main)\n'
    assert script.read_text(encoding="utf-8").endswith(ending), f"{name}: the last lines must be\n{ending}"


@pytest.mark.parametrize("script", SCRIPTS, ids=by_name)
def test_every_option_has_help(script, run_script, tmp_path):
    done = run_script(script.stem, "--help", cwd=tmp_path, check=False)
    assert done.returncode == 0, f"{by_name(script)} --help ends with {done.returncode}: {done.stderr}"
    # argparse prints an option without help alone on its line, and nothing but options are indented by two blanks
    options = done.stdout[re.search(r"(?m)^(options|optional arguments):", done.stdout).start() :].splitlines()[1:]
    for line, after in zip(options, [*options[1:], ""], strict=True):
        if re.match(r"  -", line):
            told = re.search(r"\S {2,}\S", line) or after.startswith(" " * 10)
            assert told, f"{by_name(script)}: {line.split()[0]} has no help; say what it is, its unit and default"


def imports(path: Path, everywhere: bool = True) -> set[str]:
    """Dotted names that a file imports; those under TYPE_CHECKING are left out."""
    names: set[str] = set()
    skip: set[ast.AST] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skip |= {child for body in node.body for child in ast.walk(body)}
    for node in ast.walk(tree_of(path)) if everywhere else tree_of(path).body:
        if node in skip:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_package_itself_imports_nothing_heavy():
    heavy = sorted(
        name
        for name in imports(PACKAGE / "__init__.py")
        if name.split(".")[0] not in sys.stdlib_module_names and not name.startswith("__future__")
    )
    assert not heavy, f"bin/scresist/__init__.py imports {', '.join(heavy)}: move it to the module that needs it"


@pytest.mark.parametrize("name", ["keys", "status", "io", "provenance", "cli"])
def test_plumbing_imports_nothing_heavy(name):
    code = f"import sys; sys.path.insert(0, {str(BIN)!r}); import scresist.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"scanpy", "anndata", "numba", "torch", "matplotlib", "sklearn"} & set(done.stdout.split())
    assert not heavy, f"importing scresist.{name} loads {', '.join(sorted(heavy))}: import it where it is used (images differ)"


@pytest.mark.parametrize("module", [m for m in MODULES if m.stem not in PLUMBING], ids=by_name)
def test_kernels_stay_pure(module):
    found = imports(module)
    bad = {name for name in found if name.split(".")[0] == "argparse"}
    for name in found:
        parts = name.split(".")
        if parts[0] != "scresist" or len(parts) < 2:
            continue
        if parts[1] in ("cli", "contract", "provenance", "status"):
            bad.add(name)
        if (parts[1] == "io" and set(parts[2:3]) - KERNEL_MAY_IMPORT_FROM_IO) or name == "scresist.io":
            bad.add(name)
    assert not bad, (
        f"{by_name(module)} is a kernel and imports {', '.join(sorted(bad))}: leave files, options and status to the script"
    )


@pytest.mark.parametrize("path", [*SCRIPTS, *MODULES], ids=by_name)
def test_nothing_imports_a_script(path):
    steps = {script.stem for script in SCRIPTS}
    bad = sorted(name for name in imports(path) if name.split(".")[0] in steps)
    assert not bad, f"{by_name(path)} imports the script {', '.join(bad)}: move what is shared to bin/scresist/"
