"""The files that dcgm-exporter reads, in a real folder: what is believed, and what a second look costs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.collectors import gpu_map
from wattribute.collectors.gpu_map import FILE_BYTES, FILES, GpuMap


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "job-mapping"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def gpus(folder: Path) -> Iterator[GpuMap]:
    made = GpuMap(str(folder))
    yield made
    made.close()
    made.close()


def write(folder: Path, name: str, content: str | bytes, mode: int = 0o644) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def test_a_file_per_gpu_holds_a_job_a_line(folder: Path, gpus: GpuMap) -> None:
    write(folder, "0", "5\n")
    write(folder, "1", "job1\n  job2\r\n\njob1\njob3")
    write(folder, "2.0", "42\n")
    write(folder, "3", "")
    assert gpus.read() == {"0": ("5",), "1": ("job1", "job2", "job3"), "2.0": ("42",), "3": ()}
    assert gpus.refused == 0


def test_other_names_are_not_gpus(folder: Path, gpus: GpuMap) -> None:
    for name in ("GPU-1", "0.1.2", ".0", "1.", "-1", "0~", "٣", "00000"):
        write(folder, name, "5\n")
    assert gpus.read() == {} and gpus.refused == 0


def test_invalid_ids_are_left_out_and_counted(folder: Path, gpus: GpuMap) -> None:
    write(folder, "0", b"good\n_own\n" + b"x" * 129 + b"\na\x07b\n\xff\n" + b"y" * 128 + b"\n")
    assert gpus.read() == {"0": ("good", "y" * 128)}
    assert gpus.refused == 4
    write(folder, "0", "good\n")
    gpus.read()
    assert gpus.refused == 0


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_may_write_is_not_believed(folder: Path, gpus: GpuMap, mode: int) -> None:
    path = write(folder, "0", "5\n", mode)
    assert gpus.read() == {"0": ()} and gpus.refused == 1
    path.chmod(0o644)
    assert gpus.read() == {"0": ("5",)} and gpus.refused == 0
    gpus.read()
    path.chmod(mode)
    assert gpus.read() == {"0": ()}, "what was believed once is believed for ever"


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives files away")
def test_a_file_of_another_owner_is_not_believed(folder: Path, gpus: GpuMap) -> None:
    path = write(folder, "0", "5\n")
    os.chown(path, 65534, 65534)
    assert gpus.read() == {"0": ()} and gpus.refused == 1
    os.chown(folder, 65534, 65534)
    assert gpus.read() == {"0": ("5",)}
    os.chown(path, 0, 0)
    assert gpus.read() == {"0": ("5",)}


def test_links_pipes_folders_and_large_files_are_not_read(folder: Path, gpus: GpuMap, tmp_path: Path) -> None:
    (folder / "0").symlink_to(write(tmp_path, "elsewhere", "5\n"))
    os.mkfifo(folder / "1", 0o644)
    (folder / "2").mkdir()
    write(folder, "3", "7\n" * (FILE_BYTES // 2))
    write(folder, "4", "7\n" * (FILE_BYTES // 2) + "8")
    assert gpus.read() == {"0": (), "1": (), "2": (), "3": ("7",), "4": ()}
    assert gpus.refused == 4


def test_too_many_files_are_counted(folder: Path, gpus: GpuMap) -> None:
    for number in range(FILES + 3):
        write(folder, str(number), "5\n")
    assert len(gpus.read()) == FILES and gpus.refused == 3


def test_what_changes_is_read_again_and_what_does_not_is_not(
    folder: Path, gpus: GpuMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[int] = []

    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        reads.append(fd)
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    path = write(folder, "0", "5\n")
    write(folder, "1", "6\n")
    for _ in range(10):
        assert gpus.read() == {"0": ("5",), "1": ("6",)}
    assert len(reads) == 4, "each is read twice: a change within the clock's tick shows at the second"
    path.write_text("55\n")
    assert gpus.read() == {"0": ("55",), "1": ("6",)}
    anew = write(folder, "0.new", "56\n")
    anew.rename(path)
    assert gpus.read() == {"0": ("56",), "1": ("6",)}
    path.unlink()
    assert gpus.read() == {"1": ("6",)}


def test_a_change_that_leaves_no_trace_in_time_and_size_is_seen(
    folder: Path, gpus: GpuMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_map, "_looks", lambda status: (status.st_ino, 0, status.st_size))
    path = write(folder, "0", "41\n")
    assert gpus.read() == {"0": ("41",)}
    path.write_text("42\n")
    assert gpus.read() == {"0": ("42",)}


def test_a_folder_made_anew_is_opened_again(folder: Path, gpus: GpuMap, tmp_path: Path) -> None:
    write(folder, "0", "5\n")
    gpus.read()
    folder.rename(tmp_path / "old")
    with pytest.raises(SensorUnavailable, match="No such file") as caught:
        gpus.read()
    assert caught.value.absent and caught.value.fix == f"sudo mkdir -p {folder}"
    folder.mkdir(mode=0o755)
    write(folder, "0", "6\n")
    assert gpus.read() == {"0": ("6",)}


def test_a_folder_that_anybody_may_change_or_that_is_none_says_how_to_fix_it(folder: Path, tmp_path: Path) -> None:
    gpus = GpuMap(str(folder))
    folder.chmod(0o777)
    with pytest.raises(SensorUnavailable) as caught:
        gpus.read()
    assert caught.value.fix == f"sudo chmod o-w {folder}"
    folder.chmod(0o1777)
    assert gpus.read() == {}
    gpus.close()
    with pytest.raises(SensorUnavailable, match="Not a directory"):
        GpuMap(str(write(tmp_path, "file", ""))).read()


def test_no_descriptor_is_left_open(folder: Path) -> None:
    write(folder, "0", "5\n")
    write(folder, "1", "5\n", 0o666)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    gpus = GpuMap(str(folder))
    for _ in range(3):
        gpus.read()
    gpus.close()
    assert (len(os.listdir("/proc/self/fd")) if before else 0) == before
