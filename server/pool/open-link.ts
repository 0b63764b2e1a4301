import type { SecureContextOptions } from "node:tls";
import type { Clock } from "@toolplane/framework";
import { DomainError } from "@toolplane/framework";
import { unreachable } from "./errors.ts";
import { H1Link } from "./h1-link.ts";
import { H2Link } from "./h2-link.ts";
import type { PoolLimits } from "./limits.ts";
import type { Link, LinkEvents } from "./link.ts";
import type { Route } from "./route.ts";
import { openSocket } from "./socket.ts";

export interface OpenLinkOptions {
  readonly clock: Clock;
  readonly limits: PoolLimits;
  readonly tls?: SecureContextOptions | undefined;
}

/** How many origins' HTTP versions are remembered. */
const MAX_REMEMBERED = 1_000;

export type OpenLink = (route: Route, events: LinkEvents, signal: AbortSignal) => Promise<Link>;

/**
 * Opens connections. Where the HTTP version is open, TLS negotiates it (ALPN); in cleartext the HTTP/2 preface is tried
 * first, which HTTP/1.1 servers answer with an error, and the finding is remembered for as long as a connection may live.
 */
export function createLinkOpener({ clock, limits, tls }: OpenLinkOptions): OpenLink {
  const h1Until = new Map<string, number>();

  function knownH1(origin: string): boolean {
    return (h1Until.get(origin) ?? Number.NEGATIVE_INFINITY) > clock.monotonic();
  }

  function rememberH1(origin: string): void {
    h1Until.delete(origin);
    h1Until.set(origin, clock.monotonic() + limits.maxAgeMs);
    const [oldest] = h1Until.keys();
    if (h1Until.size > MAX_REMEMBERED && oldest !== undefined) {
      h1Until.delete(oldest);
    }
  }

  return async (route, events, signal) => {
    const { origin, version } = route;
    const startedAt = clock.monotonic();
    const secure = origin.startsWith("https:");
    const timeLeft = () => Math.max(1, limits.connectTimeoutMs - (clock.monotonic() - startedAt));
    const connect = (...alpn: string[]) =>
      openSocket({ origin, alpn, timeoutMs: timeLeft(), clock, signal, tls });
    const h1 = async () =>
      new H1Link(await connect("http/1.1"), { origin, idleTimeoutMs: limits.idleTimeoutMs, events });

    try {
      if (version === "h1" || (version === "auto" && !secure && knownH1(origin))) {
        return await h1();
      }
      if (!secure) {
        const socket = await connect();
        const timeoutMs = version === "auto" ? timeLeft() / 2 : timeLeft();
        try {
          return await H2Link.open(socket, { origin, clock, limits, timeoutMs, events });
        } catch (error) {
          if (version === "h2") {
            throw error;
          }
          const link = await h1();
          rememberH1(origin);
          return link;
        }
      }
      const socket = await (version === "auto" ? connect("h2", "http/1.1") : connect("h2"));
      if ("alpnProtocol" in socket && socket.alpnProtocol === "h2") {
        return await H2Link.open(socket, { origin, clock, limits, timeoutMs: timeLeft(), events });
      }
      if (version === "auto") {
        return new H1Link(socket, { origin, idleTimeoutMs: limits.idleTimeoutMs, events });
      }
      socket.destroy();
      throw new Error("the server does not offer HTTP/2 in the TLS handshake (ALPN)");
    } catch (error) {
      throw error instanceof DomainError ? error : unreachable(origin, error);
    }
  };
}
