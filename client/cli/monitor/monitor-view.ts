import { HealthStatus } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { renderColumns } from "../output/columns.ts";
import { count, formatAge, formatClock, formatMs } from "../output/format.ts";
import { sparkline } from "../output/sparkline.ts";
import { instanceHealth, serviceState } from "../output/states.ts";
import { oneLine, truncate } from "../output/text-width.ts";
import type { Terminal } from "../terminal.ts";
import type { LogEntry, MonitoredService, MonitorState } from "./monitor-state.ts";
import { SPAN_MS, SPANS } from "./monitor-state.ts";

/** How many of the latest changes are shown below the table: in a low terminal, services come first. */
function logLinesFor(rows: number): number {
  return Math.min(5, Math.max(0, Math.floor((rows - 12) / 2)));
}

/** How many bars a line of them has: as many as the terminal has room for. */
function barsFor(columns: number): number {
  if (columns >= 120) return SPANS;
  return columns >= 100 ? SPANS / 2 : 0;
}

/** The whole screen as text, never higher than the terminal. */
export function renderMonitor(terminal: Terminal, url: string, state: MonitorState): string {
  const { io, paint } = terminal;
  const rows = io.stdout.rows ?? 24;
  const services = [...state.services.values()].sort(byName);
  const log = state.log.slice(0, logLinesFor(rows)).map((entry) => renderLogEntry(terminal, entry));
  const header = [renderTitle(terminal, url, state), renderTotals(terminal, services), ""];
  const footer = [
    ...(log.length === 0 ? [] : ["", paint.bold("Latest changes"), ...log]),
    "",
    paint.dim(
      state.latencyProblem === undefined
        ? "q ends"
        : `q ends    latencies are missing: ${oneLine(state.latencyProblem)}`,
    ),
  ];
  // The terminal scrolls when its last line is filled.
  const room = Math.max(1, rows - header.length - footer.length - 2);
  const shown = services.length > room ? services.slice(0, room - 1) : services;
  const hidden = services.length - shown.length;
  const body =
    services.length === 0
      ? [paint.dim(state.connection.state === "live" ? "No services are registered." : "…")]
      : renderTable(terminal, shown);
  const more = hidden === 0 ? [] : [paint.dim(`… ${count(hidden, "more service")}`)];
  return [...header, ...body, ...more, ...footer].join("\n");
}

function renderTitle({ io, paint }: Terminal, url: string, { connection }: MonitorState): string {
  const title = `${paint.bold("Toolplane")}  ${url}`;
  switch (connection.state) {
    case "connecting":
      return `${title}  ${paint.dim("○ connecting")}`;
    case "live":
      return `${title}  ${paint.green("● live")}  ${paint.dim(formatClock(io.now()))}`;
    case "lost": {
      const { error, attempt } = connection.interruption;
      const why = error === undefined ? "the server ended the stream" : oneLine(error.rawMessage);
      return `${title}  ${paint.red("✗ connection lost")}  ${paint.dim(truncate(`${why}; attempt ${attempt}`, 60))}`;
    }
  }
}

function renderTotals({ paint }: Terminal, services: readonly MonitoredService[]): string {
  const instances = services.flatMap(({ service }) => service.instances);
  const healthy = instances.filter(({ health }) => health === HealthStatus.HEALTHY).length;
  const tools = services.reduce((sum, { service }) => sum + service.toolCount, 0);
  return paint.dim(
    `${count(services.length, "service")}, ${count(tools, "tool")}, ${healthy} of ${count(instances.length, "instance")} healthy`,
  );
}

function renderTable(terminal: Terminal, services: readonly MonitoredService[]): string[] {
  const { paint, io } = terminal;
  const bars = barsFor(io.stdout.columns ?? 80);
  return renderColumns(
    [
      { title: "SERVICE", minWidth: 10 },
      { title: "VERSION", minWidth: 5, optional: true },
      { title: "ENVIRONMENT", minWidth: 7, optional: true },
      { title: "STATE" },
      { title: "INSTANCES" },
      { title: "TOOLS", align: "right" },
      { title: "LATENCY", align: "right" },
      { title: "" },
      { title: `CHANGES IN ${formatMs(SPAN_MS * bars).toUpperCase()}` },
      { title: "CHANGED", optional: true },
    ],
    services.map(({ service, changes, latencies }) => [
      { text: service.name, style: paint.bold },
      service.version,
      service.environment,
      serviceState(service.state, paint),
      instanceHealth(service, paint),
      service.toolCount.toLocaleString("en"),
      { text: latencies.length === 0 ? "" : formatMs(latencies.at(-1) ?? 0), style: paint.cyan },
      { text: bars === 0 ? "" : sparkline(latencies.slice(-bars)), style: paint.cyan },
      {
        text: bars === 0 ? "" : sparkline(changes.slice(-bars)),
        style: changes.some((n) => n > 0) ? paint.magenta : paint.dim,
      },
      formatAge(service.updateTime, io.now()),
    ]),
    terminal.columns(),
  ).split("\n");
}

function renderLogEntry({ paint }: Terminal, entry: LogEntry): string {
  const state =
    entry.state === undefined ? { text: "- removed", style: paint.dim } : serviceState(entry.state, paint);
  const name = `${paint.bold(oneLine(entry.service))} ${oneLine(entry.version)} in ${oneLine(entry.environment)}`;
  return `${paint.dim(formatClock(entry.time))}  ${state.style(state.text.padEnd(10))}  ${name}`;
}

function byName({ service: a }: MonitoredService, { service: b }: MonitoredService): number {
  return (
    a.name.localeCompare(b.name) ||
    a.environment.localeCompare(b.environment) ||
    a.version.localeCompare(b.version)
  );
}
