import { create } from "@bufbuild/protobuf";
import {
  CheckHealthResponseSchema,
  ListHealthChecksResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { type HealthCheck, HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { HealthOptions } from "../commands/health.ts";
import type { Context } from "../context.ts";
import { ExitCode } from "../exit-code.ts";
import { toServiceFilter } from "../input/filter.ts";
import { parseLimit } from "../input/limit.ts";
import { renderColumns } from "../output/columns.ts";
import { durationMs, formatAge, formatDuration } from "../output/format.ts";
import { sparkline } from "../output/sparkline.ts";
import { withSpinner } from "../output/spinner.ts";
import { healthStatus } from "../output/states.ts";
import { UsageError } from "../usage-error.ts";
import { readPages } from "./pages.ts";

export async function health(
  context: Context,
  name: string | undefined,
  options: HealthOptions,
): Promise<number | undefined> {
  if (options.history === true) return await showHistory(context, name, options);
  if (options.instance !== undefined || options.limit !== undefined) {
    throw new UsageError("--instance and --limit choose among past checks", "Show those: add --history");
  }
  return await checkNow(context, name, options);
}

async function checkNow(
  context: Context,
  name: string | undefined,
  options: HealthOptions,
): Promise<number | undefined> {
  const { registry } = await context.connect();
  const response = await withSpinner(context, "Checking health", () =>
    registry.checkHealth({ filter: toServiceFilter(name, options) }, { signal: context.io.signal }),
  );
  const checks = preferExact(response.checks, name);
  if (checks.length === 0 && name !== undefined) await requireService(context, name, options);
  const code = checks.some(({ status }) => status === HealthStatus.UNHEALTHY) ? ExitCode.failure : undefined;
  if (context.json) {
    await context.printMessage(CheckHealthResponseSchema, create(CheckHealthResponseSchema, { checks }));
    return code;
  }
  if (checks.length === 0) {
    await context.note("No instance to check.");
    return undefined;
  }
  await context.print(
    renderColumns(
      [
        { title: "SERVICE", minWidth: 12 },
        { title: "VERSION", optional: true },
        { title: "ENVIRONMENT", optional: true },
        { title: "INSTANCE", minWidth: 16 },
        { title: "HEALTH" },
        { title: "LATENCY", align: "right" },
        { title: "MESSAGE", minWidth: 16 },
      ],
      checks.map((check) => [
        { text: check.service, style: context.paint.bold },
        check.version,
        check.environment,
        check.instanceId,
        healthStatus(check.status, context.paint),
        formatDuration(check.latency),
        { text: check.message, style: context.paint.dim },
      ]),
      context.columns(),
    ),
  );
  return code;
}

async function showHistory(
  context: Context,
  name: string | undefined,
  options: HealthOptions,
): Promise<undefined> {
  const { registry } = await context.connect();
  const filter = toServiceFilter(name, options);
  const { signal } = context.io;
  const { items } = await readPages(parseLimit(options.limit ?? "20"), async (pageSize, pageToken) => {
    const request = { filter, instanceId: options.instance ?? "", pageSize, pageToken };
    const page = await registry.listHealthChecks(request, { signal });
    return { items: page.checks, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  if (items.length === 0 && name !== undefined) await requireService(context, name, options);
  if (context.json) {
    const response = create(ListHealthChecksResponseSchema, { checks: items });
    return void (await context.printMessage(ListHealthChecksResponseSchema, response));
  }
  if (items.length === 0) return void (await context.note("No health checks are kept."));
  const { paint, io } = context;
  await context.print(
    renderColumns(
      [
        { title: "CHECKED" },
        { title: "SERVICE", minWidth: 12 },
        { title: "VERSION", optional: true },
        { title: "INSTANCE", minWidth: 16 },
        { title: "HEALTH" },
        { title: "LATENCY", align: "right" },
        { title: "MESSAGE", minWidth: 16 },
      ],
      items.map((check) => [
        formatAge(check.time, io.now()),
        { text: check.service, style: paint.bold },
        check.version,
        check.instanceId,
        healthStatus(check.status, paint),
        formatDuration(check.latency),
        { text: check.message, style: paint.dim },
      ]),
      context.columns(),
    ),
  );
  await context.print(`\n${renderLatencies(context, items)}`);
}

/** The latency of each instance over time, oldest first. */
function renderLatencies(context: Context, checks: readonly HealthCheck[]): string {
  const byInstance = Map.groupBy(checks.toReversed(), ({ instanceId }) => instanceId);
  return renderColumns(
    [{ title: "INSTANCE", minWidth: 16 }, { title: "LATENCY" }, { title: "HIGHEST", align: "right" }],
    [...byInstance].map(([instanceId, own]) => {
      const latencies = own.flatMap(({ latency }) => (latency === undefined ? [] : [latency]));
      const highest = latencies.toSorted((a, b) => durationMs(b) - durationMs(a))[0];
      return [
        instanceId,
        { text: sparkline(latencies.map(durationMs)), style: context.paint.cyan },
        formatDuration(highest),
      ];
    }),
    context.columns(),
  );
}

/** A name means the service called exactly so, if there is one. */
function preferExact(checks: readonly HealthCheck[], name: string | undefined): HealthCheck[] {
  const exact = checks.filter(({ service }) => service === name);
  return exact.length > 0 ? exact : [...checks];
}

/** Throws NOT_FOUND, with what was perhaps meant, when there is no such service. */
async function requireService(context: Context, name: string, options: HealthOptions): Promise<void> {
  const { registry } = await context.connect();
  const { environment = "", version = "" } = options;
  await registry.getService({ service: { name, environment, version } }, { signal: context.io.signal });
}
