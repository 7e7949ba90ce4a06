"""Who may import whom, read from the syntax tree; and what an import brings along, seen from a fresh interpreter."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "agent": "wattribute.agent",
    "collectors": "wattribute.collectors",
    "exporters": "wattribute.exporters",
    "src/wattribute": "wattribute",
}
IMPURE = {"os", "io", "time", "socket", "subprocess", "threading", "logging", "pathlib", "random"}
HEAVY = {"codecarbon", "matplotlib", "numpy", "pyRAPL", "sqlalchemy"}
WIRING = tuple(
    f"wattribute.agent.{name}"
    for name in ("daemon", "cli", "codecarbon", "meter", "middleware", "new_job", "session", "track")
)
PUBLIC = {"wattribute", *(f"wattribute.{name}" for name in ("__main__", "asgi", "codecarbon", "grpc", "wsgi"))}
# Third-party packages that are the grammar of a whole folder rather than one file's tool; msgspec reads answers too.
FOLDER_WIDE = {
    "click": ("wattribute.agent.cli",),
    "msgspec": ("wattribute.agent", "wattribute.collectors.grid.shapes"),
}


class Import(NamedTuple):
    """`module` imports `name`, at module level or inside a function."""

    module: str
    name: str
    top_level: bool

    @property
    def package(self) -> str:
        return self.name.partition(".")[0]


def sources() -> Iterator[tuple[str, Path]]:
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if folder == "src/wattribute" and parts[0] in FOLDERS:
                continue  # the links of the development tree
            yield ".".join([package, *(part for part in parts if part != "__init__")]), path


def imports_of(module: str, source: str) -> Iterator[Import]:
    def visit(node: ast.AST, top_level: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(module, alias.name, top_level) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                # `from package import thing` may name a module: both are judged.
                yield from (Import(module, f"{child.module}.{alias.name}", top_level) for alias in child.names)
            elif not _is_type_checking(child):
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from visit(child, top_level and not inside)

    yield from visit(ast.parse(source), True)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.fixture(scope="module")
def imports() -> list[Import]:
    return [found for module, path in sources() for found in imports_of(module, path.read_text())]


def test_the_reader_sees_every_form_of_import() -> None:
    source = "import a.b\nfrom c import d\nif 1:\n    import e\ndef f():\n    import g\nclass H:\n    import i\n"
    found = {(one.name, one.top_level) for one in imports_of("m", source)}
    assert found == {("a.b", True), ("c.d", True), ("e", True), ("g", False), ("i", True)}


def test_core_imports_only_pure_stdlib_numpy_and_itself(imports: list[Import]) -> None:
    wrong = [
        one
        for one in imports
        if is_in(one.module, "wattribute.agent.core")
        and not is_in(one.name, "wattribute.agent.core")
        and one.package != "numpy"
        and (one.package not in sys.stdlib_module_names or one.package in IMPURE)
    ]
    assert wrong == []


@pytest.mark.parametrize("folder", ["wattribute.collectors", "wattribute.exporters"])
def test_collectors_and_exporters_know_the_core_alone(folder: str, imports: list[Import]) -> None:
    wrong = [
        one
        for one in imports
        if is_in(one.module, folder)
        and is_in(one.name, "wattribute")
        and not is_in(one.name, "wattribute.agent.core")
        and not _is_own_room(one, folder)
    ]
    assert wrong == []


def _is_own_room(one: Import, folder: str) -> bool:
    """A collector may have several files in a package of its own; exporters share the one table of metric names."""
    if folder == "wattribute.exporters":
        return is_in(one.name, folder)
    room = ".".join(one.module.split(".")[:3])
    return is_in(one.name, room)


def test_collectors_use_one_third_party_package_at_most(imports: list[Import]) -> None:
    used = defaultdict(set)
    for one in imports:
        if one.module.startswith(("wattribute.collectors.", "wattribute.exporters.")) and _is_third_party(one):
            used[one.module].add(one.package)
    assert {module: packages for module, packages in used.items() if len(packages) > 1} == {}


def _is_third_party(one: Import) -> bool:
    return one.package not in sys.stdlib_module_names and one.package != "wattribute"


def test_a_third_party_package_is_imported_in_one_file(imports: list[Import]) -> None:
    used = defaultdict(set)
    for one in imports:
        if _is_third_party(one) and not any(is_in(one.module, room) for room in FOLDER_WIDE.get(one.package, ())):
            used[one.package].add(one.module)
    assert {package: modules for package, modules in used.items() if len(modules) > 1} == {}
    assert not used.keys() & FOLDER_WIDE.keys()


def test_heavy_packages_are_imported_inside_functions(imports: list[Import]) -> None:
    assert [one for one in imports if one.package in HEAVY and one.top_level] == []


def test_what_wires_is_imported_by_nobody_else(imports: list[Import]) -> None:
    wrong = [
        one
        for one in imports
        if any(is_in(one.name, part) for part in WIRING)
        and not any(is_in(one.module, part) for part in WIRING)
        and one.module not in PUBLIC
    ]
    assert wrong == []


def _loaded_by(statement: str) -> tuple[set[str], int]:
    """The top-level packages that a statement loads in a fresh interpreter, and how many threads run then."""
    program = (
        f"import sys; before = set(sys.modules); {statement}; import threading; "
        "print(threading.active_count(), *{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    threads, *packages = out.stdout.split()
    return set(packages), int(threads)


def test_import_wattribute_is_light_and_starts_nothing() -> None:
    packages, threads = _loaded_by("import wattribute")
    assert packages & {"numpy", "psutil", "pynvml", "msgspec", "click", "prometheus_client", "codecarbon"} == set()
    assert threads == 1


def test_the_daemon_loads_neither_numpy_nor_prometheus_client() -> None:
    packages, threads = _loaded_by("import wattribute.agent.daemon")
    assert packages & {"numpy", "prometheus_client", "codecarbon", "pandas", "pyRAPL"} == set()
    assert packages & {"ssl", "_ssl", "yaml", "bcrypt"} == set(), "the web file's, without one"
    assert threads == 1


def test_a_command_loads_no_other_command() -> None:
    packages, _ = _loaded_by("import wattribute.agent.cli")
    assert packages & {"msgspec", "psutil", "pynvml", "sqlite3"} == set()
