from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llamora import dates
from llamora.dates import DateRange, UnknownDay, UnknownZone, parse_phrase

# Every kind of rule: none, halves and quarters of an hour, summer time at, before and after midnight, both
# hemispheres, negative summer time, skipped and repeated days, changes of standard time.
ZONES = [
    "UTC", "Africa/Cairo", "Africa/Casablanca", "Africa/Johannesburg", "Africa/Lagos", "Africa/Monrovia",
    "America/Anchorage", "America/Asuncion", "America/Caracas", "America/Godthab", "America/Havana",
    "America/Los_Angeles", "America/Manaus", "America/Mexico_City", "America/New_York", "America/Phoenix",
    "America/Santiago", "America/Sao_Paulo", "America/St_Johns", "America/Toronto", "Antarctica/Troll",
    "Asia/Amman", "Asia/Beirut", "Asia/Dhaka", "Asia/Gaza", "Asia/Kathmandu", "Asia/Kolkata", "Asia/Pyongyang",
    "Asia/Tehran", "Asia/Tokyo", "Australia/Adelaide", "Australia/Eucla", "Australia/Lord_Howe",
    "Europe/Dublin", "Europe/Lisbon", "Europe/London", "Europe/Moscow", "Europe/Vienna", "Pacific/Apia",
    "Pacific/Auckland", "Pacific/Chatham", "Pacific/Kiritimati", "Pacific/Kwajalein", "Pacific/Marquesas",
]  # fmt: skip
zones = st.sampled_from(ZONES).map(dates.parse_zone)
days = st.dates(date(1900, 1, 1), date(2099, 12, 31))
instants = st.datetimes(datetime(1900, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)


def edges(day: str, zone: str) -> tuple[str, str, float]:
    start, end = dates.day_edges(date.fromisoformat(day), dates.parse_zone(zone))
    assert start.tzinfo is end.tzinfo is UTC
    return f"{start:%m-%d %H:%M}", f"{end:%m-%d %H:%M}", (end - start) / HOUR


# --- Zones and days -----------------------------------------------------------------------------


def test_now_is_aware_and_utc() -> None:
    assert dates.utc_now().tzinfo is UTC


@pytest.mark.parametrize(
    "name",
    ["", " ", "Europe", "Europe/", "/Europe/Vienna", "../../etc/passwd", "Europe/../UTC", "Europe/Wien", "local",
     "localtime", "posixrules", "Factory", "\ud800", "Europe/Vienna\n", "a\0b", "x" * 5000, "zone.tab", "C:/UTC"],
)  # fmt: skip
def test_names_that_are_no_zone(name: str) -> None:
    with pytest.raises(UnknownZone) as error:
        dates.parse_zone(name)
    assert len(str(error.value)) < 60


@given(st.text(max_size=20))
def test_no_text_breaks_the_zone_reader(text: str) -> None:
    with suppress(UnknownZone):
        assert dates.parse_zone(text).key == text


def test_zone_names() -> None:
    names = dates.zone_names()
    assert names == sorted(names)
    assert {"UTC", "Europe/Vienna", "Asia/Kolkata"} <= set(names)
    assert not {"localtime", "posixrules", "Factory"} & set(names)
    assert all(dates.parse_zone(name).key == name for name in names)
    names.clear()
    assert dates.zone_names()


@pytest.mark.parametrize(
    ("day", "zone", "expected"),
    [
        ("2026-11-20", "UTC", ("11-20 00:00", "11-21 00:00", 24)),
        ("2026-11-20", "Asia/Kolkata", ("11-19 18:30", "11-20 18:30", 24)),
        # Summer time begins and ends in the night.
        ("2026-03-29", "Europe/Vienna", ("03-28 23:00", "03-29 22:00", 23)),
        ("2026-10-25", "Europe/Vienna", ("10-24 22:00", "10-25 23:00", 25)),
        ("2026-04-05", "Australia/Lord_Howe", ("04-04 13:00", "04-05 13:30", 24.5)),
        # Midnight does not exist.
        ("2018-11-04", "America/Sao_Paulo", ("11-04 03:00", "11-05 02:00", 23)),
        ("2022-03-27", "Asia/Beirut", ("03-26 22:00", "03-27 21:00", 23)),
        # The gap begins before midnight: 23:30 becomes 0:30.
        ("1919-03-30", "America/Toronto", ("03-30 05:00", "03-31 04:30", 23.5)),
        ("1919-03-31", "America/Toronto", ("03-31 04:30", "04-01 04:00", 23.5)),
        # Midnight comes twice: 1:00 becomes 0:00.
        ("2024-11-03", "America/Havana", ("11-03 04:00", "11-04 05:00", 25)),
        # Midnight falls back into the day before.
        ("2018-02-17", "America/Sao_Paulo", ("02-17 02:00", "02-18 03:00", 25)),
        # A day that a zone skipped, and its neighbours.
        ("2011-12-29", "Pacific/Apia", ("12-29 10:00", "12-30 10:00", 24)),
        ("2011-12-30", "Pacific/Apia", ("12-30 10:00", "12-30 10:00", 0)),
        ("2011-12-31", "Pacific/Apia", ("12-30 10:00", "12-31 10:00", 24)),
        ("1993-08-21", "Pacific/Kwajalein", ("08-21 12:00", "08-21 12:00", 0)),
    ],
)
def test_day_edges(day: str, zone: str, expected: tuple[str, str, float]) -> None:
    assert edges(day, zone) == expected


@given(days, zones, st.integers(0, 5))
@example(date(2011, 12, 30), ZoneInfo("Pacific/Apia"), 0)
@example(date(2018, 11, 4), ZoneInfo("America/Sao_Paulo"), 0)
@example(date(1919, 3, 30), ZoneInfo("America/Toronto"), 0)
@example(date(2026, 3, 29), ZoneInfo("Europe/Berlin"), 2)  # 2:00 is left out
@example(date(2026, 10, 25), ZoneInfo("Europe/Berlin"), 3)
def test_days_meet_and_hold_their_own(day: date, zone: ZoneInfo, ends_at: int) -> None:
    start, end = dates.day_edges(day, zone, ends_at)
    assert end == dates.day_edges(day + timedelta(days=1), zone, ends_at)[0]
    assert timedelta(0) <= end - start <= 49 * HOUR
    if start < end:
        assert dates.day_of(start, zone, ends_at) == day == dates.day_of(end - TICK, zone, ends_at)
    # An instant before, the day is another: the start is not late.
    assert dates.day_of(start - TICK, zone, ends_at) < day or start == end


@given(instants, zones)
def test_every_instant_is_in_its_day(instant: datetime, zone: ZoneInfo) -> None:
    day = dates.day_of(instant, zone)
    start, end = dates.day_edges(day, zone)
    assert start <= instant
    # Where the clock falls back over midnight (0:01 to 23:01) the last hour of a day comes again.
    assert instant < end + HOUR
    if not instant < end:
        assert instant.astimezone(zone).fold == 1


@given(st.dates(), zones)
@example(date.min, ZoneInfo("Asia/Tokyo"))
@example(date.max, ZoneInfo("America/Los_Angeles"))
@example(date.max, ZoneInfo("Pacific/Kiritimati"))
def test_the_ends_of_the_calendar(day: date, zone: ZoneInfo) -> None:
    start, end = dates.day_edges(day, zone)
    assert start <= end


@given(st.datetimes(timezones=st.just(UTC)), zones)
@example(datetime.max.replace(tzinfo=UTC), ZoneInfo("Pacific/Kiritimati"))
@example(datetime.min.replace(tzinfo=UTC), ZoneInfo("America/Los_Angeles"))
def test_any_instant_has_a_day_and_a_time(instant: datetime, zone: ZoneInfo) -> None:
    assert abs(dates.day_of(instant, zone).toordinal() - instant.date().toordinal()) <= 1
    assert ":" in dates.format_time(instant, zone)


@given(st.dates())
def test_days_read_back(day: date) -> None:
    assert dates.parse_day(day.isoformat()) == day


@pytest.mark.parametrize(
    "text",
    ["", "today", "2026-11-31", "2026-02-29", "2026-13-01", "0000-01-01", "20261120", "2026-W47-5", "2026-11-20 ",
     "2026-11-20\n", "2026-1-2", "+2026-11-20", "٢٠٢٦-١١-٢٠", "2026-11-20T00:00", "12026-11-20"],
)  # fmt: skip
def test_what_is_no_day(text: str) -> None:
    with pytest.raises(UnknownDay):
        dates.parse_day(text)


@given(st.text(max_size=30))
def test_no_text_breaks_the_day_reader(text: str) -> None:
    with pytest.raises(UnknownDay):
        dates.parse_day(text)


def test_words() -> None:
    day = date(2026, 11, 20)
    assert dates.format_day(day) == "20 November 2026"
    assert dates.format_day(date(987, 1, 3)) == "3 January 987"
    assert dates.format_weekday(day) == "Friday"
    instant = datetime(2026, 11, 20, 6, 42, 59, tzinfo=UTC)
    assert dates.format_time(instant, dates.parse_zone("Europe/Vienna")) == "7:42"
    assert dates.format_time(instant, dates.parse_zone("Asia/Tokyo")) == "15:42"
    assert dates.format_time(instant.replace(hour=0, minute=5), dates.parse_zone("UTC")) == "0:05"


# --- Date phrases -------------------------------------------------------------------------------

TODAY = date(2026, 11, 20)  # a Friday


def found(text: str, today: date = TODAY, language: str = "en") -> str:
    """`start..end|matched`, with one day written once; `-` when there is no date."""
    result = parse_phrase(text, today, language)
    if result is None:
        return "-"
    assert result.matched in text
    span = f"{result.start}" if result.start == result.end else f"{result.start}..{result.end}"
    return span if result.matched == text else f"{span}|{result.matched}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Days near today.
        ("today", "2026-11-20"),
        ("yesterday", "2026-11-19"),
        ("Tomorrow", "2026-11-21"),
        ("the day before yesterday", "2026-11-18"),
        ("day after tomorrow", "2026-11-22"),
        ("yesterday evening", "2026-11-19"),
        ("this morning", "2026-11-20"),
        ("last night", "2026-11-19..2026-11-20"),
        ("last evening", "2026-11-19"),
        ("yesterday's walk", "2026-11-19|yesterday's"),
        ("on Tuesday", "2026-11-17"),
        ("on Friday", "2026-11-20"),
        ("on Sunday morning", "2026-11-15"),
        ("last Friday", "2026-11-13"),
        ("last Tuesday", "2026-11-17"),
        ("this Sunday", "2026-11-22"),
        ("next Friday", "2026-11-27"),
        ("next Monday", "2026-11-23"),
        ("Tuesday last week", "2026-11-10"),
        ("last week on Tuesday", "2026-11-10"),
        ("3 days ago", "2026-11-17"),
        ("a day ago", "2026-11-19"),
        ("a couple of days ago", "2026-11-18"),
        ("a few days ago", "2026-11-14..2026-11-18"),
        # Explicit days.
        ("2024-05-03", "2024-05-03"),
        ("2024/5/3", "2024-05-03"),
        ("3.5.2024", "2024-05-03"),
        ("03/05/2024", "2024-05-03"),
        ("5/13/2024", "2024-05-13"),
        ("on 2024-05-03.", "2024-05-03|on 2024-05-03"),
        ("on 3 May", "2026-05-03"),
        ("on 3 December", "2025-12-03"),
        ("on 20 November", "2026-11-20"),
        ("on 21 November", "2025-11-21"),
        ("3rd of May", "2026-05-03"),
        ("on the 3rd of May, 2024", "2024-05-03"),
        ("May 3rd, 2024", "2024-05-03"),
        ("May 3, 2024", "2024-05-03"),
        ("Nov. 3 2024", "2024-11-03"),
        ("3 sept 2024", "2024-09-03"),
        ("Sunday, 3 May 2026", "2026-05-03"),
        ("Sun 3 May", "2026-05-03"),
        ("on Fri. May 1st", "2026-05-01"),
        ("3 May last year", "2025-05-03"),
        ("29 February", "2024-02-29"),
        ("walked with Anna on 3 May in the rain", "2026-05-03|on 3 May"),
        # Weeks, months, years.
        ("last week", "2026-11-09..2026-11-15"),
        ("this week", "2026-11-16..2026-11-22"),
        ("this week's walks", "2026-11-16..2026-11-22|this week's"),
        ("two weeks ago", "2026-11-02..2026-11-08"),
        ("last weekend", "2026-11-14..2026-11-15"),
        ("over the weekend", "2026-11-14..2026-11-15"),
        ("last month", "2026-10-01..2026-10-31"),
        ("the previous month", "2026-10-01..2026-10-31"),
        ("a month ago", "2026-10-01..2026-10-31"),
        ("eleven months ago", "2025-12-01..2025-12-31"),
        ("last year", "2025-01-01..2025-12-31"),
        ("three years ago", "2023-01-01..2023-12-31"),
        ("last March", "2026-03-01..2026-03-31"),
        ("last November", "2025-11-01..2025-11-30"),
        ("last December", "2025-12-01..2025-12-31"),
        ("this November", "2026-11-01..2026-11-30"),
        ("next March", "2027-03-01..2027-03-31"),
        ("in March", "2026-03-01..2026-03-31"),
        ("in december", "2025-12-01..2025-12-31"),
        ("in may", "2026-05-01..2026-05-31"),
        ("in Feb 2024", "2024-02-01..2024-02-29"),
        ("March 2024", "2024-03-01..2024-03-31"),
        ("march of 2024", "2024-03-01..2024-03-31"),
        ("2024-05", "2024-05-01..2024-05-31"),
        ("in March last year", "2025-03-01..2025-03-31"),
        ("last year in March", "2025-03-01..2025-03-31"),
        ("november", "2026-11-01..2026-11-30"),
        ("2024", "2024-01-01..2024-12-31"),
        ("in 2024", "2024-01-01..2024-12-31"),
        ("the year 2024", "2024-01-01..2024-12-31"),
        ("in autumn 2023", "2023-09-01..2023-11-30"),
        ("fall 2023", "2023-09-01..2023-11-30"),
        ("last summer", "2026-06-01..2026-08-31"),
        ("last autumn", "2025-09-01..2025-11-30"),
        ("in the spring", "2026-03-01..2026-05-31"),
        ("winter 2023", "2023-12-01..2024-02-29"),
        ("winter 2023/24", "2023-12-01..2024-02-29"),
        ("last winter", "2025-12-01..2026-02-28"),
        ("summer of 2019", "2019-06-01..2019-08-31"),
        ("Q3 2023", "2023-07-01..2023-09-30"),
        ("early 2024", "2024-01-01..2024-04-30"),
        ("late last year", "2025-09-01..2025-12-31"),
        ("mid-March 2024", "2024-03-11..2024-03-20"),
        ("at the end of May", "2026-05-21..2026-05-31"),
        ("the beginning of last summer", "2026-06-01..2026-06-30"),
        # Distances.
        ("in the last two months", "2026-09-20..2026-11-20"),
        ("the past week", "2026-11-13..2026-11-20"),
        ("over the last 3 years", "2023-11-20..2026-11-20"),
        ("the next 3 days", "2026-11-20..2026-11-23"),
        # Bounds and ranges.
        ("since March", "2026-03-01..2026-11-20"),
        ("since yesterday", "2026-11-19..2026-11-20"),
        ("since 2019", "2019-01-01..2026-11-20"),
        ("before 2020", "0001-01-01..2019-12-31"),
        ("after 3 May 2024", "2024-05-04..9999-12-31"),
        ("until the end of March", "0001-01-01..2026-03-31"),
        ("from 3 to 10 May", "2026-05-03..2026-05-10"),
        ("3-10 May 2024", "2024-05-03..2024-05-10"),
        ("March to May 2024", "2024-03-01..2024-05-31"),
        ("from March to May", "2026-03-01..2026-05-31"),
        ("from November to February", "2025-11-01..2026-02-28"),
        ("between June and August 2023", "2023-06-01..2023-08-31"),
        ("between December 2023 and January", "2023-12-01..2024-01-31"),
        ("from 2019 to 2021", "2019-01-01..2021-12-31"),
        ("from Monday to Wednesday", "2026-11-16..2026-11-18"),
        ("from 2024-05-03 until 2024-06-01", "2024-05-03..2024-06-01"),
        # Inside a sentence: the first one, and only its words.
        ("what did I say about the garden last March?", "2026-03-01..2026-03-31|last March"),
        ("Anna in 2024 and 2025", "2024-01-01..2024-12-31|in 2024"),
        ("sad last week because of the news", "2026-11-09..2026-11-15|last week"),
        ("the trip in June, by train", "2026-06-01..2026-06-30|in June"),
        ("In May we moved", "2026-05-01..2026-05-31|In May"),
    ],
)  # fmt: skip
def test_dates_in_words(text: str, expected: str) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "may", "I may go", "may I come", "this may be hard", "we march on", "march", "the last march",
        "June said hi", "june", "april", "August was angry", "May 2024 be kinder", "all 3 may come",
        "May 3 people come", "2024 steps", "in 2024 steps", "march 2000 steps", "room 101", "at 7:30",
        "3.5 km", "1,2024", "in 2,024 cases", "I read 1984", "version 2024.05.03.1", "v2024.05.03", "30-40",
        "call 2024-05-03-17", "on the 3rd", "3 of them", "on monday mornings", "in the fall I broke a leg",
        "last", "this", "next", "since", "before", "from to", "between", "the end of", "ago", "3 days", "a week",
        "late", "in the end", "spring", "a spring in the step", "the second time", "in my 30s", "sun", "sat down",
        "in 20244", "12024", "in 0000", "32 May", "99999 days ago", "9999 years ago", "at the last minute",
        "for years", "in the past", "last but not least", "the last ten days of it", "the last week of school",
        "on sun", "in the 90s", "marching", "mayhem", "Mondays",
    ],
)  # fmt: skip
def test_words_that_are_no_date(text: str) -> None:
    assert found(text) == "-"


@pytest.mark.parametrize(
    ("today", "text", "expected"),
    [
        (date(2026, 1, 5), "last month", "2025-12-01..2025-12-31"),
        (date(2026, 1, 5), "in winter", "2025-12-01..2026-02-28"),
        (date(2026, 1, 5), "this winter", "2025-12-01..2026-02-28"),
        (date(2026, 1, 5), "last winter", "2024-12-01..2025-02-28"),
        (date(2026, 1, 1), "yesterday", "2025-12-31"),
        (date(2024, 2, 29), "a year ago", "2023-01-01..2023-12-31"),
        (date(2024, 2, 29), "the last year", "2023-02-28..2024-02-29"),
        (date(2024, 3, 31), "the last month", "2024-02-29..2024-03-31"),
        (date(2026, 11, 16), "last weekend", "2026-11-14..2026-11-15"),
        (date(2026, 11, 22), "last weekend", "2026-11-14..2026-11-15"),
        (date(2026, 11, 22), "over the weekend", "2026-11-21..2026-11-22"),
        (date(2026, 3, 10), "last March", "2025-03-01..2025-03-31"),
        (date(2026, 3, 10), "in March", "2026-03-01..2026-03-31"),
        (date.min, "yesterday", "-"),
        (date.min, "in December", "-"),
        (date.max, "next week", "-"),
        (date.max, "tomorrow", "-"),
    ],
)
def test_dates_in_words_on_other_days(today: date, text: str, expected: str) -> None:
    assert found(text, today) == expected


VOCABULARY = (
    "last this next past the a an of in on at since before after until from to between and ago early mid late "
    "beginning end yesterday today tomorrow day days week weekend month year years decade morning night spring "
    "summer fall winter march may June November nov. sept Monday fri 3 3rd 31 29 2024 1999 9999 0 00 2024-05-03 "
    "2024-05 31.2.2024 5/13/2024 90s 1990s q 4 few couple two - – , . / ' 's 99999999999999999999 ½ ² ٣"
).split(" ")


@given(st.lists(st.sampled_from(VOCABULARY), max_size=12).map(" ".join), st.dates())
def test_no_phrase_breaks_it(text: str, today: date) -> None:
    result = parse_phrase(text, today)
    if result is not None:
        assert result.start <= result.end
        assert result.matched
        assert result.matched in text


@given(st.text(max_size=80), st.dates())
def test_no_text_breaks_it(text: str, today: date) -> None:
    result = parse_phrase(text, today)
    assert result is None or result.matched in text


@given(st.dates(date(1900, 1, 1), date(2099, 12, 31)), st.dates(date(1950, 1, 1), date(2090, 1, 1)))
def test_days_in_words_read_back(day: date, today: date) -> None:
    for text in (
        dates.format_day(day),
        day.isoformat(),
        f"{dates.format_weekday(day)}, {dates.format_day(day)}",
    ):
        assert parse_phrase(text, today) == DateRange(day, day, text)


@pytest.mark.parametrize(
    "words", ["early", "end of the", "from the last", "3 to", "Monday ,", "a couple of", "may -"]
)
def test_a_long_text(words: str) -> None:
    """However long: each reading looks a few words ahead and no further, without recursion."""
    assert parse_phrase(f"{words} " * 20_000, TODAY) is None
    assert found(f"{words} " * 20_000 + ". yesterday") == "2026-11-19|yesterday"


def test_a_long_number() -> None:
    assert parse_phrase("9" * 100_000, TODAY) is None
    assert parse_phrase("in " + "9" * 100_000 + "s ago", TODAY) is None


# --- Date phrases in German ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("gestern", "2026-11-19"),
        ("vorgestern", "2026-11-18"),
        ("übermorgen", "2026-11-22"),
        ("morgen", "2026-11-21"),
        ("heute Morgen", "2026-11-20"),
        ("guten Morgen", "-"),
        ("gestern Abend", "2026-11-19"),
        ("am Montagabend", "2026-11-16"),
        ("12. März", "2026-03-12"),
        ("12 Maerz 2024", "2024-03-12"),
        ("12. Okt. 2024", "2024-10-12"),
        ("12.3.2024", "2024-03-12"),
        ("12.3.", "2026-03-12"),
        ("am 12.03.", "2026-03-12"),
        ("Version 1.2. ist da", "-"),
        ("Donnerstag, den 19. November 2026", "2026-11-19"),
        ("was war am 5. Juni los?", "2026-06-05|am 5. Juni"),
        ("letzten Montag", "2026-11-16"),
        ("naechsten Freitag", "2026-11-27"),
        ("Montag letzter Woche", "2026-11-09"),
        ("letzte Woche", "2026-11-09..2026-11-15"),
        ("am Wochenende", "2026-11-14..2026-11-15"),
        ("im März", "2026-03-01..2026-03-31"),
        ("Ende März 2024", "2024-03-21..2024-03-31"),
        ("Sommer 2023", "2023-06-01..2023-08-31"),
        ("vor drei Tagen", "2026-11-17"),
        ("vor ein paar Wochen", "2026-10-05..2026-11-08"),
        ("vor 2020", "0001-01-01..2019-12-31"),
        ("vor dem Haus", "-"),
        ("seit letztem Sommer", "2026-06-01..2026-11-20"),
        ("vom 3. bis zum 10. Mai 2024", "2024-05-03..2024-05-10"),
        ("zwischen März und Mai 2024", "2024-03-01..2024-05-31"),
        ("in den letzten zwei Monaten", "2026-09-20..2026-11-20"),
        ("der Mai ist gekommen", "-"),
        ("Die letzte Instanz", "-"),
        ("last Friday", "2026-11-13"),
        ("May 3rd, 2024", "2024-05-03"),
        ("3 days ago", "2026-11-17"),
    ],
)
def test_german_phrases_and_english_ones_beside_them(text: str, wanted: str) -> None:
    assert found(text, language="de") == wanted


def test_german_is_read_only_where_it_is_spoken() -> None:
    assert found("gestern") == found("am 12. März") == "-"


GERMAN = (
    "vor bis vom seit zwischen und den am im letzten ein paar Tagen Woche Monats Jahr morgen früh heute März Mai. 12. "
    "3. 3 Montagabend Ende"
).split()


@given(st.lists(st.sampled_from([*VOCABULARY, *GERMAN]), max_size=12).map(" ".join), st.dates())
def test_no_german_phrase_breaks_it(text: str, today: date) -> None:
    result = parse_phrase(text, today, "de")
    assert result is None or (
        result.start <= result.end and result.matched and result.matched in text
    )


@pytest.mark.parametrize(
    "words", ["vor 3", "vor", "12.", "12.3.", "am", "vom letzten", "vorgestern um"]
)
def test_a_long_german_text(words: str) -> None:
    assert found(f"{words} " * 20_000 + ". vorgestern", language="de").startswith("2026-")
