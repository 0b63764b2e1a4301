import { sql } from "kysely";
import type { Database } from "../storage/database.ts";
import type { Head } from "./channel.ts";

/** Reads where streams end. */
export interface HeadReader {
  /** What was committed before the call is seen. Undefined: there is no such stream. */
  read(stream: string): Promise<Head | undefined>;
}

/** One query at a time, for all who have asked since the one before began: a thousand watchers at once cost two. */
export function createHeadReader({ kysely }: Pick<Database, "kysely">): HeadReader {
  let waiting = new Map<string, PromiseWithResolvers<Head | undefined>>();
  let isReading = false;

  async function query(streams: readonly string[]): Promise<ReadonlyMap<string, Head>> {
    const { rows } = await sql<{ id: string; name: string; last_sequence: string; closed: boolean }>`
      SELECT id, name, last_sequence, closed FROM event_streams WHERE name = ANY (${streams}::text[])
    `.execute(kysely);
    return new Map(
      rows.map(({ id, name, last_sequence, closed }) => [name, { id, last: Number(last_sequence), closed }]),
    );
  }

  async function readAll(): Promise<void> {
    isReading = true;
    while (waiting.size > 0) {
      const batch = waiting;
      waiting = new Map();
      try {
        const heads = await query([...batch.keys()]);
        for (const [stream, { resolve }] of batch) {
          resolve(heads.get(stream));
        }
      } catch (error) {
        for (const { reject } of batch.values()) {
          reject(error);
        }
      }
    }
    isReading = false;
  }

  return {
    read(stream) {
      const answer = waiting.get(stream) ?? Promise.withResolvers<Head | undefined>();
      waiting.set(stream, answer);
      if (!isReading) {
        void readAll();
      }
      return answer.promise;
    },
  };
}
