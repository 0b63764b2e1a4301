import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  type CallStatsSchema,
  type Stats,
  StatsSchema,
} from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { toDuration, toTimestamp } from "../config/durations.ts";
import type { CallSeries, SeriesMark } from "./call-series.ts";
import type { InboundMeter } from "./inbound.ts";
import { share } from "./messages.ts";
import type { OutboundMeter } from "./outbound.ts";
import type { Runtime } from "./runtime.ts";
import type { AdminSources } from "./sources.ts";

/** What went on, interval by interval. */
export interface StatsFeed {
  /**
   * Those who watch at the same interval, in steps of 250 ms, see the same: it is made once for all of them, and only
   * while someone watches.
   * Who joins others gets the message of the interval that runs. Who reads too slowly misses messages.
   */
  watch(intervalMs: number, signal: AbortSignal): AsyncGenerator<Stats, void, undefined>;
  /** Ends every watch, for clients to come back to another server. */
  close(): void;
}

export interface StatsFeedOptions {
  readonly clock: Clock;
  readonly inbound: InboundMeter;
  readonly outbound: OutboundMeter;
  readonly runtime: Runtime;
  readonly sources: AdminSources;
}

/** Everything that only grows, as it was at one moment. */
interface Mark {
  readonly at: number;
  readonly inbound: SeriesMark;
  readonly outbound: SeriesMark;
  /** Of every service and tool. */
  readonly series: ReadonlyMap<CallSeries, SeriesMark>;
  readonly limited: number;
  readonly shared: number;
}

/** Someone who watches. */
interface Watcher {
  tell(stats: Stats): void;
  fail(error: unknown): void;
}

/** Those who watch at one interval. */
interface Ticker {
  readonly watchers: Set<Watcher>;
  readonly stop: () => void;
}

/** The most services, and tools, that are told of. */
const MAX_LISTED = 100;
/** Intervals are multiples of this, in milliseconds, so that there are not as many as callers can think of. */
const STEP_MS = 250;

export function createStatsFeed(options: StatsFeedOptions): StatsFeed {
  const { clock, inbound, outbound, runtime, sources } = options;
  const tickers = new Map<number, Ticker>();
  const closing = new AbortController();

  function mark(): Mark {
    return {
      at: clock.monotonic(),
      inbound: inbound.total.mark(),
      outbound: outbound.total.mark(),
      series: new Map(
        [...outbound.services(), ...outbound.tools()].map(({ calls }) => [calls, calls.mark()]),
      ),
      limited: sum(sources.limits?.totals(), ({ refused }) => refused),
      shared: sum(sources.deduplications?.(), ({ joined }) => joined),
    };
  }

  function statsSince(earlier: Mark, now: Mark): Stats {
    const intervalMs = now.at - earlier.at;
    const stats = (calls: CallSeries, from: SeriesMark | undefined, to: SeriesMark) =>
      callStats(calls.inFlight, from, to, intervalMs);
    const busiest = <T extends { readonly calls: CallSeries }>(all: Iterable<T>) =>
      Array.from(all, ({ calls, ...thing }) => ({
        ...thing,
        calls: stats(calls, earlier.series.get(calls), now.series.get(calls) ?? calls.mark()),
      }))
        .filter(({ calls }) => calls.perSecond > 0 || calls.inFlight > 0n)
        .sort((a, b) => b.calls.perSecond - a.calls.perSecond)
        .slice(0, MAX_LISTED);
    const caches = sources.caches?.list();
    const hits = sum(caches, ({ memoryHits, durableHits }) => memoryHits + durableHits);
    const pool = sources.pool?.();
    return create(StatsSchema, {
      time: toTimestamp(clock.now()),
      interval: toDuration(intervalMs),
      inbound: stats(inbound.total, earlier.inbound, now.inbound),
      outbound: stats(outbound.total, earlier.outbound, now.outbound),
      services: busiest(outbound.services()),
      tools: busiest(outbound.tools()).map(({ name, environment, version, calls }) => ({
        tool: name,
        environment,
        version,
        calls,
      })),
      openBreakers: BigInt(sum(sources.breakers?.list(), ({ state }) => (state.kind === "closed" ? 0 : 1))),
      ejectedInstances: BigInt(sources.ejections?.list().length ?? 0),
      limited: BigInt(Math.max(0, now.limited - earlier.limited)),
      shared: BigInt(Math.max(0, now.shared - earlier.shared)),
      cacheHitRate: share(hits, hits + sum(caches, ({ misses }) => misses)),
      connections: BigInt(pool?.connections.length ?? 0),
      connectionReuse: share(pool?.reused ?? 0, pool?.requests ?? 0),
      eventLoopDelayP99: toDuration(runtime.eventLoop().delayP99Ms),
      residentBytes: BigInt(process.memoryUsage.rss()),
    });
  }

  function startTicker(intervalMs: number): Ticker {
    const watchers = new Set<Watcher>();
    let last = mark();
    let cancel = clock.after(intervalMs, tick);
    function tick(): void {
      cancel = clock.after(intervalMs, tick);
      try {
        const now = mark();
        const stats = statsSince(last, now);
        last = now;
        for (const watcher of watchers) {
          watcher.tell(stats);
        }
      } catch (error) {
        // In a timer nobody else would catch it.
        for (const watcher of watchers) {
          watcher.fail(error);
        }
      }
    }
    return { watchers, stop: () => cancel() };
  }

  function join(intervalMs: number, watcher: Watcher): () => void {
    const ticker = tickers.get(intervalMs) ?? startTicker(intervalMs);
    tickers.set(intervalMs, ticker);
    ticker.watchers.add(watcher);
    return () => {
      ticker.watchers.delete(watcher);
      if (ticker.watchers.size === 0) {
        ticker.stop();
        tickers.delete(intervalMs);
      }
    };
  }

  return {
    async *watch(intervalMs, signal) {
      let newest: Stats | undefined;
      let failure: { readonly error: unknown } | undefined;
      let wake = () => {};
      const leave = join(Math.ceil(intervalMs / STEP_MS) * STEP_MS, {
        tell(stats) {
          newest = stats;
          wake();
        },
        fail(error) {
          failure = { error };
          wake();
        },
      });
      const end = () => wake();
      signal.addEventListener("abort", end);
      closing.signal.addEventListener("abort", end);
      try {
        while (!signal.aborted) {
          if (closing.signal.aborted) {
            throw shuttingDown();
          }
          if (failure !== undefined) {
            throw failure.error;
          }
          if (newest === undefined) {
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
            continue;
          }
          const stats = newest;
          newest = undefined;
          yield stats;
        }
      } finally {
        leave();
        signal.removeEventListener("abort", end);
        closing.signal.removeEventListener("abort", end);
      }
    },
    close: () => closing.abort(),
  };
}

function callStats(
  inFlight: number,
  from: SeriesMark | undefined,
  to: SeriesMark,
  intervalMs: number,
): MessageInitShape<typeof CallStatsSchema> & { perSecond: number; inFlight: bigint } {
  const ended = to.ended - (from?.ended ?? 0);
  const succeeded = to.succeeded - (from?.succeeded ?? 0);
  const judged = ended - (to.left - (from?.left ?? 0));
  const latency = to.latency.since(from?.latency);
  return {
    perSecond: intervalMs > 0 ? (ended * 1_000) / intervalMs : 0,
    successRate: judged > 0 ? succeeded / judged : 1,
    inFlight: BigInt(inFlight),
    latencyP50: toDuration(latency.quantile(0.5)),
    latencyP95: toDuration(latency.quantile(0.95)),
    latencyP99: toDuration(latency.quantile(0.99)),
    retries: BigInt(to.retries - (from?.retries ?? 0)),
  };
}

function sum<T>(items: readonly T[] | undefined, value: (item: T) => number): number {
  return items?.reduce((total, item) => total + value(item), 0) ?? 0;
}

function shuttingDown(): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: "the server is shutting down: try again",
    retryAfterMs: 0,
  });
}
