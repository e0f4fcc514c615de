"""CHAP: digests that others computed, every algorithm, mutual proof, and the attacks."""

import base64
import hashlib
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.errors import WireError
from netboot.iscsi import auth
from netboot.iscsi.auth import AuthFailure, ChapExchange
from netboot.model import Chap

ONE_WAY = Chap("ws1", "a secret of 12+")
MUTUAL = Chap("ws1", "a secret of 12+", "lab", "another secret!")


def entropy(count: int) -> bytes:
    return bytes(range(0x21, 0x21 + count))


def exchange(chap: Chap = ONE_WAY) -> ChapExchange:
    return ChapExchange(chap, entropy)


def challenge(of: ChapExchange, algorithms: str = "5") -> tuple[int, int, bytes]:
    keys = dict(of.step({"CHAP_A": algorithms}))
    assert list(keys) == ["CHAP_A", "CHAP_I", "CHAP_C"]
    return int(keys["CHAP_A"]), int(keys["CHAP_I"]), auth.read_binary(keys["CHAP_C"])


def proof(of: ChapExchange, algorithms: str = "5", secret: str = "a secret of 12+") -> str:
    algorithm, identifier, random = challenge(of, algorithms)
    return "0x" + auth.response(algorithm, identifier, secret, random).hex()


@pytest.mark.parametrize(
    ("number", "name", "size"),
    [(5, "md5", 16), (6, "sha1", 20), (7, "sha256", 32), (8, "sha3_256", 32)],
)
def test_each_number_is_the_digest_that_iana_says(number: int, name: str, size: int) -> None:
    expected = hashlib.new(name, b"\x09" + b"secret" + b"challenge").digest()
    assert auth.response(number, 9, "secret", b"challenge") == expected
    assert len(expected) == size


@pytest.mark.parametrize("number", auth.ALGORITHMS)
def test_a_login_with_each_algorithm(number: int) -> None:
    of = exchange()
    answer = proof(of, str(number))
    assert not of.done
    assert of.step({"CHAP_N": "ws1", "CHAP_R": answer}) == []
    assert of.done


def test_the_initiators_order_decides_among_what_we_allow() -> None:
    assert challenge(exchange(), "7,5")[0] == 7
    assert challenge(exchange(), "5,7")[0] == 5
    assert challenge(exchange(Chap("a", "b", algorithms=(5,))), "7,5")[0] == 5
    assert challenge(exchange(), "99,,x,8")[0] == 8


@pytest.mark.parametrize("offer", ["", "56", "4", "x", "5x", "9" * 5000, "٥"])
def test_no_common_algorithm(offer: str) -> None:
    with pytest.raises(AuthFailure, match="no common algorithm"):
        exchange().step({"CHAP_A": offer})


def test_chap_begins_with_the_algorithm() -> None:
    with pytest.raises(AuthFailure):
        exchange().step({"CHAP_N": "ws1", "CHAP_R": "0x00"})
    with pytest.raises(AuthFailure):
        exchange().step({"CHAP_A": "5", "CHAP_N": "ws1"})


def test_an_empty_request_changes_nothing() -> None:
    of = exchange()
    assert of.step({}) == []
    assert not of.done


def test_an_answer_in_base64() -> None:
    of = exchange()
    raw = auth.read_binary(proof(of))
    answer = "0b" + base64.b64encode(raw).decode()
    assert of.step({"CHAP_N": "ws1", "CHAP_R": answer}) == []
    assert of.done


@pytest.mark.parametrize("name", ["ws2", "", "0x777331"])
def test_a_wrong_name_is_not_told_from_a_wrong_secret(name: str) -> None:
    of = exchange()
    answer = proof(of)
    with pytest.raises(AuthFailure, match="name or secret is wrong"):
        of.step({"CHAP_N": name, "CHAP_R": answer})
    assert not of.done


def test_a_name_that_looks_like_hexadecimal_is_plain_text() -> None:
    of = exchange(Chap("0x1234", "a secret of 12+"))
    assert of.step({"CHAP_N": "0x1234", "CHAP_R": proof(of)}) == []
    assert of.done


@pytest.mark.parametrize("answer", ["", "0x", "0xzz", "plain", "0b%%%", "0x00"])
def test_answers_that_are_none(answer: str) -> None:
    of = exchange()
    challenge(of)
    with pytest.raises(AuthFailure):
        of.step({"CHAP_N": "ws1", "CHAP_R": answer})


def test_mutual() -> None:
    of = exchange(MUTUAL)
    answer = proof(of, "7")
    keys = of.step({"CHAP_N": "ws1", "CHAP_R": answer, "CHAP_I": "200", "CHAP_C": "0x0102"})
    ours = hashlib.sha256(bytes([200]) + b"another secret!" + b"\1\2").hexdigest()
    assert keys == [("CHAP_N", "lab"), ("CHAP_R", "0x" + ours)]
    assert of.done


def test_our_own_challenge_is_not_answered() -> None:
    of = exchange(MUTUAL)
    algorithm, identifier, random = challenge(of)
    answer = "0x" + auth.response(algorithm, identifier, MUTUAL.secret, random).hex()
    with pytest.raises(AuthFailure, match="reflection"):
        of.step({"CHAP_N": "ws1", "CHAP_R": answer, "CHAP_I": "1", "CHAP_C": "0x" + random.hex()})
    assert not of.done


@pytest.mark.parametrize(
    "theirs",
    [
        {"CHAP_I": "1"},
        {"CHAP_C": "0x01"},
        {"CHAP_I": "256", "CHAP_C": "0x01"},
        {"CHAP_I": "-1", "CHAP_C": "0x01"},
        {"CHAP_I": "9" * 5000, "CHAP_C": "0x01"},
        {"CHAP_I": "٥", "CHAP_C": "0x01"},
        {"CHAP_I": "1", "CHAP_C": "0x"},
        {"CHAP_I": "1", "CHAP_C": "01"},
        {"CHAP_I": "1", "CHAP_C": "0x" + "00" * 1025},
    ],
)
def test_challenges_that_are_none(theirs: dict[str, str]) -> None:
    of = exchange(MUTUAL)
    answer = proof(of)
    with pytest.raises(AuthFailure):
        of.step({"CHAP_N": "ws1", "CHAP_R": answer, **theirs})
    assert not of.done


def test_no_proof_of_us_without_a_mutual_secret() -> None:
    of = exchange()
    answer = proof(of)
    with pytest.raises(AuthFailure, match="no mutual secret"):
        of.step({"CHAP_N": "ws1", "CHAP_R": answer, "CHAP_I": "1", "CHAP_C": "0x01"})


def test_nothing_follows_the_end() -> None:
    of = exchange()
    of.step({"CHAP_N": "ws1", "CHAP_R": proof(of)})
    with pytest.raises(AuthFailure):
        of.step({"CHAP_A": "5"})


@pytest.mark.parametrize(
    ("text", "value"), [("0x0a", b"\n"), ("0Xa", b"\n"), ("0bYQ==", b"a"), ("0BYQ==", b"a")]
)
def test_binary_values(text: str, value: bytes) -> None:
    assert auth.read_binary(text) == value


@pytest.mark.parametrize("text", ["", "0", "0c00", "0xgg", "0bY", "0b Y Q =", "é"])
def test_what_is_no_binary_value(text: str) -> None:
    with pytest.raises(WireError):
        auth.read_binary(text)


@given(st.binary(max_size=100))
def test_binary_values_survive_both_spellings(value: bytes) -> None:
    assert auth.read_binary("0x" + value.hex()) == value
    assert auth.read_binary("0b" + base64.b64encode(value).decode()) == value


KEYS = st.sampled_from(["CHAP_A", "CHAP_N", "CHAP_R", "CHAP_I", "CHAP_C"])


@given(st.lists(st.dictionaries(KEYS, st.text(max_size=30), max_size=5), max_size=5))
def test_no_conversation_gets_in_without_the_secret(talk: list[dict[str, str]]) -> None:
    of = exchange(MUTUAL)
    try:
        for keys in talk:
            of.step(keys)
    except AuthFailure:
        pass
    assert not of.done


def test_secrets_are_not_shown() -> None:
    assert "secret" not in repr(MUTUAL).replace("mutual_secret", "")


def test_numbers_of_one_byte() -> None:
    for text, value in (("0", 0), ("000", 0), ("007", 7), ("255", 255), ("0" * 5000 + "9", 9)):
        assert auth.read_byte(text) == value
    for text in ("", "-1", "+1", " 1", "256", "1000", "9" * 5000, "٥", "²", "0x5"):
        assert auth.read_byte(text) is None


# Challenges of ours that come back.

MARKED = Chap("ws1", "a secret of 12+", "lab", "another secret!", mark="c0ffee" * 8)


def mutual_keys(of: ChapExchange, challenge_back: bytes) -> dict[str, str]:
    return {
        "CHAP_N": "ws1",
        "CHAP_R": proof(of),
        "CHAP_I": "9",
        "CHAP_C": "0x" + challenge_back.hex(),
    }


def test_a_challenge_of_another_connection_is_not_answered() -> None:
    """Whoever has it from one connection wants our answer for another (RFC 7143, 9.2.1)."""
    _, _, elsewhere = challenge(ChapExchange(MARKED, os.urandom))
    of = ChapExchange(MARKED, os.urandom)
    with pytest.raises(AuthFailure, match="reflection"):
        of.step(mutual_keys(of, elsewhere))
    assert not of.done


def test_a_challenge_of_another_machines_login_is_not_answered() -> None:
    other = Chap("ws2", "its secret of 12", "lab", "its other secret", mark=MARKED.mark)
    _, _, elsewhere = challenge(ChapExchange(other, os.urandom))
    of = ChapExchange(MARKED, os.urandom)
    with pytest.raises(AuthFailure, match="reflection"):
        of.step(mutual_keys(of, elsewhere))


def test_challenges_of_others_are_answered() -> None:
    """Also those of another target with another mark, and those that look a little like ours."""
    foreign = Chap("ws1", "a secret of 12+", mark="decaff" * 8)
    _, _, theirs = challenge(ChapExchange(foreign, os.urandom))
    _, _, ours = challenge(ChapExchange(MARKED, os.urandom))
    changed = [ours[:-1] + bytes([ours[-1] ^ 1]), bytes([ours[0] ^ 1]) + ours[1:], ours + b"\0"]
    for each in (theirs, *changed, b"\x01", bytes(32), os.urandom(32)):
        of = ChapExchange(MARKED, os.urandom)
        assert dict(of.step(mutual_keys(of, each)))["CHAP_N"] == "lab"
        assert of.done


def test_every_challenge_is_another() -> None:
    drawn = {challenge(ChapExchange(MARKED, os.urandom))[2] for _ in range(50)}
    assert len(drawn) == 50
    assert {len(each) for each in drawn} == {32}
    assert len({each[:16] for each in drawn}) == len({each[16:] for each in drawn}) == 50


@given(st.binary(min_size=1, max_size=64), st.binary(max_size=40))
def test_nobody_makes_a_challenge_of_ours_without_the_mark(mark: bytes, random: bytes) -> None:
    assert auth.is_ours(mark, auth.draw_challenge(mark, os.urandom))
    assert not auth.is_ours(mark, random)


def test_what_was_proved_in_words() -> None:
    of = exchange()
    assert of.words == ""
    answer = proof(of, "8")
    assert of.words == ""
    of.step({"CHAP_N": "ws1", "CHAP_R": answer})
    assert of.words == "CHAP with SHA3-256"
    both = exchange(MUTUAL)
    both.step(mutual_keys(both, b"theirs"))
    assert both.words == "mutual CHAP with MD5"


def test_who_does_not_ask_for_our_proof_gets_in_without() -> None:
    """As RFC 7143 section 12.1.3 lets it: CHAP_I and CHAP_C are the initiator's to send."""
    of = exchange(MUTUAL)
    assert of.step({"CHAP_N": "ws1", "CHAP_R": proof(of)}) == []
    assert of.done
    assert of.words == "CHAP with MD5"


def test_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the digest and the name, also when the first is wrong already."""
    compared: list[tuple[bytes, bytes]] = []
    real = auth.hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return bool(real(one, other))

    monkeypatch.setattr(auth.hmac, "compare_digest", spy)
    for name, answer in (("ws1", "0x00"), ("ws2", "0x00")):
        compared.clear()
        of = exchange()
        _, identifier, random = challenge(of)
        expected = auth.response(5, identifier, ONE_WAY.secret, random)
        with pytest.raises(AuthFailure):
            of.step({"CHAP_N": name, "CHAP_R": answer})
        assert (b"\0", expected) in compared
        assert (name.encode(), b"ws1") in compared
