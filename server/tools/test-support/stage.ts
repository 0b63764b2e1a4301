import { getEventListeners } from "node:events";
import { setImmediate } from "node:timers/promises";
import { create, type JsonValue, type Message, type MessageInitShape } from "@bufbuild/protobuf";
import { anonymous, type Principal } from "@toolplane/framework";
import { createResponseCache, type ResponseCache } from "@toolplane/framework/policies";
import { OutboundConfigSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { HealthStatus, Protocol } from "@toolplane/gen/toolplane/registry/v1/service_pb.js";
import { Idempotency, Streaming, ToolKind } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { ToolCallSchema } from "@toolplane/gen/toolplane/tools/v1/tool_service_pb.js";
import { expect, onTestFinished } from "vitest";
import { createFakeClock, type FakeClock } from "../../../framework/test-support/fake-clock.ts";
import type { Backend, Input, Invocation, Output } from "../../backends/invocation.ts";
import { resolveOutbound } from "../../config/outbound.ts";
import { isTimeout } from "../../timeout.ts";
import { type CallEnd, type CallEvent, createCaller } from "../caller.ts";
import type { IdempotentCalls } from "../idempotent-calls.ts";
import { createOutbound, type Outbound } from "../outbound.ts";

export interface StageOptions {
  readonly streaming?: Streaming;
  readonly idempotency?: Idempotency;
  /** How many instances there are at first. Default: 1. */
  readonly instances?: number;
  readonly settings?: MessageInitShape<typeof OutboundConfigSchema>;
  readonly idempotent?: IdempotentCalls;
  /** What the tool says of its answers, in milliseconds. */
  readonly cacheTtlMs?: number;
  /** Default: 0. */
  readonly staleWhileRevalidateMs?: number;
}

/** A call that an instance was sent, to be answered as a test likes. */
export interface Received extends Invocation {
  readonly instance: string;
  readonly input: JsonValue;
  answer(value: JsonValue): void;
  /** Ends a stream. */
  end(): void;
  fail(error: unknown): void;
}

export interface StagedCall {
  /** In order; the last one comes with the end. */
  readonly events: CallEvent[];
  readonly results: JsonValue[];
  /** Resolves with the end of a call that goes well. */
  readonly done: Promise<Extract<CallEvent, { kind: "finished" }>>;
  leave(): void;
}

type ToolCallInit = Exclude<MessageInitShape<typeof ToolCallSchema>, Message>;

export interface StagedCallOptions extends Pick<ToolCallInit, "input" | "requestId" | "timeout" | "version"> {
  readonly principal?: Principal;
  readonly timeoutMs?: number;
  /** Stops reading after so many events. */
  readonly take?: number;
  /** Whether all results have to go into one message. */
  readonly gathers?: boolean;
}

/** One tool, whose backend does what the test says when it says so, and all that protects it. */
export interface Stage {
  readonly clock: FakeClock;
  readonly outbound: Outbound;
  readonly cache: ResponseCache;
  /** All calls that instances were sent, oldest first. */
  readonly received: Received[];
  readonly ends: CallEnd[];
  /** The instances that there are. */
  instances: string[];
  /** Instances whose secrets are missing. */
  readonly without: Set<string>;
  call(options?: StagedCallOptions): StagedCall;
  /** Lets everything happen that needs no time. */
  settle(): Promise<void>;
  /** Moves time on step by step, so that what happens on the way can. */
  pass(ms: number): Promise<void>;
  /** Asserts that nobody holds anything any more. */
  expectNothingHeld(): void;
}

type Item =
  | { readonly kind: "answer"; readonly value: JsonValue }
  | { readonly kind: "end" }
  | { readonly kind: "failure"; readonly error: unknown };

function outputOf(value: JsonValue): Output {
  return { json: () => value, bytes: () => Buffer.from(JSON.stringify(value)) };
}

export function createStage(options: StageOptions = {}): Stage {
  const { streaming = Streaming.UNARY, idempotency = Idempotency.NO_SIDE_EFFECTS } = options;
  const clock = createFakeClock();
  const received: Received[] = [];
  const ends: CallEnd[] = [];
  const signals: AbortSignal[] = [];
  const without = new Set<string>();
  let instances = Array.from({ length: options.instances ?? 1 }, (_, index) => `i${index}`);
  let open = 0;

  const backend: Backend = {
    kind: "utcp",
    invoker: () => ({
      streaming,
      policy: { shared: undefined, attempts: undefined, timeoutMs: undefined },
      // Inputs are opaque to everyone else.
      parse: (json) => json as unknown as Input,
      parseMessage: () => ({}) as Input,
      fingerprint: (input) => Buffer.from(JSON.stringify(input)),
      restore: (bytes) => outputOf(JSON.parse(Buffer.from(bytes).toString())),
      resultOf: outputOf,
      async *invoke(inputs, invocation) {
        const queue: Item[] = [];
        let wake = () => {};
        const push = (item: Item) => {
          queue.push(item);
          wake();
        };
        const [input] = Array.from(inputs as Iterable<Input>);
        received.push({
          ...invocation,
          instance: invocation.target.endpoint,
          input: input as unknown as JsonValue,
          answer: (value) => push({ kind: "answer", value }),
          end: () => push({ kind: "end" }),
          fail: (error) => push({ kind: "failure", error }),
        });
        const onAbort = () => push({ kind: "failure", error: invocation.signal.reason });
        invocation.signal.addEventListener("abort", onAbort);
        if (invocation.signal.aborted) {
          onAbort();
        }
        open++;
        try {
          for (;;) {
            const item = queue.shift();
            switch (item?.kind) {
              case "answer":
                yield outputOf(item.value);
                break;
              case "failure":
                throw item.error;
              case "end":
                return;
              case undefined:
                await new Promise<void>((resolve) => {
                  wake = resolve;
                });
            }
          }
        } finally {
          open--;
          invocation.signal.removeEventListener("abort", onAbort);
        }
      },
    }),
  };

  const cache = createResponseCache({
    name: "tools",
    staleWhileRevalidateMs: options.staleWhileRevalidateMs ?? 0,
    clock,
    mayOutlive: isTimeout,
    random: () => 0,
  });
  const outbound = createOutbound({
    settings: resolveOutbound(create(OutboundConfigSchema, options.settings ?? {})),
    defaultTimeoutMs: 10_000,
    registry: { reportUnreachable() {} },
    cache,
    idempotent: options.idempotent,
    clock,
    random: () => 0,
  });
  onTestFinished(async () => {
    await outbound.close();
    await cache.close();
  });
  const caller = createCaller({
    registry: {
      resolveTool: (name, { version }) => ({
        name,
        service: "sample",
        environment: "default",
        version: version || "1.0.0",
        sourceName: name,
        kind: ToolKind.HTTP,
        streaming,
        idempotency,
        cacheTtlMs: options.cacheTtlMs,
        problem: undefined,
        definition: async () => ({ kind: "utcp", bytes: new Uint8Array() }),
        instances: instances.map((id) => ({
          id,
          health: HealthStatus.HEALTHY,
          target() {
            if (without.has(id)) {
              throw new Error("a secret is missing");
            }
            return { endpoint: id, protocol: Protocol.GRPC, headers: new Headers() };
          },
        })),
      }),
    },
    backends: [backend],
    outbound,
    clock,
    onCall: () => (end) => ends.push(end),
  });

  async function settle(): Promise<void> {
    for (let turn = 0; turn < 3; turn++) {
      await setImmediate();
    }
  }

  return {
    clock,
    outbound,
    cache,
    received,
    ends,
    without,
    get instances() {
      return instances;
    },
    set instances(ids) {
      instances = ids;
    },
    call({
      principal = anonymous,
      timeoutMs,
      take = Number.POSITIVE_INFINITY,
      gathers = false,
      ...call
    } = {}) {
      const controller = new AbortController();
      signals.push(controller.signal);
      const events: CallEvent[] = [];
      const results: JsonValue[] = [];
      async function follow() {
        const context = {
          principal,
          signal: controller.signal,
          timeoutMs,
          headers: new Headers(),
          path: "call",
          gathers,
        };
        for await (const event of caller.call(
          create(ToolCallSchema, { tool: "sample.Do", ...call }),
          context,
        )) {
          events.push(event);
          if (event.kind === "result") {
            results.push(event.output.json());
          }
          if (events.length >= take) {
            break;
          }
        }
        const last = events.at(-1);
        expect.assert(last?.kind === "finished");
        return last;
      }
      const done = follow();
      done.catch(() => undefined);
      return { events, results, done, leave: () => controller.abort() };
    },
    settle,
    async pass(ms) {
      await settle();
      for (let left = ms; left > 0; left -= 10) {
        clock.advance(Math.min(left, 10));
        await setImmediate();
      }
      await settle();
    },
    expectNothingHeld() {
      expect(open).toBe(0);
      expect(outbound.coalescer?.stats().inFlight ?? 0).toBe(0);
      expect(outbound.throttles.list().map(({ waiting }) => waiting)).toEqual(
        outbound.throttles.list().map(() => 0),
      );
      for (const limit of outbound.throttles.list()) {
        if (limit.kind === "concurrency") {
          expect(limit.remaining).toBe(limit.limit);
        }
      }
      for (const { state } of outbound.breakers?.list() ?? []) {
        if (state.kind === "half-open") {
          expect(state.probing).toBe(0);
        }
      }
      for (const instance of outbound.outliers?.list() ?? []) {
        expect(instance.inFlight).toBe(0);
      }
      for (const signal of signals) {
        expect(getEventListeners(signal, "abort")).toEqual([]);
      }
      // Whether an instance hangs is looked at once more.
      clock.advance(1_000);
      expect(clock.pending).toBe(0);
    },
  };
}
