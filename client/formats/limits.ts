import type { MessageInitShape } from "@bufbuild/protobuf";
import type { AttachmentSchema, TestFailureSchema } from "@toolplane/gen/toolplane/testing/v1/test_pb.js";
import { boundedName, boundedText } from "../runners/bounded-text.ts";
import { type IdentityInit, readableText } from "./report-sink.ts";

/** What the contract allows. */
export const MAX = {
  framework: 63,
  file: 1024,
  suites: 64,
  suite: 1024,
  name: 4096,
  parameters: 4096,
  variant: 256,
  occurrence: 1_000_000,
  failures: 100,
  attempts: 100,
  tags: 64,
  tag: 128,
  attachments: 32,
  properties: 64,
} as const;

/** An identity that the contract takes, whatever a report says. */
export function boundedIdentity(identity: IdentityInit): IdentityInit {
  return {
    framework: name(identity.framework, MAX.framework),
    ...(identity.project && { project: name(identity.project, 128) }),
    file: name(identity.file, MAX.file),
    suitePath: (identity.suitePath ?? []).slice(0, MAX.suites).map((suite) => name(suite, MAX.suite)),
    name: name(identity.name, MAX.name) || "(no name)",
    ...(identity.parameters && { parameters: name(identity.parameters, MAX.parameters) }),
    ...(identity.variant && { variant: name(identity.variant, MAX.variant) }),
    ...(identity.occurrence !== undefined && { occurrence: Math.min(identity.occurrence, MAX.occurrence) }),
  };
}

/** A failure that the contract takes. */
export function boundedFailure(failure: {
  readonly message?: string | undefined;
  readonly type?: string | undefined;
  readonly stack?: string | undefined;
}): MessageInitShape<typeof TestFailureSchema> {
  const stack = failure.stack?.trim() ?? "";
  return {
    message: boundedText(readableText(failure.message?.trim() || firstLine(stack))),
    type: name(failure.type, 256),
    stack: boundedText(readableText(stack)),
  };
}

/** Facts that the contract takes: the first ones, with names and values that are cut. */
export function boundedProperties(properties: Iterable<readonly [string, string]>): Record<string, string> {
  const kept = new Map<string, string>();
  for (const [key, value] of properties) {
    if (kept.size < MAX.properties || kept.has(key)) {
      kept.set(name(key, 256), boundedText(readableText(value), 4096));
    }
  }
  return Object.fromEntries(kept);
}

export function boundedTags(tags: Iterable<string>): string[] {
  const kept = new Set([...tags].filter((tag) => tag !== "").map((tag) => name(tag, MAX.tag)));
  return [...kept].slice(0, MAX.tags);
}

/** A file that a report names by its path. Undefined: there is no such file to name. */
export function attachmentOf(
  path: string,
  title = "",
  mediaType = "",
): MessageInitShape<typeof AttachmentSchema> | undefined {
  const uri = readableText(path.trim());
  if (uri === "" || uri.length > 2048) {
    return undefined;
  }
  return {
    name: name(title || (uri.split(/[/\\]/).at(-1) ?? ""), 256) || "attachment",
    mediaType: mediaType.length <= 128 ? readableText(mediaType) : "",
    source: { case: "uri", value: uri },
  };
}

function name(text: string | undefined, limit: number): string {
  return boundedName(readableText(text ?? ""), limit);
}

function firstLine(text: string): string {
  return text.slice(0, 4096).split("\n", 1)[0] ?? "";
}
