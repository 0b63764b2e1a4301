import { ConnectError } from "@connectrpc/connect";
import { createLogUpdate } from "log-update";
import type { Interruption, ServiceFilterInit } from "../../index.ts";
import type { NodeToolplane } from "../../node.ts";
import type { ServiceFilterOptions } from "../commands/services.ts";
import type { Context } from "../context.ts";
import { toServiceFilter } from "../input/filter.ts";
import { onKey } from "../input/on-key.ts";
import {
  applyEvent,
  applyHealthChecks,
  createMonitorState,
  type MonitorState,
  nextSpan,
  SPAN_MS,
} from "../monitor/monitor-state.ts";
import { renderMonitor } from "../monitor/monitor-view.ts";
import { watchServices } from "./watch.ts";

/** Times between two looks at what has changed, two drawings without a change, and two looks at the latencies, in ms. */
const FRAME_MS = 100;
const IDLE_FRAME_MS = 1_000;
const LATENCY_MS = 5_000;

/** How many past health checks are read for the lines of latencies. */
const HEALTH_CHECKS_READ = 1_000;

export async function monitor(
  context: Context,
  name: string | undefined,
  options: ServiceFilterOptions,
): Promise<undefined> {
  const { stdin, stdout } = context.io;
  if (context.json || stdout.isTTY !== true) return await watchServices(context, name, options);
  const toolplane = await context.connect();
  const filter = toServiceFilter(name, options);
  const state = createMonitorState();
  const end = new AbortController();
  const signal = AbortSignal.any([context.io.signal, end.signal]);
  const releaseKeys = onKey(stdin, (key) => {
    if (key === "q" || key === "Q" || key === "\u001b") end.abort();
    // In raw mode the terminal hands Ctrl-C over as a key.
    if (key === "\u0003") context.io.interrupt();
  });
  let changed = true;
  const readLatencies = async () => {
    await refreshLatencies(toolplane, filter, state, signal);
    changed = true;
  };
  const screen = createLogUpdate(stdout);
  let drawnAt = 0;
  const draw = () => {
    const now = context.io.now();
    if (!changed && now - drawnAt < IDLE_FRAME_MS) return;
    changed = false;
    drawnAt = now;
    screen(renderMonitor(context, context.url, state));
  };
  const timers = [
    setInterval(draw, FRAME_MS),
    setInterval(() => nextSpan(state), SPAN_MS),
    setInterval(() => void readLatencies(), LATENCY_MS),
  ];
  try {
    let isFirstListing = true;
    const onInterruption = (interruption: Interruption) => {
      state.connection = { state: "lost", interruption };
      changed = true;
    };
    for await (const event of toolplane.watchServices(filter, { signal, onInterruption })) {
      applyEvent(state, event, context.io.now());
      changed = true;
      if (event.event.case === "synced" && isFirstListing) {
        isFirstListing = false;
        void readLatencies();
      }
    }
  } finally {
    for (const timer of timers) clearInterval(timer);
    screen(renderMonitor(context, context.url, state));
    screen.done();
    releaseKeys();
  }
}

/** Reads the history of health checks. Its failure is shown; the watch decides whether the monitor goes on. */
async function refreshLatencies(
  { registry }: NodeToolplane,
  filter: ServiceFilterInit,
  state: MonitorState,
  signal: AbortSignal,
): Promise<void> {
  try {
    const request = { filter, pageSize: HEALTH_CHECKS_READ };
    const { checks } = await registry.listHealthChecks(request, { signal, timeoutMs: LATENCY_MS });
    applyHealthChecks(state, checks);
    state.latencyProblem = undefined;
  } catch (error) {
    state.latencyProblem = ConnectError.from(error).rawMessage;
  }
}
