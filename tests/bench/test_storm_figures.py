"""What is made of the figures of a storm."""

from dataclasses import replace

from tests.bench import storm_figures as figures
from tests.bench.storm_figures import KIB, MIB, Bar, Run, Storm
from tests.bench.storm_trace import Shape

SHAPE = Shape(20, 15, 4, 1, 1_000_000, 200_000, 900_000, 1.5)
FEW = Run("netboot", 16, 0.1, 0.01, 3, 2, 3, 1e-4, 2e-3, 1.6, 40 * KIB, 80 * KIB, 9, 0, 1)
MANY = replace(FEW, clients=1000, cpu=100.0, seconds=90.0)
RIVAL = replace(FEW, side="tgt", cpu=3.2, seconds=6.0, threads=300)


def test_a_percentile_is_one_of_the_values() -> None:
    assert figures.percentile([3, 1, 2, 4], 0.5) == 2
    assert figures.percentile(range(1, 201), 0.99) == 198
    assert figures.percentile([7], 0.99) == 7


def storm(*runs: Run) -> Storm:
    return Storm(SHAPE, list(runs))


def of(found: list[Bar], words: str) -> Bar:
    [bar] = [bar for bar in found if words in bar.what]
    return bar


def test_cost_and_fairness_are_per_client() -> None:
    assert FEW.each == 0.1 and FEW.fairness == 1.5


def test_memory_is_judged_at_the_most_clients() -> None:
    found = figures.bars(storm(FEW, replace(MANY, idle=MIB + 1, busy=2 * MIB)))
    idle, busy = of(found, "idle client, 1,000"), of(found, "over its boot, 1,000")
    assert not idle.holds and busy.holds
    assert idle.write(idle.most) == "1,024 KiB"


def test_cost_is_flat_from_16_on() -> None:
    assert of(figures.bars(storm(FEW, MANY)), "against 16").value == 1
    assert not of(figures.bars(storm(FEW, replace(MANY, cpu=121.0))), "against 16").holds
    assert all("against 16" not in bar.what for bar in figures.bars(storm(FEW)))


def test_16_clients_and_the_most_are_compared() -> None:
    assert figures.pair([1, 16, 64, 1000]) == (16, 1000)
    assert figures.pair([1000, 16]) == (16, 1000)
    assert figures.pair([1, 16]) == figures.pair([64, 1000]) == figures.pair([]) == ()


def test_of_several_runs_the_median_by_cost_counts() -> None:
    tries = [replace(FEW, cpu=cpu) for cpu in (3.0, 1.0, 9.0)]
    assert figures.middle(tries) is tries[0]
    assert figures.middle(tries[1:2]) is tries[1]


def test_the_rival_is_judged_under_as_many_clients() -> None:
    found = figures.bars(storm(FEW, MANY, RIVAL, replace(RIVAL, clients=64)))
    assert [bar.value for bar in found if "tgt" in bar.what] == [0.5, 0.5]
    assert not of(figures.bars(storm(FEW, replace(RIVAL, seconds=2.9))), "last of 16").holds


def test_attaching_is_judged_by_the_thousand() -> None:
    found = storm()
    found.attach, found.attached = 1.9, 2000
    assert of(figures.bars(found), "created").holds
    found.attach = 2.1
    assert not of(figures.bars(found), "created").holds


def test_logins_among_many_are_judged_by_those_among_few() -> None:
    found = storm()
    found.logins = {2000: 0.0031, 10: 0.001}
    bar = of(figures.bars(found), "2,000 targets")
    assert round(bar.value, 3) == 3.1 and not bar.holds


def test_the_cold_cache() -> None:
    found = storm()
    found.cold = [replace(FEW, clients=1, disk=100), replace(FEW, disk=120)]
    assert of(figures.bars(found), "from disk").holds
    found.cold.append(replace(FEW, disk=12))
    assert of(figures.bars(found), "read ahead").holds
    found.cold[2] = replace(FEW, disk=13)
    assert not of(figures.bars(found), "read ahead").holds
    found.stall = 0.006
    assert not of(figures.bars(found), "neighbour").holds


def test_reading_ahead_is_a_gain_on_a_slow_disk() -> None:
    found = storm()
    found.slow = [FEW, replace(FEW, seconds=2.9)]
    assert of(figures.bars(found), "slow disk").holds
    found.slow[1] = replace(FEW, seconds=3.1)
    assert not of(figures.bars(found), "slow disk").holds


def test_a_storm_of_nothing_has_no_bars() -> None:
    assert figures.bars(storm()) == []


def test_a_bar_that_is_missed_is_marked() -> None:
    lines = figures.held([Bar("this", 2, 1, "{:.1f} s"), Bar("that", 1, 1, "{:.1f} s")])
    assert lines.splitlines()[2:] == [
        "| this | 1.0 s | 2.0 s | **missed** |",
        "| that | 1.0 s | 1.0 s |  |",
    ]


def test_every_row_has_as_many_cells_as_the_head() -> None:
    head, rule, *rest = figures.rows([FEW, MANY]).splitlines()
    assert {line.count("|") for line in (head, rule, *rest)} == {12}
    assert "| netboot | 1,000 | 90.0 s | 1.50 |" in rest[1]


def test_the_page_tells_all_that_was_measured() -> None:
    found = storm(FEW, MANY, RIVAL)
    found.cold = [FEW, FEW, FEW]
    assert "slow" not in figures.page(found, [])
    found.slow = [FEW, replace(FEW, seconds=2.25)]
    found.stall, found.stall_cold = 0.001, 0.02
    found.attach, found.arrived, found.attached = 0.75, 1.25, 1000
    found.logins = {10: 0.001, 2000: 0.0015}
    text = figures.page(found, ["a machine"])
    for words in (
        "- a machine",
        "1.00 ms",
        "20.00 ms",
        "1.50 ms with 2,000",
        "0.75 s",
        "1.25 s",
        "all, read ahead",
        "16 clients and the most",
        "more among a thousand",
        "| 2.2 s |",
    ):
        assert words in text
    assert "cold cache" not in figures.page(storm(FEW), [])
