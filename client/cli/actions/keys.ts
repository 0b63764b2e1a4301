import { create } from "@bufbuild/protobuf";
import type { Duration } from "@bufbuild/protobuf/wkt";
import {
  CreateApiKeyResponseSchema,
  ListApiKeysResponseSchema,
  RevokeApiKeyResponseSchema,
  RotateApiKeyResponseSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type { ApiKey } from "@toolplane/gen/toolplane/admin/v1/api_key_pb.js";
import { Role } from "@toolplane/gen/toolplane/annotations/v1/annotations_pb.js";
import { toDuration } from "../../tool-calls.ts";
import type { CreateKeyOptions, ListKeysOptions, RotateKeyOptions } from "../commands/keys.ts";
import type { Context } from "../context.ts";
import { parseDuration } from "../input/duration.ts";
import { parseLimit } from "../input/limit.ts";
import { formatMinute, renderKeys, roleName } from "../output/keys.ts";
import { UsageError } from "../usage-error.ts";
import { readPages } from "./pages.ts";

export async function listKeys(
  context: Context,
  name: string | undefined,
  { all, limit }: ListKeysOptions,
): Promise<undefined> {
  const { admin } = await context.connect();
  const wanted = parseLimit(limit);
  const query = { name: name ?? "", includeInactive: all === true };
  // One more than is shown tells whether there are more.
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await admin.listApiKeys({ ...query, pageSize, pageToken }, { signal: context.io.signal });
    return { items: page.apiKeys, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const apiKeys = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListApiKeysResponseSchema, { apiKeys });
    return void (await context.printMessage(ListApiKeysResponseSchema, response));
  }
  if (apiKeys.length === 0) {
    return void (await context.note(
      name === undefined && all !== true
        ? "There are no keys. Make one: toolplane keys create <name> --role caller"
        : "No key matches.",
    ));
  }
  await context.print(renderKeys(context, apiKeys));
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function createKey(
  context: Context,
  name: string,
  { role, expires }: CreateKeyOptions,
): Promise<undefined> {
  const ttl = parseTtl(expires);
  const { admin } = await context.connect();
  const response = await admin.createApiKey(
    { name, role: parseRole(role), ...(ttl && { ttl }) },
    { signal: context.io.signal },
  );
  if (context.json || response.apiKey === undefined) {
    return void (await context.printMessage(CreateApiKeyResponseSchema, response));
  }
  await context.note(`${context.paintErr.green("✓")} Created ${describeKey(context, response.apiKey)}`);
  await printSecret(context, response.secret);
}

export async function rotateKey(
  context: Context,
  id: string,
  { overlap, expires }: RotateKeyOptions,
): Promise<undefined> {
  const ttl = parseTtl(expires);
  const requestedOverlap = overlap === undefined ? undefined : parseOverlap(overlap);
  const { admin } = await context.connect();
  const response = await admin.rotateApiKey(
    { id, ...(requestedOverlap && { overlap: requestedOverlap }), ...(ttl && { ttl }) },
    { signal: context.io.signal },
  );
  if (context.json || response.apiKey === undefined) {
    return void (await context.printMessage(RotateApiKeyResponseSchema, response));
  }
  await context.note(`${context.paintErr.green("✓")} Created ${describeKey(context, response.apiKey)}`);
  await context.note(`  ${id} is taken until ${formatMinute(response.previousExpireTime)}`);
  await printSecret(context, response.secret);
}

export async function revokeKey(context: Context, id: string): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.revokeApiKey({ id }, { signal: context.io.signal });
  if (context.json || response.apiKey === undefined) {
    return void (await context.printMessage(RevokeApiKeyResponseSchema, response));
  }
  const { paint } = context;
  await context.print(
    `${paint.green("✓")} Revoked ${paint.bold(response.apiKey.id)} of ${response.apiKey.name}`,
  );
}

/** To stdout by itself, so that it can be handed on without ever being seen. */
async function printSecret(context: Context, secret: string): Promise<void> {
  await context.note(
    context.paintErr.dim("  It is shown only now. Clients take it from TOOLPLANE_TOKEN or --token."),
  );
  await context.print(secret);
}

function describeKey({ paintErr }: Context, { id, name, role, expireTime }: ApiKey): string {
  const end = expireTime === undefined ? "" : ` until ${formatMinute(expireTime)}`;
  return `${paintErr.bold(id)} for ${name} as ${roleName(role)}${end}`;
}

function parseTtl(text: string | undefined): Duration | undefined {
  return text === undefined ? undefined : toDuration(parseDuration(text, "--expires"));
}

/** Unlike other times it may be nothing. */
function parseOverlap(text: string): Duration {
  return toDuration(/^0+(ms|s|m|h|d)?$/.test(text) ? 0 : parseDuration(text, "--overlap"));
}

function parseRole(text: string): Role {
  switch (text) {
    case "reader":
      return Role.READER;
    case "caller":
      return Role.CALLER;
    case "operator":
      return Role.OPERATOR;
    default:
      throw new UsageError(`--role: there is no role "${text}"`);
  }
}
