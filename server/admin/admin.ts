import type { ConnectRouter } from "@connectrpc/connect";
import type { Clock, FinishedCall, Gate, HttpHandler } from "@toolplane/framework";
import type { Gauge } from "./gauges.ts";
import { createInboundMeter } from "./inbound.ts";
import { createMetrics } from "./metrics.ts";
import { type CalledTool, createOutboundMeter, type EndedCall } from "./outbound.ts";
import { createRuntime } from "./runtime.ts";
import { adminRoutes, type KeyHandlers } from "./service.ts";
import type { AdminSources } from "./sources.ts";
import { createStatsFeed } from "./stats-feed.ts";

export type { KeyHandlers } from "./service.ts";
export type * from "./sources.ts";
export type { CalledTool, EndedCall, Gauge };

/** What an operator sees and does. */
export interface Admin {
  /** `toolplane.admin.v1.AdminService`. */
  readonly routes: (router: ConnectRouter) => void;
  /** `/metrics`. */
  readonly http: HttpHandler;
  /** To be the first of the server's gates. */
  readonly gate: Gate;
  /** To be the server's `onCall`. */
  readonly onCall: (call: FinishedCall) => void;
  /** To be called when a call of a tool begins; what is returned is to be called once, when it is over. */
  callStarted(tool: CalledTool): (call: EndedCall) => void;
  /** To be the `onEvent` of breakers. */
  readonly breakerChanged: (event: {
    readonly kind: "opened" | "half-opened" | "closed" | "isolated";
  }) => void;
  /** Watches a size for growth without end; what is returned ends that. */
  watchSize(name: string, size: () => number): () => void;
  /** Ends the streams, for clients to open them again at another server. */
  drain(): void;
  close(): Promise<void>;
}

export interface AdminOptions {
  readonly clock: Clock;
  /** The server's version. */
  readonly version: string;
  readonly sources: AdminSources;
  readonly keyHandlers: KeyHandlers;
}

/** How old lists of breakers and ejections may be where they are only counted, in milliseconds. */
const GLANCE_MS = 1_000;

export function createAdmin({ clock, version, sources, keyHandlers }: AdminOptions): Admin {
  const inbound = createInboundMeter();
  const outbound = createOutboundMeter(clock);
  const breakerTransitions = new Map<string, number>();
  const sizes = new Map<string, () => number>();

  function* gauges(): Generator<Gauge> {
    for (const [name, size] of sizes) {
      yield { name, size: size() };
    }
    for (const { method, open } of sources.streams?.() ?? []) {
      yield { name: `streams ${method}`, size: open };
    }
    for (const { name, pending } of sources.batchWriters?.() ?? []) {
      yield { name: `writer ${name}`, size: pending };
    }
  }

  // There may be tens of thousands, which take 20 ms to list: those who only count them share one list.
  const { breakers, ejections } = sources;
  const glance: AdminSources = {
    ...sources,
    ...(breakers && {
      breakers: { ...breakers, list: rememberFor(GLANCE_MS, clock, () => breakers.list()) },
    }),
    ...(ejections && {
      ejections: { ...ejections, list: rememberFor(GLANCE_MS, clock, () => ejections.list()) },
    }),
  };
  const runtime = createRuntime({ clock, version, running: inbound, gauges });
  const metrics = createMetrics({ inbound, outbound, runtime, sources: glance, breakerTransitions, clock });
  const stats = createStatsFeed({ clock, inbound, outbound, runtime, sources: glance });
  return {
    routes: adminRoutes({ sources, metrics, runtime, stats, keyHandlers }),
    http: metrics.http,
    gate: inbound.gate,
    onCall: inbound.onCall,
    callStarted: (tool) => outbound.callStarted(tool),
    breakerChanged({ kind }) {
      breakerTransitions.set(kind, (breakerTransitions.get(kind) ?? 0) + 1);
    },
    watchSize(name, size) {
      sizes.set(name, size);
      return () => sizes.delete(name);
    },
    drain: () => stats.close(),
    async close() {
      stats.close();
      runtime.close();
    },
  };
}

/** Reads again only when what was read before is older than `ms`. */
function rememberFor<T>(ms: number, clock: Clock, read: () => T): () => T {
  let last: { readonly at: number; readonly value: T } | undefined;
  return () => {
    const now = clock.monotonic();
    if (last === undefined || now - last.at >= ms) {
      last = { at: now, value: read() };
    }
    return last.value;
  };
}
