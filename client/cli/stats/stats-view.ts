import type { CallStats, Stats } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { type Cell, renderColumns } from "../output/columns.ts";
import { count, formatBytes, formatDuration, formatNumber, formatShare } from "../output/format.ts";
import { sparkline } from "../output/sparkline.ts";
import type { Terminal } from "../terminal.ts";

/** Calls a second over the last intervals, oldest first. */
export interface StatsHistory {
  readonly inbound: readonly number[];
  readonly outbound: readonly number[];
}

const INTERVALS_KEPT = 20;

/** The history with one more interval. */
export function remember(history: StatsHistory, { inbound, outbound }: Stats): StatsHistory {
  return {
    inbound: [...history.inbound, inbound?.perSecond ?? 0].slice(-INTERVALS_KEPT),
    outbound: [...history.outbound, outbound?.perSecond ?? 0].slice(-INTERVALS_KEPT),
  };
}

/** What calls are told apart by. */
export type StatsGrouping = "services" | "tools";

/**
 * What went on in an interval, as a table and a few lines below.
 *
 * @param rows how many lines there is room for. Unset: any number.
 */
export function renderStats(
  terminal: Terminal,
  stats: Stats,
  history: StatsHistory,
  grouping: StatsGrouping = "services",
  rows = Number.POSITIVE_INFINITY,
): string {
  const { paint } = terminal;
  const facts = renderStatsFacts(stats);
  // The table's title, both totals, and the empty line between table and facts.
  const room = Math.max(0, rows - facts.length - 4);
  const groups =
    grouping === "tools"
      ? stats.tools.map(({ tool, ...place }) => ({ name: tool, ...place }))
      : stats.services.map(({ service, ...place }) => ({ name: service, ...place }));
  const shown = groups.length > room ? groups.slice(0, Math.max(0, room - 1)) : groups;
  const hidden = groups.length - shown.length;
  const table = renderColumns(
    [
      { title: "CALLS", minWidth: 12 },
      { title: "A SECOND", align: "right" },
      { title: "" },
      { title: "RUNNING", align: "right" },
      { title: "SUCCESS", align: "right" },
      { title: "P50", align: "right" },
      { title: "P95", align: "right" },
      { title: "P99", align: "right" },
      { title: "RETRIES", align: "right", optional: true },
    ],
    [
      callRow(terminal, { text: "to the server", style: paint.bold }, stats.inbound, history.inbound),
      callRow(terminal, { text: "to tools", style: paint.bold }, stats.outbound, history.outbound),
      ...shown.map(({ name, version, environment, calls }) =>
        callRow(terminal, `  ${[name, version, environment].filter(Boolean).join(" ")}`, calls, []),
      ),
    ],
    terminal.columns(),
  );
  return [
    table,
    ...(hidden > 0
      ? [paint.dim(`… ${count(hidden, grouping === "tools" ? "more tool" : "more service")}`)]
      : []),
    "",
    ...facts.map((fact) => paint.dim(fact)),
  ].join("\n");
}

/** The same on one line, for a pipe. */
export function renderStatsLine({ inbound, outbound }: Stats): string {
  return `server ${callText(inbound)}; tools ${callText(outbound)}`;
}

function callText(calls: CallStats | undefined): string {
  if (calls === undefined) return "no calls";
  return `${formatNumber(calls.perSecond)}/s, ${formatShare(calls.successRate)} succeeded, p99 ${formatDuration(calls.latencyP99)}`;
}

function callRow(
  { paint }: Terminal,
  name: Cell,
  calls: CallStats | undefined,
  history: readonly number[],
): Cell[] {
  if (calls === undefined) return [name];
  const { perSecond, successRate, inFlight, latencyP50, latencyP95, latencyP99, retries } = calls;
  const quiet = perSecond === 0;
  return [
    name,
    formatNumber(perSecond),
    { text: history.length > 1 ? sparkline(history) : "", style: paint.cyan },
    formatNumber(inFlight),
    { text: quiet ? "" : formatShare(successRate), style: successRate < 0.95 ? paint.red : paint.green },
    quiet ? "" : formatDuration(latencyP50),
    quiet ? "" : formatDuration(latencyP95),
    quiet ? "" : formatDuration(latencyP99),
    { text: formatNumber(retries), style: retries > 0n ? paint.yellow : String },
  ];
}

function renderStatsFacts(stats: Stats): string[] {
  return [
    [
      `${count(Number(stats.openBreakers), "breaker")} open`,
      `${count(Number(stats.ejectedInstances), "instance")} ejected`,
      `${count(Number(stats.limited), "call")} limited`,
      `${formatNumber(stats.shared)} shared`,
    ].join(", "),
    [
      `${formatShare(stats.cacheHitRate)} from caches`,
      `${count(Number(stats.connections), "connection")}, ${formatShare(stats.connectionReuse)} used again`,
    ].join(", "),
    `event loop p99 ${formatDuration(stats.eventLoopDelayP99)}, memory ${formatBytes(stats.residentBytes)}`,
  ];
}
