"""The serial line: what is waited for, typed and read, against a scripted machine."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from netboot.lab.console import Console, ConsoleError, plain


class Typed:
    """Stands for the machine's keyboard; answers each line by a function."""

    def __init__(self, reader: asyncio.StreamReader, answer: Callable[[str], bytes]) -> None:
        self._reader = reader
        self._answer = answer
        self.lines: list[str] = []

    def write(self, data: bytes) -> None:
        line = data.decode().rstrip("\n")
        self.lines.append(line)
        self._reader.feed_data(self._answer(line))

    async def drain(self) -> None:
        await asyncio.sleep(0)


def talk(
    log: Path,
    part: Callable[[Console, asyncio.StreamReader, Typed], Awaitable[None]],
    answer: Callable[[str], bytes] = lambda line: b"",
) -> None:
    async def main() -> None:
        reader = asyncio.StreamReader()
        typed = Typed(reader, answer)
        console = Console("m1", reader, typed)  # type: ignore[arg-type]
        pump = asyncio.create_task(console.pump(log))
        try:
            await part(console, reader, typed)
        finally:
            reader.feed_eof()
            await pump

    asyncio.run(main())


def shell(line: str) -> bytes:
    """A terminal that echoes the line, wrapped, and a shell that obeys it."""
    mark = line.split("-END:")[1].split(":")[0]
    echo = line[:20] + " \r" + line[20:] + "\r\n"
    output, status = ("hello\r\nworld", 0) if "cat /x" in line else ("no such file", 2)
    begin, end = f"NETBOOT-BEGIN:{mark}:", f"NETBOOT-END:{mark}:{status}:"
    return f"{echo}{begin}\r\n{output}\r\n{end}\r\n# ".encode()


def test_plain_takes_away_what_a_person_does_not_see() -> None:
    assert (
        plain(b"\x1b[2J\x1b[01;01H\x1b[0;37mBooting\r\n\x1b]0;title\x07ok\x1b(B") == b"Booting\nok"
    )


def test_expect_finds_words_in_pieces_and_goes_on_after_them(tmp_path: Path) -> None:
    async def part(console: Console, reader: asyncio.StreamReader, typed: Typed) -> None:
        async def say() -> None:
            for piece in (b"lo", b"gin: \x1b[", b"1mroot log", b"in: again"):
                await asyncio.sleep(0)
                reader.feed_data(piece)

        told = asyncio.create_task(say())
        assert (await console.expect("login:", 5))[0] == b"login:"
        assert (await console.expect("login: (.*)", 5))[1] == b"again"
        await told

    talk(tmp_path / "log", part)
    assert (tmp_path / "log").read_bytes() == b"login: \x1b[1mroot login: again"


def test_what_never_comes_is_named_with_the_last_line(tmp_path: Path) -> None:
    async def part(console: Console, reader: asyncio.StreamReader, typed: Typed) -> None:
        with pytest.raises(ConsoleError, match=r"m1: no 'x' on the serial .* said nothing at all"):
            await console.expect("x", 0.01)
        reader.feed_data(b"first\r\nKernel panic\r\n\r\n")
        await console.expect("first", 5)
        with pytest.raises(ConsoleError, match="its last line was 'Kernel panic'"):
            await console.expect("login:", 0.01)
        with pytest.raises(ConsoleError, match=r"m1: no 'up \(now\)' on the serial line"):
            await console.expect(r"up\ \(now\)", 0.01, shown="up (now)")

    talk(tmp_path / "log", part)


def test_a_machine_that_ends_is_said_at_once(tmp_path: Path) -> None:
    async def part(console: Console, reader: asyncio.StreamReader, typed: Typed) -> None:
        reader.feed_data(b"bye\n")
        reader.feed_eof()
        with pytest.raises(ConsoleError, match="the machine ended; its last line was 'bye'"):
            await console.expect("login:", 60)

    talk(tmp_path / "log", part)


def test_run_gives_the_output_without_the_echo(tmp_path: Path) -> None:
    async def part(console: Console, reader: asyncio.StreamReader, typed: Typed) -> None:
        assert await console.run("cat /x") == "hello\nworld"
        with pytest.raises(ConsoleError, match="`cat /y` ended with 2: no such file"):
            await console.run("cat /y")
        assert await console.run("cat /x 'quoted'") == "hello\nworld"
        assert len(set(typed.lines)) == 3

    talk(tmp_path / "log", part, shell)


def test_up_waits_for_the_guests_word_and_its_prompt(tmp_path: Path) -> None:
    def quiet(line: str) -> bytes:
        mark = line.split("-END:")[1].split(":")[0]
        return f"NETBOOT-BEGIN:{mark}:\r\nNETBOOT-END:{mark}:0:\r\n# ".encode()

    async def part(console: Console, reader: asyncio.StreamReader, typed: Typed) -> None:
        reader.feed_data(b"NETBOOT-READY other 1\r\nNETBOOT-READY m1 2\r\nlab# ")
        await console.up(5)
        assert len(typed.lines) == 1
        assert "dmesg -n 1" in typed.lines[0]

    talk(tmp_path / "log", part, quiet)
