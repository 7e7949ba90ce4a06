"""Asks the kubelet which pods it runs: GET /pods, as the agent's service account.

Source: kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz. To whom the token is shown:
- with `ca_file`: to whoever has a certificate by it, in the name that `url` has (on the loopback, which kubelets'
  certificates don't name, in any);
- without: on the loopback alone, where a kubelet usually has a certificate of its own making, to a process of root's.
  The port is above 1024: while the kubelet is away anybody could listen there.
Over http no token is sent.
"""

import json
import re
import time
from typing import TYPE_CHECKING

from wattribute.agent.core.errors import ConfigError, SensorUnavailable
from wattribute.collectors.kubernetes.peer import is_loopback, owner_of_peer
from wattribute.collectors.kubernetes.shape import text

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse, HTTPSConnection
    from socket import socket
    from ssl import SSLContext

TIMEOUT_S = 2.0  # of each step
ANSWER_S = 4.0  # of the whole answer
ANSWER_BYTES = 64 * 2**20  # 500 pods are 5 to 10 MiB
TOKEN_BYTES = 65536
PORTS = {"https": 10250, "http": 10255}

_LOG = "look at its log: journalctl -u kubelet"
_CA = "set kubernetes.ca_file to what signed the kubelet's certificate (often /var/lib/kubelet/pki/kubelet.crt)"
_ACCOUNT = re.compile(r"user=system:serviceaccount:([a-z0-9.-]+):([a-z0-9.-]+)")


class Kubelet:
    """A kubelet by its address. `proc` is where /proc is seen, `uid` whom the kubelet runs as.

    Raises ConfigError for an address that is none. Keeps nothing open: it is asked seldom.
    """

    def __init__(self, url: str, *, token_file: str, ca_file: str = "", proc: str = "/proc", uid: int = 0) -> None:
        self.url = url
        self._token_file = token_file
        self._ca_file = ca_file
        self._proc = proc
        self._uid = uid
        self._secure, self._host, self._port, self._path = _parse(url)

    def pods(self) -> object:
        """The JSON that it answers; blocks for some seconds at most. Raises SensorUnavailable, with the fix."""
        from http.client import HTTPException

        try:
            connection = self._https() if self._secure else self._http()
            try:
                status, answer = self._get(connection)
            finally:
                connection.close()
            if status != 200:
                raise self._refused(status, answer)
            told: object = json.loads(answer)
            return told
        except OSError as error:
            raise self._failed(error) from error
        except (HTTPException, ValueError, RecursionError) as error:
            raise SensorUnavailable(f"{self.url}: not an answer of a kubelet: {error!r:.200}", _LOG) from error

    def _http(self) -> "HTTPConnection":
        from http.client import HTTPConnection

        return HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)

    def _https(self) -> "HTTPSConnection":
        """Connected, and to the right one."""
        from http.client import HTTPSConnection

        connection = HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=self._trust())
        try:
            connection.connect()
            if is_loopback(self._host) and not self._is_local(connection.sock):
                raise SensorUnavailable(f"{self.url} isn't known to be the kubelet: it gets no token", _CA)
        except BaseException:
            connection.close()
            raise
        return connection

    def _is_local(self, connected: "socket") -> bool:
        if not is_loopback(connected.getpeername()[0]):  # a name may be resolved to anywhere
            return False
        return bool(self._ca_file) or owner_of_peer(connected, f"{self._proc}/self") == self._uid

    def _trust(self) -> "SSLContext":
        import ssl

        local = is_loopback(self._host)
        if not self._ca_file and not local:
            raise SensorUnavailable(f"{self.url} isn't this machine's loopback: it gets no unverified token", _CA)
        # Not ssl.create_default_context: it is strict (VERIFY_X509_STRICT) with certificates that kubelets make.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = not local
        if self._ca_file:
            try:
                context.load_verify_locations(self._ca_file)
            except (OSError, ValueError) as error:
                raise SensorUnavailable(f"kubernetes.ca_file {self._ca_file}: {error}", _CA) from error
        else:
            context.verify_mode = ssl.CERT_NONE
        return context

    def _get(self, connection: "HTTPConnection") -> tuple[int, bytes]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._secure:
            headers["Authorization"] = f"Bearer {self._token()}"
        connection.request("GET", f"{self._path}/pods", headers=headers)
        with connection.getresponse() as response:
            return response.status, self._read(response)

    def _read(self, response: "HTTPResponse") -> bytes:
        until_s = time.monotonic() + ANSWER_S
        parts: list[bytes] = []
        left = ANSWER_BYTES
        while part := response.read1(1 << 16):
            parts.append(part)
            left -= len(part)
            if left < 0:
                raise ValueError(f"more than {ANSWER_BYTES} bytes")
            if time.monotonic() > until_s:
                raise TimeoutError(f"no whole answer within {ANSWER_S} s")
        return b"".join(parts)

    def _token(self) -> str:
        """Read each time: it is exchanged about hourly."""
        try:
            with open(self._token_file, "rb") as file:
                token = file.read(TOKEN_BYTES).strip()
        except OSError as error:
            raise SensorUnavailable(
                f"kubernetes.token_file {self._token_file}: {error.strerror}",
                "run the agent in a pod with a service account (docs/kubernetes.md), or set kubernetes.token_file",
            ) from error
        if not re.fullmatch(rb"[!-~]+", token):
            raise SensorUnavailable(f"kubernetes.token_file {self._token_file} holds no token", "write a token to it")
        return token.decode("ascii")

    def _refused(self, status: int, answer: bytes) -> SensorUnavailable:
        said = text(answer[:300].decode("utf-8", "replace").strip())
        cause = f"{self.url} answers {status}: {said}"
        if status == 401:
            fix = "let the kubelet take tokens (authentication.webhook.enabled: true), and give the agent a valid one"
        elif status == 403:
            account = _ACCOUNT.search(said)
            who = f"{account[1]}:{account[2]}" if account else "NAMESPACE:ACCOUNT"
            fix = (
                "kubectl create clusterrole wattribute --verb=get --resource=nodes/pods && "
                f"kubectl create clusterrolebinding wattribute --clusterrole=wattribute --serviceaccount={who} "
                "(nodes/proxy where Kubernetes is older than 1.33)"
            )
        else:
            fix = _LOG
        return SensorUnavailable(cause, fix)

    def _failed(self, error: OSError) -> SensorUnavailable:
        import ssl

        if isinstance(error, ssl.SSLCertVerificationError):
            why = error.verify_message
            named = "match" in why.lower()  # it is the right one's, in another name
            fix = "put the node's name into kubernetes.kubelet, as its certificate has it" if named else _CA
            return SensorUnavailable(f"{self.url}: its certificate isn't trusted: {why}", fix)
        if isinstance(error, ConnectionRefusedError):
            fix = "give the agent's pod hostNetwork: true, or set kubernetes.kubelet to where the kubelet listens"
            return SensorUnavailable(f"{self.url}: nobody listens there", fix)
        if isinstance(error, TimeoutError):
            return SensorUnavailable(f"{self.url}: no answer in time", _LOG)
        return SensorUnavailable(f"{self.url}: {error.strerror or error}", _LOG)


def _parse(url: str) -> tuple[bool, str, int, str]:
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in PORTS or not parts.hostname:
        raise ConfigError(f'kubernetes.kubelet = "{url}" is no address: "https://127.0.0.1:10250" is one')
    return parts.scheme == "https", parts.hostname, port or PORTS[parts.scheme], parts.path.rstrip("/")
