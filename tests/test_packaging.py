"""What is installed, what the README and the Dockerfile promise, and what a help page costs."""

from __future__ import annotations

import ast
import configparser
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

import r2reg
from r2reg.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parent.parent
INSTALLED_AS = {
    "r2reg": "r2reg",
    "cli": "r2reg.cli",
    "models": "r2reg.models",
    "data_manifests": "r2reg.data_manifests",
}
# Nothing of these may be loaded to print a help page: each costs from tenths of a second to several seconds.
SLOW_TO_LOAD = (
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "ants",
    "SimpleITK",
    "nibabel",
    "scipy",
    "matplotlib",
    "pandas",
)


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def _list(value: str) -> list[str]:
    return [line.strip() for line in value.splitlines() if line.strip()]


def _first_code_block() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split("```")[1].splitlines()[1:]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a new process, with the present environment."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, encoding="utf-8", check=False)


def test_packages_are_the_folders_with_an_init() -> None:
    folders = set()
    for folder, package in INSTALLED_AS.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            folders.add(".".join((package, *init.parent.relative_to(ROOT / folder).parts)))
    assert set(_list(_setup()["options"]["packages"])) == folders


def test_every_folder_of_modules_has_an_init() -> None:
    folders = {p.parent for name in INSTALLED_AS for p in (ROOT / name).rglob("*.py")}
    assert [str(f) for f in folders if not (f / "__init__.py").exists()] == []


def test_cli_and_models_install_inside_the_package() -> None:
    pairs = dict(line.split(" = ") for line in _list(_setup()["options"]["package_dir"]))
    assert pairs == {package: folder for folder, package in INSTALLED_AS.items()}


def test_model_files_and_type_marker_are_package_data() -> None:
    data = _setup()["options.package_data"]
    assert set(_list(data["r2reg.models"])) == {"**/*.json", "**/*.md", "**/*.weights.h5", "SHA256SUMS"}
    assert data["r2reg"] == "py.typed"
    assert (ROOT / "r2reg" / "py.typed").exists()


def test_one_version_everywhere() -> None:
    assert _setup()["metadata"]["version"] == "attr: r2reg.__version__"
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", citation, flags=re.M) == [r2reg.__version__]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (\S+)", changes, flags=re.M)[0] == r2reg.__version__


def test_python_versions_agree() -> None:
    setup = _setup()
    assert setup["options"]["python_requires"] == ">=3.11,<3.14"
    named = re.findall(r"Python :: (3\.\d+)$", setup["metadata"]["classifiers"], flags=re.M)
    assert named == ["3.11", "3.12", "3.13"]
    with (ROOT / "pyproject.toml").open("rb") as file:
        assert tomllib.load(file)["tool"]["ruff"]["target-version"] == "py311"


def test_every_dependency_has_a_lower_bound_and_a_reason() -> None:
    setup = _setup()
    lines = _list(setup["options"]["install_requires"])
    lines += [line for extra in setup["options.extras_require"].values() for line in _list(extra)]
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for line in (line for line in lines if not line.startswith("%")):
        match = re.fullmatch(r"([\w\[\]-]+)>=[\d.]+", line)
        assert match, f"{line}: needs a lower bound and nothing else"
        assert match[1] in guide, f"{line}: say in CONTRIBUTING.md why it is needed"
    for line in _list(setup["options"]["install_requires"]):
        assert f"| {line.replace('>=', ' >= ')} |" in guide


def test_imported_packages_are_declared() -> None:
    """A package that only some dependency brings along may go with its next release."""
    declared = {re.split(r"[>\[]", line)[0].lower() for line in _list(_setup()["options"]["install_requires"])}
    imported_as = (("antspyx", "ants"), ("pillow", "pil"), ("scikit-learn", "sklearn"))
    declared |= {name for package, name in imported_as if package in declared}
    optional = {"jax", "torch", "distributed", "dask_jobqueue"}  # the extras `backends` and `cluster`
    imported = set()
    for path in (p for folder in INSTALLED_AS for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    foreign = {n.lower() for n in imported - set(sys.stdlib_module_names)}
    assert foreign - declared - optional - {"r2reg"} == set()


def test_readme_starts_with_the_two_lines() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert readme[0] == "# r2reg"
    assert readme[2].startswith("```")
    job, tests = _first_code_block()
    set_up = "python3 -m venv .venv && . .venv/bin/activate && pip install "
    assert job == f"{set_up}. && r2reg demo -o demo"
    assert tests == f'{set_up}-e ".[test]" && pytest'


def test_links_in_the_documents_lead_somewhere() -> None:
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "data_manifests").rglob("*.md"),
    ):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_readme_commands_are_what_the_command_line_takes() -> None:
    """Every option that the README gives to a command is in that command's help."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    calls = [
        found
        for block in readme.split("```sh")[1:]
        for found in re.findall(r"\br2reg ([a-z-]+) (.*)", block.split("```")[0])
    ]
    calls = [(command, rest) for command, rest in calls if command in COMMANDS]
    assert {command for command, _ in calls} == set(COMMANDS)
    for command, rest in calls:
        words = [command, rest.split()[0]] if command == "data" else [command]
        help_text = CliRunner().invoke(main, [*words, "--help"]).output
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest):
            assert re.search(rf"(?<!\S){option}\b", help_text), f"r2reg {command} has no {option}"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert re.search(rf"^\s*(Examples?: |\$ )?r2reg {command} ", result.output, flags=re.M), result.output


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], *([c, "--help"] for c in COMMANDS)])
def test_help_loads_nothing_slow(arguments: list[str]) -> None:
    code = (
        "import json, sys\n"
        "from r2reg.cli.main import main\n"
        "try:\n    main(json.loads(sys.argv[1]))\n"
        "except SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print('LOADED', json.dumps(sorted({name.split('.')[0] for name in sys.modules})))\n"
    )
    process = _run("-c", code, json.dumps(arguments))
    assert process.returncode == 0, process.stderr
    loaded = json.loads(process.stdout.rsplit("LOADED", 1)[1])
    assert set(loaded) & set(SLOW_TO_LOAD) == set()


def test_runs_as_a_module() -> None:
    process = _run("-m", "r2reg.cli", "--version")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip().endswith(r2reg.__version__)


def test_wrong_usage_exits_with_2() -> None:
    assert CliRunner().invoke(main, ["no-such-command"]).exit_code == 2
    assert CliRunner().invoke(main, ["register", "--no-such-option"]).exit_code == 2


def _dockerfile_steps() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dockerfile_steps", ROOT / ".ci" / "dockerfile_steps.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _dockerfile() -> list[tuple[str, str]]:
    steps: list[tuple[str, str]] = _dockerfile_steps().instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    return steps


def test_dockerfile_installs_for_cpu_and_gpu_by_argument() -> None:
    steps = _dockerfile()
    assert steps[0] == ("FROM", "python:3.11-slim")
    assert ("ARG", 'EXTRA=""') in steps
    (install,) = [arguments for name, arguments in steps if name == "RUN"]
    for extra, expected in (("", "."), ("gpu", ".[gpu]")):
        shown = subprocess.run(
            ["/bin/sh", "-c", install.replace("python -m pip install", "echo")],
            env={"EXTRA": extra},
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert shown.stdout.strip() == expected
    assert "gpu" in _setup()["options.extras_require"]


def test_dockerfile_starts_the_command_as_an_ordinary_user() -> None:
    steps = dict(_dockerfile())
    assert json.loads(steps["ENTRYPOINT"]) == ["r2reg"]
    assert json.loads(steps["CMD"]) == ["--help"]
    assert int(steps["USER"].split(":")[0]) > 0


def test_dockerfile_copies_what_the_build_needs_and_the_context_holds() -> None:
    sources = [source for name, rest in _dockerfile() if name == "COPY" for source in rest.split()[:-1]]
    assert {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", *INSTALLED_AS} <= set(sources)
    ignored = _list((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    for source in sources:
        assert (ROOT / source).exists()
        assert source not in ignored


def test_ci_is_executable() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    checked = subprocess.run(
        ["bash", "-n", str(ROOT / ".ci" / "run")], capture_output=True, encoding="utf-8", check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert text.rstrip().endswith("limitations under the License.")
    assert "END OF TERMS AND CONDITIONS" in text
