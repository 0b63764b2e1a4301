import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type CronSchedule, checkSchedule, nextOccurrence, takeDue } from "./cron.ts";

const berlin = (cron: string): CronSchedule => ({ cron, timeZone: "Europe/Berlin" });
const utc = (cron: string): CronSchedule => ({ cron, timeZone: "" });

/** The first occurrences after a time, each asked for anew, as the loop does. */
function occurrences(schedule: CronSchedule, after: string, count: number): string[] {
  const found: string[] = [];
  let time: number | undefined = Date.parse(after);
  while (found.length < count && time !== undefined) {
    time = nextOccurrence(schedule, time);
    found.push(new Date(time ?? 0).toISOString().replace(":00.000Z", "Z"));
  }
  return found;
}

describe("a schedule", () => {
  it.each([
    "30 6 * * MON-FRI",
    "*/5 * * * *",
    "0 0 29 2 *",
    "0 0 L * *",
    "0 0 * * 1#2",
    "15 0 0 1 1 *",
    " 1 2 3 4 5 ",
  ])("may be %s", (cron) => {
    expect(checkSchedule(utc(cron))).toBeUndefined();
    expect(checkSchedule(berlin(cron))).toBeUndefined();
  });

  it.each([
    ["", "", /fields/],
    ["* * * *", "", /4 fields/],
    ["@daily", "", /1 fields/],
    ["* * * * * * *", "", /7 fields/],
    ["61 * * * *", "", /cannot be understood.*61/],
    ["a b c d e", "", /cannot be understood/],
    ["*/0 * * * *", "", /cannot be understood/],
    ["H 0 * * *", "", /leaves a time open/],
    ["0 0 30 2 *", "", /./],
    ["0 0 31 4,6,9,11 *", "", /never comes/],
    ["0 0 * * *", "Mars/Olympus", /not a time zone/],
    ["0 0 * * *", "local", /not a time zone/],
    ["0 0 * * *", "+03:00", /not a time zone/],
  ])("cannot be %j in %j", (cron, timeZone, message) => {
    expect(checkSchedule({ cron, timeZone })).toMatch(message);
  });

  it("is in its time zone, summer and winter", () => {
    expect(occurrences(berlin("30 6 * * *"), "2026-03-28T00:00:00Z", 2)).toEqual([
      "2026-03-28T05:30Z",
      "2026-03-29T04:30Z",
    ]);
    expect(occurrences(utc("30 6 * * *"), "2026-03-28T07:00:00Z", 1)).toEqual(["2026-03-29T06:30Z"]);
  });

  it("comes an hour later where clocks are put forward over its time", () => {
    expect(occurrences(berlin("30 2 * * *"), "2026-03-28T02:00:00Z", 2)).toEqual([
      "2026-03-29T01:30Z",
      "2026-03-30T00:30Z",
    ]);
    expect(occurrences(berlin("0 * * * *"), "2026-03-28T23:30:00Z", 3)).toEqual([
      "2026-03-29T00:00Z",
      "2026-03-29T01:00Z",
      "2026-03-29T02:00Z",
    ]);
  });

  it("comes once at an hour that there is twice, where it is at a fixed hour, and in both where it is in each", () => {
    expect(occurrences(berlin("30 2 * * *"), "2026-10-24T12:00:00Z", 2)).toEqual([
      "2026-10-25T00:30Z",
      "2026-10-26T01:30Z",
    ]);
    expect(occurrences(berlin("*/30 * * * *"), "2026-10-24T23:40:00Z", 6)).toEqual([
      "2026-10-25T00:00Z",
      "2026-10-25T00:30Z",
      "2026-10-25T01:00Z",
      "2026-10-25T01:30Z",
      "2026-10-25T02:00Z",
      "2026-10-25T02:30Z",
    ]);
  });

  it("starts what is due, each by itself when it is a little late", () => {
    const due = Date.UTC(2026, 5, 1, 12);
    expect(takeDue(utc("* * * * * *"), due, due + 3_500)).toEqual({ start: due, next: due + 1_000 });
    expect(takeDue(utc("0 12 * * *"), due, due)).toEqual({ start: due, next: due + 86_400_000 });
  });

  it("makes up for the last occurrence that was missed, within an hour", () => {
    const due = Date.UTC(2026, 5, 1, 12);
    const minutes = (count: number) => count * 60_000;
    expect(takeDue(utc("*/10 * * * *"), due, due + minutes(25))).toEqual({
      start: due + minutes(20),
      next: due + minutes(30),
    });
    expect(takeDue(utc("0 12 * * *"), due, due + minutes(59))).toMatchObject({ start: due });
    expect(takeDue(utc("0 12 * * *"), due, due + minutes(61))).toEqual({
      start: undefined,
      next: due + 86_400_000,
    });
    // After a year, at once.
    expect(takeDue(utc("* * * * * *"), due - 365 * 86_400_000, due)).toEqual({
      start: due,
      next: due + 1_000,
    });
    expect(takeDue(utc("0 12 * * *"), due - 365 * 86_400_000, due + minutes(5))).toMatchObject({
      start: due,
    });
  });

  it("does not come twice in a night when it was missed in the hour that there is twice", () => {
    const due = Date.parse("2026-10-25T00:30:00Z");
    expect(takeDue(berlin("30 2 * * *"), due, Date.parse("2026-10-25T01:10:00Z"))).toEqual({
      start: due,
      next: Date.parse("2026-10-26T01:30:00Z"),
    });
  });

  it("goes on after now, whatever was missed", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("*/7 * * * *", "0 */3 * * *", "30 2 * * *", "15 10 * * 1", "*/20 * * * * *"),
        fc.constantFrom("UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"),
        fc.integer({ min: Date.UTC(2026, 0, 1), max: Date.UTC(2027, 0, 1) }),
        fc.integer({ min: 0, max: 3 * 3_600_000 }),
        (cron, timeZone, from, late) => {
          const schedule = { cron, timeZone };
          const due = nextOccurrence(schedule, from) ?? Number.NaN;
          expect(due).toBeGreaterThan(from);
          const now = due + late;
          const { start, next } = takeDue(schedule, due, now);
          expect(next).toBeGreaterThan(late > 60_000 ? now : due);
          if (start !== undefined) {
            expect(start).toBeGreaterThanOrEqual(due);
            expect(start).toBeLessThanOrEqual(now);
            expect(next).toBeGreaterThan(start);
          }
        },
      ),
    );
  });
});
