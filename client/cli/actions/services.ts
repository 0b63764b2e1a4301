import { create } from "@bufbuild/protobuf";
import {
  GetServiceResponseSchema,
  ListServicesResponseSchema,
  RefreshServiceResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import type { Service } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { ListServicesOptions, ServiceRefOptions } from "../commands/services.ts";
import type { Context } from "../context.ts";
import { toServiceFilter } from "../input/filter.ts";
import { parseLimit } from "../input/limit.ts";
import { renderColumns } from "../output/columns.ts";
import { count, formatAge } from "../output/format.ts";
import { renderChanges } from "../output/schema-changes.ts";
import { renderService } from "../output/service.ts";
import { withSpinner } from "../output/spinner.ts";
import { instanceHealth, serviceState } from "../output/states.ts";
import { readPages } from "./pages.ts";

export async function listServices(
  context: Context,
  name: string | undefined,
  options: ListServicesOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const filter = toServiceFilter(name, options);
  const { signal } = context.io;
  const { items, totalSize } = await readPages(parseLimit(options.limit), async (pageSize, pageToken) => {
    const page = await registry.listServices({ filter, pageSize, pageToken }, { signal });
    return { ...page, items: page.services };
  });
  if (context.json) {
    const response = create(ListServicesResponseSchema, { services: items, totalSize });
    return void (await context.printMessage(ListServicesResponseSchema, response));
  }
  if (items.length === 0) return void (await noteNoServices(context, name, options));
  await context.print(renderServices(context, items));
  if (items.length < totalSize) {
    await context.note(
      context.paintErr.dim(`\n${items.length} of ${count(totalSize, "service")}; --limit 0 lists all.`),
    );
  }
}

export async function showService(
  context: Context,
  name: string,
  options: ServiceRefOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const response = await registry.getService(
    { service: { name, ...options } },
    { signal: context.io.signal },
  );
  if (context.json || response.service === undefined) {
    return void (await context.printMessage(GetServiceResponseSchema, response));
  }
  await context.print(renderService(context, response.service));
}

export async function refreshService(
  context: Context,
  name: string,
  options: ServiceRefOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const response = await withSpinner(context, `Learning the tools of ${name}`, () =>
    registry.refreshService({ service: { name, ...options } }, { signal: context.io.signal }),
  );
  const { service } = response;
  if (context.json || service === undefined) {
    return void (await context.printMessage(RefreshServiceResponseSchema, response));
  }
  const state = serviceState(service.state, context.paint);
  await context.print(
    `${context.paint.bold(service.name)} ${service.version}  ${state.style(state.text)}  ${count(service.toolCount, "tool")}`,
  );
  await context.print(
    response.changes.length === 0
      ? context.paint.dim("Nothing changed.")
      : `\n${renderChanges(context, response.changes)}`,
  );
}

function renderServices(context: Context, services: readonly Service[]): string {
  const { paint, io } = context;
  const now = io.now();
  return renderColumns(
    [
      { title: "SERVICE", minWidth: 12 },
      { title: "VERSION" },
      { title: "ENVIRONMENT", optional: true },
      { title: "STATE" },
      { title: "INSTANCES" },
      { title: "TOOLS", align: "right" },
      { title: "CHANGED", optional: true },
      { title: "TAGS", minWidth: 6, optional: true },
    ],
    services.map((service) => [
      { text: service.name, style: paint.bold },
      service.version,
      service.environment,
      serviceState(service.state, paint),
      instanceHealth(service, paint),
      service.toolCount.toLocaleString("en"),
      formatAge(service.updateTime, now),
      { text: service.tags.join(", "), style: paint.dim },
    ]),
    context.columns(),
  );
}

async function noteNoServices(
  context: Context,
  name: string | undefined,
  options: ListServicesOptions,
): Promise<void> {
  const filtered =
    name !== undefined ||
    options.environment !== undefined ||
    options.version !== undefined ||
    options.tag !== undefined ||
    options.health !== undefined;
  await context.note(
    filtered
      ? "No service matches."
      : "No services are registered yet. Register one: toolplane register <name> <host:port>",
  );
}
