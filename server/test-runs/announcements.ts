import { type Kysely, sql } from "kysely";
import type { Database } from "../storage/database.ts";
import type { Tables } from "../storage/tables.ts";

const CHANNEL = "toolplane_test_runs";

/** What replicas tell each other. */
export type Announcement =
  /** A run waits to be claimed. */
  | { readonly kind: "queued" }
  /** A run that somebody runs is to be cancelled. */
  | { readonly kind: "cancel"; readonly runId: string }
  | { readonly kind: "ended"; readonly runId: string };

/** News of all replicas. They may be missed, so whoever follows them also looks from time to time. */
export interface Announcements {
  /** `undefined`: some may have been missed. Returns how to stop. */
  subscribe(listener: (news: Announcement | undefined) => void): () => void;
  close(): Promise<void>;
}

/** Tells all replicas, this one too; in a transaction, when that commits. */
export async function announce(kysely: Kysely<Tables>, news: Announcement): Promise<void> {
  const payload = news.kind === "queued" ? news.kind : `${news.kind} ${news.runId}`;
  await sql`SELECT pg_notify(${CHANNEL}, ${payload})`.execute(kysely);
}

export async function openAnnouncements(database: Pick<Database, "listen">): Promise<Announcements> {
  const listeners = new Set<(news: Announcement | undefined) => void>();

  function tell(news: Announcement | undefined): void {
    for (const listener of [...listeners]) {
      listener(news);
    }
  }

  const subscription = await database.listen(
    CHANNEL,
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
      const own = (news: Announcement | undefined) => listener(news);
      listeners.add(own);
      return () => listeners.delete(own);
    },
    close: () => subscription.close(),
  };
}

/** Undefined: of a later version. */
function parse(payload: string): Announcement | undefined {
  const [kind, runId = ""] = payload.split(" ");
  switch (kind) {
    case "queued":
      return { kind };
    case "cancel":
    case "ended":
      return { kind, runId };
    default:
      return undefined;
  }
}
