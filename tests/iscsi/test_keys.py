"""The login keys: the table is whole, and each rule negotiates as section 6.2 says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi import keys
from netboot.iscsi.keys import KEYS, Outcome, Parameters, Rule, Use


@pytest.mark.parametrize("row", KEYS.values(), ids=lambda row: row.name)
def test_every_row_is_whole(row: keys.Key) -> None:
    assert row.ref
    if row.rule in (Rule.MINIMUM, Rule.MAXIMUM):
        assert row.low <= int(row.ours) <= row.high
        assert row.low <= int(row.default) <= row.high
    if row.rule in (Rule.AND, Rule.OR):
        assert {row.ours, row.default} <= {"Yes", "No"}
    if row.rule is Rule.CHOICE:
        assert row.default in row.ours.split(",")


@pytest.mark.parametrize("row", KEYS.values(), ids=lambda row: row.name)
def test_every_default_is_acceptable(row: keys.Key) -> None:
    outcome = keys.negotiate(row.name, row.default)
    assert outcome.answer != "Reject"


@pytest.mark.parametrize(
    ("name", "offer", "answer"),
    [
        ("HeaderDigest", "None", "None"),
        ("HeaderDigest", "None,CRC32C", "None"),  # libiscsi: the initiator's order counts
        ("HeaderDigest", "CRC32C,None", "CRC32C"),
        ("DataDigest", "X-else,CRC32C", "CRC32C"),
        ("DataDigest", "MD5", "Reject"),
        ("MaxConnections", "1", "1"),
        ("MaxConnections", "8", "1"),
        ("MaxConnections", "0", "Reject"),
        ("InitialR2T", "Yes", "Yes"),  # iPXE
        ("InitialR2T", "No", "No"),
        ("InitialR2T", "maybe", "Reject"),
        ("ImmediateData", "No", "No"),  # iPXE
        ("ImmediateData", "Yes", "Yes"),
        ("MaxBurstLength", "262144", "262144"),
        ("MaxBurstLength", "16776192", "1048576"),  # open-iscsi
        ("MaxBurstLength", "511", "Reject"),
        ("FirstBurstLength", "65536", "65536"),
        ("FirstBurstLength", "0x10000", "65536"),
        ("DefaultTime2Wait", "2", "2"),
        ("DefaultTime2Wait", "0", "0"),  # iPXE
        ("DefaultTime2Retain", "20", "0"),  # EDK2: nothing of ours outlives its connection
        ("MaxOutstandingR2T", "16", "1"),
        ("DataPDUInOrder", "No", "Yes"),
        ("DataSequenceInOrder", "Yes", "Yes"),
        ("ErrorRecoveryLevel", "2", "0"),
        ("ErrorRecoveryLevel", "3", "Reject"),
        ("IFMarker", "No", "No"),
        ("OFMarker", "Yes", "No"),
        ("OFMarkInt", "2048~8192", "Irrelevant"),
        ("TaskReporting", "ResponseFence,RFC3720", "RFC3720"),
        ("iSCSIProtocolLevel", "2", "1"),
        ("X-com.example.else", "1", "NotUnderstood"),
        ("nonsense", "", "NotUnderstood"),
    ],
)
def test_the_answer_to_an_offer(name: str, offer: str, answer: str) -> None:
    assert keys.negotiate(name, offer).answer == answer


@pytest.mark.parametrize(
    ("name", "offer", "outcome"),
    [
        ("MaxRecvDataSegmentLength", "8192", Outcome(None, "8192")),
        ("MaxRecvDataSegmentLength", "511", Outcome("Reject", None)),
        ("MaxRecvDataSegmentLength", "16777216", Outcome("Reject", None)),
        ("InitiatorAlias", "somebody", Outcome(None, "somebody")),
        ("SessionType", "Discovery", Outcome(None, "Discovery")),
    ],
)
def test_what_is_declared_gets_no_answer(name: str, offer: str, outcome: Outcome) -> None:
    assert keys.negotiate(name, offer) == outcome


def test_our_wish_can_be_replaced() -> None:
    assert keys.negotiate("AuthMethod", "None,CHAP", "CHAP").answer == "CHAP"
    assert keys.negotiate("AuthMethod", "CHAP,None", "None").answer == "None"
    assert keys.negotiate("AuthMethod", "None", "CHAP") == Outcome("Reject", None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("0012", 12),
        ("0x1F", 31),
        ("0X1f", 31),
        ("", None),
        ("-1", None),
        ("+1", None),
        ("0x", None),
        ("0x-1", None),
        ("0x1_0", None),
        ("1_0", None),
        (" 1", None),
        ("²", None),
        ("٣", None),
        ("0xg", None),
    ],
)
def test_numbers_are_decimal_or_hexadecimal(text: str, value: int | None) -> None:
    assert keys.number(text) == value


@given(st.sampled_from(sorted(KEYS)), st.text(max_size=40))
def test_no_offer_raises_and_no_answer_is_ill_formed(name: str, offer: str) -> None:
    outcome = keys.negotiate(name, offer)
    row = KEYS[name]
    if outcome.value is not None and row.rule in (Rule.MINIMUM, Rule.MAXIMUM):
        assert row.low <= int(outcome.value) <= row.high
    assert outcome.answer is None or "\0" not in outcome.answer


@pytest.mark.parametrize(
    ("offer", "wish"),
    [
        ("65536", "65536"),
        ("16776192", "262144"),
        ("0x200", "512"),
        ("100", "512"),
        ("no", "262144"),
    ],
)
def test_our_first_burst_is_within_a_burst(offer: str, wish: str) -> None:
    assert keys.first_burst([("InitialR2T", "No"), ("MaxBurstLength", offer)]) == wish


def test_agreed_values_become_parameters() -> None:
    parameters = Parameters()
    keys.apply(
        parameters,
        [
            ("HeaderDigest", "CRC32C"),
            ("DataDigest", "None"),
            ("MaxRecvDataSegmentLength", "0x10000"),
            ("MaxBurstLength", "524288"),
            ("FirstBurstLength", "131072"),
            ("InitialR2T", "No"),
            ("ImmediateData", "No"),
            ("MaxConnections", "1"),
        ],
    )
    assert parameters == Parameters(
        header_digest=True,
        data_digest=False,
        send_segment=65536,
        max_burst=524288,
        first_burst=131072,
        initial_r2t=False,
        immediate_data=False,
    )


def test_parameters_begin_at_the_defaults_of_the_table() -> None:
    fresh, told = Parameters(), Parameters()
    keys.apply(told, [(row.name, row.default) for row in KEYS.values()])
    assert fresh == told


def test_security_and_full_feature_keys_are_marked() -> None:
    assert KEYS["AuthMethod"].use is Use.SECURITY
    assert KEYS["SendTargets"].use is Use.FULL
    assert not keys.AUTH_KEYS & set(KEYS)
