import { create } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";
import { ErrorInfoSchema } from "@toolplane/gen/google/rpc/error_details_pb.js";
import { expect, test } from "vitest";
import { judge, judged, judgementOf } from "./judge.ts";

const waiting = new AbortController().signal;

function sent(code: Code): ConnectError {
  const error = new ConnectError("x", code);
  error.isWireError = true;
  return error;
}

const found = (code: Code) => new ConnectError("x", code);
const ours = (code: Code, reason: string) => new DomainError({ code, reason, message: "x" });

function httpStatus(code: Code): ConnectError {
  const value = create(ErrorInfoSchema, { reason: "HTTP_STATUS", domain: "toolplane" });
  return new ConnectError("x", code, undefined, [{ desc: ErrorInfoSchema, value }]);
}

const all = ["failure", "failure", "failure"];
const tool = ["ignored", "ignored", "failure"];
const none = ["ignored", "ignored", "ignored"];

test.for([
  ["a backend that says it is unavailable", sent(Code.Unavailable), all, "transient", true],
  ["a connection that broke", ours(Code.Unavailable, "CONNECTION_LOST"), all, "transient", false],
  ["an instance that is gone", ours(Code.Unavailable, "UNREACHABLE"), all, "transient", false],
  ["a stream that was reset", found(Code.Internal), all, "transient", false],
  ["frames that are no message", found(Code.DataLoss), all, "transient", false],
  ["INTERNAL as the application says it", sent(Code.Internal), tool, "permanent", true],
  ["HTTP status 500", httpStatus(Code.Internal), tool, "permanent", true],
  ["HTTP status 503", httpStatus(Code.Unavailable), all, "transient", true],
  ["a result that cannot be used", ours(Code.Internal, "INVALID_RESULT"), tool, "permanent", true],
  ["a result that is too large", ours(Code.ResourceExhausted, "RESULT_TOO_LARGE"), none, "permanent", true],
  ["a pool without room", ours(Code.ResourceExhausted, "POOL_EXHAUSTED"), none, "transient", false],
  ["a caller's mistake", sent(Code.InvalidArgument), none, "permanent", true],
  ["a missing thing", sent(Code.NotFound), none, "permanent", true],
  ["a backend that asks for less", sent(Code.ResourceExhausted), none, "permanent", true],
] as const)("%s", ([_, error, blame, retry, answered]) => {
  const judgement = judge({ error, signal: waiting, patience: "ample" });
  expect([judgement.instance, judgement.service, judgement.tool]).toEqual(blame);
  expect(judgement.retry.kind).toBe(retry);
  expect(judgement.answered).toBe(answered);
});

test("time that is up says something only after as long as such calls take", () => {
  const ended = AbortSignal.abort();
  for (const [patience, blame] of [
    ["short", none],
    ["unproven", tool],
    ["ample", all],
  ] as const) {
    for (const signal of [waiting, ended]) {
      const judgement = judge({ error: found(Code.DeadlineExceeded), signal, patience });
      expect([judgement.instance, judgement.service, judgement.tool]).toEqual(blame);
      expect(judgement.retry.kind).toBe("permanent");
    }
  }
});

test("nothing that happens after the caller has left is held against anyone", () => {
  const judgement = judge({ error: found(Code.Canceled), signal: AbortSignal.abort(), patience: "ample" });
  expect([judgement.instance, judgement.service, judgement.tool]).toEqual(none);
});

test("only what has certainly not arrived may be repeated whatever it does", () => {
  for (const [error, unsent] of [
    [ours(Code.Unavailable, "UNREACHABLE"), true],
    [ours(Code.Unavailable, "CONNECTION_LOST"), undefined],
    [found(Code.Internal), undefined],
  ] as const) {
    const { retry } = judge({ error, signal: waiting, patience: "short" });
    expect(retry.kind === "transient" && (retry.unsent || undefined)).toBe(unsent);
  }
});

test("what is known about an error goes where the error goes", () => {
  const error = found(Code.Internal);
  expect(judgementOf(error)).toBeUndefined();
  const judgement = judge({ error, signal: waiting, patience: "short" });
  expect(judgementOf(judged(error, judgement))).toBe(judgement);
  expect(judgementOf("text")).toBeUndefined();
});
