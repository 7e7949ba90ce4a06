"""Power of the whole node by its BMC over IPMI: DCMI's "Get Power Reading", asked through the kernel's own driver.

The device stays open, so that an agent that gave root up goes on asking, and no process is started. Watts, integrated.
Sources: DCMI 1.5, 6.6.1; Linux include/uapi/linux/ipmi.h (the structures and the numbers of the calls).
"""

import ctypes
import errno
import fcntl
import os
import select
import stat
import struct
import time
from collections.abc import Callable, Sequence

from wattribute.agent.core.errors import SensorUnavailable
from wattribute.agent.core.model import Domain, Finding, PowerReading
from wattribute.agent.core.units import UJ_PER_J

DOMAIN = Domain(kind="psys", id="ipmi")
DEVICES = ("/dev/ipmi0", "/dev/ipmi/0", "/dev/ipmidev/0")
LOAD = "sudo modprobe -a ipmi_si ipmi_devintf"
NO_DCMI = 'collectors.wall = "redfish"'

_GROUP_EXTENSION, _GET_POWER_READING, _DCMI = 0x2C, 0x02, 0xDC
_SYSTEM_POWER = bytes((_DCMI, 0x01, 0x00, 0x00))
_ANSWER = struct.Struct("<BBHHHHIIB")  # completion, group; current, lowest, highest, average; time, period; state
_ACTIVE = 0x40
_UNKNOWN = {0xC1: "doesn't know DCMI power readings", 0xCC: "doesn't know DCMI power readings", 0xD6: "has them off"}
_NO_POWER = (0, 0xFFFF)  # its own sensor isn't ready, or isn't there
_SYSTEM_INTERFACE, _BMC_CHANNEL = 0x0C, 0xF
_ANSWER_BYTES = 272  # IPMI_MAX_MSG_LENGTH


class _Address(ctypes.Structure):
    _fields_ = (("addr_type", ctypes.c_int), ("channel", ctypes.c_short), ("lun", ctypes.c_ubyte))


class _Message(ctypes.Structure):
    _fields_ = (
        ("netfn", ctypes.c_ubyte),
        ("cmd", ctypes.c_ubyte),
        ("data_len", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    )


class _Request(ctypes.Structure):
    _fields_ = (
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    )


class _Received(ctypes.Structure):
    _fields_ = (
        ("recv_type", ctypes.c_int),
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", _Message),
    )


_READ, _WRITE = 2, 1
_SEND = _READ << 30 | ctypes.sizeof(_Request) << 16 | ord("i") << 8 | 13  # IPMICTL_SEND_COMMAND
_RECEIVE = (_READ | _WRITE) << 30 | ctypes.sizeof(_Received) << 16 | ord("i") << 8 | 11  # IPMICTL_RECEIVE_MSG_TRUNC


class IpmiWall:
    """Reads the BMC behind the first of `devices`. Raises SensorUnavailable where none can be opened.

    It asks nothing yet. A question that takes longer than `timeout_s` fails; two powers are integrated over no more
    than `bridge_ns`.
    """

    name = "wall"

    def __init__(
        self, clock: Callable[[], int], *, timeout_s: float, bridge_ns: int, devices: Sequence[str] = DEVICES
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._bridge_ns = bridge_ns
        self._asked = 0
        self.path = next((path for path in devices if os.path.exists(path)), devices[0])  # noqa: PTH110
        self._fd = _open(self.path)

    def read(self) -> list[PowerReading]:
        """One reading. Raises SensorUnavailable, with the fix."""
        try:
            answer = self._ask(_GROUP_EXTENSION, _GET_POWER_READING, _SYSTEM_POWER)
        except OSError as error:
            raise _unavailable(self.path, error) from error
        power_uw = power_of(answer) * UJ_PER_J
        return [PowerReading(domain=DOMAIN, at_ns=self._clock(), power_uw=power_uw, bridge_ns=self._bridge_ns)]

    def close(self) -> None:
        """Give the device back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def finding(self) -> Finding:
        """What `doctor` says of it."""
        try:
            (reading,) = self.read()
        except SensorUnavailable as error:
            return Finding(source=self.name, path=self.path, ok=False, why=error.cause, fix=error.fix)
        return Finding(
            source=self.name,
            path=self.path,
            ok=True,
            why="the whole node, by the BMC's DCMI power reading: readable",
            resolution="1 W",
            value=f"{reading.power_uw / UJ_PER_J:g} W",
            quality="integrated",
        )

    def _ask(self, netfn: int, cmd: int, data: bytes) -> bytes:
        """The BMC's answer to one message, from its completion code on. Raises OSError."""
        if self._fd < 0:
            raise OSError(errno.EBADF, "closed")
        until_s = time.monotonic() + self._timeout_s
        self._asked += 1
        address = _Address(_SYSTEM_INTERFACE, _BMC_CHANNEL, 0)
        sent = ctypes.create_string_buffer(data, len(data))
        request = _Request(
            ctypes.addressof(address),
            ctypes.sizeof(address),
            self._asked,
            _Message(netfn, cmd, len(data), ctypes.addressof(sent)),
        )
        fcntl.ioctl(self._fd, _SEND, request)
        poller = select.poll()  # unlike select it takes any descriptor
        poller.register(self._fd, select.POLLIN)
        while True:
            left_s = until_s - time.monotonic()
            if left_s <= 0 or not poller.poll(left_s * 1000):
                raise TimeoutError(errno.ETIMEDOUT, f"no answer of the BMC within {self._timeout_s:g} s")
            back = ctypes.create_string_buffer(_ANSWER_BYTES)
            origin = ctypes.create_string_buffer(64)  # the kernel's largest address has 32
            received = _Received(
                0,
                ctypes.addressof(origin),
                len(origin),
                0,
                _Message(0, 0, len(back), ctypes.addressof(back)),
            )
            fcntl.ioctl(self._fd, _RECEIVE, received)
            if received.msgid == self._asked:  # else one that came too late for the question before
                return back.raw[: received.msg.data_len]


def power_of(answer: bytes) -> int:
    """The watts that a DCMI answer tells. Raises SensorUnavailable, with the fix, where it tells none."""
    completion = answer[0] if answer else 0xFF
    if completion:
        why = _UNKNOWN.get(completion, f"answers with completion code {completion:#04x}")
        return _refuse(f"the BMC {why}", NO_DCMI, absent=completion in _UNKNOWN)
    if len(answer) < _ANSWER.size or answer[1] != _DCMI:
        return _refuse(f"the BMC's answer of {len(answer)} bytes is no DCMI power reading", NO_DCMI)
    _, _, power_w, *_, state = _ANSWER.unpack_from(answer)
    if not state & _ACTIVE:
        return _refuse("the BMC's power measurement is switched off", "switch it on in the BMC: DCMI power management")
    if power_w in _NO_POWER:
        return _refuse(f"the BMC tells {power_w} W, which is no power of a node", NO_DCMI)
    return int(power_w)


def _refuse(cause: str, fix: str, *, absent: bool = False) -> int:
    raise SensorUnavailable(cause, fix, absent=absent)


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise _unavailable(path, error) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise SensorUnavailable(f"{path} is a file, and no IPMI device", LOAD)


def _unavailable(path: str, error: OSError) -> SensorUnavailable:
    if isinstance(error, TimeoutError):
        return SensorUnavailable(f"{path}: {error.strerror}", "raise wall.timeout_s, or look whether the BMC hangs")
    if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR):
        return SensorUnavailable(f"{path} isn't there ({error.strerror})", f"{LOAD}; or {NO_DCMI}", absent=True)
    if error.errno in (errno.EACCES, errno.EPERM):
        return SensorUnavailable(
            f"{path}: {error.strerror}",
            "start the agent as root: it keeps what it opened (agent.user); in the unit DeviceAllow=char-ipmidev rw",
        )
    return SensorUnavailable(f"{path}: {error.strerror}", LOAD)


__all__ = ["DOMAIN", "IpmiWall", "power_of"]
