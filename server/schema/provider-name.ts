import { createHash } from "node:crypto";

/** What every provider of language models accepts as the name of a tool. */
const ACCEPTED = /^[a-zA-Z][a-zA-Z0-9_-]{0,63}$/;
const MAX_NAME = 64;
/** Hexadecimal digits that keep shortened names apart. */
const HASH_DIGITS = 8;

/** Tool names as providers see them, and back. */
export interface NameMap {
  /** Undefined: the name is not in the map. */
  toProvider(name: string): string | undefined;
  fromProvider(providerName: string): string | undefined;
}

/**
 * A name that every provider accepts: it begins with a letter and has at most 64 letters, digits, underscores and
 * hyphens. A name that is accepted as it is stays. All others end with a hash of the name, so that different names stay
 * different, and keep as much of their end as there is room for, since that names the method:
 * `weather.acme.v1.WeatherService.GetForecast` becomes `weather_acme_v1_WeatherService_GetForecast_0f6ab2d1`.
 */
export function providerName(name: string): string {
  return ACCEPTED.test(name) ? name : shorten(name, 0);
}

/** Maps names to provider names and back. Names are different from each other even where hashes are not. */
export function createNameMap(names: Iterable<string>): NameMap {
  const all = new Set(names);
  const providers = new Map<string, string>();
  const originals = new Map<string, string>();
  const assign = (name: string, provider: string) => {
    providers.set(name, provider);
    originals.set(provider, name);
  };
  const accepted = [...all].filter((name) => ACCEPTED.test(name));
  for (const name of accepted) {
    assign(name, name);
  }
  for (const name of [...all].filter((name) => !ACCEPTED.test(name)).sort()) {
    let attempt = 0;
    while (originals.has(shorten(name, attempt))) {
      attempt++;
    }
    assign(name, shorten(name, attempt));
  }
  return {
    toProvider: (name) => providers.get(name),
    fromProvider: (provider) => originals.get(provider),
  };
}

function shorten(name: string, attempt: number): string {
  const salted = attempt === 0 ? name : `${name}\n${attempt}`;
  const hash = createHash("sha256").update(salted).digest("hex").slice(0, HASH_DIGITS);
  const room = MAX_NAME - HASH_DIGITS - 1;
  const readable = name
    .slice(-2 * room)
    .replaceAll(/[^a-zA-Z0-9_-]+/g, "_")
    .slice(-room)
    .replace(/^[^a-zA-Z]+/, "");
  return readable === "" ? `tool_${hash}` : `${readable}_${hash}`;
}
