import { PassThrough } from "node:stream";
import { create } from "@bufbuild/protobuf";
import { CallStatsSchema, StatsSchema } from "@toolplane/gen/toolplane/admin/v1/metrics_pb.js";
import { Command } from "commander";
import { expect, it } from "vitest";
import { createTerminal } from "../terminal.ts";
import { remember, renderStats, type StatsHistory } from "./stats-view.ts";

const terminal = createTerminal(
  {
    stdin: new PassThrough(),
    stdout: Object.assign(new PassThrough(), { isTTY: true, columns: 120 }),
    stderr: new PassThrough(),
    env: {},
    signal: new AbortController().signal,
    interrupt: () => {},
    now: () => 0,
  },
  new Command(),
  { json: false, color: false },
);

const busy = (perSecond: number) => create(CallStatsSchema, { perSecond, successRate: 1 });
const empty: StatsHistory = { inbound: [], outbound: [] };

it.each([8, 12, 20, 30])("statistics of many services fit into %i lines", (rows) => {
  const stats = create(StatsSchema, {
    inbound: busy(1),
    outbound: busy(1),
    services: Array.from({ length: 100 }, (_, n) => ({ service: `s${n}`, calls: busy(1) })),
  });
  const lines = renderStats(terminal, stats, empty, "services", rows).split("\n");
  expect(lines.length).toBeLessThanOrEqual(rows);
  expect(lines.join("\n")).toMatch(/… \d+ more services/);
});

it("rates of the last intervals become a line of bars", () => {
  const rates = [1, 4, 8];
  const history = rates.reduce(
    (before, rate) => remember(before, create(StatsSchema, { inbound: busy(rate), outbound: busy(0) })),
    empty,
  );
  const stats = create(StatsSchema, { inbound: busy(8), outbound: busy(0) });
  expect(renderStats(terminal, stats, history)).toMatch(/to the server +8 +▂▅█/);
});

it("what did not happen has neither success nor latency", () => {
  const stats = create(StatsSchema, { inbound: busy(0), outbound: busy(0) });
  expect(renderStats(terminal, stats, empty)).toMatch(/^to tools +0 +0 +0$/m);
});

it("calls can be told apart by tool", () => {
  const stats = create(StatsSchema, {
    services: [{ service: "weather", calls: busy(1) }],
    tools: [{ tool: "weather.Get", version: "1.0.0", calls: busy(1) }],
  });
  expect(renderStats(terminal, stats, empty, "tools")).toMatch(/^weather\.Get 1\.0\.0 +1 /m);
});
