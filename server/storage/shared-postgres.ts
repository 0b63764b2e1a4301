import pg from "pg";
import { storageConfigurationError } from "./configuration-error.ts";
import { codeOf } from "./error-code.ts";

const VARIABLE = "TOOLPLANE_DATABASE_URL";

/** The settings that a database URL stands for. Throws when it cannot be one. */
export function parseDatabaseUrl(url: string): pg.ClientConfig {
  // Errors of parsers quote what they were given, so they are not passed on: the URL may hold a password.
  if (!URL.canParse(url) || !/^postgres(ql)?:$/.test(new URL(url).protocol)) {
    throw storageConfigurationError(
      "DATABASE_URL_INVALID",
      VARIABLE,
      `${VARIABLE} is not a URL of the form postgres://user:password@host:5432/database`,
    );
  }
  const config: pg.ClientConfig = { connectionString: url };
  try {
    new pg.Client(config);
  } catch (error) {
    const code = codeOf(error);
    throw storageConfigurationError(
      "DATABASE_URL_INVALID",
      VARIABLE,
      code === "ENOENT" || code === "EACCES"
        ? `${VARIABLE} names a certificate or key that cannot be read (${code})`
        : `${VARIABLE} cannot be understood; characters other than letters and digits have to be percent-encoded`,
    );
  }
  return config;
}

/** Explains why the first connection to a shared database failed, and what to change, without the password. */
export function explainConnectError(error: unknown, config: pg.ClientConfig): Error {
  const client = new pg.Client(config);
  const { host, port, database, user = "", password } = client;
  const place = host.startsWith("/") ? `socket ${host}/.s.PGSQL.${port}` : `${host}:${port}`;
  const fail = (reason: string, message: string) =>
    storageConfigurationError(reason, VARIABLE, `${VARIABLE}: ${message}`, error);
  const text = error instanceof Error ? error.message : String(error);
  switch (codeOf(error)) {
    case "28P01":
    case "28000":
      return fail("DATABASE_LOGIN_REFUSED", `${place} refuses user "${user}" or its password`);
    case "3D000":
      return fail(
        "DATABASE_MISSING",
        `there is no database "${database}" at ${place}; create it, or name another`,
      );
    case "42501":
      return fail("DATABASE_LOGIN_REFUSED", `user "${user}" may not use database "${database}" at ${place}`);
    case "57P03":
    case "53300":
      return fail("DATABASE_UNAVAILABLE", `${place} accepts no connections now; try again`);
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return fail("DATABASE_UNREACHABLE", `there is no host "${host}"`);
    case "ECONNREFUSED":
    case "ENOENT":
      return fail("DATABASE_UNREACHABLE", `nothing listens at ${place}; is PostgreSQL running there?`);
    case "EACCES":
      return fail("DATABASE_UNREACHABLE", `this process may not use ${place}`);
  }
  if (/password must be a string|no password supplied/.test(text)) {
    return fail("DATABASE_LOGIN_REFUSED", `${place} asks for a password, and the URL has none`);
  }
  if (/timeout/i.test(text)) {
    return fail("DATABASE_UNREACHABLE", `${place} does not answer`);
  }
  const shown = password ? text.replaceAll(password, "***") : text;
  return fail("DATABASE_UNREACHABLE", `cannot connect to ${place}: ${shown}`);
}
