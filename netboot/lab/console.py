"""Talking to a machine over its serial line: wait for words, type a command, read its answer.

All that the machine says also goes to a log file, as it comes. Every wait has a limit and
says, when it is over, what was waited for and what was last seen.
"""

import asyncio
import re
import shlex
from pathlib import Path

from netboot.errors import LabError

#: Colours and cursor movements, which a person would not see either.
_CONTROL = re.compile(rb"\x1b(\[[0-9;?=]*[A-Za-z]|\][^\x07\x1b]*(\x07|\x1b\\)|[()][A-Z0-9]|[=>])")

#: What the golden image's lab shell shows when a command can be typed.
PROMPT = "lab# "


class ConsoleError(LabError):
    """The machine did not say in time what was waited for, or has ended."""


def plain(data: bytes) -> bytes:
    """``data`` without control sequences and carriage returns."""
    return _CONTROL.sub(b"", data).replace(b"\r", b"")


class Console:
    """One machine's serial line."""

    def __init__(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.name = name
        self._reader = reader
        self._writer = writer
        self._seen = bytearray()  # everything the machine said, plain
        self._read = 0  # how far expect() has consumed it
        self._ended = False
        self._news = asyncio.Condition()
        self._commands = 0

    async def pump(self, log: Path) -> None:
        """Copy what the machine says to the log and to whoever waits, until it ends."""
        pending = b""
        with log.open("ab", buffering=0) as file:
            while data := await self._reader.read(65536):
                file.write(data)
                pending += data
                # A control sequence may be cut by the end of the read: keep its beginning.
                cut = pending.rfind(b"\x1b")
                keep = pending[cut:] if cut >= 0 and len(pending) - cut < 16 else b""
                whole, pending = pending[: len(pending) - len(keep)], keep
                async with self._news:
                    self._seen += plain(whole)
                    self._news.notify_all()
        async with self._news:
            self._seen += plain(pending)
            self._ended = True
            self._news.notify_all()

    async def expect(self, pattern: str, within: float, shown: str = "") -> re.Match[bytes]:
        """Wait until the regular expression matches what came since the last match.

        ``shown`` is what the error calls it, where a person said it in other words.
        """
        wanted = re.compile(pattern.encode())
        try:
            async with asyncio.timeout(within), self._news:
                while True:
                    match = wanted.search(self._seen, self._read)
                    if match:
                        self._read = match.end()
                        return match
                    if self._ended:
                        raise ConsoleError(f"{self.name}: the machine ended; {self._last()}")
                    await self._news.wait()
        except TimeoutError:
            what = f"no {shown or pattern!r} on the serial line in {within:.0f} s"
            raise ConsoleError(f"{self.name}: {what}; {self._last()}") from None

    async def send(self, text: str) -> None:
        """Type ``text`` and the return key."""
        self._writer.write(text.encode() + b"\n")
        await self._writer.drain()

    async def run(self, command: str, within: float = 30.0) -> str:
        """Run a shell command at a root prompt; its output. ConsoleError if it fails.

        The marks around the output are typed in two halves, so that the terminal's echo of the
        line, wrapped or not, is never taken for them.
        """
        self._commands += 1
        mark = f"{self._commands:04d}"
        begin, end = f'echo "NETBOOT""-BEGIN:{mark}:"', f'echo "NETBOOT""-END:{mark}:$?:"'
        await self.send(f"{begin}; sh -c {shlex.quote(command)}; {end}")
        start = (await self.expect(rf"NETBOOT-BEGIN:{mark}:\n", within)).end()
        match = await self.expect(rf"NETBOOT-END:{mark}:(\d+):", within)
        output = self._seen[start : match.start()].decode(errors="replace").strip("\n")
        if match[1] != b"0":
            raise ConsoleError(f"{self.name}: `{command}` ended with {int(match[1])}: {output}")
        return output

    async def up(self, within: float) -> None:
        """Wait until the golden image's guest says that it is up and shows a root prompt.

        Afterwards the kernel keeps its messages to itself: they would stand in our answers.
        """
        await self.expect(rf"NETBOOT-READY {self.name} ", within)
        await self.expect(PROMPT, 60)
        await self.run("dmesg -n 1")

    def _last(self) -> str:
        lines = [line for line in bytes(self._seen[-400:]).split(b"\n") if line.strip()]
        if not lines:
            return "it said nothing at all"
        return f"its last line was {lines[-1].decode(errors='replace').strip()!r}"
