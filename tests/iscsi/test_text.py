"""SendTargets, text over several PDUs, late declarations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.iscsi.session import Session
from netboot.iscsi.target import Identity
from netboot.iscsi.text import TEXT_LIMIT, Piece, Texts
from netboot.iscsi.wire import NO_TAG, Reason

TARGET = "iqn.2026-11.lab.netboot:52-54-00-12-34-56"
F, C = 0x80, 0x40


def session(discovery: bool = True) -> Session:
    return Session(Identity("iqn.a", b"123456", TARGET), discovery=discovery)


def ask(
    texts: Texts,
    data: bytes,
    *,
    flags: int = F,
    tag: int = NO_TAG,
    room: int = 8192,
    of: Session | None = None,
    targets: tuple[str, ...] = (TARGET,),
) -> Piece | Reason:
    return texts.receive(of or session(), targets, flags, tag, data, room)


def texts() -> Texts:
    return Texts(("192.168.77.1:3260,1",))


ANSWER = f"TargetName={TARGET}\0TargetAddress=192.168.77.1:3260,1\0".encode()


@pytest.mark.parametrize("value", ["All", "", TARGET])
def test_discovery_shows_the_own_target(value: str) -> None:
    answer = ask(texts(), f"SendTargets={value}\0".encode())
    assert answer == Piece(F, NO_TAG, ANSWER)


def test_discovery_of_another_shows_nothing() -> None:
    assert ask(texts(), b"SendTargets=iqn.else\0") == Piece(F, NO_TAG, b"")
    assert ask(texts(), b"SendTargets=All\0", targets=()) == Piece(F, NO_TAG, b"")


def test_in_a_normal_session() -> None:
    """Section 11.3 of appendix C: own target only, and "All" is for discovery."""
    of = session(discovery=False)
    assert ask(texts(), b"SendTargets=\0", of=of) == Piece(F, NO_TAG, ANSWER)
    assert ask(texts(), b"SendTargets=All\0", of=of) == Piece(F, NO_TAG, b"SendTargets=Reject\0")


def test_a_request_over_three_pdus() -> None:
    exchange = texts()
    assert ask(exchange, b"SendTar", flags=C) == Piece(0, 1, b"")
    assert ask(exchange, b"gets=A", flags=C, tag=1) == Piece(0, 1, b"")
    assert ask(exchange, b"ll\0", tag=1) == Piece(F, NO_TAG, ANSWER)


def test_an_answer_over_several_pdus() -> None:
    exchange = texts()
    piece = ask(exchange, b"SendTargets=All\0", room=40)
    got = b""
    for _ in range(10):
        assert isinstance(piece, Piece) and len(piece.data) <= 40
        got += piece.data
        if piece.flags == F:
            break
        assert (piece.flags, piece.tag) == (C, 1)
        piece = ask(exchange, b"", tag=1, room=40)
    assert got == ANSWER


def test_a_new_exchange_gives_the_old_one_up() -> None:
    exchange = texts()
    ask(exchange, b"SendTargets=All\0", room=40)
    assert ask(exchange, b"X-a=1\0") == Piece(F, NO_TAG, b"X-a=NotUnderstood\0")
    ask(exchange, b"SendTar", flags=C)
    assert ask(exchange, b"X-a=1\0") == Piece(F, NO_TAG, b"X-a=NotUnderstood\0")


def test_late_declaration_of_what_the_initiator_takes() -> None:
    of = session()
    answer = ask(texts(), b"MaxRecvDataSegmentLength=1024\0", of=of)
    assert answer == Piece(F, NO_TAG, b"MaxRecvDataSegmentLength=262144\0")
    assert of.parameters.send_segment == 1024


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        (b"MaxBurstLength=512\0", b"MaxBurstLength=Reject\0"),
        (b"HeaderDigest=CRC32C\0", b"HeaderDigest=Reject\0"),
        (b"MaxRecvDataSegmentLength=1\0", b"MaxRecvDataSegmentLength=Reject\0"),
        (b"InitiatorAlias=me\0", b""),
        (b"Strange=1\0", b"Strange=NotUnderstood\0"),
        (b"", b""),
    ],
)
def test_other_keys(asked: bytes, answer: bytes) -> None:
    assert ask(texts(), asked) == Piece(F, NO_TAG, answer)


@pytest.mark.parametrize(
    ("data", "flags", "tag"),
    [
        (b"A=1\0", F, 77),  # a tag that we never gave
        (b"A=1\0", F | C, NO_TAG),
        (b"rubbish\0", F, NO_TAG),
        (b"A=1\0B=1\0A=1\0", F, NO_TAG),  # a key comes once
        (b"x" * (TEXT_LIMIT + 1), C, NO_TAG),
    ],
)
def test_what_is_rejected(data: bytes, flags: int, tag: int) -> None:
    exchange = texts()
    assert ask(exchange, data, flags=flags, tag=tag) is Reason.PROTOCOL
    assert ask(exchange, b"SendTargets=All\0") == Piece(F, NO_TAG, ANSWER)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0, F, C, F | C]),
            st.sampled_from([NO_TAG, 1, 5]),
            st.binary(max_size=60),
        ),
        max_size=20,
    )
)
def test_no_exchange_raises(script: list[tuple[int, int, bytes]]) -> None:
    exchange = texts()
    for flags, tag, data in script:
        answer = ask(exchange, data, flags=flags, tag=tag, room=64)
        assert isinstance(answer, Reason) or len(answer.data) <= 64


def test_f_answers_f_only() -> None:
    """Who left F out may go on with the tag that it is given, and ends with F."""
    exchange = texts()
    assert ask(exchange, b"SendTargets=\0", flags=0) == Piece(0, 1, ANSWER)
    assert ask(exchange, b"X-a.b=1\0", flags=0, tag=1) == Piece(0, 1, b"X-a.b=NotUnderstood\0")
    assert ask(exchange, b"", tag=1) == Piece(F, NO_TAG, b"")


def test_a_long_answer_to_who_left_f_out() -> None:
    exchange = texts()
    assert ask(exchange, b"SendTargets=\0", flags=0, room=60) == Piece(C, 1, ANSWER[:60])
    assert ask(exchange, b"", flags=0, tag=1, room=60) == Piece(0, 1, ANSWER[60:])
