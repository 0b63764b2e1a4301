import type { Service } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import type { Tool } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import type { Terminal } from "../terminal.ts";
import { count } from "./format.ts";
import { renderProblems } from "./service.ts";
import { healthStatus, protocolName, serviceState } from "./states.ts";
import { oneLine } from "./text-width.ts";
import { renderTools } from "./tools.ts";

/** A service that was just learnt, and the tools it offers. */
export function renderOffer(
  terminal: Terminal,
  service: Service,
  tools: readonly Tool[],
  verb: string,
): string {
  const { paint } = terminal;
  const state = serviceState(service.state, paint);
  const lines = [
    `${paint.green("✓")} ${verb} ${paint.bold(service.name)} ${service.version} in ${service.environment}: ` +
      `${count(service.toolCount, "tool")}  ${state.style(state.text)}`,
  ];
  for (const { endpoint, protocol, health, healthMessage } of service.instances) {
    const status = healthStatus(health, paint);
    const detail = healthMessage === "" ? "" : paint.dim(`  ${oneLine(healthMessage)}`);
    lines.push(`  ${oneLine(endpoint)}  ${protocolName(protocol)}  ${status.style(status.text)}${detail}`);
  }
  if (service.problems.length > 0) lines.push("", renderProblems(terminal, service.problems));
  if (tools.length > 0) lines.push("", renderTools(terminal, tools));
  if (tools.length > 0 && tools.length < service.toolCount) {
    lines.push(paint.dim(`… ${count(service.toolCount - tools.length, "more tool")}`));
  }
  return lines.join("\n");
}
