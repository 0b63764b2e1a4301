import { PassThrough } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type WatchServicesResponse,
  WatchServicesResponseSchema,
} from "@toolplane/gen/toolplane/registry/v1/registry_service_pb.js";
import { HealthCheckSchema, ServiceState } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Command } from "commander";
import { describe, expect, it } from "vitest";
import type { ServiceEvent } from "../../index.ts";
import { aService } from "../../testing/stub-server.ts";
import { createTerminal, type Terminal } from "../terminal.ts";
import {
  applyEvent,
  applyHealthChecks,
  createMonitorState,
  type MonitorState,
  nextSpan,
} from "./monitor-state.ts";
import { renderMonitor } from "./monitor-view.ts";

const NOW = 1_000_000;
const URL = "http://127.0.0.1:7400";

function apply(
  state: MonitorState,
  ...events: MessageInitShape<typeof WatchServicesResponseSchema>["event"][]
): void {
  for (const event of events) {
    const message: WatchServicesResponse = create(
      WatchServicesResponseSchema,
      event === undefined ? {} : { event },
    );
    applyEvent(state, message as ServiceEvent, NOW); // The tests send no heartbeats.
  }
}

const updated = (init: Parameters<typeof aService>[0]) => ({
  case: "updated" as const,
  value: aService(init),
});
const synced = { case: "synced" as const, value: { revision: 1n } };
const down = { name: "weather", state: ServiceState.DOWN };

function aTerminal(columns: number, rows: number): Terminal {
  const io = {
    stdin: new PassThrough(),
    stdout: Object.assign(new PassThrough(), { isTTY: true, columns, rows }),
    stderr: new PassThrough(),
    env: {},
    signal: new AbortController().signal,
    interrupt: () => {},
    now: () => NOW,
  };
  return createTerminal(io, new Command(), { json: false, color: true });
}

const draw = (state: MonitorState, columns = 130, rows = 30) =>
  stripVTControlCharacters(renderMonitor(aTerminal(columns, rows), URL, state));

describe("what the monitor knows", () => {
  it("does not take the first listing for changes", () => {
    const state = createMonitorState();
    apply(state, updated({}), synced);
    expect(state.log).toEqual([]);
    expect([...state.services.values()][0]?.changes.every((n) => n === 0)).toBe(true);
  });

  it("tells of states that changed, of services that came and that went", () => {
    const state = createMonitorState();
    apply(state, updated({}), synced, updated({}), updated(down), updated({ name: "new" }));
    apply(state, { case: "removed", value: { name: "new", environment: "default", version: "1.2.0" } });
    expect(state.log.map(({ service, state: became }) => [service, became])).toEqual([
      ["new", undefined],
      ["new", ServiceState.READY],
      ["weather", ServiceState.DOWN],
    ]);
  });

  it("counts changes in spans and forgets old ones", () => {
    const state = createMonitorState();
    apply(state, updated({}), synced, updated({}), updated({}));
    nextSpan(state);
    apply(state, updated({}));
    const changes = () => [...state.services.values()][0]?.changes ?? [];
    expect(changes().slice(-3)).toEqual([0, 2, 1]);
    for (let span = 0; span < 20; span++) nextSpan(state);
    expect(changes().every((n) => n === 0)).toBe(true);
  });

  it("forgets everything on a reset, and tells of what changed while the connection was lost", () => {
    const state = createMonitorState();
    apply(state, updated({}), synced);
    state.connection = { state: "lost", interruption: { error: undefined, attempt: 1, delayMs: 100 } };
    apply(state, updated(down), synced);
    expect(state.log).toHaveLength(1);
    apply(state, { case: "reset", value: {} });
    expect(state.services.size).toBe(0);
    expect(state.connection.state).toBe("connecting");
  });

  it("keeps a bounded log", () => {
    const state = createMonitorState();
    apply(state, synced);
    for (let n = 0; n < 1_000; n++) apply(state, updated({ name: `s${n}` }));
    expect(state.log.length).toBeLessThanOrEqual(50);
  });
});

describe("what the monitor shows", () => {
  it("is a table of services with their health, latencies and changes", () => {
    const state = createMonitorState();
    apply(
      state,
      updated({}),
      updated({ name: "billing", state: ServiceState.DEGRADED }),
      synced,
      updated(down),
    );
    applyHealthChecks(
      state,
      (
        [
          ["weather", 4],
          ["weather", 2],
          ["billing", 12],
        ] as const
      ).map(([service, ms]) =>
        create(HealthCheckSchema, {
          service,
          environment: "default",
          version: "1.2.0",
          latency: durationFromMs(ms),
        }),
      ),
    );
    const lines = draw(state).split("\n");
    expect(lines[0]).toMatch(/^Toolplane {2}http:\/\/127\.0\.0\.1:7400 {2}● live {2}\d\d:\d\d:\d\d$/);
    expect(lines[1]).toBe("2 services, 4 tools, 2 of 2 instances healthy");
    expect(lines[4]).toMatch(/^billing +1\.2\.0 +default +▲ degraded +1\/1 healthy +2 +12 ms +█ +▁{12} /);
    expect(lines[5]).toMatch(/^weather +1\.2\.0 +default +✗ down +1\/1 healthy +2 +4 ms +▅█ +▁{11}█ /);
    expect(lines[4]?.indexOf(" ms")).toBe(lines[5]?.indexOf(" ms"));
    expect(lines[4]?.indexOf("█")).toBe(lines[5]?.indexOf("▅"));
    expect(lines.join("\n")).toMatch(
      /Latest changes\n\d\d:\d\d:\d\d {2}✗ down {6}weather 1\.2\.0 in default/,
    );
  });

  it.each([
    [40, 5],
    [80, 10],
    [100, 24],
    [200, 50],
  ])("fits into a terminal of %i columns and %i rows", (columns, rows) => {
    const state = createMonitorState();
    apply(state, synced);
    for (let n = 0; n < 100; n++) apply(state, updated({ name: `service-${n}` }));
    const lines = draw(state, columns, rows).split("\n");
    expect(lines.length).toBeLessThan(Math.max(rows, 9));
    if (columns >= 80) for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
    expect(lines.join("\n")).toMatch(/… \d+ more services/);
  });

  it("says that it connects, that nothing is there, and that the connection is lost", () => {
    const state = createMonitorState();
    expect(draw(state)).toContain("○ connecting");
    apply(state, synced);
    expect(draw(state)).toContain("No services are registered.");
    state.connection = { state: "lost", interruption: { error: undefined, attempt: 3, delayMs: 100 } };
    expect(draw(state)).toContain("✗ connection lost  the server ended the stream; attempt 3");
  });
});
