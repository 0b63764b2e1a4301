import { Code, ConnectError } from "@connectrpc/connect";
import { DomainError } from "@toolplane/framework";

const UNTRUSTED_AUTHORITY =
  "the server's certificate comes from an authority that is not trusted: name a file with the authority's certificate in NODE_EXTRA_CA_CERTS when starting Toolplane";

/** What a Node error code means to someone who registered an address. */
const EXPLANATIONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "connection refused: is the server running and listening there?",
  ENOTFOUND: "the host name cannot be resolved",
  EAI_AGAIN: "the host name cannot be resolved now",
  ECONNRESET: "the server closed the connection",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ETIMEDOUT: "connecting took too long",
  EPROTO: "the TLS handshake failed: does the server speak TLS?",
  DEPTH_ZERO_SELF_SIGNED_CERT:
    "the server's certificate is self-signed and not trusted: name a file with it in NODE_EXTRA_CA_CERTS when starting Toolplane",
  SELF_SIGNED_CERT_IN_CHAIN: UNTRUSTED_AUTHORITY,
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: UNTRUSTED_AUTHORITY,
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: UNTRUSTED_AUTHORITY,
  CERT_HAS_EXPIRED: "the server's certificate has expired",
  ERR_TLS_CERT_ALTNAME_INVALID: "the server's certificate is for another host",
};

/** No connection could be opened. */
export function unreachable(origin: string, cause: unknown): DomainError {
  if (cause instanceof DomainError) {
    return cause;
  }
  const code = nodeErrorCode(cause);
  const why = (code && EXPLANATIONS[code]) ?? (cause instanceof Error ? cause.message : String(cause));
  return new DomainError({
    code: Code.Unavailable,
    reason: "UNREACHABLE",
    message: `Cannot connect to ${origin}: ${why}`,
    metadata: { endpoint: origin, ...(code ? { cause: code } : {}) },
    cause,
  });
}

/** A connection broke while a request was running on it: the server may have acted on it. */
export function connectionLost(origin: string, cause: unknown): DomainError {
  const known = domainErrorOf(cause);
  if (known?.init.code === Code.Unavailable) {
    return known;
  }
  const code = nodeErrorCode(cause);
  return new DomainError({
    code: Code.Unavailable,
    reason: "CONNECTION_LOST",
    message: `The connection to ${origin} was lost${code ? ` (${code})` : ""}`,
    metadata: { endpoint: origin },
    cause,
  });
}

/** The server gave up one request, and may have acted on it; its connection goes on. */
export function requestReset(origin: string, rstCode: number, cause: unknown): DomainError {
  const how = rstCode === 0 ? "ended its answer early" : `reset the request (HTTP/2 error ${rstCode})`;
  return new DomainError({
    code: Code.Unavailable,
    reason: "REQUEST_RESET",
    message: `${origin} ${how}`,
    metadata: { endpoint: origin },
    cause,
  });
}

/** The server turned a request away unseen, and did so again, or it cannot be sent again. */
export function refusesCalls(origin: string, cause?: unknown): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "CALL_REFUSED",
    message: `${origin} refuses calls`,
    metadata: { endpoint: origin },
    cause,
  });
}

/** Nothing was sent: the connection was given up before the request came to it. */
export class NotSentError extends Error {
  constructor(cause?: unknown) {
    super("the connection takes no more requests", { cause });
  }
}

/** HTTP/2 libraries, ours and many servers', refuse longer ones and give up the connection. */
export function headersTooLarge(origin: string, bytes: number, maxBytes: number): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "HEADERS_TOO_LARGE",
    message: `The headers of a request to ${origin} have ${bytes} bytes; at most ${maxBytes} can be sent`,
    metadata: { endpoint: origin, max_bytes: String(maxBytes) },
  });
}

/** Too many requests wait already, or one waited too long. */
export function poolExhausted(origin: string, why: string): DomainError {
  return new DomainError({
    code: Code.ResourceExhausted,
    reason: "POOL_EXHAUSTED",
    message: `No connection to ${origin} became free: ${why}`,
    metadata: { endpoint: origin },
    retryAfterMs: 1_000,
  });
}

/** The server speaks only HTTP/1.1, where a response cannot begin before the request has ended. */
export function http2Required(origin: string): DomainError {
  return new DomainError({
    code: Code.FailedPrecondition,
    reason: "HTTP2_REQUIRED",
    message: `${origin} speaks only HTTP/1.1, and streaming in both directions needs HTTP/2`,
    metadata: { endpoint: origin },
  });
}

/** The pool was closed before the request was sent. */
export function poolClosed(origin: string): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "SHUTTING_DOWN",
    message: `No connection to ${origin}: this server is shutting down`,
  });
}

/** The pool was closed while the request was running: the server may have acted on it. */
export function interrupted(origin: string): DomainError {
  return new DomainError({
    code: Code.Unavailable,
    reason: "INTERRUPTED",
    message: `The connection to ${origin} was closed: this server is shutting down`,
  });
}

/** The same error in the form that Connect transports keep as it is; `domainErrorOf` finds the original again. */
export function asConnectError(error: unknown): unknown {
  return error instanceof DomainError
    ? new ConnectError(error.message, error.init.code, undefined, undefined, error)
    : error;
}

/** The DomainError that an error from a pooled transport was made from. */
export function domainErrorOf(error: unknown): DomainError | undefined {
  if (error instanceof DomainError) {
    return error;
  }
  return error instanceof ConnectError && error.cause instanceof DomainError ? error.cause : undefined;
}

function nodeErrorCode(error: unknown): string | undefined {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    if ("code" in cause && typeof cause.code === "string") {
      return cause.code;
    }
  }
  return undefined;
}
