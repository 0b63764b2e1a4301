import { Code, ConnectError, createContextValues } from "@connectrpc/connect";
import type { UniversalClientFn } from "@connectrpc/connect/protocol";
import { abortable, untilAborted } from "../interceptors/abortable.ts";
import type { Principal } from "../interceptors/call-context.ts";
import { type CallRecord, callRecordKey } from "../interceptors/call-record.ts";
import { correlationIdHeader, correlationIdOf, requestIdHeader } from "../interceptors/correlation-id.ts";
import type { RoutedRpc } from "./router.ts";
import { clampTimeout, rpcProtocol } from "./rpc-protocol.ts";

/**
 * An HTTP client for Connect transports that reaches a server's own services without a connection: no port, no
 * certificate, no limit of the listener is in the way. Calls pass the same chain as those that come in over the network.
 *
 * @param principal whom the calls act for, which no credentials have to prove. Undefined: nobody, so where callers are
 *   authenticated a call needs credentials of its own.
 */
export function createLocalClient(
  rpcs: ReadonlyMap<string, RoutedRpc>,
  principal: Principal | undefined,
): UniversalClientFn {
  return async (request) => {
    const { pathname } = new URL(request.url);
    const rpc = rpcs.get(pathname);
    if (rpc === undefined) {
      throw new ConnectError(`there is nothing at ${pathname}`, Code.Unimplemented);
    }
    const left = new AbortController();
    const signal = AbortSignal.any([left.signal, ...(request.signal ? [request.signal] : [])]);
    const reading = new AbortController();
    const header = new Headers(request.header);
    const headers = Object.fromEntries(header);
    clampTimeout(header, rpcProtocol(request.method, headers), rpc.maxTimeoutMs);
    const record: CallRecord = {
      stage: "receiving",
      failure: undefined,
      outcome: undefined,
      finish: () => {},
      abandon: undefined,
      correlationId: correlationIdOf(headers[correlationIdHeader] ?? headers[requestIdHeader]),
      peer: "local",
      principal,
      stopReading: (reason) => reading.abort(reason),
    };
    // Once: when the answer was read, when its reader leaves, or when the call is aborted, whichever is first.
    function finish() {
      signal.removeEventListener("abort", finish);
      record.finish();
      record.finish = () => {};
      left.abort(new ConnectError("the caller left", Code.Canceled));
    }

    try {
      const answering = rpc.handler({
        httpVersion: "2.0",
        method: request.method,
        url: request.url,
        header,
        body: abortable(request.body ?? nothing(), reading.signal),
        signal,
        contextValues: createContextValues().set(callRecordKey, record),
      });
      // After Connect's own listener, which notes why the call ends.
      signal.addEventListener("abort", finish);
      const answer = await untilAborted(answering, signal);
      return {
        status: answer.status,
        header: new Headers(answer.header),
        body: withEnd(answer.body ?? nothing(), signal, finish),
        // The same object: it is filled while the body is read.
        trailer: answer.trailer ?? new Headers(),
      };
    } catch (error) {
      finish();
      throw error;
    }
  };
}

async function* withEnd(
  body: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
  onEnd: () => void,
): AsyncGenerator<Uint8Array> {
  try {
    yield* abortable(body, signal);
  } finally {
    onEnd();
  }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
