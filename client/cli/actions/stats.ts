import { toJson } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Stats, StatsSchema } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { createLogUpdate } from "log-update";
import type { Interruption } from "../../index.ts";
import { toDuration } from "../../tool-calls.ts";
import type { StatsOptions } from "../commands/stats.ts";
import type { Context } from "../context.ts";
import { parseDuration } from "../input/duration.ts";
import { onKey } from "../input/on-key.ts";
import { formatClock, formatMs } from "../output/format.ts";
import { formatJson } from "../output/json.ts";
import { oneLine } from "../output/text-width.ts";
import {
  remember,
  renderStats,
  renderStatsLine,
  type StatsGrouping,
  type StatsHistory,
} from "../stats/stats-view.ts";

/** How long the server may take beyond the interval, in milliseconds. */
const GRACE_MS = 10_000;

export async function stats(context: Context, options: StatsOptions): Promise<undefined> {
  const intervalMs = parseDuration(options.interval, "--interval");
  if (options.watch !== true) return await showOnce(context, intervalMs, options);
  if (context.json || context.io.stdout.isTTY !== true) return await printAll(context, intervalMs);
  await showLive(context, intervalMs, groupingOf(options));
}

/** One interval. */
async function showOnce(context: Context, intervalMs: number, options: StatsOptions): Promise<undefined> {
  const { admin } = await context.connect();
  if (!context.json) await context.note(context.paintErr.dim(`What goes on in ${formatMs(intervalMs)} …`));
  const leave = new AbortController();
  // A deadline of the call itself would keep the process alive until it passes.
  const timer = setTimeout(
    () => leave.abort(new ConnectError("no statistics came in time", Code.DeadlineExceeded)),
    intervalMs + (context.timeoutMs ?? GRACE_MS),
  );
  const request = { interval: toDuration(intervalMs) };
  const signal = AbortSignal.any([context.io.signal, leave.signal]);
  let one: Stats | undefined;
  try {
    const first = await admin.watchStats(request, { signal, timeoutMs: 0 })[Symbol.asyncIterator]().next();
    one = first.done ? undefined : first.value.stats;
  } finally {
    clearTimeout(timer);
    leave.abort();
  }
  if (one === undefined) throw new ConnectError("the server ended the stream", Code.Unavailable);
  if (context.json) await context.printMessage(StatsSchema, one);
  else await context.print(renderStats(context, one, { inbound: [], outbound: [] }, groupingOf(options)));
}

/** Every interval on its own line. */
async function printAll(context: Context, intervalMs: number): Promise<undefined> {
  let isLost = false;
  const onInterruption = (interruption: Interruption) => {
    // Once is enough, however often it is tried again.
    if (!isLost) void context.note(context.paintErr.yellow(interruptionText(interruption)));
    isLost = true;
  };
  const toolplane = await context.connect();
  for await (const one of toolplane.watchStats({ intervalMs, signal: context.io.signal, onInterruption })) {
    isLost = false;
    await context.print(
      context.json
        ? formatJson(toJson(StatsSchema, one, { alwaysEmitImplicit: true }))
        : `${formatClock(context.io.now())}  ${renderStatsLine(one)}`,
    );
  }
}

async function showLive(context: Context, intervalMs: number, grouping: StatsGrouping): Promise<void> {
  const { stdin, stdout } = context.io;
  const { paint, url } = context;
  const end = new AbortController();
  const releaseKeys = onKey(stdin, (key) => {
    if (key === "q" || key === "Q" || key === "\u001b") end.abort();
    // In raw mode the terminal hands Ctrl-C over as a key.
    if (key === "\u0003") context.io.interrupt();
  });
  const screen = createLogUpdate(stdout);
  let history: StatsHistory = { inbound: [], outbound: [] };
  let body = paint.dim(`What goes on in ${formatMs(intervalMs)} …`);
  const draw = (state: string) =>
    screen(
      `${paint.bold("Toolplane")}  ${url}  ${state}  ${paint.dim(`${formatClock(context.io.now())}  every ${formatMs(intervalMs)}`)}\n\n${body}\n\n${paint.dim("q ends")}`,
    );
  try {
    draw(paint.dim("○ connecting"));
    const toolplane = await context.connect();
    const watching = toolplane.watchStats({
      intervalMs,
      signal: AbortSignal.any([context.io.signal, end.signal]),
      onInterruption: (interruption) => draw(paint.red(`✗ ${interruptionText(interruption)}`)),
    });
    for await (const current of watching) {
      history = remember(history, current);
      // Above and below the body there are two lines each; the terminal scrolls when its last line is filled.
      body = renderStats(context, current, history, grouping, (stdout.rows ?? 24) - 5);
      draw(paint.green("● live"));
    }
  } finally {
    screen.done();
    releaseKeys();
  }
}

function groupingOf({ tools }: StatsOptions): StatsGrouping {
  return tools === true ? "tools" : "services";
}

/** A lost connection in words. */
function interruptionText({ error }: Interruption): string {
  const why = error === undefined ? "the server ended the stream" : error.rawMessage;
  return `connection lost (${oneLine(why)}); trying again until it is back`;
}
