import { expect, test } from "vitest";
import { FaultService } from "../../../examples/typescript/gen/examples/faults/v1/fault_service_pb.js";
import { authorPolicyOf } from "./author-policy.ts";

test("what a method's options say is taken, and silence is no word", () => {
  expect(authorPolicyOf(FaultService.method.getCounts)).toEqual({
    shared: false,
    attempts: undefined,
    timeoutMs: undefined,
  });
  expect(authorPolicyOf(FaultService.method.read)).toEqual({
    shared: undefined,
    attempts: undefined,
    timeoutMs: undefined,
  });
});
