"""The login phase (RFC 7143 sections 6.3 and 11.12): stages as a table, keys by their rows.

``Login`` takes login requests and returns answers. Once it knows who knocks it returns a
Knock instead, and goes on when ``admit`` brings the answer: whether a disk is there, and what
must be proved, is decided elsewhere. Must never transit before its own side is done (iPXE
sets T on every request, also in the middle of CHAP), never answer a key that was not offered,
and never let a request raise: every mistake is a status of section 11.13.5.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from netboot.errors import WireError
from netboot.iscsi import keys, wire
from netboot.iscsi.auth import AuthFailure, ChapExchange
from netboot.iscsi.keys import KEYS, Rule, Use
from netboot.iscsi.target import Identity, valid_name
from netboot.iscsi.wire import LoginStatus
from netboot.model import Admission, Knock


class Stage(IntEnum):
    """CSG and NSG (section 11.12.3), and the states before and after."""

    SECURITY = 0
    OPERATIONAL = 1
    FULL = 3
    START = -1
    FAILED = -2


#: Which stage a request may speak in (its CSG), from where we are: a missing row is an error.
SPEAKS: Final[Mapping[tuple[Stage, int], Stage]] = MappingProxyType(
    {
        (Stage.START, 0): Stage.SECURITY,
        (Stage.START, 1): Stage.OPERATIONAL,
        (Stage.SECURITY, 0): Stage.SECURITY,
        (Stage.OPERATIONAL, 1): Stage.OPERATIONAL,
    }
)
#: Where T leads, by CSG and NSG.
TRANSITS: Final[Mapping[tuple[Stage, int], Stage]] = MappingProxyType(
    {
        (Stage.SECURITY, 1): Stage.OPERATIONAL,
        (Stage.SECURITY, 3): Stage.FULL,
        (Stage.OPERATIONAL, 3): Stage.FULL,
    }
)

#: Requests of one login, and bytes of text in one of them: more is not a login.
REQUEST_LIMIT: Final = 32
TEXT_LIMIT: Final = 65536


@dataclass(frozen=True, slots=True)
class Request:
    """A login request; bit drawing in ``wire.LOGIN``."""

    flags: int
    version_min: int
    isid: bytes
    tsih: int
    cid: int
    text: bytes

    @property
    def csg(self) -> int:
        """Current stage."""
        return self.flags >> 2 & 3

    @property
    def nsg(self) -> int:
        """Next stage, of meaning with T."""
        return self.flags & 3


@dataclass(frozen=True, slots=True)
class Answer:
    """A login response: flags of byte 1, status, and text."""

    flags: int = 0
    status: int = LoginStatus.SUCCESS
    pairs: tuple[tuple[str, str], ...] = ()
    reason: str = ""  #: for the log, when ``status`` is not success


class _Refused(Exception):
    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class Login:
    """One login conversation, from the first request to the full-feature phase."""

    address: str  #: the peer's, for the Knock
    entropy: Callable[[int], bytes]
    group: int = 1  #: the portal group that the login came in by
    stage: Stage = Stage.START
    identity: Identity | None = None
    discovery: bool = False
    admission: Admission | None = None
    agreed: list[tuple[str, str]] = field(default_factory=list)
    unproved: str = ""  #: why it is not who it says, once that is certain
    _text: bytearray = field(default_factory=bytearray)
    _seen: set[str] = field(default_factory=set)
    _requests: int = 0
    _first: Request | None = None
    _held: tuple[Request, list[tuple[str, str]]] | None = None
    _declared: bool = False
    _method: str = ""
    _chap: ChapExchange | None = None

    def receive(self, request: Request) -> Answer | Knock:
        """What to answer to ``request``; a Knock: ask, then call ``admit``."""
        try:
            return self._receive(request)
        except _Refused as refused:
            return self._fail(refused)

    def admit(self, admission: Admission) -> Answer:
        """Go on with the request that led to the Knock."""
        assert self._held is not None
        request, pairs = self._held
        self._held = None
        self.admission = admission
        try:
            if admission.status == LoginStatus.MOVED_TEMPORARILY:
                # Section 11.13.5 lets it come before any proof; 13.8 has no tag in it.
                self.stage = Stage.FAILED
                there = (("TargetAddress", admission.redirect),)
                return Answer(status=admission.status, pairs=there, reason=admission.detail)
            if admission.status:
                raise _Refused(admission.status, admission.detail or "refused")
            if admission.chap is not None:
                self._chap = ChapExchange(admission.chap, self.entropy)
            group = ("TargetPortalGroupTag", str(self.group))
            first = [] if self.discovery else [group]
            return self._answer(request, pairs, first)
        except _Refused as refused:
            return self._fail(refused)

    @property
    def proof(self) -> str:
        """What the initiator has proved, in words; empty: it need not."""
        return self._chap.words if self._chap is not None else ""

    def _fail(self, refused: _Refused) -> Answer:
        self.stage = Stage.FAILED
        if refused.status == LoginStatus.AUTHENTICATION_FAILURE:
            self.unproved = str(refused)
        return Answer(status=refused.status, reason=str(refused))

    def _receive(self, request: Request) -> Answer | Knock:
        self._requests += 1
        if self._requests > REQUEST_LIMIT:
            raise _Refused(LoginStatus.INITIATOR_ERROR, "the login does not come to an end")
        if request.version_min > 0:
            raise _Refused(LoginStatus.UNSUPPORTED_VERSION, "only version 0 is spoken")
        self._follow(request)
        self._text += request.text
        if len(self._text) > TEXT_LIMIT:
            raise _Refused(LoginStatus.OUT_OF_RESOURCES, "the login text is too long")
        if request.flags & wire.CONTINUE:
            return Answer(flags=request.csg << 2)
        try:
            pairs = wire.read_text(bytes(self._text))
        except WireError as error:
            raise _Refused(LoginStatus.INITIATOR_ERROR, str(error)) from None
        self._text.clear()
        for name, _ in pairs:
            if name in self._seen:
                raise _Refused(LoginStatus.INITIATOR_ERROR, f"{name[:63]} came twice")
            # CHAP_I and CHAP_C come in both directions, but once from each side.
            self._seen.add(name)
        if self.admission is None:
            return self._knock(request, pairs)
        return self._answer(request, pairs, [])

    def _follow(self, request: Request) -> None:
        """Check the stages of a request against the tables, and its identity."""
        here = SPEAKS.get((self.stage, request.csg))
        if here is None:
            raise _Refused(
                LoginStatus.INVALID_REQUEST,
                f"stage {request.csg} where {self.stage.name} was expected",
            )
        transit = request.flags & wire.TRANSIT
        if transit and request.flags & wire.CONTINUE:
            raise _Refused(LoginStatus.INITIATOR_ERROR, "T and C in one request")
        if transit and (here, request.nsg) not in TRANSITS:
            raise _Refused(
                LoginStatus.INVALID_REQUEST, f"no way from stage {request.csg} to {request.nsg}"
            )
        first = self._first
        if first is None:
            self._first = request
        elif (request.isid, request.tsih, request.cid) != (first.isid, first.tsih, first.cid):
            raise _Refused(LoginStatus.INITIATOR_ERROR, "ISID, TSIH or CID changed midway")
        self.stage = here

    def _knock(self, request: Request, pairs: list[tuple[str, str]]) -> Knock:
        said = dict(pairs)
        initiator = said.get("InitiatorName", "")
        if not initiator:
            raise _Refused(LoginStatus.MISSING_PARAMETER, "InitiatorName is missing")
        if not valid_name(initiator):
            raise _Refused(LoginStatus.INITIATOR_ERROR, f"{initiator[:80]!r} is no iSCSI name")
        kind = said.get("SessionType", "Normal")
        if kind not in ("Normal", "Discovery"):
            raise _Refused(LoginStatus.TYPE_NOT_SUPPORTED, f"SessionType={kind[:40]}")
        self.discovery = kind == "Discovery"
        target = said.get("TargetName", "")
        if not target and not self.discovery:
            raise _Refused(LoginStatus.MISSING_PARAMETER, "TargetName is missing")
        if request.tsih:
            # One connection a session: nothing can be added, and none of ours outlives its
            # connection, so there is none to come back to.
            raise _Refused(LoginStatus.NO_SESSION, f"there is no session {request.tsih}")
        self.identity = Identity(initiator, request.isid, target, self.group)
        self._held = request, pairs
        return Knock(initiator, target, self.address, request.isid.hex(), self.discovery)

    def _answer(
        self, request: Request, pairs: list[tuple[str, str]], answers: list[tuple[str, str]]
    ) -> Answer:
        if self.stage is Stage.SECURITY:
            ready = self._authenticate(pairs, answers)
        else:
            if self._chap is not None and not self._chap.done:
                raise _Refused(
                    LoginStatus.AUTHENTICATION_FAILURE, "the initiator left authentication out"
                )
            self._operate(pairs, answers)
            ready = True
        flags = request.csg << 2
        if ready and request.flags & wire.TRANSIT:
            flags |= wire.TRANSIT | request.nsg
            self.stage = TRANSITS[self.stage, request.nsg]
        return Answer(flags=flags, pairs=tuple(answers))

    def _authenticate(self, pairs: list[tuple[str, str]], answers: list[tuple[str, str]]) -> bool:
        """The security stage; returns whether our side of it is done."""
        for name, value in pairs:
            row = KEYS.get(name)
            if name == "AuthMethod":
                wish = "None" if self._chap is None else "CHAP"
                outcome = keys.negotiate(name, value, wish)
                if outcome.value is None:
                    raise _Refused(
                        LoginStatus.AUTHENTICATION_FAILURE, f"AuthMethod={value[:60]}: {wish} only"
                    )
                self._method = outcome.value
                answers.append((name, outcome.value))
            elif row is not None and row.use is Use.ANY:
                self._operate([(name, value)], answers)
            elif name not in keys.AUTH_KEYS:
                # Operational keys have their own stage; an unknown key is only unknown.
                answers.append((name, "NotUnderstood" if row is None else "Reject"))
        if self._chap is None:
            return True
        said = {name: value for name, value in pairs if name in keys.AUTH_KEYS}
        if said and self._method != "CHAP":
            raise _Refused(LoginStatus.AUTHENTICATION_FAILURE, "CHAP keys before AuthMethod")
        try:
            answers += self._chap.step(said)
        except AuthFailure as failure:
            raise _Refused(LoginStatus.AUTHENTICATION_FAILURE, str(failure)) from None
        return self._chap.done

    def _operate(self, pairs: list[tuple[str, str]], answers: list[tuple[str, str]]) -> None:
        """The operational stage: each offered key once, by its row."""
        bounded = {"FirstBurstLength": keys.first_burst([*self.agreed, *pairs])}
        for name, value in pairs:
            row = KEYS.get(name)
            if row is not None and row.use in (Use.SECURITY, Use.FULL):
                raise _Refused(LoginStatus.INVALID_REQUEST, f"{name} in the operational stage")
            outcome = keys.negotiate(name, value, bounded.get(name))
            if outcome.answer is not None:
                answers.append((name, outcome.answer))
            if outcome.value is not None and row is not None and row.rule is not Rule.NO:
                self.agreed.append((name, outcome.value))
            if name == "MaxRecvDataSegmentLength" and not self._declared:
                self._declared = True
                answers.append((name, str(keys.OUR_SEGMENT)))
