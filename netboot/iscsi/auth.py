"""CHAP, the one authentication method (RFC 7143 section 12.1.3, RFC 1994).

The target sends a challenge, the initiator answers with the digest of identifier, secret and
challenge; in the mutual form it sends a challenge of its own along. Randomness is an argument.
Must never compare digests other than in constant time, nor answer a challenge that we sent
ourselves (reflection), nor name in an error which part was wrong.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from netboot.errors import WireError
from netboot.model import Chap, ChapDigest

#: By CHAP_A numbers. tgt takes 7 for SHA-1; EDK2, LIO and open-iscsi take it for SHA-256, as
#: IANA does.
ALGORITHMS: Final[Mapping[int, ChapDigest]] = MappingProxyType(
    {digest.number: digest for digest in ChapDigest}
)
#: Bytes of a challenge and of an answer that we accept (section 12.1.4: up to 1024).
CHALLENGE_LIMIT: Final = 1024
#: Bytes of a challenge of ours that are random; as many follow by which we know it again.
_RANDOM: Final = 16


def read_binary(text: str) -> bytes:
    """A binary value: ``0x`` and hexadecimal, or ``0b`` and base64 (section 6.1)."""
    try:
        if text[:2] in ("0x", "0X"):
            digits = text[2:]
            return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)
        if text[:2] in ("0b", "0B"):
            return base64.b64decode(text[2:], validate=True)
    except (ValueError, binascii.Error):
        pass
    raise WireError("a binary value begins with 0x or 0b")


def read_byte(text: str) -> int | None:
    """A decimal number of one byte, leading zeros or none; None for everything else.

    ``int`` raises for thousands of digits, and takes those of every script.
    """
    if not (text.isascii() and text.isdigit()):
        return None
    value = int(text.lstrip("0")[:4] or "0")
    return value if value < 256 else None


def response(algorithm: int, identifier: int, secret: str, challenge: bytes) -> bytes:
    """The answer to a challenge (RFC 1994 section 4.1)."""
    message = bytes([identifier]) + secret.encode() + challenge
    name = ALGORITHMS[algorithm].name.lower()
    return hashlib.new(name, message, usedforsecurity=False).digest()


def draw_challenge(mark: bytes, entropy: Callable[[int], bytes]) -> bytes:
    """A challenge of 32 bytes that nobody can foresee, and that ``is_ours`` knows."""
    random = entropy(_RANDOM)
    return random + _seal(mark, random)


def is_ours(mark: bytes, challenge: bytes) -> bool:
    """Whether a connection of this service, whichever, once sent this challenge.

    Whoever sends it back wants an answer from us that it can give to us elsewhere (section
    9.2.1). Known by a seal and not by a list: there is nothing to keep and nothing to fill up.
    """
    if len(challenge) != 2 * _RANDOM:
        return False
    return hmac.compare_digest(challenge[_RANDOM:], _seal(mark, challenge[:_RANDOM]))


def _seal(mark: bytes, random: bytes) -> bytes:
    return hmac.digest(mark, random, "sha256")[:_RANDOM]


class AuthFailure(Exception):
    """The initiator is not who it says; the login ends with status 0201."""


class ChapExchange:
    """One CHAP conversation, seen from the target.

    ``step`` takes the keys of one login request and returns ours; ``done`` says that the
    initiator is who it claims to be, and that we have shown who we are if it asked.
    """

    def __init__(self, chap: Chap, entropy: Callable[[int], bytes]) -> None:
        self._chap = chap
        self._algorithm = 0
        self._identifier = entropy(1)[0]
        # Without a mark from the service this conversation still knows its own challenge.
        self._mark = bytes.fromhex(chap.mark) or entropy(32)
        self._challenge = draw_challenge(self._mark, entropy)
        self._mutual = False
        self.done = False

    @property
    def words(self) -> str:
        """What was proved, once ``done``: ``CHAP with MD5``, or ``mutual CHAP with MD5``."""
        kind = "mutual CHAP" if self._mutual else "CHAP"
        return f"{kind} with {ALGORITHMS[self._algorithm]}" if self.done else ""

    def step(self, keys: Mapping[str, str]) -> list[tuple[str, str]]:
        """Our keys in answer to the initiator's; AuthFailure when it failed."""
        if not keys:
            return []
        if self._algorithm == 0:
            return self._begin(keys)
        if self.done:
            raise AuthFailure("CHAP keys after CHAP was finished")
        return self._check(keys)

    def _begin(self, keys: Mapping[str, str]) -> list[tuple[str, str]]:
        if set(keys) != {"CHAP_A"}:
            raise AuthFailure("CHAP begins with CHAP_A alone")
        offers = [read_byte(text) for text in keys["CHAP_A"].split(",")]
        allowed = self._chap.algorithms
        chosen = next(
            (n for n in offers if n is not None and n in ALGORITHMS and n in allowed), None
        )
        if chosen is None:
            raise AuthFailure(f"no common algorithm in CHAP_A={keys['CHAP_A'][:40]}")
        self._algorithm = chosen
        return [
            ("CHAP_A", str(chosen)),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", "0x" + self._challenge.hex()),
        ]

    def _check(self, keys: Mapping[str, str]) -> list[tuple[str, str]]:
        chap = self._chap
        try:
            answer = read_binary(keys.get("CHAP_R", ""))
        except WireError as error:
            raise AuthFailure(f"CHAP_R: {error}") from None
        expected = response(self._algorithm, self._identifier, chap.secret, self._challenge)
        # Both are computed before either decides: time must not tell a name from a secret.
        named = hmac.compare_digest(keys.get("CHAP_N", "").encode(), chap.name.encode())
        if not (hmac.compare_digest(answer, expected) & named):
            raise AuthFailure("name or secret is wrong")
        theirs = {"CHAP_I", "CHAP_C"} & set(keys)
        if not theirs:
            self.done = True
            return []
        if len(theirs) == 1 or not chap.mutual_name or not chap.mutual_secret:
            raise AuthFailure("the initiator wants proof of us, and no mutual secret is set")
        return self._prove(keys)

    def _prove(self, keys: Mapping[str, str]) -> list[tuple[str, str]]:
        try:
            challenge = read_binary(keys["CHAP_C"])
        except WireError as error:
            raise AuthFailure(f"CHAP_C: {error}") from None
        identifier = read_byte(keys["CHAP_I"])
        if identifier is None:
            raise AuthFailure("CHAP_I is not a number of one byte")
        if not 0 < len(challenge) <= CHALLENGE_LIMIT:
            raise AuthFailure("CHAP_C is empty or too long")
        if is_ours(self._mark, challenge):
            raise AuthFailure("a challenge of ours came back: a reflection attack")
        proof = response(self._algorithm, identifier, self._chap.mutual_secret, challenge)
        self.done = self._mutual = True
        return [("CHAP_N", self._chap.mutual_name), ("CHAP_R", "0x" + proof.hex())]
