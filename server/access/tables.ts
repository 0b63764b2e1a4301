import type { Role } from "@toolplane/framework";
import type { ColumnType } from "kysely";

type OptionalTime = ColumnType<Date | null, Date | undefined, Date>;

export interface ApiKeysTable {
  id: string;
  name: string;
  role: Role;
  secret_sha256: Buffer;
  created_by: string;
  create_time: ColumnType<Date, Date, never>;
  expire_time: OptionalTime;
  revoke_time: OptionalTime;
  last_use_time: OptionalTime;
}

/** The tables of access control. */
export interface AccessTables {
  api_keys: ApiKeysTable;
}
