"""Who speaks: recorded shapes of firmware, iPXE and operating systems, and broken ones."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dhcp.clients import identify, user_classes
from netboot.dhcp.wire import Packet, decode
from netboot.model import Client, Stage

MAC = bytes.fromhex("525400123456")
PXE = b"PXEClient:Arch:00007:UNDI:003016"


def client(**options: bytes) -> Client:
    """Options by code, as ``o93=b""``."""
    found = {int(code[1:]): value for code, value in options.items()}
    packet = Packet(op=1, xid=1, hardware=MAC, options={53: b"\x01", **found})
    speaker = identify(packet)
    assert speaker is not None
    return speaker


@pytest.mark.parametrize(
    ("program", "stage", "arch", "http"),
    [
        ("BIOS", Stage.FIRMWARE, (0,), False),
        ("UEFI", Stage.FIRMWARE, (7,), False),
        ("HTTP", Stage.FIRMWARE, (16,), True),
        ("IPXE", Stage.IPXE, (0,), False),
        ("OS", Stage.OS, (), False),
    ],
)
def test_the_programs_of_a_machine(
    kit: Any, program: str, stage: Stage, arch: tuple[int, ...], http: bool
) -> None:
    packet = kit.datagram("52:54:00:12:34:56", "discover", *kit.PROGRAMS[program])
    found = identify(decode(packet))
    assert found is not None
    assert (found.mac, found.stage, found.arch, found.http) == (
        "52:54:00:12:34:56",
        stage,
        arch,
        http,
    )


def test_all_that_ipxe_says(kit: Any) -> None:
    found = identify(decode(kit.datagram("52:54:00:12:34:56", "discover", *kit.IPXE)))
    assert found == Client(
        mac="52:54:00:12:34:56",
        stage=Stage.IPXE,
        arch=(0,),
        uuid=UUID("03020100-0504-0706-0809-0a0b0c0d0e0f"),
        vendor_class="PXEClient:Arch:00000:UNDI:002001",
        user_class="iPXE",
        wants=frozenset({1, 3, 6, 7, 12, 15, 17, 26, 43, 60, 66, 67, 119, 128, 175, 203}),
        features=frozenset({17, 19}),
    )


@pytest.mark.parametrize("raw", [b"iPXE", b"\x04iPXE", b"\x03foo\x04iPXE", b"gPXE", b"\x04xNBA"])
def test_user_class_raw_and_length_prefixed(raw: bytes) -> None:
    assert client(o60=PXE, o77=raw).stage is Stage.IPXE


def test_option_175_alone_is_proof_enough() -> None:
    assert client(o60=PXE, o77=b"operator", o175=b"").stage is Stage.IPXE
    assert client(o60=PXE, o175=b"\x11\xff").stage is Stage.IPXE


def test_another_user_class_is_firmware() -> None:
    assert client(o60=PXE, o77=b"\x09installer").stage is Stage.FIRMWARE


@pytest.mark.parametrize(
    ("raw", "classes"),
    [
        (b"", []),
        (b"iPXE", [b"iPXE"]),
        (b"\x04iPXE", [b"iPXE"]),
        (b"\x01a\x02bc", [b"a", b"bc"]),
        (b"\x00", [b"\x00"]),
        (b"\x05abc", [b"\x05abc"]),
    ],
)
def test_user_classes(raw: bytes, classes: list[bytes]) -> None:
    assert user_classes(raw) == classes


def test_architecture_may_be_a_list() -> None:
    assert client(o60=PXE, o93=b"\0\x07\0\x09").arch == (7, 9)


@pytest.mark.parametrize("listed", [None, b"", b"\x07", b"\0\0\0"])
def test_architecture_from_the_vendor_class_when_93_is_missing_or_broken(
    listed: bytes | None,
) -> None:
    options = {"o60": PXE} | ({} if listed is None else {"o93": listed})
    assert client(**options).arch == (7,)


def test_no_architecture_at_all() -> None:
    assert client(o60=b"PXEClient").arch == ()


def test_machine_id_missing_or_broken() -> None:
    assert client(o60=PXE).uuid is None
    assert client(o60=PXE, o97=b"\0" * 16).uuid is None
    assert client(o60=PXE, o97=b"\xff" * 17).uuid is None


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"debian", "debian"),
        (b"ws1.lab\0", "ws1.lab"),
        (b"${net0/mac}", ""),
        (b"a b", ""),
        (b"-a", ""),
        (b"\x1b[2J", ""),
        (b"x" * 254, ""),
        (b"", ""),
    ],
)
def test_only_host_names_are_host_names(said: bytes, name: str) -> None:
    assert client(o12=said).hostname == name


def test_classes_are_fit_for_a_log_line() -> None:
    found = client(o60=b"PXEClient\x1b[2J\n" + b"x" * 200, o77=b"a\nb")
    assert found.vendor_class.startswith("PXEClient?[2J?xx")
    assert len(found.vendor_class) == 128
    assert found.user_class == "a?b"


def test_no_ethernet_address_no_client() -> None:
    packet = Packet(op=1, xid=1, hardware=b"", htype=32, options={53: b"\x01"})
    assert identify(packet) is None


@given(
    st.dictionaries(
        st.sampled_from([12, 55, 60, 77, 93, 97, 175]) | st.integers(1, 254),
        st.binary(max_size=64),
        max_size=10,
    )
)
def test_no_option_breaks_it(options: dict[int, bytes]) -> None:
    found = identify(Packet(op=1, xid=1, hardware=MAC, options=options))
    assert found is not None
    assert found.vendor_class.isprintable() or not found.vendor_class
    assert found.user_class.isprintable() or not found.user_class


def test_machines_of_one_model_are_told_apart() -> None:
    model = {60: b"PXEClient:Arch:00007:UNDI:003016", 93: b"\x00\x07", 55: bytes([1, 3, 12])}
    found = [
        identify(
            Packet(
                op=1,
                xid=1,
                hardware=bytes([0x52, 0x54, 0, 0, 0, last]),
                options={**model, 12: b"ws-%d" % last, 97: b"\0" + bytes(15) + bytes([last])},
            )
        )
        for last in (1, 2)
    ]
    assert [client and client.mac for client in found] == ["52:54:00:00:00:01", "52:54:00:00:00:02"]
    assert [client and client.hostname for client in found] == ["ws-1", "ws-2"]
    assert [client and client.uuid and client.uuid.int & 255 for client in found] == [1, 2]
    assert {client and (client.stage, client.arch, client.wants) for client in found} == {
        (Stage.FIRMWARE, (7,), frozenset({1, 3, 12}))
    }


def test_an_option_that_is_empty_is_not_one_that_is_absent() -> None:
    hardware = bytes([0x52, 0x54, 0, 0, 0, 1])
    stages = []
    for options in ({}, {175: b""}, {}, {175: b""}):
        client = identify(Packet(op=1, xid=1, hardware=hardware, options=options))
        assert client is not None
        stages.append(client.stage)
    assert stages == [Stage.OS, Stage.IPXE, Stage.OS, Stage.IPXE]
