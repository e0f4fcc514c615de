"""The logical units that the suite is run at, and which tests want what of them."""

from dataclasses import dataclass

#: These look on while a unit is overwritten, three seconds after that began and a while later:
#: they run at a unit of the same kind that takes as long.
LONG = ("SCSI.Sanitize.Reset",)
#: Seconds that a test may take. Those of LONG sleep a minute at a time until a busy disk is done.
LIMIT = 100.0
LONG_LIMIT = 400.0
SIZE = 64 << 20  #: bytes of a unit
LONG_SIZE = 6 << 30


@dataclass(frozen=True, slots=True)
class Kind:
    """A logical unit to test, as we and as tgt are told of it."""

    name: str
    thin: bool = True
    removable: bool = False
    read_only: bool = False
    exponent: int = 3
    only: str = ""  #: an expression: the tests that want such a unit

    @property
    def tgt(self) -> str:
        """The parameters of tgtadm."""
        made = f"thin_provisioning={self.thin:d},removable={self.removable:d}"
        return made + f",readonly={self.read_only:d},lbppbe={self.exponent}"


#: The tests that do not write, or want to be refused: what a read-only unit can be asked.
READERS = (
    r"^SCSI\.(Inquiry|Mandatory|ModeSense6|NoMedia|Prefetch\d+|PreventAllow|Prin\w+"
    r"|Prout(Clear|Preempt|Register)|Read\w*|Report\w+|Reserve6|StartStopUnit|TestUnitReady"
    r"|Verify\d+)\.|^iSCSI\.iSCSI(cmdsn|Nop|SendTargets|CHAP\w*|Residuals\.Read)"
)
KINDS = (
    Kind("thin"),
    Kind("removable", removable=True, exponent=0),
    Kind("read-only", read_only=True, only=READERS),
    Kind("4 per physical", exponent=2),
)
#: Kind and size of all units, by LUN.
UNITS = [(kind, SIZE) for kind in KINDS]
UNITS += [(kind, LONG_SIZE) for kind in KINDS if not kind.read_only]
