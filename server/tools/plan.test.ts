import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { OutboundConfigSchema } from "@toolplane/gen/toolplane/config/v1/server_config_pb.js";
import { Idempotency, Streaming } from "@toolplane/gen/toolplane/registry/v1/tool_pb.js";
import { expect, test } from "vitest";
import type { AuthorPolicy } from "../backends/invocation.ts";
import { resolveOutbound } from "../config/outbound.ts";
import { createPlans } from "./plan.ts";

const silent: AuthorPolicy = { shared: undefined, attempts: undefined, timeoutMs: undefined };
const reads = {
  name: "acme.Read",
  idempotency: Idempotency.NO_SIDE_EFFECTS,
  cacheTtlMs: undefined,
  streaming: Streaming.UNARY,
};
const writes = { ...reads, name: "acme.Write", idempotency: Idempotency.UNSPECIFIED };

const plans = (config: MessageInitShape<typeof OutboundConfigSchema> = {}) =>
  createPlans(resolveOutbound(create(OutboundConfigSchema, config)), 60_000);

test("what has no side effects is repeated and shared, what may have some is neither", () => {
  const { of } = plans();
  expect(of(reads, silent)).toMatchObject({ repeatable: true, shared: true, attempts: 3, timeoutMs: 60_000 });
  expect(of(writes, silent)).toMatchObject({ repeatable: false, shared: false });
  const idempotent = { ...writes, idempotency: Idempotency.IDEMPOTENT };
  expect(of(idempotent, silent)).toMatchObject({ repeatable: true, shared: false });
});

test("the author's word stands above what holds for all, and the operator's above that", () => {
  const author = { shared: false, attempts: 5, timeoutMs: 1_000 };
  expect(plans().of(reads, author)).toMatchObject({ shared: false, attempts: 5, timeoutMs: 1_000 });
  const { of } = plans({
    tools: [{ tool: "acme.*", retryAttempts: 2, timeout: { seconds: 7n }, idempotent: true, unshared: true }],
  });
  expect(of(writes, { ...author, shared: true })).toMatchObject({
    attempts: 2,
    timeoutMs: 7_000,
    repeatable: true,
    shared: false,
  });
});

test("of the operator's patterns, the first that matches the whole name counts", () => {
  const { of } = plans({
    tools: [
      { tool: "acme.Re*d", retryAttempts: 1 },
      { tool: "acme.v1+.*", retryAttempts: 2 },
      { tool: "*", retryAttempts: 4 },
    ],
  });
  const attempts = (name: string) => of({ ...reads, name }, silent).attempts;
  expect(
    ["acme.Read", "acme.Red", "acme.Reader", "my.acme.Read", "acme.v1+.X", "acme.v11.X"].map(attempts),
  ).toEqual([1, 1, 4, 4, 2, 4]);
  expect(["acme.Read", "acme.v1+.X"].map(attempts)).toEqual([1, 2]);
});

test("answers are kept only of what has no side effects, by its own word or the operator's", () => {
  const config = { tools: [{ tool: "acme.*", cacheTtl: { seconds: 5n } }] };
  expect(plans().of({ ...reads, cacheTtlMs: 9 }, silent).cacheTtlMs).toBe(9);
  expect(plans(config).of({ ...reads, cacheTtlMs: 9 }, silent).cacheTtlMs).toBe(5_000);
  expect(plans(config).of(writes, silent).cacheTtlMs).toBe(0);
  const sure = { tools: [{ tool: "acme.*", cacheTtl: { seconds: 5n }, idempotent: true }] };
  expect(plans(sure).of(writes, silent).cacheTtlMs).toBe(5_000);
  const never = { tools: [{ tool: "acme.*", cacheTtl: {} }] };
  expect(plans(never).of({ ...reads, cacheTtlMs: 9 }, silent).cacheTtlMs).toBe(0);
  const off = { cache: { disabled: true } };
  expect(plans(off).of({ ...reads, cacheTtlMs: 9 }, silent).cacheTtlMs).toBe(0);
});

test("streams are neither shared nor kept, and have no fallback", () => {
  const config = {
    tools: [{ tool: "*", cacheTtl: { seconds: 5n }, fallback: { case: "resultJson", value: "1" } }],
  } satisfies MessageInitShape<typeof OutboundConfigSchema>;
  const stream = { ...reads, streaming: Streaming.SERVER };
  expect(plans(config).of(stream, { ...silent, shared: true })).toMatchObject({
    shared: false,
    cacheTtlMs: 0,
    fallback: undefined,
    repeatable: true,
  });
});
