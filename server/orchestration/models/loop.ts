import { create, type JsonObject, type JsonValue } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { type ToolScope, UsageSchema } from "@toolplane/gen/toolplane/orchestration/v1/model_pb.js";
import {
  ModelDeltaSchema,
  UsageUpdateSchema,
} from "@toolplane/gen/toolplane/orchestration/v1/run_event_pb.js";
import { isShallow } from "../../schema/json.ts";
import { errorOf } from "../engine/statuses.ts";
import type { StepContext, StepEnd, StepOutput } from "../engine/step.ts";
import type { PlanRetry } from "../plan.ts";
import {
  addTurn,
  checkPrice,
  checkSpent,
  createTimeBudget,
  limitsOf,
  NOTHING_SPENT,
  type Spent,
  toUsage,
} from "./budgets.ts";
import { createRepetitions, makeCalls, ONCE, tellSelection } from "./calls.ts";
import type { Conversation, ModelLoopOptions, ModelTask } from "./conversation.ts";
import { createDeltas } from "./deltas.ts";
import { mayPass } from "./may-pass.ts";
import type { Model, ModelMessage, Turn, TurnRequest } from "./model.ts";
import { GO_ON, LAST_TURN, systemPrompt } from "./prompts.ts";
import { type AllowedTools, allowedTools, type Selection } from "./tool-choice.ts";
import { MAX_DEPTH, toolMessage } from "./tool-results.ts";
import { createToolbox, SEARCH_TOOLS } from "./toolbox.ts";

export type { ModelLoopOptions, ModelTask } from "./conversation.ts";

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

/** Of a turn: overload passes within seconds. A provider that says when to come back is waited for as it says. */
const TURN_RETRY: PlanRetry = { attempts: 3, initialBackoffMs: 1_000, maxBackoffMs: 30_000 };
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

async function takeTurn(
  { gateway, task, time, clock, redactor, context }: Conversation,
  id: string,
  input: Omit<TurnRequest, "model">,
): Promise<RecordedTurn> {
  const { model } = task;

  async function execute(step: StepContext): Promise<StepOutput> {
    if (step.attempt > 1) {
      step.tell({ case: "modelDelta", value: create(ModelDeltaSchema, { restarted: true }) });
    }
    const deltas = createDeltas(step, { clock, redactor });
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
    retry: task.retriesTurns ? TURN_RETRY : ONCE,
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
