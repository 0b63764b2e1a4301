import { CronExpressionParser } from "cron-parser";

/** When something is to happen again and again. */
export interface CronSchedule {
  /** Five fields, or six with seconds before them. */
  readonly cron: string;
  /** Empty: UTC. */
  readonly timeZone: string;
}

/** An occurrence that is later than this was missed: nobody was there. */
const MISSED_AFTER_MS = 60_000;
/** Of those that were missed, the last one is made up for within this time. */
const MADE_UP_WITHIN_MS = 3_600_000;
/** Any leap year's worth of days is within reach from here. */
const SOME_TIME = Date.UTC(2026, 0, 1);

/** What is wrong with a schedule, for people. Undefined: nothing. */
export function checkSchedule({ cron, timeZone }: CronSchedule): string | undefined {
  const fields = cron.trim().split(/\s+/);
  if (fields.length !== 5 && fields.length !== 6) {
    return `"${cron}" has ${fields.length} fields; a schedule has five, minute to day of the week, or six with seconds before them, such as "30 6 * * MON-FRI"`;
  }
  // Elsewhere "H" stands for a number that is drawn; a schedule means the same wherever it is read.
  if (fields.some((field) => /(^|,)H/i.test(field))) {
    return `"${cron}" leaves a time open with H; name the time`;
  }
  if (timeZone !== "" && !isTimeZone(timeZone)) {
    return `"${timeZone}" is not a time zone; use a name such as "Europe/Berlin" or "UTC"`;
  }
  try {
    parse({ cron, timeZone }, SOME_TIME);
  } catch (error) {
    return `"${cron}" cannot be understood: ${error instanceof Error ? error.message : String(error)}`;
  }
  return nextOccurrence({ cron, timeZone }, SOME_TIME) === undefined ? `"${cron}" never comes` : undefined;
}

/**
 * When it happens next, in milliseconds since 1970; undefined: never. What falls into an hour that daylight saving time
 * skips happens in the hour after it; at a fixed hour that comes twice, it happens once.
 */
export function nextOccurrence(schedule: CronSchedule, after: number): number | undefined {
  return occurrencesAfter(schedule, after).next().value ?? undefined;
}

/**
 * What a schedule whose next occurrence was `due` comes to now: the occurrence to start, and the one after it. Occurrences
 * that are a little late are started one by one; of those that were missed, only the last.
 */
export function takeDue(
  schedule: CronSchedule,
  due: number,
  now: number,
): { readonly start: number | undefined; readonly next: number | undefined } {
  if (now - due <= MISSED_AFTER_MS) {
    return { start: due, next: nextOccurrence(schedule, due) };
  }
  const earliest = now - MADE_UP_WITHIN_MS;
  let start = due >= earliest ? due : undefined;
  for (const time of occurrencesAfter(schedule, Math.max(due, earliest - 1))) {
    if (time > now) {
      return { start, next: time };
    }
    start = time;
  }
  return { start, next: undefined };
}

function* occurrencesAfter(schedule: CronSchedule, after: number): Generator<number, undefined, undefined> {
  const expression = parse(schedule, after);
  for (;;) {
    try {
      yield expression.next().getTime();
    } catch {
      return; // it has looked far enough
    }
  }
}

function parse({ cron, timeZone }: CronSchedule, after: number) {
  return CronExpressionParser.parse(cron, { currentDate: new Date(after), tz: timeZone || "UTC" });
}

/** The library takes some texts for time zones that are none, such as that of the machine it runs on; `Intl`, offsets. */
function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return /^[A-Za-z]/.test(name);
  } catch {
    return false;
  }
}
