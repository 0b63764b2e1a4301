import { create } from "@bufbuild/protobuf";
import {
  IsolateBreakerResponseSchema,
  ListBreakersResponseSchema,
  ResetBreakerResponseSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import { type Breaker, BreakerState, type Ejection } from "@toolplane/gen/toolplane/admin/v1/policies_pb.js";
import type { BreakerStateName, ListBreakersOptions } from "../commands/breakers.ts";
import type { Context } from "../context.ts";
import { parseLimit } from "../input/limit.ts";
import { renderColumns } from "../output/columns.ts";
import { formatAge, formatNumber, formatUntil } from "../output/format.ts";
import { breakerState } from "../output/states.ts";
import { oneLine } from "../output/text-width.ts";
import { readPages } from "./pages.ts";

export async function listBreakers(
  context: Context,
  service: string | undefined,
  options: ListBreakersOptions,
): Promise<undefined> {
  const limit = parseLimit(options.limit);
  const { admin } = await context.connect();
  const { signal } = context.io;
  const states = options.state === undefined ? [] : [stateOf(options.state)];
  let ejections: readonly Ejection[] = [];
  // One more than is shown tells whether there are more.
  const { items } = await readPages(limit + 1, async (pageSize, pageToken) => {
    const request = { service: service ?? "", states, pageSize, pageToken };
    const page = await admin.listBreakers(request, { signal });
    ejections = page.ejections;
    return { items: page.breakers, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const breakers = items.slice(0, limit);
  if (context.json) {
    const response = create(ListBreakersResponseSchema, { breakers, ejections: [...ejections] });
    return void (await context.printMessage(ListBreakersResponseSchema, response));
  }
  if (breakers.length === 0) {
    await context.note(
      service === undefined && options.state === undefined
        ? "No breaker was used yet."
        : "No breaker matches.",
    );
  } else {
    await context.print(renderBreakers(context, breakers));
  }
  if (ejections.length > 0) {
    await context.print(
      `\n${context.paint.bold("Ejected instances")}\n${renderEjections(context, ejections)}`,
    );
  }
  if (items.length > limit) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function resetBreaker(context: Context, name: string): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.resetBreaker({ name }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(ResetBreakerResponseSchema, response));
  await tell(context, "Reset", name, response.breaker);
}

export async function isolateBreaker(context: Context, name: string): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.isolateBreaker({ name }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(IsolateBreakerResponseSchema, response));
  await tell(context, "Isolated", name, response.breaker);
  await context.note(`Nothing is sent there until: toolplane breakers reset ${name}`);
}

async function tell(
  { paint, print }: Context,
  verb: string,
  name: string,
  breaker: Breaker | undefined,
): Promise<void> {
  const state = breaker && breakerState(breaker.state, paint);
  await print(
    `${paint.green("✓")} ${verb} ${paint.bold(oneLine(name))}${state ? `  ${state.style(state.text)}` : ""}`,
  );
}

function renderBreakers(context: Context, breakers: readonly Breaker[]): string {
  const { paint, io } = context;
  const now = io.now();
  return renderColumns(
    [
      // Whole, since it is what `reset` and `isolate` want to be told.
      { title: "BREAKER" },
      { title: "STATE" },
      { title: "SINCE", optional: true },
      { title: "RETRY" },
      { title: "IN A ROW", align: "right" },
      { title: "FAILED", align: "right" },
      { title: "SLOW", align: "right", optional: true },
      { title: "REFUSED", align: "right" },
      { title: "OPENED", align: "right", optional: true },
      { title: "LAST FAILURE", minWidth: 16, wraps: true },
    ],
    breakers.map((breaker) => [
      { text: breaker.name, style: paint.bold },
      breakerState(breaker.state, paint),
      formatAge(breaker.stateTime, now),
      formatUntil(breaker.retryTime, now),
      formatNumber(breaker.consecutiveFailures),
      `${formatNumber(breaker.windowFailures)}/${formatNumber(breaker.windowCalls)}`,
      formatNumber(breaker.windowSlowCalls),
      formatNumber(breaker.rejected),
      formatNumber(breaker.timesOpened),
      { text: breaker.lastFailure, style: paint.dim },
    ]),
    context.columns(),
  );
}

function renderEjections(context: Context, ejections: readonly Ejection[]): string {
  const { paint, io } = context;
  const now = io.now();
  return renderColumns(
    [
      { title: "INSTANCE", minWidth: 16 },
      { title: "TOOL", minWidth: 16 },
      { title: "VERSION" },
      { title: "ENVIRONMENT", optional: true },
      { title: "SINCE" },
      { title: "BACK" },
      { title: "TIMES", align: "right" },
      { title: "WHY", minWidth: 16 },
    ],
    ejections.map((ejection) => [
      { text: ejection.instanceId, style: paint.bold },
      ejection.tool || ejection.service,
      ejection.version,
      ejection.environment,
      formatAge(ejection.ejectTime, now),
      formatUntil(ejection.returnTime, now),
      formatNumber(ejection.ejections),
      { text: ejection.reason, style: paint.dim },
    ]),
    context.columns(),
  );
}

function stateOf(name: BreakerStateName): BreakerState {
  switch (name) {
    case "closed":
      return BreakerState.CLOSED;
    case "open":
      return BreakerState.OPEN;
    case "half-open":
      return BreakerState.HALF_OPEN;
    case "isolated":
      return BreakerState.ISOLATED;
  }
}
