import { timingSafeEqual } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import {
  type Clock,
  DomainError,
  invalidArgument,
  notFound,
  type Role,
  type Verdict,
  type Verifier,
} from "@toolplane/framework";
import { ListApiKeysRequestSchema } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { Logger } from "pino";
import { invalidPageToken, pageTokens } from "../page-token.ts";
import type { Database } from "../storage/database.ts";
import { createKey, hashSecret, isKeyId, parseKey } from "./key-format.ts";
import { openKeyRing } from "./key-ring.ts";
import { createLastUse } from "./last-use.ts";
import { OPERATOR_KEY_NAME } from "./operator-key.ts";
import { createKeyStore, type KeyPosition, type KeyRecord } from "./store.ts";

/** How long a key that is replaced goes on, unless it is said otherwise, in milliseconds. */
const DEFAULT_OVERLAP_MS = 86_400_000;
const DEFAULT_PAGE_SIZE = 100;

export type KeyState = "active" | "expired" | "revoked";

/** A key that was made just now. */
export interface IssuedKey {
  readonly key: KeyRecord;
  /** What its holder shows. It is not kept. */
  readonly token: string;
}

export interface KeySpec {
  readonly name: string;
  readonly role: Role;
  /** Undefined: for ever. */
  readonly ttlMs: number | undefined;
  /** The principal who makes it. */
  readonly createdBy: string;
}

export interface Rotation {
  /** How long the old key goes on. Undefined: 24 h. */
  readonly overlapMs: number | undefined;
  /** How long the new key is taken. Undefined: for ever. */
  readonly ttlMs: number | undefined;
  readonly createdBy: string;
}

export interface KeyQuery {
  /** Empty: all. */
  readonly name: string;
  readonly includeInactive: boolean;
  /** 0: 100. */
  readonly pageSize: number;
  readonly pageToken: string;
}

/** API keys: made, replaced, ended, and recognised without asking the database. */
export interface Keys extends Verifier {
  /** Throws INVALID_ARGUMENT for the name of the operator key. */
  create(spec: KeySpec): Promise<IssuedKey>;
  /** Throws NOT_FOUND, or FAILED_PRECONDITION for a key that is not taken any more. */
  rotate(id: string, rotation: Rotation): Promise<IssuedKey & { readonly previousExpireTime: Date }>;
  /**
   * Does nothing to a key that is revoked already. Throws NOT_FOUND.
   *
   * @param revokedBy the principal who does it
   */
  revoke(id: string, revokedBy: string): Promise<KeyRecord>;
  list(query: KeyQuery): Promise<{ items: KeyRecord[]; nextPageToken: string }>;
  stateOf(key: KeyRecord): KeyState;
  /** Whether there is a key of this role that is taken. */
  hasActive(role: Role): boolean;
  close(): Promise<void>;
}

export interface KeysOptions {
  readonly database: Pick<Database, "kysely" | "listen">;
  readonly clock: Clock;
  readonly logger: Logger;
}

export async function openKeys({ database, clock, logger }: KeysOptions): Promise<Keys> {
  const store = createKeyStore(database);
  const ring = await openKeyRing({ database, store, clock, logger });
  const lastUse = createLastUse(store, clock, logger);

  function stateOf({ revokeTime, expireTime }: KeyRecord): KeyState {
    if (revokeTime !== undefined) {
      return "revoked";
    }
    return expireTime !== undefined && expireTime.getTime() <= clock.now() ? "expired" : "active";
  }

  function issue({ name, role, ttlMs, createdBy }: KeySpec) {
    const { id, secret, token } = createKey();
    const now = clock.now();
    const key = {
      id,
      name,
      role,
      secretHash: hashSecret(secret),
      createdBy,
      createTime: new Date(now),
      expireTime: ttlMs === undefined ? undefined : new Date(now + ttlMs),
    };
    return { key, token };
  }

  /** The change is committed: when it cannot be read back now, this replica learns of it as the others do. */
  async function learn(): Promise<void> {
    await ring.pull().catch(() => undefined);
  }

  function judge(key: KeyRecord | undefined, secret: string): Verdict | undefined {
    if (key === undefined || !timingSafeEqual(key.secretHash, hashSecret(secret))) {
      return undefined;
    }
    switch (stateOf(key)) {
      case "active":
        lastUse.mark(key.id);
        return { kind: "accepted", identity: { id: `key:${key.name}`, role: key.role } };
      case "expired":
        return {
          kind: "refused",
          reason: "CREDENTIALS_EXPIRED",
          message: `the API key ${key.id} has expired`,
        };
      case "revoked":
        return {
          kind: "refused",
          reason: "CREDENTIALS_REVOKED",
          message: `the API key ${key.id} was revoked`,
        };
    }
  }

  async function judgeUnknown(id: string, secret: string): Promise<Verdict> {
    await ring.missed();
    return judge(ring.get(id), secret) ?? unknownKey;
  }

  return {
    verify(token) {
      const parsed = parseKey(token);
      if (parsed === "foreign") {
        return { kind: "foreign" };
      }
      if (parsed === "malformed") {
        return malformedKey;
      }
      const { id, secret } = parsed;
      const key = ring.get(id);
      return key === undefined ? judgeUnknown(id, secret) : (judge(key, secret) ?? unknownKey);
    },

    async create(spec) {
      if (spec.name.toLowerCase() === OPERATOR_KEY_NAME) {
        throw reservedName();
      }
      const { key, token } = issue(spec);
      const stored = await store.change((writes) => writes.insert(key));
      logger.info({ id: key.id, name: key.name, role: key.role, by: spec.createdBy }, "API key created");
      await learn();
      return { key: stored, token };
    },

    async rotate(id, { overlapMs = DEFAULT_OVERLAP_MS, ttlMs, createdBy }) {
      const rotated = await store.change(async (writes) => {
        const old = isKeyId(id) ? await writes.find(id) : undefined;
        if (old === undefined) {
          throw noKey(id);
        }
        const state = stateOf(old);
        if (state !== "active") {
          throw notActive(old, state);
        }
        const { key, token } = issue({ name: old.name, role: old.role, ttlMs, createdBy });
        const previousExpireTime = new Date(
          Math.min(
            key.createTime.getTime() + overlapMs,
            old.expireTime?.getTime() ?? Number.POSITIVE_INFINITY,
          ),
        );
        await writes.setExpireTime(id, previousExpireTime);
        return { key: await writes.insert(key), token, previousExpireTime };
      });
      const { key, previousExpireTime } = rotated;
      logger.info(
        { id: key.id, name: key.name, old: id, previousExpireTime, by: createdBy },
        "API key rotated",
      );
      await learn();
      return rotated;
    },

    async revoke(id, revokedBy) {
      const key = await store.change(async (writes) => {
        const found = isKeyId(id) ? await writes.find(id) : undefined;
        if (found === undefined) {
          throw noKey(id);
        }
        return found.revokeTime === undefined ? await writes.setRevokeTime(id, new Date(clock.now())) : found;
      });
      logger.info({ id, name: key.name, by: revokedBy }, "API key revoked");
      await learn();
      return key;
    },

    async list({ name, includeInactive, pageSize, pageToken }) {
      const filter = create(ListApiKeysRequestSchema, { name, includeInactive });
      if (name.includes("\0")) {
        // No key has such a name, and the database would not even look for it.
        return { items: [], nextPageToken: "" };
      }
      const tokens = pageTokens("api-keys", 3, ListApiKeysRequestSchema, filter);
      const size = pageSize || DEFAULT_PAGE_SIZE;
      const found = await store.list(
        { name: name || undefined, activeAt: includeInactive ? undefined : new Date(clock.now()) },
        readPosition(tokens.read(pageToken)),
        size + 1,
      );
      const items = found.slice(0, size);
      const last = items.at(-1);
      return {
        items,
        nextPageToken:
          last && found.length > size
            ? tokens.write([last.name, last.createTime.toISOString(), last.id])
            : "",
      };
    },

    stateOf,

    hasActive: (role) => ring.all().some((key) => key.role === role && stateOf(key) === "active"),

    async close() {
      await lastUse.close();
      await ring.close();
    },
  };
}

const malformedKey: Verdict = {
  kind: "refused",
  reason: "CREDENTIALS_MALFORMED",
  message: "the API key has a typo or is not complete",
};

const unknownKey: Verdict = {
  kind: "refused",
  reason: "CREDENTIALS_INVALID",
  message: "the API key is not known",
};

function readPosition(parts: readonly string[] | undefined): KeyPosition | undefined {
  if (parts === undefined) {
    return undefined;
  }
  const [name = "", time = "", id = ""] = parts;
  const createTime = new Date(time);
  // Before 1970 there were no keys, and before long the database knows no time.
  if (!(createTime.getTime() >= 0)) {
    throw invalidPageToken();
  }
  return { name, createTime, id };
}

function noKey(id: string): DomainError {
  return notFound("API key", id);
}

function reservedName(): DomainError {
  return invalidArgument([
    {
      field: "name",
      description: `"${OPERATOR_KEY_NAME}", in capitals too, is the name of the key in the server's configuration: choose another one`,
      reason: "RESERVED_NAME",
    },
  ]);
}

function notActive({ id, name, role }: KeyRecord, state: KeyState): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "API_KEY_NOT_ACTIVE",
    message: `the API key ${id} ${state === "revoked" ? "was revoked" : "has expired"} and cannot be replaced: create another one with \`toolplane keys create ${name} --role ${role}\``,
    resource: { type: "API key", name: id },
  });
}
