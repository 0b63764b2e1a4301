import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { RetryInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { expect, test } from "vitest";
import { domainConnectError } from "../errors/connect-error.ts";
import { DomainError, type DomainErrorInit } from "../errors/domain-error.ts";
import { classifyFailure } from "./retry-failure.ts";

const every = Object.values(Code).filter((code) => typeof code === "number");

function failure(code: Code, metadata: Record<string, string> = {}): ConnectError {
  return new ConnectError("failed", code, metadata);
}

test("only UNAVAILABLE is transient by itself", () => {
  const transient = every.filter((code) => classifyFailure(failure(code)).kind === "transient");
  expect(transient).toEqual([Code.Unavailable]);
});

test("RESOURCE_EXHAUSTED and ABORTED are, too, when the server says how long to wait", () => {
  const waits = { "grpc-retry-pushback-ms": "250" };
  const transient = every.filter((code) => classifyFailure(failure(code, waits)).kind === "transient");
  expect(transient).toEqual([Code.ResourceExhausted, Code.Aborted, Code.Unavailable]);
});

test.each<[string, Record<string, string>, number | undefined]>([
  ["gRPC's push-back", { "grpc-retry-pushback-ms": "250" }, 250],
  ["seconds", { "retry-after": "3" }, 3_000],
  ["a date", { "retry-after": "Thu, 01 Jan 2026 00:00:10 GMT" }, 10_000],
  ["a date that has passed", { "retry-after": "Thu, 01 Jan 2015 00:00:10 GMT" }, 0],
  ["something else", { "retry-after": "soon" }, undefined],
  ["a number that is neither", { "retry-after": "-1" }, undefined],
  ["a fraction", { "retry-after": "1.5" }, undefined],
  ["gRPC's push-back first", { "grpc-retry-pushback-ms": "250", "retry-after": "3" }, 250],
])("a server can ask for a wait: %s", (_, metadata, pushBackMs) => {
  const found = classifyFailure(failure(Code.Unavailable, metadata), Date.UTC(2026, 0, 1));
  expect(found.kind === "transient" && found.pushBackMs).toBe(pushBackMs);
});

test("RetryInfo goes before Retry-After", () => {
  const error = failure(Code.ResourceExhausted, { "retry-after": "3" });
  error.details.push({ desc: RetryInfoSchema, value: { retryDelay: durationFromMs(1_500) } });
  expect(classifyFailure(error)).toMatchObject({ kind: "transient", pushBackMs: 1_500 });
});

test.each(["-1", "never", ""])("a push-back of %j forbids another attempt", (value) => {
  expect(classifyFailure(failure(Code.Unavailable, { "grpc-retry-pushback-ms": value }))).toEqual({
    kind: "forbidden",
  });
});

test("our own errors mean the same before and after they are sent", () => {
  const inits: DomainErrorInit[] = [
    { code: Code.Unavailable, reason: "OVERLOADED", message: "", retryAfterMs: 700 },
    { code: Code.Unavailable, reason: "NO_INSTANCE", message: "" },
    { code: Code.ResourceExhausted, reason: "RATE_LIMITED", message: "", retryAfterMs: 700 },
    { code: Code.ResourceExhausted, reason: "MESSAGE_TOO_LARGE", message: "" },
    { code: Code.NotFound, reason: "NOT_FOUND", message: "" },
  ];
  for (const init of inits) {
    expect(classifyFailure(new DomainError(init))).toEqual(classifyFailure(domainConnectError(init)));
  }
});

test("what is no RPC error is permanent", () => {
  expect(classifyFailure(new TypeError("x is not a function"))).toEqual({ kind: "permanent" });
  expect(classifyFailure("failed")).toEqual({ kind: "permanent" });
});

test("all addresses of a host must have refused the connection for a call to be unsent", () => {
  const refused = Object.assign(new Error("refused"), { syscall: "connect" });
  const unavailable = (cause: unknown) =>
    new ConnectError("failed", Code.Unavailable, undefined, undefined, cause);
  expect(classifyFailure(unavailable(new AggregateError([refused, refused])))).toMatchObject({
    unsent: true,
  });
  expect(classifyFailure(unavailable(new AggregateError([refused, new Error("?")])))).toMatchObject({
    unsent: false,
  });
});
