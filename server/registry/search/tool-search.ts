import { setImmediate } from "node:timers/promises";
import type { Logger } from "pino";
import type { Catalogue, CatalogueChange, CatalogueService } from "../catalogue.ts";
import type { ToolPredicate } from "../filter.ts";
import type { ToolLocation } from "../resolve.ts";
import { compareKeys } from "../service-key.ts";
import type { ToolSummary } from "../tool-set.ts";
import { compareText } from "../version-order.ts";
import { createSearchIndex, type Field } from "./search-index.ts";

/**
 * Indexing makes room for other work after so many milliseconds. A request that takes ten turns of the event loop is
 * slowed down by ten times as much while a server starts.
 */
const SLICE_MS = 2;
/** Removed documents are swept out once they are more than the others, and at least so many. */
const MIN_REMOVED_TO_COMPACT = 20_000;

export interface ToolHit {
  readonly location: ToolLocation;
  /** Only comparable within one answer. */
  readonly score: number;
}

/** Full-text search over the catalogue's tools. The index follows the catalogue in the background, in short slices. */
export interface ToolSearch {
  /** Takes note of changes of the catalogue. */
  follow(changes: readonly CatalogueChange[]): void;
  /** Finds tools, best first, after everything that was noted is indexed. */
  search(query: string, matches: ToolPredicate, limit: number): Promise<ToolHit[]>;
  /** The same with what is indexed by now. */
  searchIndexed(query: string, matches: ToolPredicate, limit: number): ToolHit[];
  /** Resolves when everything noted is indexed. */
  indexed(): Promise<void>;
  close(): Promise<void>;
}

/** The documents of one service: one for each tool, in order. */
interface Block {
  /** As it was when it was indexed. */
  readonly service: CatalogueService;
  readonly documents: Uint32Array;
}

export function createToolSearch(catalogue: Pick<Catalogue, "byId">, logger: Logger): ToolSearch {
  const index = createSearchIndex();
  const blocks = new Map<string, Block>();
  /** Of each document: the service that it was made of, until it is removed, and the index of its tool. */
  let services: (CatalogueService | undefined)[] = [];
  let tools: number[] = [];
  const waiting = new Set<string>();
  let working: Promise<void> | undefined;
  let closed = false;

  /** Brings the index up to date with one service; stops after each tool to be asked whether to go on. */
  function* update(id: string): Generator<void, void, void> {
    const block = blocks.get(id);
    if (block) {
      blocks.delete(id);
      let tool = 0;
      for (const summary of block.service.tools?.summaries() ?? []) {
        const document = block.documents[tool++] ?? 0;
        index.remove(document, fieldsOf(block.service, summary));
        // What is removed waits long to be swept out, and must not keep its service in memory.
        services[document] = undefined;
        yield;
      }
    }
    const service = catalogue.byId(id);
    if (!service?.tools) {
      return;
    }
    const documents = new Uint32Array(service.tools.names.length);
    blocks.set(id, { service, documents });
    let tool = 0;
    for (const summary of service.tools.summaries()) {
      const document = index.add(fieldsOf(service, summary));
      services[document] = service;
      tools[document] = tool;
      documents[tool++] = document;
      yield;
    }
  }

  async function work(): Promise<void> {
    let sliceEnd = performance.now() + SLICE_MS;
    for (const id of waiting) {
      waiting.delete(id);
      try {
        for (const _ of update(id)) {
          if (performance.now() >= sliceEnd) {
            await setImmediate();
            if (closed) {
              return;
            }
            sliceEnd = performance.now() + SLICE_MS;
          }
        }
        compact();
      } catch (error) {
        logger.error({ err: error, service: id }, "a service's tools could not be indexed");
      }
    }
  }

  function compact(): void {
    if (index.removed < MIN_REMOVED_TO_COMPACT || index.removed * 2 < index.size) {
      return;
    }
    const remaining = index.compact();
    services = Array.from(remaining, (document) => at(services, document));
    tools = Array.from(remaining, (document) => at(tools, document));
    for (const [document, service] of services.entries()) {
      const block = service && blocks.get(service.id);
      if (block) {
        block.documents[at(tools, document)] = document;
      }
    }
  }

  function start(): Promise<void> {
    working ??= work().finally(() => {
      working = undefined;
    });
    return working;
  }

  /** Undefined for a tool that has changed since it was indexed. */
  function locate(document: number): ToolLocation | undefined {
    const indexed = at(services, document);
    const service = catalogue.byId(indexed.id);
    return service?.tools && service.tools === indexed.tools
      ? { service, tools: service.tools, index: at(tools, document) }
      : undefined;
  }

  /** Equal scores are common, so this is called for every tool when a word is in all of them. */
  function isBefore(left: number, right: number): boolean {
    const a = at(services, left);
    const b = at(services, right);
    if (a === b) {
      return at(tools, left) < at(tools, right);
    }
    if (a.name !== b.name) {
      return a.name < b.name;
    }
    const order = compareText(nameAt(a, left), nameAt(b, right)) || compareKeys(a, b);
    return order < 0;
  }

  function nameAt(service: CatalogueService, document: number): string {
    return service.tools?.names[at(tools, document)] ?? "";
  }

  const search: ToolSearch = {
    follow(changes) {
      for (const { id, before, after } of changes) {
        if (!before || !after || before.tools !== after.tools || !sameTags(before, after)) {
          waiting.add(id);
        }
      }
      if (waiting.size > 0) {
        void start();
      }
    },
    async search(query, matches, limit) {
      await search.indexed();
      return search.searchIndexed(query, matches, limit);
    },
    searchIndexed(query, matches, limit) {
      const meant = new Map<CatalogueService, boolean>();
      const hits = index.search(query, {
        limit,
        accepts(document) {
          const location = locate(document);
          if (!location) {
            return false;
          }
          const { service, tools: set } = location;
          let serviceMeant = meant.get(service);
          if (serviceMeant === undefined) {
            serviceMeant = matches.service(service);
            meant.set(service, serviceMeant);
          }
          return serviceMeant && matches.tool(service, set, location.index);
        },
        isBefore,
      });
      return hits.flatMap(({ document, score }) => {
        const location = locate(document);
        return location ? [{ location, score }] : [];
      });
    },
    async indexed() {
      while (waiting.size > 0 || working) {
        await start();
      }
    },
    async close() {
      closed = true;
      waiting.clear();
      await working;
    },
  };
  return search;
}

function at<T>(items: readonly (T | undefined)[], index: number): T {
  const item = items[index];
  if (item === undefined) {
    throw new RangeError(`no item ${index} of ${items.length}`);
  }
  return item;
}

function sameTags(left: CatalogueService, right: CatalogueService): boolean {
  return left.spec.tags.join("\n") === right.spec.tags.join("\n");
}

/** What of a tool is searched. Its last name says most about it, what it is for comes next. */
function fieldsOf({ name: service, spec }: CatalogueService, tool: ToolSummary): Field[] {
  const dot = tool.name.lastIndexOf(".");
  return [
    { text: tool.name.slice(dot + 1), weight: 4, usualLength: 3 },
    { text: tool.name.slice(0, Math.max(dot, 0)), weight: 1, usualLength: 5 },
    { text: service, weight: 2, usualLength: 2 },
    { text: tool.title, weight: 2, usualLength: 3 },
    { text: tool.tags.concat(spec.tags).join(" "), weight: 2, usualLength: 4 },
    { text: tool.description, weight: 1, usualLength: 20 },
    { text: tool.argumentNames.join(" "), weight: 1, usualLength: 8 },
  ];
}
