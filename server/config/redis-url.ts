import type { ReportMistake } from "./mistakes.ts";

/** Undefined: there is none. The URL may hold a password, and so no mistake repeats it. */
export function resolveRedisUrl(url: string, report: ReportMistake): string | undefined {
  if (url === "") {
    return undefined;
  }
  if (!isRedisUrl(url)) {
    report(
      "redis_url",
      "must be a URL such as redis://user:password@host:6379/0, with rediss for TLS, special characters of the password in percent-encoding, and a number as its path if any",
    );
  }
  return url;
}

function isRedisUrl(text: string): boolean {
  try {
    const { hostname, pathname, username, password } = new URL(text);
    decodeURIComponent(username);
    decodeURIComponent(password);
    return hostname !== "" && /^\/?\d*$/.test(pathname);
  } catch {
    return false;
  }
}
