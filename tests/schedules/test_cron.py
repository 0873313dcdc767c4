"""When a schedule is due, also where clocks change."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from app.errors import Invalid
from app.workflow.cron import due_tick, read_cron

BERLIN = ZoneInfo("Europe/Berlin")
GRACE = timedelta(seconds=60)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def ticks(expression: str, zone: str, after: str, count: int) -> list[str]:
    """So many of them, as the clocks of the zone show them."""
    cron, found, moment = read_cron(expression, zone), [], utc(after)
    for _ in range(count):
        following = cron.after(moment)
        assert following is not None
        assert following > moment
        assert cron.until(following) == cron.until(following + timedelta(microseconds=1)) == following
        moment = following
        found.append(moment.astimezone(cron.zone).strftime("%m-%d %H:%M%z"))
    return found


def test_a_job_at_half_past_two_where_the_clock_goes_forward() -> None:
    assert ticks("30 2 * * *", "Europe/Berlin", "2026-03-27T12:00", 4) == [
        "03-28 02:30+0100",
        "03-29 03:00+0200",  # there is no half past two: right after the gap
        "03-30 02:30+0200",
        "03-31 02:30+0200",
    ]


def test_a_job_at_half_past_two_where_the_clock_goes_back() -> None:
    assert ticks("30 2 * * *", "Europe/Berlin", "2026-10-23T12:00", 4) == [
        "10-24 02:30+0200",
        "10-25 02:30+0200",  # the first of two; the second is none
        "10-26 02:30+0100",
        "10-27 02:30+0100",
    ]


def test_a_job_every_twenty_minutes_goes_by_the_time_that_passes() -> None:
    back = ticks("*/20 * * * *", "Europe/Berlin", "2026-10-24T23:50", 7)
    assert back[0] == "10-25 02:00+0200"
    assert back[3] == "10-25 02:00+0100"
    assert back[6] == "10-25 03:00+0100"
    forward = ticks("*/20 * * * *", "Europe/Berlin", "2026-03-29T00:30", 3)
    assert forward == ["03-29 01:40+0100", "03-29 03:00+0200", "03-29 03:20+0200"]


@pytest.mark.parametrize("minute", range(0, 180, 7))
@pytest.mark.parametrize("day", ["2026-10-25", "2026-03-29"])
@pytest.mark.parametrize("expression", ["50 2 * * *", "30 2 * * *", "0 3 * * *", "0 * * * *", "*/5 1-3 * * *"])
def test_the_next_tick_is_always_later_and_the_last_never(expression: str, day: str, minute: int) -> None:
    moment = utc(f"{day}T00:00") + timedelta(minutes=minute, seconds=3)
    cron = read_cron(expression, "Europe/Berlin")
    after, until = cron.after(moment), cron.until(moment)
    assert after is not None
    assert until is not None
    assert until <= moment < after


def test_six_fields_have_seconds_first() -> None:
    cron = read_cron("*/15 * * * * *", "UTC")
    assert cron.after(utc("2026-01-01T00:00:14")) == utc("2026-01-01T00:00:15")


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("* * * *", "five fields"),
        ("@daily", "five fields"),
        ("", "five fields"),
        ("61 * * * *", "minute"),
        ("* * 31 2 *", "day-of-month"),
        ("*/0 * * * *", "minute"),
        ("* * */20 * 1L", "no such day"),
        ("* " * 300, "five fields"),
    ],
)
def test_what_is_no_cron_expression(expression: str, says: str) -> None:
    with pytest.raises(Invalid, match=says) as refused:
        read_cron(expression, "UTC")
    assert refused.value.problem_code == "invalid_cron"


@pytest.mark.parametrize("zone", ["", "Mars/Base", "../../etc/passwd", "/etc/localtime", "a\x00b", "x" * 5000])
def test_what_is_no_time_zone(zone: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_cron("0 0 * * *", zone)
    assert refused.value.problem_code == "invalid_time_zone"


NOON = utc("2026-05-05T12:00")


@pytest.mark.parametrize(
    ("due", "late", "catch_up", "tick", "following"),
    [
        ("12:00", 0, False, "12:00", "12:10"),
        ("12:00", 60, False, "12:00", "12:10"),
        ("12:00", 61, False, None, "12:10"),
        ("12:00", 61, True, "12:00", "12:10"),
        ("11:00", 0, False, "12:00", "12:10"),  # many were missed, the last one was not
        ("11:00", 120, False, None, "12:10"),
        ("11:00", 0, True, "12:00", "12:10"),
        ("11:00", 300, True, "12:00", "12:10"),
    ],
)
def test_missed_ticks(due: str, late: int, catch_up: bool, tick: str | None, following: str) -> None:
    cron = read_cron("*/10 * * * *", "UTC")
    found = due_tick(cron, utc(f"2026-05-05T{due}"), NOON + timedelta(seconds=late), grace=GRACE, catch_up=catch_up)
    assert found.tick == (None if tick is None else utc(f"2026-05-05T{tick}"))
    assert found.following == utc(f"2026-05-05T{following}")


def test_a_year_of_minutes_is_not_walked_through() -> None:
    cron = read_cron("* * * * *", "Europe/Berlin")
    found = due_tick(cron, utc("2020-01-01T00:00"), NOON + timedelta(seconds=5), grace=GRACE, catch_up=True)
    assert (found.tick, found.following) == (NOON, NOON + timedelta(minutes=1))


def test_ticks_close_together_are_all_taken_within_the_grace() -> None:
    cron, now, found = read_cron("*/10 * * * * *", "UTC"), NOON + timedelta(seconds=35), []
    due_at: datetime | None = NOON
    while due_at is not None and due_at <= now:
        due = due_tick(cron, due_at, now, grace=GRACE, catch_up=False)
        found.append(due.tick)
        due_at = due.following
    assert found == [NOON + timedelta(seconds=10 * number) for number in range(4)]
