import type { ServiceEvent } from "../../index.ts";
import type { Terminal } from "../terminal.ts";
import { count, formatClock } from "./format.ts";
import { instanceHealth, serviceState } from "./states.ts";
import { oneLine } from "./text-width.ts";

/** An event of a watch on one line, or undefined for events that say nothing to people. */
export function renderServiceEvent({ paint, io }: Terminal, { event }: ServiceEvent): string | undefined {
  const time = paint.dim(formatClock(io.now()));
  switch (event.case) {
    case "updated": {
      const { value: service } = event;
      const state = serviceState(service.state, paint);
      const health = instanceHealth(service, paint);
      return [
        time,
        state.style(state.text.padEnd(10)),
        `${paint.bold(service.name)} ${service.version} in ${service.environment}:`,
        `${typeof health === "string" ? health : health.style(health.text)}, ${count(service.toolCount, "tool")}`,
        ...(service.problems[0] === undefined
          ? []
          : [paint.dim(oneLine(`(${service.problems[0].message})`))]),
      ].join("  ");
    }
    case "removed":
      return `${time}  ${paint.dim("- removed ")}  ${paint.bold(event.value.name)} ${event.value.version} in ${event.value.environment}`;
    case "reset":
      return `${time}  ${paint.dim("↻ reset     all services follow")}`;
    case "synced":
      return undefined;
  }
}
