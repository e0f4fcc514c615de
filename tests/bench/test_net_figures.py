"""The reckoning of `make bench-net`, by hand."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.net_figures import (
    OURS,
    Exchanges,
    Row,
    Sample,
    Workload,
    avalanche,
    climb,
    exchanges,
    lap,
    middle,
    page,
    percentile,
    pooled,
    rows,
    table,
    turns,
)
from tests.bench.net_servers import command

REPORT = """\
Running: perfdhcp -4
***Rate statistics***
Rate: 2 4-way exchanges/second, expected rate: 3
***Statistics for: DISCOVER-OFFER***
sent packets: 3
received packets: 2
***Statistics for: REQUEST-ACK***
sent packets: 2
received packets: 2
***Timestamps for packets: DISCOVER-OFFER***
sent / received: 000000.100000 / 000000.101000
sent / received: 000000.200000 / 000000.203000

***Timestamps for packets: REQUEST-ACK***
sent / received: 000000.101100 / 000000.105000
sent / received: 000000.203500 / 000000.300000
"""


def a_workload(faster: bool = True) -> Workload:
    work = Workload("http", "300 MB", "MB/s", {"nginx": 0.8}, faster)
    for ours, theirs in ((90, 100), (300, 200), (50, 100)):
        work.add("nginx", Sample(theirs, 0.002))
        work.add(OURS, Sample(ours, 0.001))
    return work


def test_a_ratio_is_taken_round_by_round_and_its_median_counts() -> None:
    work = a_workload()
    assert work.ratio("nginx") == pytest.approx(0.9)
    assert work.median(OURS) == 90
    assert work.median("nginx") == 100
    assert work.rivals() == ["nginx"]


def test_of_times_the_shorter_is_the_better() -> None:
    assert a_workload(faster=False).ratio("nginx") == pytest.approx(100 / 90)


def test_a_side_that_did_nothing_has_no_ratio_to_show() -> None:
    work = Workload("dhcp", "full exchanges", "per s", {})
    work.add("dnsmasq", Sample(0, 0))
    work.add(OURS, Sample(5, 0))
    assert work.ratio("dnsmasq") == 0


def test_sides_of_unequal_rounds_are_a_mistake() -> None:
    work = a_workload()
    work.add(OURS, Sample(1, 1))
    with pytest.raises(ValueError, match=r"shorter|longer"):
        work.ratio("nginx")


@pytest.mark.parametrize(("bar", "held", "verdict"), [(None, True, ""), (0.9, True, "holds")])
def test_a_bar_is_reached_or_missed(bar: float | None, held: bool, verdict: str) -> None:
    row = replace(rows([a_workload()])[0], ratio=0.9, bar=bar)
    assert (row.held, row.verdict) == (held, verdict)
    if bar is not None:
        missed = replace(row, ratio=0.899)
        assert (missed.held, missed.verdict) == (False, "MISSED")


def test_the_rows_carry_microseconds_and_their_bars() -> None:
    work = a_workload()
    work.add("other", Sample(1, 1))
    work.add("other", Sample(1, 1))
    work.add("other", Sample(1, 1))
    first, second = rows([work])
    assert first == Row("http", "300 MB", "MB/s", "nginx", 90, 100, first.ratio, 0.8, 1000, 2000)
    assert (second.rival, second.bar) == ("other", None)


def test_several_fetches_of_a_round_come_to_the_median_of_each_figure() -> None:
    some = [Sample(250, 0.3), Sample(8, 0.1), Sample(260, 0.2)]
    assert middle(some) == Sample(250, 0.2)
    assert middle(some[:2]) == Sample(129, 0.2)
    assert middle(some[:1]) == some[0]


def test_who_is_first_in_one_round_is_last_in_the_next() -> None:
    assert [turns("abc", number) for number in range(3)] == [[*"abc"], [*"cba"], [*"abc"]]


@pytest.mark.parametrize(
    ("fetches", "number", "order"),
    [
        ({"a": 3, "b": 3}, 0, "ab ba ab"),
        ({"a": 3, "b": 3}, 1, "ba ab ba"),
        ({"a": 3, "z": 1, "b": 2}, 0, "azb ba a"),
        ({"a": 3, "z": 1, "b": 2}, 1, "bza ab a"),
        ({"a": 1, "b": 0}, 0, "a"),
        ({}, 0, ""),
    ],
)
def test_the_sides_of_a_round_fetch_in_alternating_turns(
    fetches: dict[str, int], number: int, order: str
) -> None:
    assert lap(fetches, number) == [*order.replace(" ", "")]


@given(fetches=st.dictionaries(st.integers(0, 4), st.integers(0, 9)), number=st.integers(0, 5))
def test_everybody_has_the_fetches_that_are_due(fetches: dict[int, int], number: int) -> None:
    sides = {str(side): times for side, times in fetches.items()}
    assert Counter(lap(sides, number)) == Counter(sides)


def test_table_and_page_show_every_row() -> None:
    lines = [*rows([a_workload()]), replace(rows([a_workload()])[0], rival="x", ratio=0.1)]
    shown = table(lines)
    assert len(shown.splitlines()) == 3
    assert "holds" in shown
    assert "MISSED" in shown
    text = page(lines, "2 × a machine", 5)
    assert "2 × a machine; 5 rounds." in text
    assert "| http | 300 MB | nginx | 100 | 90.0 | MB/s | 0.90 | 0.8 | holds | 2000 µs |" in text


def test_perfdhcps_stamps_become_exchanges() -> None:
    seen = exchanges(REPORT)
    assert (seen.begun, seen.completed) == (3, 2)
    assert seen.seconds == pytest.approx(0.2)
    assert seen.durations == pytest.approx((0.005, 0.1))
    assert seen.rate == pytest.approx(10)
    assert not seen.served


def test_an_offer_whose_request_was_lost_is_passed_over() -> None:
    lines = [line for line in REPORT.splitlines() if "0.101100" not in line]
    assert exchanges("\n".join(lines)).durations == pytest.approx((0.1,))


def test_of_nothing_nothing_is_served() -> None:
    assert exchanges("") == Exchanges(0, 0, 0.0, ())
    assert not exchanges("").served
    assert exchanges("").rate == 0


@pytest.mark.parametrize(("begun", "completed", "served"), [(100, 99, True), (100, 98, False)])
def test_one_in_a_hundred_may_be_lost(begun: int, completed: int, served: bool) -> None:
    assert Exchanges(begun, completed, 1.0, ()).served is served


def test_asks_are_pooled_before_anything_is_reckoned() -> None:
    parts = [
        Exchanges(3, 2, 1.0, (0.001, 0.009)),
        Exchanges(2, 2, 0.5, (0.002, 0.003)),
    ]
    whole = pooled(iter(parts))
    assert whole == Exchanges(5, 4, 1.5, (0.001, 0.009, 0.002, 0.003))
    assert percentile(whole.durations, 0.75) == 0.003
    assert pooled([]) == Exchanges(0, 0, 0.0, ())


def test_the_avalanches_time_is_read() -> None:
    assert avalanche("x\nIt took 00:01:02.003225 to provision 300 clients. \n") == 62.003225
    assert avalanche("nothing of the kind") == 0


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile([5.0], 0.99) == 5
    assert percentile([], 0.99) == 0


@pytest.mark.parametrize("limit", [0, 50, 300, 299.0, 1000, 9000])
def test_the_climb_ends_between_what_passes_and_what_fails(limit: float) -> None:
    passed: dict[float, bool] = {}
    for _ in range(20):
        rate = climb(300.0, passed)
        if rate is None:
            break
        passed[rate] = rate <= limit
    good = [rate for rate, served in passed.items() if served]
    if limit:
        assert rate is None
        assert max(good) <= limit < max(good) * 1.3 * 1.02
    else:
        assert not good  # and the caller's bound ended it


@pytest.mark.parametrize(
    ("service", "side"),
    [
        ("dhcp", "dnsmasq"),
        ("dhcp", "Kea"),
        ("tftp", "tftpd-hpa"),
        ("http", "nginx"),
        ("http", OURS),
    ],
)
def test_a_server_keeps_its_files_in_its_own_folder(
    service: str, side: str, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    words = command(service, side, own)
    assert any(str(tmp_path) in word for word in words)
    if side == "Kea":
        settings = json.loads((own / "kea.json").read_text())["Dhcp4"]
        assert settings["lease-database"]["persist"] is True


def test_nobody_is_always_behind_the_same_one() -> None:
    assert [turns("abc", number) for number in range(3)] == [list("abc"), list("cba"), list("abc")]
