import { createHash } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { type Clock, DomainError, notFound, type Principal } from "@toolplane/framework";
import type { Agent } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import type { Workflow } from "@toolplane/gen/toolplane/orchestration/v1/workflow_pb.js";
import { type RawBuilder, type Selectable, sql, type Transaction } from "kysely";
import { invalidPageToken } from "../../page-token.ts";
import { oneOf } from "../../schema/wording.ts";
import type { Database } from "../../storage/database.ts";
import type { Tables } from "../../storage/tables.ts";
import type { PageRequest } from "../runs.ts";
import type { OrchestrationDefinitionsTable } from "../tables.ts";
import type { Definitions } from "./definitions.ts";
import type { DefinitionKind } from "./kinds.ts";

export interface DefinitionsOptions<T extends Workflow | Agent> {
  readonly database: Pick<Database, "kysely">;
  readonly clock: Clock;
  readonly kind: DefinitionKind<T>;
  /** How many versions of a name are kept; then the oldest go. Default: 1,000. */
  readonly maxVersions?: number | undefined;
  /** How many names there may be. Default: 10,000. */
  readonly maxNames?: number | undefined;
  /** Belongs to every new version, in its transaction. */
  readonly onPut?:
    | ((transaction: Transaction<Tables>, definition: T, by: Principal) => Promise<void>)
    | undefined;
  /** Belongs to every deletion, in its transaction. */
  readonly onDelete?: ((transaction: Transaction<Tables>, name: string) => Promise<void>) | undefined;
}

type Row = Selectable<OrchestrationDefinitionsTable>;

/** A row on a page. */
interface PageRow extends Omit<Row, "kind"> {
  /** How many there are that the page could hold if it were not for their size, and one more where more follow. */
  readonly found: string;
}

const DEFAULT_PAGE_SIZE = 50;
const MAX_PAGE_SIZE = 1_000;
/** A page holds no more bytes than this and one definition more, so that it fits into a message. */
const MAX_PAGE_BYTES = 2 * 2 ** 20;
/** Of PostgreSQL's integers. */
const MAX_VERSION = 2 ** 31 - 1;
/** Names that are compared with one that there is not. */
const MAX_COMPARED = 10_000;
/** What names are made of. Whatever else is asked for is not there. */
const NAME = /^[a-zA-Z0-9_-]{1,128}$/;

/** Keeps definitions in PostgreSQL, in versions that are counted from 1 without gaps. */
export function createDefinitions<T extends Workflow | Agent>(
  options: DefinitionsOptions<T>,
): Definitions<T> {
  const { database, clock, kind, maxVersions = 1_000, maxNames = 10_000, onPut, onDelete } = options;
  const { kysely } = database;

  function toDefinition(row: Omit<Row, "kind">): T {
    return {
      ...kind.decode(row.definition),
      version: row.version,
      createTime: timestampFromDate(row.create_time),
      createdBy: row.created_by,
      etag: row.etag,
    };
  }

  async function newest(transaction: Transaction<Tables>, name: string): Promise<Row | undefined> {
    return await transaction
      .selectFrom("orchestration_definitions")
      .selectAll()
      .where("kind", "=", kind.number)
      .where("name", "=", name)
      .orderBy("version", "desc")
      .limit(1)
      .executeTakeFirst();
  }

  /** Lets those who change the same name do so one after the other. */
  async function lock(transaction: Transaction<Tables>, name: string): Promise<void> {
    const key = `orchestration_definitions/${kind.number}/${name}`;
    await sql`SELECT pg_advisory_xact_lock(hashtextextended(${key}, 0))`.execute(transaction);
  }

  /** At about the same time, a few more than that may come. */
  async function refuseOverflow(transaction: Transaction<Tables>): Promise<void> {
    const { names } = await transaction
      .selectFrom("orchestration_definitions")
      .select(({ fn }) => fn.count<string>("name").distinct().as("names"))
      .where("kind", "=", kind.number)
      .executeTakeFirstOrThrow();
    if (Number(names) >= maxNames) {
      throw new DomainError({
        code: Code.ResourceExhausted,
        reason: "TOO_MANY_DEFINITIONS",
        message: `${maxNames} ${kind.noun}s are kept, and no more can be: delete some that are not used any more`,
      });
    }
  }

  async function insert(
    transaction: Transaction<Tables>,
    bare: T,
    version: number,
    by: Principal,
  ): Promise<T> {
    const definition = Buffer.from(kind.encode(bare));
    const row = {
      name: bare.name,
      version,
      definition,
      etag: etagOf(version, definition),
      created_by: by.id,
      create_time: new Date(clock.now()),
    };
    await transaction
      .insertInto("orchestration_definitions")
      .values({ ...row, kind: kind.number })
      .execute();
    await transaction
      .deleteFrom("orchestration_definitions")
      .where("kind", "=", kind.number)
      .where("name", "=", bare.name)
      .where("version", "<=", version - maxVersions)
      .execute();
    return toDefinition(row);
  }

  async function find(name: string, version: number): Promise<Row | undefined> {
    return await kysely
      .selectFrom("orchestration_definitions")
      .selectAll()
      .where("kind", "=", kind.number)
      .where("name", "=", name)
      .$if(version > 0, (query) => query.where("version", "=", version))
      .orderBy("version", "desc")
      .limit(1)
      .executeTakeFirst();
  }

  async function missing(name: string, version: number): Promise<DomainError> {
    if (!NAME.test(name)) {
      return notFound(kind.noun, name);
    }
    const { least, most } = await kysely
      .selectFrom("orchestration_definitions")
      .select(({ fn }) => [fn.min("version").as("least"), fn.max("version").as("most")])
      .where("kind", "=", kind.number)
      .where("name", "=", name)
      .executeTakeFirstOrThrow();
    if (most !== null) {
      const kept = least === most ? `version ${most} is` : `versions ${least} to ${most} are`;
      return notFound(kind.noun, `${name}@${version}`, `${kept} kept`);
    }
    const names = await kysely
      .selectFrom("orchestration_definitions")
      .select("name")
      .distinct()
      .where("kind", "=", kind.number)
      .orderBy("name")
      .limit(MAX_COMPARED)
      .execute();
    const known = names.map((row) => row.name);
    return notFound(kind.noun, name, known.length === 0 ? "there are none" : `use ${oneOf(known, name)}`);
  }

  /** The newest of each name, by name. */
  async function listNames(limit: number, after: string): Promise<readonly PageRow[]> {
    return await page(
      sql`SELECT DISTINCT ON (name) * FROM orchestration_definitions
        WHERE kind = ${kind.number} AND name > ${after} ORDER BY name, version DESC LIMIT ${limit}`,
      sql`name`,
    );
  }

  /** The versions of a name, the newest first. */
  async function listVersions(name: string, limit: number, before: number): Promise<readonly PageRow[]> {
    return await page(
      sql`SELECT * FROM orchestration_definitions
        WHERE kind = ${kind.number} AND name = ${name} AND version < ${before}
        ORDER BY version DESC LIMIT ${limit}`,
      sql`version DESC`,
    );
  }

  /** The first of the rows, as many as a message can hold. */
  async function page(rows: RawBuilder<unknown>, order: RawBuilder<unknown>): Promise<readonly PageRow[]> {
    const result = await sql<PageRow>`
      SELECT name, version, definition, etag, created_by, create_time, found FROM (
        SELECT *, count(*) OVER () AS found,
          sum(octet_length(definition)) OVER (ORDER BY ${order}) - octet_length(definition) AS before
        FROM (${rows}) AS found
      ) AS page WHERE before <= ${MAX_PAGE_BYTES} ORDER BY ${order}
    `.execute(kysely);
    return result.rows;
  }

  return {
    async put(definition, by, etag) {
      const bare = kind.bare(definition);
      return await kysely.transaction().execute(async (transaction) => {
        await lock(transaction, bare.name);
        const present = await newest(transaction, bare.name);
        if (etag !== "" && etag !== present?.etag) {
          throw etagMismatch(kind.noun, bare.name, present);
        }
        if (present !== undefined && kind.isSame(kind.decode(present.definition), bare)) {
          return { definition: toDefinition(present), changed: false };
        }
        if (present === undefined) {
          await refuseOverflow(transaction);
        }
        const made = await insert(transaction, bare, (present?.version ?? 0) + 1, by);
        await onPut?.(transaction, made, by);
        return { definition: made, changed: true };
      });
    },

    async get(name, version) {
      const row = NAME.test(name) && version <= MAX_VERSION ? await find(name, version) : undefined;
      if (row === undefined) {
        throw await missing(name, version);
      }
      return toDefinition(row);
    },

    async list(name, { pageSize, pageToken }: PageRequest) {
      const tokens = kind.pageTokens(name);
      const [position] = tokens.read(pageToken) ?? [];
      const limit = Math.min(pageSize || DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE);
      if (name !== "" && !NAME.test(name)) {
        return { items: [], nextPageToken: "" };
      }
      const rows =
        name === ""
          ? await listNames(limit + 1, position ?? "")
          : await listVersions(name, limit + 1, position === undefined ? MAX_VERSION : versionOf(position));
      const shown = rows.slice(0, limit);
      const last = shown.at(-1);
      const isLast = last === undefined || shown.length === Number(last.found);
      return {
        items: shown.map(toDefinition),
        nextPageToken: isLast ? "" : tokens.write([name === "" ? last.name : String(last.version)]),
      };
    },

    async delete(name) {
      if (!NAME.test(name)) {
        return;
      }
      await kysely.transaction().execute(async (transaction) => {
        await lock(transaction, name);
        await transaction
          .deleteFrom("orchestration_definitions")
          .where("kind", "=", kind.number)
          .where("name", "=", name)
          .execute();
        await onDelete?.(transaction, name);
      });
    },
  };
}

function versionOf(position: string): number {
  if (!/^[0-9]{1,9}$/.test(position)) {
    throw invalidPageToken();
  }
  return Number(position);
}

/** Versions that are deleted may come again, and then only with the same content under the same tag. */
function etagOf(version: number, definition: Uint8Array): string {
  return createHash("sha256").update(`${version}:`).update(definition).digest("base64url").slice(0, 22);
}

function etagMismatch(
  noun: string,
  name: string,
  present: Pick<Row, "version" | "etag"> | undefined,
): DomainError {
  return new DomainError({
    code: Code.Aborted,
    reason: "ETAG_MISMATCH",
    message: present
      ? `${noun} "${name}" has been changed: it is at version ${present.version} with etag "${present.etag}". Get it, make your change to that, and put it with this etag`
      : `${noun} "${name}" does not exist (any more): put it without an etag`,
    resource: { type: noun, name },
  });
}
