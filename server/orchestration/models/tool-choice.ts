import { create, type JsonObject } from "@bufbuild/protobuf";
import { Code } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import type { ToolScope } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import { ToolFilterSchema, ToolView } from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { SchemaProfile, type Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Logger } from "pino";
import { codeOf } from "../../error-code.ts";
import type { Registry } from "../../registry/registry.ts";
import { globMatches } from "./glob.ts";

/** What choosing among tools needs of the registry. */
export type ToolSource = Pick<Registry, "getTool" | "listTools" | "searchTools">;

/** Which tools a model may call. Depends on nothing but its scope, so that nothing that happens later adds to it. */
export interface AllowedTools {
  readonly environment: string;
  /** False: there are none, and the registry need not be asked. */
  readonly any: boolean;
  isAllowed(tool: Pick<Tool, "name" | "alias" | "tags" | "environment">): boolean;
  /** Whether all that another scope allows is allowed here too. Says no where that cannot be told. */
  covers(other: ToolScope | undefined): boolean;
  /** A tool by any of its names, with schemas; undefined: there is none, or it is not allowed. */
  find(name: string, profile?: SchemaProfile): Tool | undefined;
  /** Chooses what to offer first: everything where that is not too much, else what fits the task best. */
  begin(task: string, offerAllUpTo: number): Promise<Selection>;
  search(query: string): Promise<readonly Candidate[]>;
}

/** What is offered at the start. Kept in the run's journal, so that whoever goes on with the run offers the same. */
export interface Selection {
  /** Empty: everything that is allowed is offered. */
  readonly query: string;
  readonly allowed: number;
  readonly candidates: readonly Candidate[];
}

export interface Candidate {
  /** The whole name. */
  readonly tool: string;
  /** Only to be compared within one search. */
  readonly score: number;
}

/** How many tools a search brings. */
const FOUND = 10;
/** How many hits are looked through for tools that are allowed. */
const MAX_HITS = 1_000;
const PAGE_SIZE = 1_000;
/** The registry's own limit on queries, in characters. */
const MAX_QUERY = 512;
const DEFAULT_ENVIRONMENT = "default";

/**
 * The tools that a scope allows. A name without `*` may be an alias; one that means no tool now is left out with a warning.
 * Tools that cannot be called are left out too, and hidden ones are in no registry.
 *
 * @param scope undefined: all tools of the default environment
 */
export function allowedTools(
  scope: ToolScope | undefined,
  { tools, logger }: { readonly tools: ToolSource; readonly logger: Logger },
): AllowedTools {
  const environment = scope?.environment || DEFAULT_ENVIRONMENT;
  const globs = scope?.names.filter((name) => name.includes("*")) ?? [];
  const literals = scope?.names.filter((name) => !name.includes("*")) ?? [];
  const exact = new Set(scope?.none ? [] : literals.flatMap((name) => wholeName(name)));
  const tags = new Set(scope?.tags);
  const any = !scope?.none;
  const isOpen = globs.length + literals.length + tags.size === 0;

  function wholeName(name: string): string[] {
    const tool = lookUp(tools, name, environment);
    if (tool === undefined) {
      logger.warn({ tool: name, environment }, "a name in the scope of a model means no tool, or several");
    }
    return tool ? [tool.name] : [];
  }

  function isNamed({ name, alias }: Pick<Tool, "name" | "alias">): boolean {
    return (
      (globs.length === 0 && literals.length === 0) ||
      exact.has(name) ||
      globs.some((glob) => globMatches(glob, name) || globMatches(glob, alias))
    );
  }

  const isAllowed: AllowedTools["isAllowed"] = (tool) =>
    any &&
    tool.environment === environment &&
    isNamed(tool) &&
    (tags.size === 0 || tool.tags.some((tag) => tags.has(tag)));

  const isWithin = (name: string) =>
    name.includes("*")
      ? // Where `*` stands in for itself, it stands in for all that it stands for.
        globs.some((glob) => globMatches(glob, name))
      : isKnown(name);

  const isKnown = (name: string) => {
    const tool = lookUp(tools, name, environment);
    return tool !== undefined && isAllowed(tool);
  };

  function covers(other: ToolScope | undefined): boolean {
    if (other?.none) {
      return true;
    }
    if (!any || (other?.environment || DEFAULT_ENVIRONMENT) !== environment) {
      return false;
    }
    const named = other?.names ?? [];
    const tagged = other?.tags ?? [];
    if (named.length > 0 && named.every(isKnown)) {
      return true;
    }
    const namesFit = globs.length + literals.length === 0 || (named.length > 0 && named.every(isWithin));
    const tagsFit = tags.size === 0 || (tagged.length > 0 && tagged.every((tag) => tags.has(tag)));
    return namesFit && tagsFit;
  }

  const isMeant = (tool: Tool) => tool.problem === undefined && isAllowed(tool);

  /** Narrows what the registry looks through where that loses nothing. */
  function filters() {
    const [tag] = tags;
    const narrowed = tag !== undefined && tags.size === 1 ? [tag] : [];
    return servicesOf(scope?.names ?? []).map((service) =>
      create(ToolFilterSchema, { environment, tags: narrowed, service }),
    );
  }

  /** Names of all that is allowed; stops when there are more than `limit` and only counts on. */
  function list(limit: number): { names: string[]; count: number } {
    if (globs.length === 0 && literals.length > 0) {
      const names = [...exact].filter((name) => {
        const tool = lookUp(tools, name, environment);
        return tool !== undefined && isMeant(tool);
      });
      return { names, count: names.length };
    }
    const names: string[] = [];
    let count = 0;
    for (const filter of filters()) {
      let pageToken = "";
      do {
        const page = tools.listTools({ filter, pageSize: PAGE_SIZE, pageToken, view: ToolView.BASIC });
        if (isOpen && page.totalSize > Math.max(limit, PAGE_SIZE)) {
          return { names: [], count: page.totalSize }; // too many anyway, and not worth being looked at one by one
        }
        for (const tool of page.items) {
          if (isMeant(tool)) {
            count++;
            names.push(...(count <= limit ? [tool.name] : []));
          }
        }
        pageToken = page.nextPageToken;
      } while (pageToken !== "");
    }
    return { names, count };
  }

  async function search(query: string): Promise<readonly Candidate[]> {
    const text = query.slice(0, MAX_QUERY);
    const hits = await Promise.all(
      filters().map((filter) =>
        tools.searchTools({ query: text, filter, pageSize: MAX_HITS, view: ToolView.BASIC }),
      ),
    );
    return hits
      .flat()
      .filter(({ tool }) => isMeant(tool))
      .sort((left, right) => right.score - left.score)
      .slice(0, FOUND)
      .map(({ tool, score }) => ({ tool: tool.name, score }));
  }

  return {
    environment,
    any,
    isAllowed,
    covers,
    search,
    find(name, profile = SchemaProfile.UNSPECIFIED) {
      const tool = any ? lookUp(tools, name, environment, profile) : undefined;
      return tool && isMeant(tool) ? tool : undefined;
    },
    async begin(task, offerAllUpTo) {
      const { names, count } = list(offerAllUpTo);
      if (count === 0 && scope !== undefined && (scope.names.length > 0 || scope.tags.length > 0)) {
        throw noTools(scope, environment);
      }
      if (count <= offerAllUpTo) {
        return { query: "", allowed: count, candidates: names.map((tool) => ({ tool, score: 0 })) };
      }
      const query = task.slice(0, MAX_QUERY);
      return { query, allowed: count, candidates: await search(query) };
    },
  };
}

/** The services that names begin with; one empty text when there may be others. */
function servicesOf(names: readonly string[]): readonly string[] {
  const services = new Set(names.map((name) => /^([^.*]+)\./.exec(name)?.[1] ?? ""));
  return services.size === 0 || services.has("") ? [""] : [...services];
}

function lookUp(
  tools: ToolSource,
  name: string,
  environment: string,
  profile: SchemaProfile = SchemaProfile.UNSPECIFIED,
): Tool | undefined {
  try {
    return tools.getTool(name, { environment }, profile);
  } catch (error) {
    const code = codeOf(error);
    if (code === Code.NotFound || code === Code.InvalidArgument) {
      return undefined;
    }
    throw error;
  }
}

function noTools({ names, tags }: ToolScope, environment: string): DomainError {
  const wanted = [
    ...(names.length > 0 ? [`named ${names.slice(0, 10).join(", ")}`] : []),
    ...(tags.length > 0 ? [`tagged ${tags.slice(0, 10).join(", ")}`] : []),
  ].join(" and ");
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "NO_TOOL_IN_SCOPE",
    message:
      `tools: no callable tool ${wanted} is registered in environment "${environment}". Register one, ` +
      "change the scope, or set `none` for a model without tools",
    preconditions: [
      { type: "TOOL", subject: "tools", description: `register a tool ${wanted}, or change the scope` },
    ],
  });
}

/** A schema of arguments, also for tools that have none. */
export function inputSchemaOf(tool: Tool): JsonObject {
  return tool.inputSchema ?? { type: "object" };
}
