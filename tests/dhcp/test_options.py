"""Every row of every table: it decodes what it encodes, and refuses what is not one."""

from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.dhcp import DHCPOptions

from netboot.dhcp import options
from netboot.dhcp.options import Ipxe, Option, Pxe, RelayAgent, Row
from netboot.errors import WireError

TABLES = (Option, Pxe, Ipxe, RelayAgent)
ROWS = [row for table in TABLES for row in table]
A, B = IPv4Address("192.168.77.1"), IPv4Address("10.0.0.9")

#: For each type: a value, its bytes, and bytes that are no such value.
SAMPLES: dict[str, tuple[Any, bytes, list[bytes]]] = {
    "uint8": (8, b"\x08", [b"", b"\0\0"]),
    "uint16": (1472, b"\x05\xc0", [b"", b"\0", b"\0\0\0"]),
    "uint32": (3600, b"\0\0\x0e\x10", [b"\0\0\0", b"\0\0\0\0\0"]),
    "uint8 list": ((1, 3, 175), b"\x01\x03\xaf", [b""]),
    "uint16 list": ((7, 9), b"\0\x07\0\x09", [b"", b"\0", b"\0\0\0"]),
    "address": (A, bytes((192, 168, 77, 1)), [b"", b"\x0a\0\0", b"\x0a\0\0\x01\x0a"]),
    "address list": ((A, B), A.packed + B.packed, [b"", b"\x0a\0\0", b"\0" * 9]),
    "text": ("ws1", b"ws1", []),
    "text, NUL": ("snponly.efi", b"snponly.efi\0", []),
    "bytes": (b"\xff\0", b"\xff\0", []),
    "machine id": (
        UUID("03020100-0504-0706-0809-0a0b0c0d0e0f"),
        b"\0" + bytes(range(16)),
        [b"", bytes(16), b"\x01" + bytes(16), bytes(18)],
    ),
    "sub-options": ({6: b"\x08"}, b"\x06\x01\x08\xff", [b"\x06", b"\x06\x02\x08"]),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{type(row).__name__}-{row.label}")
def test_a_row_decodes_what_it_encodes(row: Row) -> None:
    value, data, wrong = SAMPLES[row.kind.name]
    assert row.encode(value) == data
    assert row.decode(data) == value
    assert row.get({row.code: data}, type(value)) == value
    for bad in wrong:
        with pytest.raises(WireError, match=rf"option {row.code} \({row.label}\)"):
            row.decode(bad)
        assert row.get({row.code: bad}, type(value)) is None


@pytest.mark.parametrize("table", TABLES)
def test_codes_and_labels_are_unique_and_sourced(table: type[Row]) -> None:
    assert len({row.code for row in table}) == len(table.__members__)
    assert len({row.label for row in table}) == len(table.__members__)
    assert all(0 < row.code < 255 and row.reference for row in table)


def test_every_type_is_sampled_and_used() -> None:
    assert {row.kind.name for row in ROWS} == set(SAMPLES)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (Option.SUBNET_MASK, "subnet_mask"),
        (Option.ROUTERS, "router"),
        (Option.DNS_SERVERS, "name_server"),
        (Option.HOST_NAME, "hostname"),
        (Option.DOMAIN_NAME, "domain"),
        (Option.BROADCAST_ADDRESS, "broadcast_address"),
        (Option.REQUESTED_ADDRESS, "requested_addr"),
        (Option.LEASE_TIME, "lease_time"),
        (Option.MESSAGE_TYPE, "message-type"),
        (Option.SERVER_ID, "server_id"),
        (Option.PARAMETERS, "param_req_list"),
        (Option.MAXIMUM_SIZE, "max_dhcp_size"),
        (Option.RENEWAL_TIME, "renewal_time"),
        (Option.REBINDING_TIME, "rebinding_time"),
        (Option.VENDOR_CLASS, "vendor_class_id"),
        (Option.CLIENT_ID, "client_id"),
        (Option.RELAY_AGENT, "relay_agent_information"),
    ],
)
def test_scapy_agrees_on_the_codes(row: Option, name: str) -> None:
    known = DHCPOptions[row.code]
    label = known if isinstance(known, str) else known.name
    assert label.replace("-", "_").lower() == name.replace("-", "_").lower()


def test_absent_is_none() -> None:
    assert Option.SERVER_ID.get({}, IPv4Address) is None


def test_another_type_than_asked_is_none() -> None:
    assert Option.SERVER_ID.get({54: A.packed}, int) is None


def test_text_loses_its_nul_and_never_fails() -> None:
    assert Option.HOST_NAME.decode(b"ws1\0\0") == "ws1"
    assert Option.HOST_NAME.decode(b"\xff\xfe") == "��"


def test_only_firmware_texts_end_in_nul() -> None:
    ended = {row for row in Option if row.kind is options.TEXT_NUL}
    assert ended == {Option.SERVER_NAME, Option.BOOT_FILE}


def test_machine_ids_are_mixed_endian() -> None:
    """As in SMBIOS: dmidecode shows 4c4c4544-… for bytes that begin 44 45 4c 4c."""
    raw = b"\0" + bytes.fromhex("44454c4c 3500 1031 8052 b4c04f4a4a31")
    assert str(Option.MACHINE_ID.decode(raw)) == "4c4c4544-0035-3110-8052-b4c04f4a4a31"


@given(st.sampled_from(ROWS), st.binary(max_size=40))
def test_garbage_is_a_wire_error_or_a_value(row: Row, data: bytes) -> None:
    try:
        value = row.decode(data)
    except WireError:
        assert row.get({row.code: data}, object) is None
    else:
        assert row.get({row.code: data}, object) == value
