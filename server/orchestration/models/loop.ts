import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { type Clock, DomainError } from "@toolplane/framework";
import {
  type ModelBudget,
  type ToolScope,
  UsageSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  ModelDeltaSchema,
  ToolSelectionSchema,
  UsageUpdateSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import pLimit from "p-limit";
import type { Logger } from "pino";
import { providerName } from "../../schema/index.ts";
import { canonicalText, isObject, isShallow, items } from "../../schema/json.ts";
import type { ToolCalling } from "../actions/action.ts";
import { errorOf } from "../engine/statuses.ts";
import type { StepContext, StepEnd, StepOutput } from "../engine/step.ts";
import type { PlanRetry } from "../plan.ts";
import {
  addTurn,
  checkPrice,
  checkSpent,
  createTimeBudget,
  type Limits,
  limitsOf,
  NOTHING_SPENT,
  type Spent,
  type TimeBudget,
  toUsage,
} from "./budgets.ts";
import { createDeltas } from "./deltas.ts";
import { mayPass } from "./may-pass.ts";
import type { Model, ModelGateway, ModelMessage, OfferedTool, Turn, WantedCall } from "./model.ts";
import { GO_ON, LAST_TURN, repetitionNote, systemPrompt } from "./prompts.ts";
import { type AllowedTools, allowedTools, type Selection, type ToolSource } from "./tool-choice.ts";
import { answerOf, boundResult, MAX_DEPTH, refusal, type ToolAnswer, toolMessage } from "./tool-results.ts";
import { type CheckedCall, createToolbox, SEARCH_TOOLS, type Toolbox } from "./toolbox.ts";

export interface ModelLoopOptions {
  readonly gateway: Pick<ModelGateway, "turn" | "costUsd">;
  readonly tools: ToolSource;
  readonly calling: ToolCalling;
  /** From more allowed tools than this on, a model searches for tools. */
  readonly searchToolsAbove: number;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** What a model is to do. */
export interface ModelTask {
  readonly model: Model;
  readonly instructions: string;
  readonly task: string;
  /** Undefined: all tools of the default environment. */
  readonly tools: ToolScope | undefined;
  readonly budget: ModelBudget | undefined;
}

export interface ModelAnswer {
  readonly text: string;
  readonly spent: Spent;
  /** Tools that were asked for, by their whole names, those whose arguments were refused included. */
  readonly called: ReadonlySet<string>;
  /** True: it had to answer, since its turns were used up. */
  readonly isForced: boolean;
}

/** Lets a model work on a task, turn by turn, until it answers. */
export type ModelLoop = (task: ModelTask, context: StepContext) => Promise<ModelAnswer>;

const ONCE: PlanRetry = { attempts: 1, initialBackoffMs: 0, maxBackoffMs: 0 };
/** Of a turn: overload passes within seconds. A provider that says when to come back is waited for as it says. */
const TURN_RETRY: PlanRetry = { attempts: 3, initialBackoffMs: 1_000, maxBackoffMs: 30_000 };
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

/**
 * Creates the loop. Every turn is a step of the run's journal (`turn1`), and so is every call that a turn wants
 * (`turn1/call2`) and the first choice of tools (`tools`). The conversation is made of nothing but what these steps gave
 * back: whoever goes on with a run makes the same one from the journal, and repeats nothing that has ended.
 */
export function createModelLoop(options: ModelLoopOptions): ModelLoop {
  return async (task, context) => {
    const limits = limitsOf(task.budget);
    checkPrice(limits, task.model, options.gateway);
    const allowed = allowedTools(task.tools, options);
    const selection = await choose(task, allowed, options, context);
    const toolbox = createToolbox({ allowed, model: task.model, searches: selection.query !== "" });
    toolbox.add(selection.candidates.map(({ tool }) => tool));
    const time = createTimeBudget(limits, context.startTime, options.clock);
    const allowedCount = selection.allowed;
    return await converse({ ...options, task, limits, allowed, allowedCount, toolbox, time, context });
  };
}

/** What one conversation works with. */
interface Conversation extends ModelLoopOptions {
  readonly task: ModelTask;
  readonly limits: Limits;
  readonly allowed: AllowedTools;
  /** As counted when the work began. */
  readonly allowedCount: number;
  readonly toolbox: Toolbox;
  readonly time: TimeBudget;
  readonly context: StepContext;
}

async function converse(conversation: Conversation): Promise<ModelAnswer> {
  const { task, limits, toolbox, time, context } = conversation;
  const hasTools = toolbox.offered().length > 0;
  const system = systemPrompt({ instructions: task.instructions, hasTools, searches: toolbox.searches });
  const messages: ModelMessage[] = [{ role: "user", content: task.task }];
  const repetitions = createRepetitions();
  const called = new Set<string>();
  let spent = NOTHING_SPENT;
  let text = "";

  for (const id of turnIds(context)) {
    checkSpent(limits, spent);
    if (context.recorded(id) === undefined) {
      time.check();
    }
    const isLast = spent.turns + 1 >= limits.maxTurns;
    if (isLast && hasTools) {
      messages.push({ role: "user", content: LAST_TURN });
    }
    const turn = await takeTurn(conversation, id, {
      system,
      messages: [...messages],
      tools: toolbox.offered(),
      toolChoice: isLast ? "none" : undefined,
      maxOutputTokens: Math.min(task.model.maxOutputTokens, limits.maxTokens - tokensOf(spent)),
    });
    spent = addTurn(spent, turn.usage, turn.costUsd ?? undefined);
    messages.push(...turn.messages);
    text += turn.text;
    if (turn.finish === "content-filter") {
      throw filtered(task.model);
    }
    if (turn.calls.length > 0) {
      text = "";
      checkSpent(limits, spent);
      const { answers, tools } = await makeCalls(conversation, id, turn.calls, repetitions);
      messages.push(toolMessage(answers));
      spent = { ...spent, toolCalls: spent.toolCalls + tools.length };
      for (const tool of tools) {
        called.add(tool);
      }
    } else if (turn.finish === "length") {
      messages.push({ role: "user", content: GO_ON });
    } else {
      return { text, spent, called, isForced: isLast && hasTools };
    }
  }
  throw new Error("turns have no end");
}

/**
 * The ids of turns, without those that failed in an earlier attempt of the whole and may succeed now: they stay in the
 * journal as they ended.
 */
function* turnIds({ recorded }: Pick<StepContext, "recorded">): Generator<string, void, void> {
  for (let number = 1; ; number++) {
    const id = `turn${number}`;
    const end = recorded(id);
    if (!(end?.state === "failed" && mayPass(end.error))) {
      yield id;
    }
  }
}

/** A turn as it is recorded. */
interface RecordedTurn extends Turn {
  /** Null: not known. */
  readonly costUsd: number | null;
}

interface TurnInput {
  readonly system: string;
  readonly messages: readonly ModelMessage[];
  readonly tools: readonly OfferedTool[];
  readonly toolChoice: "none" | undefined;
  readonly maxOutputTokens: number;
}

async function takeTurn(
  { gateway, task, time, clock, context }: Conversation,
  id: string,
  input: TurnInput,
): Promise<RecordedTurn> {
  const { model } = task;

  async function execute(step: StepContext): Promise<StepOutput> {
    if (step.attempt > 1) {
      step.tell({ case: "modelDelta", value: create(ModelDeltaSchema, { restarted: true }) });
    }
    const deltas = createDeltas(step, clock);
    let turn: Turn;
    try {
      turn = await time.within(step.signal, (signal) =>
        gateway.turn({ model, ...input }, { signal, onDelta: deltas.add }),
      );
    } finally {
      deltas.close();
    }
    const costUsd = gateway.costUsd(model, turn.usage);
    const usage = create(UsageSchema, toUsage(addTurn(NOTHING_SPENT, turn.usage, costUsd)));
    const total = step.use(usage);
    step.tell({ case: "usage", value: create(UsageUpdateSchema, { model: model.name, turn: usage, total }) });
    const recorded: RecordedTurn = { ...turn, costUsd: costUsd ?? null };
    return { output: toJsonValue(recorded), usage };
  }

  const end = await context.nested({
    id,
    kind: "turn",
    target: model.name,
    timeoutMs: undefined,
    retry: TURN_RETRY,
    execute,
  });
  // What is recorded under this id was made above, by this worker or another one.
  return outputOf(end) as unknown as RecordedTurn;
}

/** A copy of what is recorded: without members that are undefined, and no deeper than a journal can keep. */
function toJsonValue(turn: RecordedTurn): JsonValue {
  const json: JsonValue = JSON.parse(JSON.stringify(turn));
  if (!isShallow(json, MAX_DEPTH)) {
    throw new DomainError({
      code: Code.Unavailable,
      reason: "UNUSABLE_ANSWER",
      message: `What the model wrote nests more than ${MAX_DEPTH} levels deep`,
    });
  }
  return json;
}

async function choose(
  { task, tools: scope }: ModelTask,
  allowed: AllowedTools,
  { searchToolsAbove }: ModelLoopOptions,
  context: StepContext,
): Promise<Selection> {
  if (!allowed.any) {
    return { query: "", allowed: 0, candidates: [] };
  }
  const end = await context.nested({
    id: "tools",
    kind: "tool",
    target: SEARCH_TOOLS,
    input: scope && scopeInput(scope),
    timeoutMs: undefined,
    retry: ONCE,
    async execute(step) {
      const selection = await allowed.begin(task, searchToolsAbove);
      tellSelection(step, selection);
      return { output: JSON.parse(JSON.stringify(selection)) };
    },
  });
  // As above.
  return outputOf(end) as unknown as Selection;
}

function scopeInput({ names, tags, environment }: ToolScope): JsonObject {
  return { names, tags, environment };
}

function tellSelection(step: StepContext, { query, allowed, candidates }: Selection): void {
  const value = create(ToolSelectionSchema, {
    query,
    allowed,
    candidates: candidates.map((candidate) => ({ ...candidate, offered: true })),
  });
  step.tell({ case: "toolSelection", value });
}

/** Makes the calls of a turn, side by side, and offers what searches among them have found. */
async function makeCalls(
  conversation: Conversation,
  turnId: string,
  calls: readonly WantedCall[],
  repetitions: Repetitions,
): Promise<{ readonly answers: readonly ToolAnswer[]; readonly tools: readonly string[] }> {
  const { limits, toolbox } = conversation;
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
    answers.push(answerOf(call, target, outcome.value, repetitions.noteOn(target, call)));
    found.push(...(target === SEARCH_TOOLS ? foundBy(outcome.value) : []));
  }
  toolbox.add(found);
  return { answers, tools };
}

async function makeCall(conversation: Conversation, id: string, call: WantedCall): Promise<StepEnd> {
  const { toolbox, calling, allowed, time, logger, context } = conversation;
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
    return { output: boundResult(result) };
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
interface Repetitions {
  /** What the model is told besides the result, if anything. */
  noteOn(target: string, call: WantedCall): string | undefined;
}

function createRepetitions(): Repetitions {
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

function outputOf(end: StepEnd): JsonValue {
  switch (end.state) {
    case "succeeded":
      return end.output;
    case "failed":
      throw errorOf(end.error);
    case "skipped":
    case "cancelled":
      throw new ConnectError("the step was cancelled", Code.Canceled);
  }
}

function tokensOf({ inputTokens, outputTokens }: Spent): number {
  return inputTokens + outputTokens;
}

function filtered(model: Model): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "CONTENT_FILTERED",
    message: `The provider of model "${model.name}" has withheld the answer: its content filter objects to it`,
  });
}
