"""Connections of clients that another process serves: given to it, and taken from it.

How they get there is not known here (``Others``). A connection goes on where it was: what was
heard of it goes along and is parsed anew, and what was answered is not answered again. Must
never let the initiator notice anything but time.
"""

import asyncio
import logging
import os
import socket
from functools import partial
from typing import Final, Protocol

from netboot.iscsi.peer import House, Peer
from netboot.iscsi.wire import LoginStatus
from netboot.model import Admission, Knock, Portal

log = logging.getLogger(__name__)

#: Why a connection ended here.
PASSED_ON: Final = "another process goes on with it"
#: The answer to who is another's and whom that does not take: class 3, try again.
AWAY: Final = Admission(
    LoginStatus.UNAVAILABLE, detail="the process that serves this client is away; try again"
)


class Others(Protocol):
    """The other processes that serve targets at the same portals."""

    def mine(self, knock: Knock) -> bool:
        """Whether who knocks is served here."""

    async def pass_on(self, knock: Knock, handle: int, portal: Portal, heard: bytes) -> bool:
        """Give a connection to the one that serves who knocks; False when it is not there."""

    def deaf(self) -> None:
        """We stop, and listen no more."""


class Alone:
    """There are no others."""

    def mine(self, knock: Knock) -> bool:
        return True

    async def pass_on(self, knock: Knock, handle: int, portal: Portal, heard: bytes) -> bool:
        return False

    def deaf(self) -> None:
        return


async def give(others: Others, peer: Peer, knock: Knock) -> bool:
    """Let another process go on with a connection after its Knock; False: it is still here."""
    handle, heard = peer.depart()
    try:
        there = await others.pass_on(knock, handle, peer.portal, heard)
    finally:
        os.close(handle)
    if there:
        peer.close(PASSED_ON)
    return there


async def take(house: House, sock: socket.socket, portal: Portal, heard: bytes) -> None:
    """Go on with a connection of which another process has ``heard`` that much."""
    sock.setblocking(False)
    made = partial(Peer, house, portal, heard)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(made, sock)
    except OSError as error:  # it was reset on its way
        log.info("a connection did not come over: %s", error)
        sock.close()
