"""What a disk process knows by itself: who is its own, and whom it was told to admit.

While the control process is away a machine that was admitted before is admitted again, with
the same disk: a restart or an upgrade must not cost a running guest its disk. Who was never
seen gets 0301, "try again", never a final refusal. Pure; must never grow without bound.
"""

from collections import OrderedDict
from dataclasses import replace
from hashlib import blake2b
from typing import Final, TypeAlias

from netboot.model import Admission, Knock

#: iSCSI login status "service unavailable": initiators try again (RFC 7143 section 11.13.5).
UNAVAILABLE: Final = 0x0301
#: Clients remembered; the one that was longest away is forgotten first.
LIMIT: Final = 16384

#: Who knocked: the ISID is not part of it, an iPXE has another one every time.
Who: TypeAlias = tuple[str, str, str, bool]


def owner(knock: Knock, processes: int) -> int:
    """Which of so many disk processes serves who knocks, counted from 0.

    By the target, of whose name only what is behind the last colon counts, the client's MAC: its
    firmware and its operating system meet there, whatever address either of them has. By the
    initiator in a discovery, so that it is answered by who remembers it.
    """
    name = (knock.target or knock.initiator).lower().rpartition(":")[2]
    digest = blake2b(name.encode(errors="replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % processes


class Memory:
    """The admissions of this process's life."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._admitted: OrderedDict[Who, Admission] = OrderedDict()
        self._known: dict[str, set[Who]] = {}  #: by MAC, of those admitted

    def __len__(self) -> int:
        return len(self._admitted)

    def learn(self, knock: Knock, admission: Admission) -> None:
        """The control process has answered: a welcome is remembered, and where to go instead;
        a refusal forgets both."""
        who = _who(knock)
        if admission.status and not admission.redirect:
            self._drop(who)
            return
        self._drop(who)
        self._admitted[who] = admission
        self._known.setdefault(admission.mac, set()).add(who)
        # Another address or name of the same client means the same, newest, disk.
        for other in self._known[admission.mac] if admission.luns else ():
            known = self._admitted[other]
            if known.target == admission.target and known.luns not in ((), admission.luns):
                self._admitted[other] = replace(known, luns=admission.luns)
        while len(self._admitted) > self._limit:
            self._drop(next(iter(self._admitted)))

    def _drop(self, who: Who) -> None:
        known = self._admitted.pop(who, None)
        if known is not None:
            names = self._known[known.mac]
            names.discard(who)
            if not names:
                del self._known[known.mac]

    def answer(self, knock: Knock) -> Admission:
        """The answer while nobody can be asked."""
        known = self._admitted.get(_who(knock))
        if known is None:
            return Admission(UNAVAILABLE, detail="the control process is away; try again")
        return known

    def forget(self, mac: str) -> None:
        """Forget a client: while nobody can be asked, it is not admitted."""
        for who in list(self._known.get(mac, ())):
            self._drop(who)


def _who(knock: Knock) -> Who:
    return knock.initiator, knock.target, knock.address, knock.discovery
