import type { ColumnType, Generated } from "kysely";

/** `bigint` is read as text. */
type BigInteger = ColumnType<string, string | number | bigint, string | number | bigint>;

export interface EventStreamsTable {
  id: Generated<string>;
  name: string;
  last_sequence: BigInteger;
  closed: boolean;
  created_at: Generated<Date>;
}

export interface EventLogTable {
  stream_id: BigInteger;
  sequence: BigInteger;
  payload: Buffer;
}

export interface EventWritersTable {
  stream_id: BigInteger;
  writer: string;
  position: BigInteger;
}

export interface EventAppendersTable {
  id: string;
  batch: BigInteger;
  previous_batch: BigInteger;
  updated_at: Generated<Date>;
}

/** The tables of event streams. */
export interface EventLogTables {
  event_streams: EventStreamsTable;
  event_log: EventLogTable;
  event_writers: EventWritersTable;
  event_appenders: EventAppendersTable;
}
