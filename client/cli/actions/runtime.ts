import {
  type GetRuntimeResponse,
  GetRuntimeResponseSchema,
} from "@toolplane/gen/toolplane/admin/v1/admin_service_pb.js";
import type {
  BatchWriter,
  EventLoop,
  LeakSuspect,
  Memory,
  MethodStreams,
} from "@toolplane/gen/toolplane/admin/v1/runtime_pb.js";
import type { Context } from "../context.ts";
import { renderColumns } from "../output/columns.ts";
import { renderFacts, section } from "../output/facts.ts";
import {
  count,
  formatAge,
  formatBytes,
  formatDuration,
  formatNumber,
  formatShare,
} from "../output/format.ts";

/** How many slow callbacks are shown. The JSON has all. */
const SLOW_CALLBACKS_SHOWN = 10;

export async function runtime(context: Context): Promise<undefined> {
  const { admin } = await context.connect();
  const response = await admin.getRuntime({}, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(GetRuntimeResponseSchema, response));
  await context.print(renderRuntime(context, response));
}

function renderRuntime(context: Context, response: GetRuntimeResponse): string {
  const { paint, io } = context;
  const { eventLoop, memory, streams, batchWriters } = response;
  return [
    renderFacts(paint, [
      ["Version", `${response.version} on Node ${response.nodeVersion}`],
      ["Started", formatAge(response.startTime, io.now())],
      ["Processor time", formatDuration(response.cpuTime)],
    ]),
    ...(eventLoop === undefined ? [] : section(paint, "Event loop", renderEventLoop(context, eventLoop))),
    ...(memory === undefined ? [] : section(paint, "Memory", renderMemory(context, memory))),
    ...(streams.length === 0 ? [] : section(paint, "Streams", renderStreams(context, streams))),
    ...(batchWriters.length === 0 ? [] : section(paint, "Writers", renderWriters(context, batchWriters))),
  ].join("\n");
}

function renderEventLoop(context: Context, loop: EventLoop): string {
  const { paint, io } = context;
  const facts = renderFacts(paint, [
    [
      "Delay",
      `${formatDuration(loop.delayP50)} for half, ${formatDuration(loop.delayP99)} for 99 of 100, ${formatDuration(loop.delayMax)} at most`,
    ],
    ["Busy", formatShare(loop.utilization)],
    ["Slow callbacks", formatNumber(loop.slowCallbackCount)],
  ]);
  if (loop.slowCallbacks.length === 0) return facts;
  const table = renderColumns(
    [{ title: "NOTICED" }, { title: "HELD UP", align: "right" }, { title: "WHILE", minWidth: 24 }],
    loop.slowCallbacks
      .slice(0, SLOW_CALLBACKS_SHOWN)
      .map(({ time, duration, methods }) => [
        formatAge(time, io.now()),
        { text: formatDuration(duration), style: paint.yellow },
        methods.join(", "),
      ]),
    context.columns("  "),
  );
  return `${facts}\n${table}`;
}

function renderMemory(context: Context, memory: Memory): string {
  const { paint } = context;
  const after = memory.heapAfterCollectionBytes;
  const growth = Math.abs(memory.growthBytesPerHour);
  const facts = renderFacts(paint, [
    ["Process", formatBytes(memory.residentBytes)],
    [
      "Heap",
      `${formatBytes(memory.heapUsedBytes)} of ${formatBytes(memory.heapTotalBytes)}, ${formatBytes(memory.heapLimitBytes)} at most`,
    ],
    ["Outside of it", formatBytes(memory.externalBytes)],
    ["After collection", after > 0n ? formatBytes(after) : ""],
    [
      "Growth",
      growth > 0 ? `${memory.growthBytesPerHour < 0 ? "-" : "+"}${formatBytes(growth)} an hour` : "",
    ],
    ["Collections", `${formatShare(memory.collectionShare)} of the time`],
    [
      "Leak suspects",
      memory.leakSuspects.length === 0 ? "none" : count(memory.leakSuspects.length, "suspect"),
    ],
  ]);
  return memory.leakSuspects.length === 0
    ? facts
    : `${facts}\n${renderLeakSuspects(context, memory.leakSuspects)}`;
}

function renderLeakSuspects(context: Context, suspects: readonly LeakSuspect[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "SUSPECT", minWidth: 12 },
      { title: "SIZE", align: "right" },
      { title: "AN HOUR", align: "right" },
      { title: "EVIDENCE", minWidth: 24 },
    ],
    suspects.map(({ name, size, growthPerHour, evidence }) => [
      { text: name, style: paint.yellow },
      formatNumber(size),
      `+${formatNumber(growthPerHour)}`,
      { text: evidence, style: paint.dim },
    ]),
    context.columns("  "),
  );
}

function renderStreams(context: Context, streams: readonly MethodStreams[]): string {
  const { paint } = context;
  return renderColumns(
    [
      { title: "METHOD", minWidth: 24 },
      { title: "OPEN", align: "right" },
      { title: "STALLED", align: "right" },
      { title: "LONGEST STALL", align: "right" },
      { title: "MESSAGES", align: "right" },
    ],
    streams.map(({ method, open, stalled, longestStall, messages }) => [
      method,
      formatNumber(open),
      { text: formatNumber(stalled), style: stalled > 0n ? paint.yellow : String },
      formatDuration(longestStall),
      formatNumber(messages),
    ]),
    context.columns("  "),
  );
}

function renderWriters(context: Context, writers: readonly BatchWriter[]): string {
  const { paint, io } = context;
  return renderColumns(
    [
      { title: "WRITER", minWidth: 10 },
      { title: "WAITING", align: "right" },
      { title: "WRITTEN", align: "right" },
      { title: "BATCHES", align: "right" },
      { title: "FAILED", align: "right" },
      { title: "LAST" },
    ],
    writers.map((writer) => [
      writer.name,
      `${formatNumber(writer.pending)}/${formatNumber(writer.maxPending)}`,
      formatNumber(writer.written),
      formatNumber(writer.batches),
      { text: formatNumber(writer.failures), style: writer.failures > 0n ? paint.yellow : String },
      formatAge(writer.lastWriteTime, io.now()),
    ]),
    context.columns("  "),
  );
}
