"""One logical unit, and what it remembers of each initiator.

``Unit`` is shared by all its sessions; ``Nexus`` is one session's side (the SCSI I_T nexus);
``View`` is where the two meet (the I_T_L nexus): pending unit attentions, how far reservations
let it go. Nothing here decodes a CDB or touches a disk. SAM-5 sections 4.6, 5.14 and 6.3.
"""

from collections import deque
from collections.abc import Iterable, Mapping

from netboot.scsi.kept import Operation, encode
from netboot.scsi.reservations import Access, Notices, Reservations
from netboot.scsi.sense import Code, Key, Sense

#: Bytes one READ, WRITE, VERIFY or ORWRITE may move. READ(10) of 512-byte blocks never gets
#: there, which matters: firmware sends 65535 blocks at once and has not read the limits page.
MAX_TRANSFER = 32 << 20

#: What MODE SELECT may change, with the values a reset puts back (the bits: modes.PAGES).
KNOBS = {"write_cache": True, "software_protected": False, "descriptor_sense": False}


_TARGET_PORT = ",t,0x"


def apart(port: str) -> tuple[str, int]:
    """A nexus's ``port`` as the initiator port's name and the relative target port identifier."""
    name, _, group = port.partition(_TARGET_PORT)
    return name, int(group or "1", 16)


class Nexus:
    """One session's side: an initiator port, and its view of each unit of the target."""

    __slots__ = ("copies", "group", "port", "views")

    def __init__(self, initiator: str, isid: bytes = b"", group: int = 1) -> None:
        #: The initiator port's name: ``iqn...,i,0x`` and the ISID in hex (RFC 7143 section 4.4.4);
        #: by another target port than the first, that too (see ``apart``).
        self.port = f"{initiator},i,0x{isid.hex()}" if isid else initiator
        if group != 1:
            self.port += f"{_TARGET_PORT}{group:04x}"
        self.group = group  #: portal group tag, which is the relative target port identifier
        self.views: dict[int, View] = {}  #: by each way to write a LUN (target._luns)
        #: What RECEIVE COPY RESULTS tells of each list identifier.
        self.copies: dict[int, bytes] = {}


class View:
    """One nexus at one unit."""

    __slots__ = ("attentions", "ceiling", "clear", "nexus", "prevents", "unit")

    def __init__(self, nexus: Nexus, unit: "Unit") -> None:
        self.nexus = nexus
        self.unit = unit
        self.attentions: deque[Sense] = deque()
        self.ceiling = Access.CHANGES
        self.prevents = False  #: PREVENT ALLOW MEDIUM REMOVAL
        #: The one test of the data path: no attention, no reservation, a medium.
        self.clear = False

    def settle(self) -> None:
        """Work out ``clear`` again; call after each change of what it is made of."""
        self.clear = not self.attentions and self.ceiling is Access.CHANGES and self.unit.loaded
        self.clear = self.clear and self.unit.barred is None

    def attend(self, code: Code) -> None:
        """Establish a unit attention condition, once; a reset makes older ones moot."""
        sense = Sense(Key.UNIT_ATTENTION, code)
        if code >> 8 == 0x29:
            self.attentions.clear()
        if sense not in self.attentions:
            self.attentions.append(sense)
        self.clear = False

    def next_attention(self) -> Sense | None:
        """Take the oldest unit attention, if there is one."""
        if not self.attentions:
            return None
        sense = self.attentions.popleft()
        self.settle()
        return sense


class Unit:
    """One disk as SCSI sees it: numbers, names, modes, reservations; no bytes of it."""

    def __init__(
        self,
        number: int,
        size: int,
        serial: str,
        *,
        target_name: str = "",
        block_size: int = 512,
        physical_block_exponent: int = 3,
        read_only: bool = False,
        thin: bool = True,
        removable: bool = False,
        remembers: bool = False,
        lasting: bool | None = None,
        measured: bool = False,
        vendor: str = "NETBOOT",
        product: str = "VIRTUAL-DISK",
        revision: str = "0001",
    ) -> None:
        """``size`` is bytes, a multiple of ``block_size``; ``number`` is the LUN (0-16383).

        ``serial`` and ``target_name`` alone make the identifiers of VPD 80 and 83: keep them
        across golden updates, or the guest sees a new disk. ``remembers``: what ``Keep`` wants
        can be done here, and (``lasting``, else the same) outlives a power cut; ``measured``:
        what ``Space`` asks can be told.
        """
        if size < block_size or size % block_size:
            raise ValueError(f"a unit of {size} bytes is not made of {block_size}-byte blocks")
        if not 0 <= number < 1 << 14:
            raise ValueError(f"LUN {number} is not between 0 and 16383")
        self.number = number
        self.serial = serial
        self.ports: tuple[int, ...] = (1,)  #: relative target port identifiers
        self.target_name = target_name
        self.block_size = block_size
        self.physical_block_exponent = physical_block_exponent
        self.blocks = size // block_size
        self.read_only = read_only
        self.thin = thin
        self.removable = removable
        self.remembers = remembers
        self.lasting = remembers if lasting is None else lasting
        self.measured = measured and thin
        self.vendor = vendor
        self.product = product
        self.revision = revision
        self.max_blocks = MAX_TRANSFER // block_size
        self.reservations = Reservations()
        self.views: list[View] = []
        self.loaded = True
        self.barred: Sense | None = None  #: why nothing but INQUIRY and its like is answered
        self.sanitizing: Operation | None = None  #: under way, or failed: then it is barred
        self.write_cache = True
        self.software_protected = False
        self.descriptor_sense = False
        self.protected = read_only  #: whether writes are refused, for either reason

    @property
    def size(self) -> int:
        """Bytes."""
        return self.blocks * self.block_size

    def turn(self, knobs: Mapping[str, bool]) -> bool:
        """Set ``KNOBS`` by name; tells whether any of them changed."""
        changed = any(getattr(self, name) is not value for name, value in knobs.items())
        for name, value in knobs.items():
            setattr(self, name, value)
        self.protected = self.read_only or self.software_protected
        return changed

    # Nexuses come and go

    def attach(self, nexus: Nexus) -> View:
        """A session begins to see this unit; its first command meets 29/00."""
        view = View(nexus, self)
        view.ceiling = self.reservations.ceiling(nexus.port, view)
        view.attend(Code.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED)
        self.views.append(view)
        return view

    def detach(self, view: View) -> None:
        """I_T nexus loss: what the session alone held is gone (SAM-5 section 6.3.4)."""
        if view in self.views:
            self.views.remove(view)
        if self.reservations.legacy is view:
            self.reservations.legacy = None
            self.refresh()

    def refresh(self) -> None:
        """Work out every view's ceiling again after a change of reservations or medium."""
        for view in self.views:
            view.ceiling = self.reservations.ceiling(view.nexus.port, view)
            view.settle()

    # Telling them

    def tell(self, code: Code, *, but: View | None = None) -> None:
        """Establish a unit attention for every nexus, perhaps but one."""
        for view in self.views:
            if view is not but:
                view.attend(code)

    def notify(self, notices: Notices) -> None:
        """Establish the unit attentions that a change of reservations asks for."""
        for port, code in notices:
            for view in self.views:
                if view.nexus.port == port:
                    view.attend(code)

    # What happens to the unit as a whole

    def worth_keeping(self, reservations: Reservations | None = None) -> bytes:
        """What must outlive a power cut, perhaps with other reservations."""
        return encode(reservations or self.reservations, self.sanitizing)

    def resize(self, size: int) -> None:
        """The disk is larger or smaller now; every nexus learns it by 2A/09."""
        if size < self.block_size or size % self.block_size:
            raise ValueError(f"{size} bytes are not made of {self.block_size}-byte blocks")
        if size != self.size:
            self.blocks = size // self.block_size
            self.tell(Code.CAPACITY_DATA_HAS_CHANGED)

    def reset(self, code: Code = Code.BUS_DEVICE_RESET_FUNCTION_OCCURRED) -> None:
        """Logical unit reset (SAM-5 section 6.3.3); persistent reservations survive it."""
        self.reservations.legacy = None
        self.turn(KNOBS)
        for view in self.views:
            view.prevents = False
        self.refresh()
        self.tell(code)

    def eject(self) -> None:
        """The medium is out: everything that needs one is NOT READY."""
        self.loaded = False
        self.refresh()

    def load(self, by: View) -> None:
        """The medium is in again; the other nexuses learn it by 28/00."""
        if not self.loaded:
            self.loaded = True
            self.refresh()
            self.tell(Code.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED, but=by)

    def bar(self, why: Sense | None) -> None:
        """Answer nothing but INQUIRY and its like, or (None) everything again."""
        self.barred = why
        self.refresh()

    @property
    def prevented(self) -> bool:
        """Whether any nexus forbids to take the medium out."""
        return any(view.prevents for view in self.views)

    def views_of(self, ports: Iterable[str]) -> list[View]:
        """The views of the initiator ports named."""
        wanted = set(ports)
        return [view for view in self.views if view.nexus.port in wanted]
