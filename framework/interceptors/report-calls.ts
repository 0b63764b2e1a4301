import type { DescService } from "@bufbuild/protobuf";
import type { ConnectError } from "@connectrpc/connect";
import { type Logger, unredacted } from "../logging.ts";
import type { Principal } from "./call-context.ts";

/** A finished call, as it is logged and measured. */
export interface FinishedCall {
  /** `package.Service/Method`. */
  readonly method: string;
  readonly protocol: "connect" | "grpc" | "grpc-web";
  /** `ok` or the name of the error code, such as `not_found`. */
  readonly code: string;
  readonly durationMs: number;
  readonly correlationId: string;
  readonly principal: Principal;
  readonly peer: string;
}

export interface ReportCallsOptions {
  readonly logger: Logger;
  /** Called once for every call, when it is over. */
  readonly onCall?: ((call: FinishedCall) => void) | undefined;
  /** Fully qualified names of services whose successful calls are logged at level `debug`. */
  readonly quietServices: ReadonlySet<string>;
}

/** Writes a line about each finished call, and reports it. */
export function reportCalls({
  logger,
  onCall,
  quietServices,
}: ReportCallsOptions): (call: FinishedCall, error: ConnectError | undefined, service: DescService) => void {
  const lines = unredacted(logger);
  return (call, error, service) => {
    const level = error === undefined && quietServices.has(service.typeName) ? "debug" : "info";
    if (logger.isLevelEnabled(level)) {
      lines[level](
        {
          correlationId: call.correlationId,
          method: call.method,
          code: call.code,
          durationMs: Math.round(call.durationMs * 1000) / 1000,
          protocol: call.protocol,
          peer: call.peer,
          principal: call.principal.id,
          error: error?.rawMessage,
        },
        "call",
      );
    }
    onCall?.(call);
  };
}
