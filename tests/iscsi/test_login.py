"""Logins as firmware and operating systems send them, key for key, and every way to fail."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi import auth
from netboot.iscsi.login import SPEAKS, TRANSITS, Answer, Login, Request, Stage
from netboot.iscsi.target import Identity
from netboot.iscsi.wire import LoginStatus
from netboot.model import Admission, Chap, Knock

NAME = "iqn.2010-04.org.ipxe:ws1"
TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
ISID = b"\x40\x00\x27\x23\x12\x34"
WELCOME = Admission(0, "52:54:00:12:34:56", TARGET)
CHAP = Chap("ws1", "a secret of 12+", "lab", "another secret!", (5, 7))
T, C = 0x80, 0x40


def request(flags: int, *pairs: str, **more: Any) -> Request:
    data = "".join(pair + "\0" for pair in pairs).encode()
    fields = {"version_min": 0, "isid": ISID, "tsih": 0, "cid": 0, **more}
    return Request(flags, text=fields.pop("text", data), **fields)


def begin(first: Request, admission: Admission = WELCOME) -> tuple[Login, Answer]:
    """The first request of a login that gets as far as a Knock, and its answer."""
    login = Login("10.0.0.9", lambda n: bytes(range(1, n + 1)))
    knock = login.receive(first)
    assert isinstance(knock, Knock)
    return login, login.admit(admission)


def said(answer: Answer | Knock) -> list[str]:
    assert isinstance(answer, Answer)
    assert answer.status == LoginStatus.SUCCESS, answer.reason
    return [f"{name}={value}" for name, value in answer.pairs]


def refused(answer: Answer | Knock) -> int:
    assert isinstance(answer, Answer) and answer.reason and answer.pairs == ()
    return answer.status


NAMES = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
IPXE_OPERATIONAL = (
    "HeaderDigest=None",
    "DataDigest=None",
    "MaxConnections=1",
    "InitialR2T=Yes",
    "ImmediateData=No",
    "MaxRecvDataSegmentLength=8192",
    "MaxBurstLength=262144",
    "FirstBurstLength=65536",
    "DefaultTime2Wait=0",
    "DefaultTime2Retain=0",
    "MaxOutstandingR2T=1",
    "DataPDUInOrder=Yes",
    "DataSequenceInOrder=Yes",
    "ErrorRecoveryLevel=0",
)


def test_ipxe() -> None:
    """Two requests: CSG 0 to 1, then 1 to 3, T set on both."""
    login, first = begin(request(T | 1, *NAMES, "AuthMethod=None"))
    assert said(first) == ["TargetPortalGroupTag=1", "AuthMethod=None"]
    assert first.flags == T | 1
    second = login.receive(request(T | 1 << 2 | 3, *IPXE_OPERATIONAL))
    assert said(second) == [
        "HeaderDigest=None",
        "DataDigest=None",
        "MaxConnections=1",
        "InitialR2T=Yes",
        "ImmediateData=No",
        "MaxRecvDataSegmentLength=262144",
        "MaxBurstLength=262144",
        "FirstBurstLength=65536",
        "DefaultTime2Wait=0",
        "DefaultTime2Retain=0",
        "MaxOutstandingR2T=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "ErrorRecoveryLevel=0",
    ]
    assert isinstance(second, Answer) and second.flags == T | 1 << 2 | 3
    assert login.stage is Stage.FULL
    assert login.identity == Identity(NAME, ISID, TARGET)


def test_ipxe_is_asked_about_by_all_that_it_says() -> None:
    login = Login("10.0.0.9", bytes)
    knock = login.receive(request(T | 1, *NAMES, "AuthMethod=CHAP,None"))
    assert knock == Knock(NAME, TARGET, "10.0.0.9", "400027231234", False)
    assert said(login.admit(WELCOME))[1] == "AuthMethod=None"


def test_edk2() -> None:
    """TargetPortalGroupTag and AuthMethod first; then every offered key, once, nothing else."""
    login, first = begin(
        request(
            T | 1,
            f"InitiatorName={NAME}",
            "SessionType=Normal",
            f"TargetName={TARGET}",
            "AuthMethod=None",
        )
    )
    assert said(first) == ["TargetPortalGroupTag=1", "AuthMethod=None"]
    second = login.receive(
        request(
            T | 1 << 2 | 3,
            "HeaderDigest=None,CRC32C",
            "DataDigest=None,CRC32C",
            "ErrorRecoveryLevel=0",
            "InitialR2T=No",
            "ImmediateData=Yes",
            "MaxRecvDataSegmentLength=65536",
            "MaxBurstLength=262144",
            "FirstBurstLength=65536",
            "MaxConnections=1",
            "DataPDUInOrder=Yes",
            "DataSequenceInOrder=Yes",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=20",
            "MaxOutstandingR2T=1",
        )
    )
    assert said(second) == [
        "HeaderDigest=None",
        "DataDigest=None",
        "ErrorRecoveryLevel=0",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "MaxRecvDataSegmentLength=262144",
        "MaxBurstLength=262144",
        "FirstBurstLength=65536",
        "MaxConnections=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "MaxOutstandingR2T=1",
    ]


def test_open_iscsi() -> None:
    """Without credentials: everything in one request, CSG 1 to 3, markers offered."""
    login, answer = begin(
        request(
            T | 1 << 2 | 3,
            f"InitiatorName={NAME}",
            "InitiatorAlias=ws1",
            f"TargetName={TARGET}",
            "SessionType=Normal",
            "HeaderDigest=None",
            "DataDigest=None",
            "DefaultTime2Wait=2",
            "DefaultTime2Retain=0",
            "IFMarker=No",
            "OFMarker=No",
            "ErrorRecoveryLevel=0",
            "InitialR2T=No",
            "ImmediateData=Yes",
            "MaxBurstLength=16776192",
            "FirstBurstLength=262144",
            "MaxOutstandingR2T=1",
            "MaxConnections=1",
            "DataPDUInOrder=Yes",
            "DataSequenceInOrder=Yes",
            "MaxRecvDataSegmentLength=262144",
        )
    )
    assert said(answer) == [
        "TargetPortalGroupTag=1",
        "HeaderDigest=None",
        "DataDigest=None",
        "DefaultTime2Wait=2",
        "DefaultTime2Retain=0",
        "IFMarker=No",
        "OFMarker=No",
        "ErrorRecoveryLevel=0",
        "InitialR2T=No",
        "ImmediateData=Yes",
        "MaxBurstLength=1048576",
        "FirstBurstLength=262144",
        "MaxOutstandingR2T=1",
        "MaxConnections=1",
        "DataPDUInOrder=Yes",
        "DataSequenceInOrder=Yes",
        "MaxRecvDataSegmentLength=262144",
    ]
    assert login.stage is Stage.FULL
    assert ("MaxRecvDataSegmentLength", "262144") in login.agreed
    assert not [name for name, _ in login.agreed if "Marker" in name]


@pytest.mark.parametrize("order", [1, -1])
def test_unasked_data_is_no_more_than_a_burst(order: int) -> None:
    """Linux takes no session with FirstBurstLength above MaxBurstLength (section 13.14)."""
    bursts = ("MaxBurstLength=131072", "FirstBurstLength=262144")[::order]
    names = (f"InitiatorName={NAME}", f"TargetName={TARGET}", "SessionType=Normal")
    _, answer = begin(request(T | 1 << 2 | 3, *names, *bursts))
    want = ("MaxBurstLength=131072", "FirstBurstLength=131072")[::order]
    assert said(answer) == ["TargetPortalGroupTag=1", *want]


def test_libiscsi_with_its_digests() -> None:
    _, answer = begin(
        request(T | 1 << 2 | 3, *NAMES, "HeaderDigest=CRC32C,None", "DataDigest=None")
    )
    assert said(answer)[1:] == ["HeaderDigest=CRC32C", "DataDigest=None"]


def test_discovery_has_no_target_and_no_portal_group() -> None:
    login, answer = begin(request(T | 1 << 2 | 3, f"InitiatorName={NAME}", "SessionType=Discovery"))
    assert said(answer) == [] and login.discovery
    assert login.stage is Stage.FULL


def test_the_portal_group_is_the_one_it_came_in_by() -> None:
    login = Login("10.0.0.9", lambda n: bytes(n), 7)
    assert isinstance(login.receive(request(T | 1, *NAMES, "AuthMethod=None")), Knock)
    assert said(login.admit(WELCOME))[0] == "TargetPortalGroupTag=7"
    assert login.identity == Identity(NAME, ISID, TARGET, 7)


@pytest.mark.parametrize("chap", [None, CHAP])
@pytest.mark.parametrize("method", ["None", "CHAP,None"])
def test_a_redirect_comes_before_any_proof(chap: Chap | None, method: str) -> None:
    """RFC 7143 section 11.13.5; in 13.8: no portal group tag behind it. Nothing is answered to
    keys that were offered, as nothing is agreed."""
    moved = Admission(0x0101, "m", TARGET, detail="drained", chap=chap, redirect="10.0.0.2:3260")
    login, answer = begin(request(T | 1, *NAMES, f"AuthMethod={method}"), moved)
    pairs = (("TargetAddress", "10.0.0.2:3260"),)
    assert answer == Answer(0, 0x0101, pairs, "drained") and login.stage is Stage.FAILED


def answer_to(challenge: list[str], algorithm: int, chap: Chap) -> list[str]:
    keys = dict(pair.split("=", 1) for pair in challenge)
    assert keys["CHAP_A"] == str(algorithm)
    proof = auth.response(
        algorithm, int(keys["CHAP_I"]), chap.secret, auth.read_binary(keys["CHAP_C"])
    )
    return [f"CHAP_N={chap.name}", f"CHAP_R=0x{proof.hex()}"]


WITH_CHAP = Admission(0, "52:54:00:12:34:56", TARGET, chap=CHAP)


def test_ipxe_sets_t_in_the_middle_of_chap_and_we_do_not() -> None:
    login, first = begin(request(T | 1, *NAMES, "AuthMethod=CHAP,None"), WITH_CHAP)
    assert said(first) == ["TargetPortalGroupTag=1", "AuthMethod=CHAP"]
    assert first.flags == 0
    second = login.receive(request(T | 1, "CHAP_A=5"))
    assert isinstance(second, Answer) and second.flags == 0
    third = login.receive(request(T | 1, *answer_to(said(second), 5, CHAP)))
    assert said(third) == []
    assert isinstance(third, Answer) and third.flags == T | 1
    assert login.stage is Stage.OPERATIONAL


def test_mutual_chap_where_ipxe_sets_t_on_every_request() -> None:
    """iPXE pull request 1444: a target that transits early is "trying to bypass"."""
    login, _ = begin(request(T | 1, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    second = login.receive(request(T | 1, "CHAP_A=5"))
    theirs = ["CHAP_I=7", "CHAP_C=0x" + "5a" * 16]
    third = login.receive(request(T | 1, *answer_to(said(second), 5, CHAP), *theirs))
    proof = auth.response(5, 7, CHAP.mutual_secret, b"\x5a" * 16)
    assert said(third) == ["CHAP_N=lab", f"CHAP_R=0x{proof.hex()}"]
    assert isinstance(third, Answer) and third.flags == T | 1


def test_mutual_chap_of_ipxe_from_the_first_request_to_the_last() -> None:
    """The shape of its three requests of the security stage and the one behind it (iscsi.c,
    iscsi_build_login_request_strings): T and NSG 1 on each, CHAP alone offered, its challenge of
    its own length and digits in lower case."""
    login, first = begin(request(T | 1, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    flags = [first.flags]
    second = login.receive(request(T | 1, "CHAP_A=5"))
    theirs = ["CHAP_I=0", "CHAP_C=0x" + "00ff" * 8]
    keys = answer_to(said(second), 5, CHAP)
    third = login.receive(request(T | 1, *keys, *theirs))
    assert isinstance(second, Answer) and isinstance(third, Answer)
    assert [name for name, _ in third.pairs] == ["CHAP_N", "CHAP_R"], "before it looks at T"
    fourth = login.receive(request(T | 1 << 2 | 3, *IPXE_OPERATIONAL))
    assert isinstance(fourth, Answer)
    flags += [second.flags, third.flags, fourth.flags]
    assert flags == [0, 0, T | 1, T | 1 << 2 | 3]
    assert login.stage is Stage.FULL
    assert (login.proof, login.unproved) == ("mutual CHAP with MD5", "")


def test_ipxe_with_secrets_at_a_target_that_wants_none() -> None:
    """One way it offers None too; with reverse names it insists, and says so on its screen."""
    login, first = begin(request(T | 1, *NAMES, "AuthMethod=CHAP,None"))
    assert said(first)[1] == "AuthMethod=None" and first.flags == T | 1
    assert login.proof == ""
    login, second = begin(request(T | 1, *NAMES, "AuthMethod=CHAP"))
    assert refused(second) == LoginStatus.AUTHENTICATION_FAILURE


def test_discovery_by_mutual_chap_as_open_iscsi_does_it() -> None:
    """In three requests of the security stage, T only where it is done; CHAP_A is a list."""
    names = (f"InitiatorName={NAME}", "SessionType=Discovery")
    login, first = begin(request(0, *names, "AuthMethod=CHAP,None"), WITH_CHAP)
    assert said(first) == ["AuthMethod=CHAP"] and login.discovery
    second = login.receive(request(0, "CHAP_A=8,7,6,5"))
    theirs = ["CHAP_I=255", "CHAP_C=0b" + base64.b64encode(b"theirs").decode()]
    third = login.receive(request(T | 1, *answer_to(said(second), 7, CHAP), *theirs))
    proof = auth.response(7, 255, CHAP.mutual_secret, b"theirs")
    assert said(third) == ["CHAP_N=lab", f"CHAP_R=0x{proof.hex()}"]
    last = login.receive(request(T | 1 << 2 | 3, "HeaderDigest=None"))
    assert said(last) == ["HeaderDigest=None"]
    assert login.stage is Stage.FULL
    assert login.proof == "mutual CHAP with SHA256"


def test_discovery_without_a_proof_is_refused_where_one_is_wanted() -> None:
    _, answer = begin(
        request(T | 1, f"InitiatorName={NAME}", "SessionType=Discovery", "AuthMethod=None"),
        WITH_CHAP,
    )
    assert refused(answer) == LoginStatus.AUTHENTICATION_FAILURE


def test_a_reflected_challenge_ends_the_login() -> None:
    """RFC 7143 section 9.2.1: the connection is closed."""
    login, _ = begin(request(T | 1, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    second = said(login.receive(request(T | 1, "CHAP_A=5")))
    ours = dict(pair.split("=", 1) for pair in second)["CHAP_C"]
    back = [*answer_to(second, 5, CHAP), "CHAP_I=7", f"CHAP_C={ours}"]
    answer = login.receive(request(T | 1, *back))
    assert refused(answer) == LoginStatus.AUTHENTICATION_FAILURE
    assert "reflection" in login.unproved
    assert login.stage is Stage.FAILED


def test_edk2_prefers_sha256() -> None:
    login, _ = begin(request(0, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    second = login.receive(request(0, "CHAP_A=7,5"))
    assert said(second)[0] == "CHAP_A=7"


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        (["AuthMethod=None"], "CHAP only"),
        (["AuthMethod=SRP"], "CHAP only"),
        (["CHAP_A=5"], "CHAP keys before AuthMethod"),
    ],
)
def test_who_must_prove_itself_does(pairs: list[str], why: str) -> None:
    _, answer = begin(request(T | 1, *NAMES, *pairs), WITH_CHAP)
    assert refused(answer) == LoginStatus.AUTHENTICATION_FAILURE
    assert why in answer.reason


def test_chap_cannot_be_left_out_by_beginning_later() -> None:
    _, answer = begin(request(T | 1 << 2 | 3, *NAMES), WITH_CHAP)
    assert refused(answer) == LoginStatus.AUTHENTICATION_FAILURE


def test_chap_cannot_be_left_out_by_transit() -> None:
    login, _ = begin(request(T | 3, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    again = login.receive(request(T | 3))
    assert said(again) == [] and isinstance(again, Answer) and again.flags == 0
    assert refused(login.receive(request(T | 1 << 2 | 3))) == LoginStatus.INVALID_REQUEST


def test_a_wrong_secret() -> None:
    login, _ = begin(request(0, *NAMES, "AuthMethod=CHAP"), WITH_CHAP)
    second = login.receive(request(0, "CHAP_A=5"))
    wrong = answer_to(said(second), 5, Chap("ws1", "something else"))
    assert refused(login.receive(request(T | 1, *wrong))) == LoginStatus.AUTHENTICATION_FAILURE
    assert login.stage is Stage.FAILED
    assert (login.unproved, login.proof) == ("name or secret is wrong", "")


def test_who_need_not_prove_anything_may_not_insist() -> None:
    _, answer = begin(request(T | 1, *NAMES, "AuthMethod=CHAP"))
    assert refused(answer) == LoginStatus.AUTHENTICATION_FAILURE


def test_the_answer_to_a_refused_knock_is_its_status() -> None:
    _, answer = begin(request(T | 1, *NAMES), Admission(0x0301, detail="later"))
    assert (refused(answer), answer.reason) == (0x0301, "later")


def test_text_over_several_requests() -> None:
    """The C bit (section 11.12.3): answered empty until the text is whole."""
    login = Login("10.0.0.9", bytes)
    for piece in ("InitiatorNa", f"me={NAME}\0TargetName={TARGET}\0Header"):
        empty = login.receive(request(C | 1 << 2, text=piece.encode()))
        assert empty == Answer(flags=1 << 2)
    assert isinstance(login.receive(request(T | 1 << 2 | 3, "Digest=None")), Knock)
    assert said(login.admit(WELCOME)) == ["TargetPortalGroupTag=1", "HeaderDigest=None"]


def test_stages_without_t_go_on_as_long_as_the_initiator_likes() -> None:
    login, first = begin(request(1 << 2, *NAMES))
    assert first.flags == 1 << 2
    again = login.receive(request(1 << 2, "MaxConnections=4"))
    assert said(again) == ["MaxConnections=1"]
    assert said(login.receive(request(T | 1 << 2 | 3))) == []
    assert login.stage is Stage.FULL


def test_operational_keys_in_the_security_stage() -> None:
    """MaxRecvDataSegmentLength may be declared anywhere; the others have their stage."""
    login, first = begin(
        request(T | 1, *NAMES, "MaxRecvDataSegmentLength=4096", "MaxConnections=1", "X-y=1")
    )
    assert said(first) == [
        "TargetPortalGroupTag=1",
        "MaxRecvDataSegmentLength=262144",
        "MaxConnections=Reject",
        "X-y=NotUnderstood",
    ]
    assert (
        login.agreed == [("MaxRecvDataSegmentLength", "4096")]
        or (
            "MaxRecvDataSegmentLength",
            "4096",
        )
        in login.agreed
    )


REFUSED_AT_ONCE = [
    (request(T | 1, f"TargetName={TARGET}"), LoginStatus.MISSING_PARAMETER),
    (request(T | 1, f"InitiatorName={NAME}"), LoginStatus.MISSING_PARAMETER),
    (request(T | 1, "InitiatorName=a b", "TargetName=x"), LoginStatus.INITIATOR_ERROR),
    (request(T | 1, "InitiatorName=" + "x" * 224), LoginStatus.INITIATOR_ERROR),
    (request(T | 1, f"InitiatorName={NAME}", "SessionType=Odd"), LoginStatus.TYPE_NOT_SUPPORTED),
    (request(T | 1, *NAMES, version_min=1), LoginStatus.UNSUPPORTED_VERSION),
    (request(T | 1, *NAMES, tsih=9), LoginStatus.NO_SESSION),
    (request(2 << 2, *NAMES), LoginStatus.INVALID_REQUEST),
    (request(3 << 2, *NAMES), LoginStatus.INVALID_REQUEST),
    (request(T | 0, *NAMES), LoginStatus.INVALID_REQUEST),
    (request(T | 2, *NAMES), LoginStatus.INVALID_REQUEST),
    (request(T | 1 << 2 | 1, *NAMES), LoginStatus.INVALID_REQUEST),
    (request(T | C | 1, *NAMES), LoginStatus.INITIATOR_ERROR),
    (request(T | 1, *NAMES, f"InitiatorName={NAME}"), LoginStatus.INITIATOR_ERROR),
    (request(T | 1, text=b"rubbish"), LoginStatus.INITIATOR_ERROR),
    (request(C, text=b"x" * 65537), LoginStatus.OUT_OF_RESOURCES),
]


@pytest.mark.parametrize(("first", "status"), REFUSED_AT_ONCE)
def test_what_is_refused_at_once(first: Request, status: int) -> None:
    login = Login("10.0.0.9", bytes)
    assert refused(login.receive(first)) == status
    assert login.stage is Stage.FAILED
    assert refused(login.receive(request(T | 1, *NAMES))) == LoginStatus.INVALID_REQUEST


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (request(T | 1, "MaxConnections=1"), LoginStatus.INVALID_REQUEST),  # a stage back
        (request(1 << 2, isid=b"another"), LoginStatus.INITIATOR_ERROR),
        (request(1 << 2, cid=5), LoginStatus.INITIATOR_ERROR),
        (request(1 << 2, "MaxConnections=1"), LoginStatus.INITIATOR_ERROR),  # a second time
        (request(1 << 2, "AuthMethod=None"), LoginStatus.INVALID_REQUEST),
        (request(1 << 2, "SendTargets=All"), LoginStatus.INVALID_REQUEST),
    ],
)
def test_what_is_refused_midway(second: Request, status: int) -> None:
    login, _ = begin(request(1 << 2, *NAMES, "MaxConnections=1"))
    assert refused(login.receive(second)) == status


def test_a_login_comes_to_an_end() -> None:
    login, _ = begin(request(1 << 2, *NAMES))
    for _ in range(31):
        assert said(login.receive(request(1 << 2))) == []
    assert refused(login.receive(request(1 << 2))) == LoginStatus.INITIATOR_ERROR


def test_the_tables_lead_from_the_start_to_full_feature_and_nowhere_else() -> None:
    reached, edges = {Stage.START}, set()
    for _ in Stage:
        for (here, _), there in [*SPEAKS.items(), *TRANSITS.items()]:
            if here in reached:
                reached.add(there)
                edges.add((here, there))
    assert reached == {Stage.START, Stage.SECURITY, Stage.OPERATIONAL, Stage.FULL}
    assert (Stage.OPERATIONAL, Stage.SECURITY) not in edges
    assert not [edge for edge in edges if edge[0] is Stage.FULL]


PAIR = st.builds(
    "{}={}".format,
    st.sampled_from([*"AB", "InitiatorName", "CHAP_A", "AuthMethod"]),
    st.text(max_size=20),
)


@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.lists(PAIR, max_size=4), st.binary(max_size=40)),
        max_size=8,
    ),
    st.booleans(),
)
def test_no_conversation_raises(
    conversation: list[tuple[int, list[str], bytes]], chap: bool
) -> None:
    login = Login("10.0.0.9", lambda n: bytes(n))
    for flags, pairs, rubbish in conversation:
        data = "".join(pair + "\0" for pair in pairs).encode(errors="ignore") + rubbish
        outcome = login.receive(request(flags, text=data))
        if isinstance(outcome, Knock):
            outcome = login.admit(WITH_CHAP if chap else WELCOME)
        assert outcome.status == 0 or login.stage is Stage.FAILED
        if outcome.status:
            break
