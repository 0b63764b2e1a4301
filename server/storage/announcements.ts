import { type Kysely, sql } from "kysely";
import type { Database } from "./database.ts";
import type { Tables } from "./tables.ts";

/** What replicas tell each other of runs. */
export interface Announcement<Kind extends string> {
  readonly kind: Kind;
  /** Empty: of no run in particular. */
  readonly runId: string;
}

/** News of all replicas. They may be missed, so whoever follows them also looks from time to time. */
export interface Announcements<Kind extends string> {
  /** `undefined`: some may have been missed. Returns how to stop. */
  subscribe(listener: (news: Announcement<Kind> | undefined) => void): () => void;
  close(): Promise<void>;
}

/** A channel that all replicas listen to. */
export interface AnnouncementChannel<Kind extends string> {
  /** Tells all replicas, this one too; in a transaction, when that commits. */
  announce(kysely: Kysely<Tables>, news: Announcement<Kind>): Promise<void>;
  open(database: Pick<Database, "listen">): Promise<Announcements<Kind>>;
}

export function announcementsOn<Kind extends string>(
  channel: string,
  kinds: readonly Kind[],
): AnnouncementChannel<Kind> {
  /** Undefined: of a later version. */
  function parse(payload: string): Announcement<Kind> | undefined {
    const [word, runId = ""] = payload.split(" ");
    const kind = kinds.find((known) => known === word);
    return kind && { kind, runId };
  }

  return {
    async announce(kysely, { kind, runId }) {
      await sql`SELECT pg_notify(${channel}, ${`${kind} ${runId}`})`.execute(kysely);
    },
    async open(database) {
      const listeners = new Set<(news: Announcement<Kind> | undefined) => void>();

      function tell(news: Announcement<Kind> | undefined): void {
        for (const listener of [...listeners]) {
          listener(news);
        }
      }

      const subscription = await database.listen(
        channel,
        (payload) => {
          const news = parse(payload);
          if (news !== undefined) {
            tell(news);
          }
        },
        () => tell(undefined),
      );
      return {
        subscribe(listener) {
          // A function of its own, so that the same listener may subscribe twice.
          const own = (news: Announcement<Kind> | undefined) => listener(news);
          listeners.add(own);
          return () => listeners.delete(own);
        },
        close: () => subscription.close(),
      };
    },
  };
}
