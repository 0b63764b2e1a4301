import { create } from "@bufbuild/protobuf";
import { AgentSchema, type ToolScope } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  DeleteAgentResponseSchema,
  ListAgentsResponseSchema,
  PutAgentResponseSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/orchestration_service_pb.js";
import type { PutAgentOptions } from "../../commands/agent.ts";
import type { Context } from "../../context.ts";
import { parseCount } from "../../input/choices.ts";
import { parseLimit } from "../../input/limit.ts";
import { renderColumns } from "../../output/columns.ts";
import { renderFacts, section } from "../../output/facts.ts";
import { count, firstSentence, formatAge, formatDuration } from "../../output/format.ts";
import { oneLine, printable, proseWidth, wrap } from "../../output/text-width.ts";
import { dollars } from "../../run-view/states.ts";
import { UsageError } from "../../usage-error.ts";
import { readPages } from "../pages.ts";

export async function listAgents(
  context: Context,
  name: string | undefined,
  { limit }: { readonly limit: string },
): Promise<undefined> {
  const wanted = parseLimit(limit);
  const { orchestration } = await context.connect();
  const { signal } = context.io;
  // One more than is shown tells whether there are more.
  const { items } = await readPages(wanted + 1, async (pageSize, pageToken) => {
    const page = await orchestration.listAgents({ name: name ?? "", pageSize, pageToken }, { signal });
    return { items: page.agents, nextPageToken: page.nextPageToken, totalSize: 0 };
  });
  const agents = items.slice(0, wanted);
  if (context.json) {
    const response = create(ListAgentsResponseSchema, { agents });
    return void (await context.printMessage(ListAgentsResponseSchema, response));
  }
  if (agents.length === 0) {
    return void (await context.note(
      name === undefined
        ? "No agent is kept. Keep one: toolplane agent put <file>"
        : `There is no agent ${oneLine(name)}.`,
    ));
  }
  const { paint, io } = context;
  await context.print(
    renderColumns(
      [
        { title: "AGENT", minWidth: 8 },
        { title: "VERSION" },
        { title: "MODEL", minWidth: 8 },
        { title: "TOOLS", minWidth: 8 },
        { title: "KEPT", optional: true },
        { title: "WHAT IT IS GOOD FOR", minWidth: 16, optional: true },
      ],
      agents.map((agent) => [
        { text: agent.name, style: paint.bold },
        `v${agent.version}`,
        agent.model || "default",
        scopeText(agent.tools),
        formatAge(agent.createTime, io.now()),
        firstSentence(agent.description),
      ]),
      context.columns(),
    ),
  );
  if (items.length > wanted) {
    await context.note(context.paintErr.dim("\nThere are more; --limit 0 lists all."));
  }
}

export async function showAgent(
  context: Context,
  name: string,
  options: { readonly version?: string },
): Promise<undefined> {
  const version = parseCount(options.version, "--version") ?? 0;
  const { orchestration } = await context.connect();
  const { agent } = await orchestration.getAgent({ name, version }, { signal: context.io.signal });
  if (agent === undefined) throw new UsageError(`The server did not describe agent ${name}`);
  if (context.json) return void (await context.printMessage(AgentSchema, agent));
  const { paint, io } = context;
  const { budget } = agent;
  const description = printable(agent.description.trim());
  const prose = (text: string) =>
    wrap(printable(text.trim()), proseWidth(context)).map((line) => `  ${line}`);
  await context.print(
    [
      `${paint.bold(oneLine(agent.name))} v${agent.version}`,
      ...(description === "" ? [] : prose(description)),
      "",
      renderFacts(paint, [
        ["Model", agent.model || "the server's default"],
        ["Tools", scopeText(agent.tools)],
        ["Attempts", agent.attempts === 0 ? "" : String(agent.attempts)],
        ["Timeout", formatDuration(agent.timeout)],
        ["Turns", budget?.maxTurns ? `at most ${budget.maxTurns}` : ""],
        ["Tokens", budget?.maxTokens ? `at most ${Number(budget.maxTokens).toLocaleString("en")}` : ""],
        ["Cost", budget?.maxCostUsd ? `at most ${dollars(budget.maxCostUsd)}` : ""],
        ["Time", budget?.maxTime === undefined ? "" : `at most ${formatDuration(budget.maxTime)}`],
        [
          "Cache",
          agent.cacheExcluded
            ? "left out"
            : agent.cacheTtl === undefined
              ? ""
              : `for ${formatDuration(agent.cacheTtl)}`,
        ],
        ["Kept", formatAge(agent.createTime, io.now())],
        ["By", agent.createdBy],
        ["Etag", agent.etag],
      ]),
      ...section(paint, "Prompt", prose(agent.prompt).join("\n")),
      "",
      paint.dim(`Give it a task: toolplane agent run ${oneLine(agent.name)} "…"`),
    ].join("\n"),
  );
}

export async function putAgent(
  context: Context,
  file: string,
  { etag = "" }: PutAgentOptions,
): Promise<undefined> {
  const { readAgent } = await import("../../input/agent.ts");
  const agent = await readAgent(context.io, file);
  const { orchestration } = await context.connect();
  const response = await orchestration.putAgent({ agent, etag }, { signal: context.io.signal });
  if (context.json || response.agent === undefined) {
    return void (await context.printMessage(PutAgentResponseSchema, response));
  }
  const { paint } = context;
  const verb = response.changed ? "Kept" : "Already kept";
  await context.print(
    `${paint.green("✓")} ${verb} ${paint.bold(oneLine(response.agent.name))} v${response.agent.version}`,
  );
}

export async function deleteAgent(context: Context, name: string): Promise<undefined> {
  const { orchestration } = await context.connect();
  const response = await orchestration.deleteAgent({ name }, { signal: context.io.signal });
  if (context.json) return void (await context.printMessage(DeleteAgentResponseSchema, response));
  const { paint } = context;
  await context.print(`${paint.green("✓")} Forgot ${paint.bold(oneLine(name))}`);
}

/** Which tools an agent may use, in words. */
function scopeText(scope: ToolScope | undefined): string {
  if (scope === undefined || scope.none) return "none";
  const parts = [
    ...(scope.names.length > 0 ? [scope.names.slice(0, 5).join(", ")] : []),
    ...(scope.names.length > 5 ? [`and ${count(scope.names.length - 5, "more", "more")}`] : []),
    ...(scope.tags.length > 0 ? [`tagged ${scope.tags.join(" or ")}`] : []),
    ...(scope.environment === "" ? [] : [`in ${scope.environment}`]),
  ];
  return parts.length === 0 ? "all" : parts.join(" ");
}
