import type { Role } from "@toolplane/framework";
import { type Kysely, type Selectable, sql, type Transaction } from "kysely";
import type { Database } from "../storage/database.ts";
import type { Tables } from "../storage/tables.ts";
import type { ApiKeysTable } from "./tables.ts";

/** The channel that every change of the keys is announced on. */
export const KEYS_CHANNEL = "toolplane_api_keys";

/** A key without its secret. */
export interface KeyRecord {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  readonly secretHash: Buffer;
  readonly createdBy: string;
  readonly createTime: Date;
  readonly expireTime: Date | undefined;
  readonly revokeTime: Date | undefined;
  readonly lastUseTime: Date | undefined;
}

export type NewKey = Omit<KeyRecord, "revokeTime" | "lastUseTime">;

/** Where a key stands in listings: by name, the newest first. */
export type KeyPosition = Pick<KeyRecord, "name" | "createTime" | "id">;

export interface KeyFilter {
  /** Undefined: all. */
  readonly name: string | undefined;
  /** Only those that are taken at this time. Undefined: all. */
  readonly activeAt: Date | undefined;
}

/** Writes of one transaction; they are announced when it commits. */
export interface KeyWrites {
  /** The key, locked against other writers; undefined when there is none. */
  find(id: string): Promise<KeyRecord | undefined>;
  insert(key: NewKey): Promise<KeyRecord>;
  setExpireTime(id: string, time: Date): Promise<void>;
  setRevokeTime(id: string, time: Date): Promise<KeyRecord>;
}

export interface KeyStore {
  /** The keys that have not ended, by revocation or expiry, before `time`. */
  loadEndingAfter(time: Date): Promise<KeyRecord[]>;
  list(filter: KeyFilter, after: KeyPosition | undefined, limit: number): Promise<KeyRecord[]>;
  change<T>(work: (writes: KeyWrites) => Promise<T>): Promise<T>;
  /** Notes when keys were last used. Not announced. */
  touch(uses: ReadonlyMap<string, Date>): Promise<void>;
}

export function createKeyStore({ kysely }: Pick<Database, "kysely">): KeyStore {
  return {
    async loadEndingAfter(time) {
      const rows = await kysely
        .selectFrom("api_keys")
        .selectAll()
        // NULL stands for no end, which `least` leaves out.
        .where(sql<boolean>`coalesce(least(revoke_time, expire_time), 'infinity') > ${time}`)
        .execute();
      return rows.map(toRecord);
    },

    async list({ name, activeAt }, after, limit) {
      let query = kysely
        .selectFrom("api_keys")
        .selectAll()
        .orderBy("name")
        .orderBy("create_time", "desc")
        .orderBy("id")
        .limit(limit);
      if (name !== undefined) {
        query = query.where("name", "=", name);
      }
      if (activeAt !== undefined) {
        query = query
          .where("revoke_time", "is", null)
          .where((where) =>
            where.or([where("expire_time", "is", null), where("expire_time", ">", activeAt)]),
          );
      }
      if (after !== undefined) {
        query = query.where(sql<boolean>`
          (name > ${after.name} OR name = ${after.name} AND
            (create_time < ${after.createTime} OR create_time = ${after.createTime} AND id > ${after.id}))`);
      }
      return (await query.execute()).map(toRecord);
    },

    change: (work) => changeKeys(kysely, work),

    async touch(uses) {
      const ids = [...uses.keys()];
      const times = [...uses.values()];
      await sql`
        UPDATE api_keys AS key SET last_use_time = greatest(key.last_use_time, used.time)
        FROM unnest(${ids}::text[], ${times}::timestamptz[]) AS used (id, time)
        WHERE key.id = used.id
      `.execute(kysely);
    },
  };
}

async function changeKeys<T>(kysely: Kysely<Tables>, work: (writes: KeyWrites) => Promise<T>): Promise<T> {
  return await kysely.transaction().execute(async (tx) => {
    const result = await work(writesOf(tx));
    await sql`SELECT pg_notify(${KEYS_CHANNEL}, '')`.execute(tx);
    return result;
  });
}

function writesOf(tx: Transaction<Tables>): KeyWrites {
  return {
    async find(id) {
      const row = await tx
        .selectFrom("api_keys")
        .selectAll()
        .where("id", "=", id)
        .forUpdate()
        .executeTakeFirst();
      return row && toRecord(row);
    },
    async insert({ id, name, role, secretHash, createdBy, createTime, expireTime }) {
      const row = await tx
        .insertInto("api_keys")
        .values({
          id,
          name,
          role,
          secret_sha256: secretHash,
          created_by: createdBy,
          create_time: createTime,
          ...(expireTime && { expire_time: expireTime }),
        })
        .returningAll()
        .executeTakeFirstOrThrow();
      return toRecord(row);
    },
    async setExpireTime(id, time) {
      await tx.updateTable("api_keys").set({ expire_time: time }).where("id", "=", id).execute();
    },
    async setRevokeTime(id, time) {
      const row = await tx
        .updateTable("api_keys")
        .set({ revoke_time: time })
        .where("id", "=", id)
        .returningAll()
        .executeTakeFirstOrThrow();
      return toRecord(row);
    },
  };
}

function toRecord(row: Selectable<ApiKeysTable>): KeyRecord {
  return {
    id: row.id,
    name: row.name,
    role: row.role,
    secretHash: row.secret_sha256,
    createdBy: row.created_by,
    createTime: row.create_time,
    expireTime: row.expire_time ?? undefined,
    revokeTime: row.revoke_time ?? undefined,
    lastUseTime: row.last_use_time ?? undefined,
  };
}
