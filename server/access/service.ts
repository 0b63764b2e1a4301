import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { principalOf, type Role } from "@toolplane/framework";
import type { AdminService } from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { type ApiKeySchema, ApiKeyState } from "@toolplane/gen/toolplane/admin/v1/api_key_pb.js";
import { Role as WireRole } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { optionalMilliseconds } from "../config/durations.ts";
import type { KeyState, Keys } from "./keys.ts";
import type { KeyRecord } from "./store.ts";

type KeyHandlers = Pick<
  ServiceImpl<typeof AdminService>,
  "createApiKey" | "rotateApiKey" | "revokeApiKey" | "listApiKeys"
>;

/** The RPC handlers of `toolplane.admin.v1.AdminService` that are about API keys. */
export function keyHandlers(keys: Keys): KeyHandlers {
  return {
    async createApiKey({ name, role, ttl }, { values }) {
      const { key, token } = await keys.create({
        name,
        role: fromWireRole(role),
        ttlMs: optionalMilliseconds(ttl),
        createdBy: principalOf(values).id,
      });
      return { apiKey: toApiKey(key, keys), secret: token };
    },

    async rotateApiKey({ id, overlap, ttl }, { values }) {
      const { key, token, previousExpireTime } = await keys.rotate(id, {
        overlapMs: optionalMilliseconds(overlap),
        ttlMs: optionalMilliseconds(ttl),
        createdBy: principalOf(values).id,
      });
      return {
        apiKey: toApiKey(key, keys),
        secret: token,
        previousExpireTime: timestampFromDate(previousExpireTime),
      };
    },

    revokeApiKey: async ({ id }, { values }) => ({
      apiKey: toApiKey(await keys.revoke(id, principalOf(values).id), keys),
    }),

    async listApiKeys(request) {
      const { items, nextPageToken } = await keys.list(request);
      return { apiKeys: items.map((key) => toApiKey(key, keys)), nextPageToken };
    },
  };
}

function toApiKey(key: KeyRecord, keys: Pick<Keys, "stateOf">): MessageInitShape<typeof ApiKeySchema> {
  const { id, name, createdBy, createTime, expireTime, lastUseTime } = key;
  return {
    id,
    name,
    role: toWireRole(key.role),
    state: toWireState(keys.stateOf(key)),
    createTime: timestampFromDate(createTime),
    ...(expireTime && { expireTime: timestampFromDate(expireTime) }),
    ...(lastUseTime && { lastUseTime: timestampFromDate(lastUseTime) }),
    createdBy,
  };
}

/** Validation has refused every other role. */
function fromWireRole(role: WireRole): Role {
  switch (role) {
    case WireRole.READER:
      return "reader";
    case WireRole.CALLER:
      return "caller";
    case WireRole.OPERATOR:
      return "operator";
    case WireRole.UNSPECIFIED:
    case WireRole.PUBLIC:
      throw new Error("a key without a role passed validation");
  }
}

function toWireRole(role: Role): WireRole {
  switch (role) {
    case "reader":
      return WireRole.READER;
    case "caller":
      return WireRole.CALLER;
    case "operator":
      return WireRole.OPERATOR;
  }
}

function toWireState(state: KeyState): ApiKeyState {
  switch (state) {
    case "active":
      return ApiKeyState.ACTIVE;
    case "expired":
      return ApiKeyState.EXPIRED;
    case "revoked":
      return ApiKeyState.REVOKED;
  }
}
