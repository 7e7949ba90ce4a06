"""What is shipped: the wheel, built through the sdist, holds the sources and nothing else, and runs elsewhere."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.tools import require

ROOT = Path(__file__).resolve().parents[1]
LINKS = {"src/wattribute/agent", "src/wattribute/collectors", "src/wattribute/exporters"}
MOVED = {"agent/": "wattribute/agent/", "collectors/": "wattribute/collectors/", "exporters/": "wattribute/exporters/"}


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def listed() -> set[str]:
    """Every file of the working tree that git doesn't ignore, and that is there."""
    names = run(require("git"), "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
    return {name for name in names if name and os.path.lexists(ROOT / name)}


@pytest.fixture(scope="module")
def built(listed: set[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(sdist, wheel) of a copy, so that nothing that lies about in the working tree can slip in."""
    copy = tmp_path_factory.mktemp("copy")
    for name in listed:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), cwd=copy)
    return next(out.glob("*.tar.gz")), next(out.glob("*.whl"))


def test_the_sdist_holds_every_source_file_once(listed: set[str], built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names - {"PKG-INFO", ".gitignore"} == listed - LINKS - {".gitignore"}


def test_the_wheel_holds_the_package_and_nothing_else(listed: set[str], built: tuple[Path, Path]) -> None:
    expected = set()
    for name in listed - LINKS:
        if name.startswith("src/"):
            expected.add(name.removeprefix("src/"))
        for folder, place in MOVED.items():
            if name.startswith(folder):
                expected.add(place + name.removeprefix(folder))
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
    assert len(set(names)) == len(names)
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_runs_beside_a_foreign_agent_module(built: tuple[Path, Path], tmp_path: Path) -> None:
    target = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check"]
    run(*pip, "--target", str(target), str(built[1]), cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("agent", "collectors", "exporters"):
        (elsewhere / f"{name}.py").write_text("raise RuntimeError('the user\\'s own module')\n")
    env = {**os.environ, "PYTHONPATH": str(target)}
    where = run(sys.executable, "-c", "import wattribute; print(wattribute.__file__)", cwd=elsewhere, env=env)
    assert where.strip() == str(target / "wattribute" / "__init__.py")
    assert run(sys.executable, "-m", "wattribute", "--version", cwd=elsewhere, env=env).startswith("wattribute ")
    # What the source tree has as links is there as files.
    run(sys.executable, "-m", "wattribute", "dashboards", "export", "boards", cwd=elsewhere, env=env)
    boards = {path.name: path.read_bytes() for path in (elsewhere / "boards").iterdir()}
    assert boards == {path.name: path.read_bytes() for path in (ROOT / "deploy" / "grafana").glob("*.json")}
