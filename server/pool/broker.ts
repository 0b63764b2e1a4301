import type { Clock } from "@toolplane/framework";
import type { Logger } from "pino";
import { type CloseReason, Connection, type Outcome } from "./connection.ts";
import type { ConnectionStats, PoolStats } from "./connection-pool.ts";
import { PoolCounters } from "./counters.ts";
import { interrupted, poolClosed, poolExhausted } from "./errors.ts";
import type { PoolLimits } from "./limits.ts";
import type { Link } from "./link.ts";
import type { OpenLink } from "./open-link.ts";
import type { Route } from "./route.ts";
import { createLane, type Lane, wait } from "./waiter.ts";

/** The right to send one request over a connection. */
export interface Lease {
  readonly link: Link;
  /** Gives the connection back. Only the first call counts. */
  release(outcome: Outcome): void;
}

export interface BrokerOptions {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly limits: PoolLimits;
  readonly openLink: OpenLink;
}

/** How long a route waits after a failed attempt to connect, while it still has other connections, in milliseconds. */
const RECONNECT_DELAY_MS = 1_000;

/**
 * Hands out connections under one set of limits.
 *
 * A request goes to the connection of its route with the fewest running requests that has room. When none has, another
 * is opened, if need be in place of an idle one of another route; when the limits allow none, the request waits in a
 * bounded queue, first come, first served. A connection that is retired (too old, failing, told to go away) takes no new
 * requests and closes after its last one.
 */
export class Broker {
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #limits: PoolLimits;
  readonly #openLink: OpenLink;
  readonly #lanes = new Map<string, Lane>();
  readonly #connectionsPerHost = new Map<string, number>();
  /** Connections without requests, the one that has been idle longest first. */
  readonly #idle = new Set<Connection>();
  readonly #closing = new AbortController();
  /** Connections that are being opened, and since when. */
  readonly #openings = new Map<Promise<void>, { readonly route: Route; readonly startedAt: number }>();
  /** Routes that requests wait for. */
  readonly #queued = new Set<Lane>();
  #serving = false;
  #changed = false;
  #total = 0;
  #waiting = 0;
  readonly #counters = new PoolCounters();
  #cancelSweep: () => void;

  constructor({ clock, logger, limits, openLink }: BrokerOptions) {
    this.#clock = clock;
    this.#logger = logger;
    this.#limits = limits;
    this.#openLink = openLink;
    this.#cancelSweep = clock.after(limits.sweepIntervalMs, () => this.#sweep());
  }

  /**
   * Waits for a connection with room. Throws UNAVAILABLE when none can be opened, RESOURCE_EXHAUSTED when too many
   * requests wait or this one waited too long, and the signal's reason when it is aborted.
   */
  async acquire(route: Route, signal?: AbortSignal): Promise<Lease> {
    const ready = this.#closing.signal.aborted ? undefined : this.#pickNow(route);
    const connection = ready ?? (await this.#wait(route, signal));
    this.#counters.request(ready !== undefined || connection.requests > 0);
    connection.requests++;
    let released = false;
    return {
      link: connection.link,
      release: (outcome) => {
        if (!released) {
          released = true;
          this.#release(connection, outcome);
        }
      },
    };
  }

  /** Opens a connection unless the route has one. */
  async warm(route: Route): Promise<void> {
    if (this.#lanes.get(route.key)?.connections.size) {
      return;
    }
    const connection = await this.#wait(route, this.#closing.signal);
    this.#release(connection, "neutral");
  }

  stats(): PoolStats {
    const now = this.#clock.monotonic();
    const connections: ConnectionStats[] = [];
    for (const lane of this.#lanes.values()) {
      for (const connection of lane.connections) {
        connections.push(statsOf(connection, now));
      }
    }
    for (const { route, startedAt } of this.#openings.values()) {
      connections.push(statsOfOpening(route, now - startedAt));
    }
    return { connections, waiting: this.#waiting, ...this.#counters.snapshot() };
  }

  /** Ends all connections; requests that run or wait fail with UNAVAILABLE. */
  async close(): Promise<void> {
    if (this.#closing.signal.aborted) {
      return;
    }
    this.#cancelSweep();
    this.#closing.abort(poolClosed("any backend"));
    const lanes = [...this.#lanes.values()];
    for (const lane of lanes) {
      for (const waiter of [...lane.waiters]) {
        waiter.fail(poolClosed(lane.route.origin));
      }
    }
    for (const lane of lanes) {
      for (const connection of [...lane.connections]) {
        const reason = connection.active > 0 ? interrupted(lane.route.origin) : undefined;
        this.#remove(connection, "shutdown");
        connection.link.destroy(reason);
      }
    }
    await Promise.all(this.#openings.keys());
  }

  /** A connection with room, unless others wait for one already. */
  #pickNow(route: Route): Connection | undefined {
    const lane = this.#lanes.get(route.key);
    const connection = lane && lane.waiters.size === 0 ? this.#pick(lane) : undefined;
    if (connection) {
      this.#occupy(connection);
    }
    return connection;
  }

  async #wait(route: Route, signal: AbortSignal | undefined): Promise<Connection> {
    if (this.#closing.signal.aborted) {
      throw poolClosed(route.origin);
    }
    signal?.throwIfAborted();
    if (this.#waiting >= this.#limits.maxQueue) {
      this.#counters.refused();
      throw poolExhausted(route.origin, `${this.#waiting} requests are waiting already`);
    }
    const lane = this.#lane(route);
    const startedAt = this.#clock.monotonic();
    const granted = wait(lane, {
      clock: this.#clock,
      timeoutMs: this.#limits.queueTimeoutMs,
      signal,
      onTimeout: () => this.#counters.refused(),
      onLeft: () => {
        this.#waiting--;
        this.#counters.waited(this.#clock.monotonic() - startedAt);
        if (lane.waiters.size === 0) {
          this.#queued.delete(lane);
        }
        this.#dropIfEmpty(lane);
      },
    });
    this.#waiting++;
    this.#queued.add(lane);
    this.#serve();
    return granted;
  }

  #lane(route: Route): Lane {
    let lane = this.#lanes.get(route.key);
    if (!lane) {
      lane = createLane(route);
      this.#lanes.set(route.key, lane);
    }
    return lane;
  }

  #dropIfEmpty(lane: Lane): void {
    if (lane.connections.size === 0 && lane.waiters.size === 0 && lane.opening === 0) {
      this.#lanes.delete(lane.route.key);
    }
  }

  /** The connection with the fewest running requests; among idle ones the one used last, so that others can age out. */
  #pick(lane: Lane): Connection | undefined {
    const now = this.#clock.monotonic();
    let best: Connection | undefined;
    for (const connection of [...lane.connections]) {
      if (!connection.retired && now - connection.openedAt >= this.#limits.maxAgeMs) {
        this.#retire(connection, "age");
      }
      if (connection.retired || connection.room <= 0) {
        continue;
      }
      if (
        !best ||
        connection.active < best.active ||
        (connection.active === best.active && connection.idleSince > best.idleSince)
      ) {
        best = connection;
      }
    }
    return best;
  }

  /** Gives waiting requests what there is. Serving can change what there is: then it starts over. */
  #serve(): void {
    this.#changed = true;
    if (this.#serving) {
      return;
    }
    this.#serving = true;
    while (this.#changed) {
      this.#changed = false;
      for (const lane of [...this.#queued]) {
        this.#serveLane(lane);
      }
    }
    this.#serving = false;
  }

  /** Hands out the connections of one route and opens others for the requests that get none. */
  #serveLane(lane: Lane): void {
    for (const waiter of lane.waiters) {
      const connection = this.#pick(lane);
      if (!connection) {
        break;
      }
      this.#occupy(connection);
      waiter.grant(connection);
    }
    const mayOpen = this.#clock.monotonic() >= lane.closedUntil;
    while (mayOpen && lane.waiters.size > this.#expected(lane) && this.#makeRoom(lane)) {
      this.#open(lane);
    }
    if (lane.opening > 0) {
      return;
    }
    // At the limits, a connection that is only old is better than none: long streams must not lock others out.
    for (const waiter of lane.waiters) {
      const old = [...lane.connections].find(({ retired, room }) => retired === "age" && room > 0);
      if (!old) {
        break;
      }
      this.#occupy(old);
      waiter.grant(old);
    }
  }

  /** How many requests the connections that are being opened will carry. Unknown before they are open: many in HTTP/2. */
  #expected(lane: Lane): number {
    const [known] = lane.connections;
    const protocol = known?.link.protocol ?? (lane.route.version === "h1" ? "h1" : "h2");
    return lane.opening * (protocol === "h1" ? 1 : this.#limits.maxStreamsPerConnection);
  }

  /** True when the limits allow one more connection, after closing an idle one if need be. */
  #makeRoom(lane: Lane): boolean {
    const { host } = lane.route;
    if ((this.#connectionsPerHost.get(host) ?? 0) >= this.#limits.maxConnectionsPerHost) {
      return this.#closeIdle((idle) => idle.route.host === host && idle.route.key !== lane.route.key);
    }
    return (
      this.#total < this.#limits.maxConnections ||
      this.#closeIdle((idle) => idle.route.key !== lane.route.key)
    );
  }

  #closeIdle(matches: (connection: Connection) => boolean): boolean {
    for (const connection of this.#idle) {
      if (matches(connection)) {
        this.#end(connection, "capacity");
        return true;
      }
    }
    return false;
  }

  #open(lane: Lane): void {
    const { route } = lane;
    lane.opening++;
    this.#count(route.host, 1);
    const opening = this.#connect(lane).then((error) => {
      this.#openings.delete(opening);
      lane.opening--;
      if (error !== undefined) {
        this.#count(route.host, -1);
        this.#postpone(lane, error);
      }
      this.#serve();
      // Those who waited for it may have left.
      this.#trimIdle();
      this.#dropIfEmpty(lane);
    });
    this.#openings.set(opening, { route, startedAt: this.#clock.monotonic() });
  }

  /** Connecting failed: without other connections, waiting would only delay the bad news. */
  #postpone(lane: Lane, error: unknown): void {
    if (lane.connections.size > 0) {
      lane.closedUntil = this.#clock.monotonic() + RECONNECT_DELAY_MS;
      this.#clock.after(RECONNECT_DELAY_MS, () => this.#serve());
    } else if (lane.opening === 0) {
      for (const waiter of [...lane.waiters]) {
        waiter.fail(error);
      }
    }
  }

  /** Opens a connection and adds it to the lane. Returns the error when that fails. */
  async #connect(lane: Lane): Promise<unknown> {
    const { route } = lane;
    let connection: Connection | undefined;
    try {
      const link = await this.#openLink(
        route,
        {
          onClosed: (reason) => {
            this.#logger.debug({ origin: route.origin, err: reason }, "connection closed");
            if (connection) {
              this.#remove(connection, connection.retired ?? (connection.active > 0 ? "error" : "peer"));
            }
          },
          onGoaway: () => connection && this.#retire(connection, "goaway"),
          onCapacity: () => this.#serve(),
        },
        this.#closing.signal,
      );
      if (this.#closing.signal.aborted || link.closed) {
        link.destroy();
        throw this.#closing.signal.aborted
          ? poolClosed(route.origin)
          : new Error("the connection closed at once");
      }
      connection = new Connection(route, link, this.#clock.monotonic());
      lane.connections.add(connection);
      this.#idle.add(connection);
      this.#counters.opened();
      this.#logger.debug({ origin: route.origin, protocol: link.protocol }, "connection opened");
      return undefined;
    } catch (error) {
      if (!this.#closing.signal.aborted) {
        this.#counters.connectFailed();
      }
      this.#logger.debug({ origin: route.origin, err: error }, "connection failed");
      return error ?? new Error("the connection failed");
    }
  }

  #occupy(connection: Connection): void {
    this.#idle.delete(connection);
    if (connection.active++ === 0) {
      connection.link.setBusy(true);
    }
  }

  #release(connection: Connection, outcome: Outcome): void {
    const { failureThreshold, failureMinRequests } = this.#limits;
    connection.record(outcome);
    connection.active--;
    if (connection.gone) {
      return;
    }
    const { link } = connection;
    if (link.closed) {
      connection.retired ??= link.protocol === "h2" ? "goaway" : outcome === "ok" ? "peer" : "error";
    } else if (connection.fails(failureThreshold, failureMinRequests)) {
      connection.retired ??= "failures";
    }
    if (connection.active === 0) {
      connection.idleSince = this.#clock.monotonic();
      link.setBusy(false);
      if (connection.retired) {
        this.#end(connection, connection.retired);
        return;
      }
      this.#idle.add(connection);
    }
    this.#serve();
    this.#trimIdle();
  }

  #trimIdle(): void {
    if (this.#idle.size > this.#limits.maxIdleConnections) {
      this.#closeIdle(() => true);
    }
  }

  #retire(connection: Connection, why: CloseReason): void {
    connection.retired =
      connection.retired === undefined || connection.retired === "age" ? why : connection.retired;
    if (connection.active === 0) {
      this.#end(connection, connection.retired);
    }
  }

  /** Closes a connection that has no requests. */
  #end(connection: Connection, why: CloseReason): void {
    this.#remove(connection, why);
    connection.link.destroy();
  }

  /** Forgets a connection. */
  #remove(connection: Connection, why: CloseReason): void {
    if (connection.gone) {
      return;
    }
    connection.gone = true;
    this.#counters.closed(why);
    this.#idle.delete(connection);
    const lane = this.#lanes.get(connection.route.key);
    lane?.connections.delete(connection);
    this.#count(connection.route.host, -1);
    this.#serve();
    if (lane) {
      this.#dropIfEmpty(lane);
    }
  }

  #count(host: string, change: 1 | -1): void {
    const count = (this.#connectionsPerHost.get(host) ?? 0) + change;
    this.#total += change;
    if (count === 0) {
      this.#connectionsPerHost.delete(host);
    } else {
      this.#connectionsPerHost.set(host, count);
    }
  }

  #sweep(): void {
    this.#cancelSweep = this.#clock.after(this.#limits.sweepIntervalMs, () => this.#sweep());
    const now = this.#clock.monotonic();
    for (const lane of [...this.#lanes.values()]) {
      for (const connection of [...lane.connections]) {
        if (now - connection.openedAt >= this.#limits.maxAgeMs) {
          this.#retire(connection, "age");
        } else if (connection.active === 0 && now - connection.idleSince >= this.#limits.idleTimeoutMs) {
          this.#end(connection, "idle");
        } else if (connection.active > 0) {
          connection.link.verify("sweep");
        }
      }
    }
  }
}

function statsOf(connection: Connection, now: number): ConnectionStats {
  const { link, active } = connection;
  return {
    origin: connection.route.origin,
    protocol: link.protocol,
    state: connection.retired ? "draining" : "open",
    ageMs: now - connection.openedAt,
    idleMs: active === 0 ? now - connection.idleSince : 0,
    activeRequests: active,
    maxConcurrentRequests: link.capacity(),
    requests: connection.requests,
    failures: connection.failures,
    bytesRead: link.socket.bytesRead,
    bytesWritten: link.socket.bytesWritten,
  };
}

function statsOfOpening({ origin }: Route, ageMs: number): ConnectionStats {
  return {
    origin,
    protocol: undefined,
    state: "connecting",
    ageMs,
    idleMs: 0,
    activeRequests: 0,
    maxConcurrentRequests: 0,
    requests: 0,
    failures: 0,
    bytesRead: 0,
    bytesWritten: 0,
  };
}
