import type { Command } from "commander";
import { shortRunId } from "../../reporting/run-id.ts";
import type { Shell } from "../commands/completion.ts";
import { type Candidate, type Completion, complete } from "../completion/candidates.ts";
import { completionScript } from "../completion/scripts.ts";
import type { Context } from "../context.ts";
import { firstSentence } from "../output/format.ts";
import { oneLine } from "../output/text-width.ts";
import { propertiesOf, resolveSchema } from "../schema/json-schema.ts";

/** How long a shell waits for names from the server, in milliseconds. */
const NAMES_TIMEOUT_MS = 1_000;

/** How many names a shell is offered. */
const MAX_NAMES = 1_000;

/** How many runs and test runs a shell is offered, the newest ones: who wants an older one has its id from somewhere. */
const MAX_RUNS = 50;

export async function printCompletionScript(context: Context, shell: Shell): Promise<undefined> {
  await context.io.stdout.write(completionScript(shell));
  return undefined;
}

/** Prints what may come next, one candidate a line, each with a tab and a description behind it. */
export async function printCandidates(context: Context, words: readonly string[]): Promise<undefined> {
  const completion = complete(rootOf(context.command), words);
  const names = await namesFromServer(context, completion);
  for (const { value, description } of [...completion.candidates, ...names]) {
    await context.print(description === "" ? value : `${value}\t${oneLine(description)}`);
  }
}

/** Names that the server knows. A shell that completes cannot show an error: without a server there are none. */
async function namesFromServer(context: Context, completion: Completion): Promise<Candidate[]> {
  if (completion.dynamic === undefined) return [];
  try {
    const { registry, admin, tests, orchestration } = await context.connect();
    const options = { timeoutMs: NAMES_TIMEOUT_MS, signal: context.io.signal };
    switch (completion.dynamic) {
      case "service": {
        const { services } = await registry.listServices({ pageSize: MAX_NAMES }, options);
        return starting(
          services.map(({ name, title }) => ({ value: name, description: title })),
          completion.prefix,
        );
      }
      case "tool": {
        const { tools } = await registry.listTools({ pageSize: MAX_NAMES }, options);
        return starting(
          tools.map((tool) => ({ value: tool.alias || tool.name, description: tool.title })),
          completion.prefix,
        );
      }
      case "key": {
        const { apiKeys } = await admin.listApiKeys({ pageSize: MAX_NAMES }, options);
        return starting(
          apiKeys.map(({ id, name }) => ({ value: id, description: name })),
          completion.prefix,
        );
      }
      case "breaker": {
        const { breakers, ejections } = await admin.listBreakers({ pageSize: MAX_NAMES }, options);
        return starting(
          [
            ...breakers.map(({ name, lastFailure }) => ({ value: name, description: lastFailure })),
            ...ejections.map(({ instanceId, reason }) => ({ value: instanceId, description: reason })),
          ],
          completion.prefix,
        );
      }
      case "cache": {
        const { caches } = await admin.listCaches({}, options);
        return starting(
          caches.map(({ name }) => ({ value: name, description: "" })),
          completion.prefix,
        );
      }
      case "test run": {
        const { runs } = await tests.listTestRuns({ pageSize: MAX_RUNS }, options);
        return starting(
          [
            { value: "latest", description: "the newest run" },
            ...runs.map(({ id, project, context }) => ({
              value: completion.prefix.length > shortRunId(id).length ? id : shortRunId(id),
              description: [project, context?.branch ?? ""].join(" ").trim(),
            })),
          ],
          completion.prefix,
        );
      }
      case "test project": {
        const { projects } = await tests.listProjects({ pageSize: MAX_NAMES }, options);
        return starting(
          projects.map(({ name, description }) => ({ value: name, description })),
          completion.prefix,
        );
      }
      case "run": {
        const { runs } = await orchestration.listRuns({ pageSize: MAX_RUNS }, options);
        return starting(
          [
            { value: "latest", description: "the newest run" },
            ...runs.map(({ id, title }) => ({
              value: completion.prefix.length > shortRunId(id).length ? id : shortRunId(id),
              description: title,
            })),
          ],
          completion.prefix,
        );
      }
      case "workflow": {
        const { workflows } = await orchestration.listWorkflows({ pageSize: MAX_NAMES }, options);
        return starting(
          workflows.map(({ name, description }) => ({ value: name, description })),
          completion.prefix,
        );
      }
      case "agent": {
        const { agents } = await orchestration.listAgents({ pageSize: MAX_NAMES }, options);
        return starting(
          agents.map(({ name, description }) => ({ value: name, description })),
          completion.prefix,
        );
      }
      case "tool arguments": {
        const { tool } = await registry.getTool({ name: completion.operands[0] ?? "" }, options);
        const schema = tool?.inputSchema ?? {};
        const given = new Set(completion.operands.slice(1).map((word) => word.split(/:?=/, 1)[0]));
        return starting(
          [...propertiesOf(resolveSchema(schema, schema), schema)]
            .filter(([name]) => !given.has(name))
            .map(([name, { description }]) => ({
              value: `${name}=`,
              description: typeof description === "string" ? firstSentence(description) : "",
            })),
          completion.prefix,
        );
      }
    }
  } catch {
    return [];
  }
}

function starting(candidates: readonly Candidate[], prefix: string): Candidate[] {
  const unique = new Map(candidates.map((candidate) => [candidate.value, candidate]));
  return [...unique.values()].filter(({ value }) => value.startsWith(prefix));
}

function rootOf(command: Command): Command {
  return command.parent === null ? command : rootOf(command.parent);
}
