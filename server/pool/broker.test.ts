import fc from "fast-check";
import pino from "pino";
import { describe, expect, it } from "vitest";
import { createFakeClock } from "../../framework/test-support/fake-clock.ts";
import { Broker, type Lease } from "./broker.ts";
import { defaultPoolLimits } from "./limits.ts";
import type { Link, LinkEvents } from "./link.ts";
import { createRoute } from "./route.ts";

const ROUTES = ["http://a", "http://b", "http://a:81"].map((origin) => createRoute(origin, "h2"));
const limits = {
  ...defaultPoolLimits,
  ...{ maxConnections: 3, maxConnectionsPerHost: 2, maxIdleConnections: 1, maxStreamsPerConnection: 2 },
  ...{ maxQueue: 4, queueTimeoutMs: 1_000, idleTimeoutMs: 2_000, maxAgeMs: 5_000, sweepIntervalMs: 500 },
};

/** A connection that does nothing but keep to the rules. */
interface FakeLink {
  readonly host: string;
  readonly events: LinkEvents;
  open: boolean;
  goaway: boolean;
}

type Step =
  | { readonly kind: "acquire"; readonly route: number }
  | { readonly kind: "abort" | "connected" | "refused" | "goaway" | "broken"; readonly which: number }
  | { readonly kind: "release"; readonly which: number; readonly outcome: "ok" | "failed" | "neutral" }
  | { readonly kind: "advance"; readonly ms: number };

const which = fc.nat(20);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("acquire" as const), route: fc.nat(2) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("release" as const),
      which,
      outcome: fc.constantFrom("ok" as const, "failed" as const, "neutral" as const),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("connected" as const), which }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constantFrom("abort" as const, "refused" as const, "goaway" as const, "broken" as const),
      which,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("advance" as const), ms: fc.nat(3_000) }) },
);

describe("a broker", () => {
  it("keeps its limits and its books whatever happens, and leaves nobody waiting", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 50, maxLength: 150 }), async (steps) => {
        const clock = createFakeClock();
        const connecting: { connect: () => void; fail: () => void }[] = [];
        const links: FakeLink[] = [];
        const leases: Lease[] = [];
        const waiting: AbortController[] = [];
        let settled = 0;
        let acquired = 0;
        const broker = new Broker({
          ...{ clock, limits, logger: pino({ enabled: false }) },
          openLink: (route, events, signal) =>
            new Promise<Link>((resolve, reject) => {
              const fail = () => reject(new Error("nobody listens"));
              signal.addEventListener("abort", fail);
              const connect = () => {
                const link: FakeLink = { host: route.host, events, open: true, goaway: false };
                links.push(link);
                resolve(toLink(link));
              };
              connecting.push({ connect, fail });
            }),
        });

        const check = () => {
          const { connections, opened, closed, requests, reused, waiting: queued } = broker.stats();
          expect(connections.length).toBeLessThanOrEqual(limits.maxConnections);
          for (const { host } of ROUTES) {
            const toHost = connections.filter(({ origin }) => createRoute(origin, "h2").host === host);
            expect(toHost.length).toBeLessThanOrEqual(limits.maxConnectionsPerHost);
          }
          for (const { activeRequests } of connections) {
            expect(activeRequests).toBeLessThanOrEqual(limits.maxStreamsPerConnection);
          }
          const open = connections.filter(({ state }) => state !== "connecting");
          expect(Object.values(closed).reduce((sum, count) => sum + count, open.length)).toBe(opened);
          const idle = open.filter(({ activeRequests }) => activeRequests === 0);
          expect(idle.length).toBeLessThanOrEqual(limits.maxIdleConnections);
          expect(queued).toBeLessThanOrEqual(limits.maxQueue);
          expect(reused).toBeLessThanOrEqual(requests);
        };

        for (const what of steps) {
          switch (what.kind) {
            case "acquire": {
              const abort = new AbortController();
              const route = ROUTES[what.route];
              if (route) {
                acquired++;
                waiting.push(abort);
                broker
                  .acquire(route, abort.signal)
                  .then((lease) => leases.push(lease))
                  .catch(() => undefined)
                  .finally(() => settled++);
              }
              break;
            }
            case "abort":
              waiting[what.which % waiting.length]?.abort(new Error("left"));
              break;
            case "release":
              leases.splice(what.which % leases.length, 1)[0]?.release(what.outcome);
              break;
            case "connected":
              connecting.splice(what.which % connecting.length, 1)[0]?.connect();
              break;
            case "refused":
              connecting.splice(what.which % connecting.length, 1)[0]?.fail();
              break;
            case "goaway": {
              const link = links[what.which % links.length];
              if (link?.open && !link.goaway) {
                link.goaway = true;
                link.events.onGoaway();
              }
              break;
            }
            case "broken": {
              const link = links[what.which % links.length];
              if (link?.open) {
                link.open = false;
                link.events.onClosed(new Error("broken"));
              }
              break;
            }
            case "advance":
              clock.advance(what.ms);
              break;
          }
          await flush();
          check();
        }

        // Time alone brings every request to an end, and closing brings the rest.
        for (const lease of leases.splice(0)) {
          lease.release("ok");
        }
        clock.advance(limits.queueTimeoutMs);
        await flush();
        check();
        expect(settled).toBe(acquired);
        expect(broker.stats().waiting).toBe(0);
        for (const lease of leases.splice(0)) {
          lease.release("ok");
        }
        await broker.close();
        check();
        expect(broker.stats().connections).toEqual([]);
        expect(links.filter(({ open }) => open)).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

function toLink(state: FakeLink): Link {
  const link = {
    protocol: "h2",
    socket: { bytesRead: 0, bytesWritten: 0 },
    capacity: () => (state.open && !state.goaway ? limits.maxStreamsPerConnection : 0),
    get closed() {
      return !state.open || state.goaway;
    },
    setBusy: () => undefined,
    verify: () => undefined,
    destroy() {
      if (state.open) {
        state.open = false;
        queueMicrotask(() => state.events.onClosed(undefined));
      }
    },
  };
  return link as unknown as Link; // As much of one as a broker knows.
}

async function flush(): Promise<void> {
  for (let turns = 0; turns < 10; turns++) {
    await Promise.resolve();
  }
}
