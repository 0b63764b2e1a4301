const TIMESTAMP =
  /^(\d{4})-(\d{2})-(\d{2})T(\d{2}):(\d{2}):(\d{2})(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/;
const FIRST_INSTANT = Date.parse("0001-01-01T00:00:00Z");
const LAST_INSTANT = Date.parse("9999-12-31T23:59:59.999Z");
const DURATION = /^-?(\d{1,12})(?:\.\d{1,9})?s$/;
/** 10,000 years, the longest that google.protobuf.Duration allows. */
const MAX_SECONDS = 315_576_000_000;

/** A time of RFC 3339 that exists and that google.protobuf.Timestamp can hold. */
export function isTimestamp(json: unknown): boolean {
  const parts = typeof json === "string" ? TIMESTAMP.exec(json) : null;
  if (parts === null) {
    return false;
  }
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = parts.slice(1).map(Number);
  const daysInMonth = new Date(Date.UTC(2000 + (year % 400), month, 0)).getUTCDate();
  // The fraction does not decide whether an instant is in range.
  const instant = Date.parse(parts[0].replace(/\.\d+/, ""));
  return (
    month >= 1 &&
    month <= 12 &&
    day >= 1 &&
    day <= daysInMonth &&
    hour < 24 &&
    minute < 60 &&
    second < 60 &&
    instant >= FIRST_INSTANT &&
    instant <= LAST_INSTANT
  );
}

export function isDuration(json: unknown): boolean {
  const parts = typeof json === "string" ? DURATION.exec(json) : null;
  return parts !== null && Number(parts[1]) <= MAX_SECONDS;
}

/** Any comma-separated names without underscores, which lowerCamelCase does not have. */
export function isFieldMask(json: unknown): boolean {
  return typeof json === "string" && json.isWellFormed() && !json.includes("_");
}
