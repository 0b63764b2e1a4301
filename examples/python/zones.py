"""Time zone arithmetic on the IANA database."""

import datetime
import zoneinfo
from collections.abc import Iterator

UTC = datetime.timezone.utc
SECOND = datetime.timedelta(seconds=1)


def zone(name: str) -> zoneinfo.ZoneInfo:
    """Raises ValueError for names that the database does not have."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f'"{name}" is not a time zone; zones have names such as "Europe/Berlin"') from None


def occurrences(local: datetime.datetime) -> int:
    """How often an aware local time occurs: 0 where clocks are put forward over it, 2 where they are put back."""
    first, second = local.replace(fold=0), local.replace(fold=1)
    if first.utcoffset() == second.utcoffset():
        return 1
    exists = first.astimezone(UTC).astimezone(local.tzinfo).replace(fold=0) == first
    return 2 if exists else 0


def changes(in_zone: zoneinfo.ZoneInfo, from_year: int, to_year: int) -> Iterator[datetime.datetime]:
    """The moments in UTC at which the offset changes: looked for day by day, then narrowed down to the second."""
    day = datetime.timedelta(days=1)
    time = datetime.datetime(from_year, 1, 1, tzinfo=UTC)
    end = datetime.datetime(to_year + 1, 1, 1, tzinfo=UTC)
    while time < end:
        if offset(time, in_zone) != offset(time + day, in_zone):
            low, high = time, time + day
            while high - low > SECOND:
                middle = low + datetime.timedelta(seconds=(high - low) // SECOND // 2)
                if offset(middle, in_zone) == offset(low, in_zone):
                    low = middle
                else:
                    high = middle
            yield high
        time += day


def offset(time: datetime.datetime, in_zone: zoneinfo.ZoneInfo) -> datetime.timedelta:
    return time.astimezone(in_zone).utcoffset() or datetime.timedelta()


def working_hours(
    date: datetime.date, start: datetime.time, end: datetime.time, in_zone: zoneinfo.ZoneInfo
) -> tuple[datetime.datetime, datetime.datetime]:
    """When someone's work on a day begins and ends, in UTC."""
    last_day = date if end > start else date + datetime.timedelta(days=1)
    begins = datetime.datetime.combine(date, start, in_zone)
    ends = datetime.datetime.combine(last_day, end, in_zone)
    return begins.astimezone(UTC), ends.astimezone(UTC)
