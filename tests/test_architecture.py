"""The house rules that can be read off the source: who imports whom, what is loaded when, what is banned."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# In the order of the data's way; a room imports from rooms before it. `__init__` is r2reg itself.
ROOMS = (
    "__init__",
    "errors",
    "settings",
    "config",
    "threads",
    "startup",
    "geometry",
    "phantom",
    "io",
    "released",
    "resampling",
    "flow",
    "startup",
    "losses",
    "networks",
    "zoo",
    "preprocessing",
    "metrics",
    "training",
    "report",
    "registration",
    "datasets",
    "evaluation",
    "studies",
    "models",
    "data_manifests",
    "cli",
)
FLOOR = {name: floor for floor, name in enumerate(ROOMS)}
KERAS_ROOMS = {"flow", "losses", "networks", "training", "registration"}  # commands load them when they run
HEAVY = {"keras", "ants", "matplotlib", "SimpleITK", "nibabel", "tensorboard", "pandas", "statsmodels", "distributed"}
BACKENDS = {"tensorflow", "jax", "torch"}
BACKEND_MODULE = "r2reg.flow.backend"
UNSAFE = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal"}


def _modules() -> dict[str, Path]:
    """Dotted name, as installed, of every module of the package."""
    found = {}
    for folder, package in (
        (ROOT / "r2reg", "r2reg"),
        (ROOT / "cli", "r2reg.cli"),
        (ROOT / "models", "r2reg.models"),
        (ROOT / "data_manifests", "r2reg.data_manifests"),
    ):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            found[".".join((package, *parts))] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def _room(module: str) -> str:
    """Second part of a dotted name: `geometry` of r2reg.geometry.grid; `__init__` of r2reg itself."""
    return module.split(".")[1] if "." in module else "__init__"


def _imports(node: ast.AST, module: str) -> list[str]:
    """Dotted names that one statement imports; `from r2reg import x` is r2reg.x where x is a room."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    assert node.level == 0, f"{module}: line {node.lineno}: import by the full name, not relatively"
    source = node.module or ""
    if source == "r2reg":
        return [f"r2reg.{a.name}" if a.name in FLOOR else "r2reg" for a in node.names]
    return [source]


def _at_load(node: ast.AST) -> Iterator[ast.AST]:
    """Statements that run when the module is imported: not function bodies, not `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _at_load(child)


def _all_imports(module: str) -> set[str]:
    return {name for node in ast.walk(TREES[module]) for name in _imports(node, module)}


def _load_imports(module: str) -> set[str]:
    return {name for node in _at_load(TREES[module]) for name in _imports(node, module)}


@pytest.mark.parametrize("module", MODULES)
def test_a_room_imports_only_from_rooms_before_it(module: str) -> None:
    room = _room(module)
    assert room in FLOOR, f"{module}: give r2reg/{room} its place in ROOMS"
    for name in _all_imports(module):
        if name.split(".")[0] != "r2reg" or _room(name) == room:
            continue
        assert FLOOR[_room(name)] < FLOOR[room], f"{module} imports {name}, a room that comes after it"


def test_nothing_in_the_library_imports_the_command_line() -> None:
    library = [m for m in MODULES if _room(m) != "cli"]
    assert [m for m in library if any(n.startswith("r2reg.cli") for n in _all_imports(m))] == []


@pytest.mark.parametrize("module", MODULES)
def test_heavy_imports_stand_inside_functions(module: str) -> None:
    allowed = {"keras"} if _room(module) in KERAS_ROOMS else set()
    loaded = {name.split(".")[0] for name in _load_imports(module)}
    assert loaded & (HEAVY | BACKENDS) <= allowed


@pytest.mark.parametrize("command", ["apply", "points", "invert", "compose", "convert", "jacobian", "models"])
def test_commands_without_a_network_reach_no_backend(command: str) -> None:
    """Over every import, inside functions too: they start in a fraction of a second."""
    reached, ahead = set(), {"r2reg", "r2reg.cli", f"r2reg.cli.{command}"}
    while ahead:
        module = ahead.pop()
        reached.add(module)
        names = _all_imports(module if module in TREES else f"{module}.__init__")
        packages = {n.rpartition(".")[0] for n in names if n.startswith("r2reg.")}
        ahead |= {n for n in names | packages if n.split(".")[0] == "r2reg"} - reached
        assert {n.split(".")[0] for n in names} & (BACKENDS | {"keras"}) == set(), module


@pytest.mark.parametrize("module", [m for m in MODULES if m != BACKEND_MODULE])
def test_only_the_backend_module_names_a_backend(module: str) -> None:
    assert {name.split(".")[0] for name in _all_imports(module)} & BACKENDS == set()


@pytest.mark.parametrize("module", MODULES)
def test_no_pickle_no_shell_no_evaluated_text(module: str) -> None:
    assert {name.split(".")[0] for name in _all_imports(module)} & UNSAFE == set()
    for call in (node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)):
        where = f"{module}: line {call.lineno}"
        function = ast.unparse(call.func)
        assert function not in ("eval", "exec", "os.system", "os.popen"), where
        settings = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert settings.get("shell", "False") == "False", where
        assert settings.get("allow_pickle", "False") == "False", where
        assert settings.get("safe_mode", "True") == "True", where  # Keras: False would run code from a file


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module: str) -> None:
    tree = TREES[module]
    if not module.endswith("__main__"):
        assert ast.get_docstring(tree), f"{module}: no docstring"
    defined = (n for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef))
    bare = [n.name for n in defined if not n.name.startswith("_") and not ast.get_docstring(n)]
    assert bare == [], module


def test_tests_do_not_pose_as_a_package() -> None:
    """A tests/__init__.py would make the tests importable from one another."""
    assert list((ROOT / "tests").rglob("__init__.py")) == []
