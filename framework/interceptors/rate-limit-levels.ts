import { isIPv4, isIPv6 } from "node:net";
import type { DescMethod } from "@bufbuild/protobuf";
import type { Clock } from "../clock.ts";
import type { RateLimit } from "../policies/rate-limit/gcra.ts";
import type { LimitLevel } from "../policies/rate-limit/limit-set.ts";
import { createRateLimiter, type RateLimiterOptions } from "../policies/rate-limit/rate-limiter.ts";
import { anonymous, type Principal } from "./call-context.ts";

/** A call as limits see it. */
export interface LimitedCall {
  readonly method: DescMethod;
  /** Who calls, see `callerKey`. */
  readonly caller: string;
}

export interface CallLevelsOptions {
  /** All calls together. Default: not limited. */
  readonly global?: RateLimit | undefined;
  /** The calls of each service that `services` does not name. Default: not limited. */
  readonly service?: RateLimit | undefined;
  /** The calls of a service, by its name, such as `acme.weather.v1.WeatherService`; undefined: it is not limited. */
  readonly services?: Readonly<Record<string, RateLimit | undefined>> | undefined;
  /** The calls of a method, such as an option of its descriptor says. Asked once for each. Default: not limited. */
  readonly limitOf?: ((method: DescMethod) => RateLimit | undefined) | undefined;
  /** The calls of each caller that `callers` does not name. Default: not limited. */
  readonly caller?: RateLimit | undefined;
  /** The calls of a caller, by the id of its principal, such as `key:ci`; undefined: it is not limited. */
  readonly callers?: Readonly<Record<string, RateLimit | undefined>> | undefined;
  /** How many callers are remembered, at about 120 bytes each. Default: 1,000,000. */
  readonly maxCallers?: number | undefined;
  readonly clock?: Clock | undefined;
}

/** The limit of a level whose keys have limits of their own: nobody comes under it. */
const unlimited: RateLimit = { limit: 1_000_000, periodMs: 1_000, burst: 1_000_000 };
/** The level that has one key for everyone. */
export const GLOBAL_LEVEL = "global";

/** The levels at which calls are limited, from the widest: `global`, `service`, `method`, `caller`. */
export function callLevels(options: CallLevelsOptions): LimitLevel<LimitedCall>[] {
  const clock = options.clock === undefined ? {} : { clock: options.clock };
  const levels: LimitLevel<LimitedCall>[] = [];
  if (options.global !== undefined) {
    const limiter = createRateLimiter({ ...options.global, ...clock });
    levels.push({ name: GLOBAL_LEVEL, limiter, keyOf: () => "all" });
  }
  const { service, services, limitOf, caller, callers, maxCallers } = options;
  levels.push(...levelOf("service", ({ method }) => method.parent.typeName, service, services, clock));
  if (limitOf !== undefined) {
    const limiter = createRateLimiter({ ...unlimited, ...clock });
    const keys = new WeakMap<DescMethod, string | false>();
    const keyOf = ({ method }: LimitedCall) => {
      let key = keys.get(method);
      if (key === undefined) {
        const limit = limitOf(method);
        key = limit === undefined ? false : `${method.parent.typeName}/${method.name}`;
        keys.set(method, key);
        if (key !== false) {
          limiter.setLimit(key, limit);
        }
      }
      return key === false ? undefined : key;
    };
    levels.push({ name: "method", limiter, keyOf });
  }
  const memory = maxCallers === undefined ? {} : { maxKeys: maxCallers };
  levels.push(...levelOf("caller", (call) => call.caller, caller, callers, { ...memory, ...clock }));
  return levels;
}

/** A level with one limit for all keys, except for those that have their own, or none. No level where nothing is limited. */
function levelOf(
  name: string,
  keyOf: (call: LimitedCall) => string,
  common: RateLimit | undefined,
  own: Readonly<Record<string, RateLimit | undefined>> = {},
  options: Pick<RateLimiterOptions, "maxKeys" | "clock">,
): LimitLevel<LimitedCall>[] {
  const known = new Map(Object.entries(own));
  const overrides = [...known].flatMap(([key, limit]) =>
    limit === undefined ? [] : [[key, limit] as const],
  );
  if (common === undefined && overrides.length === 0) {
    return [];
  }
  return [
    {
      name,
      limiter: createRateLimiter({ ...(common ?? unlimited), overrides, ...options }),
      keyOf(call) {
        const key = keyOf(call);
        const limit = known.has(key) ? known.get(key) : common;
        return limit === undefined ? undefined : key;
      },
    },
  ];
}

/**
 * Names who calls: the principal if it is known, else the address that the call comes from. Whoever has an IPv6 address
 * has a whole /64 of them (RFC 6177), so these count as one. Everyone whose address is unknown shares one key.
 *
 * @param peer such as `127.0.0.1:52114` or `[::1]:52114`
 */
export function callerKey(principal: Principal, peer: string | undefined): string {
  if (principal.id !== anonymous.id) {
    return principal.id;
  }
  const address = /^\[(?<v6>.*)\](?::\d+)?$/.exec(peer ?? "")?.groups?.["v6"] ?? peer?.replace(/:\d+$/, "");
  return address === undefined || !(isIPv4(address) || isIPv6(address))
    ? "address:unknown"
    : `address:${networkOf(address)}`;
}

function networkOf(address: string): string {
  if (isIPv4(address)) {
    return address;
  }
  const [plain = ""] = address.split("%");
  // Makes of every spelling the shortest one, with the last 32 bits as hexadecimal digits.
  const canonical = new URL(`http://[${plain}]`).hostname.slice(1, -1);
  const mapped = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical);
  if (mapped !== null) {
    const [high, low] = mapped.slice(1).map((group) => Number.parseInt(group, 16));
    return [high, low].flatMap((group = 0) => [group >> 8, group & 255]).join(".");
  }
  const [head = "", tail] = canonical.split("::");
  const groupsOf = (part: string) => (part === "" ? [] : part.split(":"));
  const [left, right] = [groupsOf(head), groupsOf(tail ?? "")];
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  const groups = [...left, ...Array<string>(zeros).fill("0"), ...right];
  return `${groups.slice(0, 4).join(":")}::/64`;
}
