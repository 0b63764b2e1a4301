import { type ConnectError, type ContextValues, createContextKey } from "@connectrpc/connect";
import type { Principal } from "./call-context.ts";

/** What the framework remembers about one call while it runs. Handlers see the `CallContext` instead. */
export interface CallRecord {
  /** `receiving` until the interceptors run: a failure is the caller's before and ours after. */
  stage: "receiving" | "handling";
  /** The error that the interceptors decided to send. */
  failure: ConnectError | undefined;
  /** What the call ends with, as far as is known; undefined: success. */
  outcome: ConnectError | undefined;
  /** To be called when the answer is written, or nobody waits for it any more. */
  finish: () => void;
  /** Names the call in logs and errors. */
  readonly correlationId: string;
  /** The address of the other end of the connection. */
  readonly peer: string;
  /** Whom a call from within the process acts for. Nothing that comes over a network can set it. */
  readonly principal?: Principal | undefined;
  /** Ends the wait for a handler when the call is aborted. */
  abandon: ((reason: unknown) => void) | undefined;
  /** Ends the reading of the request's body, so that a call that is over does not wait for it. */
  readonly stopReading: (reason: unknown) => void;
}

export const callRecordKey = createContextKey<CallRecord | undefined>(undefined, {
  description: "toolplane call record",
});

export function callRecord(values: ContextValues): CallRecord {
  const record = values.get(callRecordKey);
  if (record === undefined) {
    throw new Error("the call has no record: it did not come in through serve()");
  }
  return record;
}
