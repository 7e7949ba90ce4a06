"""Containers in recorded trees, named by recorded answers over a real Unix socket."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer

import pytest
from tests.doubles.listed_tree import FIXTURES, ListedTree

from wattribute.agent.core.found import FoundJob, Reservation
from wattribute.agent.core.search import WALK_EVERY
from wattribute.agent.identity import fit
from wattribute.collectors.containers import ContainerJobs, engine
from wattribute.collectors.containers.source import PATIENCE

WEB = "8dfafdbc3a40" + "a" * 52
TRAINER = "9cd87474be90" + "b" * 52
TEST = "0411a2a82311" + "f" * 52
NGINX = "9687bac58d5c" + "e" * 52
IN_POD = "4cb07b47f9fb" + "d" * 52
POD = "7d5ff79f2fbd" + "4" * 52
NERDCTL = "3f2a9c1b04de" + "1" * 52
ROOTLESS = "56fd3fe36f82" + "3" * 52
USERS = "/user.slice/user-{0}.slice/user@{0}.service"


class Engine(ThreadingUnixStreamServer):
    """Answers GET /containers/json as it is told to, and counts."""

    def __init__(self, path: str, answer: bytes) -> None:
        self.answer = answer
        self.status = 200
        self.asked: list[str] = []
        super().__init__(path, Answering)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def path(self) -> str:
        return str(self.server_address)


class Answering(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Engine)
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self.server.answer)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[[str], Engine]]:
    engines: list[Engine] = []
    with tempfile.TemporaryDirectory(prefix="wattribute-") as folder:

        def start(recorded: str) -> Engine:
            answer = (FIXTURES / "engines" / recorded).read_bytes() if recorded.endswith(".json") else recorded.encode()
            engines.append(Engine(f"{folder}/{len(engines)}.sock", answer))
            return engines[-1]

        yield start
        for one in engines:
            one.shutdown()
            one.server_close()


def look(source: ContainerJobs, calls: int = 1) -> dict[str, FoundJob]:
    found = [source.jobs() for _ in range(calls)][-1]
    return {job.group.path: job for job in found}


def ids(jobs: dict[str, FoundJob]) -> dict[str, str]:
    return {path: job.job_id for path, job in jobs.items()}


def test_all_layouts_of_systemd_are_found_and_named(serve: Callable[[str], Engine]) -> None:
    source = ContainerJobs(
        ListedTree("containers.txt"), (serve("docker.json").path, serve("podman.json").path), fit=fit
    )
    jobs = look(source)
    assert ids(jobs) == {
        f"/system.slice/docker-{WEB}.scope": "boring_feynman",
        f"/system.slice/docker-{TRAINER}.scope": "bert-ft-7",
        f"/system.slice/nerdctl-{NERDCTL}.scope": "containerd-3f2a9c1b04de",
        f"/system.slice/nginx.service/libpod-payload-{NGINX}": "systemd-nginx",
        f"/machine.slice/libpod-{TEST}.scope": "test",
        f"/machine.slice/machine-libpod_pod_{POD}.slice/libpod-{IN_POD}.scope": "in-a-pod",
        f"{USERS.format(1000)}/user.slice/libpod-{ROOTLESS}.scope": "podman-1000-56fd3fe36f82",
        f"{USERS.format(1000)}/user.slice/libpod-{WEB}.scope": "podman-1000-8dfafdbc3a40",
        f"{USERS.format(1001)}/app.slice/caddy.service/libpod-payload-{ROOTLESS}": "podman-1001-56fd3fe36f82",
    }
    assert {job.uid for job in jobs.values()} == {0, 1000, 1001}
    assert jobs[f"/system.slice/nginx.service/libpod-payload-{NGINX}"].unit == "nginx.service"
    assert jobs[f"/system.slice/docker-{WEB}.scope"].labels["com.docker.compose.service"] == "web"
    # A user's cgroup with the id of the system's container gets nothing of its.
    assert jobs[f"{USERS.format(1000)}/user.slice/libpod-{WEB}.scope"].labels == {}


def test_all_layouts_without_systemd_are_found(serve: Callable[[str], Engine]) -> None:
    tree = ListedTree("containers_cgroupfs.txt")
    source = ContainerJobs(tree, (serve("docker.json").path, serve("podman.json").path), fit=fit)
    assert ids(look(source)) == {
        f"/docker/{WEB}": "boring_feynman",
        f"/libpod_parent/libpod-{TEST}": "test",
        f"/libpod_parent/{POD}/libpod-{IN_POD}": "in-a-pod",
        "/default/redis": "containerd-redis",
        f"/build/{NERDCTL}": "containerd-3f2a9c1b04de",
    }


@pytest.mark.parametrize("below", ["", "/init"])
def test_the_agents_own_container_is_no_job(serve: Callable[[str], Engine], below: str) -> None:
    own = f"/docker/{WEB}"
    tree = ListedTree("containers_cgroupfs.txt")
    engines = (serve("docker.json").path, serve("podman.json").path)
    source = ContainerJobs(tree, engines, fit=fit, own_group=own + below)
    assert own not in look(source)
    assert len(look(source)) == 4


def test_labels_say_what_it_is(serve: Callable[[str], Engine]) -> None:
    tree = ListedTree("containers.txt")
    path = f"/system.slice/docker-{TRAINER}.scope"
    tree.reservations[path] = Reservation(4000, 2**30)
    job = look(ContainerJobs(tree, (serve("docker.json").path,), fit=fit))[path]
    assert (job.product_id, job.phase, job.uses) == ("bert-base", "training", ("k8s-prod", "store"))
    assert (job.origin, job.role, job.reserved, job.unit) == (
        "cgroup",
        "use",
        Reservation(4000, 2**30),
        f"docker-{TRAINER}.scope",
    )


def test_without_an_engine_the_id_is_all_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "dead.sock").touch()
    sockets = (str(tmp_path / "none.sock"), str(tmp_path / "dead.sock"))
    tree = ListedTree("containers.txt")
    found = ids(look(ContainerJobs(tree, sockets, fit=fit)))
    assert found[f"/system.slice/docker-{WEB}.scope"] == "docker-8dfafdbc3a40"
    assert found[f"/machine.slice/libpod-{TEST}.scope"] == "podman-0411a2a82311"


@pytest.mark.parametrize(
    ("answer", "status"),
    [("docker.json", 500), ("{}", 200), ("[{", 200), ("", 200), ('[{"Id": 1}, 2, {"Names": ["/a"]}]', 200)],
)
def test_an_engine_that_gives_no_answer_is_waited_for(serve: Callable[[str], Engine], answer: str, status: int) -> None:
    docker = serve(answer)
    docker.status = status
    tree = ListedTree()
    tree.add(f"/docker/{WEB}")
    source = ContainerJobs(tree, (docker.path,), fit=fit)
    assert look(source, PATIENCE) == {}
    assert ids(look(source)) == {f"/docker/{WEB}": "docker-8dfafdbc3a40"}
    docker.status, docker.answer = 200, (FIXTURES / "engines" / "docker.json").read_bytes()
    assert ids(look(source)) == {f"/docker/{WEB}": "docker-8dfafdbc3a40"}, "a job's id changed"
    assert len(docker.asked) == PATIENCE + 1


def test_an_engine_that_tells_in_time_names_it(serve: Callable[[str], Engine]) -> None:
    docker = serve("[]")
    tree = ListedTree()
    tree.add(f"/docker/{WEB}")
    source = ContainerJobs(tree, (docker.path,), fit=fit)
    assert look(source, PATIENCE) == {}
    docker.answer = (FIXTURES / "engines" / "docker.json").read_bytes()
    assert ids(look(source)) == {f"/docker/{WEB}": "boring_feynman"}


def test_an_engine_that_hangs_or_breaks_off_ends_in_an_error(
    serve: Callable[[str], Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr(engine, "TIMEOUT_S", 0.05)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = f"{folder}/deaf.sock"
        listener.bind(path)
        listener.listen()
        with pytest.raises(OSError, match="timed out"):
            engine.containers(path)
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        with pytest.raises((OSError, ValueError)):
            engine.containers(path)
    monkeypatch.setattr(engine, "ANSWER_BYTES", 100)
    with pytest.raises(ValueError, match="101 bytes"):
        engine.containers(serve("docker.json").path)


def test_the_engine_is_asked_for_new_containers_alone(serve: Callable[[str], Engine]) -> None:
    docker = serve("docker.json")
    tree = ListedTree()
    tree.add("/docker")
    source = ContainerJobs(tree, (docker.path,), fit=fit)
    assert look(source) == {} and docker.asked == []
    tree.add(f"/docker/{WEB}")
    assert len(look(source, 2 * WALK_EVERY)) == 1
    assert docker.asked == ["/containers/json"]
    tree.add(f"{USERS.format(1000)}/user.slice/libpod-{ROOTLESS}.scope")
    assert len(look(source, WALK_EVERY)) == 2
    assert len(docker.asked) == 1, "the system's engine was asked for a user's container"


def test_a_container_made_anew_under_its_name_is_the_same_job(serve: Callable[[str], Engine]) -> None:
    docker = serve("docker.json")
    tree = ListedTree()
    tree.add(f"/docker/{WEB}")
    source = ContainerJobs(tree, (docker.path,), fit=fit)
    (before,) = look(source).values()
    tree.remove(f"/docker/{WEB}")
    assert look(source) == {}
    anew = "0" * 64
    docker.answer = docker.answer.replace(WEB.encode(), anew.encode())
    tree.add(f"/docker/{anew}")
    (after,) = look(source).values()
    assert after.job_id == before.job_id == "boring_feynman"
    assert after.group != before.group
    source.close()
    source.close()


def test_an_engine_that_may_not_be_asked_is_none(serve: Callable[[str], Engine]) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may ask everybody")
    docker = serve("docker.json")
    os.chmod(docker.path, 0)
    with pytest.raises(engine.NoEngine):
        engine.containers(docker.path)
