import { create } from "@bufbuild/protobuf";
import {
  ListToolsResponseSchema,
  SearchToolsResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { ToolFilterOptions } from "../commands/tools.ts";
import type { Context } from "../context.ts";
import { parseLimit } from "../input/limit.ts";
import { count } from "../output/format.ts";
import { renderTools } from "../output/tools.ts";
import { UsageError } from "../usage-error.ts";
import { readPages } from "./pages.ts";

export async function listTools(
  context: Context,
  service: string | undefined,
  options: ToolFilterOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const filter = toToolFilter(service, options);
  const { signal } = context.io;
  const { items, totalSize } = await readPages(parseLimit(options.limit), async (pageSize, pageToken) => {
    const page = await registry.listTools({ filter, pageSize, pageToken }, { signal });
    return { ...page, items: page.tools };
  });
  if (context.json) {
    const response = create(ListToolsResponseSchema, { tools: items, totalSize });
    return void (await context.printMessage(ListToolsResponseSchema, response));
  }
  if (items.length === 0) {
    if (service !== undefined) {
      // Says NOT_FOUND, with what was perhaps meant, when there is no such service.
      await registry.getService({ service: { name: service, ...refOf(options) } }, { signal });
    }
    return void (await context.note(
      service === undefined && options.tag === undefined
        ? "No tools are known yet. Register a service: toolplane register <name> <host:port>"
        : "No tool matches.",
    ));
  }
  await context.print(renderTools(context, items));
  if (items.length < totalSize) {
    await context.note(
      context.paintErr.dim(
        `\n${items.length} of ${count(totalSize, "tool")}; --limit 0 lists all, toolplane tools search finds some.`,
      ),
    );
  }
}

export async function searchTools(
  context: Context,
  words: readonly string[],
  options: ToolFilterOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const pageSize = parseLimit(options.limit);
  if (pageSize > 100) throw new UsageError("--limit: a search finds at most 100 tools");
  const response = await registry.searchTools(
    { query: words.join(" "), filter: toToolFilter(options.service, options), pageSize },
    { signal: context.io.signal },
  );
  if (context.json) return void (await context.printMessage(SearchToolsResponseSchema, response));
  if (response.hits.length === 0) {
    return void (await context.note(
      "No tool matches. Try fewer or other words, or list all: toolplane tools",
    ));
  }
  await context.print(
    renderTools(
      context,
      response.hits.flatMap(({ tool }) => (tool === undefined ? [] : [tool])),
    ),
  );
}

function toToolFilter(service: string | undefined, options: ToolFilterOptions) {
  return { service: service ?? "", tags: [...(options.tag ?? [])], ...refOf(options) };
}

function refOf({ environment, version }: ToolFilterOptions) {
  return { environment: environment ?? "", version: version ?? "" };
}
