"""A session with a running target over a socket, PDU by PDU, with no initiator's courtesy."""

import contextlib
import socket
from typing import Any

from tests.iscsi.conftest import ISID, NAME, NO_TAG, Initiator, Pdu, read_pdus

PING = 0x0000A11E


class Dialogue:
    """Says what it is told to say, and reads what comes back; blocking, 20 s at most.

    ``keys`` are offered in the login; a normal session has taken its unit attention.
    """

    def __init__(
        self, port: int, target: str, *keys: str, isid: bytes = ISID, kind: str = "Normal"
    ) -> None:
        self.initiator = Initiator()
        self.expected = 0  #: the CmdSN that the target expects, since ``answers``
        self._discovery = kind == "Discovery"
        self.socket = socket.create_connection(("127.0.0.1", port), 20)
        names = (f"InitiatorName={NAME}", f"TargetName={target}", f"SessionType={kind}")
        self.send(self.initiator.login(0x87, *names, *keys, isid=isid))
        answer = self.read()
        assert answer is not None and answer.opcode == 0x23 and not answer.word36, answer
        if not self._discovery:
            self.ask(self.initiator.command(bytes(6)))

    def send(self, *pdus: bytes) -> None:
        """Say something; who has hung up does not hear it."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(b"".join(pdus))

    def read(self) -> Pdu | None:
        """The next PDU; None when the other end has hung up."""
        head = self._exactly(48)
        if not head:
            return None
        length = int.from_bytes(head[5:8], "big")
        return read_pdus(head + self._exactly(length + -length % 4))[0]

    def _exactly(self, count: int) -> bytes:
        data = b""
        with contextlib.suppress(ConnectionError):
            while len(data) < count and (more := self.socket.recv(count - len(data))):
                data += more
        return data

    def ask(self, pdu: bytes) -> Pdu:
        """Say one thing and read one answer."""
        self.send(pdu)
        answer = self.read()
        assert answer is not None, "the target has hung up"
        return answer

    def answers(self) -> list[Pdu | None]:
        """All that came up to now; a None: hung up.

        What the target was asked last is a ping, or for its targets; that answer is left out.
        """
        last = 4 if self._discovery else 0
        self.send(self.initiator.request(last, itt=PING, word20=NO_TAG, immediate=True))
        came: list[Pdu | None] = []
        while (pdu := self.read()) is not None and pdu.itt != PING:
            came.append(pdu)
        if pdu is None:
            came.append(None)
        else:
            self.expected = pdu.exp_cmd_sn
        return came

    def attention(self) -> int:
        """The next unit attention's code; 0 when there is none."""
        pdu = self.ask(self.initiator.command(bytes(6)))
        return int.from_bytes(pdu.data[14:16], "big") if pdu.byte3 else 0

    def manage(self, function: int, referenced: int = 0) -> int:
        """An immediate task management request; its answer."""
        request = self.initiator.request(2, 0x80 | function, word20=referenced, immediate=True)
        return self.ask(request).byte2

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> "Dialogue":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
