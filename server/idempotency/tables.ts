import type { ColumnType, Generated } from "kysely";

/** Compared with the database's clock only. */
type Time = ColumnType<Date, Date | string, Date | string>;

export interface IdempotencyRequestsTable {
  key: Buffer;
  fingerprint: string;
  /** `bigint` is read as text. */
  token: Generated<string>;
  state: "working" | "success" | "failure" | "too-large";
  outcome: Buffer | null;
  awaited: Generated<boolean>;
  lease_until: Time;
  expires_at: Time;
}

/** The table of requests that happen once. */
export interface IdempotencyTables {
  idempotency_requests: IdempotencyRequestsTable;
}
