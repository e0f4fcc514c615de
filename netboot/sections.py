"""The tables of the settings file, each field declared once.

A field holds its help, what is allowed (by its type) and an example; errors, the example file
and the table in the documentation all come from that. Keys stay stable: a file that once worked
keeps working. What must hold between fields is for ``config`` to check.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from netboot.model import ChapDigest, ChapMode, DhcpMode, OverlayMode, SessionLimits
from netboot.names import (
    Domain,
    FileName,
    ImageName,
    Initiator,
    Interface,
    Iqn,
    Label,
    Mac,
    Name,
)
from netboot.proofs import ChapModes, ChapName, Digests, Secret
from netboot.values import (
    Address,
    Addresses,
    Bytes,
    Count,
    Database,
    Duration,
    Endpoint,
    Folder,
    Folders,
    Mode,
    Overlays,
    OwnAddress,
    Policy,
    Port,
    Portals,
    Processes,
    Range,
    Switch,
    Time,
    Variables,
)

DEFAULT_STATE = Path("/var/lib/netboot")


class Section(BaseModel):
    """A table of the file: frozen, and no key that we do not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class SiteSection(Section):
    """Where the service runs."""

    interface: Interface = Field(
        description="The network interface that the clients are on.", examples=["br0"]
    )
    address: OwnAddress = Field(
        description="Our own address on that interface, with its prefix length.",
        examples=["192.168.77.1/24"],
    )
    domain: Domain = Field(
        default="netboot.internal",
        description="The domain under which DNS names the clients and the server.",
        examples=["lab.netboot"],
    )
    state: Folder = Field(
        default=DEFAULT_STATE,
        description="The folder of images, overlays, loaders and the database.",
        examples=[str(DEFAULT_STATE)],
    )
    database: Database | None = Field(
        default=None,
        description="Where the state is kept; `netboot.sqlite` in the state folder by default.",
        examples=[f"sqlite:///{DEFAULT_STATE}/netboot.sqlite"],
    )

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.state}/netboot.sqlite"


class DhcpSection(Section):
    """How much of DHCP is ours."""

    mode: Mode = Field(
        default=DhcpMode.FULL,
        description="full: we give addresses; proxy: another server does, we say what to boot; "
        "off: no DHCP at all.",
        examples=["full"],
    )
    pool: Range | None = Field(
        default=None,
        description="The addresses for machines without a reservation; needed in mode full.",
        examples=["192.168.77.50-192.168.77.199"],
    )
    lease: Time = Field(
        default=Duration(3600), description="How long an address is given for.", examples=["1h"]
    )
    router: Address | None = Field(
        default=None,
        description="The default gateway that clients are told; none by default.",
        examples=["192.168.77.254"],
    )
    dns: Addresses | None = Field(
        default=None,
        description="The name servers that clients are told; by default ourselves, unless [dns] "
        "is off.",
        examples=[["192.168.77.1"]],
    )


class IscsiSection(Section):
    """The disks."""

    port: Port = Field(
        default=3260, description="The TCP port of the iSCSI target.", examples=[3260]
    )
    iqn: Iqn = Field(
        default="iqn.2026-11.lab.netboot",
        description="What every iSCSI name of ours begins with; a client's target is this, a "
        "colon and its MAC address with hyphens.",
        examples=["iqn.2026-11.lab.netboot"],
    )
    portals: Portals | None = Field(
        default=None,
        description="Where initiators reach the disks, with the tag of the portal group; by "
        "default `site.address` with `iscsi.port` and tag 1, which must be among them.",
        examples=[["192.168.77.1:3260,1", "[fd00:77::1]:3260,1"]],
    )
    redirect: Endpoint | None = Field(
        default=None,
        description="Send every login to a disk to another server, while this one is drained; "
        "iPXE does not understand an IPv6 address here. A reload takes it over.",
        examples=["192.168.77.2:3260"],
    )
    processes: Processes | None = Field(
        default=None,
        description="How many disk processes share the machines; by default one for each core, 4 "
        "at most.",
        examples=[2],
    )
    sessions: Count = Field(
        default=SessionLimits().sessions,
        description="How many sessions there may be in all; who comes beyond is told to try again "
        "(0302). A reload takes it over.",
        examples=[SessionLimits().sessions],
    )
    client_sessions: Count = Field(
        default=SessionLimits().client,
        description="How many sessions a machine may have; its own oldest gives way to its newest. "
        "A reload takes it over.",
        examples=[SessionLimits().client],
    )
    prefetch: Switch = Field(
        default=True,
        description="Read ahead what a boot from its image needs and is not in memory, as far as "
        "earlier boots have shown it, when a machine asks for its address.",
        examples=[True],
    )
    chap: ChapModes = Field(
        default=ChapMode.OFF,
        description="What machines prove when they log in. chap: each has a secret, which we make "
        "and tell its iPXE; mutual: we also prove ourselves to it.",
        examples=["off"],
    )
    chap_digests: Digests = Field(
        default=tuple(ChapDigest),
        description="The digests that may prove it; iPXE knows only MD5.",
        examples=[["MD5", "SHA1", "SHA256", "SHA3-256"]],
    )
    discovery_name: ChapName = Field(
        default="discovery",
        description="The user name for discovery, where it has a secret.",
        examples=["discovery"],
    )
    discovery_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="What discovery sessions prove by CHAP; none by default.",
        examples=["choose-your-own"],
    )
    discovery_mutual_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="What we prove to discovery sessions that ask for it, as user `netboot`.",
        examples=["choose-another-1"],
    )

    @property
    def algorithms(self) -> tuple[int, ...]:
        """``chap_digests`` as CHAP_A numbers."""
        return tuple(digest.number for digest in self.chap_digests)


class HttpSection(Section):
    """Boot scripts, boot programs and the API."""

    port: Port = Field(default=8080, description="The TCP port of the web server.", examples=[8080])
    templates: Folder | None = Field(
        default=None,
        description="A folder of your own templates, searched before the ones that come along.",
        examples=["/etc/netboot/templates"],
    )


class TftpSection(Section):
    """The boot programs that firmware fetches."""

    port: Port = Field(
        default=69, description="The UDP port; firmware only ever asks 69.", examples=[69]
    )
    loaders: Folders = Field(
        default=(Path("/usr/lib/ipxe"),),
        description="Folders of boot programs, searched in order after `loaders` in the state "
        "folder; TFTP and HTTP serve them.",
        examples=[["/usr/lib/ipxe"]],
    )


class DnsSection(Section):
    """Names for the clients."""

    enabled: Switch = Field(default=True, description="Whether we answer DNS.", examples=[True])
    port: Port = Field(
        default=53, description="The UDP and TCP port; clients only ask 53.", examples=[53]
    )
    upstreams: Addresses | None = Field(
        default=None,
        description="Who answers for all other names; by default the system's resolvers, with "
        "an empty list nobody.",
        examples=[["9.9.9.9"]],
    )


class ProfileSection(Section):
    """What a kind of machine boots; one table for each profile."""

    name: Name = Field(description="What clients call this profile.", examples=["workstation"])
    image: ImageName = Field(
        description="The golden image, as `netboot image list` names it.", examples=["debian"]
    )
    overlay: Overlays = Field(
        default=OverlayMode.PERSISTENT,
        description="persistent: a client keeps its writes; ephemeral: each boot begins fresh.",
        examples=["persistent"],
    )
    disk: Bytes | None = Field(
        default=None,
        description="How large a fresh overlay is at least, and never smaller than its image; "
        "one that is there grows by `netboot overlay resize`.",
        examples=["100G"],
    )
    loader: FileName | None = Field(
        default=None,
        description="A boot program instead of the one that suits the firmware.",
        examples=["ipxe.efi"],
    )
    script: FileName | None = Field(
        default=None,
        description="An iPXE script template to boot with, instead of straight from the disk.",
        examples=["boot.ipxe"],
    )
    variables: Variables = Field(
        default={}, description="Values for the script's template.", examples=[{"room": "b12"}]
    )


class ClientSection(Section):
    """One machine; one table for each."""

    mac: Mac = Field(description="The address of its network card.", examples=["52:54:00:12:34:56"])
    name: Label = Field(description="Its host name.", examples=["ws1"])
    profile: Name = Field(description="What it boots.", examples=["workstation"])
    address: Address | None = Field(
        default=None, description="An address kept for it alone.", examples=["192.168.77.21"]
    )
    initiator: Initiator | None = Field(
        default=None,
        description="Its iSCSI name, where it brings its own instead of taking ours.",
        examples=["iqn.2010-04.org.ipxe:ws1"],
    )
    chap_name: ChapName | None = Field(
        default=None,
        description="The user name of its own secret; by default its MAC address with hyphens.",
        examples=["ws1"],
    )
    chap_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="Its own secret: it proves that it knows it, whatever iscsi.chap says, and we "
        "tell it to nobody, so put it into the machine's firmware.",
        examples=["choose-its-own-1"],
    )
    chap_mutual_secret: Secret | None = Field(
        default=None,
        repr=False,
        description="What we prove to it in return, as user `netboot`.",
        examples=["choose-another-2"],
    )
    variables: Variables = Field(
        default={},
        description="Values for the script's template, over the profile's.",
        examples=[{}],
    )


class UnknownSection(Section):
    """What becomes of machines that no [[client]] names; one of the two."""

    profile: Name | None = Field(
        default=None, description="Boot them with this profile.", examples=["workstation"]
    )
    policy: Policy | None = Field(
        default=None,
        description="`ignore`: no answer; so it is without this section.",
        examples=["ignore"],
    )
