import type { Clock } from "@toolplane/framework";
import pg from "pg";
import type { Logger } from "pino";
import { databaseUnavailable, toDatabaseError } from "./database-error.ts";

const CONNECT_TIMEOUT_MS = 5_000;
/** A connection that a network has dropped in silence is noticed after this time and the next. */
const HEARTBEAT_MS = 15_000;
const HEARTBEAT_TIMEOUT_MS = 5_000;
const MIN_RECONNECT_DELAY_MS = 25;
const MAX_RECONNECT_DELAY_MS = 2_000;
/** PostgreSQL cuts longer names off. */
const MAX_CHANNEL_BYTES = 63;

interface Subscription {
  readonly onPayload: (payload: string) => void;
  readonly onReconnect: (() => void) | undefined;
}

/**
 * Listens to channels over one connection of its own, which is opened when first needed and again whenever it is lost.
 * What was sent meanwhile is gone; that is what `onReconnect` is for.
 */
export class Listener {
  readonly #config: pg.ClientConfig;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #subscriptions = new Map<string, Set<Subscription>>();
  #client: pg.Client | undefined;
  #connecting: Promise<pg.Client> | undefined;
  #cancelTimer: () => void = () => undefined;
  /** Whether notifications may have been missed since a connection was lost. */
  #missed = false;
  #closed = false;

  constructor(config: pg.ClientConfig, logger: Logger, clock: Clock) {
    this.#config = config;
    this.#logger = logger;
    this.#clock = clock;
  }

  /** Resolves when everything that is sent from now on is received. */
  async listen(
    channel: string,
    onPayload: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<{ close(): Promise<void> }> {
    if (channel === "" || Buffer.byteLength(channel) > MAX_CHANNEL_BYTES) {
      throw new Error(`"${channel}" cannot be the name of a channel`);
    }
    const subscription: Subscription = { onPayload, onReconnect };
    const members = this.#subscriptions.get(channel) ?? new Set();
    this.#subscriptions.set(channel, members.add(subscription));
    try {
      const client = this.#client ?? (await this.#connect());
      await client.query(`listen ${pg.escapeIdentifier(channel)}`);
    } catch (error) {
      await this.#unsubscribe(channel, subscription);
      throw toDatabaseError(error);
    }
    return { close: () => this.#unsubscribe(channel, subscription) };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#cancelTimer();
    this.#subscriptions.clear();
    await this.#connecting?.catch(() => undefined); // its caller is told
    await this.#client?.end();
    this.#client = undefined;
  }

  async #unsubscribe(channel: string, subscription: Subscription): Promise<void> {
    const members = this.#subscriptions.get(channel);
    if (members?.delete(subscription) && members.size === 0) {
      this.#subscriptions.delete(channel);
      // When the connection is lost there is nothing left to end.
      await this.#client?.query(`unlisten ${pg.escapeIdentifier(channel)}`).catch(() => undefined);
    }
  }

  #connect(): Promise<pg.Client> {
    this.#connecting ??= this.#open().finally(() => {
      this.#connecting = undefined;
    });
    return this.#connecting;
  }

  async #open(): Promise<pg.Client> {
    if (this.#closed) {
      throw databaseUnavailable("the database is being closed");
    }
    const client = new pg.Client({
      ...this.#config,
      application_name: "toolplane listener",
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      keepAlive: true,
    });
    client.on("error", (error) => this.#lose(client, error));
    client.on("end", () => this.#lose(client));
    client.on("notification", ({ channel, payload }) => this.#deliver(channel, payload ?? ""));
    try {
      await client.connect();
      const channels = [...this.#subscriptions.keys()].map((name) => `listen ${pg.escapeIdentifier(name)}`);
      if (channels.length > 0) {
        await client.query(channels.join(";"));
      }
    } catch (error) {
      void client.end().catch(() => undefined); // the first error is the one to tell
      throw error;
    }
    this.#client = client;
    this.#scheduleHeartbeat(client);
    if (this.#missed) {
      this.#missed = false;
      this.#reconnected();
    }
    return client;
  }

  #scheduleHeartbeat(client: pg.Client): void {
    this.#cancelTimer();
    this.#cancelTimer = this.#clock.after(HEARTBEAT_MS, () => {
      this.#cancelTimer = this.#clock.after(HEARTBEAT_TIMEOUT_MS, () =>
        this.#lose(client, new Error("the database does not answer")),
      );
      client.query("select 1").then(
        () => {
          if (this.#client === client) {
            this.#scheduleHeartbeat(client);
          }
        },
        (error: unknown) => this.#lose(client, error),
      );
    });
  }

  /** Called more than once for one loss: by the error, the end of the connection and a failed heartbeat. */
  #lose(client: pg.Client, error?: unknown): void {
    if (this.#client !== client) {
      return;
    }
    this.#client = undefined;
    this.#cancelTimer();
    if (this.#closed) {
      return;
    }
    this.#missed = true;
    this.#logger.warn({ err: error }, "lost the connection that notifications come over; reconnecting");
    void client.end().catch(() => undefined); // it is lost
    this.#reconnectAfter(MIN_RECONNECT_DELAY_MS);
  }

  #reconnectAfter(delay: number): void {
    this.#cancelTimer = this.#clock.after(delay, () => {
      this.#connect().catch((error: unknown) => {
        if (!this.#closed) {
          this.#logger.debug({ err: error }, "cannot listen for notifications yet");
          this.#reconnectAfter(Math.min(delay * 2, MAX_RECONNECT_DELAY_MS));
        }
      });
    });
  }

  #reconnected(): void {
    this.#logger.info("notifications come in again");
    for (const members of this.#subscriptions.values()) {
      for (const { onReconnect } of members) {
        this.#call(() => onReconnect?.());
      }
    }
  }

  #deliver(channel: string, payload: string): void {
    for (const { onPayload } of this.#subscriptions.get(channel) ?? []) {
      this.#call(() => onPayload(payload));
    }
  }

  /** One listener's mistake must not keep the others from being told. */
  #call(callback: () => void): void {
    try {
      callback();
    } catch (error) {
      this.#logger.error({ err: error }, "a listener to database notifications failed");
    }
  }
}
