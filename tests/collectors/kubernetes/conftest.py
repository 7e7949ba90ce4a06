"""A kubelet's HTTPS port on this machine, with a certificate as a kubelet makes itself one. Cgroups are Linux's."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.collectors.kubernetes.server import NODE, Certificate, Server
from tests.tools import require

collect_ignore_glob = [] if sys.platform == "linux" else ["test_*"]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("kubelet"))


@pytest.fixture(scope="session")
def other_certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("other"))


def make_certificate(folder: Path) -> Certificate:
    made = Certificate(folder / "kubelet.crt", folder / "kubelet.key")
    command = [
        require("openssl"),
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-days", "2", "-subj", f"/CN={NODE}@1772442847", "-addext", f"subjectAltName=DNS:{NODE}"]
    subprocess.run([*command, "-out", made.file, "-keyout", made.key], check=True, capture_output=True)
    return made


@pytest.fixture
def server(certificate: Certificate) -> Iterator[Server]:
    with Server(certificate) as server:
        yield server


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("first\n")
    return path
