import { create, type JsonValue } from "@bufbuild/protobuf";
import { DomainError } from "@toolplane/framework";
import { ToolSelectionSchema } from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import pLimit from "p-limit";
import { providerName } from "../../schema/index.ts";
import { canonicalText, isObject, items } from "../../schema/json.ts";
import type { StepContext, StepEnd, StepOutput } from "../engine/step.ts";
import type { PlanRetry } from "../plan.ts";
import type { Conversation } from "./conversation.ts";
import type { WantedCall } from "./model.ts";
import { repetitionNote } from "./prompts.ts";
import type { Selection } from "./tool-choice.ts";
import { answerOf, boundResult, refusal, type ToolAnswer } from "./tool-results.ts";
import { type CheckedCall, SEARCH_TOOLS } from "./toolbox.ts";

/** The server's policies repeat calls where that is harmless; beyond that, the model decides. */
export const ONCE: PlanRetry = { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 };
/** Calls of one turn that are looked at. */
const MAX_CALLS = 100;
const TOO_MANY = {
  code: "resource_exhausted",
  message: `at most ${MAX_CALLS} calls can be made in a turn: make this one in the next`,
};
/** Of what a model wrote instead of arguments, for the event, in characters. */
const MAX_INPUT = 1_000;
/** Of a description in what a search returns, in characters. */
const MAX_SUMMARY = 300;
/** From so many identical calls on, the model is told. */
const REPETITIONS = 3;

/** Makes the calls of a turn, side by side, and offers what searches among them have found. */
export async function makeCalls(
  conversation: Conversation,
  turnId: string,
  calls: readonly WantedCall[],
  repetitions: Repetitions,
): Promise<{ readonly answers: readonly ToolAnswer[]; readonly tools: readonly string[] }> {
  const { limits, toolbox, redactor } = conversation;
  const limit = pLimit(limits.maxParallelCalls);
  const taken = calls.slice(0, MAX_CALLS);
  const tools = taken.flatMap((call) => toolbox.toolOf(call) ?? []);
  const outcomes = await Promise.allSettled(
    taken.map((call, index) => limit(() => makeCall(conversation, `${turnId}/call${index + 1}`, call))),
  );
  const answers: ToolAnswer[] = [];
  const found: string[] = [];
  for (const [index, call] of calls.entries()) {
    const target = toolbox.targetOf(call);
    const outcome = outcomes[index];
    if (outcome?.status === "rejected") {
      throw outcome.reason;
    }
    if (outcome === undefined) {
      answers.push(refusal(call, target, TOO_MANY));
      continue;
    }
    const answer = answerOf(call, target, outcome.value, repetitions.noteOn(target, call));
    answers.push({ ...answer, body: redactor.text(answer.body) });
    found.push(...(target === SEARCH_TOOLS ? foundBy(outcome.value) : []));
  }
  toolbox.add(found);
  return { answers, tools };
}

async function makeCall(conversation: Conversation, id: string, call: WantedCall): Promise<StepEnd> {
  const { toolbox, calling, allowed, time, redactor, logger, context } = conversation;
  const target = toolbox.targetOf(call);

  function check(step: StepContext): CheckedCall {
    try {
      return toolbox.check(call);
    } catch (error) {
      if (error instanceof DomainError) {
        const { reason } = error.init;
        logger.info({ run: step.run.id, path: step.path, tool: target, reason }, "a model's call is refused");
      }
      throw error;
    }
  }

  async function execute(step: StepContext): Promise<StepOutput> {
    const checked = check(step);
    if (checked.kind === "search") {
      return { output: await search(checked.query, conversation, step) };
    }
    const { run, path, idempotencyKey } = step;
    const spec = { tool: checked.tool.name, environment: allowed.environment, version: "" };
    const result = await time.within(step.signal, (signal) =>
      calling.call({ ...spec, arguments: checked.arguments }, { run, path, idempotencyKey, signal }),
    );
    // Secrets that a tool tells are no more for a model, and for its provider, than for anybody else.
    return { output: boundResult(redactor.json(result)) };
  }

  return await context.nested({
    id,
    kind: "tool",
    target,
    input: call.arguments ?? call.text.slice(0, MAX_INPUT),
    timeoutMs: undefined,
    retry: ONCE,
    async execute(step) {
      try {
        return await execute(step);
      } finally {
        if (toolbox.toolOf(call) !== undefined && !step.signal.aborted) {
          step.use({ toolCalls: 1 });
        }
      }
    },
  });
}

/** What a model is told that it has found, and what is offered from then on. */
async function search(
  query: string,
  { allowed, allowedCount }: Conversation,
  step: StepContext,
): Promise<JsonValue> {
  const candidates = await allowed.search(query);
  tellSelection(step, { query, allowed: allowedCount, candidates });
  const found = candidates.map(({ tool, score }) => {
    const description = allowed.find(tool)?.description.slice(0, MAX_SUMMARY) ?? "";
    return { name: providerName(tool), tool, description, score };
  });
  return { query, found };
}

function foundBy(end: StepEnd): string[] {
  const output = end.state === "succeeded" ? end.output : null;
  return isObject(output)
    ? items(output["found"]).flatMap((hit) => (isObject(hit) ? String(hit["tool"]) : []))
    : [];
}

/** Notices calls that are made again and again. */
export interface Repetitions {
  /** What the model is told besides the result, if anything. */
  noteOn(target: string, call: WantedCall): string | undefined;
}

export function createRepetitions(): Repetitions {
  const counts = new Map<string, number>();
  return {
    noteOn(target, call) {
      const key = `${target} ${canonicalText(call.arguments ?? call.text)}`;
      const times = (counts.get(key) ?? 0) + 1;
      counts.set(key, times);
      return times >= REPETITIONS ? repetitionNote(times) : undefined;
    },
  };
}

/** Tells how tools were chosen. */
export function tellSelection(step: StepContext, { query, allowed, candidates }: Selection): void {
  const value = create(ToolSelectionSchema, {
    query,
    allowed,
    candidates: candidates.map((candidate) => ({ ...candidate, offered: true })),
  });
  step.tell({ case: "toolSelection", value });
}
