import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { deflateRawSync, inflateRawSync } from "node:zlib";
import type { JsonObject } from "@bufbuild/protobuf";
import type { ByteLru } from "@toolplane/framework/policies";
import type { DiscoveredTool } from "../backends/source.ts";
import { compareText } from "./version-order.ts";

/**
 * The tools of a service, compressed: 100,000 tools with their schemas are held in memory by every replica, and only a
 * few are looked at in any second. Summaries and schemas are packed apart, because searching and listing need only the
 * summaries, and in small chunks, because reading one tool should not unpack thousands.
 */
const SUMMARIES_PER_CHUNK = 64;
/** Divides `SUMMARIES_PER_CHUNK`. */
const SCHEMAS_PER_CHUNK = 16;

/** A tool without its schemas. */
export type ToolSummary = Omit<DiscoveredTool, "inputSchema" | "outputSchema"> & {
  /** Names of the top-level arguments, for search. */
  readonly argumentNames: readonly string[];
};

export interface ToolSchemas {
  readonly inputSchema: JsonObject;
  readonly outputSchema: JsonObject;
}

export interface EncodedToolSet {
  /** SHA-256 of `bytes`. */
  readonly digest: string;
  /** SHA-256 of the tools' names and schemas. */
  readonly schemaDigest: string;
  readonly bytes: Uint8Array;
}

/** Packs tools; other work gets its turn between chunks, because a service can have thousands. */
export async function encodeToolSet(tools: readonly DiscoveredTool[]): Promise<EncodedToolSet> {
  const sorted = [...tools].sort((left, right) => compareText(left.name, right.name));
  const summaryChunks: Buffer[] = [];
  const schemaChunks: Buffer[] = [];
  // The digests are taken before compression: another version of zlib may compress the same tools differently.
  const digest = createHash("sha256");
  const schemaDigest = createHash("sha256");
  for (let start = 0; start < sorted.length; start += SUMMARIES_PER_CHUNK) {
    const part = sorted.slice(start, start + SUMMARIES_PER_CHUNK);
    const summaries = part.map(summarise);
    const schemas = part.map(({ inputSchema, outputSchema }): ToolSchemas => ({ inputSchema, outputSchema }));
    for (const [index, { name }] of part.entries()) {
      const schemaText = canonicalJson([name, schemas[index]]);
      schemaDigest.update(schemaText);
      digest.update(schemaText).update(canonicalJson(summaries[index]));
    }
    summaryChunks.push(pack(summaries));
    for (let first = 0; first < part.length; first += SCHEMAS_PER_CHUNK) {
      schemaChunks.push(pack(schemas.slice(first, first + SCHEMAS_PER_CHUNK)));
    }
    await setImmediate();
  }
  const chunks = [...summaryChunks, ...schemaChunks];
  const header = Buffer.alloc(4 + 4 * chunks.length);
  header.writeUInt32LE(sorted.length, 0);
  for (const [index, chunk] of chunks.entries()) {
    header.writeUInt32LE(chunk.length, 4 + 4 * index);
  }
  return {
    digest: digest.digest("hex"),
    schemaDigest: schemaDigest.digest("hex"),
    bytes: Buffer.concat([header, ...chunks]),
  };
}

/** Reads the tools of one service, which are ordered by name. */
export interface ToolSet {
  readonly digest: string;
  readonly names: readonly string[];
  /** Every tool's own tags, by its index. */
  readonly tags: readonly (readonly string[])[];
  /** The index of a tool; -1 when there is none of that name. */
  indexOf(name: string): number;
  summary(index: number): ToolSummary;
  schemas(index: number): ToolSchemas;
  /** All summaries, unpacked a chunk at a time. */
  summaries(): Iterable<ToolSummary>;
  /** All tools, in full. */
  tools(): DiscoveredTool[];
  /** The shortest dotted end of a tool's name that no other tool of the set ends with; else its whole name. */
  shortName(index: number): string;
  /** Indexes of the tools whose names end with the dotted `suffix`. */
  endingWith(suffix: string): number[];
}

/** Chunks of summaries that were read lately, as lines. All tool sets share it, so what is unpacked stays bounded. */
export type SummaryCache = ByteLru<readonly string[]>;

export function decodeToolSet(digest: string, bytes: Uint8Array, cache: SummaryCache): ToolSet {
  const packed = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const count = packed.readUInt32LE(0);
  const summaryChunks = Math.ceil(count / SUMMARIES_PER_CHUNK);
  const chunkCount = summaryChunks + Math.ceil(count / SCHEMAS_PER_CHUNK);
  const offsets = new Uint32Array(chunkCount + 1);
  offsets[0] = 4 + 4 * chunkCount;
  for (let chunk = 0; chunk < chunkCount; chunk++) {
    offsets[chunk + 1] = (offsets[chunk] ?? 0) + packed.readUInt32LE(4 + 4 * chunk);
  }

  function unpack(chunk: number): string[] {
    return inflateRawSync(packed.subarray(offsets[chunk], offsets[chunk + 1]))
      .toString("utf8")
      .split("\n");
  }

  function* summaries(): Generator<ToolSummary> {
    for (let chunk = 0; chunk < summaryChunks; chunk++) {
      for (const line of unpack(chunk)) {
        yield JSON.parse(line);
      }
    }
  }

  const names: string[] = [];
  const tags: (readonly string[])[] = [];
  const distinctTags = new Map<string, readonly string[]>();
  for (const summary of summaries()) {
    names.push(summary.name);
    const text = summary.tags.join("\n");
    const known = distinctTags.get(text) ?? summary.tags;
    distinctTags.set(text, known);
    tags.push(known);
  }

  let shortNameSegments: Uint8Array | undefined;

  const set: ToolSet = {
    digest,
    names,
    tags,
    indexOf(name) {
      const index = lowerBound(names, name);
      return names[index] === name ? index : -1;
    },
    summary(index) {
      const chunk = Math.floor(index / SUMMARIES_PER_CHUNK);
      const key = `${digest}/${chunk}`;
      let lines = cache.get(key);
      if (!lines) {
        lines = unpack(chunk);
        cache.set(
          key,
          lines,
          lines.reduce((length, line) => length + line.length, 0),
        );
      }
      return JSON.parse(at(lines, index % SUMMARIES_PER_CHUNK));
    },
    schemas(index) {
      const lines = unpack(summaryChunks + Math.floor(index / SCHEMAS_PER_CHUNK));
      return JSON.parse(at(lines, index % SCHEMAS_PER_CHUNK));
    },
    summaries,
    tools() {
      const all: DiscoveredTool[] = [];
      let chunk = summaryChunks;
      let lines: string[] = [];
      for (const { argumentNames: _, ...summary } of summaries()) {
        if (all.length % SCHEMAS_PER_CHUNK === 0) {
          lines = unpack(chunk++);
        }
        const schemas: ToolSchemas = JSON.parse(at(lines, all.length % SCHEMAS_PER_CHUNK));
        all.push({ ...summary, ...schemas });
      }
      return all;
    },
    shortName(index) {
      shortNameSegments ??= countShortNameSegments(names);
      return lastSegments(at(names, index), shortNameSegments[index] ?? 0);
    },
    endingWith(suffix) {
      const dotted = `.${suffix}`;
      const found: number[] = [];
      for (const [index, name] of names.entries()) {
        if (name === suffix || name.endsWith(dotted)) {
          found.push(index);
        }
      }
      return found;
    },
  };
  return set;
}

function summarise({ inputSchema, outputSchema: _, ...summary }: DiscoveredTool): ToolSummary {
  const properties = inputSchema["properties"];
  const argumentNames =
    properties !== null && typeof properties === "object" && !Array.isArray(properties)
      ? Object.keys(properties)
      : [];
  return { ...summary, argumentNames };
}

/** One line of JSON for each item: one of them can be read without parsing the others. */
function pack(items: readonly unknown[]): Buffer {
  return deflateRawSync(items.map((item) => JSON.stringify(item)).join("\n"));
}

/** JSON with sorted keys, so that equal values have equal texts. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_, item: unknown) =>
    item !== null && typeof item === "object" && !Array.isArray(item)
      ? Object.fromEntries(Object.entries(item).sort(([left], [right]) => compareText(left, right)))
      : item,
  );
}

/** How many segments of each name its short name has; 0 means the whole name. */
function countShortNameSegments(names: readonly string[]): Uint8Array {
  const occurrences = new Map<string, number>();
  for (const name of names) {
    for (let at = name.length; at !== -1; at = name.lastIndexOf(".", at - 1)) {
      const suffix = at === name.length ? name : name.slice(at + 1);
      occurrences.set(suffix, (occurrences.get(suffix) ?? 0) + 1);
      if (at === 0) {
        break;
      }
    }
  }
  return Uint8Array.from(names, (name) => {
    const segments = name.split(".").length;
    for (let wanted = 1; wanted < Math.min(segments, 255); wanted++) {
      if (occurrences.get(lastSegments(name, wanted)) === 1) {
        return wanted;
      }
    }
    return 0;
  });
}

/** The last `count` segments of a dotted name; the whole name for 0. */
function lastSegments(name: string, count: number): string {
  return count === 0 ? name : name.split(".").slice(-count).join(".");
}

function lowerBound(names: readonly string[], wanted: string): number {
  let low = 0;
  let high = names.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (at(names, middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

function at<T>(items: readonly T[], index: number): T {
  const item = items[index];
  if (item === undefined) {
    throw new RangeError(`no item ${index} of ${items.length}`);
  }
  return item;
}
