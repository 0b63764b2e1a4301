import type { ColumnType } from "kysely";

/** `bigint` is read as text; sequences stay far below 2^53. */
type BigInteger = ColumnType<string, number, number>;

export interface ResponseCacheTable {
  cache: string;
  key_digest: Buffer;
  sealed: Buffer;
  tags: string[];
  position: BigInteger;
  keep_until: Date;
}

export interface ResponseCachePurgesTable {
  cache: string;
  scope: "all" | "tag" | "key";
  subject: string;
  sequence: BigInteger;
  time: ColumnType<Date, Date | undefined, Date>;
}

/** The tables of the response cache. */
export interface CacheTables {
  response_cache: ResponseCacheTable;
  response_cache_purges: ResponseCachePurgesTable;
}
